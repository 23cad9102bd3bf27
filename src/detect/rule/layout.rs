//! One event, laid out for many questions: each value once as it came and once in lower case, in one buffer
//! that is used again for the next event. Knows nothing of conditions.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::detect::rule::pattern::fold_into;
use crate::event::Event;
use crate::event::Value;
use crate::event::field::FIELDS_MAX;
use crate::event::field::FieldId;
use crate::event::field::FieldSet;

/// A scratch that grew beyond this for one event is given back: 4 MiB.
const SCRATCH_BYTES_MAX: usize = 4 << 20;

/// Whether upper and lower case differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    Folded,
    Exact,
}

/// One value of the event, laid out: where its text stands in the buffer, as it came and in lower case.
#[derive(Debug)]
pub struct Slot {
    field: FieldId,
    text: (usize, usize),
    folded: (usize, usize),
    pub number: Option<i64>,
    pub address: Option<IpAddr>,
    /// The next value of the same field.
    next: Option<usize>,
}

/// The first value of a field; of another event if the generation is another.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    generation: u64,
    slot: usize,
}

/// One event, laid out for many questions. Reused from event to event.
#[derive(Debug)]
pub struct Layout {
    generation: u64,
    heads: Box<[Head]>,
    slots: Vec<Slot>,
    buffer: Vec<u8>,
    number: String,
    record: RawForms,
}

/// The record in the forms that keywords are looked for in, made when the first keyword asks.
#[derive(Debug, Default)]
struct RawForms {
    is_made: bool,
    folded: Vec<u8>,
    /// JSON's escapes undone; empty if there are none.
    plain: Vec<u8>,
    plain_folded: Vec<u8>,
}

impl RawForms {
    fn make(&mut self, raw: &[u8]) {
        if self.is_made {
            return;
        }
        self.is_made = true;
        self.folded.clear();
        self.plain.clear();
        self.plain_folded.clear();
        fold_into(raw, &mut self.folded);
        if raw.contains(&b'\\') {
            unescape_into(raw, &mut self.plain);
            fold_into(&self.plain, &mut self.plain_folded);
        }
    }

    fn capacity(&self) -> usize {
        self.folded.capacity() + self.plain.capacity() + self.plain_folded.capacity()
    }
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            generation: 0,
            heads: vec![Head::default(); FIELDS_MAX].into(),
            slots: Vec::new(),
            buffer: Vec::new(),
            number: String::new(),
            record: RawForms::default(),
        }
    }
}

impl Slot {
    pub fn field(&self) -> FieldId {
        self.field
    }
}

impl Layout {
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Returns the record in lower case, as captured and, where they differ, with JSON's escapes undone.
    pub fn record(&mut self, event: &Event<'_>) -> impl Iterator<Item = &[u8]> {
        self.record.make(event.raw);
        let plain = Some(&*self.record.plain_folded).filter(|plain| !plain.is_empty());
        std::iter::once(&*self.record.folded).chain(plain)
    }

    /// Lays out the values of the fields that some rule asks for.
    pub fn load(&mut self, event: &Event<'_>, asked: &FieldSet) {
        self.generation += 1;
        self.record.is_made = false;
        if self.buffer.capacity() + self.record.capacity() > SCRATCH_BYTES_MAX {
            self.buffer = Vec::new();
            self.record = RawForms::default();
        }
        self.slots.clear();
        self.buffer.clear();
        for (field, value) in event.iter() {
            if asked.contains(field) {
                self.add(field, value);
            }
        }
    }

    fn add(&mut self, field: FieldId, value: &Value<'_>) {
        let start = self.buffer.len();
        match value {
            Value::Text(text) => self.buffer.extend_from_slice(text),
            Value::Int(number) => self.add_display(number),
            Value::Bool(truth) => self.add_display(truth),
            Value::Ip(address) => self.add_display(address),
        }
        let end = self.buffer.len();
        let folded = match value {
            Value::Text(text) if !is_folded(text) => {
                fold_into(text, &mut self.buffer);
                (end, self.buffer.len())
            }
            _ => (start, end),
        };
        let text = (start, end);
        let Some(head) = self.heads.get_mut(field.index()) else {
            return; // an id is always below FIELDS_MAX
        };
        let next = (head.generation == self.generation).then_some(head.slot);
        *head = Head {
            generation: self.generation,
            slot: self.slots.len(),
        };
        self.slots.push(Slot {
            field,
            text,
            folded,
            number: match value {
                Value::Int(number) => Some(*number),
                _ => None,
            },
            address: match value {
                Value::Ip(address) => Some(*address),
                _ => None,
            },
            next,
        });
    }

    fn add_display(&mut self, value: &impl std::fmt::Display) {
        self.number.clear();
        // Writing to a String does not fail.
        let _ = write!(self.number, "{value}");
        self.buffer.extend_from_slice(self.number.as_bytes());
    }

    pub fn values(&self, field: FieldId) -> impl Iterator<Item = &Slot> {
        let head = self.heads.get(field.index()).copied().unwrap_or_default();
        let mut at = (head.generation == self.generation).then_some(head.slot);
        std::iter::from_fn(move || {
            let slot = self.slots.get(at?)?;
            debug_assert!(slot.field == field);
            at = slot.next;
            Some(slot)
        })
    }

    pub fn text(&self, slot: &Slot, letters: Letters) -> &[u8] {
        let (start, end) = match letters {
            Letters::Folded => slot.folded,
            Letters::Exact => slot.text,
        };
        self.buffer.get(start..end).unwrap_or_default()
    }

    pub fn any(&self, field: FieldId, letters: Letters, test: impl Fn(&[u8]) -> bool) -> bool {
        self.values(field)
            .any(|slot| test(self.text(slot, letters)))
    }

    pub fn has(&self, field: FieldId) -> bool {
        self.values(field).next().is_some()
    }

    pub fn anywhere(
        &mut self,
        event: &Event<'_>,
        letters: Letters,
        test: impl Fn(&[u8]) -> bool,
    ) -> bool {
        self.record.make(event.raw);
        let (raw, plain) = match letters {
            Letters::Exact => (event.raw, &self.record.plain),
            Letters::Folded => (&*self.record.folded, &self.record.plain_folded),
        };
        test(raw) || (!plain.is_empty() && test(plain))
    }
}

/// Undoes JSON's escapes (RFC 8259 7) wherever they stand; what is none stays as it is.
fn unescape_into(raw: &[u8], out: &mut Vec<u8>) {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        let unicode = escape
            .strip_prefix(b"\\u")
            .and_then(|digits| digits.get(..4))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .and_then(char::from_u32);
        let (bytes, length) = match (unicode, escape.get(1)) {
            (Some(c), _) => {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                (None, 6)
            }
            (None, Some(&c @ (b'\\' | b'"' | b'/'))) => (Some(c), 2),
            (None, Some(b'n')) => (Some(b'\n'), 2),
            (None, Some(b'r')) => (Some(b'\r'), 2),
            (None, Some(b't')) => (Some(b'\t'), 2),
            _ => (Some(b'\\'), 1),
        };
        out.extend(bytes);
        rest = escape.get(length..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
}

fn is_folded(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii() && !b.is_ascii_uppercase())
}
