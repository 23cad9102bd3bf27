//! What the keys of a stream stand for, remembered: records of one kind have the same keys in the same order.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::decode::windows;
use crate::event::field::{FieldId, Fields, Quick};

/// Keys at the top of an object that hold its time, the surest first.
const TIME_KEYS: [&str; 12] = [
    "@timestamp",
    "timestamp",
    "time",
    "UtcTime",
    "EventTime",
    "TimeCreated",
    "eventTime",
    "datetime",
    "date",
    "ts",
    "_time",
    "__REALTIME_TIMESTAMP",
];

/// The rank of `TimeCreated` among them.
const TIME_CREATED: usize = 5;

/// Names remembered; a stream that has more is forgotten and learnt anew.
const NAMES_MAX: usize = 4096;

/// Longer names are looked up each time: no field that a rule asks for has one.
const KEPT_BYTES_MAX: usize = 128;

/// What a path of joined keys stands for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    pub field: Option<FieldId>,
    /// Another field that has the same value.
    pub also: Option<FieldId>,
    /// How sure it is as a time; the lowest is the surest.
    pub rank: Option<usize>,
    /// It is a time whatever it stands in.
    pub is_windows: bool,
    /// Its time is UTC where it names no zone.
    pub is_utc: bool,
}

#[derive(Debug)]
struct Entry {
    path: Box<[u8]>,
    known: Known,
    /// The one that came after it last.
    next: usize,
}

/// The names of one stream under one ruleset.
#[derive(Debug, Default)]
pub struct Names {
    /// Of the fields that they were learnt under.
    fingerprint: u64,
    by_path: HashMap<Box<[u8]>, usize, BuildHasherDefault<Quick>>,
    entries: Vec<Entry>,
    /// The one found last; beyond all at the beginning of a record.
    last: usize,
}

impl Names {
    /// Begins a record.
    pub fn begin(&mut self, fields: &Fields) {
        if self.fingerprint != fields.fingerprint() || self.entries.len() >= NAMES_MAX {
            self.by_path.clear();
            self.entries.clear();
            self.fingerprint = fields.fingerprint();
        }
        self.last = usize::MAX;
    }

    pub fn find(&mut self, path: &[u8], fields: &Fields) -> Known {
        let next = self.entries.get(self.last).map_or(0, |entry| entry.next);
        if let Some(entry) = self.entries.get(next)
            && *entry.path == *path
        {
            self.last = next;
            return entry.known;
        }
        let found = match self.by_path.get(path) {
            Some(&found) => found,
            None => {
                let known = known(path, fields);
                if self.entries.len() >= NAMES_MAX || path.len() > KEPT_BYTES_MAX {
                    return known;
                }
                self.by_path.insert(path.into(), self.entries.len());
                self.entries.push(Entry {
                    path: path.into(),
                    known,
                    next: 0,
                });
                self.entries.len() - 1
            }
        };
        if let Some(last) = self.entries.get_mut(self.last) {
            last.next = found;
        }
        self.last = found;
        self.entries
            .get(found)
            .map_or_else(Known::default, |entry| entry.known)
    }
}

fn known(path: &[u8], fields: &Fields) -> Known {
    let Ok(path) = str::from_utf8(path) else {
        return Known::default();
    };
    let windows = windows::name(path);
    let is_windows = windows.as_deref() == Some("TimeCreated");
    let rank = TIME_KEYS.iter().position(|key| *key == path);
    let own = windows.and_then(|name| fields.get(&name));
    // NXLog's name for the provider, and one of Defender's own fields.
    let is_source = path == "SourceName";
    Known {
        field: fields.get(path).or(own),
        also: is_source.then(|| fields.get("Provider_Name")).flatten(),
        rank: if is_windows { Some(TIME_CREATED) } else { rank },
        is_windows,
        // Sysmon's is UTC by name; a time without a zone elsewhere is the machine's.
        is_utc: is_windows || path == "UtcTime",
    }
}

/// Returns the name of a field that no rule asks for, for people.
pub fn shown(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    match windows::name(&path) {
        Some(name) => name.into_owned(),
        None => path.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::field;

    #[test]
    fn names_are_learnt_anew_under_other_rules() {
        let mut fields = Fields::default();
        let mut names = Names::default();
        names.begin(&fields);
        assert_eq!(names.find(b"Image", &fields).field, Some(field::IMAGE));
        assert_eq!(names.find(b"Unheard", &fields), Known::default());
        let made = fields.intern("Unheard").unwrap();
        names.begin(&fields);
        for _ in 0..3 {
            assert_eq!(names.find(b"Unheard", &fields).field, Some(made));
            assert_eq!(names.find(b"Image", &fields).field, Some(field::IMAGE));
        }
    }

    #[test]
    fn a_stream_of_ever_new_names_is_bounded() {
        let fields = Fields::default();
        let mut names = Names::default();
        names.begin(&fields);
        for n in 0..NAMES_MAX * 2 {
            assert_eq!(
                names.find(format!("n{n}").as_bytes(), &fields),
                Known::default()
            );
            assert!(names.entries.len() <= NAMES_MAX);
        }
        assert_eq!(names.find(b"Image", &fields).field, Some(field::IMAGE));
        names.begin(&fields);
        assert!(names.entries.is_empty());
    }
}
