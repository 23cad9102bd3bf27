//! Numbers of the IANA registries as texts. Those of cipher suites, groups and alerts are rustls'.

use std::borrow::Cow;

use rustls::{AlertDescription, CipherSuite, NamedGroup};

/// As Zeek writes versions.
pub fn version(number: u16) -> Cow<'static, [u8]> {
    let known = match number {
        0x0002 => "SSLv2",
        0x0300 => "SSLv3",
        0x0301 => "TLSv10",
        0x0302 => "TLSv11",
        0x0303 => "TLSv12",
        0x0304 => "TLSv13",
        0xfeff => "DTLSv10",
        0xfefd => "DTLSv12",
        0xfefc => "DTLSv13",
        // Drafts of TLS 1.3.
        0x7f00..=0x7fff => "TLSv13",
        _ => return Cow::Owned(format!("unknown-{number}").into_bytes()),
    };
    Cow::Borrowed(known.as_bytes())
}

/// Returns `TLS_…`, else `unknown-` and the number.
pub fn cipher(number: u16) -> Cow<'static, [u8]> {
    // rustls names these after the version; the registry doesn't.
    match CipherSuite::from(number).as_str() {
        Some(name) => match name.strip_prefix("TLS13_") {
            Some(rest) => Cow::Owned(format!("TLS_{rest}").into_bytes()),
            None => Cow::Borrowed(name.as_bytes()),
        },
        None => Cow::Owned(format!("unknown-{number}").into_bytes()),
    }
}

/// Returns `x25519`, `secp256r1` …, else `unknown-` and the number.
pub fn group(number: u16) -> Cow<'static, [u8]> {
    let text = match NamedGroup::from(number).as_str() {
        Some(name) => name.to_ascii_lowercase(),
        None => format!("unknown-{number}"),
    };
    Cow::Owned(text.into_bytes())
}

/// Returns `handshake_failure` …, else `unknown-` and the number.
pub fn alert(number: u8) -> Cow<'static, [u8]> {
    let Some(name) = AlertDescription::from(number).as_str() else {
        return Cow::Owned(format!("unknown-{number}").into_bytes());
    };
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase()
            && !text.is_empty()
            && !text.ends_with(|c: char| c.is_ascii_uppercase())
        {
            text.push('_');
        }
        text.push(letter);
    }
    Cow::Owned(text.to_ascii_lowercase().into_bytes())
}
