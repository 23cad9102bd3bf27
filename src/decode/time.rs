//! The times that logs write: RFC 3339 and its relatives, syslog's without a year, the common log format's.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::decode::reader::Reader;

/// A time without a year is at most this far ahead of the reading clock; else it is of the year before.
const AHEAD_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Years back in which 29 February is looked for: 1896 to 1904 had none for eight years, as 2096 to 2104 will.
const YEARS_BACK_MAX: i16 = 8;

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Reads `Mar` and passes it.
fn month(reader: &mut Reader<'_>) -> Option<i8> {
    let name = reader.rest().get(..3)?;
    let at = MONTHS.iter().position(|month| *month == name)?;
    reader.take(3)?;
    i8::try_from(at + 1).ok()
}

/// Reads `12:34:56`, with a fraction behind a point or comma if there is one.
fn clock(reader: &mut Reader<'_>) -> Option<Time> {
    let hour = reader.digits(1, 2)?;
    reader.tag(b":").then_some(())?;
    let minute = reader.digits(2, 2)?;
    reader.tag(b":").then_some(())?;
    // A leap second is counted with the one before it, as the system's clock does.
    let second = match reader.digits(2, 2)? {
        60 => 59,
        second => second,
    };
    let nanosecond = fraction(reader);
    let part = |number: u32| i8::try_from(number).ok();
    Time::new(part(hour)?, part(minute)?, part(second)?, nanosecond).ok()
}

/// Reads `.123456`; digits past the ninth are passed and forgotten.
fn fraction(reader: &mut Reader<'_>) -> i32 {
    let mut ahead = *reader;
    if !(ahead.tag(b".") || ahead.tag(b",")) {
        return 0;
    }
    let digits = ahead.while_(|b| b.is_ascii_digit());
    if digits.is_empty() {
        return 0;
    }
    *reader = ahead;
    let shown = digits.iter().chain(std::iter::repeat(&b'0')).take(9);
    shown.fold(0, |sum, &b| sum * 10 + i32::from(b - b'0'))
}

/// Reads `Z`, `+07:00`, `+0700` or `+07`; returns seconds east of Greenwich.
fn offset(reader: &mut Reader<'_>) -> Option<i64> {
    if reader.tag(b"Z") || reader.tag(b"z") {
        return Some(0);
    }
    let mut ahead = *reader;
    let sign = match ahead.u8()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let hours = ahead.digits(2, 2)?;
    ahead.tag(b":");
    let minutes = ahead.digits(2, 2).unwrap_or(0);
    *reader = ahead;
    (hours <= 24 && minutes < 60).then(|| sign * i64::from(hours * 3600 + minutes * 60))
}

fn at_offset(civil: DateTime, seconds_east: i64) -> Option<Timestamp> {
    let utc = TimeZone::UTC.to_timestamp(civil).ok()?;
    utc.checked_sub(SignedDuration::from_secs(seconds_east))
        .ok()
}

/// Reads `2026-03-01T12:34:56.789+07:00` and what is near it: a space for the `T`, a comma for the point, a space
/// before the offset, slashes for the hyphens. A time without a zone is taken as of `zone`.
pub fn iso(reader: &mut Reader<'_>, zone: &TimeZone) -> Option<Timestamp> {
    let mut ahead = *reader;
    let year = ahead.digits(4, 4)?;
    let separator = ahead.u8().filter(|b| matches!(b, b'-' | b'/'))?;
    let month = ahead.digits(2, 2)?;
    ahead.tag(&[separator]).then_some(())?;
    let day = ahead.digits(2, 2)?;
    ahead.u8().filter(|b| matches!(b, b'T' | b't' | b' '))?;
    let date = Date::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
    )
    .ok()?;
    let civil = date.to_datetime(clock(&mut ahead)?);
    let mut spaced = ahead;
    spaced.tag(b" ");
    let mut named = ahead;
    let is_utc = [&b" UTC "[..], b" GMT "].iter().any(|name| named.tag(name));
    let seconds_east = match offset(&mut ahead) {
        Some(seconds) => Some(seconds),
        // The space behind the name stays for who reads on.
        None if is_utc => ahead.take(4).map(|_| 0),
        // `12:34:56 +0700`, but not `12:34:56 +1 more`: what follows an offset is a space or the end.
        None => offset(&mut spaced)
            .filter(|_| spaced.peek().is_none_or(|b| b == b' '))
            .inspect(|_| ahead = spaced),
    };
    *reader = ahead;
    match seconds_east {
        Some(seconds) => at_offset(civil, seconds),
        None => zone.to_timestamp(civil).ok(),
    }
}

