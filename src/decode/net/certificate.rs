//! Reads an X.509 certificate (RFC 5280) as far as people and rules look at it. Verifies no signature and no chain: a
//! sensor sees what was shown, not what was trusted.

use std::fmt::Write;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use x509_parser::asn1_rs::Oid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::decode::DecodeError;
use crate::event::Event;
use crate::event::field::network;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256, lower case hex.
    pub fingerprint: String,
    /// 1 to 3.
    pub version: u32,
    /// Upper case hex.
    pub serial: String,
    /// RFC 4514: the last part first.
    pub subject: String,
    pub issuer: String,
    pub is_self_signed: bool,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub key_algorithm: String,
    pub signature_algorithm: String,
    /// `rsa`, `ecdsa`, `dsa`, else empty.
    pub key_type: &'static str,
    pub key_bits: usize,
    /// Common names of the subject, for certificates without alternatives.
    pub common_names: Vec<String>,
    /// At most `NAMES_MAX`.
    pub names: Vec<String>,
}

/// Certificates of large sites name a hundred hosts; a rule needs to find one of a few.
const NAMES_MAX: usize = 64;
/// A distinguished name of 100 parts is an attack on its reader.
const NAME_BYTES_MAX: usize = 1024;
const DAY: i64 = 86_400;

impl Certificate {
    /// # Errors
    /// When it is not DER of a certificate.
    pub fn read(der: &[u8]) -> Result<Self, DecodeError> {
        let (_, read) = X509Certificate::from_der(der).map_err(|_| DecodeError::Malformed {
            what: "X.509 certificate",
            at: 0,
        })?;
        let subject = distinguished(read.subject());
        let issuer = distinguished(read.issuer());
        let key = read.public_key();
        let (key_type, key_bits) = match key.parsed() {
            Ok(PublicKey::RSA(rsa)) => ("rsa", rsa.key_size()),
            Ok(PublicKey::EC(point)) => ("ecdsa", point.key_size()),
            Ok(PublicKey::DSA(number)) => ("dsa", number.len().saturating_mul(8)),
            _ => ("", 0),
        };
        let mut names = Vec::new();
        if let Ok(Some(alternatives)) = read.subject_alternative_name() {
            for name in &alternatives.value.general_names {
                if let GeneralName::DNSName(name) = name
                    && names.len() < NAMES_MAX
                {
                    names.push(name.to_ascii_lowercase());
                }
            }
        }
        Ok(Self {
            fingerprint: hex(digest(&SHA256, der).as_ref(), Case::Lower),
            version: read.version().0.saturating_add(1),
            serial: serial(read.raw_serial()),
            is_self_signed: subject == issuer,
            subject,
            issuer,
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
            key_algorithm: algorithm(&key.algorithm.algorithm),
            signature_algorithm: algorithm(&read.signature_algorithm.algorithm),
            key_type,
            key_bits,
            common_names: read
                .subject()
                .iter_common_name()
                .filter_map(|name| name.as_str().ok())
                .map(str::to_ascii_lowercase)
                .collect(),
            names,
        })
    }

    /// Whether it stands for a host: RFC 9525, a wildcard for the leftmost label alone.
    pub fn names_host(&self, host: &str) -> bool {
        let names = match self.names.is_empty() {
            true => &self.common_names,
            false => &self.names,
        };
        let host = host.trim_end_matches('.');
        names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => name == host,
        })
    }

    /// Sets it as it was at the event's time.
    pub fn set<'r>(&'r self, event: &mut Event<'r>) {
        event.set(network::FINGERPRINT, self.fingerprint.as_str());
        event.set(network::CERT_VERSION, i64::from(self.version));
        event.set(network::CERT_SERIAL, self.serial.as_str());
        event.set(network::CERT_SUBJECT, self.subject.as_str());
        event.set(network::CERT_ISSUER, self.issuer.as_str());
        event.set(network::CERT_NOT_BEFORE, self.not_before);
        event.set(network::CERT_NOT_AFTER, self.not_after);
        event.set(
            network::CERT_DAYS,
            self.not_after.saturating_sub(self.not_before) / DAY,
        );
        event.set(network::CERT_KEY_ALG, self.key_algorithm.as_str());
        event.set(network::CERT_SIG_ALG, self.signature_algorithm.as_str());
        if !self.key_type.is_empty() {
            event.set(network::CERT_KEY_TYPE, self.key_type);
            event.set(
                network::CERT_KEY_LENGTH,
                i64::try_from(self.key_bits).unwrap_or(i64::MAX),
            );
        }
        event.set(network::CERT_SELF_SIGNED, self.is_self_signed);
        if let Some(seen) = event.time.map(Timestamp::as_second) {
            event.set(network::CERT_EXPIRED, seen > self.not_after);
            event.set(network::CERT_NOT_YET, seen < self.not_before);
        }
        for name in &self.names {
            event.set(network::SAN_DNS, name.as_str());
        }
    }
}

