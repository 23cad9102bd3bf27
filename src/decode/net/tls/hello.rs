//! The hellos of TLS: RFC 8446 4.1, and the extensions that say who is asked for and who asks.

use smallvec::SmallVec;

use crate::decode::DecodeError;
use crate::decode::net::tls::fingerprint;
use crate::decode::reader::Reader;

/// What is kept of a client's hello.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The field that stayed at TLS 1.2.
    pub version: u16,
    /// RFC 8446 4.2.1, without GREASE.
    pub versions: SmallVec<[u16; 4]>,
    pub session: Vec<u8>,
    pub server_name: Option<Vec<u8>>,
    /// At most `ALPN_MAX`.
    pub alpn: SmallVec<[Vec<u8>; 2]>,
    pub has_ticket: bool,
    pub ja3: String,
    pub ja4: String,
}

/// What is kept of a server's hello.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ServerHello {
    pub version: u16,
    pub session: Vec<u8>,
    pub cipher: u16,
    pub group: Option<u16>,
    pub alpn: Option<Vec<u8>>,
    /// A key shared before is used: RFC 8446 4.2.11.
    pub took_key: bool,
    /// RFC 8446 4.1.4: it asks for another hello.
    pub is_retry: bool,
    pub ja3s: String,
}

/// A client's hello as it stands in the message: what fingerprints are made of.
#[derive(Debug, Default)]
pub struct Offer {
    pub version: u16,
    pub ciphers: SmallVec<[u16; 64]>,
    pub extensions: SmallVec<[u16; 32]>,
    pub groups: SmallVec<[u16; 16]>,
    pub point_formats: SmallVec<[u8; 4]>,
    pub signatures: SmallVec<[u16; 32]>,
}

/// Browsers offer two.
const ALPN_MAX: usize = 8;
/// A DNS name has 253; what is longer is cut.
const SERVER_NAME_BYTES_MAX: usize = 255;
/// RFC 8446 4.1.3: this random is a request to try again.
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const EC_POINT_FORMATS: u16 = 11;
const SIGNATURE_ALGORITHMS: u16 = 13;
const APPLICATION_PROTOCOLS: u16 = 16;
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;

impl ClientHello {
    /// Reads the message's body, as sent over TCP.
    ///
    /// # Errors
    /// When it is cut or its lengths lie.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        Self::over(body, b't')
    }

    /// `carrier` is the first letter of JA4: `t` for TCP, `q` for QUIC.
    ///
    /// # Errors
    /// When it is cut or its lengths lie.
    pub fn over(body: &[u8], carrier: u8) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Self::parts(&mut reader, carrier).ok_or(DecodeError::Malformed {
            what: "TLS client hello",
            at: reader.at(),
        })
    }

    fn parts(reader: &mut Reader<'_>, carrier: u8) -> Option<Self> {
        let mut hello = Self {
            version: reader.be16()?,
            ..Self::default()
        };
        reader.take(32)?;
        hello.session = short(reader)?.to_vec();
        let mut offer = Offer {
            version: hello.version,
            ciphers: numbers(long(reader)?).collect(),
            ..Offer::default()
        };
        short(reader)?; // compression
        // RFC 5246 7.4.1.2: there may be no extensions.
        let extensions = match reader.is_empty() {
            true => &[],
            false => long(reader)?,
        };
        let mut extensions = Reader::new(extensions);
        while !extensions.is_empty() {
            let kind = extensions.be16()?;
            let data = long(&mut extensions)?;
            offer.extensions.push(kind);
            hello.extension(kind, data, &mut offer)?;
        }
        hello.ja3 = fingerprint::ja3(&offer);
        hello.ja4 = fingerprint::ja4(&hello, &offer, carrier);
        Some(hello)
    }

    fn extension(&mut self, kind: u16, data: &[u8], offer: &mut Offer) -> Option<()> {
        let mut reader = Reader::new(data);
        match kind {
            SERVER_NAME if !data.is_empty() => {
                let mut names = Reader::new(long(&mut reader)?);
                // RFC 6066 3: kind 0 is a host's name, and there is no other.
                names.u8()?;
                let name = long(&mut names)?;
                let name = name.get(..SERVER_NAME_BYTES_MAX).unwrap_or(name);
                self.server_name
                    .get_or_insert_with(|| name.to_ascii_lowercase());
            }
            SUPPORTED_GROUPS => offer.groups = numbers(long(&mut reader)?).collect(),
            EC_POINT_FORMATS => offer.point_formats = short(&mut reader)?.into(),
            SIGNATURE_ALGORITHMS => offer.signatures = numbers(long(&mut reader)?).collect(),
            APPLICATION_PROTOCOLS => {
                let mut protocols = Reader::new(long(&mut reader)?);
                while !protocols.is_empty() && self.alpn.len() < ALPN_MAX {
                    self.alpn.push(short(&mut protocols)?.to_vec());
                }
            }
            SESSION_TICKET => self.has_ticket = !data.is_empty(),
            SUPPORTED_VERSIONS => {
                self.versions = numbers(short(&mut reader)?)
                    .filter(|&version| !fingerprint::is_grease(version))
                    .collect();
            }
            _ => {}
        }
        Some(())
    }

    /// Returns the highest version offered.
    pub fn version_best(&self) -> u16 {
        // The drafts' numbers (0x7f..) are higher than any, and mean TLS 1.3.
        self.versions.iter().copied().max().unwrap_or(self.version)
    }
}

