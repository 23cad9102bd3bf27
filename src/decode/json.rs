//! JSON, one object a record, of any shape: nested keys are joined with points, an array repeats its field, and a key
//! that stands twice is an array too. `_ls: {product, category, service}` names the log source.
//!
//! Streams over the record, so nothing is built that no rule asks for: a name is looked up once, text without escapes
//! is borrowed. A record's size is bounded by its source. Events that name their log source in another way (Windows'
//! `Channel`) get it in `Shape::finish`.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use smallvec::SmallVec;

use crate::decode::{DecodeError, Lines, Surroundings, mark, text, time, windows};
use crate::event::field::{self, FieldId, Fields, Unknown};
use crate::event::logsource::LogSources;
use crate::event::{EVENT_FIELDS_MAX, Event, Value};
use crate::record::Record;

/// Objects and arrays within each other. serde_json's own limit is 128; no log needs half of ours.
pub const DEPTH_MAX: usize = 64;

/// Longer joined names are dropped: no rule asks for one, and to look each up would cost the square of a record's size.
const NAME_BYTES_MAX: usize = 1024;

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

/// Reads one stream of JSON records.
pub struct Json {
    zone: TimeZone,
    /// Kept between records so that names are joined without allocating.
    path: String,
}

impl Json {
    pub fn new(around: &Surroundings) -> Self {
        Self {
            zone: around.zone.clone(),
            path: String::new(),
        }
    }

    fn read<'r>(
        &mut self,
        text: &'r [u8],
        fields: &Fields,
        event: &mut Event<'r>,
    ) -> Result<(), DecodeError> {
        self.path.clear();
        let mut shape = Shape {
            zone: &self.zone,
            fields,
            event,
            path: &mut self.path,
            time: None,
            logsources: LogSources::default(),
            room: EVENT_FIELDS_MAX - MARKS_MAX,
            is_full: false,
            is_too_deep: false,
        };
        let mut input = serde_json::Deserializer::from_slice(text);
        let outcome = Node {
            shape: &mut shape,
            depth: 0,
        }
        .deserialize(&mut input)
        .and_then(|()| input.end());
        if shape.is_too_deep {
            return Err(DecodeError::TooDeep {
                what: "JSON",
                limit: DEPTH_MAX,
            });
        }
        outcome.map_err(|error| DecodeError::Malformed {
            what: "JSON",
            // A record is one line as a rule; of more, serde_json gives the place in the last.
            at: error.column(),
        })?;
        shape.finish();
        Ok(())
    }
}

impl Lines for Json {
    fn attempt(
        &mut self,
        record: &Record,
        fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let line = text(&record.bytes).trim_ascii_start();
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        if line.first() != Some(&b'{') {
            return Err(DecodeError::Foreign {
                what: "a JSON object",
            });
        }
        let mut event = Event::new(&record.bytes);
        mark(record, &mut event);
        let Err(error) = self.read(line, fields, &mut event) else {
            emit(&event);
            return Ok(());
        };
        // JSON is UTF-8 by definition; a record that is not is read with its foreign bytes replaced.
        if std::str::from_utf8(line).is_ok() {
            return Err(error);
        }
        let replaced = String::from_utf8_lossy(line).into_owned();
        let mut event = Event::new(&record.bytes);
        mark(record, &mut event);
        self.read(replaced.as_bytes(), fields, &mut event)?;
        emit(&event);
        Ok(())
    }

    fn logsources<'r>(&self) -> LogSources<'r> {
        LogSources::default()
    }
}

/// What is gathered while a record streams past.
struct Shape<'s, 'r> {
    zone: &'s TimeZone,
    fields: &'s Fields,
    event: &'s mut Event<'r>,
    path: &'s mut String,
    /// The best time so far, and the rank of its key.
    time: Option<(usize, Timestamp)>,
    logsources: LogSources<'r>,
    /// How many more fields the event takes.
    room: usize,
    is_full: bool,
    is_too_deep: bool,
}

/// Places of an event that are kept for `DecodeMarks`: one each, and one to say that fields were dropped.
const MARKS_MAX: usize = 5;

