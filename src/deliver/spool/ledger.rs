//! Which numbers of an epoch wait and which were given up, in at most `RANGES_MAX` ranges with exact counts. Pure.

use serde::{Deserialize, Serialize};

use crate::alert::Severity;
use crate::deliver::wire;
use crate::deliver::wire::{RANGES_MAX, SequenceRange};

/// Why a number was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// The spool was full.
    Full,
    /// The centre will never accept it; it lies among the dead letters.
    Rejected,
}

impl Why {
    fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Rejected => "rejected",
        }
    }
}

/// The numbers given up in one epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GivenUp(Vec<Lost>);

/// `count` numbers of `from..=to`; fewer than its length when ranges had to be merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Lost {
    from: u64,
    to: u64,
    level: Severity,
    count: u64,
    why: Why,
}

impl Lost {
    fn same_kind(&self, other: &Self) -> bool {
        self.level == other.level && self.why == other.why
    }
}

impl GivenUp {
    /// Adds one number, which must not have been added before.
    pub fn add(&mut self, seq: u64, level: Severity, why: Why) {
        let new = Lost {
            from: seq,
            to: seq,
            level,
            count: 1,
            why,
        };
        let within = |lost: &&mut Lost| lost.same_kind(&new) && lost.from <= seq && seq <= lost.to;
        if let Some(lost) = self.0.iter_mut().find(within) {
            lost.count += 1;
            return;
        }
        let at = self.0.partition_point(|lost| lost.from < seq);
        self.0.insert(at, new);
        while let Some((first, second, gap)) = self.nearest() {
            if gap > 1 && self.0.len() <= RANGES_MAX {
                break;
            }
            let taken = self.0.remove(second);
            let Some(lost) = self.0.get_mut(first) else {
                break;
            };
            lost.to = lost.to.max(taken.to);
            lost.count += taken.count;
        }
    }

    /// Returns how many numbers of a level were given up for this reason.
    pub fn count(&self, level: Severity, why: Why) -> u64 {
        let of_kind = |lost: &&Lost| lost.level == level && lost.why == why;
        self.0.iter().filter(of_kind).map(|lost| lost.count).sum()
    }

    pub fn on_the_wire(&self) -> Vec<wire::GivenUp> {
        let range = |lost: &Lost| wire::GivenUp {
            from: lost.from,
            to: lost.to,
            level: lost.level,
            count: lost.count,
            why: lost.why.as_str().to_owned(),
        };
        self.0.iter().map(range).collect()
    }

    /// Returns the two neighbours of one kind that lie nearest, and from the end of the first to the second's start.
    fn nearest(&self) -> Option<(usize, usize, u64)> {
        let pairs = self.0.iter().enumerate().filter_map(|(first, lost)| {
            let rest = self.0.iter().enumerate().skip(first + 1);
            let (second, next) = rest.into_iter().find(|(_, next)| next.same_kind(lost))?;
            Some((first, second, next.from.saturating_sub(lost.to)))
        });
        pairs.min_by_key(|&(_, _, gap)| gap)
    }
}

/// Returns the ranges that hold these ascending numbers; beyond `RANGES_MAX` the smallest gaps are covered too.
pub fn ranges(numbers: impl IntoIterator<Item = u64>) -> Vec<SequenceRange> {
    let mut ranges: Vec<SequenceRange> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.to.checked_add(1) == Some(number) => last.to = number,
            _ => ranges.push(SequenceRange {
                from: number,
                to: number,
            }),
        }
    }
    if ranges.len() <= RANGES_MAX {
        return ranges;
    }
    let gap = |pair: &[SequenceRange]| match pair {
        [one, other] => other.from - one.to,
        _ => 0,
    };
    let mut cuts: Vec<(u64, usize)> = ranges.windows(2).map(gap).zip(1..).collect();
    cuts.select_nth_unstable_by(RANGES_MAX - 1, |one, other| other.cmp(one));
    cuts.truncate(RANGES_MAX - 1);
    cuts.sort_unstable_by_key(|&(_, at)| at);
    let starts = std::iter::once(0).chain(cuts.iter().map(|&(_, at)| at));
    let ends = cuts.iter().map(|&(_, at)| at).chain([ranges.len()]);
    let joined = starts.zip(ends).filter_map(|(start, end)| {
        let run = ranges.get(start..end)?;
        Some(SequenceRange {
            from: run.first()?.from,
            to: run.last()?.to,
        })
    });
    joined.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_that_adjoin_are_one_range_of_their_kind() {
        use Severity::{High, Low};
        for (added, expected) in [
            (vec![(1, Low), (2, Low), (3, Low)], vec![(1, 3, Low, 3)]),
            (vec![(3, Low), (1, Low), (2, Low)], vec![(1, 3, Low, 3)]),
            (
                vec![(1, Low), (3, Low)],
                vec![(1, 1, Low, 1), (3, 3, Low, 1)],
            ),
            (
                vec![(1, Low), (2, High), (3, Low)],
                vec![(1, 1, Low, 1), (2, 2, High, 1), (3, 3, Low, 1)],
            ),
        ] {
            let mut given_up = GivenUp::default();
            for &(seq, level) in &added {
                given_up.add(seq, level, Why::Full);
            }
            let found: Vec<_> = (given_up.0.iter())
                .map(|lost| (lost.from, lost.to, lost.level, lost.count))
                .collect();
            assert_eq!(found, expected, "{added:?}");
        }
    }

    proptest! {
        #[test]
        fn however_many_are_given_up_the_counts_stay_exact(
            numbers in proptest::collection::btree_map(1u64..3000, (0usize..5, any::<bool>()), 0..600),
            order in any::<u64>(),
        ) {
            let mut given_up = GivenUp::default();
            let mut shuffled: Vec<_> = numbers.iter().collect();
            shuffled.sort_by_key(|(seq, _)| seq.wrapping_mul(order | 1));
            let why = |rejected| if rejected { Why::Rejected } else { Why::Full };
            for (&seq, &(level, rejected)) in shuffled {
                given_up.add(seq, Severity::ALL[level], why(rejected));
            }
            prop_assert!(given_up.0.len() <= RANGES_MAX);
            for level in 0..5 {
                for rejected in [false, true] {
                    let expected = numbers.values().filter(|&&kind| kind == (level, rejected)).count();
                    let found = given_up.count(Severity::ALL[level], why(rejected));
                    prop_assert_eq!(found, expected as u64);
                }
            }
            for (&seq, &(level, rejected)) in &numbers {
                let holds = |lost: &Lost| lost.from <= seq && seq <= lost.to
                    && lost.level == Severity::ALL[level] && lost.why == why(rejected);
                prop_assert_eq!(given_up.0.iter().filter(|lost| holds(lost)).count(), 1);
            }
        }

        #[test]
        fn ranges_hold_every_number_and_are_exact_while_they_fit(
            numbers in proptest::collection::btree_set(1u64..2000, 0..500),
        ) {
            let found = ranges(numbers.iter().copied());
            prop_assert!(found.len() <= RANGES_MAX);
            let covered: BTreeSet<u64> = found.iter().flat_map(|range| range.from..=range.to).collect();
            prop_assert!(numbers.is_subset(&covered));
            prop_assert_eq!(covered.len() as u64, found.iter().map(|range| range.to - range.from + 1).sum::<u64>());
            let islands = numbers.iter().filter(|&&number| !numbers.contains(&(number - 1))).count();
            if islands <= RANGES_MAX {
                prop_assert_eq!(covered, numbers);
            } else {
                prop_assert_eq!(found.len(), RANGES_MAX);
            }
        }
    }
}
