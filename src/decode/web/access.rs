//! Access logs of nginx and Apache: common, combined, and combined with the virtual host before it.
//!
//! Sigma's web rules are of `category: webserver`, or of `service: apache` or `service: nginx`; both servers write the
//! same lines, so an event is of all three, and of no product. `cs-uri-query` holds the whole request target, because
//! public rules put paths in it. Target, path, referer stand as they were written and, where that differs, decoded once.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::decode::reader::{self, Reader};
use crate::decode::{DecodeError, Lines, mark, text, time};
use crate::event::field::{self, FieldId, Fields};
use crate::event::logsource::LogSources;
use crate::event::{Event, Value};
use crate::record::Record;

/// Reads one stream of access log lines.
pub struct Access;

impl Lines for Access {
    fn attempt(
        &mut self,
        record: &Record,
        _fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let mut event = Event::new(&record.bytes);
        mark(record, &mut event);
        event.time = Some(set(text(&record.bytes), &mut event)?);
        event.logsources = logsources();
        emit(&event);
        Ok(())
    }

    fn logsources<'r>(&self) -> LogSources<'r> {
        logsources()
    }
}

pub fn logsources<'r>() -> LogSources<'r> {
    LogSources::of(None, &["webserver"], &["nginx", "apache"])
}

/// Whether a program of syslog writes access lines.
pub fn speaks_for(program: &[u8]) -> bool {
    matches!(
        program,
        b"nginx" | b"apache" | b"apache2" | b"httpd" | b"lighttpd" | b"haproxy" | b"caddy"
    )
}

/// Reads a line into an event; returns its time.
///
/// # Errors
/// `Foreign` when it has not an access line's shape; then nothing was set.
pub fn set<'r>(line: &'r [u8], event: &mut Event<'r>) -> Result<Timestamp, DecodeError> {
    const FOREIGN: DecodeError = DecodeError::Foreign {
        what: "an access log line",
    };
    let (head, stamp, rest) = around_time(line).ok_or(FOREIGN)?;
    let peer = Peer::read(head).ok_or(FOREIGN)?;
    let (request, rest) = quoted(rest).ok_or(FOREIGN)?;
    let mut reader = Reader::new(rest);
    reader.spaces();
    let status = reader.word();
    let status = reader::decimal(status)
        .filter(|_| status.len() == 3)
        .ok_or(FOREIGN)?;
    peer.set(event);
    set_request(request, event);
    event.set(field::SC_STATUS, i64::try_from(status).unwrap_or_default());
    if reader
        .peek()
        .is_some_and(|b| b.is_ascii_digit() || b == b'-')
    {
        let bytes = reader::decimal(reader.word()).and_then(|bytes| i64::try_from(bytes).ok());
        if let Some(bytes) = bytes {
            event.set(field::SC_BYTES, bytes);
        }
    }
    if let Some((referer, rest)) = after_quote(reader.rest()) {
        set_both(
            event,
            &[field::CS_REFERER, field::CS_REFERRER],
            referer,
            Query::Decode,
        );
        if let Some((agent, _)) = after_quote(rest.trim_ascii_start()) {
            set_both(
                event,
                &[field::CS_USER_AGENT, field::C_USERAGENT],
                agent,
                Query::Keep,
            );
        }
    }
    Ok(stamp)
}

/// Splits a line at `[TIME] "`. A user name may look like that too, but both servers escape a quote in it.
fn around_time(line: &[u8]) -> Option<(&[u8], Timestamp, &[u8])> {
    let mut searched = 0;
    loop {
        let (before, _) = reader::split(line.get(searched..)?, b" [")?;
        let at = searched.checked_add(before.len())?;
        let mut reader = Reader::new(line.get(at + 2..)?);
        let stamp = time::common_log(&mut reader).filter(|_| reader.tag(b"] \""));
        if let Some(stamp) = stamp {
            return Some((line.get(..at)?, stamp, reader.rest()));
        }
        searched = at + 2;
    }
}

/// Splits behind the quote that ends a text which began with one. `\"` is not such a quote.
fn quoted(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut searched = 0;
    loop {
        let at = searched + memchr::memchr(b'"', rest.get(searched..)?)?;
        let before = rest.get(..at)?;
        let slashes = before.iter().rev().take_while(|&&b| b == b'\\').count();
        if slashes % 2 == 0 {
            return Some((before, rest.get(at + 1..)?));
        }
        searched = at + 1;
    }
}

