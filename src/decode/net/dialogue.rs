//! What a protocol's reader and whoever feeds it agree on: the side that speaks, and how far its bytes were used.
//! Knows nothing of packets, addresses or times.

use crate::decode::DecodeError;

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

/// Says whether bytes are the beginning of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guess {
    Yes,
    No,
    /// As far as they go; more would tell.
    Perhaps,
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
