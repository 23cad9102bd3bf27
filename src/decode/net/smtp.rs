//! Reads SMTP (RFC 5321): each mail's envelope and the headers that say who and what, and logins (RFC 4954). Never a
//! password, and nothing of a mail's body.

pub mod auth;
mod mail;

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{self, Guess, Opening, Out, Protocol, Side, Step};
use crate::decode::net::smtp::auth::Auth;
use crate::decode::net::smtp::mail::Mail;
use crate::decode::reader;

/// One connection.
#[derive(Debug, Default)]
pub struct Smtp {
    helo: Option<Vec<u8>>,
    mail: Mail,
    phase: Phase,
    auth: Option<Auth>,
    asked_tls: bool,
    /// Commands without an answer: RFC 2920 lets a client send several at once.
    awaited: u32,
    within: Option<[u8; 3]>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Phase {
    #[default]
    Commands,
    /// Lines of a login, which are no commands.
    Auth,
    /// DATA was asked; the answer decides.
    DataAsked,
    Headers,
    Body,
    /// So many bytes of a chunk (RFC 3030) are left.
    Chunk(u64),
}

/// RFC 5321 4.5.3.1.6: 1,000 of a text line; Exim and Postfix take more of headers.
const LINE_BYTES_MAX: usize = 16 << 10;

impl Smtp {
    /// A server greets as FTP's do; the client's first word tells.
    pub fn guess(opening: &Opening<'_>) -> Guess {
        const OPENERS: &[&[u8]] = &[b"EHLO", b"HELO", b"LHLO"];
        match opening.side {
            Side::Client => dialogue::word(opening.bytes, OPENERS),
            Side::Server => match dialogue::word(opening.bytes, &[b"220 ", b"220-"]) {
                Guess::Yes => Guess::Perhaps,
                other => other,
            },
        }
    }

    fn client(&mut self, line: &[u8], out: &mut Out<'_, '_>) {
        match self.phase {
            Phase::Commands => self.command(line, out),
            Phase::Auth => {
                if let Some(auth) = &mut self.auth {
                    auth.line(line);
                }
            }
            // A client that doesn't wait sends commands or the mail; the mail has a header's shape.
            Phase::DataAsked | Phase::Headers => {
                self.phase = Phase::Headers;
                match line {
                    b"" => self.phase = Phase::Body,
                    b"." => self.phase = Phase::Commands,
                    line => self.mail.header(line),
                }
            }
            Phase::Body if line == b"." => self.phase = Phase::Commands,
            Phase::Body | Phase::Chunk(_) => {}
        }
    }

    fn command(&mut self, line: &[u8], out: &mut Out<'_, '_>) {
        let (word, rest) = reader::split_byte(line, b' ').unwrap_or((line, b""));
        let rest = rest.trim_ascii();
        self.awaited = self.awaited.saturating_add(1);
        match &word.to_ascii_uppercase()[..] {
            b"HELO" | b"EHLO" | b"LHLO" => self.helo = Some(rest.to_vec()),
            b"MAIL" => {
                self.tell(out);
                self.mail.from(rest);
            }
            b"RCPT" => self.mail.to(rest),
            b"DATA" => self.phase = Phase::DataAsked,
            b"BDAT" => {
                let size = rest.split(|&b| b == b' ').next().and_then(reader::decimal);
                self.phase = Phase::Chunk(size.unwrap_or(0));
            }
            b"AUTH" => {
                self.auth = Some(Auth::begin(rest));
                self.phase = Phase::Auth;
            }
            b"STARTTLS" => self.asked_tls = true,
            b"RSET" | b"QUIT" => self.tell(out),
            _ => {}
        }
    }

    fn server(&mut self, code: [u8; 3], text: &[u8], out: &mut Out<'_, '_>) -> bool {
        self.mail.replied(code, text);
        self.awaited = self.awaited.saturating_sub(1);
        if self.asked_tls {
            self.asked_tls = false;
            if &code == b"220" {
                self.mail.is_encrypted = true;
                self.tell_all(out);
                return true;
            }
        }
        match self.phase {
            Phase::Auth if &code == b"334" => {
                if let Some(auth) = &mut self.auth {
                    auth.asked(text);
                }
            }
            Phase::Auth => {
                if let Some(auth) = self.auth.take() {
                    out.login(&auth.login("smtp", code.first() == Some(&b'2')));
                }
                self.phase = Phase::Commands;
            }
            Phase::DataAsked => match &code {
                b"354" => self.phase = Phase::Headers,
                _ if self.awaited == 0 => self.phase = Phase::Commands,
                _ => {}
            },
            // The answer to the mail itself.
            Phase::Commands if self.mail.has_data => self.tell(out),
            Phase::Commands | Phase::Headers | Phase::Body | Phase::Chunk(_) => {}
        }
        false
    }

    /// Tells a mail, if one was begun.
    fn tell(&mut self, out: &mut Out<'_, '_>) {
        if self.mail.is_begun() {
            self.tell_all(out);
        }
    }

    fn tell_all(&mut self, out: &mut Out<'_, '_>) {
        let mail = std::mem::take(&mut self.mail);
        let mut event = out.event(&["smtp"], &["smtp"]);
        mail.set(self.helo.as_deref(), &mut event);
        out.emit(&event);
    }
}

impl Protocol for Smtp {
    fn service(&self) -> &'static str {
        "smtp"
    }

    fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        out: &mut Out<'_, '_>,
    ) -> Result<Step, DecodeError> {
        let mut at = 0;
        loop {
            if let (Side::Client, Phase::Chunk(left)) = (side, self.phase) {
                let rest = bytes.len().saturating_sub(at);
                let used = usize::try_from(left).unwrap_or(usize::MAX).min(rest);
                at += used;
                self.mail.has_data = true;
                if (used as u64) < left {
                    self.phase = Phase::Commands;
                    return Ok(Step::Skip(left.saturating_sub(used as u64)));
                }
                self.phase = Phase::Commands;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let Some((line, used)) = dialogue::line(rest, LINE_BYTES_MAX, "SMTP line")? else {
                return Ok(Step::Used(at));
            };
            at += used;
            match side {
                Side::Client => {
                    let was = self.phase;
                    self.client(line, out);
                    if matches!(was, Phase::Headers | Phase::Body | Phase::DataAsked)
                        && self.phase == Phase::Commands
                    {
                        self.mail.has_data = true;
                    }
                }
                Side::Server => {
                    if let Some((code, text)) = dialogue::reply(line, &mut self.within)
                        && self.server(code, text, out)
                    {
                        return Ok(Step::Switch(at));
                    }
                }
            }
        }
    }

    fn finish(&mut self, out: &mut Out<'_, '_>) {
        self.tell(out);
        if let Some(auth) = self.auth.take() {
            let mut login = auth.login("smtp", false);
            login.success = None;
            out.login(&login);
        }
    }
}

#[cfg(test)]
mod tests;