fn after_quote(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    quoted(rest.strip_prefix(b"\"")?)
}

/// `[VHOST ]CLIENT IDENT USER`
struct Peer<'r> {
    virtual_host: &'r [u8],
    client: &'r [u8],
    user: &'r [u8],
}

impl<'r> Peer<'r> {
    fn read(head: &'r [u8]) -> Option<Self> {
        let mut reader = Reader::new(head);
        let first = reader.word();
        let mut ahead = reader;
        let second = ahead.word();
        // A virtual host stands before an address, or makes four words of the three of a client by name.
        let mut behind = ahead;
        let _ident = behind.word();
        let has_virtual_host = reader::address(first).is_none()
            && !behind.is_empty()
            && (reader::address(second).is_some() || second != b"-");
        let (virtual_host, client) = match has_virtual_host {
            true => {
                reader = ahead;
                (first, second)
            }
            false => (&b""[..], first),
        };
        let _ident = reader.word();
        let user = reader.rest();
        if client.is_empty() || user.is_empty() || client.contains(&b'"') {
            return None;
        }
        let user = user
            .strip_prefix(b"\"")
            .and_then(|user| user.strip_suffix(b"\""))
            .unwrap_or(user);
        Some(Self {
            virtual_host,
            client,
            user,
        })
    }

    fn set(&self, event: &mut Event<'r>) {
        // `example.org:443`, where the port says little.
        let host = match reader::rsplit_byte(self.virtual_host, b':') {
            Some((host, port)) if reader::decimal(port).is_some() => host,
            _ => self.virtual_host,
        };
        if !absent(host) {
            event.set(field::CS_HOST, host);
        }
        match reader::address(self.client) {
            Some(address) => {
                event.set(field::C_IP, Value::Ip(address));
                event.set(field::SOURCE_IP, Value::Ip(address));
            }
            None if absent(self.client) => {}
            None => {
                event.set(field::C_IP, self.client);
                event.set(field::SOURCE_HOSTNAME, self.client);
            }
        }
        if !absent(self.user) {
            event.set(field::CS_USERNAME, unescaped(self.user));
        }
    }
}

fn absent(value: &[u8]) -> bool {
    matches!(value, b"" | b"-")
}

/// Longer than any registered method; what is longer is no request line.
const METHOD_BYTES_MAX: usize = 32;

/// `METHOD TARGET[ VERSION]`. What a client sent that is not HTTP stands whole in `c-uri` and `cs-uri-query`.
fn set_request<'r>(request: &'r [u8], event: &mut Event<'r>) {
    if absent(request) {
        return;
    }
    let Some(Request {
        method,
        target,
        version,
    }) = Request::read(request)
    else {
        set_both(
            event,
            &[field::C_URI, field::CS_URI_QUERY],
            request,
            Query::Decode,
        );
        return;
    };
    event.set(field::CS_METHOD, method);
    if let Some(version) = version {
        event.set(field::CS_VERSION, version);
    }
    set_both(
        event,
        &[field::C_URI, field::CS_URI_QUERY],
        target,
        Query::Decode,
    );
    let stem = reader::split_byte(target, b'?').map_or(target, |(stem, _)| stem);
    set_both(event, &[field::CS_URI_STEM], stem, Query::Keep);
}

struct Request<'r> {
    method: &'r [u8],
    target: &'r [u8],
    version: Option<&'r [u8]>,
}

impl<'r> Request<'r> {
    fn read(request: &'r [u8]) -> Option<Self> {
        let (method, rest) = reader::split_byte(request, b' ')?;
        let is_method = !method.is_empty()
            && method.len() <= METHOD_BYTES_MAX
            && method
                .iter()
                .all(|&b| b.is_ascii_alphabetic() || matches!(b, b'-' | b'_'));
        if !is_method || rest.is_empty() {
            return None;
        }
        // A target may hold spaces that a client sent raw; the version is what stands last.
        let (target, version) = match reader::rsplit(rest, b" HTTP/") {
            Some((target, number)) if number.len() <= 8 => {
                (target.trim_ascii_end(), rest.get(target.len() + 1..))
            }
            _ => (rest, None),
        };
        Some(Self {
            method,
            target,
            version,
        })
    }
}