impl<'r> Shape<'_, 'r> {
    fn finish(&mut self) {
        self.event.time = self.time.map(|(_, stamp)| stamp);
        if self.is_full {
            self.event.set(field::DECODE_MARKS, "cut");
        }
        self.event.logsources = std::mem::take(&mut self.logsources);
        if self.event.logsources == LogSources::default() {
            windows::know(self.event, self.fields);
        }
    }

    fn set(&mut self, value: Value<'r>, depth: usize) {
        if depth == 1 {
            self.consider_time(&value);
        }
        if self.path.len() > NAME_BYTES_MAX {
            return;
        }
        let path = std::mem::take(self.path);
        self.set_at(&path, value);
        *self.path = path;
    }

    fn set_at(&mut self, path: &str, value: Value<'r>) {
        let windows = windows::name(path);
        if windows.as_deref() == Some("TimeCreated") {
            self.consider(TIME_CREATED, &value, &TimeZone::UTC);
        }
        // NXLog's name for the provider, and one of Defender's own fields.
        if path == "SourceName" && self.fields.get("Provider_Name").is_some() {
            self.set_at("Provider_Name", value.clone());
        }
        let name = windows.unwrap_or(Cow::Borrowed(path));
        match self.fields.get(path).or_else(|| self.fields.get(&name)) {
            Some(id) => self.keep(id, value),
            None if self.fields.unknown == Unknown::Keep => {
                self.event.set_other(Cow::Owned(name.into_owned()), value);
            }
            None => {}
        }
    }

    fn keep(&mut self, id: FieldId, value: Value<'r>) {
        let Some(room) = self.room.checked_sub(1) else {
            self.is_full = true;
            return;
        };
        self.room = room;
        self.event.set(id, value);
    }

    fn consider_time(&mut self, value: &Value<'_>) {
        let Some(rank) = TIME_KEYS.iter().position(|key| key == self.path) else {
            return;
        };
        // Sysmon's is UTC by name; a time without a zone elsewhere is the machine's.
        let zone = match self.path.as_str() {
            "UtcTime" => &TimeZone::UTC,
            _ => self.zone,
        };
        self.consider(rank, value, zone);
    }

    fn consider(&mut self, rank: usize, value: &Value<'_>, zone: &TimeZone) {
        if self.time.is_some_and(|(best, _)| best <= rank) {
            return;
        }
        let stamp = match value {
            Value::Int(number) => time::epoch(*number),
            Value::Text(text) => time::any(text, zone).or_else(|| fractional_epoch(text)),
            Value::Bool(_) | Value::Ip(_) => None,
        };
        if let Some(stamp) = stamp {
            self.time = Some((rank, stamp));
        }
    }
}

/// `1700000000.123456`, or a whole number in quotes.
fn fractional_epoch(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let Some((seconds, fraction)) = text.split_once('.') else {
        return time::epoch(text.parse().ok()?);
    };
    let is_digits = !fraction.is_empty() && fraction.bytes().all(|b| b.is_ascii_digit());
    let nanoseconds = fraction
        .bytes()
        .filter(|_| is_digits)
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |sum, b| sum * 10 + i32::from(b - b'0'));
    Timestamp::new(seconds.parse().ok()?, nanoseconds).ok()
}

/// A value at `shape.path`.
struct Node<'a, 's, 'r> {
    shape: &'a mut Shape<'s, 'r>,
    /// How many objects and arrays it stands in.
    depth: usize,
}

impl<'r> DeserializeSeed<'r> for Node<'_, '_, 'r> {
    type Value = ();

    fn deserialize<D: Deserializer<'r>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'r> Visitor<'r> for Node<'_, '_, 'r> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(()) // null: the field is absent
    }

    fn visit_bool<E>(self, truth: bool) -> Result<(), E> {
        self.shape.set(Value::Bool(truth), self.depth);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.shape.set(Value::Int(number), self.depth);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        let value =
            i64::try_from(number).map_or_else(|_| Value::from(number.to_string()), Value::Int);
        self.shape.set(value, self.depth);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.shape.set(Value::from(number.to_string()), self.depth);
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'r str) -> Result<(), E> {
        self.shape.set(Value::from(text), self.depth);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.shape.set(Value::from(text.to_owned()), self.depth);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'r>>(mut self, mut items: A) -> Result<(), A::Error> {
        let depth = self.deeper::<A::Error>()?;
        while items
            .next_element_seed(Node {
                shape: self.shape,
                depth,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'r>>(mut self, mut members: A) -> Result<(), A::Error> {
        let depth = self.deeper::<A::Error>()?;
        let length = self.shape.path.len();
        while let Some(member) = members.next_key_seed(Key {
            path: self.shape.path,
        })? {
            match member {
                Member::LogSource if self.depth == 0 => {
                    members.next_value_seed(Declared {
                        into: &mut self.shape.logsources,
                    })?;
                }
                _ => members.next_value_seed(Node {
                    shape: self.shape,
                    depth,
                })?,
            }
            self.shape.path.truncate(length);
        }
        Ok(())
    }
}

impl Node<'_, '_, '_> {
    fn deeper<E: serde::de::Error>(&mut self) -> Result<usize, E> {
        if self.depth == DEPTH_MAX {
            self.shape.is_too_deep = true;
            return Err(E::custom("too deep"));
        }
        Ok(self.depth + 1)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    LogSource,
    Other,
}

/// Appends a key to the path.
struct Key<'a> {
    path: &'a mut String,
}

