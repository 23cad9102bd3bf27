//! Reads HTTP/1.x (RFC 9112): each request with its answer, and of the bodies only the first bytes. Decodes no body,
//! reads no HTTP/2, and keeps no password: of Basic logins the user alone.

mod head;
mod kind;

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{Guess, Opening, Out, Protocol, Side, Step};
use crate::decode::net::http::head::{Length, Request, Response};
use crate::decode::web::access::{Query, set_target};
use crate::event::Event;
use crate::event::field;
use crate::event::field::network;

/// One connection.
#[derive(Debug, Default)]
pub struct Http {
    /// Without an answer yet, the oldest first.
    asked: VecDeque<Request>,
    /// Waits for the first bytes of its body.
    answered: Option<Exchange>,
    /// Those first bytes.
    start: SmallVec<[u8; KIND_BYTES]>,
    client: Part,
    server: Part,
}

/// A request, its answer, or both.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Exchange {
    pub request: Option<Request>,
    pub response: Option<Response>,
    /// By the first bytes of the answer's body.
    pub mime: Option<&'static str>,
}

/// What stands next in one direction.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// So many bytes of a body are left.
    Body(u64),
    /// A chunk's size, RFC 9112 7.1.
    ChunkSize,
    /// So many bytes of a chunk and its line end are left.
    Chunk(u64),
    Trailer,
    /// As long as the connection lasts.
    Endless,
}

/// nginx refuses heads above 8 KiB a line and 32 KiB in all, Apache lines above 8,190 bytes; twice what most take.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// A size in hex and what a chunk's extension may say.
const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Requests sent before the first is answered: browsers send none, clients that do send a handful.
const ASKED_MAX: usize = 32;

/// The longest mark of a kind is an HTML page's, behind some blanks.
const KIND_BYTES: usize = 16;

const METHODS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PATCH ",
    b"PROPFIND ",
    b"PROPPATCH ",
    b"MKCOL ",
    b"COPY ",
    b"MOVE ",
    b"LOCK ",
    b"UNLOCK ",
    b"SEARCH ",
    b"REPORT ",
    b"RPC_IN_DATA ",
    b"RPC_OUT_DATA ",
    b"DEBUG ",
    b"TRACK ",
    b"NOTIFY ",
    b"M-SEARCH ",
    b"SUBSCRIBE ",
    b"BDELETE ",
    b"BPROPFIND ",
    b"POLL ",
    b"PURGE ",
    b"VERSION-CONTROL ",
    b"CHECKOUT ",
    b"MERGE ",
];

impl Http {
    /// Judges the first bytes of either side.
    pub fn guess(opening: &Opening<'_>) -> Guess {
        let bytes = opening.bytes;
        match opening.side {
            Side::Client => METHODS
                .iter()
                .fold(Guess::No, |best, method| best.or(Guess::tag(bytes, method))),
            Side::Server => Guess::tag(bytes, b"HTTP/1."),
        }
    }

