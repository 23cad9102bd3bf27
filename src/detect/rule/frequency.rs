//! How often ordinary events hold a text: what needs are chosen by. A wrong figure costs time, never a match.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::detect::rule::need::Place;

/// Counted over every second event of public recordings, of the texts that public rules ask for: four bytes of a hash,
/// one of the rate: `-4 log2`. Made by the test of that name.
const COUNTED: &[u8] = include_bytes!("frequency.bin");

static RATES: LazyLock<HashMap<u32, u8>> = LazyLock::new(|| {
    let (entries, _) = COUNTED.as_chunks::<5>();
    entries
        .iter()
        .map(|&[a, b, c, d, rate]| (u32::from_le_bytes([a, b, c, d]), rate))
        .collect()
});

/// Bytes of the runs that are counted.
pub const RUN_BYTES: usize = 4;

/// The name under which runs of bytes are counted, whatever field they stand in.
pub const RUNS: &str = "\0run";

/// Returns how often a text stands in a field of that name, from 0 to 1; of the whole record for an empty name.
pub fn rate(field: &str, place: Place, text: &[u8]) -> f64 {
    match RATES.get(&key(field, place, text)) {
        Some(&rate) => (-f64::from(rate) / 4.0).exp2(),
        None => unseen(place, text),
    }
}

/// The rate of what was never counted: long texts are rare, and letters beyond ASCII.
fn unseen(place: Place, text: &[u8]) -> f64 {
    match (place, text.len()) {
        (Place::Present, _) => 0.5,
        _ if !text.is_ascii() => 1e-6,
        (Place::Anywhere, 0) => 1.0,
        (Place::Anywhere, 1..4) => 0.02,
        (Place::Start | Place::End, 0..2) => 0.3,
        (Place::Whole, _) => 1e-4,
        (_, 2..6) => 3e-3,
        (_, _) => 1e-4,
    }
}

/// Returns where the `step` runs of `length` bytes that follow one another are the rarest together.
pub fn rarest(text: &[u8], length: usize, step: usize) -> usize {
    let often = |run: &[u8]| {
        let rate = RATES.get(&key(RUNS, Place::Anywhere, run));
        rate.map_or(0.0, |&rate| (-f64::from(rate) / 4.0).exp2())
    };
    let whole = length + step - 1;
    let cost = |whole: &[u8]| {
        let runs = whole.windows(RUN_BYTES.min(whole.len()));
        runs.map(often).sum::<f64>()
    };
    let places = text.windows(whole).enumerate();
    places
        .min_by(|(_, a), (_, b)| cost(a).total_cmp(&cost(b)))
        .map_or(0, |(at, _)| at)
}

/// FNV-1a, 32 bits.
pub fn key(field: &str, place: Place, text: &[u8]) -> u32 {
    let bytes = field
        .bytes()
        .chain([0, place as u8])
        .chain(text.iter().copied());
    bytes.fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
