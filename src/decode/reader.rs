//! A bounds-checked reader over the bytes of one record, and the splits that every format needs. Nothing here panics
//! on any input; a read that would pass the end returns `None` and moves nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memchr::memmem;

/// What has not been read yet.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'r> {
    rest: &'r [u8],
    length: usize,
}

impl<'r> Reader<'r> {
    pub fn new(bytes: &'r [u8]) -> Self {
        Self {
            rest: bytes,
            length: bytes.len(),
        }
    }

    pub fn rest(&self) -> &'r [u8] {
        self.rest
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns how many bytes have been read.
    pub fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub fn take(&mut self, count: usize) -> Option<&'r [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    pub fn u8(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    pub fn be16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    pub fn be32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    pub fn be24(&mut self) -> Option<u32> {
        let (&[a, b, c], rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_be_bytes([0, a, b, c]))
    }

    pub fn be64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_be_bytes(*bytes))
    }

    pub fn le16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u16::from_le_bytes(*bytes))
    }

    pub fn le32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    pub fn le64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*bytes))
    }

    /// Passes `tag` if it stands next.
    pub fn tag(&mut self, tag: &[u8]) -> bool {
        match self.rest.strip_prefix(tag) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Returns what stands before the next `end`, and passes both.
    pub fn until(&mut self, end: u8) -> Option<&'r [u8]> {
        let (before, rest) = split_byte(self.rest, end)?;
        self.rest = rest;
        Some(before)
    }

    /// Returns the leading bytes that `keep` accepts; there may be none.
    pub fn while_(&mut self, keep: impl Fn(u8) -> bool) -> &'r [u8] {
        let count = self.rest.iter().take_while(|&&b| keep(b)).count();
        self.take(count).unwrap_or_default()
    }

    pub fn spaces(&mut self) {
        self.while_(|b| b == b' ');
    }

    /// Returns what stands before the next space or the end, and passes the spaces behind it.
    pub fn word(&mut self) -> &'r [u8] {
        let word = self.while_(|b| b != b' ');
        self.spaces();
        word
    }

    /// Returns a decimal number of `least` to `most` digits.
    pub fn digits(&mut self, least: usize, most: usize) -> Option<u32> {
        let count = self
            .rest
            .iter()
            .take(most)
            .take_while(|b| b.is_ascii_digit())
            .count();
        if count < least {
            return None;
        }
        let (digits, rest) = self.rest.split_at_checked(count)?;
        let number = u32::try_from(decimal(digits)?).ok()?;
        self.rest = rest;
        Some(number)
    }
}

/// Returns a decimal number, if the bytes are that and nothing else.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, &b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// Returns the value of two hexadecimal digits.
pub fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Splits at the first `needle`, which is in neither half.
pub fn split_byte(bytes: &[u8], needle: u8) -> Option<(&[u8], &[u8])> {
    split_around(bytes, memchr::memchr(needle, bytes)?, 1)
}

/// Splits at the last `needle`.
pub fn rsplit_byte(bytes: &[u8], needle: u8) -> Option<(&[u8], &[u8])> {
    split_around(bytes, memchr::memrchr(needle, bytes)?, 1)
}

/// Splits at the first `needle`.
pub fn split<'r>(bytes: &'r [u8], needle: &[u8]) -> Option<(&'r [u8], &'r [u8])> {
    split_around(bytes, memmem::find(bytes, needle)?, needle.len())
}

/// Splits at the last `needle`.
pub fn rsplit<'r>(bytes: &'r [u8], needle: &[u8]) -> Option<(&'r [u8], &'r [u8])> {
    split_around(bytes, memmem::rfind(bytes, needle)?, needle.len())
}

pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memmem::find(bytes, needle).is_some()
}

fn split_around(bytes: &[u8], at: usize, width: usize) -> Option<(&[u8], &[u8])> {
    Some((bytes.get(..at)?, bytes.get(at.checked_add(width)?..)?))
}

