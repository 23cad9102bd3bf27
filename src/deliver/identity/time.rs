//! The time at which an agent judges the centre's certificate: a dead clock battery must not silence it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;

/// When this program was made: no honest clock is before it. `SOURCE_DATE_EPOCH` of the build, else the day this line
/// was last touched.
pub const BUILT: i64 = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => seconds(text),
    None => 1_793_491_200, // 2026-11-01
};

/// The latest of the machine's clock, the build and what the centre last said.
#[derive(Debug, Default)]
pub struct JudgedTime {
    told: AtomicI64,
}

impl JudgedTime {
    /// Starts with what the centre said before the last stop, if that is known.
    pub fn new(told: Option<Timestamp>) -> Self {
        Self {
            told: AtomicI64::new(told.map_or(0, Timestamp::as_second)),
        }
    }

    /// Takes what the centre says in place of what it said before.
    ///
    /// At most `not_after`, the end of the certificate that it showed: a centre whose clock ran wild for a minute
    /// would else make its agents reject its own certificate for good.
    pub fn tell(&self, time: Timestamp, not_after: Timestamp) {
        self.told
            .store(time.min(not_after).as_second(), Ordering::Relaxed);
    }

    pub fn now(&self) -> Timestamp {
        let told = self.told.load(Ordering::Relaxed).max(BUILT);
        Timestamp::from_second(told).map_or_else(
            |_| Timestamp::now(),
            |told| told.max(Timestamp::now()), // `told` comes from a Timestamp
        )
    }

    /// Returns what the centre last said.
    pub fn told(&self) -> Option<Timestamp> {
        match self.told.load(Ordering::Relaxed) {
            0 => None,
            seconds => Timestamp::from_second(seconds).ok(),
        }
    }
}

impl TimeProvider for JudgedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Reads digits; stops at anything else. `const`, so that a bad build variable costs nothing at run time.
const fn seconds(text: &str) -> i64 {
    let bytes = text.as_bytes();
    let mut value: i64 = 0;
    let mut at = 0;
    while at < bytes.len() && at < 11 && bytes[at].is_ascii_digit() {
        value = value * 10 + (bytes[at] - b'0') as i64;
        at += 1;
    }
    value
}