/// Whether `+` behind a question mark is a space, as forms send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query {
    Decode,
    Keep,
}

/// Sets a value as it was sent and, if that differs, decoded once: rules are written for either.
fn set_both<'r>(event: &mut Event<'r>, ids: &[FieldId], written: &'r [u8], query: Query) {
    if absent(written) {
        return;
    }
    let sent = unescaped(written);
    let decoded = decoded(&sent, query);
    for &id in ids {
        event.set(id, sent.clone());
        if let Some(decoded) = &decoded {
            event.set(id, decoded.clone());
        }
    }
}

/// Sets a target of which no log stands between, as it was sent and, if that differs, decoded once.
pub fn set_target<'r>(event: &mut Event<'r>, ids: &[FieldId], sent: &'r [u8], query: Query) {
    let decoded = decoded(sent, query);
    for &id in ids {
        event.set(id, sent);
        if let Some(decoded) = &decoded {
            event.set(id, decoded.clone());
        }
    }
}

/// Undoes what the server wrote for bytes that would spoil its log: `\x16`, `\"`, `\\`, and Apache's `\n`, `\t`, `\r`.
fn unescaped(written: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', written).is_none() {
        return Cow::Borrowed(written);
    }
    let mut plain = Vec::with_capacity(written.len());
    let mut reader = Reader::new(written);
    while let Some(before) = reader.until(b'\\') {
        plain.extend_from_slice(before);
        let mut ahead = reader;
        let byte = match ahead.u8() {
            Some(b'x') => hex(&mut ahead),
            Some(b'"') => Some(b'"'),
            Some(b'\\') => Some(b'\\'),
            Some(b'n') => Some(b'\n'),
            Some(b'r') => Some(b'\r'),
            Some(b't') => Some(b'\t'),
            _ => None,
        };
        match byte {
            Some(byte) => {
                plain.push(byte);
                reader = ahead;
            }
            None => plain.push(b'\\'),
        }
    }
    plain.extend_from_slice(reader.rest());
    Cow::Owned(plain)
}

fn hex(reader: &mut Reader<'_>) -> Option<u8> {
    match reader.take(2)? {
        [high, low] => reader::hex_byte(*high, *low),
        _ => None,
    }
}

