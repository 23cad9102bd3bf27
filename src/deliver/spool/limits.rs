//! How much the spool may hold.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer};

/// How much the spool may hold. What happens at each limit stands at the spool's `commit` and `done`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of the alerts that wait or are kept as acknowledged; the file is larger by a fifth or so.
    #[serde(deserialize_with = "bytes_max")]
    pub bytes_max: u64,
    /// Bytes of the alerts that the centre will never accept.
    pub dead_bytes_max: u64,
    /// How long an acknowledged alert is kept, in case the centre is restored from a backup.
    #[serde(deserialize_with = "duration")]
    pub acknowledged_keep: Duration,
    /// Taken from the disk when the spool is made, for the first commits of a disk that fills up.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 256 * 1024 * 1024, // some 180,000 alerts of 1.4 KiB: 200 days of a loud host
            dead_bytes_max: 16 * 1024 * 1024,
            acknowledged_keep: Duration::from_hours(24),
            reserve_bytes: 4 * 1024 * 1024, // as much as the WAL holds between two checkpoints
        }
    }
}

/// As people write it: `24h`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let signed = SignedDuration::deserialize(deserializer)?;
    Duration::try_from(signed).map_err(|_| serde::de::Error::custom("must not be negative"))
}

/// Below this a batch of long alerts would not fit, and each level's tenth would be a few alerts.
const BYTES_MAX_LEAST: u64 = 1024 * 1024;

fn bytes_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(deserializer)?;
    if bytes < BYTES_MAX_LEAST {
        let message = format!("invalid value: {bytes}, expected at least {BYTES_MAX_LEAST}");
        return Err(serde::de::Error::custom(message));
    }
    Ok(bytes)
}
