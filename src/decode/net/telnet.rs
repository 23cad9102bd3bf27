//! Reads Telnet logins (RFC 854): the prompts and what is typed between them. Never the password.

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{Guess, Login, Opening, Out, Protocol, Side, Step};
use crate::decode::reader;
use crate::event::field::network;

/// One connection.
#[derive(Debug, Default)]
pub struct Telnet {
    /// What the server wrote last, lower case.
    prompt: Vec<u8>,
    typed: Vec<u8>,
    user: Option<Vec<u8>>,
    phase: Phase,
    /// Bytes of the server's since the password.
    since: usize,
    is_told: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Before,
    Name,
    Password,
    Answer,
}

/// A prompt stands in the last line.
const PROMPT_BYTES_MAX: usize = 128;
/// RFC 1123 and every system's own limits lie below.
const USER_BYTES_MAX: usize = 64;
/// A greeting behind a login has a few lines; a refusal comes at once.
const ANSWER_BYTES_MAX: usize = 2048;
const IAC: u8 = 255;

impl Telnet {
    /// RFC 854: a command of three bytes opens nearly every session.
    pub fn guess(opening: &Opening<'_>) -> Guess {
        match opening.bytes {
            [IAC, 251..=254, 0..=44, ..] => Guess::Yes,
            [] | [IAC] | [IAC, 251..=254] => Guess::Perhaps,
            _ => Guess::No,
        }
    }

    fn server(&mut self, text: &[u8], out: &mut Out<'_, '_>) {
        self.since = self.since.saturating_add(text.len());
        self.prompt.extend(text.iter().map(u8::to_ascii_lowercase));
        let over = self.prompt.len().saturating_sub(PROMPT_BYTES_MAX);
        self.prompt.drain(..over);
        let ends = |words: &[&[u8]]| {
            let text = self.prompt.trim_ascii_end();
            words.iter().any(|word| text.ends_with(word))
        };
        let says = |words: &[&[u8]]| {
            words
                .iter()
                .any(|word| reader::contains(&self.prompt, word))
        };
        if self.phase == Phase::Answer {
            if says(&[
                b"incorrect",
                b"fail",
                b"denied",
                b"invalid",
                b"bad password",
            ]) || ends(&[b"login:", b"username:"])
            {
                self.tell(Some(false), out);
            } else if says(&[b"last login", b"welcome"]) || ends(&[b"$", b"#", b">", b"%"]) {
                self.tell(Some(true), out);
            } else if self.since > ANSWER_BYTES_MAX {
                self.tell(None, out);
            }
        }
        let ends = |words: &[&[u8]]| {
            let text = self.prompt.trim_ascii_end();
            words.iter().any(|word| text.ends_with(word))
        };
        if ends(&[b"login:", b"username:", b"user:", b"user name:"]) {
            self.phase = Phase::Name;
            self.typed.clear();
        } else if ends(&[b"password:", b"passwd:"]) {
            self.phase = Phase::Password;
            self.typed.clear();
        }
    }

    fn client(&mut self, text: &[u8]) {
        for &byte in text {
            match (byte, self.phase) {
                (b'\r' | b'\n', Phase::Name) if !self.typed.is_empty() => {
                    self.user = Some(std::mem::take(&mut self.typed));
                    self.phase = Phase::Before;
                }
                (b'\r' | b'\n', Phase::Password) => {
                    self.phase = Phase::Answer;
                    self.since = 0;
                    self.prompt.clear();
                }
                (8 | 127, Phase::Name) => drop(self.typed.pop()),
                (byte, Phase::Name) if byte >= b' ' && self.typed.len() < USER_BYTES_MAX => {
                    self.typed.push(byte)
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, success: Option<bool>, out: &mut Out<'_, '_>) {
        self.phase = Phase::Before;
        self.is_told = true;
        out.login(&Login {
            service: "telnet",
            user: self.user.as_deref(),
            method: "password",
            success,
            is_clear: true,
            ..Login::default()
        });
    }
}

impl Protocol for Telnet {
    fn service(&self) -> &'static str {
        "telnet"
    }

    fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        out: &mut Out<'_, '_>,
    ) -> Result<Step, DecodeError> {
        let (text, used) = plain(bytes);
        match side {
            Side::Client => self.client(&text),
            Side::Server => self.server(&text, out),
        }
        Ok(Step::Used(used))
    }

    fn finish(&mut self, out: &mut Out<'_, '_>) {
        if self.phase == Phase::Answer {
            self.tell(None, out);
        } else if !self.is_told {
            let mut event = out.event(&["telnet"], &["telnet"]);
            if let Some(user) = &self.user {
                event.set(network::NET_USER, &user[..]);
            }
            out.emit(&event);
        }
    }
}

/// Without Telnet's commands; also how many bytes were used: a command may be cut.
fn plain(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let used = bytes.len() - rest.len();
        rest = match rest {
            [] => return (text, used),
            [IAC, IAC, rest @ ..] => rest,
            [IAC, 251..=254, _, rest @ ..] => rest,
            // RFC 855: up to IAC SE.
            [IAC, 250, inner @ ..] => match reader::split(inner, &[IAC, 240]) {
                Some((_, rest)) => rest,
                None if inner.len() > PROMPT_BYTES_MAX => inner,
                None => return (text, used),
            },
            [IAC] | [IAC, 251..=254] => return (text, used),
            [IAC, _, rest @ ..] => rest,
            [byte, rest @ ..] => {
                text.push(*byte);
                rest
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::net::conversation::tests::{Turn, played};
    use crate::decode::net::dialogue::Side::{Client, Server};

    #[test]
    fn logins_are_told_and_the_password_never() {
        const NAMES: &[&str] = &["user", "Outcome", "CredentialsInClear"];
        let open: Turn<'_> = (Server, b"\xff\xfd\x18\xff\xfb\x01host login: ");
        for (answer, outcome) in [
            (&b"\r\nLogin incorrect\r\n"[..], "failure"),
            (b"\r\nLast login: Mon\r\n$ ", "success"),
        ] {
            let turns = [
                open,
                (
                    Client,
                    b"\xff\xfb\x18\xff\xfa\x18\0xterm\xff\xf0am\x7fn\r\0",
                ),
                (Server, b"an\r\nPassword: "),
                (Client, b"secret\r\0"),
                (Server, answer),
            ];
            let expected =
                format!("authentication/telnet user=an Outcome={outcome} CredentialsInClear=true");
            for piece in [1, 1000] {
                assert_eq!(
                    played(&turns, piece, NAMES),
                    [expected.as_str()],
                    "pieces of {piece}"
                );
            }
        }
        assert_eq!(played(&[open], 1, NAMES), ["telnet/telnet"]);
    }
}
