//! Asks a compiled condition of one event. The event is laid out once in a scratch that is passed in,
//! so that the common path allocates nothing. Knows nothing of YAML.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::bytes::Regex;

use crate::detect::rule::layout::Layout;
use crate::detect::rule::layout::Letters;
use crate::detect::rule::pattern::Patterns;
use crate::event::Event;
use crate::event::field::FieldId;
use crate::event::field::FieldSet;

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
