//! A window as bytes, for the spool. Version 1: all numbers big-endian.
//! Key: version, rule id and digest each behind its length (u16), group. Value: version, timespan in
//! microseconds (i64), then for each event, in the order of arrival: time in nanoseconds (i128), id, repeat (u32), value.

use jiff::SignedDuration;
use jiff::Timestamp;

use crate::alert::AlertId;
use crate::detect::correlate::window::Entry;
use crate::detect::correlate::window::Window;

const VERSION: u8 = 1;

#[derive(Debug, PartialEq, Eq)]
pub struct Restored {
    pub rule: String,
    pub digest: String,
    pub group: [u8; 16],
    pub timespan: SignedDuration,
    pub window: Window,
}

pub fn key(rule: &str, digest: &str, group: [u8; 16]) -> Vec<u8> {
    let mut key = vec![VERSION];
    for text in [rule, digest] {
        // Ids have at most 128 bytes, digests 32.
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    key.extend_from_slice(&group);
    key
}

pub fn value(timespan: SignedDuration, window: &Window) -> Vec<u8> {
    let mut value = vec![VERSION];
    let timespan = i64::try_from(timespan.as_micros()).unwrap_or(i64::MAX);
    value.extend_from_slice(&timespan.to_be_bytes());
    let mut entries: Vec<_> = window.entries().collect();
    entries.sort_unstable_by_key(|entry| entry.arrival);
    for entry in entries {
        value.extend_from_slice(&entry.time.as_nanosecond().to_be_bytes());
        value.extend_from_slice(entry.id.as_bytes());
        value.extend_from_slice(&entry.repeat.to_be_bytes());
        value.extend_from_slice(&entry.value);
    }
    value
}

/// Returns nothing for bytes that were not written here.
pub fn read(key: &[u8], value: &[u8]) -> Option<Restored> {
    let mut key = Rest(key);
    let mut value = Rest(value);
    if key.take::<1>()? != [VERSION] || value.take::<1>()? != [VERSION] {
        return None;
    }
    let rule = key.text()?;
    let digest = key.text()?;
    let group = key.take()?;
    let timespan = SignedDuration::from_micros(i64::from_be_bytes(value.take()?));
    let mut window = Window::default();
    while !value.0.is_empty() {
        let time = Timestamp::from_nanosecond(i128::from_be_bytes(value.take()?)).ok()?;
        window.put_back(Entry {
            time,
            id: AlertId::from_bytes(value.take()?),
            repeat: u32::from_be_bytes(value.take()?),
            value: value.take()?,
            // Not let go by the clock: what would need it may still be unread.
            arrived: Timestamp::MAX,
            arrival: 0,
        });
    }
    key.0.is_empty().then_some(Restored {
        rule,
        digest,
        group,
        timespan,
        window,
    })
}

struct Rest<'b>(&'b [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}
