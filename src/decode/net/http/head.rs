//! Heads of HTTP messages: the first line, and those headers that rules ask for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::decode::DecodeError;
use crate::decode::reader;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    /// `HTTP/1.1`; empty of a request without one (HTTP/0.9).
    pub version: Vec<u8>,
    pub host: Option<Vec<u8>>,
    pub user_agent: Option<Vec<u8>>,
    pub referer: Option<Vec<u8>>,
    pub cookie: Option<Vec<u8>>,
    pub content_type: Option<Vec<u8>>,
    /// Of a Basic login.
    pub user: Option<Vec<u8>>,
    pub body_length: Option<u64>,
    /// Upper case, in order.
    pub header_names: Vec<Vec<u8>>,
    /// `NAME -> value` of what proxies add.
    pub proxied: Vec<Vec<u8>>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub reason: Vec<u8>,
    pub content_type: Option<Vec<u8>>,
    pub body_length: Option<u64>,
}

/// How long the body is, by the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Bytes(u64),
    Chunked,
    Unsaid,
}

/// nginx and Apache take 100 headers; what comes behind is not looked at.
const HEADERS_MAX: usize = 100;
/// As RFC 7239 and the proxies before it name them.
const OF_PROXIES: &[&[u8]] = &[
    b"FORWARDED",
    b"X-FORWARDED-FOR",
    b"X-FORWARDED-FROM",
    b"CLIENT-IP",
    b"VIA",
    b"XROXY-CONNECTION",
    b"PROXY-CONNECTION",
];
const WHAT: &str = "HTTP head";