impl ServerHello {
    /// # Errors
    /// When it is cut or its lengths lie.
    pub fn read(body: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        Self::parts(&mut reader).ok_or(DecodeError::Malformed {
            what: "TLS server hello",
            at: reader.at(),
        })
    }

    fn parts(reader: &mut Reader<'_>) -> Option<Self> {
        let version = reader.be16()?;
        let random = reader.take(32)?;
        // Drafts 18 to 21 of TLS 1.3 had no session id.
        let session = match version {
            0x7f00..=0x7f15 => &[],
            _ => short(reader)?,
        };
        let mut hello = Self {
            version,
            session: session.to_vec(),
            cipher: reader.be16()?,
            is_retry: random == RETRY,
            ..Self::default()
        };
        if !matches!(version, 0x7f00..=0x7f15) {
            reader.u8()?; // compression
        }
        let extensions = match reader.is_empty() {
            true => &[],
            false => long(reader)?,
        };
        let mut extensions = Reader::new(extensions);
        let mut kinds: SmallVec<[u16; 16]> = SmallVec::new();
        while !extensions.is_empty() {
            let kind = extensions.be16()?;
            let mut data = Reader::new(long(&mut extensions)?);
            kinds.push(kind);
            match kind {
                SUPPORTED_VERSIONS => hello.version = data.be16()?,
                KEY_SHARE => hello.group = data.be16(),
                PRE_SHARED_KEY => hello.took_key = true,
                APPLICATION_PROTOCOLS => {
                    let mut list = Reader::new(long(&mut data)?);
                    hello.alpn = Some(short(&mut list)?.to_vec());
                }
                _ => {}
            }
        }
        hello.ja3s = fingerprint::ja3s(version, hello.cipher, &kinds);
        Some(hello)
    }
}

/// Bytes behind their length of one byte.
fn short<'b>(reader: &mut Reader<'b>) -> Option<&'b [u8]> {
    let length = reader.u8()?;
    reader.take(length.into())
}

/// Bytes behind their length of two bytes.
fn long<'b>(reader: &mut Reader<'b>) -> Option<&'b [u8]> {
    let length = reader.be16()?;
    reader.take(length.into())
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (pairs, _) = bytes.as_chunks::<2>();
    pairs.iter().map(|pair| u16::from_be_bytes(*pair))
}