/// Reads the label of daemontools' multilog, `@` and 24 hexadecimal digits: TAI64N, seconds of 2^62 + 10 ahead of 1970
/// and nanoseconds (cr.yp.to/libtai/tai64.html; leap seconds since 1972 are left out there as here).
pub fn tai64n(reader: &mut Reader<'_>) -> Option<Timestamp> {
    let mut ahead = *reader;
    ahead.tag(b"@").then_some(())?;
    let digits = ahead.take(24)?;
    let number = |digits: &[u8]| i64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let seconds = number(digits.get(..16)?)?;
    let nanoseconds = i32::try_from(number(digits.get(16..)?)?).ok()?;
    let stamp = Timestamp::new(seconds.checked_sub((1 << 62) + 10)?, nanoseconds).ok()?;
    ahead.tag(b" ").then_some(())?;
    *reader = ahead;
    Some(stamp)
}

/// Reads a time that begins a daemon's own line, bare or in brackets: `[2026-03-01 10:00:00]`, `[Mar  1 10:00:00]`,
/// `[01/Mar/2026 10:00:00]`.
pub fn leading(line: &[u8], zone: &TimeZone, read_at: Timestamp) -> Option<Timestamp> {
    let line = line.strip_prefix(b"<W>").unwrap_or(line);
    let line = line.strip_prefix(b"[").unwrap_or(line);
    let mut reader = Reader::new(line);
    iso(&mut reader, zone)
        .or_else(|| bsd(&mut reader, zone, read_at))
        .or_else(|| european(&mut reader, zone))
}

/// Reads `01/Mar/2026 12:34:56` and `01-Mar-2026 12:34:56 +0700`.
fn european(reader: &mut Reader<'_>, zone: &TimeZone) -> Option<Timestamp> {
    let mut ahead = *reader;
    let day = i8::try_from(ahead.digits(1, 2)?).ok()?;
    let separator = ahead.u8().filter(|b| matches!(b, b'-' | b'/'))?;
    let month = month(&mut ahead)?;
    ahead.tag(&[separator]).then_some(())?;
    let year = i16::try_from(ahead.digits(4, 4)?).ok()?;
    ahead.tag(b" ").then_some(())?;
    let civil = Date::new(year, month, day)
        .ok()?
        .to_datetime(clock(&mut ahead)?);
    let mut spaced = ahead;
    let seconds_east = spaced.tag(b" ").then(|| offset(&mut spaced)).flatten();
    *reader = ahead;
    match seconds_east {
        Some(seconds) => at_offset(civil, seconds),
        None => zone.to_timestamp(civil).ok(),
    }
}

/// Reads `Mar  1 12:34:56`, also with a fraction, and with a year at the beginning, or before or behind the
/// clock, as network devices have it.
/// Without one it is the latest such time that is not more than a day ahead of `read_at`.
pub fn bsd(reader: &mut Reader<'_>, zone: &TimeZone, read_at: Timestamp) -> Option<Timestamp> {
    let mut ahead = *reader;
    let before = year(&mut ahead);
    ahead.spaces();
    let month = month(&mut ahead)?;
    ahead.tag(b" ").then_some(())?;
    ahead.spaces();
    let day = i8::try_from(ahead.digits(1, 2)?).ok()?;
    ahead.tag(b" ").then_some(())?;
    ahead.spaces();
    let mut year = before.or_else(|| self::year(&mut ahead));
    if year.is_some() {
        ahead.spaces();
    }
    let time = clock(&mut ahead)?;
    let mut behind = ahead;
    if year.is_none() && behind.tag(b" ") {
        year = self::year(&mut behind).inspect(|_| ahead = behind);
    }
    // `Mar  1 12:34:56 UTC: ` of network devices.
    let mut named = ahead;
    let is_utc = named.tag(b" UTC:");
    if is_utc {
        ahead = named;
    }
    let zone = if is_utc { &TimeZone::UTC } else { zone };
    let stamp = match year {
        Some(year) => {
            let civil = Date::new(year, month, day).ok()?.to_datetime(time);
            zone.to_timestamp(civil).ok()?
        }
        None => without_year(month, day, time, zone, read_at)?,
    };
    *reader = ahead;
    Some(stamp)
}

/// Reads four digits that are a word of their own; a clock begins with one or two.
fn year(reader: &mut Reader<'_>) -> Option<i16> {
    let mut ahead = *reader;
    let year = ahead.digits(4, 4)?;
    // `2001:db8::1` is a host.
    let is_word = matches!(ahead.rest(), [] | [b' ', ..] | [b':'] | [b':', b' ', ..]);
    is_word.then_some(())?;
    *reader = ahead;
    i16::try_from(year).ok()
}

