//! Reads what SSH says before it is encrypted: identification lines (RFC 4253 4.2) and offers of algorithms (7.1),
//! with HASSH of each side. Judges no login: what is encrypted says nothing of how it went.

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{self, Guess, Opening, Out, Protocol, Side, Step};
use crate::decode::net::tls::fingerprint::md5_hex;
use crate::decode::reader::Reader;
use crate::event::Event;
use crate::event::field::network;

/// One connection.
#[derive(Debug, Default)]
pub struct Ssh {
    client: Half,
    server: Half,
    told: bool,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Half {
    /// Without its line end.
    banner: Option<Vec<u8>>,
    offer: Option<Offer>,
    lines: usize,
}

/// RFC 4253 7.1: lists of names, the ones to the server of each pair.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Offer {
    kex: Vec<u8>,
    host_keys: Vec<u8>,
    ciphers: Vec<u8>,
    macs: Vec<u8>,
    compressions: Vec<u8>,
    hassh: String,
}

/// What both sides said.
#[derive(Debug)]
pub struct Session<'s> {
    client: &'s Half,
    server: &'s Half,
}

/// RFC 4253 4.2: the line end included.
const BANNER_BYTES_MAX: usize = 255;
/// OpenSSH gives up after so many lines before the banner.
const LINES_MAX: usize = 1024;
/// RFC 4253 6.1 asks for 35,000; OpenSSH takes 256 KiB.
const PACKET_BYTES_MAX: usize = 35_000;
const KEXINIT: u8 = 20;

impl Ssh {
    /// Judges the first bytes of either side.
    pub fn guess(opening: &Opening<'_>) -> Guess {
        Guess::tag(opening.bytes, b"SSH-")
    }

    /// Reads up to the offers.
    fn feed(
        &mut self,
        side: Side,
        bytes: &[u8],
        found: &mut dyn FnMut(&Session<'_>),
    ) -> Result<Step, DecodeError> {
        let half = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let mut at = 0;
        while half.banner.is_none() {
            let rest = bytes.get(at..).unwrap_or_default();
            let Some((line, used)) = dialogue::line(rest, BANNER_BYTES_MAX, "SSH banner")? else {
                return Ok(Step::Used(at));
            };
            at += used;
            half.lines += 1;
            if line.starts_with(b"SSH-") {
                half.banner = Some(line.to_vec());
            } else if side == Side::Client || half.lines > LINES_MAX {
                // RFC 4253 4.2: only a server may say something before.
                return Err(DecodeError::Malformed {
                    what: "SSH banner",
                    at,
                });
            }
        }
        if !half.is_second() {
            // SSH-1 has other packets, and no offers.
            self.conclude(found);
            return Ok(Step::Used(bytes.len()));
        }
        let mut reader = Reader::new(bytes.get(at..).unwrap_or_default());
        if half.offer.is_none() {
            match packet(&mut reader)? {
                Some(payload) if payload.first() == Some(&KEXINIT) => {
                    half.offer = Some(Offer::read(payload, side)?)
                }
                Some(_) => {}
                None => return Ok(Step::Used(at)),
            }
        }
        self.conclude(found);
        Ok(match self.told {
            true => Step::Done,
            false => Step::Used(at + reader.at()),
        })
    }

    /// Tells what was seen of a connection that ended before both sides had offered.
    fn end(&mut self, found: &mut dyn FnMut(&Session<'_>)) {
        if !self.told && (self.client.banner.is_some() || self.server.banner.is_some()) {
            self.told = true;
            found(&Session {
                client: &self.client,
                server: &self.server,
            });
        }
    }

    fn conclude(&mut self, found: &mut dyn FnMut(&Session<'_>)) {
        let is_over =
            |half: &Half| half.banner.is_some() && (half.offer.is_some() || !half.is_second());
        if is_over(&self.client) && is_over(&self.server) {
            self.end(found);
        }
    }
}

impl Protocol for Ssh {
    fn service(&self) -> &'static str {
        "ssh"
    }

    fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        out: &mut Out<'_, '_>,
    ) -> Result<Step, DecodeError> {
        self.feed(side, bytes, &mut |session| session.tell(out))
    }

    fn finish(&mut self, out: &mut Out<'_, '_>) {
        self.end(&mut |session| session.tell(out));
    }
}

impl Half {
    /// RFC 4253 5.1: 1.99 speaks both.
    fn is_second(&self) -> bool {
        self.banner
            .as_ref()
            .is_none_or(|banner| banner.starts_with(b"SSH-2.") || banner.starts_with(b"SSH-1.99"))
    }
}

/// RFC 4253 6: the payload of a packet that is not encrypted yet.
fn packet<'b>(reader: &mut Reader<'b>) -> Result<Option<&'b [u8]>, DecodeError> {
    let malformed = DecodeError::Malformed {
        what: "SSH packet",
        at: 0,
    };
    let mut ahead = *reader;
    let Some(length) = ahead.be32() else {
        return Ok(None);
    };
    if length as usize > PACKET_BYTES_MAX || length < 2 {
        return Err(malformed);
    }
    let Some(packet) = ahead.take(length as usize) else {
        return Ok(None);
    };
    *reader = ahead;
    let (&padding, payload) = packet.split_first().ok_or(malformed)?;
    let length = payload.len().checked_sub(padding.into()).ok_or(malformed)?;
    Ok(payload.get(..length))
}

