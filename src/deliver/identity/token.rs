//! What an agency is given to enrol its hosts with: a secret, and which centre it is for.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use thiserror::Error;

use crate::deliver::identity::KeyPin;
use crate::deliver::identity::agent_id::random;

/// `cg1.<secret>.<first half of the SHA-256 of the CA's public key>`: the second part lets a host see that it talks to
/// the right centre before it sends the first.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    pin: KeyPin,
}

const VERSION: &str = "cg1";
/// 256 bits: nothing to guess, so that a plain hash of it may be stored.
const SECRET_BYTES: usize = 32;
/// What people paste is bounded before it is looked at; a token of ours has 80 characters.
const TEXT_BYTES_MAX: usize = 256;

#[derive(Debug, PartialEq, Eq, Error)]
#[error("not a token: expected `cg1.<secret>.<32 hex digits>`")]
pub struct NotAToken;

impl Token {
    /// Makes one for the centre whose authority has this key.
    pub fn random(pin: KeyPin) -> Self {
        Self {
            secret: URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()),
            pin,
        }
    }

    /// Returns the text to hand over: it is the secret itself, so there is no `Display`.
    pub fn text(&self) -> String {
        format!("{VERSION}.{}.{}", self.secret, self.pin)
    }

    /// Returns what a centre stores of it.
    pub fn secret_hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, self.secret.as_bytes()).as_ref());
        hash
    }

    /// Returns which centre it is for.
    pub fn pin(&self) -> KeyPin {
        self.pin
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({VERSION}.….{})", self.pin)
    }
}

impl FromStr for Token {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(NotAToken);
        }
        let mut parts = text.trim().split('.');
        let (Some(VERSION), Some(secret), Some(pin), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAToken);
        };
        let bytes = URL_SAFE_NO_PAD.decode(secret).map_err(|_| NotAToken)?;
        if bytes.len() != SECRET_BYTES {
            return Err(NotAToken);
        }
        Ok(Self {
            secret: secret.to_owned(),
            pin: pin.parse().map_err(|_| NotAToken)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_three_parts_and_reads_back() {
        let pin: KeyPin = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let token = Token::random(pin);
        assert_eq!(token.text().parse(), Ok(token.clone()));
        assert_eq!(format!(" {}\n", token.text()).parse(), Ok(token.clone()));
        let secret = "A".repeat(43);
        for bad in [
            String::new(),
            "cg1".into(),
            "cg1..".into(),
            format!("cg2.{secret}.{pin}"),
            format!("cg1.{secret}.{pin}.x"),
            format!("cg1.{secret}.{}", &pin.to_string()[1..]),
            format!("cg1.{}.{pin}", &secret[1..]),
            format!("cg1.{secret}!.{pin}"),
            "x".repeat(10_000),
        ] {
            assert_eq!(bad.parse::<Token>(), Err(NotAToken), "{bad}");
        }
    }

    #[test]
    fn a_token_does_not_show_its_secret() {
        let token = Token::random("0123456789abcdef0123456789abcdef".parse().unwrap());
        assert!(!format!("{token:?}").contains(&token.secret));
    }
}