fn without_year(
    month: i8,
    day: i8,
    time: Time,
    zone: &TimeZone,
    read_at: Timestamp,
) -> Option<Timestamp> {
    let latest = read_at.checked_add(AHEAD_MAX).ok()?;
    let year = zone.to_datetime(latest).year();
    (0..=YEARS_BACK_MAX).find_map(|back| {
        let date = Date::new(year.checked_sub(back)?, month, day).ok()?;
        let stamp = zone.to_timestamp(date.to_datetime(time)).ok()?;
        (stamp <= latest).then_some(stamp)
    })
}

/// Reads `01/Mar/2026:12:34:56 +0700`, as nginx and Apache write it between brackets.
pub fn common_log(reader: &mut Reader<'_>) -> Option<Timestamp> {
    let mut ahead = *reader;
    let day = i8::try_from(ahead.digits(1, 2)?).ok()?;
    ahead.tag(b"/").then_some(())?;
    let month = month(&mut ahead)?;
    ahead.tag(b"/").then_some(())?;
    let year = i16::try_from(ahead.digits(4, 4)?).ok()?;
    ahead.tag(b":").then_some(())?;
    let time = clock(&mut ahead)?;
    ahead.tag(b" ").then_some(())?;
    let seconds_east = offset(&mut ahead)?;
    let civil = Date::new(year, month, day).ok()?.to_datetime(time);
    let stamp = at_offset(civil, seconds_east)?;
    *reader = ahead;
    Some(stamp)
}

/// Reads a time from a text of any of these kinds that is nothing but a time.
pub fn any(text: &[u8], zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim_ascii();
    let (text, zone) = match text.strip_suffix(b" UTC") {
        Some(text) => (text, &TimeZone::UTC),
        None => (text, zone),
    };
    let mut reader = Reader::new(text);
    let stamp = iso(&mut reader, zone).or_else(|| common_log(&mut reader));
    stamp.filter(|_| reader.is_empty())
}

