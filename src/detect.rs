//! From events to alerts: rules match, personal data is masked, equal ones are counted, alerts are made.
//! Pure: no IO, no clock, no threads; time arrives as an argument.

pub mod rule;
pub mod mask;
pub mod correlate;
pub mod fold;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::alert::{Alert, AlertId, AlertLogSource, HostSecret, Origin, RAW_BYTES_MAX};
use crate::detect::mask::{MaskedFields, MaskedText, Masker};
use crate::detect::rule::{Rule, RuleIndex, Ruleset};
use crate::event::Event;
use crate::event::field;
use crate::event::field::FieldId;
use crate::record::{Record, SourceId};

/// A log's clock may run this far ahead of the reader's; beyond it the reader's counts.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);
/// The longest host name of RFC 1035 2.3.4.
const HOST_BYTES_MAX: usize = 255;
/// What a group key shows; equality is by its hash.
const SHOWN_BYTES_MAX: usize = 256;

/// What folding groups by where a rule says nothing: the source address, else the account.
const ADDRESSES: [FieldId; 3] = [field::SOURCE_IP, field::C_IP, field::SRC_IP];
const ACCOUNTS: [FieldId; 2] = [field::TARGET_USER_NAME, field::USER];

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
    /// What folding groups by: the rule's `x-fold` fields, else the source address, else the account.
    pub key: GroupKey,
    pub fields: MaskedFields,
    /// The fields that correlations group by or count, by name.
    pub groups: Vec<(Arc<str>, GroupKey)>,
    /// The fields that correlations sum or average, by name.
    pub numbers: Vec<(Arc<str>, f64)>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupKey {
    /// HMAC of the clear value.
    pub hash: [u8; 16],
    /// Masked.
    pub shown: String,
}

/// A piece of state that must survive a kill, as the spool keeps it; `None`: it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// What an agent knows of itself, for the alerts that it makes.
#[derive(Debug, Clone)]
pub struct Scene {
    pub secret: HostSecret,
    pub masker: Masker,
    /// The machine's name, for records that name none.
    pub host: String,
}

/// One event as a rule saw it.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a, 'r> {
    pub source: &'a SourceId,
    pub record: &'a Record,
    pub event: &'a Event<'r>,
    /// From 0, within the record.
    pub number: u32,
}

impl Scene {
    /// Returns the detection of `rule` for what was seen, masked.
    pub fn detection(
        &self,
        ruleset: &Arc<Ruleset>,
        index: RuleIndex,
        seen: &Sighting<'_, '_>,
    ) -> Detection {
        let (rule, event, record) = (ruleset.rule(index), seen.event, seen.record);
        let names = ruleset.fields();
        let (mut fields, mut cut) = self
            .masker
            .fields(event.iter().map(|(id, value)| (names.name(id), value)));
        let (raw, raw_cut) = self.masker.text(event.raw, RAW_BYTES_MAX);
        if raw_cut || record.cut {
            cut.push("raw".to_owned());
        }
        let observed = record.read_at;
        let time = event.time.unwrap_or(observed);
        let is_ahead = time.duration_since(observed) > AHEAD_MAX;
        if is_ahead {
            fields.note("ClockAhead", time.to_string());
        }
        // A centre takes no alert without a host.
        let named = event.get(field::COMPUTER).map(|name| name.text());
        let named = named.filter(|name| !name.trim_ascii().is_empty());
        let host = named.as_deref().unwrap_or(self.host.as_bytes());
        let (host, _) = self.masker.text(host, HOST_BYTES_MAX);
        Detection {
            ruleset: Arc::clone(ruleset),
            rule: index,
            id: self.secret.alert_id(
                seen.source,
                &record.position,
                &record.bytes,
                seen.number,
                &rule.id,
            ),
            time: if is_ahead { observed } else { time },
            observed,
            host,
            logsource: logsource(rule, event),
            key: self.fold_key(rule, event),
            fields,
            groups: ruleset
                .group_fields(index)
                .iter()
                .filter_map(|(name, id)| Some((Arc::clone(name), self.key(event, &[*id])?)))
                .collect(),
            numbers: ruleset
                .number_fields(index)
                .iter()
                .filter_map(|(name, id)| {
                    let number = rule::number_of(&event.get(*id)?.text())?;
                    Some((Arc::clone(name), number))
                })
                .collect(),
            raw,
            origin: Origin {
                source: seen.source.to_string(),
                at: record.position.to_string(),
                peer: None,
            },
            repeat: event.repeat,
            causes: Vec::new(),
            causes_count: 0,
            cut,
        }
    }

