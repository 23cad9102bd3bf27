//! Asks a compiled condition of one event. The event is laid out once in a scratch that is passed in,
//! so that the common path allocates nothing. Knows nothing of YAML.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::bytes::Regex;

use crate::detect::rule::pattern::Patterns;
use crate::detect::rule::pattern::fold_into;
use crate::event::Event;
use crate::event::Value;
use crate::event::field::FIELDS_MAX;
use crate::event::field::FieldId;
use crate::event::field::FieldSet;

/// A scratch that grew beyond this for one event is given back: 4 MiB.
const SCRATCH_BYTES_MAX: usize = 4 << 20;
/// A text longer than this is no number, address or time: RFC 3339 with nanoseconds has 35 characters,
/// an IPv6 address 45.
const ATOM_BYTES_MAX: usize = 64;

/// A condition, as a tree. The cheaper branches stand first.
#[derive(Debug)]
pub enum Expr {
    All(Box<[Expr]>),
    Any(Box<[Expr]>),
    Not(Box<Expr>),
    AtLeast(usize, Box<[Expr]>),
    /// A selection that a condition may name several times.
    Shared(Arc<Expr>),
    Test(Box<Test>),
}

/// One question about one field. A field that stands several times passes if one of its values does.
#[derive(Debug)]
pub enum Test {
    Text {
        field: FieldId,
        letters: Letters,
        patterns: Patterns,
    },
    Regex {
        field: FieldId,
        regex: Regex,
    },
    Number {
        field: FieldId,
        order: Order,
        number: Number,
    },
    Network {
        field: FieldId,
        network: IpNet,
    },
    Moment {
        field: FieldId,
        part: Part,
        order: Order,
        number: Number,
    },
    Present(FieldId),
    /// `null`: the field is not there.
    Absent(FieldId),
    Reference {
        field: FieldId,
        other: FieldId,
        letters: Letters,
        place: Within,
    },
    /// Anywhere in the record, as captured or with JSON's escapes undone. Not in the fields: which of those
    /// are decoded depends on the other rules.
    Keyword {
        letters: Letters,
        patterns: Patterns,
    },
    KeywordRegex(Regex),
}

/// Whether upper and lower case differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Letters {
    Folded,
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Equal,
    NotEqual,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
}

/// Where a referenced field's value must stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    Whole,
    Start,
    End,
    Anywhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Int(i64),
    Float(f64),
}

impl Number {
    pub fn read(text: &[u8]) -> Option<Self> {
        if text.len() > ATOM_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?.trim();
        if let Ok(number) = text.parse() {
            return Some(Self::Int(number));
        }
        // `parse` would take `inf` and `nan` as well.
        let digits = text.bytes().any(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok().map(Self::Float)).flatten()
    }

    // Beyond 2^53 a whole number beside a fraction is compared as the nearest double.
    #[expect(clippy::cast_precision_loss)]
    fn stands(self, order: Order, other: Self) -> bool {
        let ordering = match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(&b)),
            (Self::Int(a), Self::Float(b)) => (a as f64).partial_cmp(&b),
            (Self::Float(a), Self::Int(b)) => a.partial_cmp(&(b as f64)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
        };
        ordering.is_some_and(|ordering| match order {
            Order::Equal => ordering.is_eq(),
            Order::NotEqual => ordering.is_ne(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterEqual => ordering.is_ge(),
            Order::Less => ordering.is_lt(),
            Order::LessEqual => ordering.is_le(),
        })
    }
}

/// One value of the event, laid out: where its text stands in the buffer, as it came and in lower case.
#[derive(Debug)]
struct Slot {
    field: FieldId,
    text: (usize, usize),
    folded: (usize, usize),
    number: Option<i64>,
    address: Option<IpAddr>,
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

impl Layout {
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

    fn values(&self, field: FieldId) -> impl Iterator<Item = &Slot> {
        let head = self.heads.get(field.index()).copied().unwrap_or_default();
        let mut at = (head.generation == self.generation).then_some(head.slot);
        std::iter::from_fn(move || {
            let slot = self.slots.get(at?)?;
            debug_assert!(slot.field == field);
            at = slot.next;
            Some(slot)
        })
    }

    fn text(&self, slot: &Slot, letters: Letters) -> &[u8] {
        let (start, end) = match letters {
            Letters::Folded => slot.folded,
            Letters::Exact => slot.text,
        };
        self.buffer.get(start..end).unwrap_or_default()
    }

    fn any(&self, field: FieldId, letters: Letters, test: impl Fn(&[u8]) -> bool) -> bool {
        self.values(field)
            .any(|slot| test(self.text(slot, letters)))
    }

    fn has(&self, field: FieldId) -> bool {
        self.values(field).next().is_some()
    }

    fn anywhere(
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

impl Expr {
    pub fn all(parts: Vec<Self>) -> Self {
        Self::joined(parts, Self::All)
    }

    pub fn any(parts: Vec<Self>) -> Self {
        Self::joined(parts, Self::Any)
    }

    fn joined(mut parts: Vec<Self>, join: fn(Box<[Self]>) -> Self) -> Self {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return only;
        }
        parts.sort_by_cached_key(Self::cost);
        join(parts.into())
    }

    pub fn holds(&self, event: &Event<'_>, layout: &mut Layout) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(event, layout)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(event, layout)),
            Self::Not(part) => !part.holds(event, layout),
            Self::AtLeast(wanted, parts) => {
                let holding = parts.iter().filter(|part| part.holds(event, layout));
                holding.take(*wanted).count() == *wanted
            }
            Self::Shared(part) => part.holds(event, layout),
            Self::Test(test) => test.holds(event, layout),
        }
    }