impl Offer {
    fn read(payload: &[u8], side: Side) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        Self::lists(&mut reader, side).ok_or(DecodeError::Malformed {
            what: "SSH key exchange offer",
            at: reader.at(),
        })
    }

    fn lists(reader: &mut Reader<'_>, side: Side) -> Option<Self> {
        reader.take(17)?; // kind, cookie
        let kex = list(reader)?;
        let host_keys = list(reader)?;
        let (to_server, to_client) = (list(reader)?, list(reader)?);
        let (mac_to_server, mac_to_client) = (list(reader)?, list(reader)?);
        let (pack_to_server, pack_to_client) = (list(reader)?, list(reader)?);
        // HASSH: of a client what it sends with, of a server likewise.
        let hashed = match side {
            Side::Client => [kex, to_server, mac_to_server, pack_to_server],
            Side::Server => [kex, to_client, mac_to_client, pack_to_client],
        };
        Some(Self {
            kex: kex.to_vec(),
            host_keys: host_keys.to_vec(),
            ciphers: to_server.to_vec(),
            macs: mac_to_server.to_vec(),
            compressions: pack_to_server.to_vec(),
            hassh: md5_hex(&hashed.join(&b';')),
        })
    }
}

fn list<'b>(reader: &mut Reader<'b>) -> Option<&'b [u8]> {
    let length = reader.be32()?;
    reader.take(usize::try_from(length).ok()?)
}

/// RFC 4253 7.1: the first of the client's that the server has too.
fn agreed<'o>(client: &'o [u8], server: &[u8]) -> Option<&'o [u8]> {
    client
        .split(|&b| b == b',')
        .find(|name| server.split(|&b| b == b',').any(|other| other == *name))
}

impl<'s> Session<'s> {
    fn tell(&self, out: &mut Out<'_, '_>) {
        let mut event = out.event(&["ssh"], &["ssh"]);
        self.set(&mut event);
        out.emit(&event);
    }

    pub fn set<'r>(&self, event: &mut Event<'r>)
    where
        's: 'r,
    {
        if let Some(banner) = &self.client.banner {
            event.set(network::CLIENT, &banner[..]);
        }
        if let Some(banner) = &self.server.banner {
            event.set(network::SERVER, &banner[..]);
        }
        let banners = [&self.client.banner, &self.server.banner];
        let is_second = self.client.is_second() && self.server.is_second();
        if banners.iter().all(|banner| banner.is_some()) || !is_second {
            event.set(network::VERSION, if is_second { 2_i64 } else { 1 });
        }
        if let Some(offer) = &self.client.offer {
            event.set(network::HASSH, offer.hassh.as_str());
        }
        if let Some(offer) = &self.server.offer {
            event.set(network::HASSH_SERVER, offer.hassh.as_str());
        }
        if let (Some(client), Some(server)) = (&self.client.offer, &self.server.offer) {
            for (id, ours, theirs) in [
                (network::KEX_ALG, &client.kex, &server.kex),
                (network::HOST_KEY_ALG, &client.host_keys, &server.host_keys),
                (network::CIPHER_ALG, &client.ciphers, &server.ciphers),
                (network::MAC_ALG, &client.macs, &server.macs),
                (
                    network::COMPRESSION_ALG,
                    &client.compressions,
                    &server.compressions,
                ),
            ] {
                if let Some(name) = agreed(ours, theirs) {
                    event.set(id, name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