/// RFC 4514: parts from the last to the first, `,` and what else would mislead a reader escaped.
fn distinguished(name: &X509Name<'_>) -> String {
    let mut parts: Vec<_> = name.iter_rdn().collect();
    parts.reverse();
    let mut text = String::new();
    for (at, part) in parts.into_iter().enumerate() {
        for (within, attribute) in part.iter().enumerate() {
            match (at, within) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            attribute_text(attribute, &mut text);
            if text.len() > NAME_BYTES_MAX {
                let end = text.floor_char_boundary(NAME_BYTES_MAX);
                text.truncate(end);
                return text;
            }
        }
    }
    text
}

fn attribute_text(attribute: &AttributeTypeAndValue<'_>, text: &mut String) {
    let oid = attribute.attr_type();
    match short_name(oid) {
        Some(name) => text.push_str(name),
        None => {
            let _ = write!(text, "{oid}");
        }
    }
    text.push('=');
    let value = match attribute.as_str() {
        Ok(value) => value.to_owned(),
        // Of 16 bits a character, or of 8: read as far as it goes.
        Err(_) => String::from_utf8_lossy(attribute.as_slice()).replace('\0', ""),
    };
    for (at, letter) in value.chars().enumerate() {
        let is_special = ",+\"\\<>;".contains(letter) || at == 0 && "# ".contains(letter);
        if is_special {
            text.push('\\');
        }
        text.push(letter);
    }
}

/// RFC 4519's names, and two that certificates still hold.
fn short_name(oid: &Oid<'_>) -> Option<&'static str> {
    Some(match oid.to_id_string().as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.15" => "businessCategory",
        "2.5.4.17" => "postalCode",
        "2.5.4.42" => "GN",
        "2.5.4.97" => "organizationIdentifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        "1.2.840.113549.1.9.2" => "unstructuredName",
        "1.3.6.1.4.1.311.60.2.1.1" => "jurisdictionL",
        "1.3.6.1.4.1.311.60.2.1.2" => "jurisdictionST",
        "1.3.6.1.4.1.311.60.2.1.3" => "jurisdictionC",
        _ => return None,
    })
}

/// As OpenSSL names them; others by their numbers.
fn algorithm(oid: &Oid<'_>) -> String {
    let number = oid.to_id_string();
    let name = match number.as_str() {
        "1.2.840.113549.1.1.1" => "rsaEncryption",
        "1.2.840.113549.1.1.2" => "md2WithRSAEncryption",
        "1.2.840.113549.1.1.4" => "md5WithRSAEncryption",
        "1.2.840.113549.1.1.5" => "sha1WithRSAEncryption",
        "1.2.840.113549.1.1.10" => "rsassaPss",
        "1.2.840.113549.1.1.11" => "sha256WithRSAEncryption",
        "1.2.840.113549.1.1.12" => "sha384WithRSAEncryption",
        "1.2.840.113549.1.1.13" => "sha512WithRSAEncryption",
        "1.2.840.10040.4.1" => "dsaEncryption",
        "1.2.840.10040.4.3" => "dsaWithSHA1",
        "1.2.840.10045.2.1" => "id-ecPublicKey",
        "1.2.840.10045.4.1" => "ecdsa-with-SHA1",
        "1.2.840.10045.4.3.2" => "ecdsa-with-SHA256",
        "1.2.840.10045.4.3.3" => "ecdsa-with-SHA384",
        "1.2.840.10045.4.3.4" => "ecdsa-with-SHA512",
        "1.3.101.112" => "ED25519",
        "1.3.14.3.2.29" => "sha1WithRSA",
        _ => return number,
    };
    name.to_owned()
}

/// Without the zero that keeps a number positive.
fn serial(raw: &[u8]) -> String {
    let text = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    hex(text, Case::Upper)
}

enum Case {
    Lower,
    Upper,
}

fn hex(bytes: &[u8], case: Case) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = match case {
            Case::Lower => write!(text, "{byte:02x}"),
            Case::Upper => write!(text, "{byte:02X}"),
        };
    }
    text
}

#[cfg(test)]
mod tests;
