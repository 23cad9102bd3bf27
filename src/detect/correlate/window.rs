//! The events of one group that may still complete something, in the order of their time.

use std::collections::VecDeque;

use jiff::SignedDuration;
use jiff::Timestamp;

use crate::alert::AlertId;
use crate::detect::correlate::tally::Tally;
use crate::detect::correlate::tally::aggregate;
use crate::detect::rule::Correlation;
use crate::detect::rule::Counted;

/// No event's clock is further ahead of its reading (DESIGN, Time), so an event this much older than the window
/// of the newest is older than the window of any honest one.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);
/// A group or an event that nothing came to is kept for its timespan and this long, so that what is read late
/// still finds it.
pub const LATE_MAX: SignedDuration = SignedDuration::from_hours(1);
/// How many arrivals an old event outlives, as a multiple of what the condition needs: three other streams may
/// be read in turn with its own.
const ARRIVALS_FACTOR: usize = 4;
const ARRIVALS_MIN: usize = 64;
/// A group holds at least this many events before the one that arrived first is let go.
const EVENTS_MIN: usize = 1000;
/// Of each counted value the events that arrived last: one for the window that is open, one for a late one.
const PER_VALUE_MAX: usize = 2;
/// So many numbers of a group are kept: what is summed comes in many small parts.
const NUMBERS_KEPT: usize = 10_000;
/// A late number is judged in so many of the windows that it falls into: each costs a pass over its numbers.
const ENDS_MAX: usize = 64;
/// Of a rule among several so many events are kept whatever stands around them, so that a late event of another rule
/// still finds them; beyond it only those that begin or end a run of the same rule, which are as good as the others.
const PER_STEP_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub time: Timestamp,
    pub id: AlertId,
    pub repeat: u32,
    pub value: [u8; 16],
    /// By the clock, when it was added.
    pub arrived: Timestamp,
    /// Counts what was added to this window.
    pub arrival: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Window {
    /// By time.
    entries: VecDeque<Entry>,
    arrivals: u64,
    evicted: u64,
}

/// What a condition held of.
#[derive(Debug, PartialEq, Eq)]
pub struct Fired {
    /// By time.
    pub ids: Vec<AlertId>,
    /// Repeats included.
    pub events: u64,
}

impl Window {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Puts back what was kept, in the order of its arrival.
    pub fn put_back(&mut self, mut entry: Entry) {
        entry.arrival = self.arrivals;
        self.arrivals += 1;
        let at = self.place(entry.time);
        self.entries.insert(at, entry);
    }

    /// Returns how many events were let go before their time, once.
    pub fn take_evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Adds an event. If the condition now holds of a window with it, returns that window's events and forgets
    /// them. An event that is there already changes nothing.
    pub fn add(
        &mut self,
        entry: Entry,
        correlation: &Correlation,
        now: Timestamp,
    ) -> Option<Fired> {
        let at = self.place(entry.time);
        let same_time = self.entries.range(..at).rev();
        if same_time
            .take_while(|known| known.time == entry.time)
            .any(|known| known.id == entry.id)
        {
            return None;
        }
        let (id, time) = (entry.id, entry.time);
        self.put_back(entry);
        match correlation.counted {
            Counted::Values => self.thin(&entry.value),
            Counted::Rules | Counted::Sequence => self.thin_runs(&entry.value),
            _ => {}
        }
        let needed = needed(correlation);
        self.let_go(correlation.timespan, needed, now);
        let is_distinct = matches!(
            correlation.counted,
            Counted::Values | Counted::Rules | Counted::Sequence
        );
        if is_distinct && self.entries.len() < needed {
            return None;
        }
        let first = self.entries.partition_point(|known| known.time < time);
        let at = (first..self.entries.len())
            .find(|&at| self.entries.get(at).is_some_and(|known| known.id == id))?;
        let (from, to) = match correlation.counted {
            Counted::Sequence => self.followed(at, correlation)?,
            _ => self.completed(at, correlation)?,
        };
        let fired: Vec<_> = self.entries.drain(from..to).collect();
        Some(Fired {
            ids: fired.iter().map(|entry| entry.id).collect(),
            events: fired.iter().map(|entry| u64::from(entry.repeat)).sum(),
        })
    }

    /// Behind all of the same time.
    fn place(&self, time: Timestamp) -> usize {
        self.entries.partition_point(|known| known.time <= time)
    }

    /// Returns the first window `(t - timespan, t]`, with the event at `at` in it, of which the condition holds.
    fn completed(&self, at: usize, correlation: &Correlation) -> Option<(usize, usize)> {
        let begin = |end: &Entry| {
            end.time
                .saturating_sub(correlation.timespan)
                .unwrap_or(Timestamp::MIN)
        };
        let added = self.entries.get(at)?;
        let mut tally = Tally::new(correlation.counted);
        let mut from = self
            .entries
            .partition_point(|known| known.time <= begin(added));
        for entry in self.entries.range(from..at) {
            tally.add(entry);
        }
        let is_of_numbers = correlation.counted.is_of_numbers();
        let ends_max = if is_of_numbers { ENDS_MAX } else { usize::MAX };
        for (to, end) in self.entries.range(at..).enumerate().take(ends_max) {
            let oldest = begin(end);
            if added.time <= oldest {
                return None;
            }
            tally.add(end);
            while let Some(entry) = self.entries.get(from)
                && entry.time <= oldest
            {
                tally.remove(entry);
                from += 1;
            }
            // `t` has all its events before the window is judged.
            let next = self.entries.get(at + to + 1);
            if next.is_some_and(|next| next.time == end.time) {
                continue;
            }
            let fulfils = if is_of_numbers {
                aggregate(correlation, self.entries.range(from..=at + to))
            } else {
                tally.fulfils(correlation)
            };
            if fulfils {
                return Some((from, at + to + 1));
            }
        }
        None
    }

