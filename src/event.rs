//! A borrowed view of one record under Sigma's field names. It never leaves its worker's stack.

pub mod field;
pub mod logsource;

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use jiff::Timestamp;
use smallvec::SmallVec;

use crate::event::field::{FieldId, FieldSet, Fields};
use crate::event::logsource::LogSources;

/// Fields beyond this number of one event are dropped, and the event is marked `cut`.
pub const EVENT_FIELDS_MAX: usize = 1024;

/// A field's value. Text is bytes: paths, arguments and log lines are UTF-8 by habit only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value<'r> {
    Text(Cow<'r, [u8]>),
    Int(i64),
    Bool(bool),
    Ip(IpAddr),
}

impl Value<'_> {
    /// Returns the value as text, as Sigma compares it.
    pub fn text(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Int(number) => Cow::Owned(number.to_string().into_bytes()),
            Self::Bool(true) => Cow::Borrowed(b"true"),
            Self::Bool(false) => Cow::Borrowed(b"false"),
            Self::Ip(address) => Cow::Owned(address.to_string().into_bytes()),
        }
    }

    /// Returns the value for people and JSON: what is not UTF-8 is replaced.
    pub fn lossy(&self) -> String {
        String::from_utf8_lossy(&self.text()).into_owned()
    }
}

impl<'r> From<&'r [u8]> for Value<'r> {
    fn from(text: &'r [u8]) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'r> From<&'r str> for Value<'r> {
    fn from(text: &'r str) -> Self {
        Self::Text(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<Vec<u8>> for Value<'_> {
    fn from(text: Vec<u8>) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text.into_bytes()))
    }
}

impl<'r> From<Cow<'r, [u8]>> for Value<'r> {
    fn from(text: Cow<'r, [u8]>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<IpAddr> for Value<'_> {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address)
    }
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

/// One event. A field that stands several times is an array.
#[derive(Debug, Clone)]
pub struct Event<'r> {
    /// By the log's own clock, if the record has one.
    pub time: Option<Timestamp>,
    pub logsources: LogSources<'r>,
    /// The record as captured: what keyword rules search.
    pub raw: &'r [u8],
    /// How many equal events this one stands for (`message repeated N times`); at least 1.
    pub repeat: u32,
    present: FieldSet,
    fields: SmallVec<[(FieldId, Value<'r>); 32]>,
    /// Fields that no rule asks for; kept only where `Fields::unknown` says so.
    others: Vec<(Cow<'r, str>, Value<'r>)>,
    full: bool,
}

impl<'r> Event<'r> {
    pub fn new(raw: &'r [u8]) -> Self {
        Self {
            time: None,
            logsources: LogSources::default(),
            raw,
            repeat: 1,
            present: FieldSet::default(),
            fields: SmallVec::new(),
            others: Vec::new(),
            full: false,
        }
    }

    /// Adds a value; a second one of the same field makes it an array.
    pub fn set(&mut self, id: FieldId, value: impl Into<Value<'r>>) {
        if self.fields.len() >= EVENT_FIELDS_MAX {
            self.full = true;
            return;
        }
        self.present.insert(id);
        self.fields.push((id, value.into()));
    }

    /// Adds a field that no rule asks for.
    pub fn set_other(&mut self, name: Cow<'r, str>, value: impl Into<Value<'r>>) {
        if self.others.len() < EVENT_FIELDS_MAX {
            self.others.push((name, value.into()));
        }
    }

    pub fn has(&self, id: FieldId) -> bool {
        self.present.contains(id)
    }

    /// Returns the first value of a field.
    pub fn get(&self, id: FieldId) -> Option<&Value<'r>> {
        self.all(id).next()
    }

    /// Returns every value of a field.
    pub fn all(&self, id: FieldId) -> impl Iterator<Item = &Value<'r>> {
        let present = self.present.contains(id);
        self.fields
            .iter()
            .filter(move |(field, _)| present && *field == id)
            .map(|(_, value)| value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (FieldId, &Value<'r>)> {
        self.fields.iter().map(|(id, value)| (*id, value))
    }

    pub fn others(&self) -> impl Iterator<Item = (&str, &Value<'r>)> {
        self.others.iter().map(|(name, value)| (&**name, value))
    }

    /// Whether fields were dropped because there were too many.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// Returns a line for people who debug: never parsed again.
    pub fn describe(&self, fields: &Fields) -> String {
        let mut line = String::new();
        for (id, value) in self.iter() {
            let _ = write!(line, "{}={:?} ", fields.name(id), value.lossy());
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::field;

    #[test]
    fn a_field_set_twice_is_an_array() {
        let mut event = Event::new(b"raw");
        event.set(field::C_URI, "/a%20b");
        event.set(field::C_URI, "/a b");
        let all: Vec<_> = event.all(field::C_URI).map(Value::lossy).collect();
        assert_eq!(all, ["/a%20b", "/a b"]);
        assert!(event.get(field::CS_HOST).is_none());
    }

    #[test]
    fn an_event_of_too_many_fields_is_bounded_and_says_so() {
        let mut event = Event::new(b"");
        for n in 0..EVENT_FIELDS_MAX as i64 + 10 {
            event.set(field::MESSAGE, n);
        }
        assert_eq!(event.iter().count(), EVENT_FIELDS_MAX);
        assert!(event.is_full());
    }
}
