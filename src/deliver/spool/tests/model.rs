//! The spool against a plain list of rows that scans itself for everything.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const BYTES_MAX: u64 = 12_000;
const KEEP_SECONDS: i64 = 50;

#[derive(Debug, Clone)]
enum Act {
    Commit(Vec<(usize, u8, usize)>),
    /// So many lines are sent; of these each so manieth is rejected. The answer may come twice.
    Send {
        lines: usize,
        rejected: usize,
        twice: bool,
    },
    /// The answer to the last batch but one comes only now.
    Late,
    Reopen,
    Wait(i64),
    CentreRestored(u64),
    AgentIsCopy,
}

fn act() -> impl Strategy<Value = Act> {
    let alert = (0usize..5, 0u8..3, 0usize..1500);
    prop_oneof![
        6 => proptest::collection::vec(alert, 1..8).prop_map(Act::Commit),
        4 => (1usize..8, 1usize..6, any::<bool>())
            .prop_map(|(lines, rejected, twice)| Act::Send { lines, rejected, twice }),
        1 => Just(Act::Late),
        1 => Just(Act::Reopen),
        1 => (1i64..40).prop_map(Act::Wait),
        1 => (1u64..20).prop_map(Act::CentreRestored),
        1 => Just(Act::AgentIsCopy),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_ledger_accounts_for_every_number(acts in proptest::collection::vec(act(), 1..40)) {
        let mut place = Place::in_memory();
        place.limits.bytes_max = BYTES_MAX;
        place.limits.acknowledged_keep = Duration::from_secs(KEEP_SECONDS as u64);
        let (mut spool, _) = place.open();
        let mut model = Model { next: 1, now: 1000, ..Model::default() };
        let mut last: Vec<RowId> = Vec::new();
        for act in &acts {
            match act {
                Act::Commit(alerts) => {
                    let alerts: Vec<Alert> = alerts.iter().enumerate()
                        .map(|(n, &(level, rule, bytes))| {
                            make_alert(n as u64, Severity::ALL[level], &format!("r{rule}"), bytes)
                        })
                        .collect();
                    let commit = Commit { alerts: &alerts, ..Commit::default() };
                    spool.commit(&commit, at(model.now)).unwrap();
                    model.commit(&alerts);
                }
                Act::Send { lines, rejected, twice } => {
                    let batch = spool.next(*lines, usize::MAX).unwrap();
                    let sent: Vec<u64> = batch.rows.iter().map(|row| row.seq.0).collect();
                    prop_assert_eq!(&sent, &model.next_rows(*lines));
                    let refused: Vec<(RowId, String)> = batch.rows.iter().step_by(*rejected + 1)
                        .map(|row| (row.id, "no".to_owned()))
                        .collect();
                    last = batch.rows.iter().map(|row| row.id).collect();
                    for _ in 0..1 + usize::from(*twice) {
                        spool.done(&last, &refused, at(model.now)).unwrap();
                        model.done(&sent, *rejected + 1);
                    }
                }
                Act::Late => {
                    let epoch = spool.epoch();
                    spool.done(&last, &[], at(model.now)).unwrap();
                    last.retain(|id| id.epoch == epoch);
                    let late: Vec<u64> = last.iter().map(|id| id.seq.0).collect();
                    model.done(&late, usize::MAX);
                }
                Act::Reopen => {
                    let epoch = spool.epoch();
                    drop(spool);
                    let (opened, restored) = place.open();
                    spool = opened;
                    prop_assert_eq!(spool.epoch(), epoch);
                    prop_assert_eq!(restored.salvaged, None);
                }
                Act::Wait(seconds) => model.now += seconds,
                Act::CentreRestored(back) => {
                    let next = model.next.saturating_sub(*back).max(1);
                    spool.seen(Seen { epoch: spool.epoch(), next }).unwrap();
                    model.centre_restored(next);
                }
                Act::AgentIsCopy => {
                    let epoch = spool.epoch();
                    spool.seen(Seen { epoch, next: model.next + 1 }).unwrap();
                    prop_assert_ne!(spool.epoch(), epoch);
                    model.new_epoch();
                }
            }
            model.agrees_with(&spool)?;
        }
    }
}

#[derive(Debug, Clone)]
struct Waiting {
    level: Severity,
    rule: String,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Model {
    next: u64,
    now: i64,
    waiting: BTreeMap<u64, Waiting>,
    /// By time and number: the order in which they go.
    acknowledged: BTreeMap<(i64, u64), Waiting>,
    /// All that ever were and don't wait again.
    ever_acknowledged: BTreeSet<u64>,
    given_up: BTreeMap<u64, (Severity, &'static str)>,
}

impl Model {
    fn commit(&mut self, alerts: &[Alert]) {
        self.forget();
        for alert in alerts {
            let row = Waiting {
                level: alert.rule.level,
                rule: alert.rule.id.clone(),
                bytes: serde_json::to_string(alert).unwrap().len() as u64,
            };
            let seq = self.next;
            self.next += 1;
            if self.make_place(&row) {
                self.waiting.insert(seq, row);
            } else {
                self.given_up.insert(seq, (row.level, "full"));
            }
        }
    }

    fn make_place(&mut self, new: &Waiting) -> bool {
        loop {
            let held =
                |rows: &mut dyn Iterator<Item = &Waiting>| rows.map(|row| row.bytes).sum::<u64>();
            let total = held(&mut self.waiting.values()) + held(&mut self.acknowledged.values());
            if total + new.bytes <= BYTES_MAX {
                return true;
            }
            if self.acknowledged.pop_first().is_some() {
                continue;
            }
            let Some(victim) = self.victim(new) else {
                return false;
            };
            let row = self.waiting.remove(&victim).unwrap();
            self.given_up.insert(victim, (row.level, "full"));
        }
    }

    fn victim(&self, new: &Waiting) -> Option<u64> {
        let floor = BYTES_MAX / 10;
        let bytes = |is: &dyn Fn(&Waiting) -> bool| {
            self.waiting
                .values()
                .filter(|row| is(row))
                .map(|row| row.bytes)
                .sum::<u64>()
        };
        let oldest = |is: &dyn Fn(&Waiting) -> bool| {
            self.waiting
                .iter()
                .find(|(_, row)| is(row))
                .map(|(&seq, row)| (seq, row.bytes))
        };
        let of_rule = |row: &Waiting| row.level == new.level && row.rule == new.rule;
        let below: u64 = Severity::ALL
            .iter()
            .filter(|&&level| level < new.level)
            .map(|&level| bytes(&|row| row.level == level).min(floor))
            .sum();
        let could_hold = BYTES_MAX - below - bytes(&|row| row.level > new.level);
        if let Some((seq, _)) = oldest(&of_rule)
            && bytes(&of_rule) + new.bytes > could_hold / 2
        {
            return Some(seq);
        }
        for level in Severity::ALL
            .into_iter()
            .filter(|&level| level <= new.level)
        {
            let of_level = bytes(&|row| row.level == level);
            let heavy = ["r0", "r1", "r2"]
                .into_iter()
                .find(|rule| 2 * bytes(&|row| row.level == level && row.rule == *rule) > of_level);
            let candidate =
                oldest(&|row| row.level == level && heavy.is_none_or(|rule| row.rule == rule));
            let Some((seq, victim_bytes)) = candidate else {
                continue;
            };
            let joins = if level == new.level { new.bytes } else { 0 };
            if of_level + joins - victim_bytes >= floor {
                return Some(seq);
            }
        }
        None
    }

    fn next_rows(&self, lines: usize) -> Vec<u64> {
        let mut rows: Vec<(std::cmp::Reverse<Severity>, u64)> = self
            .waiting
            .iter()
            .map(|(&seq, row)| (std::cmp::Reverse(row.level), seq))
            .collect();
        rows.sort();
        rows.into_iter().take(lines).map(|(_, seq)| seq).collect()
    }

    /// The first of each `rejected` rows is rejected.
    fn done(&mut self, rows: &[u64], rejected: usize) {
        for (at, seq) in rows.iter().enumerate() {
            let Some(row) = self.waiting.remove(seq) else {
                continue;
            };
            if rejected != usize::MAX && at % rejected == 0 {
                self.given_up.insert(*seq, (row.level, "rejected"));
            } else {
                self.acknowledged.insert((self.now, *seq), row);
                self.ever_acknowledged.insert(*seq);
            }
        }
        self.forget();
    }

    fn forget(&mut self) {
        let before = self.now - KEEP_SECONDS;
        self.acknowledged.retain(|&(time, _), _| time >= before);
    }

    fn centre_restored(&mut self, next: u64) {
        let again: Vec<_> = self
            .acknowledged
            .keys()
            .copied()
            .filter(|&(_, seq)| seq >= next)
            .collect();
        for key in again {
            let row = self.acknowledged.remove(&key).unwrap();
            self.ever_acknowledged.remove(&key.1);
            self.waiting.insert(key.1, row);
        }
    }

    fn new_epoch(&mut self) {
        let rows: Vec<Waiting> = std::mem::take(&mut self.waiting).into_values().collect();
        self.next = rows.len() as u64 + 1;
        self.waiting = (1..).zip(rows).collect();
        self.acknowledged.clear();
        self.ever_acknowledged.clear();
        self.given_up.clear();
    }

    fn agrees_with(&self, spool: &Spool) -> Result<(), TestCaseError> {
        let ledger = spool.ledger().unwrap();
        prop_assert_eq!(ledger.next, self.next);
        let waiting: BTreeSet<u64> = ledger
            .waiting
            .iter()
            .flat_map(|range| range.from..=range.to)
            .collect();
        prop_assert!(waiting.iter().eq(self.waiting.keys()));
        let lost = |level, why: &str| {
            self.given_up
                .values()
                .filter(|&&of| of == (level, why))
                .count() as u64
        };
        for level in Severity::ALL {
            for why in ["full", "rejected"] {
                let stated = ledger
                    .given_up
                    .iter()
                    .filter(|g| g.level == level && g.why == why);
                prop_assert_eq!(stated.map(|g| g.count).sum::<u64>(), lost(level, why));
            }
        }
        for (&seq, &(level, why)) in &self.given_up {
            let holds = ledger
                .given_up
                .iter()
                .filter(|g| g.from <= seq && seq <= g.to && g.level == level && g.why == why);
            prop_assert_eq!(holds.count(), 1);
        }
        // Each number from 1 is acknowledged, waits or was given up, and only one of these.
        let given_up: BTreeSet<u64> = self.given_up.keys().copied().collect();
        let parts = [&waiting, &given_up, &self.ever_acknowledged];
        prop_assert_eq!(
            parts.iter().map(|part| part.len()).sum::<usize>() as u64,
            self.next - 1
        );
        prop_assert!((1..self.next).all(|seq| parts.iter().any(|part| part.contains(&seq))));

        let select = "SELECT seq FROM alerts WHERE state = 1 ORDER BY acknowledged, seq";
        let kept = spool.with(|store| {
            let mut statement = store.connection.prepare(select)?;
            let rows = statement.query_map([], |row| store::number(row, "seq"))?;
            Ok(rows.collect::<Result<Vec<_>, _>>()?)
        });
        prop_assert!(
            kept.unwrap()
                .iter()
                .eq(self.acknowledged.keys().map(|(_, seq)| seq))
        );
        let books = spool
            .with(|store| Ok((store.books.waiting_bytes(), store.books.acknowledged)))
            .unwrap();
        prop_assert_eq!(
            books.0,
            self.waiting.values().map(|row| row.bytes).sum::<u64>()
        );
        prop_assert_eq!(
            books.1.bytes,
            self.acknowledged.values().map(|row| row.bytes).sum::<u64>()
        );
        Ok(())
    }
}
