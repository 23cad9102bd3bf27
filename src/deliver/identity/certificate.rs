//! What a certificate says, read from its DER; not whether it is true: TLS has judged that before.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use ring::digest;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::deliver::identity::AgentId;
use crate::deliver::identity::agent_id::hex;

#[derive(Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    #[error("no PEM block `CERTIFICATE`")]
    NotPem,
    #[error("not an X.509 certificate")]
    NotX509,
    #[error("no time of beginning or end that can be represented")]
    Time,
    #[error("it names no agent")]
    NoAgent,
    #[error("it names more than one agent")]
    ManyAgents,
}

/// The agent at the other end of a connection, from its verified certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub agent: AgentId,
    pub not_after: Timestamp,
}

impl Peer {
    /// Reads the first certificate that the peer showed. Only for one that the handshake accepted.
    ///
    /// # Errors
    /// The certificate does not carry exactly one `urn:canhgac:agent:…`.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let facts = Facts::read(certificate)?;
        Ok(Self {
            agent: facts.agent()?,
            not_after: facts.not_after,
        })
    }

    /// Whether it may do nothing but renew. To be asked on each request: connections are long.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        now > self.not_after
    }
}

/// Returns when a certificate ends.
///
/// # Errors
/// It can't be read.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<Timestamp, CertificateError> {
    Ok(Facts::read(certificate)?.not_after)
}

/// Returns the first certificate of a PEM text.
///
/// # Errors
/// There is none.
pub fn read_pem(pem: &str) -> Result<CertificateDer<'static>, CertificateError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| CertificateError::NotPem)
}

/// The first half of the SHA-256 of an authority's public key (its SubjectPublicKeyInfo): names a centre.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPin([u8; 16]);

impl KeyPin {
    /// Returns the pin of the key in a certificate.
    ///
    /// # Errors
    /// It can't be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        Ok(Self::of_key(&Facts::read(certificate)?.key_info))
    }

    pub(super) fn of_key(subject_public_key_info: &[u8]) -> Self {
        let hash = digest::digest(&digest::SHA256, subject_public_key_info);
        let mut pin = [0; 16];
        pin.copy_from_slice(&hash.as_ref()[..16]);
        Self(pin)
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("the name of a centre's key is 32 hex digits")]
pub struct NotAKeyPin;

impl FromStr for KeyPin {
    type Err = NotAKeyPin;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotAKeyPin);
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| NotAKeyPin)
    }
}

/// What this crate asks of certificates.
#[derive(Debug)]
pub(super) struct Facts {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    /// SubjectPublicKeyInfo, DER.
    pub key_info: Vec<u8>,
    /// SAN: host names, addresses and URIs, as text, sorted.
    pub names: Vec<String>,
    uris: Vec<String>,
}

impl Facts {
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| CertificateError::NotX509)?;
        let time = |asn1: x509_parser::time::ASN1Time| {
            Timestamp::from_second(asn1.timestamp()).map_err(|_| CertificateError::Time)
        };
        let alternative = parsed
            .subject_alternative_name()
            .map_err(|_| CertificateError::NotX509)?;
        let mut names = Vec::new();
        let mut uris = Vec::new();
        for name in alternative
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            match name {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes)),
                GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                _ => {}
            }
        }
        names.sort_unstable();
        Ok(Self {
            not_before: time(parsed.validity().not_before)?,
            not_after: time(parsed.validity().not_after)?,
            key_info: parsed.public_key().raw.to_vec(),
            names,
            uris,
        })
    }

    pub fn agent(&self) -> Result<AgentId, CertificateError> {
        match self.uris.as_slice() {
            [uri] => AgentId::from_urn(uri).map_err(|_| CertificateError::NoAgent),
            [] => Err(CertificateError::NoAgent),
            _ => Err(CertificateError::ManyAgents),
        }
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    use std::net::IpAddr;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok().map(|address| address.to_string())
}
