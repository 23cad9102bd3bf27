//! From events to alerts: rules match, personal data is masked, equal ones are counted, alerts are made.
//! Pure: no IO, no clock, no threads; time arrives as an argument.

pub mod correlate;
pub mod fold;
pub mod mask;
pub mod rule;

use std::sync::Arc;

use jiff::Timestamp;

use crate::alert::{AlertId, AlertLogSource, Origin};
use crate::detect::mask::{MaskedFields, MaskedText};
use crate::detect::rule::{RuleIndex, Ruleset};

/// A rule that matched one event. Carries its ruleset, so that a reload can't change what it means.
#[derive(Debug, Clone)]
pub struct Detection {
    pub ruleset: Arc<Ruleset>,
    pub rule: RuleIndex,
    pub id: AlertId,
    /// For windows: the log's clock, at most 5 minutes ahead of `observed`.
    pub time: Timestamp,
    pub observed: Timestamp,
    pub host: MaskedText,
    pub logsource: AlertLogSource,
    /// What folding groups by: the values of the rule's `x-fold` fields, else the source address, else the account.
    /// `hash` is an HMAC of the clear values, for equality; `shown` the masked text.
    pub key: GroupKey,
    pub fields: MaskedFields,
    /// HMACs of the clear values of the fields that correlations group by, by field name.
    pub groups: Vec<(Arc<str>, GroupKey)>,
    pub raw: MaskedText,
    pub origin: Origin,
    /// How many equal events this one stands for.
    pub repeat: u32,
    /// Alerts that a correlation stands on; the first 100, and how many in all.
    pub causes: Vec<AlertId>,
    pub causes_count: u64,
    pub cut: Vec<String>,
}

/// A value for equality and for show: the clear value itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupKey {
    pub hash: [u8; 16],
    pub shown: String,
}

/// A piece of state that must survive a kill, as the spool keeps it; `None`: it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}
