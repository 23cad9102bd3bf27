//! When to try again. Pure: chance comes as an argument.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// How long the forwarder waits for what. The defaults are the product's; tests use shorter ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// One request from its first byte to the last of the answer: 1 MiB, the largest batch packed, at 300 kbit/s. A batch
    /// that takes longer is halved.
    pub request: Duration,
    /// How long a large body waits for `100 Continue` (RFC 9110 10.1.1: not for ever).
    pub continue_grace: Duration,
    /// The span of the first wait after a failure; it doubles with each one.
    pub backoff_base: Duration,
    pub backoff_max: Duration,
    /// The first wait after 401, 403 or a refused handshake; it doubles. A person must act, then no one should have to
    /// restart the agent.
    pub refused_min: Duration,
    pub refused_max: Duration,
    /// Until the first answer says another `next_in`.
    pub heartbeat: Duration,
    /// Between tries to renew a certificate that still holds.
    pub renewal_retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            continue_grace: Duration::from_secs(1),
            backoff_base: Duration::from_secs(1),
            backoff_max: Duration::from_secs(300),
            refused_min: Duration::from_secs(60),
            refused_max: Duration::from_secs(15 * 60),
            heartbeat: Duration::from_secs(60),
            renewal_retry: Duration::from_secs(60 * 60),
        }
    }
}

/// The longest that a `Retry-After` is obeyed: a typing error at a centre must not silence a fleet for a week.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);
/// What a centre may ask for between two heartbeats.
const HEARTBEAT_MIN: u64 = 10;
const HEARTBEAT_MAX: u64 = 60 * 60;

/// How often in a row something went wrong.
#[derive(Debug, Default)]
pub struct Pace {
    failures: u32,
    refusals: u32,
}

impl Pace {
    pub fn worked(&mut self) {
        *self = Self::default();
    }

    /// Returns a wait between nothing and a span that doubles (full jitter: after an outage the agents of a province come
    /// back spread over the span).
    pub fn failed(&mut self, timing: &Timing, random: u64) -> Duration {
        let span = doubled(timing.backoff_base, self.failures, timing.backoff_max);
        self.failures = self.failures.saturating_add(1);
        fraction(span, random)
    }

    /// Returns a wait of at least `refused_min`, up to a tenth longer than the doubled span.
    pub fn refused(&mut self, timing: &Timing, random: u64) -> Duration {
        let span = doubled(timing.refused_min, self.refusals, timing.refused_max);
        self.refusals = self.refusals.saturating_add(1);
        at_least(span, random)
    }
}

/// Returns when to beat again: what the centre asked for, give or take a tenth.
pub fn heartbeat_in(next_in: u64, random: u64) -> Duration {
    spread(
        Duration::from_secs(next_in.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX)),
        random,
    )
}

/// Returns a duration, up to a tenth longer: what many are told to wait, they should not end together.
pub fn at_least(span: Duration, random: u64) -> Duration {
    span + fraction(span / 10, random)
}

/// Returns a duration give or take a tenth.
pub fn spread(around: Duration, random: u64) -> Duration {
    around - around / 10 + fraction(around / 5, random)
}

/// Reads `Retry-After`: seconds or an HTTP date (RFC 9110 10.2.3). At most [`RETRY_AFTER_MAX`]; a date gone by is no wait.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits only: what does not fit is beyond the cap.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    // The day of the week says nothing that the date does not.
    let until = DateTimeParser::new()
        .relaxed_weekday(true)
        .parse_timestamp(text)
        .ok()?;
    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
    Some(wait.min(RETRY_AFTER_MAX))
}

fn doubled(base: Duration, times: u32, max: Duration) -> Duration {
    // 2^20 seconds are twelve days; more doublings only overflow.
    base.saturating_mul(1 << times.min(20)).min(max)
}

/// Returns the part of a span that 64 random bits stand for.
fn fraction(span: Duration, random: u64) -> Duration {
    let nanos = span.as_nanos() * u128::from(random) / u128::from(u64::MAX);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u64 = u64::MAX / 2 + 1;

    #[test]
    fn a_failure_waits_between_nothing_and_a_doubling_span() {
        let timing = Timing::default();
        let waits = |random| {
            let mut pace = Pace::default();
            let mut next = || pace.failed(&timing, random).as_secs();
            (0..12).map(|_| next()).collect::<Vec<_>>()
        };
        assert_eq!(waits(0), [0; 12]);
        let most = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300];
        assert_eq!(waits(u64::MAX), most);
        let half = [0, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150, 150];
        assert_eq!(waits(MIDDLE), half);
    }

    #[test]
    fn a_refusal_waits_a_minute_and_then_longer() {
        let timing = Timing::default();
        for (random, expected) in [
            (0, [60, 120, 240, 480, 900, 900]),
            (u64::MAX, [66, 132, 264, 528, 990, 990]),
        ] {
            let mut pace = Pace::default();
            let waits: Vec<u64> = (0..6)
                .map(|_| pace.refused(&timing, random).as_secs())
                .collect();
            assert_eq!(waits, expected);
        }
    }

    #[test]
    fn many_failures_do_not_overflow_and_one_success_forgets_them() {
        let timing = Timing::default();
        let mut pace = Pace {
            failures: u32::MAX,
            refusals: u32::MAX,
        };
        assert_eq!(pace.failed(&timing, u64::MAX), timing.backoff_max);
        pace.worked();
        assert_eq!(pace.failed(&timing, u64::MAX), timing.backoff_base);
    }

    #[test]
    fn a_heartbeat_is_asked_for_within_bounds() {
        for (next_in, random, millis) in [
            (60, 0, 54_000),
            (60, MIDDLE, 60_000),
            (60, u64::MAX, 66_000),
            (0, 0, 9_000),
            (u64::MAX, 0, 3_240_000),
        ] {
            assert_eq!(
                heartbeat_in(next_in, random).as_millis(),
                millis,
                "{next_in}"
            );
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "1994-11-06T08:49:00Z".parse().unwrap();
        for (text, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("999999", Some(3600)),
            ("99999999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sun, 06 Nov 1994 07:49:37 GMT", Some(0)),
            ("Tue, 06 Nov 2094 08:49:37 GMT", Some(3600)),
            ("", None),
            ("-5", None),
            ("soon", None),
        ] {
            let expected = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(text, now), expected, "{text}");
        }
    }
}
