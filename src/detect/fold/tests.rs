use super::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::alert::HostSecret;
use crate::detect::mask::Masker;
use crate::detect::rule::{RuleText, Ruleset};
use crate::detect::{Scene, Sighting};
use crate::event::{Event, field};
use crate::record::{FileId, Position, Record, SourceId};

const RULES: &str = "title: Low
id: 00000000-0000-4000-8000-00000000000a
logsource: { product: linux }
detection: { s: { User: x }, condition: s }
level: low
---
title: Critical
id: 00000000-0000-4000-8000-00000000000b
logsource: { product: linux }
detection: { s: { User: x }, condition: s }
level: critical
";

struct Bench {
    ruleset: Arc<Ruleset>,
    scene: Scene,
    number: u64,
}

impl Bench {
    fn new() -> Self {
        let texts = [RuleText {
            file: "r.yml",
            text: RULES,
        }];
        let (ruleset, faults) = Ruleset::compile(&texts);
        assert!(faults.is_empty(), "{faults:?}");
        let scene = Scene {
            secret: HostSecret::new(&[1; 32]),
            masker: Masker::new(&[2; 32]),
            host: "web1".to_owned(),
        };
        Self {
            ruleset: Arc::new(ruleset),
            scene,
            number: 0,
        }
    }

    /// A detection of the rule at a second, from an address.
    fn at(&mut self, rule: char, second: i64, address: &str) -> Detection {
        self.number += 1;
        let id = format!("00000000-0000-4000-8000-00000000000{rule}");
        let index = self.ruleset.by_id(&id).unwrap();
        let record = Record {
            position: Position::Offset {
                file: FileId {
                    device: 1,
                    inode: 1,
                    head: 1,
                },
                offset: self.number,
            },
            read_at: time(second),
            bytes: Bytes::from_static(b"raw"),
            cut: false,
        };
        let mut event = Event::new(b"raw");
        event.time = Some(time(second));
        event.set(field::SOURCE_IP, address.as_bytes().to_vec());
        let source = SourceId::new("file:/a");
        let seen = Sighting {
            source: &source,
            record: &record,
            event: &event,
            number: 0,
        };
        self.scene.detection(&self.ruleset, index, &seen)
    }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// What the centre would hold: by id the highest count, with the title.
fn history(alerts: &[Alert]) -> BTreeMap<String, (u64, String)> {
    let mut history = BTreeMap::new();
    for alert in alerts {
        let kept = history
            .entry(alert.id.to_string())
            .or_insert((0, String::new()));
        if alert.count() > kept.0 {
            *kept = (alert.count(), alert.rule.title.clone());
        }
    }
    history
}

#[test]
fn equal_alerts_within_the_window_are_one_with_a_count() {
    let mut bench = Bench::new();
    let mut folder = Folder::new(Config::default());
    let mut out = Vec::new();
    for second in 0..100 {
        let detection = bench.at('a', second, "203.0.113.1");
        folder.observe(detection, time(second), &mut out);
    }
    // Opened, then each time the count had doubled and ten seconds had passed.
    let counts: Vec<_> = out.iter().map(Alert::count).collect();
    assert_eq!(counts, [1, 11, 22, 44, 88]);
    folder.tick(time(3700), &mut out);
    assert_eq!(out.last().unwrap().count(), 100);
    assert_eq!(out.last().unwrap().last, Some(time(99)));
    assert_eq!(history(&out).len(), 1);
    assert!(out.iter().all(|alert| alert.time == time(0)));
    assert_eq!(folder.open(), 0);
}

#[test]
fn times_at_the_edge_of_time_are_folded_like_others() {
    // `{"ts":"-377705023000.5"}` in a JSON log is minutes above the earliest time there is.
    let edge = Timestamp::MIN.as_second() - time(0).as_second();
    let mut bench = Bench::new();
    let mut folder = Folder::new(Config::default());
    let mut out = Vec::new();
    for second in [3, 2, 4] {
        let detection = bench.at('a', edge + second, "203.0.113.1");
        folder.observe(detection, time(0), &mut out);
    }
    folder.tick(time(3700), &mut out);
    let counts: Vec<_> = history(&out)
        .into_values()
        .map(|(count, _)| count)
        .collect();
    assert_eq!(counts, [3]);
}

#[test]
fn a_window_longer_than_time_itself_is_no_fault() {
    let mut bench = Bench::new();
    let config = Config {
        window: SignedDuration::MAX,
        ..Config::default()
    };
    let mut folder = Folder::new(config);
    let mut out = Vec::new();
    for second in [0, 5] {
        let detection = bench.at('a', second, "203.0.113.1");
        folder.observe(detection, time(second), &mut out);
    }
    folder.tick(time(10), &mut out);
    assert_eq!(folder.open(), 1);
}

#[test]
fn the_first_event_past_the_end_opens_a_new_window() {
    let mut bench = Bench::new();
    let mut folder = Folder::new(Config::default());
    let mut out = Vec::new();
    for second in [0, 3599, 3600, 3601] {
        let detection = bench.at('a', second, "203.0.113.1");
        folder.observe(detection, time(second), &mut out);
    }
    folder.tick(time(8000), &mut out);
    let counts: Vec<_> = history(&out)
        .into_values()
        .map(|(count, _)| count)
        .collect();
    assert_eq!(counts, [2, 2]);
}

#[test]
fn a_backlog_is_folded_by_its_own_clock() {
    let mut bench = Bench::new();
    let mut folder = Folder::new(Config::default());
    let mut out = Vec::new();
    let now = time(3 * 86_400);
    // Three days in one go, one event each ten minutes: the agent's clock must not cut the windows short.
    for n in 0..(3 * 144) {
        let detection = bench.at('a', n * 600, "203.0.113.1");
        folder.observe(detection, now, &mut out);
        folder.tick(now, &mut out);
    }
    folder.tick(now + QUIET, &mut out);
    let history = history(&out);
    assert_eq!(history.len(), 72);
    assert!(history.values().all(|(count, _)| *count == 6));
}

#[test]
fn what_exceeds_the_budget_is_one_alert_that_names_the_largest() {
    for (rule, budget) in [('a', 20), ('b', 100)] {
        let mut bench = Bench::new();
        let mut folder = Folder::new(Config::default());
        let mut out = Vec::new();
        let mut events = 0;
        for n in 0..(budget + 30) {
            for _ in 0..=(n % 3) {
                let detection = bench.at(rule, 1, &format!("198.51.100.{n}"));
                folder.observe(detection, time(1), &mut out);
                events += 1;
            }
        }
        folder.tick(time(4000), &mut out);
        let history = history(&out);
        assert_eq!(history.len(), budget + 1, "rule {rule}");
        let counted: u64 = history.values().map(|(count, _)| count).sum();
        assert_eq!(counted, events, "rule {rule}");
        let overflow = out
            .iter()
            .rev()
            .find(|alert| alert.fields.contains_key("FoldedLargest"));
        let overflow = overflow.unwrap();
        let title = format!("{} more from 30", overflow.count());
        assert!(
            overflow.rule.title.ends_with(&title),
            "{}",
            overflow.rule.title
        );
        assert_eq!(
            overflow.fields["FoldedLargest"].as_array().unwrap().len(),
            10
        );
    }
}

#[test]
fn a_window_of_zero_folds_nothing() {
    let mut bench = Bench::new();
    let mut folder = Folder::new(Config {
        window: SignedDuration::ZERO,
        ..Config::default()
    });
    let mut out = Vec::new();
    for second in 0..50 {
        let detection = bench.at('a', second, "203.0.113.1");
        folder.observe(detection, time(second), &mut out);
    }
    assert_eq!(history(&out).len(), 50);
    assert!(folder.changed().is_empty());
}

#[test]
fn a_flood_of_keys_ends_old_folds_early_and_counts_that() {
    let mut bench = Bench::new();
    let mut folder = Folder::new(Config {
        budget: u32::MAX,
        ..Config::default()
    });
    let mut out = Vec::new();
    let events = FOLDS_MAX + 10;
    for n in 0..events {
        let detection = bench.at('a', 1, &format!("key {n}"));
        folder.observe(detection, time(1), &mut out);
    }
    assert!(folder.open() <= FOLDS_MAX);
    assert!(folder.evicted() > 0);
    assert_eq!(history(&out).len(), events);
}

#[test]
fn what_cannot_be_read_back_is_counted_not_trusted() {
    let mut folder = Folder::new(Config::default());
    folder.restore([
        (b"x".to_vec(), b"{}".to_vec()),
        (b"frule\0host\0key".to_vec(), b"nonsense".to_vec()),
    ]);
    assert_eq!((folder.open(), folder.evicted()), (0, 2));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of events and wherever the agent is killed: each event is counted once.
    #[test]
    fn every_event_is_counted_once_over_kills(
        events in prop::collection::vec((0i64..10_000, 0u8..30), 1..200),
        kill_at in prop::collection::vec(0usize..200, 0..4),
    ) {
        let mut bench = Bench::new();
        let mut folder = Folder::new(Config::default());
        let mut spool: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut out = Vec::new();
        for (n, (second, key)) in events.iter().enumerate() {
            let now = time(10_000 + n as i64);
            let detection = bench.at('a', *second, &format!("10.0.0.{key}"));
            folder.observe(detection, now, &mut out);
            folder.tick(now, &mut out);
            for kept in folder.changed() {
                match kept.value {
                    Some(value) => spool.insert(kept.key, value),
                    None => spool.remove(&kept.key),
                };
            }
            if kill_at.contains(&n) {
                folder = Folder::new(Config::default());
                folder.restore(spool.clone());
            }
        }
        folder.tick(time(100_000), &mut out);
        let counted: u64 = history(&out).values().map(|(count, _)| count).sum();
        prop_assert_eq!(counted, events.len() as u64);
    }
}
