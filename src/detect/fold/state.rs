//! One open fold and its names in the spool.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::alert::Alert;
use crate::detect::Detection;
use crate::detect::fold::{RESEND_AFTER, count_of, fitted};

/// Distinct keys that an overflow fold tells apart; beyond it they are counted together.
const KEYS_MAX: usize = 1000;
/// Keys named in an overflow alert.
const NAMED_MAX: usize = 10;

/// A fold's key: what kind, rule, host and key hash, one behind the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey(Box<[u8]>);

impl StateKey {
    pub fn fold(detection: &Detection) -> Self {
        Self::of(b'f', detection, &detection.key.hash)
    }

    pub fn host(detection: &Detection) -> Self {
        Self::of(b'b', detection, &[])
    }

    pub fn overflow(detection: &Detection) -> Self {
        Self::of(b'o', detection, &[])
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        matches!(bytes.first(), Some(b'f' | b'b' | b'o')).then(|| Self(bytes.into()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn of(kind: u8, detection: &Detection, hash: &[u8]) -> Self {
        let (rule, host) = (&detection.rule().id, detection.host.as_str());
        let mut key = Vec::with_capacity(rule.len() + host.len() + hash.len() + 3);
        key.push(kind);
        key.extend_from_slice(rule.as_bytes());
        key.push(0);
        key.extend_from_slice(host.as_bytes());
        key.push(0);
        key.extend_from_slice(hash);
        Self(key.into())
    }
}

/// An alert that may still grow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fold {
    /// As of the first event; the count is beside it.
    alert: Alert,
    title: String,
    pub start: Timestamp,
    pub end: Timestamp,
    count: u64,
    last: Timestamp,
    sent_count: u64,
    sent_at: Timestamp,
    /// By the clock of the agent.
    pub touched: Timestamp,
    /// Of an overflow fold: which keys, how often.
    pub keys: Option<Keys>,
}

impl Fold {
    pub fn new(detection: Detection, window: SignedDuration, now: Timestamp) -> Self {
        let (start, count) = (detection.time, u64::from(detection.repeat.max(1)));
        let alert = fitted(detection.into_alert());
        Self {
            title: alert.rule.title.clone(),
            alert,
            start,
            end: start.saturating_add(window).unwrap_or(Timestamp::MAX),
            count,
            last: start,
            sent_count: 0,
            sent_at: now,
            touched: now,
            keys: None,
        }
    }

    pub fn count(&mut self, detection: &Detection, now: Timestamp) {
        self.count += u64::from(detection.repeat.max(1));
        self.last = self.last.max(detection.time);
        self.touched = now;
        self.count_key(detection);
    }

    /// Notes which key an event of an overflow fold had.
    pub fn count_key(&mut self, detection: &Detection) {
        if let Some(keys) = &mut self.keys {
            keys.count(detection);
        }
    }

    pub fn has_grown(&self) -> bool {
        self.count > self.sent_count
    }

    /// Whether the count has doubled since the fold was sent, and that was a while ago.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.count >= self.sent_count.saturating_mul(2)
            && now.duration_since(self.sent_at) >= RESEND_AFTER
    }

    /// Returns the alert as it is now: same id, same time, higher count.
    pub fn send(&mut self, now: Timestamp) -> Alert {
        self.sent_count = self.count;
        self.sent_at = now;
        let mut alert = self.alert.clone();
        alert.count = count_of(self.count);
        alert.last = (self.count > 1).then_some(self.last);
        if let Some(keys) = &self.keys {
            let from = keys.distinct();
            alert.rule.title = format!("{}: {} more from {from}", self.title, self.count);
            alert.fields.insert("FoldedCount".into(), self.count.into());
            alert.fields.insert("FoldedKeys".into(), from.into());
            alert
                .fields
                .insert("FoldedLargest".into(), keys.largest().into());
        }
        fitted(alert)
    }
}

/// The keys of an overflow fold, by HMAC in hex, with what is shown of each.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Keys {
    seen: BTreeMap<String, (String, u64)>,
    /// Events of keys beyond the limit.
    beyond: u64,
}

impl Keys {
    fn count(&mut self, detection: &Detection) {
        let repeat = u64::from(detection.repeat.max(1));
        let hash: String = detection
            .key
            .hash
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if let Some((_, count)) = self.seen.get_mut(&hash) {
            *count += repeat;
        } else if self.seen.len() < KEYS_MAX {
            self.seen
                .insert(hash, (detection.key.shown.clone(), repeat));
        } else {
            self.beyond += repeat;
        }
    }

    /// How many sources, as text: "at least" where the limit was reached.
    fn distinct(&self) -> String {
        match self.beyond {
            0 => self.seen.len().to_string(),
            _ => format!("at least {}", self.seen.len()),
        }
    }

    fn largest(&self) -> Vec<String> {
        let mut keys: Vec<_> = self.seen.values().collect();
        keys.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        keys.into_iter()
            .take(NAMED_MAX)
            .map(|(shown, count)| format!("{shown} ({count})"))
            .collect()
    }
}
