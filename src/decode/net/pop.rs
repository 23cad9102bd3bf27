//! Reads POP3 logins (RFC 1939, RFC 5034). Never the password, and no mail.

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{self, Guess, Login, Opening, Out, Protocol, Side, Step};
use crate::decode::net::smtp::auth::Auth;
use crate::decode::reader;

/// One connection.
#[derive(Debug, Default)]
pub struct Pop {
    user: Option<Vec<u8>>,
    asked: Asked,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Asked {
    #[default]
    Other,
    Password,
    /// RFC 1939 7: the password as part of a digest.
    Apop,
    Auth(Auth),
    Tls,
}

/// RFC 1939 3: 512 of an answer, 255 of a command; servers are generous.
const LINE_BYTES_MAX: usize = 4096;

impl Pop {
    pub fn guess(opening: &Opening<'_>) -> Guess {
        const OPENERS: &[&[u8]] = &[b"USER ", b"CAPA", b"APOP ", b"AUTH", b"STLS"];
        match opening.side {
            Side::Server => Guess::tag(opening.bytes, b"+OK "),
            Side::Client if Guess::tag(opening.other, b"+OK") == Guess::Yes => Guess::Yes,
            Side::Client if opening.other.is_empty() => {
                match dialogue::word(opening.bytes, OPENERS) {
                    Guess::No => Guess::No,
                    _ => Guess::Perhaps,
                }
            }
            Side::Client => Guess::No,
        }
    }

    fn asked(&mut self, line: &[u8]) {
        if let Asked::Auth(auth) = &mut self.asked {
            auth.line(line);
            return;
        }
        let (word, rest) = reader::split_byte(line, b' ').unwrap_or((line, b""));
        self.asked = match &word.to_ascii_uppercase()[..] {
            b"USER" => {
                self.user = Some(rest.trim_ascii().to_vec());
                Asked::Other
            }
            b"PASS" => Asked::Password,
            b"APOP" => {
                self.user = reader::split_byte(rest, b' ').map(|(user, _)| user.to_vec());
                Asked::Apop
            }
            b"AUTH" if !rest.is_empty() => Asked::Auth(Auth::begin(rest)),
            b"STLS" => Asked::Tls,
            _ => Asked::Other,
        };
    }

    fn answered(&mut self, line: &[u8], out: &mut Out<'_, '_>) -> bool {
        let success = line.starts_with(b"+OK");
        if let (Asked::Auth(auth), Some(text)) = (&mut self.asked, line.strip_prefix(b"+ ")) {
            auth.asked(text);
            return false;
        }
        if !success && !line.starts_with(b"-ERR") {
            return false; // a line of a mail, or of a list
        }
        let method = |method, is_clear| Login {
            service: "pop3",
            user: self.user.as_deref(),
            method,
            success: Some(success),
            is_clear,
            ..Login::default()
        };
        match &self.asked {
            Asked::Password => out.login(&method("password", true)),
            Asked::Apop => out.login(&method("apop", false)),
            Asked::Auth(auth) => out.login(&auth.login("pop3", success)),
            Asked::Tls if success => return true,
            Asked::Tls | Asked::Other => {}
        }
        self.asked = Asked::Other;
        false
    }
}

impl Protocol for Pop {
    fn service(&self) -> &'static str {
        "pop3"
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
            let Some((line, used)) = dialogue::line(rest, LINE_BYTES_MAX, "POP3 line")? else {
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
                    (Server, &b"+OK ready\r\n"[..]),
                    (Client, b"USER an\r\n"),
                    (Server, b"+OK\r\n"),
                    (Client, b"PASS x y\r\n"),
                    (Server, b"-ERR no\r\n"),
                ][..],
                "authentication/pop3 user=an AuthenticationMethod=password Outcome=failure CredentialsInClear=true",
            ),
            (
                &[
                    (Server, b"+OK <1@x>\r\n"),
                    (Client, b"APOP an c4c9334bac560ecc979e58001b3e22fb\r\n"),
                    (Server, b"+OK\r\n"),
                ],
                "authentication/pop3 user=an AuthenticationMethod=apop Outcome=success CredentialsInClear=false",
            ),
            (
                &[
                    (Server, b"+OK x\r\n"),
                    (Client, b"AUTH PLAIN\r\n"),
                    (Server, b"+ \r\n"),
                    (Client, b"AGFuAHNlY3JldA==\r\n"),
                    (Server, b"+OK\r\n"),
                ],
                "authentication/pop3 user=an AuthenticationMethod=plain Outcome=success CredentialsInClear=true",
            ),
        ] {
            for piece in [1, 1000] {
                assert_eq!(played(turns, piece, NAMES), [expected], "pieces of {piece}");
            }
        }
    }
}
