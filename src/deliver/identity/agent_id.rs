//! The name of an agent: made by its centre, carried in its certificate.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// `a` and 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentId(String);

/// How a certificate says it.
const URN: &str = "urn:canhgac:agent:";

impl AgentId {
    /// Returns a random one: 64 bits, so that a million agents collide with a chance of 3 in 10⁸.
    pub fn random() -> Self {
        Self(format!("a{}", hex(&random::<8>())))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name for a certificate's SAN.
    pub fn urn(&self) -> String {
        format!("{URN}{}", self.0)
    }

    pub fn from_urn(urn: &str) -> Result<Self, NotAnAgentId> {
        urn.strip_prefix(URN).ok_or(NotAnAgentId)?.parse()
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("an agent's id is `a` and 16 hex digits")]
pub struct NotAnAgentId;

impl FromStr for AgentId {
    type Err = NotAnAgentId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('a').ok_or(NotAnAgentId)?;
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 16 || !digits.bytes().all(is_hex) {
            return Err(NotAnAgentId);
        }
        Ok(Self(text.to_owned()))
    }
}

impl Serialize for AgentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AgentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Returns random bytes of the system.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("getrandom fails only on kernels older than 3.17 without /dev/urandom");
    bytes
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
