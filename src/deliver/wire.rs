//! What agents and centres say to each other, versioned by path (`/v1`). Only this module knows the form.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::alert::{Alert, AlertId, Severity};

/// The most alerts of one batch.
pub const BATCH_LINES_MAX: usize = 1000;
/// The most bytes of one batch, unpacked.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The header that names the epoch of a batch's numbers.
pub const EPOCH_HEADER: &str = "canhgac-epoch";
pub const PATH_ALERTS: &str = "/v1/alerts";
pub const PATH_HEARTBEAT: &str = "/v1/heartbeat";
pub const PATH_RENEW: &str = "/v1/renew";
pub const PATH_ENROL: &str = "/v1/enrol";
/// The most ranges of one list in a ledger; beyond it neighbours are merged, the nearest first.
pub const RANGES_MAX: usize = 100;

/// 64 random bits made with a spool file: numbers of different files are never compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[derive(Debug, PartialEq, Eq, Error)]
#[error("an epoch is 16 hex digits")]
pub struct NotAnEpoch;

impl FromStr for Epoch {
    type Err = NotAnEpoch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotAnEpoch);
        }
        u64::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| NotAnEpoch)
    }
}

impl Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The number of a row of a spool: given in the transaction that appends it, from 1, never reused.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

/// One line of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub seq: Sequence,
    pub alert: Alert,
}

/// A line of which the alert isn't parsed yet: one bad alert must not spoil its batch.
#[derive(Debug, Deserialize)]
pub struct RawLine<'a> {
    pub seq: Sequence,
    #[serde(borrow)]
    pub alert: &'a RawValue,
}

/// The answer to a batch: a 200 says that every line is durable, except those rejected for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub accepted: usize,
    pub duplicate: usize,
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    pub time: Timestamp,
}

/// A line that will never be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// From 0, in the batch.
    pub index: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<AlertId>,
    pub why: String,
}

/// Numbers `from..=to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceRange {
    pub from: u64,
    pub to: u64,
}

/// Numbers that were given up: a stated loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    pub from: u64,
    pub to: u64,
    pub level: Severity,
    pub count: u64,
    pub why: String,
}

/// Which numbers of an epoch were made, which wait, which were given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    pub epoch: Epoch,
    /// The number that the next row will get.
    pub next: u64,
    #[serde(default)]
    pub waiting: Vec<SequenceRange>,
    #[serde(default)]
    pub given_up: Vec<GivenUp>,
}

/// One source in a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceState {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
    /// Records since the last beat.
    pub records: u64,
    /// Absent when it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// What an agent says of itself each minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub version: String,
    /// /etc/machine-id, hashed.
    pub machine: String,
    /// /proc/sys/kernel/random/boot_id
    pub boot: String,
    pub host: String,
    /// Digest of the rules in force.
    pub rules: String,
    pub ledger: Ledger,
    /// At most 200.
    #[serde(default)]
    pub sources: Vec<SourceState>,
    /// Records dropped since the agent started, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// What does not work as it should, such as `config`.
    #[serde(default)]
    pub degraded: Vec<String>,
    pub clock: Timestamp,
}

/// What the centre has of an agent's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub epoch: Epoch,
    /// One above the highest number received.
    pub next: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    pub time: Timestamp,
    /// Name of the newest bundle of rules and settings, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Seconds until the next heartbeat.
    pub next_in: u64,
    /// Absent when nothing of this epoch was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    pub token: String,
    /// PEM.
    pub csr: String,
    pub host: String,
    pub machine: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolAnswer {
    pub agent: String,
    pub agency: String,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub ca: String,
    /// Where to send alerts.
    pub urls: Vec<String>,
    pub time: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PEM.
    pub csr: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewAnswer {
    /// PEM.
    pub certificate: String,
}

/// An error as RFC 9457 has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub title: String,
    pub status: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}