    fn feed(
        &mut self,
        side: Side,
        bytes: &[u8],
        found: &mut dyn FnMut(&Exchange),
    ) -> Result<Step, DecodeError> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let part = match side {
                Side::Client => self.client,
                Side::Server => self.server,
            };
            let (used, next) = match part {
                Part::Head => match self.head(side, rest, found)? {
                    Head::Part(used, next) => (used, next),
                    Head::Incomplete => return Ok(Step::Used(at)),
                    Head::Switch(used) => return Ok(Step::Switch(at + used)),
                },
                Part::Endless if side == Side::Server && self.answered.is_some() => {
                    self.body(side, rest, found);
                    return Ok(match self.answered {
                        Some(_) => Step::Used(bytes.len()),
                        None => Step::Done,
                    });
                }
                Part::Endless => return Ok(Step::Done),
                Part::Body(0) => (0, Part::Head),
                Part::Body(left) | Part::Chunk(left) if rest.is_empty() => {
                    return Ok(self.skip(side, at, left));
                }
                Part::Body(left) => {
                    let (used, left) = taken(left, rest);
                    self.body(side, rest.get(..used).unwrap_or_default(), found);
                    (used, Part::Body(left))
                }
                Part::Chunk(0) => (0, Part::ChunkSize),
                Part::Chunk(left) => {
                    let (used, left) = taken(left, rest);
                    self.body(side, rest.get(..used).unwrap_or_default(), found);
                    (used, Part::Chunk(left))
                }
                Part::ChunkSize => match chunk(rest)? {
                    Some((used, next)) => (used, next),
                    None => return Ok(Step::Used(at)),
                },
                Part::Trailer => match head::line_end(rest, HEAD_BYTES_MAX)? {
                    Some(2 | 1) if rest.starts_with(b"\r\n") || rest.starts_with(b"\n") => (
                        rest.iter().take_while(|&&b| b == b'\r').count() + 1,
                        Part::Head,
                    ),
                    Some(used) => (used, Part::Trailer),
                    None => return Ok(Step::Used(at)),
                },
            };
            match side {
                Side::Client => self.client = next,
                Side::Server => self.server = next,
            }
            if side == Side::Server && matches!(next, Part::Head | Part::Body(0)) {
                self.tell(found); // what has no body waits for none
            }
            at += used;
        }
    }

    /// Tells what has no answer, or no body, at the connection's end.
    fn end(&mut self, found: &mut dyn FnMut(&Exchange)) {
        self.tell(found);
        for request in self.asked.drain(..) {
            found(&Exchange {
                request: Some(request),
                ..Exchange::default()
            });
        }
    }

    fn head(
        &mut self,
        side: Side,
        bytes: &[u8],
        found: &mut dyn FnMut(&Exchange),
    ) -> Result<Head, DecodeError> {
        // RFC 9112 2.2: empty lines before a request are passed over.
        let blank = bytes
            .iter()
            .take_while(|&&b| b == b'\r' || b == b'\n')
            .count();
        let bytes = bytes.get(blank..).unwrap_or_default();
        let Some(length) = head::end(bytes, HEAD_BYTES_MAX)? else {
            return Ok(Head::Incomplete);
        };
        let text = bytes.get(..length).unwrap_or_default();
        let used = blank + length;
        match side {
            Side::Client => {
                let (request, length) = Request::read(text)?;
                if self.asked.len() == ASKED_MAX
                    && let Some(oldest) = self.asked.pop_front()
                {
                    found(&Exchange {
                        request: Some(oldest),
                        ..Exchange::default()
                    });
                }
                self.asked.push_back(request);
                Ok(Head::Part(used, part(length, Part::Body(0))))
            }
            Side::Server => self.response(text, used, found),
        }
    }

    fn response(
        &mut self,
        text: &[u8],
        used: usize,
        found: &mut dyn FnMut(&Exchange),
    ) -> Result<Head, DecodeError> {
        let (response, length) = Response::read(text)?;
        // RFC 9110 15.2: an answer before the answer, but for a change of protocol.
        if (100..200).contains(&response.status) && response.status != 101 {
            return Ok(Head::Part(used, Part::Head));
        }
        self.tell(found);
        let request = self.asked.pop_front();
        let method = request.as_ref().map_or(&b""[..], |request| &request.method);
        let is_tunnel = method == b"CONNECT" && (200..300).contains(&response.status);
        // RFC 9112 6.3: these have no body, whatever their headers say.
        let has_none = method == b"HEAD" || matches!(response.status, 101 | 204 | 304);
        let status = response.status;
        self.answered = Some(Exchange {
            request,
            response: Some(response),
            mime: None,
        });
        if is_tunnel || status == 101 {
            self.tell(found);
            return Ok(Head::Switch(used));
        }
        let next = match has_none {
            true => Part::Body(0),
            false => part(length, Part::Endless),
        };
        Ok(Head::Part(used, next))
    }

    /// What is left of a body is passed over, unless its first bytes are waited for.
    fn skip(&mut self, side: Side, at: usize, left: u64) -> Step {
        let part = match side {
            Side::Server if self.answered.is_some() => return Step::Used(at),
            Side::Server => &mut self.server,
            Side::Client => &mut self.client,
        };
        if let Part::Body(left) | Part::Chunk(left) = part {
            *left = 0;
        }
        Step::Skip(left)
    }

    fn body(&mut self, side: Side, bytes: &[u8], found: &mut dyn FnMut(&Exchange)) {
        if side == Side::Server && self.answered.is_some() {
            let room = KIND_BYTES.saturating_sub(self.start.len());
            self.start
                .extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            if self.start.len() == KIND_BYTES {
                self.tell(found);
            }
        }
    }

    /// Tells the answer that waits for its body's first bytes.
    fn tell(&mut self, found: &mut dyn FnMut(&Exchange)) {
        if let Some(mut exchange) = self.answered.take() {
            exchange.mime = kind::of(&self.start);
            found(&exchange);
        }
        self.start.clear();
    }
}