    /// Returns a rough price, for ordering only.
    pub fn cost(&self) -> u32 {
        match self {
            Self::All(parts) | Self::Any(parts) | Self::AtLeast(_, parts) => parts
                .iter()
                .fold(0, |sum, part| sum.saturating_add(part.cost())),
            Self::Not(part) => part.cost(),
            Self::Shared(part) => part.cost(),
            Self::Test(test) => test.cost(),
        }
    }

    /// Adds fields without which the condition can't hold. May leave some out, never adds a wrong one.
    pub fn required(&self) -> Vec<FieldId> {
        match self {
            Self::All(parts) => {
                let mut all: Vec<_> = parts.iter().flat_map(Self::required).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
            Self::Any(parts) => {
                let mut each = parts.iter().map(Self::required);
                let Some(mut common) = each.next() else {
                    return Vec::new();
                };
                for required in each {
                    common.retain(|field| required.contains(field));
                }
                common
            }
            Self::Not(_) | Self::AtLeast(..) => Vec::new(),
            Self::Shared(part) => part.required(),
            Self::Test(test) => test.required(),
        }
    }

    /// Adds every field that is asked for.
    pub fn fields(&self, asked: &mut FieldSet) {
        match self {
            Self::All(parts) | Self::Any(parts) | Self::AtLeast(_, parts) => {
                parts.iter().for_each(|part| part.fields(asked));
            }
            Self::Not(part) => part.fields(asked),
            Self::Shared(part) => part.fields(asked),
            Self::Test(test) => test.fields().into_iter().for_each(|id| asked.insert(id)),
        }
    }
}

impl Test {
    fn holds(&self, event: &Event<'_>, layout: &mut Layout) -> bool {
        match self {
            Self::Text {
                field,
                letters,
                patterns,
            } => layout.any(*field, *letters, |text| patterns.hold(text)),
            Self::Regex { field, regex } => {
                layout.any(*field, Letters::Exact, |text| regex.is_match(text))
            }
            Self::Number {
                field,
                order,
                number,
            } => layout.values(*field).any(|slot| {
                let value = match slot.number {
                    Some(value) => Some(Number::Int(value)),
                    None => Number::read(layout.text(slot, Letters::Exact)),
                };
                value.is_some_and(|value| value.stands(*order, *number))
            }),
            Self::Network { field, network } => layout.values(*field).any(|slot| {
                let address = match slot.address {
                    Some(address) => Some(address),
                    None => read_address(layout.text(slot, Letters::Exact)),
                };
                address.is_some_and(|address| network.contains(&address.to_canonical()))
            }),
            Self::Moment {
                field,
                part,
                order,
                number,
            } => layout.values(*field).any(|slot| {
                read_moment(layout.text(slot, Letters::Exact))
                    .is_some_and(|moment| Number::Int(part.of(moment)).stands(*order, *number))
            }),
            Self::Present(field) => layout.has(*field),
            Self::Absent(field) => !layout.has(*field),
            Self::Reference {
                field,
                other,
                letters,
                place,
            } => layout.any(*field, *letters, |text| {
                layout.any(*other, *letters, |part| match place {
                    Within::Whole => text == part,
                    Within::Start => text.starts_with(part),
                    Within::End => text.ends_with(part),
                    Within::Anywhere => memchr::memmem::find(text, part).is_some(),
                })
            }),
            Self::Keyword { letters, patterns } => {
                layout.anywhere(event, *letters, |text| patterns.hold(text))
            }
            Self::KeywordRegex(regex) => {
                layout.anywhere(event, Letters::Exact, |text| regex.is_match(text))
            }
        }
    }

    fn cost(&self) -> u32 {
        match self {
            Self::Present(_) | Self::Absent(_) => 1,
            Self::Text { patterns, .. } => patterns.cost(),
            Self::Number { .. } | Self::Network { .. } => 8,
            Self::Reference { .. } | Self::Moment { .. } => 20,
            Self::Regex { .. } => 100,
            Self::Keyword { .. } => 500,
            Self::KeywordRegex(_) => 1000,
        }
    }

    fn fields(&self) -> Vec<FieldId> {
        match self {
            Self::Text { field, .. }
            | Self::Regex { field, .. }
            | Self::Number { field, .. }
            | Self::Network { field, .. }
            | Self::Moment { field, .. }
            | Self::Present(field)
            | Self::Absent(field) => vec![*field],
            Self::Reference { field, other, .. } => vec![*field, *other],
            Self::Keyword { .. } | Self::KeywordRegex(_) => Vec::new(),
        }
    }

    fn required(&self) -> Vec<FieldId> {
        match self {
            Self::Absent(_) => Vec::new(),
            _ => self.fields(),
        }
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

impl Part {
    fn of(self, moment: DateTime) -> i64 {
        match self {
            Self::Minute => moment.minute().into(),
            Self::Hour => moment.hour().into(),
            Self::Day => moment.day().into(),
            Self::Week => moment.date().iso_week_date().week().into(),
            Self::Month => moment.month().into(),
            Self::Year => moment.year().into(),
        }
    }
}

fn read_address(text: &[u8]) -> Option<IpAddr> {
    if text.len() > ATOM_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Reads a time in UTC: RFC 3339, the same without an offset, or seconds since 1970 (beyond 10^11: milliseconds).
fn read_moment(text: &[u8]) -> Option<DateTime> {
    if text.len() > ATOM_BYTES_MAX {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.trim();
    if let Ok(number) = text.parse::<i64>() {
        let timestamp = if number.unsigned_abs() < 100_000_000_000 {
            Timestamp::from_second(number)
        } else {
            Timestamp::from_millisecond(number)
        };
        return Some(timestamp.ok()?.to_zoned(TimeZone::UTC).datetime());
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(timestamp.to_zoned(TimeZone::UTC).datetime());
    }
    text.parse().ok()
}