impl<'r> DeserializeSeed<'r> for Key<'_> {
    type Value = Member;

    fn deserialize<D: Deserializer<'r>>(self, input: D) -> Result<Member, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Member, E> {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(key);
        Ok(match key {
            "_ls" => Member::LogSource,
            _ => Member::Other,
        })
    }
}

/// `{product, category, service}`: words, the last two also as lists.
struct Declared<'a, 'r> {
    into: &'a mut LogSources<'r>,
}

impl<'r> DeserializeSeed<'r> for Declared<'_, 'r> {
    type Value = ();

    fn deserialize<D: Deserializer<'r>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'r> Visitor<'r> for Declared<'_, 'r> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`_ls` as an object")
    }

    fn visit_map<A: MapAccess<'r>>(self, mut members: A) -> Result<(), A::Error> {
        while let Some(key) = members.next_key::<Cow<'r, str>>()? {
            match &*key {
                "product" => self.into.product = members.next_value_seed(Words)?.into_iter().next(),
                "category" => self.into.categories.extend(members.next_value_seed(Words)?),
                "service" => self.into.services.extend(members.next_value_seed(Words)?),
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// The most log sources that one event may name.
const WORDS_MAX: usize = 16;

/// A word, or a list of words, or null.
struct Words;

impl<'r> DeserializeSeed<'r> for Words {
    type Value = SmallVec<[Cow<'r, str>; 2]>;

    fn deserialize<D: Deserializer<'r>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'r> Visitor<'r> for Words {
    type Value = SmallVec<[Cow<'r, str>; 2]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word or a list of words")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(SmallVec::new())
    }

    fn visit_borrowed_str<E>(self, word: &'r str) -> Result<Self::Value, E> {
        Ok(SmallVec::from_iter([Cow::Borrowed(word)]))
    }

    fn visit_str<E>(self, word: &str) -> Result<Self::Value, E> {
        Ok(SmallVec::from_iter([Cow::Owned(word.to_owned())]))
    }

    fn visit_seq<A: SeqAccess<'r>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut words = SmallVec::new();
        while let Some(word) = items.next_element::<Cow<'r, str>>()? {
            if words.len() == WORDS_MAX {
                return Err(A::Error::custom("too many log sources"));
            }
            words.push(word);
        }
        Ok(words)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::decode::Format;
    use crate::decode::tests::one;

    #[test]
    fn any_shape_is_flattened() {
        for (line, expected) in [
            ("{\"a\":{\"b\":{\"c\":1}},\"d\":true}", "a.b.c=1 d=true"),
            (
                "{\"a\":[1,\"x\",[2],{\"b\":null,\"c\":3}]}",
                "a=1 a=x a=2 a.c=3",
            ),
            ("{\"a\":1,\"a\":2}", "a=1 a=2"),
            ("{\"a.b\":1,\"a\":{\"b\":2}}", "a.b=1 a.b=2"),
            (
                "{\"a\":\"\\u0110\\n\",\"b\":1.5,\"c\":18446744073709551615}",
                "a=\u{110}\n b=1.5 c=18446744073709551615",
            ),
            ("  \u{feff}{\"a\":-1}", "a=-1"),
            ("\u{feff}{\"a\":-1}\r", "a=-1"),
            ("{}", ""),
            (
                "{\"Image\":\"/bin/sh\",\"SourceIp\":\"192.0.2.7\"}",
                "Image=/bin/sh SourceIp=192.0.2.7",
            ),
        ] {
            let (seen, _) = one(Format::Json, line);
            assert_eq!(seen.fields, expected, "{line}");
        }
    }

    #[test]
    fn an_event_may_name_its_log_source() {
        for (declared, expected) in [
            (
                "{\"product\":\"windows\",\"category\":\"process_creation\"}",
                "windows/process_creation/",
            ),
            ("{\"category\":[\"a\",\"b\"],\"service\":[\"c\"]}", "/a,b/c"),
            ("{\"product\":null,\"more\":{\"x\":1}}", "//"),
        ] {
            let (seen, outcome) = one(
                Format::Json,
                format!("{{\"_ls\":{declared},\"a\":{{\"_ls\":1}}}}"),
            );
            assert_eq!(
                (outcome, &*seen.sources, &*seen.fields),
                (Ok(()), expected, "a._ls=1"),
                "{declared}"
            );
        }
    }

    #[test]
    fn the_surest_key_gives_the_time() {
        for (line, expected) in [
            (
                "{\"ts\":1,\"time\":\"2026-03-01T10:00:00+07:00\"}",
                "2026-03-01T03:00:00Z",
            ),
            (
                "{\"@timestamp\":\"2026-03-01T10:00:00Z\",\"time\":\"2020-01-01T00:00:00Z\"}",
                "2026-03-01T10:00:00Z",
            ),
            (
                "{\"UtcTime\":\"2026-03-01 10:00:00.123\"}",
                "2026-03-01T10:00:00.123Z",
            ),
            ("{\"ts\":1700000000.5}", "2023-11-14T22:13:20.5Z"),
            ("{\"timestamp\":\"1700000000\"}", "2023-11-14T22:13:20Z"),
            (
                "{\"__REALTIME_TIMESTAMP\":\"1700000000000000\"}",
                "2023-11-14T22:13:20Z",
            ),
        ] {
            let (seen, _) = one(Format::Json, line);
            assert_eq!(seen.time, Some(expected.parse().unwrap()), "{line}");
        }
        for line in [
            "{\"time\":\"soon\"}",
            "{\"a\":{\"time\":1700000000}}",
            "{\"time\":null}",
        ] {
            assert_eq!(one(Format::Json, line).0.time, None, "{line}");
        }
    }

    #[test]
    fn broken_and_hostile_json_is_refused_with_the_reason() {
        let nested = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert_eq!(one(Format::Json, nested(DEPTH_MAX)).1, Ok(()));
        let too_deep = DecodeError::TooDeep {
            what: "JSON",
            limit: DEPTH_MAX,
        };
        assert_eq!(one(Format::Json, nested(DEPTH_MAX + 1)).1, Err(too_deep));
        assert_eq!(one(Format::Auto, nested(100_000)).1, Err(too_deep));
        for (line, at) in [
            ("{\"a\":1", 6),
            ("{\"a\":1} x", 9),
            ("{\"a\":}", 6),
            ("{\"a\":\"\u{1}\"}", 7),
        ] {
            let expected = DecodeError::Malformed { what: "JSON", at };
            assert_eq!(one(Format::Json, line).1, Err(expected), "{line:?}");
        }
        assert_eq!(
            one(Format::Json, "[1]").1,
            Err(DecodeError::Foreign {
                what: "a JSON object"
            })
        );
    }

    #[test]
    fn an_object_of_too_many_fields_is_marked() {
        let line = format!("{{\"Image\":[{}1]}}", "1,".repeat(EVENT_FIELDS_MAX));
        let (seen, outcome) = one(Format::Json, line);
        assert_eq!((outcome, seen.first("DecodeMarks")), (Ok(()), Some("cut")));
        assert!(seen.values.len() <= EVENT_FIELDS_MAX);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced() {
        let (seen, outcome) = one(Format::Json, b"{\"a\":\"x\xff\"}");
        assert_eq!(
            (outcome, &*seen.fields),
            (Ok(()), "DecodeMarks=not-utf8 a=x\u{fffd}")
        );
    }

    /// What the reader above must give, by the slow way: the whole tree, then its leaves.
    fn leaves(path: &str, value: &serde_json::Value, out: &mut Vec<(String, String)>) {
        use serde_json::Value as Tree;
        match value {
            Tree::Null => {}
            Tree::Bool(truth) => out.push((path.into(), truth.to_string())),
            Tree::Number(number) => out.push((path.into(), number.to_string())),
            Tree::String(text) => out.push((path.into(), text.clone())),
            Tree::Array(items) => items.iter().for_each(|item| leaves(path, item, out)),
            Tree::Object(members) => {
                for (key, member) in members {
                    let joined = match path {
                        "" => key.clone(),
                        _ => format!("{path}.{key}"),
                    };
                    leaves(&joined, member, out);
                }
            }
        }
    }

    fn tree() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            "[a-z\"\\\\\u{1}đ]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[a-c\"]{1,3}", inner, 0..5)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn streaming_gives_what_the_whole_tree_gives(members in prop::collection::btree_map("[a-z.]{1,6}", tree(), 0..6)) {
            let whole = serde_json::Value::Object(members.into_iter().collect());
            let mut expected = Vec::new();
            leaves("", &whole, &mut expected);
            let (mut seen, outcome) = one(Format::Json, whole.to_string());
            prop_assert_eq!(outcome, Ok(()));
            seen.values.sort();
            expected.sort();
            prop_assert_eq!(seen.values, expected);
        }
    }
}