impl Protocol for Http {
    fn service(&self) -> &'static str {
        "http"
    }

    fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        out: &mut Out<'_, '_>,
    ) -> Result<Step, DecodeError> {
        self.feed(side, bytes, &mut |exchange| exchange.tell(out))
    }

    fn finish(&mut self, out: &mut Out<'_, '_>) {
        self.end(&mut |exchange| exchange.tell(out));
    }
}

enum Head {
    Part(usize, Part),
    Incomplete,
    Switch(usize),
}

fn part(length: Length, without: Part) -> Part {
    match length {
        Length::Bytes(bytes) => Part::Body(bytes),
        Length::Chunked => Part::ChunkSize,
        Length::Unsaid => without,
    }
}

fn taken(left: u64, rest: &[u8]) -> (usize, u64) {
    let used = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    (used, left.saturating_sub(used as u64))
}

/// Reads a chunk's size; its line end counts to the chunk.
fn chunk(rest: &[u8]) -> Result<Option<(usize, Part)>, DecodeError> {
    let Some(used) = head::line_end(rest, CHUNK_LINE_BYTES_MAX)? else {
        return Ok(None);
    };
    let malformed = DecodeError::Malformed {
        what: "size of an HTTP chunk",
        at: 0,
    };
    let line = rest.get(..used).unwrap_or_default();
    if line.trim_ascii().is_empty() {
        return Ok(Some((used, Part::ChunkSize))); // the end of the chunk before
    }
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let text = std::str::from_utf8(line.get(..digits).unwrap_or_default()).unwrap_or_default();
    let size = u64::from_str_radix(text, 16).map_err(|_| malformed)?;
    Ok(Some(match size {
        0 => (used, Part::Trailer),
        size => (used, Part::Chunk(size)),
    }))
}

impl Exchange {
    fn tell(&self, out: &mut Out<'_, '_>) {
        let categories: &[&'static str] = match out.scene.initiated {
            Some(true) => &["proxy"],
            Some(false) => &["webserver"],
            None => &["proxy", "webserver"],
        };
        let mut event = out.event(categories, &["http"]);
        self.set(&mut event);
        out.emit(&event);
    }

    pub fn set<'r>(&'r self, event: &mut Event<'r>) {
        if let Some(request) = &self.request {
            request.set(event);
        }
        if let Some(response) = &self.response {
            response.set(event);
        }
        let said = self
            .response
            .as_ref()
            .and_then(|response| response.content_type.as_deref())
            .map(|text| {
                text.split(|&b| b == b';')
                    .next()
                    .unwrap_or_default()
                    .trim_ascii()
            });
        match (self.mime, said) {
            (Some(seen), _) => event.set(network::RESP_MIME_TYPES, seen),
            (None, Some(said)) => event.set(network::RESP_MIME_TYPES, said),
            (None, None) => {}
        }
    }
}

