//! Reads TLS 1.0 to 1.3 handshakes (RFC 5246, RFC 8446): who is asked for, what is offered and chosen, certificates
//! where they are visible (up to TLS 1.2), fingerprints. Decrypts nothing and verifies no signature.

pub mod hello;
pub mod fingerprint;
mod name;

use crate::decode::DecodeError;
use crate::decode::net::certificate::Certificate;
use crate::decode::net::dialogue::{Guess, Opening, Out, Protocol, Side, Step};
use crate::decode::net::tls::hello::{ClientHello, ServerHello};
use crate::decode::reader::Reader;
use crate::event::Event;
use crate::event::field;
use crate::event::field::network;

/// One connection.
#[derive(Debug, Default)]
pub struct Tls {
    session: Session,
    client: Half,
    server: Half,
    told: bool,
}

/// What a handshake showed, as far as it went.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Session {
    pub client: Option<ClientHello>,
    pub server: Option<ServerHello>,
    /// Subject and issuer of the server's own certificate.
    pub certificate: Option<(String, String)>,
    pub client_subject: Option<String>,
    /// Of a key exchange within the handshake (TLS 1.2), by number.
    pub curve: Option<u16>,
    /// The last one sent in clear.
    pub alert: Option<u8>,
    pub established: bool,
}

/// What is told of a connection.
pub enum Found<'f> {
    /// Once a connection.
    Session(&'f Session),
    /// Each of a chain, from the holder's on.
    Certificate {
        certificate: &'f Certificate,
        session: &'f Session,
        by: Side,
        /// From 0, the holder's own.
        place: usize,
    },
}

#[derive(Debug, Default)]
struct Half {
    /// Of a handshake message that goes on in the next record.
    message: Vec<u8>,
    /// A change of cipher was sent: what follows is encrypted.
    encrypted: bool,
    /// Encrypted records seen.
    records: u32,
}

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const HEARTBEAT: u8 = 24;

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;

/// RFC 8446 5.1: 2^14, and 2,048 more that RFC 5246 6.2.3 leaves an encrypted record.
const RECORD_BYTES_MAX: usize = (1 << 14) + 2048;
/// OpenSSL takes chains of 100 KiB; what is reassembled of a direction ends at 64 KiB.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// OpenSSL follows a chain of 100; real ones have up to 4.
const CERTIFICATES_MAX: usize = 4;
const TLS_1_3: u16 = 0x0304;

impl Tls {
    /// Judges the first bytes of either side.
    pub fn guess(opening: &Opening<'_>) -> Guess {
        let bytes = opening.bytes;
        let first = Guess::tag(bytes, &[HANDSHAKE, 3]);
        match (first, bytes) {
            (Guess::Yes, [_, _, minor, length @ ..]) if *minor <= 4 => match length {
                [high, _, kind, ..] => {
                    let wanted = match opening.side {
                        Side::Client => CLIENT_HELLO,
                        Side::Server => SERVER_HELLO,
                    };
                    match *kind == wanted && usize::from(*high) << 8 <= RECORD_BYTES_MAX {
                        true => Guess::Yes,
                        false => Guess::No,
                    }
                }
                _ => Guess::Perhaps,
            },
            (Guess::Yes, [_, _, _, ..]) => Guess::No,
            (Guess::Yes, _) => Guess::Perhaps,
            (other, _) => other,
        }
    }

