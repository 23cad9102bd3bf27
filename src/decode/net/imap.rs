//! Reads IMAP logins (RFC 9051). Never the password, and no mail.

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{self, Guess, Login, Opening, Out, Protocol, Side, Step};
use crate::decode::net::smtp::auth::Auth;
use crate::decode::reader;

/// One connection.
#[derive(Debug, Default)]
pub struct Imap {
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    tag: Vec<u8>,
    what: What,
}

#[derive(Debug)]
enum What {
    Login(Vec<u8>),
    Auth(Auth),
    Tls,
}

/// RFC 7162 4 asks servers for 8,192.
const LINE_BYTES_MAX: usize = 8192;

impl Imap {
    pub fn guess(opening: &Opening<'_>) -> Guess {
        match opening.side {
            Side::Server => dialogue::word(opening.bytes, &[b"* OK ", b"* PREAUTH ", b"* BYE "]),
            Side::Client if opening.other.starts_with(b"* ") => Guess::Yes,
            Side::Client => Guess::No,
        }
    }

    fn asked(&mut self, line: &[u8]) {
        if let Some(Asked {
            what: What::Auth(auth),
            ..
        }) = &mut self.asked
        {
            auth.line(line);
            return;
        }
        let mut words = line.splitn(3, |&b| b == b' ');
        let (Some(tag), Some(word)) = (words.next(), words.next()) else {
            return;
        };
        let rest = words.next().unwrap_or_default();
        let what = match &word.to_ascii_uppercase()[..] {
            b"LOGIN" => What::Login(user(rest).to_vec()),
            b"AUTHENTICATE" => What::Auth(Auth::begin(rest)),
            b"STARTTLS" => What::Tls,
            _ => return,
        };
        self.asked = Some(Asked {
            tag: tag.to_vec(),
            what,
        });
    }

    fn answered(&mut self, line: &[u8], out: &mut Out<'_, '_>) -> bool {
        let Some(asked) = &mut self.asked else {
            return false;
        };
        if let (What::Auth(auth), Some(text)) = (&mut asked.what, line.strip_prefix(b"+")) {
            auth.asked(text.trim_ascii());
            return false;
        }
        let Some(said) = line.strip_prefix(&asked.tag[..]) else {
            return false;
        };
        let success = said.to_ascii_uppercase().starts_with(b" OK");
        match &asked.what {
            What::Login(user) => out.login(&Login {
                service: "imap",
                user: Some(user),
                method: "password",
                success: Some(success),
                is_clear: true,
                ..Login::default()
            }),
            What::Auth(auth) => out.login(&auth.login("imap", success)),
            What::Tls if success => return true,
            What::Tls => {}
        }
        self.asked = None;
        false
    }
}

/// RFC 9051 9: an atom, or quoted. A literal stands in the next line, and is left out.
fn user(rest: &[u8]) -> &[u8] {
    match rest.strip_prefix(b"\"") {
        Some(quoted) => reader::split_byte(quoted, b'"').map_or(quoted, |(user, _)| user),
        None => reader::split_byte(rest, b' ').map_or(rest, |(user, _)| user),
    }
}

impl Protocol for Imap {
    fn service(&self) -> &'static str {
        "imap"
    }

    fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        out: &mut Out<'_, '_>,
    ) -> Result<Step, DecodeError> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some((line, used)) = dialogue::line(rest, LINE_BYTES_MAX, "IMAP line")? else {
                return Ok(Step::Used(at));
            };
            at += used;
            match side {
                Side::Client => self.asked(line),
                Side::Server if self.answered(line, out) => return Ok(Step::Switch(at)),
                Side::Server => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::net::conversation::tests::played;
    use crate::decode::net::dialogue::Side::{Client, Server};

    const NAMES: &[&str] = &[
        "user",
        "AuthenticationMethod",
        "Outcome",
        "CredentialsInClear",
    ];

    #[test]
    fn logins_are_told_and_the_password_never() {
        for (turns, expected) in [
            (
                &[
                    (Server, &b"* OK ready\r\n"[..]),
                    (Client, b"a1 LOGIN \"an\" \"s3cret\"\r\n"),
                    (Server, b"* CAPABILITY X\r\na1 NO bad\r\n"),
                ][..],
                "authentication/imap user=an AuthenticationMethod=password Outcome=failure CredentialsInClear=true",
            ),
            (
                &[
                    (Server, b"* OK ready\r\n"),
                    (Client, b"1 AUTHENTICATE PLAIN\r\n"),
                    (Server, b"+ \r\n"),
                    (Client, b"AGFuAHNlY3JldA==\r\n"),
                    (Server, b"1 OK in\r\n"),
                ],
                "authentication/imap user=an AuthenticationMethod=plain Outcome=success CredentialsInClear=true",
            ),
        ] {
            for piece in [1, 1000] {
                assert_eq!(played(turns, piece, NAMES), [expected], "pieces of {piece}");
            }
        }
    }
}
