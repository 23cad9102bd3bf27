//! Remembers what was seen a moment ago, so that a start told twice is one start. Holds no flow's state.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use jiff::{SignedDuration, Timestamp};

/// Keys seen within a time, by the packets' clock. When full, the oldest is forgotten first.
#[derive(Debug)]
pub struct Recent<K> {
    seen: HashMap<K, Timestamp>,
    /// In order of arrival; one entry a key in `seen`.
    order: VecDeque<K>,
    entries_max: usize,
    within: SignedDuration,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    pub fn new(entries_max: usize, within: SignedDuration) -> Self {
        Self {
            seen: HashMap::new(),
            order: VecDeque::new(),
            entries_max,
            within,
        }
    }

    /// Returns whether `key` was not seen within the time before `now`, and remembers it.
    pub fn is_new(&mut self, key: K, now: Timestamp) -> bool {
        self.forget(now);
        let known = self.seen.insert(key, now);
        if known.is_none() {
            self.order.push_back(key);
            if self.order.len() > self.entries_max
                && let Some(oldest) = self.order.pop_front()
            {
                self.seen.remove(&oldest);
            }
        }
        known.is_none_or(|at| self.is_past(at, now))
    }

    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// A clock that was set back makes what it told before as old as what it told long ago.
    fn is_past(&self, at: Timestamp, now: Timestamp) -> bool {
        now.duration_since(at).abs() > self.within
    }

    /// From the oldest on, as far as they are past.
    fn forget(&mut self, now: Timestamp) {
        for _ in 0..self.order.len() {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            match self.seen.get(&oldest) {
                Some(&at) if !self.is_past(at, now) => {
                    self.order.push_front(oldest);
                    return;
                }
                _ => self.seen.remove(&oldest),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_key_is_new_again_after_its_time_only() {
        let mut recent = Recent::new(10, SignedDuration::from_secs(60));
        for (second, key, new) in [
            (0, "a", true),
            (1, "a", false),
            (2, "b", true),
            (61, "a", false),  // seen at 1
            (121, "a", false), // seen at 61: a retransmission in doubling steps stays one start
            (182, "a", true),
            (10, "a", true), // the clock was set back
            (11, "a", false),
        ] {
            assert_eq!(recent.is_new(key, at(second)), new, "{key} at {second}");
        }
    }

    #[test]
    fn memory_ends_at_the_limit() {
        let mut recent = Recent::new(100, SignedDuration::from_secs(60));
        for key in 0..10_000 {
            assert!(recent.is_new(key, at(0)));
        }
        assert_eq!((recent.len(), recent.order.len()), (100, 100));
        assert!(!recent.is_new(9_999, at(0)));
        assert!(recent.is_new(0, at(0)), "the oldest is forgotten");
    }

    #[test]
    fn what_is_past_is_forgotten_without_being_asked_for() {
        let mut recent = Recent::new(100, SignedDuration::from_secs(60));
        for key in 0..50 {
            recent.is_new(key, at(key));
        }
        recent.is_new(1_000, at(500));
        assert_eq!(recent.len(), 1);
    }
}