    /// Reads the records that are whole.
    fn feed(
        &mut self,
        side: Side,
        bytes: &[u8],
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<Step, DecodeError> {
        let mut reader = Reader::new(bytes);
        loop {
            let at = reader.at();
            let Some((kind, body)) = record(&mut reader)? else {
                return Ok(Step::Used(at));
            };
            self.record(side, kind, body, found)?;
            if self.told {
                return Ok(Step::Done);
            }
        }
    }

    /// Tells a handshake that came to no end.
    fn end(&mut self, found: &mut dyn FnMut(Found<'_>)) {
        if !self.told && (self.session.client.is_some() || self.session.server.is_some()) {
            self.told = true;
            found(Found::Session(&self.session));
        }
    }

    fn record(
        &mut self,
        side: Side,
        kind: u8,
        body: &[u8],
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<(), DecodeError> {
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        match kind {
            HANDSHAKE if !half.encrypted => {
                if half.message.is_empty() {
                    let used = self.messages(side, body, found)?;
                    self.keep(side, body.get(used..).unwrap_or_default())
                } else {
                    let mut message = std::mem::take(&mut half.message);
                    message.extend_from_slice(body);
                    let used = self.messages(side, &message, found)?;
                    message.drain(..used);
                    self.keep(side, &message)
                }
            }
            // Of TLS 1.3 it means nothing: RFC 8446 D.4.
            CHANGE_CIPHER_SPEC => {
                half.encrypted = true;
                Ok(())
            }
            ALERT if !half.encrypted => {
                if let [_, what] = *body {
                    self.session.alert = Some(what);
                }
                Ok(())
            }
            _ => {
                half.encrypted = true;
                half.records = half.records.saturating_add(1);
                self.conclude(kind, found);
                Ok(())
            }
        }
    }

    fn keep(&mut self, side: Side, rest: &[u8]) -> Result<(), DecodeError> {
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        half.message = rest.to_vec();
        match half.message.len() > MESSAGE_BYTES_MAX {
            true => Err(DecodeError::Malformed {
                what: "length of a TLS handshake message",
                at: 0,
            }),
            false => Ok(()),
        }
    }

    /// A handshake is over when the client sends under the new keys and the server has done so.
    fn conclude(&mut self, kind: u8, found: &mut dyn FnMut(Found<'_>)) {
        let both = self.client.records > 0 && self.server.records > 0;
        // Only one direction may have been seen.
        let much = kind == APPLICATION_DATA && self.client.records.max(self.server.records) > 2;
        if (both || much) && !self.told {
            self.session.established = true;
            self.end(found);
            self.told = true;
        }
    }

    /// Reads the messages that are whole; returns how far.
    fn messages(
        &mut self,
        side: Side,
        bytes: &[u8],
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<usize, DecodeError> {
        let mut reader = Reader::new(bytes);
        loop {
            let at = reader.at();
            let (Some(kind), Some(length)) = (reader.u8(), reader.be24()) else {
                return Ok(at);
            };
            if length as usize > MESSAGE_BYTES_MAX {
                return Err(DecodeError::Malformed {
                    what: "length of a TLS handshake message",
                    at,
                });
            }
            let Some(body) = reader.take(length as usize) else {
                return Ok(at);
            };
            self.message(side, kind, body, found)?;
        }
    }

    fn message(
        &mut self,
        side: Side,
        kind: u8,
        body: &[u8],
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<(), DecodeError> {
        match (side, kind) {
            (Side::Client, CLIENT_HELLO) => {
                // After a HelloRetryRequest the first one counts: it is what the client is known by.
                let hello = ClientHello::read(body)?;
                self.session.client.get_or_insert(hello);
            }
            (Side::Server, SERVER_HELLO) => {
                let hello = ServerHello::read(body)?;
                if !hello.is_retry {
                    self.session.server = Some(hello);
                }
            }
            (_, CERTIFICATE) => self.certificates(side, body, found)?,
            (Side::Server, SERVER_KEY_EXCHANGE) => {
                if let [3, high, low, ..] = *body {
                    self.session.curve = Some(u16::from_be_bytes([high, low]));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// RFC 5246 7.4.2: a list of certificates, each with its length.
    fn certificates(
        &mut self,
        side: Side,
        body: &[u8],
        found: &mut dyn FnMut(Found<'_>),
    ) -> Result<(), DecodeError> {
        let truncated = || DecodeError::Malformed {
            what: "list of TLS certificates",
            at: 0,
        };
        let mut reader = Reader::new(body);
        let length = reader.be24().ok_or_else(truncated)?;
        let list = reader.take(length as usize).ok_or_else(truncated)?;
        let mut reader = Reader::new(list);
        for place in 0..CERTIFICATES_MAX {
            if reader.is_empty() {
                break;
            }
            let length = reader.be24().ok_or_else(truncated)?;
            let der = reader.take(length as usize).ok_or_else(truncated)?;
            let certificate = Certificate::read(der)?;
            if place == 0 && side == Side::Server {
                self.session.certificate =
                    Some((certificate.subject.clone(), certificate.issuer.clone()));
            } else if place == 0 {
                self.session.client_subject = Some(certificate.subject.clone());
            }
            found(Found::Certificate {
                certificate: &certificate,
                session: &self.session,
                by: side,
                place,
            });
        }
        Ok(())
    }
}

impl Protocol for Tls {
    fn service(&self) -> &'static str {
        "ssl"
    }

    fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        out: &mut Out<'_, '_>,
    ) -> Result<Step, DecodeError> {
        self.feed(side, bytes, &mut |found| found.tell(out))
    }

    fn finish(&mut self, out: &mut Out<'_, '_>) {
        self.end(&mut |found| found.tell(out));
    }
}

impl Found<'_> {
    fn tell(&self, out: &mut Out<'_, '_>) {
        let event = match *self {
            Found::Session(session) => {
                let mut event = out.event(&["tls"], &["ssl"]);
                session.set(&mut event);
                event
            }
            Found::Certificate {
                certificate,
                session,
                by,
                place,
            } => {
                let mut event = out.event(&["certificate"], &["x509"]);
                certificate.set(&mut event);
                let is_host = by == Side::Server && place == 0;
                event.set(network::HOST_CERT, is_host);
                event.set(network::CLIENT_CERT, by == Side::Client && place == 0);
                let asked = session
                    .client
                    .as_ref()
                    .and_then(|client| client.server_name.as_ref());
                if let Some(name) = asked.filter(|_| is_host) {
                    event.set(network::SERVER_NAME, &name[..]);
                    event.set(field::DESTINATION_HOSTNAME, &name[..]);
                    let is_same =
                        std::str::from_utf8(name).is_ok_and(|name| certificate.names_host(name));
                    event.set(network::CERT_MATCHES, is_same);
                }
                event
            }
        };
        out.emit(&event);
    }
}

/// RFC 8446 5.1. Returns nothing before the record is whole.
fn record<'b>(reader: &mut Reader<'b>) -> Result<Option<(u8, &'b [u8])>, DecodeError> {
    let at = reader.at();
    let malformed = DecodeError::Malformed {
        what: "TLS record",
        at,
    };
    let Some(kind) = reader.peek() else {
        return Ok(None);
    };
    if !(CHANGE_CIPHER_SPEC..=HEARTBEAT).contains(&kind) {
        return Err(malformed);
    }
    let mut ahead = *reader;
    let header = (ahead.u8(), ahead.be16(), ahead.be16());
    let (Some(kind), Some(version), Some(length)) = header else {
        return Ok(None);
    };
    if version >> 8 != 3 || usize::from(length) > RECORD_BYTES_MAX {
        return Err(malformed);
    }
    let Some(body) = ahead.take(length.into()) else {
        return Ok(None);
    };
    *reader = ahead;
    Ok(Some((kind, body)))
}

impl Session {
    /// The version that both sides use: the server's, else the best that the client offers.
    pub fn version(&self) -> Option<u16> {
        self.server
            .as_ref()
            .map(|server| server.version)
            .or(self.client.as_ref().map(|client| client.version_best()))
    }

    /// The session id came back (TLS 1.2), or a key known before was taken (TLS 1.3).
    pub fn resumed(&self) -> bool {
        let (Some(client), Some(server)) = (&self.client, &self.server) else {
            return false;
        };
        match server.version {
            TLS_1_3 => server.took_key,
            _ => {
                let same = !client.session.is_empty() && client.session == server.session;
                same || self.certificate.is_none() && client.has_ticket && self.established
            }
        }
    }

    pub fn set<'r>(&'r self, event: &mut Event<'r>) {
        if let Some(client) = &self.client {
            client.set(event);
        }
        if let Some(server) = &self.server {
            server.set(event);
        }
        if let Some(version) = self.version() {
            event.set(network::VERSION, name::version(version));
        }
        let group = self.server.as_ref().and_then(|server| server.group);
        if let Some(curve) = self.curve.or(group) {
            event.set(network::CURVE, name::group(curve));
        }
        if let Some((subject, issuer)) = &self.certificate {
            event.set(network::SUBJECT, subject.as_str());
            event.set(network::ISSUER, issuer.as_str());
        }
        if let Some(subject) = &self.client_subject {
            event.set(network::CLIENT_SUBJECT, subject.as_str());
        }
        if let Some(alert) = self.alert {
            event.set(network::LAST_ALERT, name::alert(alert));
        }
        event.set(network::RESUMED, self.resumed());
        event.set(network::ESTABLISHED, self.established);
    }
}

impl ClientHello {
    pub fn set<'r>(&'r self, event: &mut Event<'r>) {
        if let Some(name) = &self.server_name {
            event.set(network::SERVER_NAME, &name[..]);
            event.set(field::CS_HOST, &name[..]);
            event.set(field::DESTINATION_HOSTNAME, &name[..]);
        }
        for protocol in &self.alpn {
            event.set(network::ALPN, &protocol[..]);
        }
        event.set(network::JA3, self.ja3.as_str());
        event.set(network::JA4, self.ja4.as_str());
    }
}

impl ServerHello {
    fn set<'r>(&'r self, event: &mut Event<'r>) {
        event.set(network::CIPHER, name::cipher(self.cipher));
        event.set(network::JA3S, self.ja3s.as_str());
        if let Some(alpn) = &self.alpn {
            event.set(network::NEXT_PROTOCOL, &alpn[..]);
        }
    }
}

#[cfg(test)]
mod tests;
