//! Reads FTP's control connection (RFC 959): logins, and commands on files. Never the password; no data connection.

use std::collections::VecDeque;

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{self, Guess, Login, Opening, Out, Protocol, Side, Step};
use crate::decode::reader;
use crate::event::field::network;

/// One control connection.
#[derive(Debug, Default)]
pub struct Ftp {
    user: Option<Vec<u8>>,
    /// Without an answer yet, the oldest first.
    asked: VecDeque<Command>,
    /// The code of an answer of many lines, RFC 959 4.2.
    within: Option<[u8; 3]>,
    is_greeted: bool,
}

#[derive(Debug)]
struct Command {
    word: Vec<u8>,
    argument: Vec<u8>,
}

/// vsftpd takes 4,096 bytes a line.
const LINE_BYTES_MAX: usize = 4096;
/// Clients wait for each answer; a few may be under way.
const ASKED_MAX: usize = 16;
/// What rules look for: files and what changes them or the server.
const TOLD: &[&[u8]] = &[
    b"RETR", b"STOR", b"STOU", b"APPE", b"DELE", b"RNFR", b"RNTO", b"MKD", b"RMD", b"SITE",
    b"ACCT", b"PORT", b"EPRT",
];
const OPENERS: &[&[u8]] = &[
    b"USER ",
    b"AUTH TLS",
    b"AUTH SSL",
    b"AUTH GSSAPI",
    b"FEAT",
    b"OPTS ",
    b"SYST",
    b"PASS ",
    b"CLNT ",
    b"HOST ",
];

impl Ftp {
    /// A server greets as mail servers do; the client's first word tells.
    pub fn guess(opening: &Opening<'_>) -> Guess {
        match opening.side {
            Side::Client => {
                let is_ours = dialogue::word(opening.bytes, OPENERS);
                match Guess::tag(opening.other, b"220") {
                    Guess::Yes => is_ours,
                    Guess::Perhaps if is_ours != Guess::No => Guess::Perhaps,
                    _ => Guess::No,
                }
            }
            Side::Server => match Guess::tag(opening.bytes, b"220") {
                Guess::Yes if dialogue::word(opening.other, OPENERS) == Guess::Yes => Guess::Yes,
                Guess::Yes => Guess::Perhaps,
                other => other,
            },
        }
    }

    fn asked(&mut self, line: &[u8]) {
        // Telnet's marks before an abort: RFC 959 4.1.3.
        let marks = line.iter().take_while(|&&b| b >= 0xf0).count();
        let line = line.get(marks..).unwrap_or_default();
        let (word, argument) = reader::split_byte(line, b' ').unwrap_or((line, b""));
        let word = word.to_ascii_uppercase();
        let argument = match &word[..] {
            b"USER" => {
                self.user = Some(argument.to_vec());
                b""
            }
            b"PASS" | b"ACCT" | b"ADAT" => b"",
            _ => argument,
        };
        if self.asked.len() == ASKED_MAX {
            self.asked.pop_front();
        }
        self.asked.push_back(Command {
            word,
            argument: argument.to_vec(),
        });
    }

    fn answered(&mut self, code: [u8; 3], text: &[u8], out: &mut Out<'_, '_>) -> Step {
        // An answer before the answer: RFC 959 4.2.1.
        if code.first() == Some(&b'1') {
            return Step::Used(0);
        }
        if !self.is_greeted && &code == b"220" {
            self.is_greeted = true;
            return Step::Used(0);
        }
        let Some(command) = self.asked.pop_front() else {
            return Step::Used(0);
        };
        match (&command.word[..], &code) {
            (b"AUTH", b"234") => return Step::Switch(0),
            (b"USER", b"331" | b"332") => {}
            (b"USER" | b"PASS", _) => {
                let success = code.first() == Some(&b'2');
                out.login(&Login {
                    service: "ftp",
                    user: self.user.as_deref(),
                    method: "password",
                    success: Some(success),
                    is_clear: command.word == b"PASS",
                    ..Login::default()
                });
            }
            (word, _) if TOLD.contains(&word) => self.tell(&command, code, text, out),
            _ => {}
        }
        Step::Used(0)
    }

    fn tell(&self, command: &Command, code: [u8; 3], text: &[u8], out: &mut Out<'_, '_>) {
        let mut event = out.event(&["ftp"], &["ftp"]);
        if let Some(user) = &self.user {
            event.set(network::NET_USER, &user[..]);
        }
        event.set(network::COMMAND, &command.word[..]);
        if !command.argument.is_empty() {
            event.set(network::ARG, &command.argument[..]);
        }
        event.set(network::REPLY_CODE, &code[..]);
        event.set(network::REPLY_MSG, text);
        out.emit(&event);
    }
}

impl Protocol for Ftp {
    fn service(&self) -> &'static str {
        "ftp"
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
            let Some((line, used)) = dialogue::line(rest, LINE_BYTES_MAX, "FTP line")? else {
                return Ok(Step::Used(at));
            };
            at += used;
            match side {
                Side::Client => self.asked(line),
                Side::Server => {
                    if let Some((code, text)) = dialogue::reply(line, &mut self.within)
                        && let Step::Switch(_) = self.answered(code, text, out)
                    {
                        return Ok(Step::Switch(at));
                    }
                }
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
        "Outcome",
        "CredentialsInClear",
        "command",
        "arg",
        "reply_code",
    ];

    #[test]
    fn logins_and_files_are_told_and_the_password_never() {
        for (turns, expected) in [
            (
                &[
                    (Server, &b"220-hello\r\n220 ftp ready\r\n"[..]),
                    (Client, b"user an\r\n"),
                    (Server, b"331 password\r\n"),
                    (Client, b"PASS s3cret\r\n"),
                    (Server, b"230 in\r\n"),
                    (Client, b"RETR dan cu.csv\r\n"),
                    (Server, b"150 here\r\n226 done\r\n"),
                ][..],
                &[
                    "authentication/ftp user=an Outcome=success CredentialsInClear=true",
                    "ftp/ftp user=an command=RETR arg=dan cu.csv reply_code=226",
                ][..],
            ),
            (
                &[
                    (Server, b"220 x\r\n"),
                    (Client, b"USER a\r\nPASS b\r\n"),
                    (Server, b"331 p\r\n530-no\r\n no\r\n530 no\r\n"),
                ],
                &["authentication/ftp user=a Outcome=failure CredentialsInClear=true"],
            ),
            (
                &[
                    (Server, b"220 x\r\n"),
                    (Client, b"AUTH TLS\r\n"),
                    (Server, b"234 go\r\n"),
                    (Client, b"\x16\x03\x01"),
                ],
                &[],
            ),
            (&[(Server, b"220 x\r\n"), (Client, b"NOOP\r\n")], &[]),
        ] {
            for piece in [1, 1000] {
                assert_eq!(played(turns, piece, NAMES), expected, "pieces of {piece}");
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused() {
        let line = vec![b'x'; super::LINE_BYTES_MAX + 1];
        let told = played(
            &[
                (Server, b"220 x\r\n"),
                (Client, b"USER a\r\n"),
                (Client, &line),
            ],
            500,
            NAMES,
        );
        assert_eq!(
            told,
            ["network_anomaly/weird", "! malformed FTP line at byte 4096"]
        );
    }
}
