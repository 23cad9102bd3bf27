//! Times as people write and read them: `2h`, a date, RFC 3339; shown in the zone of whoever reads.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

const EXPECTED: &str =
    "expected 30m, 2h, 3d, 1w, a date such as 2026-11-05, or a time such as 2026-11-05T07:30:00Z";

/// A moment, as asked for: counted from now, or fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// So long from now, back or ahead.
    Span(SignedDuration),
    At(Timestamp),
}

impl When {
    pub fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Span(span) => now.checked_sub(span).unwrap_or(Timestamp::MIN),
        }
    }

    pub fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(at) => at,
            Self::Span(span) => now.checked_add(span).unwrap_or(Timestamp::MAX),
        }
    }
}

/// For clap.
pub fn parse(text: &str) -> Result<When, String> {
    read(text, &TimeZone::system()).ok_or_else(|| EXPECTED.to_owned())
}

fn read(text: &str, zone: &TimeZone) -> Option<When> {
    if let Some(span) = span(text) {
        return Some(When::Span(span));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(When::At(at));
    }
    let civil: DateTime = match text.parse::<Date>() {
        Ok(date) if text.len() == 10 => date.to_datetime(jiff::civil::Time::midnight()),
        _ => text.parse().ok()?,
    };
    let zoned = zone.to_zoned(civil).ok()?;
    Some(When::At(zoned.timestamp()))
}

fn span(text: &str) -> Option<SignedDuration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        'w' => 7 * 24 * 3600,
        _ => return None,
    };
    let number = text.strip_suffix(unit)?;
    // More than a century is a mistake.
    let number: u32 = number.parse().ok().filter(|_| number.len() <= 7)?;
    Some(SignedDuration::from_secs(i64::from(number) * seconds))
}

/// Returns a time as shown: to the second, with the zone's offset.
pub fn shown(time: Timestamp, zone: &TimeZone) -> String {
    time.to_zoned(zone.clone())
        .strftime("%Y-%m-%d %H:%M:%S%:z")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_write_spans_dates_and_times() {
        let zone = TimeZone::fixed(jiff::tz::offset(7));
        let at = |text: &str| Some(When::At(text.parse().unwrap()));
        let hours = |hours| Some(When::Span(SignedDuration::from_hours(hours)));
        for (text, read_as) in [
            ("2h", hours(2)),
            ("3d", hours(72)),
            ("1w", hours(168)),
            ("90m", Some(When::Span(SignedDuration::from_secs(5400)))),
            ("2026-11-05", at("2026-11-04T17:00:00Z")),
            ("2026-11-05T07:30:00Z", at("2026-11-05T07:30:00Z")),
            ("2026-11-05T07:30:00+07:00", at("2026-11-05T00:30:00Z")),
            ("2026-11-05T07:30", at("2026-11-05T00:30:00Z")),
            ("2026-11-05 07:30:00", at("2026-11-05T00:30:00Z")),
            ("", None),
            ("h", None),
            ("-2h", None),
            ("2y", None),
            ("yesterday", None),
            ("99999999999999h", None),
            ("2026-13-05", None),
            ("ữ", None),
        ] {
            assert_eq!(read(text, &zone), read_as, "{text}");
        }
    }

    #[test]
    fn a_time_is_shown_in_the_readers_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(7));
        let time = "2026-11-05T00:30:00.123Z".parse().unwrap();
        assert_eq!(shown(time, &zone), "2026-11-05 07:30:00+07:00");
    }
}