    fn fold_key(&self, rule: &Rule, event: &Event<'_>) -> GroupKey {
        let present = |ids: &[FieldId]| ids.iter().find(|id| event.has(**id)).copied();
        let key = if rule.fold.is_empty() {
            present(&ADDRESSES)
                .or_else(|| present(&ACCOUNTS))
                .and_then(|id| self.key(event, &[id]))
        } else {
            self.key(event, &rule.fold)
        };
        key.unwrap_or_default()
    }

    /// Returns the key over the first value of each field; `None` when the event has none of them.
    fn key(&self, event: &Event<'_>, ids: &[FieldId]) -> Option<GroupKey> {
        if !ids.iter().any(|id| event.has(*id)) {
            return None;
        }
        let values: Vec<_> = ids
            .iter()
            .map(|id| event.get(*id).map(|value| value.text()).unwrap_or_default())
            .collect();
        let parts: Vec<&[u8]> = values.iter().map(|value| &**value).collect();
        Some(GroupKey {
            hash: self.secret.sign(&parts),
            shown: self
                .masker
                .text(&parts.join(&b" "[..]), SHOWN_BYTES_MAX)
                .0
                .into_string(),
        })
    }
}

/// The log source by the rule's words, filled up by the event's.
fn logsource(rule: &Rule, event: &Event<'_>) -> AlertLogSource {
    let of = &event.logsources;
    let owned = |name: &std::borrow::Cow<'_, str>| name.clone().into_owned();
    AlertLogSource {
        product: rule
            .logsource
            .product
            .clone()
            .or_else(|| of.product.as_ref().map(owned)),
        category: rule
            .logsource
            .category
            .clone()
            .or_else(|| of.categories.first().map(owned)),
        service: rule
            .logsource
            .service
            .clone()
            .or_else(|| of.services.first().map(owned)),
    }
}

impl Detection {
    pub fn rule(&self) -> &Rule {
        self.ruleset.rule(self.rule)
    }

    /// Returns the alert of this detection alone. Agency and agent are the centre's to fill in, by the certificate.
    pub fn into_alert(self) -> Alert {
        let reference = self.rule().reference.as_ref().clone();
        let repeat = u64::from(self.repeat.max(1));
        Alert {
            id: self.id,
            time: self.time,
            observed: self.observed,
            agency: String::new(),
            host: self.host.into_string(),
            agent: String::new(),
            rule: reference,
            logsource: self.logsource,
            fields: self.fields.into_map(),
            raw: self.raw.into_string(),
            origin: self.origin,
            count: std::num::NonZeroU64::new(repeat).filter(|count| count.get() > 1),
            last: None,
            causes: self.causes,
            causes_count: (self.causes_count > 0).then_some(self.causes_count),
            cut: self.cut,
            context: Vec::new(),
            via: Vec::new(),
            other: serde_json::Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::rule::RuleText;
    use crate::record::{FileId, Position};

    const RULE: &str = "title: Any
id: 00000000-0000-4000-8000-00000000000a
logsource: { product: linux }
detection: { s: { User: x }, condition: s }
level: low
";

    #[test]
    fn a_record_that_names_no_machine_is_of_this_one() {
        let texts = [RuleText {
            file: "r.yml",
            text: RULE,
        }];
        let ruleset = Arc::new(Ruleset::compile(&texts).0);
        let scene = Scene {
            secret: HostSecret::new(&[1; 32]),
            masker: Masker::new(&[2; 32]),
            host: "web1".to_owned(),
        };
        let source = SourceId::new("file:/a");
        let record = Record {
            position: Position::Offset {
                file: FileId {
                    device: 1,
                    inode: 1,
                    head: 1,
                },
                offset: 0,
            },
            read_at: Timestamp::UNIX_EPOCH,
            bytes: bytes::Bytes::new(),
            cut: false,
        };
        // A centre refuses an alert without a host for good: `{"Computer":""}` must not silence a rule.
        for (said, host) in [
            (None, "web1"),
            (Some(""), "web1"),
            (Some(" \t"), "web1"),
            (Some("db1"), "db1"),
        ] {
            let mut event = Event::new(b"raw");
            if let Some(said) = said {
                event.set(field::COMPUTER, said);
            }
            let seen = Sighting {
                source: &source,
                record: &record,
                event: &event,
                number: 0,
            };
            let detection = scene.detection(&ruleset, RuleIndex(0), &seen);
            assert_eq!(detection.host.as_str(), host, "{said:?}");
        }
    }
}