/// Returns how long a head is, with the empty line that ends it.
///
/// # Errors
/// When it is longer than `bytes_max`.
pub fn end(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, DecodeError> {
    let window = bytes.get(..bytes_max).unwrap_or(bytes);
    for at in memchr::memchr_iter(b'\n', window) {
        let behind = window.get(at + 1..).unwrap_or_default();
        if behind.starts_with(b"\n") {
            return Ok(Some(at + 2));
        }
        if behind.starts_with(b"\r\n") {
            return Ok(Some(at + 3));
        }
    }
    match window.len() == bytes_max {
        true => Err(DecodeError::Malformed {
            what: WHAT,
            at: bytes_max,
        }),
        false => Ok(None),
    }
}

/// Returns how long the next line is, with its end.
///
/// # Errors
/// When it is longer than `bytes_max`.
pub fn line_end(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, DecodeError> {
    let window = bytes.get(..bytes_max).unwrap_or(bytes);
    match memchr::memchr(b'\n', window) {
        Some(at) => Ok(Some(at + 1)),
        None if window.len() == bytes_max => Err(DecodeError::Malformed {
            what: "HTTP line",
            at: bytes_max,
        }),
        None => Ok(None),
    }
}

impl Request {
    /// # Errors
    /// When the first line is not that of a request.
    pub fn read(head: &[u8]) -> Result<(Self, Length), DecodeError> {
        let (first, rest) = first_line(head);
        let malformed = |at| DecodeError::Malformed {
            what: "HTTP request line",
            at,
        };
        let (method, behind) = reader::split_byte(first, b' ').ok_or(malformed(0))?;
        let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"-_!#$%&'*+.^`|~".contains(b);
        if method.is_empty() || !method.iter().all(is_token) {
            return Err(malformed(0));
        }
        // A target with blanks in it is sent by attackers, and taken by some servers.
        let (target, version) = match reader::rsplit_byte(behind, b' ') {
            Some((target, version)) if version.starts_with(b"HTTP/") => {
                (target.trim_ascii(), version)
            }
            _ => (behind, &b""[..]),
        };
        let mut request = Self {
            method: method.to_vec(),
            target: target.to_vec(),
            version: version.to_vec(),
            ..Self::default()
        };
        let mut length = Length::Unsaid;
        for (name, value) in headers(rest) {
            let name = name.to_ascii_uppercase();
            let once = |slot: &mut Option<Vec<u8>>| {
                slot.get_or_insert_with(|| value.to_vec());
            };
            match &name[..] {
                b"HOST" => once(&mut request.host),
                b"USER-AGENT" => once(&mut request.user_agent),
                b"REFERER" => once(&mut request.referer),
                b"COOKIE" => once(&mut request.cookie),
                b"CONTENT-TYPE" => once(&mut request.content_type),
                b"AUTHORIZATION" | b"PROXY-AUTHORIZATION" => {
                    request.user = request.user.take().or_else(|| basic_user(value));
                }
                b"CONTENT-LENGTH" | b"TRANSFER-ENCODING" => {
                    length = length_of(&name, value, length)?
                }
                _ => {}
            }
            if OF_PROXIES.contains(&&name[..]) {
                request.proxied.push([&name[..], b" -> ", value].concat());
            }
            request.header_names.push(name);
        }
        if let Length::Bytes(bytes) = length {
            request.body_length = Some(bytes);
        }
        Ok((request, length))
    }
}

impl Response {
    /// # Errors
    /// When the first line is not that of an answer.
    pub fn read(head: &[u8]) -> Result<(Self, Length), DecodeError> {
        let (first, rest) = first_line(head);
        let malformed = |at| DecodeError::Malformed {
            what: "HTTP status line",
            at,
        };
        let behind = first.strip_prefix(b"HTTP/").ok_or(malformed(0))?;
        let (_, behind) = reader::split_byte(behind, b' ').ok_or(malformed(5))?;
        let behind = behind.trim_ascii_start();
        let digits = behind.get(..3).ok_or(malformed(9))?;
        let status = reader::decimal(digits).and_then(|status| u16::try_from(status).ok());
        let mut response = Self {
            status: status.ok_or(malformed(9))?,
            reason: behind.get(3..).unwrap_or_default().trim_ascii().to_vec(),
            ..Self::default()
        };
        let mut length = Length::Unsaid;
        for (name, value) in headers(rest) {
            if name.eq_ignore_ascii_case(b"content-type") {
                response.content_type.get_or_insert_with(|| value.to_vec());
            } else {
                length = length_of(&name.to_ascii_uppercase(), value, length)?;
            }
        }
        if let Length::Bytes(bytes) = length {
            response.body_length = Some(bytes);
        }
        Ok((response, length))
    }
}

fn first_line(head: &[u8]) -> (&[u8], &[u8]) {
    let (first, rest) = reader::split_byte(head, b'\n').unwrap_or((head, b""));
    (first.strip_suffix(b"\r").unwrap_or(first), rest)
}

/// RFC 9112 5: names and values; a line that begins with a blank goes on with the one before, and is left out.
fn headers(head: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    head.split(|&b| b == b'\n')
        .filter(|line| !line.starts_with(b" ") && !line.starts_with(b"\t"))
        .filter_map(|line| reader::split_byte(line, b':'))
        .take(HEADERS_MAX)
        .map(|(name, value)| (name.trim_ascii(), value.trim_ascii()))
}

/// RFC 9112 6.3: an encoding outweighs a length. Where two lengths differ, the first counts: a proxy that takes the
/// other one is what request smuggling lives on, and a sensor can't know which the server takes.
fn length_of(name: &[u8], value: &[u8], known: Length) -> Result<Length, DecodeError> {
    match name {
        b"TRANSFER-ENCODING" if contains_word(value, b"chunked") => Ok(Length::Chunked),
        b"CONTENT-LENGTH" if known == Length::Unsaid => reader::decimal(value)
            .map(Length::Bytes)
            .ok_or(DecodeError::Malformed {
                what: "length of an HTTP body",
                at: 0,
            }),
        _ => Ok(known),
    }
}

fn contains_word(list: &[u8], word: &[u8]) -> bool {
    list.split(|&b| b == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
}

/// RFC 7617: the user stands before the first colon; what is behind is not looked at.
fn basic_user(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, text) = reader::split_byte(value, b' ')?;
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let mut plain = STANDARD.decode(text.trim_ascii()).ok()?;
    let at = memchr::memchr(b':', &plain)?;
    plain.truncate(at);
    Some(plain)
}