/// Returns what stands between `open` and the next `close`.
pub fn between<'r>(bytes: &'r [u8], open: &[u8], close: u8) -> Option<&'r [u8]> {
    let (_, after) = split(bytes, open)?;
    Some(split_byte(after, close)?.0)
}

/// The longest text of an address with a zone; what is longer is not tried.
const ADDRESS_BYTES_MAX: usize = 64;

/// Reads an address as logs write it: with or without brackets, a zone (`%eth0`, dropped), or `::ffff:` before an
/// IPv4 address (dropped too, so that one peer is one address).
pub fn address(text: &[u8]) -> Option<IpAddr> {
    let text = match text.strip_prefix(b"[") {
        Some(inner) => inner.strip_suffix(b"]")?,
        None => text,
    };
    if let Some(address) = ipv4(text) {
        return Some(address.into());
    }
    // Names have no colon, so only what can be an address meets the slower reader.
    if text.len() > ADDRESS_BYTES_MAX || !text.contains(&b':') {
        return None;
    }
    let bare = split_byte(text, b'%').map_or(text, |(bare, _)| bare);
    let v6 = std::str::from_utf8(bare).ok()?.parse::<Ipv6Addr>().ok()?;
    Some(v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4))
}

/// Four decimal numbers without leading zeros, which some readers take for octal.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut reader = Reader::new(text);
    let mut octets = [0; 4];
    for (at, octet) in octets.iter_mut().enumerate() {
        if at > 0 && !reader.tag(b".") {
            return None;
        }
        let is_zero = reader.peek() == Some(b'0');
        let number = reader.digits(1, 3)?;
        if is_zero && number > 0 {
            return None;
        }
        *octet = u8::try_from(number).ok()?;
    }
    reader.is_empty().then(|| Ipv4Addr::from(octets))
}

/// Reads a port; 0 is none.
pub fn port(text: &[u8]) -> Option<u16> {
    u16::try_from(decimal(text)?).ok().filter(|&p| p != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_past_the_end_moves_nothing() {
        let mut reader = Reader::new(b"\x01\x02\x03");
        assert_eq!(reader.be32(), None);
        assert_eq!(reader.be16(), Some(0x0102));
        assert_eq!(reader.take(2), None);
        assert_eq!(reader.at(), 2);
        assert_eq!(reader.u8(), Some(3));
        assert_eq!((reader.u8(), reader.peek()), (None, None));
        assert!(!reader.tag(b"x"));
    }

    #[test]
    fn addresses_are_read_as_logs_write_them() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("[2001:db8::1", None),
            ("192.0.2.256", None),
            ("gw.example.org", None),
            ("dead.example.org", None),
            ("192.0.2.01", None),
            ("0.0.0.0", Some("0.0.0.0")),
            ("192.0.2.1.", None),
            ("192.0.2", None),
            ("", None),
            ("%", None),
        ] {
            let found = address(text.as_bytes()).map(|a| a.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_never_overflow() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), None);
        assert_eq!(decimal(b""), None);
        assert_eq!(decimal(b"1x"), None);
        assert_eq!(port(b"65536"), None);
        assert_eq!(port(b"0"), None);
        let mut reader = Reader::new(b"123456");
        assert_eq!(reader.digits(1, 4), Some(1234));
        assert_eq!(reader.digits(3, 4), None);
        assert_eq!(reader.rest(), b"56");
    }

    #[test]
    fn splits_take_the_needle_out() {
        assert_eq!(
            rsplit(b"a from b from c", b" from "),
            Some((&b"a from b"[..], &b"c"[..]))
        );
        assert_eq!(
            split(b"a from b from c", b" from "),
            Some((&b"a"[..], &b"b from c"[..]))
        );
        assert_eq!(split(b"abc", b"abcd"), None);
        assert_eq!(split(b"aab", b"ab"), Some((&b"a"[..], &b""[..])));
        assert_eq!(rsplit(b"cab", b"cab"), Some((&b""[..], &b""[..])));
        assert_eq!(between(b"x (y) z", b"(", b')'), Some(&b"y"[..]));
    }
}
