//! What a protocol's reader and whoever feeds it agree on: the side that speaks, how far its bytes were used, and how
//! events are told. Knows nothing of packets, addresses or times.

use crate::decode::DecodeError;
use crate::event::Event;
use crate::event::field;
use crate::event::field::network;

/// Who sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that began.
    Client,
    Server,
}

/// How far a reader came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes were used; the rest comes again together with what follows.
    Used(usize),
    /// All was used, and the next so many bytes of this side tell nothing: they need not be kept.
    Skip(u64),
    /// So many bytes were used, and what both sides send from here on is another protocol (STARTTLS, CONNECT).
    Switch(usize),
    /// Nothing more is to be learnt of this connection.
    Done,
}

/// What events are made of besides what was read.
pub struct Scene<'s> {
    /// Gives a new event its time, its ends and the products it is of.
    pub prepare: &'s dyn Fn(&mut Event<'_>),
    /// Whether this host began: tells who is the web server's side and who the proxy's. `None`: not known.
    pub initiated: Option<bool>,
}

/// Where a reader tells what it found.
pub struct Out<'o, 's> {
    pub scene: &'o Scene<'s>,
    pub emit: &'o mut dyn FnMut(&Event<'_>),
}

/// A login that was tried. Its secret is never kept, not even where it could be read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Login<'l> {
    pub service: &'static str,
    pub user: Option<&'l [u8]>,
    /// `password`, `md5` …, lower case.
    pub method: &'static str,
    /// `None`: no answer was seen.
    pub success: Option<bool>,
    pub is_clear: bool,
    pub database: Option<&'l [u8]>,
    pub application: Option<&'l [u8]>,
}

/// One connection's reader.
pub trait Protocol: Send {
    /// Returns Zeek's name of the protocol.
    fn service(&self) -> &'static str;

    /// Reads what one side sent and was not used before.
    ///
    /// # Errors
    /// When it breaks the protocol; what was read before was told.
    fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        out: &mut Out<'_, '_>,
    ) -> Result<Step, DecodeError>;

    /// Tells what waited for more, at the connection's end.
    fn finish(&mut self, out: &mut Out<'_, '_>) {
        let _ = out;
    }
}

/// The first bytes of a side, and of the other as far as it spoke before.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'b> {
    pub side: Side,
    pub bytes: &'b [u8],
    pub other: &'b [u8],
}

impl Out<'_, '_> {
    /// Begins an event of these log sources.
    pub fn event<'r>(&self, categories: &[&'static str], services: &[&'static str]) -> Event<'r> {
        // No raw: keyword rules have nothing to find in a packet, and no mask could look into its bytes.
        let mut event = Event::new(b"");
        (self.scene.prepare)(&mut event);
        let of = &mut event.logsources;
        of.categories
            .extend(categories.iter().map(|&word| word.into()));
        of.services.extend(services.iter().map(|&word| word.into()));
        event
    }

    pub fn emit(&mut self, event: &Event<'_>) {
        (self.emit)(event);
    }

    pub fn login(&mut self, login: &Login<'_>) {
        let mut event = self.event(&["authentication"], &[login.service]);
        event.set(field::SERVICE, login.service);
        if let Some(user) = login.user {
            event.set(field::TARGET_USER_NAME, user);
            event.set(network::NET_USER, user);
        }
        event.set(field::AUTHENTICATION_METHOD, login.method);
        if let Some(success) = login.success {
            event.set(field::OUTCOME, if success { "success" } else { "failure" });
            event.set(network::SUCCESS, success);
        }
        event.set(network::CLEAR_TEXT, login.is_clear);
        if let Some(database) = login.database {
            event.set(network::DATABASE, database);
        }
        if let Some(application) = login.application {
            event.set(network::CLIENT_APPLICATION, application);
        }
        self.emit(&event);
    }
}

/// Says whether bytes are the beginning of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    Yes,
    No,
    /// As far as they go; more would tell.
    Perhaps,
}

impl Step {
    /// The step, where so many bytes had been used before.
    pub fn after(self, count: usize) -> Self {
        match self {
            Self::Used(used) => Self::Used(count + used),
            Self::Switch(used) => Self::Switch(count + used),
            other => other,
        }
    }
}

impl Guess {
    /// Whether `bytes` begin with `tag`, as far as they go.
    pub fn tag(bytes: &[u8], tag: &[u8]) -> Self {
        let count = bytes.len().min(tag.len());
        match (bytes.get(..count) == tag.get(..count), count == tag.len()) {
            (true, true) => Self::Yes,
            (true, false) => Self::Perhaps,
            (false, _) => Self::No,
        }
    }

    /// The better of two.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::Perhaps, _) | (_, Self::Perhaps) => Self::Perhaps,
            (Self::No, Self::No) => Self::No,
        }
    }
}

/// Finds a line and its end, of `\r\n` or `\n`; returns the line without it, and how long both are.
///
/// # Errors
/// When there is no end within `bytes_max`.
pub fn line<'b>(
    bytes: &'b [u8],
    bytes_max: usize,
    what: &'static str,
) -> Result<Option<(&'b [u8], usize)>, DecodeError> {
    let window = bytes.get(..bytes_max).unwrap_or(bytes);
    match memchr::memchr(b'\n', window) {
        Some(at) => {
            let line = window.get(..at).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            Ok(Some((line, at + 1)))
        }
        None if window.len() == bytes_max => Err(DecodeError::Malformed {
            what,
            at: bytes_max,
        }),
        None => Ok(None),
    }
}

/// Reads a line of an answer with a code of three digits (RFC 959 4.2, RFC 5321 4.2); `within` is the code of one
/// that goes on. Returns code and text of its last line.
pub fn reply<'b>(line: &'b [u8], within: &mut Option<[u8; 3]>) -> Option<([u8; 3], &'b [u8])> {
    let (code, rest) = line.split_first_chunk::<3>()?;
    let is_code = code.iter().all(u8::is_ascii_digit) && within.is_none_or(|known| known == *code);
    match rest.first() {
        _ if !is_code => None,
        Some(b'-') => {
            *within = Some(*code);
            None
        }
        _ => {
            *within = None;
            Some((*code, rest.trim_ascii_start()))
        }
    }
}

/// Whether `bytes` begin with a word in either case, as far as they go.
pub fn word(bytes: &[u8], words: &[&[u8]]) -> Guess {
    const LONGEST: usize = 24;
    let start = bytes.get(..LONGEST).unwrap_or(bytes).to_ascii_uppercase();
    words
        .iter()
        .fold(Guess::No, |best, word| best.or(Guess::tag(&start, word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_guessed_as_far_as_the_bytes_go() {
        for (bytes, guess) in [
            (&b"SSH-2.0"[..], Guess::Yes),
            (b"SS", Guess::Perhaps),
            (b"", Guess::Perhaps),
            (b"SX", Guess::No),
        ] {
            assert_eq!(Guess::tag(bytes, b"SSH-"), guess, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_ends_within_its_limit() {
        let endless = DecodeError::Malformed {
            what: "line",
            at: 4,
        };
        for (bytes, found) in [
            (&b"ab\r\ncd"[..], Ok(Some((&b"ab"[..], 4)))),
            (b"ab\nc", Ok(Some((b"ab", 3)))),
            (b"\n", Ok(Some((b"", 1)))),
            (b"abc", Ok(None)),
            (b"abcd", Err(endless)),
            (b"abcd\n", Err(endless)),
        ] {
            assert_eq!(line(bytes, 4, "line"), found, "{bytes:?}");
        }
    }
}