impl Request {
    fn set<'r>(&'r self, event: &mut Event<'r>) {
        event.set(field::CS_METHOD, &self.method[..]);
        event.set(network::METHOD, &self.method[..]);
        event.set(network::URI, &self.target[..]);
        event.set(network::CS_URI, &self.target[..]);
        set_target(
            event,
            &[field::C_URI, field::CS_URI_QUERY],
            &self.target,
            Query::Decode,
        );
        let (stem, query) = match memchr::memchr(b'?', &self.target) {
            Some(at) => self.target.split_at(at),
            None => (&self.target[..], &b""[..]),
        };
        set_target(event, &[field::CS_URI_STEM], stem, Query::Keep);
        if let Some(query) = query.strip_prefix(b"?") {
            event.set(network::C_URI_QUERY, query);
        }
        let file = stem.rsplit(|&b| b == b'/').next().unwrap_or_default();
        if let Some(dot) = memchr::memrchr(b'.', file) {
            event.set(
                network::C_URI_EXTENSION,
                file.get(dot + 1..).unwrap_or_default(),
            );
        }
        event.set(field::CS_VERSION, &self.version[..]);
        let version = self.version.strip_prefix(b"HTTP/").unwrap_or(&self.version);
        event.set(network::VERSION, version);
        self.set_headers(event);
    }

    fn set_headers<'r>(&'r self, event: &mut Event<'r>) {
        if let Some(host) = &self.host {
            event.set(field::CS_HOST, &host[..]);
            event.set(network::HOST, without_port(host));
        }
        if let Some(agent) = &self.user_agent {
            event.set(field::C_USERAGENT, &agent[..]);
            event.set(field::CS_USER_AGENT, &agent[..]);
            event.set(network::USER_AGENT, &agent[..]);
        }
        if let Some(referer) = &self.referer {
            event.set(field::CS_REFERER, &referer[..]);
            event.set(network::REFERRER, &referer[..]);
        }
        if let Some(cookie) = &self.cookie {
            event.set(network::CS_COOKIE, &cookie[..]);
        }
        if let Some(kind) = &self.content_type {
            event.set(network::CS_CONTENT_TYPE, &kind[..]);
        }
        if let Some(user) = &self.user {
            event.set(field::CS_USERNAME, &user[..]);
            event.set(network::USERNAME, &user[..]);
            event.set(network::CLEAR_TEXT, true);
        }
        if let Some(length) = self.body_length {
            event.set(
                network::REQUEST_BODY_LEN,
                i64::try_from(length).unwrap_or(i64::MAX),
            );
        }
        for name in &self.header_names {
            event.set(network::CLIENT_HEADER_NAMES, &name[..]);
        }
        for proxied in &self.proxied {
            event.set(network::PROXIED, &proxied[..]);
        }
    }
}

impl Response {
    fn set<'r>(&'r self, event: &mut Event<'r>) {
        event.set(field::SC_STATUS, self.status);
        event.set(network::STATUS_CODE, self.status);
        event.set(network::STATUS_MSG, &self.reason[..]);
        if let Some(length) = self.body_length {
            let length = i64::try_from(length).unwrap_or(i64::MAX);
            event.set(field::SC_BYTES, length);
            event.set(network::RESPONSE_BODY_LEN, length);
        }
    }
}

/// `[::1]:80` and `a.example:80` without what follows the colon.
fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(at) => {
            let (name, port) = host.split_at(at);
            let is_port = port.iter().skip(1).all(u8::is_ascii_digit);
            let is_name = !name.contains(&b':') || name.ends_with(b"]");
            if is_port && is_name { name } else { host }
        }
        None => host,
    }
}

#[cfg(test)]
mod tests;