/// Decodes `%41` once; returns nothing if that changes nothing.
fn decoded(sent: &[u8], query: Query) -> Option<Vec<u8>> {
    let query_at = match query {
        Query::Decode => memchr::memchr(b'?', sent).unwrap_or(sent.len()),
        Query::Keep => sent.len(),
    };
    let has_plus = sent
        .get(query_at..)
        .is_some_and(|q| memchr::memchr(b'+', q).is_some());
    if memchr::memchr(b'%', sent).is_none() && !has_plus {
        return None;
    }
    let mut plain = Vec::with_capacity(sent.len());
    let mut reader = Reader::new(sent);
    loop {
        let is_query = reader.at() > query_at;
        let Some(byte) = reader.u8() else {
            break;
        };
        let mut ahead = reader;
        match byte {
            b'%' => match hex(&mut ahead) {
                Some(byte) => {
                    plain.push(byte);
                    reader = ahead;
                }
                None => plain.push(b'%'),
            },
            b'+' if is_query => plain.push(b' '),
            byte => plain.push(byte),
        }
    }
    (plain != sent).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Format;
    use crate::decode::tests::one;

    #[test]
    fn lines_of_every_shape_are_read() {
        for (line, expected) in [
            (
                "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET /a HTTP/1.1\" 200 12",
                "c-ip=192.0.2.7 SourceIp=192.0.2.7 cs-method=GET cs-version=HTTP/1.1 c-uri=/a cs-uri-query=/a cs-uri-stem=/a \
                 sc-status=200 sc-bytes=12",
            ),
            (
                "www.example.org:443 2001:db8::7 - an [01/Mar/2026:10:00:00 +0700] \"POST /a?b=1 HTTP/2.0\" 302 - \"-\" \"curl/8\" \"-\"",
                "cs-host=www.example.org c-ip=2001:db8::7 SourceIp=2001:db8::7 cs-username=an cs-method=POST cs-version=HTTP/2.0 \
                 c-uri=/a?b=1 cs-uri-query=/a?b=1 cs-uri-stem=/a sc-status=302 cs-user-agent=curl/8 c-useragent=curl/8",
            ),
            (
                "gw.example.org - an binh [01/Mar/2026:10:00:00 +0700] \"GET / HTTP/1.1\" 200 1 \"https://x/?q=1\" \"-\"",
                "c-ip=gw.example.org SourceHostname=gw.example.org cs-username=an binh cs-method=GET cs-version=HTTP/1.1 \
                 c-uri=/ cs-uri-query=/ cs-uri-stem=/ sc-status=200 sc-bytes=1 cs-referer=https://x/?q=1 cs-referrer=https://x/?q=1",
            ),
            (
                "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"\\x16\\x03\\x22\\\"\" 400 1 \"-\" \"-\"",
                "c-ip=192.0.2.7 SourceIp=192.0.2.7 c-uri=\u{16}\u{3}\"\" cs-uri-query=\u{16}\u{3}\"\" sc-status=400 sc-bytes=1",
            ),
            (
                "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"-\" 408 -",
                "c-ip=192.0.2.7 SourceIp=192.0.2.7 sc-status=408",
            ),
            (
                "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET /a b\" 400 1",
                "c-ip=192.0.2.7 SourceIp=192.0.2.7 cs-method=GET c-uri=/a b cs-uri-query=/a b cs-uri-stem=/a b sc-status=400 sc-bytes=1",
            ),
        ] {
            let (seen, outcome) = one(Format::Access, line);
            assert_eq!((outcome, &*seen.fields), (Ok(()), expected), "{line}");
            assert_eq!(seen.time, Some("2026-03-01T03:00:00Z".parse().unwrap()));
        }
    }

    #[test]
    fn a_target_stands_as_sent_and_decoded_once() {
        for (target, stems, queries) in [
            ("/a%2e%2e/b", "/a%2e%2e/b /a../b", "/a%2e%2e/b /a../b"),
            ("/%252e", "/%252e /%2e", "/%252e /%2e"),
            ("/a+b?c+d", "/a+b", "/a+b?c+d /a+b?c d"),
            ("/100%", "/100%", "/100%"),
            ("/x?%zz%41", "/x", "/x?%zz%41 /x?%zzA"),
        ] {
            let line = format!(
                "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET {target} HTTP/1.1\" 200 1"
            );
            let (seen, _) = one(Format::Access, line);
            let all = |name: &str| {
                let values = seen
                    .values
                    .iter()
                    .filter(|(n, _)| n == name)
                    .map(|(_, v)| v.as_str());
                values.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(
                (&*all("cs-uri-stem"), &*all("cs-uri-query")),
                (stems, queries),
                "{target}"
            );
        }
    }

    #[test]
    fn a_user_or_an_agent_that_imitates_a_line_changes_nothing() {
        let line = "192.0.2.7 - x [01/Mar/2020:10:00:00 +0700] \\\"GET /fake [01/Mar/2026:10:00:00 +0700] \"GET /true HTTP/1.1\" 200 1 \
                    \"-\" \"a\\\" 192.0.2.9 - - [01/Mar/2026:10:00:00 +0700] \\\"GET /fake\"";
        let (seen, _) = one(Format::Access, line);
        assert_eq!(seen.first("cs-uri-stem"), Some("/true"));
        assert_eq!(seen.first("c-ip"), Some("192.0.2.7"));
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET / HTTP/1.1",
            "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET / HTTP/1.1\" ok 1",
            "[01/Mar/2026:10:00:00 +0700] \"GET / HTTP/1.1\" 200 1",
            "192.0.2.7 - - [99/Mar/2026:10:00:00 +0700] \"GET / HTTP/1.1\" 200 1",
        ] {
            let (seen, outcome) = one(Format::Access, line);
            assert_eq!((outcome.is_err(), &*seen.fields), (true, ""), "{line}");
            assert_eq!(seen.sources, "/webserver/nginx,apache");
        }
    }

    #[test]
    fn a_text_ends_at_the_first_quote_that_is_not_escaped() {
        assert_eq!(quoted(b"a\\\"b\" c"), Some((&b"a\\\"b"[..], &b" c"[..])));
        assert_eq!(quoted(b"a\\\\\" c"), Some((&b"a\\\\"[..], &b" c"[..])));
        assert_eq!(quoted(b"a"), None);
    }
}
