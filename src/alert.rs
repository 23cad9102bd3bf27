//! An alert: what travels, is stored and is shown. Small, owned, masked before it is made.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use jiff::Timestamp;
use ring::hmac;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::record::{Position, SourceId};

/// The most bytes of an alert as JSON.
pub const ALERT_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of one field's value; longer ones are cut and named in `cut`.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// The most bytes of `raw`.
pub const RAW_BYTES_MAX: usize = 8 * 1024;
/// The most ids in `causes`.
pub const CAUSES_MAX: usize = 100;

/// How bad it is, in Sigma's five words, the least first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    #[default]
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// The least severe first.
    pub const ALL: [Self; 5] = [
        Self::Informational,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Critical,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no level; expected informational, low, medium, high or critical")]
pub struct UnknownSeverity(String);

impl FromStr for Severity {
    type Err = UnknownSeverity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|severity| severity.as_str() == text)
            .ok_or_else(|| UnknownSeverity(text.to_owned()))
    }
}

/// 128 bits that follow from what caused the alert, so that seeing the cause again makes no second one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AlertId([u8; 16]);

impl AlertId {
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AlertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("an alert's id is 32 hex digits")]
pub struct NotAnAlertId;

impl FromStr for AlertId {
    type Err = NotAnAlertId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotAnAlertId);
        }
        u128::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| NotAnAlertId)
    }
}

impl Serialize for AlertId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for AlertId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// 32 random bytes made at an agent's first start; never sent, never logged.
#[derive(Clone)]
pub struct HostSecret(hmac::Key);

impl fmt::Debug for HostSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostSecret(..)")
    }
}

impl HostSecret {
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Returns the first 128 bits of HMAC-SHA-256 over the parts, each behind its length.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let mut first = [0; 16];
        first.copy_from_slice(&tag.as_ref()[..16]);
        first
    }

    /// Returns the id of the alert that a rule makes of one event of one record.
    pub fn alert_id(
        &self,
        source: &SourceId,
        position: &Position,
        raw: &[u8],
        event: u32,
        rule: &str,
    ) -> AlertId {
        let mut at = Vec::with_capacity(40);
        position.write_to(&mut at);
        AlertId(self.sign(&[
            source.as_str().as_bytes(),
            &at,
            raw,
            &event.to_be_bytes(),
            rule.as_bytes(),
        ]))
    }

    /// Returns the id of the alert of a correlation, completed by the event of `completed_by`.
    pub fn correlation_id(&self, rule: &str, group: &[u8], completed_by: &AlertId) -> AlertId {
        AlertId(self.sign(&[rule.as_bytes(), group, completed_by.as_bytes()]))
    }
}

/// What an alert says of its rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRef {
    pub id: String,
    pub title: String,
    pub level: Severity,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Of the rule's text: two agents with the same digest judge alike.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertLogSource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Where the record came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub source: String,
    /// Offset, cursor or counter.
    pub at: String,
    /// The address that a device's record came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
}

/// The alert, as JSON on the wire, in the store and on the screen. Absent rather than null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    pub id: AlertId,
    /// When it first happened, by the log's own clock.
    pub time: Timestamp,
    /// When the agent read it.
    pub observed: Timestamp,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agency: String,
    /// The machine that the event is about.
    pub host: String,
    /// The id in the agent's certificate.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent: String,
    pub rule: RuleRef,
    #[serde(default)]
    pub logsource: AlertLogSource,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub raw: String,
    #[serde(default)]
    pub origin: Origin,
    /// How many equal events it stands for; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<NonZeroU64>,
    /// When the last of them happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<AlertId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causes_count: Option<u64>,
    /// Names of fields whose value was cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub context: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// What a newer version added; kept and passed on.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Alert {
    pub fn count(&self) -> u64 {
        self.count.map_or(1, NonZeroU64::get)
    }

    /// Brings the alert within `ALERT_BYTES_MAX` as JSON: control characters take six bytes there, so that
    /// bounds on the values don't bound the whole. Raw goes first, then the largest fields; `cut` names them.
    pub fn fit(&mut self) {
        while serde_json::to_vec(self).map_or(0, |json| json.len()) > ALERT_BYTES_MAX {
            let name = if self.raw.len() > 256 {
                let half = self.raw.floor_char_boundary(self.raw.len() / 2);
                self.raw.truncate(half);
                "raw".to_owned()
            } else {
                let largest = self
                    .fields
                    .iter()
                    .max_by_key(|(_, value)| value.to_string().len());
                let Some((name, _)) = largest else { return };
                let name = name.clone();
                self.fields.remove(&name);
                name
            };
            if !self.cut.contains(&name) {
                self.cut.push(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::FileId;

    #[test]
    fn an_id_is_32_hex_digits() {
        let id = AlertId([0xab; 16]);
        assert_eq!(id.to_string(), "ab".repeat(16));
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "ab", &"zz".repeat(16), &"+0".repeat(16)] {
            assert_eq!(bad.parse::<AlertId>(), Err(NotAnAlertId), "{bad}");
        }
    }

    #[test]
    fn an_id_follows_from_each_part_of_its_cause() {
        let secret = HostSecret::new(&[7; 32]);
        let source = SourceId::new("file:/a");
        let file = FileId {
            device: 1,
            inode: 2,
            head: 3,
        };
        let at = |offset| Position::Offset { file, offset };
        let id = secret.alert_id(&source, &at(5), b"raw", 0, "r");
        assert_eq!(id, secret.alert_id(&source, &at(5), b"raw", 0, "r"));
        for other in [
            secret.alert_id(&SourceId::new("file:/b"), &at(5), b"raw", 0, "r"),
            secret.alert_id(&source, &at(6), b"raw", 0, "r"),
            secret.alert_id(&source, &at(5), b"rawr", 0, ""),
            secret.alert_id(&source, &at(5), b"raw", 1, "r"),
            secret.alert_id(&source, &at(5), b"raw", 0, "s"),
            HostSecret::new(&[8; 32]).alert_id(&source, &at(5), b"raw", 0, "r"),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn an_alert_of_control_characters_is_cut_to_its_size_and_says_so() {
        let text = r#"{"id":"00000000000000000000000000000001","time":"2026-01-02T03:04:05Z","observed":"2026-01-02T03:04:06Z","host":"h","rule":{"id":"r","title":"t","level":"high"}}"#;
        let mut alert: Alert = serde_json::from_str(text).unwrap();
        alert.raw = "\u{1}".repeat(RAW_BYTES_MAX);
        for n in 0..10 {
            let value = "\u{1}".repeat(VALUE_BYTES_MAX);
            alert.fields.insert(format!("f{n}"), value.into());
        }
        alert.fit();
        assert!(serde_json::to_vec(&alert).unwrap().len() <= ALERT_BYTES_MAX);
        assert!(alert.cut.contains(&"raw".to_owned()));
        assert!(!alert.fields.is_empty());
    }

    #[test]
    fn what_a_newer_version_adds_is_kept() {
        let text = r#"{"id":"00000000000000000000000000000001","time":"2026-01-02T03:04:05Z","observed":"2026-01-02T03:04:06Z","host":"h","rule":{"id":"r","title":"t","level":"high"},"logsource":{},"origin":{"source":"s","at":"1"},"colour":"red"}"#;
        let alert: Alert = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&alert).unwrap(), text);
    }
}