    /// Returns the first window `(t - timespan, t]` in which all rules follow one another, the event at `at` among
    /// them: from there the nearest of each rule before, and the nearest of each rule after.
    fn followed(&self, at: usize, correlation: &Correlation) -> Option<(usize, usize)> {
        let added = self.entries.get(at)?;
        let steps = correlation.bases.len();
        let step = (0..steps).find(|step| marker(*step) == added.value)?;
        let of = |step: usize| {
            let marker = marker(step);
            move |entry: &&Entry| entry.value == marker
        };
        let (mut begin, mut end) = (added.time, added.time);
        for before in (0..step).rev() {
            let until = self.place(begin);
            begin = self.entries.range(..until).rev().find(of(before))?.time;
        }
        for after in step + 1..steps {
            let from = self.entries.partition_point(|known| known.time < end);
            end = self.entries.range(from..).find(of(after))?.time;
        }
        if end.duration_since(begin) >= correlation.timespan {
            return None;
        }
        let oldest = end
            .saturating_sub(correlation.timespan)
            .unwrap_or(Timestamp::MIN);
        let from = self.entries.partition_point(|known| known.time <= oldest);
        Some((from, self.place(end)))
    }

    /// Lets the first arrived of a rule go that stands between two of the same rule.
    fn thin_runs(&mut self, value: &[u8; 16]) {
        let same = |at: usize| {
            self.entries
                .get(at)
                .is_some_and(|known| known.value == *value)
        };
        let count = (0..self.entries.len()).filter(|at| same(*at)).count();
        if count <= PER_STEP_MAX {
            return;
        }
        let inner = (1..self.entries.len()).filter(|&at| same(at - 1) && same(at) && same(at + 1));
        let oldest = inner.min_by_key(|&at| self.entries.get(at).map(|known| known.arrival));
        if let Some(at) = oldest {
            self.entries.remove(at);
        }
    }

    /// Keeps of a value only what arrived last, so that one value in a flood does not push out the others.
    fn thin(&mut self, value: &[u8; 16]) {
        let same = self.entries.iter().filter(|entry| entry.value == *value);
        if same.count() <= PER_VALUE_MAX {
            return;
        }
        let oldest = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| entry.value == *value)
            .min_by_key(|(_, entry)| entry.arrival)
            .map(|(at, _)| at);
        if let Some(at) = oldest {
            self.entries.remove(at);
        }
    }

    fn let_go(&mut self, timespan: SignedDuration, needed: usize, now: Timestamp) {
        let old = timespan.saturating_add(AHEAD_MAX);
        let idle = timespan.saturating_add(LATE_MAX);
        let outlived = needed.saturating_mul(ARRIVALS_FACTOR).max(ARRIVALS_MIN);
        let outlived = u64::try_from(outlived).unwrap_or(u64::MAX);
        let Some(newest) = self.entries.back().map(|entry| entry.time) else {
            return;
        };
        while let Some(front) = self.entries.front()
            && newest.duration_since(front.time) > old
            && (now.duration_since(front.arrived) > idle
                || self.arrivals.saturating_sub(front.arrival) > outlived)
        {
            self.entries.pop_front();
        }
        let events_max = needed.saturating_mul(ARRIVALS_FACTOR).max(EVENTS_MIN);
        while self.entries.len() > events_max {
            let first = self
                .entries
                .iter()
                .enumerate()
                .min_by_key(|(_, entry)| entry.arrival)
                .map(|(at, _)| at);
            let Some(first) = first else { return };
            self.entries.remove(first);
            self.evicted += 1;
        }
    }
}

/// Returns what stands for a rule where rules are counted: its place among the bases.
pub fn marker(base: usize) -> [u8; 16] {
    (base as u128).to_be_bytes()
}

/// Returns the least count that fulfils the condition.
fn needed(correlation: &Correlation) -> usize {
    if correlation.counted.is_of_numbers() {
        return NUMBERS_KEPT / ARRIVALS_FACTOR;
    }
    use crate::detect::rule::Comparison::Equal;
    use crate::detect::rule::Comparison::Greater;
    use crate::detect::rule::Comparison::GreaterEqual;
    let bounds = correlation
        .predicates
        .iter()
        .map(|&(comparison, bound)| match comparison {
            Equal | GreaterEqual => bound,
            Greater => bound.saturating_add(1),
            _ => 1,
        });
    usize::try_from(bounds.max().unwrap_or(1)).unwrap_or(usize::MAX)
}
