//! What the spool holds by level and rule, and who goes when it is full. Pure: the rows themselves are the store's.

use std::collections::HashMap;
use std::sync::Arc;

use crate::alert::Severity;
use crate::deliver::spool::ledger::GivenUp;
use crate::deliver::wire::Epoch;

/// The part of the spool that each level keeps against the others: one tenth.
const LEVEL_KEEPS: u64 = 10;

/// The state of the file in memory; a copy is changed beside a transaction and takes its place after the commit.
#[derive(Debug, Clone)]
pub struct Books {
    pub epoch: Epoch,
    /// The number that the next alert gets.
    pub next: u64,
    pub given_up: GivenUp,
    pub acknowledged: Share,
    pub dead_bytes: u64,
    levels: [Level; Severity::ALL.len()],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    pub rows: u64,
    pub bytes: u64,
}

impl Share {
    pub fn add(&mut self, bytes: u64) {
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Saturates: a file that lies about its sizes must not end the agent.
    pub fn remove(&mut self, bytes: u64) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[derive(Debug, Clone, Default)]
struct Level {
    whole: Share,
    /// As many as rules have alerts waiting.
    rules: HashMap<Arc<str>, Share>,
}

impl Level {
    /// Returns the rule that holds more than half of the level, if another holds something too.
    fn heavy(&self) -> Option<&str> {
        let heavy = |share: &Share| share.bytes > self.whole.bytes / 2;
        if self.rules.len() < 2 {
            return None;
        }
        let (rule, _) = self.rules.iter().find(|(_, share)| heavy(share))?;
        Some(rule)
    }
}

/// An alert that arrives.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub level: Severity,
    pub rule: &'a str,
    pub bytes: u64,
}

/// A waiting row that may have to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oldest {
    pub seq: u64,
    pub rule: String,
    pub level: Severity,
    pub bytes: u64,
}

/// Where an arriving alert finds place.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    Free,
    /// When the oldest acknowledged row has gone; then ask again.
    Acknowledged,
    /// When this waiting row has been given up; then ask again.
    Of(Oldest),
    /// The arriving alert is given up itself.
    Nowhere,
}

impl Books {
    pub fn new(epoch: Epoch, next: u64, given_up: GivenUp) -> Self {
        Self {
            epoch,
            next,
            given_up,
            acknowledged: Share::default(),
            dead_bytes: 0,
            levels: Default::default(),
        }
    }

    pub fn level(&self, level: Severity) -> Share {
        self.levels[level as usize].whole
    }

    pub fn waiting_bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.whole.bytes).sum()
    }

    pub fn add(&mut self, level: Severity, rule: &str, bytes: u64) {
        let level = &mut self.levels[level as usize];
        level.whole.add(bytes);
        match level.rules.get_mut(rule) {
            Some(share) => share.add(bytes),
            None => {
                let share = Share { rows: 1, bytes };
                level.rules.insert(rule.into(), share);
            }
        }
    }

    /// Enters the rows of a rule at once, as they are counted when the file is opened.
    pub fn enter(&mut self, level: Severity, rule: &str, share: Share) {
        let level = &mut self.levels[level as usize];
        level.whole.rows += share.rows;
        level.whole.bytes += share.bytes;
        level.rules.insert(rule.into(), share);
    }

    pub fn remove(&mut self, level: Severity, rule: &str, bytes: u64) {
        let level = &mut self.levels[level as usize];
        level.whole.remove(bytes);
        if let Some(share) = level.rules.get_mut(rule) {
            share.remove(bytes);
            if share.rows == 0 {
                level.rules.remove(rule);
            }
        }
    }

    /// Returns what has to go for an arriving alert. Acknowledged rows go first. A rule that would then hold more
    /// than half of what its level could hold makes place for itself. Else the oldest of the lowest level goes, of
    /// the rule that fills most of that level, and the levels above the arriving alert's are never touched for it:
    /// where none below it nor its own has more than its tenth, the arriving alert goes.
    ///
    /// `oldest` finds the oldest waiting row of a level, or of one rule of it.
    ///
    /// # Errors
    /// Those of `oldest`.
    pub fn place<E>(
        &self,
        arrival: Arrival<'_>,
        bytes_max: u64,
        mut oldest: impl FnMut(Severity, Option<&str>) -> Result<Oldest, E>,
    ) -> Result<Place, E> {
        let held = self.waiting_bytes() + self.acknowledged.bytes;
        if held.saturating_add(arrival.bytes) <= bytes_max {
            return Ok(Place::Free);
        }
        if arrival.bytes > bytes_max {
            return Ok(Place::Nowhere);
        }
        if self.acknowledged.rows > 0 {
            return Ok(Place::Acknowledged);
        }
        if self.rule_exceeds_half(arrival, bytes_max) {
            return oldest(arrival.level, Some(arrival.rule)).map(Place::Of);
        }
        for level in Severity::ALL
            .into_iter()
            .take_while(|&l| l <= arrival.level)
        {
            let of_level = &self.levels[level as usize];
            if of_level.whole.rows == 0 {
                continue;
            }
            let row = oldest(level, of_level.heavy())?;
            let joins = if level == arrival.level {
                arrival.bytes
            } else {
                0
            };
            let left = (of_level.whole.bytes + joins).saturating_sub(row.bytes);
            if left >= bytes_max / LEVEL_KEEPS {
                return Ok(Place::Of(row));
            }
        }
        Ok(Place::Nowhere)
    }

    /// A level could hold what the higher ones leave, less what the lower ones keep.
    fn rule_exceeds_half(&self, arrival: Arrival<'_>, bytes_max: u64) -> bool {
        let Some(share) = self.levels[arrival.level as usize].rules.get(arrival.rule) else {
            return false;
        };
        let others = Severity::ALL.into_iter().map(|level| {
            let bytes = self.level(level).bytes;
            match level.cmp(&arrival.level) {
                std::cmp::Ordering::Less => bytes.min(bytes_max / LEVEL_KEEPS),
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => bytes,
            }
        });
        let could_hold = bytes_max.saturating_sub(others.sum());
        share.bytes + arrival.bytes > could_hold / 2
    }
}
