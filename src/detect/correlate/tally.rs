//! What stands in a window, judged: how many events, how many distinct values, what their numbers come to.

use std::cmp::Ordering;
use std::collections::HashMap;

use crate::detect::correlate::window::Entry;
use crate::detect::correlate::window::marker;
use crate::detect::rule::Comparison;
use crate::detect::rule::Correlation;
use crate::detect::rule::Counted;

/// A line that was repeated stands for so many numbers at most.
const REPEATS_MAX: u32 = 1000;

/// Returns what is kept of a number.
pub fn of_number(number: f64) -> [u8; 16] {
    u128::from(number.to_bits()).to_be_bytes()
}

fn number(entry: &Entry) -> f64 {
    let bits = u128::from_be_bytes(entry.value);
    f64::from_bits(u64::try_from(bits).unwrap_or(0))
}

/// Whether the condition holds of the numbers of these events.
pub fn aggregate<'e>(correlation: &Correlation, entries: impl Iterator<Item = &'e Entry>) -> bool {
    let mut numbers: Vec<f64> = Vec::new();
    let (mut sum, mut count) = (0.0, 0.0);
    let is_ranked = matches!(
        correlation.counted,
        Counted::Median | Counted::Percentile(_)
    );
    for entry in entries {
        let (number, repeat) = (number(entry), entry.repeat.min(REPEATS_MAX));
        sum += number * f64::from(repeat);
        count += f64::from(repeat);
        if is_ranked {
            numbers.extend((0..repeat).map(|_| number));
        }
    }
    let outcome = match correlation.counted {
        Counted::Average => sum / count,
        Counted::Median => match numbers.len() {
            0 => return false,
            odd if odd % 2 == 1 => ranked(&mut numbers, odd / 2),
            even => {
                let low = ranked(&mut numbers, even / 2 - 1);
                f64::midpoint(low, ranked(&mut numbers, even / 2))
            }
        },
        // The nearest rank: the smallest number that so many of a hundred don't exceed.
        Counted::Percentile(rank) => {
            let place = (numbers.len() * usize::from(rank)).div_ceil(100);
            ranked(&mut numbers, place.saturating_sub(1))
        }
        _ => sum,
    };
    let mut predicates = correlation.predicates.iter();
    predicates.all(|&(comparison, bound)| stands(outcome, comparison, bound))
}

fn ranked(numbers: &mut [f64], place: usize) -> f64 {
    if place >= numbers.len() {
        return f64::NAN; // nothing there, which fulfils nothing
    }
    *numbers.select_nth_unstable_by(place, f64::total_cmp).1
}

// Bounds are at most 2^53, which a double holds exactly.
#[expect(clippy::cast_precision_loss)]
fn stands(outcome: f64, comparison: Comparison, bound: u64) -> bool {
    outcome
        .partial_cmp(&(bound as f64))
        .is_some_and(|ordering| match comparison {
            Comparison::Less => ordering == Ordering::Less,
            Comparison::LessEqual => ordering != Ordering::Greater,
            Comparison::Greater => ordering == Ordering::Greater,
            Comparison::GreaterEqual => ordering != Ordering::Less,
            Comparison::Equal => ordering == Ordering::Equal,
            Comparison::NotEqual => ordering != Ordering::Equal,
        })
}

/// What stands in a window, as events come into it and leave it.
pub enum Tally {
    Events(u64),
    Values(HashMap<[u8; 16], usize>),
}

impl Tally {
    pub fn new(counted: Counted) -> Self {
        match counted {
            Counted::Values | Counted::Rules | Counted::Sequence => Self::Values(HashMap::new()),
            _ => Self::Events(0),
        }
    }

    pub fn add(&mut self, entry: &Entry) {
        match self {
            Self::Events(count) => *count = count.saturating_add(entry.repeat.into()),
            Self::Values(values) => *values.entry(entry.value).or_default() += 1,
        }
    }

    pub fn remove(&mut self, entry: &Entry) {
        match self {
            Self::Events(count) => *count = count.saturating_sub(entry.repeat.into()),
            Self::Values(values) => {
                if let Some(times) = values.get_mut(&entry.value) {
                    *times -= 1;
                    if *times == 0 {
                        values.remove(&entry.value);
                    }
                }
            }
        }
    }

    pub fn fulfils(&self, correlation: &Correlation) -> bool {
        let count = match self {
            Self::Events(count) => *count,
            Self::Values(values) => {
                if let Some(presence) = &correlation.presence {
                    return presence.holds(&|base| values.contains_key(&marker(base)));
                }
                values.len() as u64
            }
        };
        let mut predicates = correlation.predicates.iter();
        predicates.all(|(comparison, bound)| comparison.holds(count, *bound))
    }
}
