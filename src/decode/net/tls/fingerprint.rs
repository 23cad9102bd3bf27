//! JA3 and JA3S (MD5 over numbers in the order sent) and JA4 (sorted, so that a client that shuffles its extensions
//! keeps its name). JA4 alone of FoxIO's family: its other members are not free to use.

use std::fmt::Write;

use md5::{Digest, Md5};
use ring::digest::{SHA256, digest};
use smallvec::SmallVec;

use crate::decode::net::tls::hello::{ClientHello, Offer};

const SERVER_NAME: u16 = 0;
const APPLICATION_PROTOCOLS: u16 = 16;

/// RFC 8701: values of the form 0x?a?a, both halves equal, that a client throws in.
pub fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

/// Returns 32 hex digits.
pub fn ja3(offer: &Offer) -> String {
    let mut text = String::with_capacity(512);
    let _ = write!(text, "{},", offer.version);
    join(&mut text, offer.ciphers.iter().copied());
    text.push(',');
    join(&mut text, offer.extensions.iter().copied());
    text.push(',');
    join(&mut text, offer.groups.iter().copied());
    text.push(',');
    join(
        &mut text,
        offer.point_formats.iter().map(|&format| u16::from(format)),
    );
    md5_hex(text.as_bytes())
}

/// Returns 32 hex digits.
pub fn ja3s(version: u16, cipher: u16, extensions: &[u16]) -> String {
    let mut text = format!("{version},{cipher},");
    join(&mut text, extensions.iter().copied());
    md5_hex(text.as_bytes())
}

/// Returns such as `t13d1516h2_8daaf6152771_e5627efa2ab1`. `carrier`: `t`, `q` or `d`.
pub fn ja4(hello: &ClientHello, offer: &Offer, carrier: u8) -> String {
    let without_grease = |list: &[u16]| -> SmallVec<[u16; 64]> {
        list.iter()
            .copied()
            .filter(|&number| !is_grease(number))
            .collect()
    };
    let mut ciphers = without_grease(&offer.ciphers);
    let mut extensions = without_grease(&offer.extensions);
    let signatures = without_grease(&offer.signatures);
    let mut text = String::with_capacity(36);
    text.push(carrier.into());
    text.push_str(version(hello.version_best()));
    text.push(match extensions.contains(&SERVER_NAME) {
        true => 'd',
        false => 'i',
    });
    let _ = write!(
        text,
        "{:02}{:02}",
        ciphers.len().min(99),
        extensions.len().min(99)
    );
    text.extend(alpn(hello.alpn.first().map_or(&b""[..], |first| first)));
    ciphers.sort_unstable();
    extensions.retain(|number| ![SERVER_NAME, APPLICATION_PROTOCOLS].contains(number));
    extensions.sort_unstable();
    text.push('_');
    text.push_str(&sha256_hex(&hex(&ciphers)));
    let mut rest = hex(&extensions);
    if !signatures.is_empty() && !rest.is_empty() {
        rest.push('_');
        rest.push_str(&hex(&signatures));
    }
    text.push('_');
    text.push_str(&sha256_hex(&rest));
    text
}

fn version(number: u16) -> &'static str {
    match number {
        0x0304 | 0x7f00..=0x7fff => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// The first and the last character; of the hex digits where they are neither letters nor digits.
fn alpn(protocol: &[u8]) -> [char; 2] {
    let (Some(&first), Some(&last)) = (protocol.first(), protocol.last()) else {
        return ['0', '0'];
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return [first.into(), last.into()];
    }
    let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
    [digit(first >> 4), digit(last & 0x0f)]
}

fn join(text: &mut String, numbers: impl Iterator<Item = u16>) {
    let mut is_first = true;
    for number in numbers.filter(|&number| !is_grease(number)) {
        if !is_first {
            text.push('-');
        }
        is_first = false;
        let _ = write!(text, "{number}");
    }
}

fn hex(numbers: &[u16]) -> String {
    let mut text = String::with_capacity(numbers.len() * 5);
    for number in numbers {
        if !text.is_empty() {
            text.push(',');
        }
        let _ = write!(text, "{number:04x}");
    }
    text
}

/// The first twelve digits; zeros of nothing.
fn sha256_hex(text: &str) -> String {
    if text.is_empty() {
        return "000000000000".to_owned();
    }
    let mut out = String::with_capacity(12);
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(6) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}

pub fn md5_hex(text: &[u8]) -> String {
    let mut out = String::with_capacity(32);
    for byte in Md5::digest(text) {
        let _ = write!(out, "{byte:02x}");
    }
    out
}