/// Reads a number as seconds, milliseconds, microseconds or nanoseconds since 1970, whichever puts it between 1973
/// and the year 5138.
pub fn epoch(number: i64) -> Option<Timestamp> {
    match number.unsigned_abs() {
        0..100_000_000_000 => Timestamp::from_second(number).ok(),
        100_000_000_000..100_000_000_000_000 => Timestamp::from_millisecond(number).ok(),
        100_000_000_000_000..100_000_000_000_000_000 => Timestamp::from_microsecond(number).ok(),
        _ => Timestamp::from_nanosecond(number.into()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hanoi() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(7))
    }

    #[test]
    fn times_of_many_shapes_are_read() {
        for (text, expected) in [
            ("2026-03-01T12:34:56Z", "2026-03-01T12:34:56Z"),
            (
                "2026-03-01T12:34:56.789012+07:00",
                "2026-03-01T05:34:56.789012Z",
            ),
            ("2026-03-01 12:34:56,789", "2026-03-01T05:34:56.789Z"),
            ("2026-03-01 12:34:56.5 -0330", "2026-03-01T16:04:56.5Z"),
            ("2026/03/01 12:34:56", "2026-03-01T05:34:56Z"),
            ("2026-06-30T23:59:60Z", "2026-06-30T23:59:59Z"),
            ("01/Mar/2026:12:34:56 +0700", "2026-03-01T05:34:56Z"),
            ("2026-03-01 12:34:56 UTC", "2026-03-01T12:34:56Z"),
        ] {
            let found = super::any(text.as_bytes(), &hanoi());
            let expected: Timestamp = expected.parse().unwrap();
            assert_eq!(found, Some(expected), "{text}");
        }
        for text in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-03-01T25:00:00Z",
            "yesterday",
            "2026-03-01T00:00:00Z x",
        ] {
            assert_eq!(super::any(text.as_bytes(), &hanoi()), None, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_year_is_the_latest_that_is_not_a_day_ahead() {
        for (text, read_at, expected) in [
            (
                "Dec 31 23:59:59",
                "2026-01-01T00:00:05Z",
                "2025-12-31T23:59:59Z",
            ),
            (
                "Jan  1 00:00:10",
                "2025-12-31T23:59:55Z",
                "2026-01-01T00:00:10Z",
            ),
            (
                "Mar  2 00:00:00",
                "2026-03-01T00:00:01Z",
                "2026-03-02T00:00:00Z",
            ),
            (
                "Mar  2 00:00:00",
                "2026-02-28T23:59:59Z",
                "2025-03-02T00:00:00Z",
            ),
            (
                "Feb 29 10:00:00",
                "2027-03-01T00:00:00Z",
                "2024-02-29T10:00:00Z",
            ),
            (
                "Mar 1 2019 10:00:00",
                "2026-03-01T00:00:00Z",
                "2019-03-01T10:00:00Z",
            ),
            (
                "Mar 1 10:00:00 2019",
                "2026-03-01T00:00:00Z",
                "2019-03-01T10:00:00Z",
            ),
            (
                "Mar  1 10:00:00.125",
                "2026-03-01T12:00:00Z",
                "2026-03-01T10:00:00.125Z",
            ),
        ] {
            let mut reader = Reader::new(text.as_bytes());
            let found = bsd(&mut reader, &TimeZone::UTC, read_at.parse().unwrap());
            assert_eq!(
                found,
                Some(expected.parse().unwrap()),
                "{text} read at {read_at}"
            );
        }
    }

    #[test]
    fn a_local_time_is_of_the_agents_zone() {
        let mut reader = Reader::new(b"Mar  1 05:00:00 web sshd");
        let read_at = "2026-03-01T00:00:00Z".parse().unwrap();
        let found = bsd(&mut reader, &hanoi(), read_at);
        assert_eq!(found, Some("2026-02-28T22:00:00Z".parse().unwrap()));
        assert_eq!(reader.rest(), b" web sshd");
    }

    #[test]
    fn numbers_are_times_by_their_size() {
        for number in [
            1_700_000_000,
            1_700_000_000_000,
            1_700_000_000_000_000,
            1_700_000_000_000_000_000,
        ] {
            assert_eq!(
                epoch(number).unwrap().as_second(),
                1_700_000_000,
                "{number}"
            );
        }
    }

    #[test]
    fn a_daemons_own_line_begins_with_its_time() {
        let read_at = "2026-03-10T12:00:00Z".parse().unwrap();
        for (line, expected) in [
            ("[2026-03-01 12:34:56] x", Some("2026-03-01T05:34:56Z")),
            ("[Mar  1 12:34:56] x", Some("2026-03-01T05:34:56Z")),
            ("[01/Mar/2026 12:34:56] x", Some("2026-03-01T05:34:56Z")),
            (
                "[01-Mar-2026 12:34:56 -0400]: x",
                Some("2026-03-01T16:34:56Z"),
            ),
            ("<W>2026-03-01 12:34:56.5 x", Some("2026-03-01T05:34:56.5Z")),
            ("[31/Feb/2026 12:34:56] x", None),
            ("x", None),
            ("", None),
        ] {
            let expected = expected.map(|text| text.parse::<Timestamp>().unwrap());
            assert_eq!(
                leading(line.as_bytes(), &hanoi(), read_at),
                expected,
                "{line}"
            );
        }
    }

    proptest! {
        /// From 1970 to 2100, in any zone of whole minutes.
        #[test]
        fn a_time_is_read_as_it_was_written(second in 0i64..4_102_444_800, nanosecond in 0i32..1_000_000_000, minutes in -840i32..840) {
            let stamp = Timestamp::new(second, nanosecond).unwrap();
            let offset = jiff::tz::Offset::from_seconds(minutes * 60).unwrap();
            let there = stamp.to_zoned(TimeZone::fixed(offset));
            let whole = Timestamp::from_second(second).unwrap();
            for (format, expected) in [
                ("%Y-%m-%dT%H:%M:%S%.9f%:z", stamp),
                ("%Y-%m-%d %H:%M:%S,%9f %z", stamp),
                ("%d/%b/%Y:%H:%M:%S %z", whole),
            ] {
                let text = there.strftime(format).to_string();
                prop_assert_eq!(super::any(text.as_bytes(), &TimeZone::UTC), Some(expected), "{}", text);
            }
        }

        #[test]
        fn a_time_without_a_year_comes_back_when_read_soon(second in 946_684_800i64..4_102_444_800, later in 0i64..31_000_000) {
            let stamp = Timestamp::from_second(second).unwrap();
            let read_at = Timestamp::from_second(second + later).unwrap();
            let text = stamp.to_zoned(hanoi()).strftime("%b %e %H:%M:%S").to_string();
            prop_assert_eq!(bsd(&mut Reader::new(text.as_bytes()), &hanoi(), read_at), Some(stamp), "{}", text);
        }
    }
}
