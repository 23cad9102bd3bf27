//! JSON, one object a record, of any shape: nested keys are joined with points, an array repeats its field, and a key
//! that stands twice is an array too. `_ls: {product, category, service}` names the log source.
//!
//! Read in one pass without a tree. What a key stands for is known from the records before, values without escapes are
//! borrowed, and the others are put into one buffer: a record costs no allocation. Its size is bounded by its source.
//! Events that name their log source in another way (Windows' `Channel`) get it from `windows::know`.

mod name;
mod scan;

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use smallvec::SmallVec;

use crate::decode::json::name::{Known, Names};
use crate::decode::json::scan::{Broken, Quoted, Scan, Token, unescape};
use crate::decode::{DecodeError, Lines, Surroundings, mark, text, time, windows};
use crate::event::field::{self, FieldId, Fields, Unknown};
use crate::event::logsource::LogSources;
use crate::event::{EVENT_FIELDS_MAX, Event, Value};
use crate::record::Record;

/// Objects and arrays within each other. serde_json's own limit is 128; no log needs half of ours.
pub const DEPTH_MAX: usize = 64;

/// Longer joined names are dropped: no rule asks for one, and to look each up would cost the square of a record's size.
const NAME_BYTES_MAX: usize = 1024;

/// A buffer that grew beyond this for one record is given back.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The most log sources that one event may name.
const WORDS_MAX: usize = 16;

/// Places of an event that are kept for `DecodeMarks`: one each, and one to say that fields were dropped.
const MARKS_MAX: usize = 5;

/// Reads one stream of JSON records. All but the zone is kept between records so that none allocates.
pub struct Json {
    zone: TimeZone,
    names: Names,
    path: Vec<u8>,
    kept: Vec<Kept>,
    others: Vec<(String, Place)>,
    /// Texts without their escapes.
    buffer: Vec<u8>,
}

/// A value of a field that some rule asks for.
struct Kept {
    field: FieldId,
    place: Place,
}

/// Where a value stands.
#[derive(Clone)]
enum Place {
    Record(Range<usize>),
    Buffer(Range<usize>),
    Int(i64),
    Bool(bool),
}

impl Json {
    pub fn new(around: &Surroundings) -> Self {
        Self {
            zone: around.zone.clone(),
            names: Names::default(),
            path: Vec::new(),
            kept: Vec::new(),
            others: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Reads the record's values into their places; returns what it says of itself.
    fn read<'r>(&mut self, text: &'r [u8], fields: &Fields) -> Result<Head<'r>, DecodeError> {
        self.path.clear();
        self.kept.clear();
        self.others.clear();
        self.buffer.clear();
        if self.buffer.capacity() > BUFFER_BYTES_MAX {
            self.buffer = Vec::new();
        }
        self.names.begin(fields);
        let mut shape = Shape {
            scan: Scan::new(text),
            fields,
            into: self,
            head: Head::default(),
        };
        match shape.record() {
            Ok(()) => Ok(shape.head),
            Err(Fault::TooDeep) => Err(DecodeError::TooDeep {
                what: "JSON",
                limit: DEPTH_MAX,
            }),
            Err(Fault::Broken(Broken { at })) => Err(DecodeError::Malformed { what: "JSON", at }),
        }
    }

    fn value<'v>(&'v self, line: &'v [u8], place: &Place) -> Value<'v> {
        match place {
            Place::Record(range) => Value::from(line.get(range.clone()).unwrap_or_default()),
            Place::Buffer(range) => Value::from(self.buffer.get(range.clone()).unwrap_or_default()),
            Place::Int(number) => Value::Int(*number),
            Place::Bool(truth) => Value::Bool(*truth),
        }
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
        let head = self.read(line, fields)?;
        let mut event = Event::new(&record.bytes);
        mark(record, &mut event);
        for Kept { field, place } in &self.kept {
            event.set(*field, self.value(line, place));
        }
        for (name, place) in &self.others {
            event.set_other(Cow::Borrowed(name), self.value(line, place));
        }
        if head.is_full {
            event.set(field::DECODE_MARKS, "cut");
        }
        event.time = head.time.map(|(_, stamp)| stamp);
        event.logsources = head.logsources;
        if event.logsources == LogSources::default() {
            windows::know(&mut event, fields);
        }
        emit(&event);
        Ok(())
    }

    fn logsources<'r>(&self) -> LogSources<'r> {
        LogSources::default()
    }
}

/// What a record says of itself.
#[derive(Default)]
struct Head<'r> {
    /// The best time so far, and the rank of its key.
    time: Option<(usize, Timestamp)>,
    logsources: LogSources<'r>,
    /// It has more fields than an event takes.
    is_full: bool,
}

enum Fault {
    Broken(Broken),
    TooDeep,
}

impl From<Broken> for Fault {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

/// One record while it is read.
struct Shape<'s, 'r> {
    scan: Scan<'r>,
    fields: &'s Fields,
    into: &'s mut Json,
    head: Head<'r>,
}

impl<'r> Shape<'_, 'r> {
    fn record(&mut self) -> Result<(), Fault> {
        self.scan.expect(b'{')?;
        self.object(1)?;
        Ok(self.scan.end()?)
    }

    /// Reads an object from behind its brace. `depth` counts it.
    fn object(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        if self.scan.step(b'}') {
            return Ok(());
        }
        let length = self.into.path.len();
        loop {
            let key = self.scan.quoted()?;
            self.scan.expect(b':')?;
            let name = self.scan.bytes(key);
            if depth == 1 && name == b"_ls" {
                self.declared()?;
            } else {
                if length > 0 {
                    self.into.path.push(b'.');
                }
                match key.is_escaped {
                    true => unescape(name, &mut self.into.path),
                    false => self.into.path.extend_from_slice(name),
                }
                self.value(depth)?;
                self.into.path.truncate(length);
            }
            if !self.scan.step(b',') {
                return Ok(self.scan.expect(b'}')?);
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        if self.scan.step(b']') {
            return Ok(());
        }
        loop {
            self.value(depth)?;
            if !self.scan.step(b',') {
                return Ok(self.scan.expect(b']')?);
            }
        }
    }

    /// Reads the value at the path; it stands within `depth` objects and arrays.
    fn value(&mut self, depth: usize) -> Result<(), Fault> {
        let token = self.scan.token()?;
        match token {
            Token::Object => return self.object(depth + 1),
            Token::Array => return self.array(depth + 1),
            Token::Null => return Ok(()), // the field is absent
            _ => {}
        }
        if self.into.path.len() > NAME_BYTES_MAX {
            return Ok(());
        }
        let known = self.into.names.find(&self.into.path, self.fields);
        let is_kept = self.fields.unknown == Unknown::Keep;
        let is_time = known.rank.is_some() && (depth == 1 || known.is_windows);
        if known.field.is_none() && known.also.is_none() && !is_time && !is_kept {
            return Ok(());
        }
        let Some(place) = self.place(token) else {
            return Ok(());
        };
        if is_time {
            self.consider(known, &place);
        }
        if let Some(also) = known.also {
            self.keep(also, place.clone());
        }
        match known.field {
            Some(field) => self.keep(field, place),
            None if is_kept => {
                let name = name::shown(&self.into.path);
                self.into.others.push((name, place));
            }
            None => {}
        }
        Ok(())
    }

    fn place(&mut self, token: Token) -> Option<Place> {
        match token {
            Token::Text(quoted) if !quoted.is_escaped => {
                Some(Place::Record(quoted.start..quoted.end))
            }
            Token::Text(quoted) => {
                let bytes = self.scan.bytes(quoted);
                Some(self.written(|buffer| unescape(bytes, buffer)))
            }
            Token::Unsigned(number) => Some(self.written(|buffer| shown(number, buffer))),
            Token::Float(number) => Some(self.written(|buffer| shown(number, buffer))),
            Token::Int(number) => Some(Place::Int(number)),
            Token::Bool(truth) => Some(Place::Bool(truth)),
            Token::Object | Token::Array | Token::Null => None,
        }
    }

    fn written(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Place {
        let start = self.into.buffer.len();
        write(&mut self.into.buffer);
        Place::Buffer(start..self.into.buffer.len())
    }

    fn keep(&mut self, field: FieldId, place: Place) {
        if self.into.kept.len() < EVENT_FIELDS_MAX - MARKS_MAX {
            self.into.kept.push(Kept { field, place });
        } else {
            self.head.is_full = true;
        }
    }

    fn consider(&mut self, known: Known, place: &Place) {
        let Some(rank) = known.rank else { return };
        if self.head.time.is_some_and(|(best, _)| best <= rank) {
            return;
        }
        let zone = match known.is_utc {
            true => &TimeZone::UTC,
            false => &self.into.zone,
        };
        let stamp = match self.into.value(self.scan.text(), place) {
            Value::Int(number) => time::epoch(number),
            Value::Text(text) => time::any(&text, zone).or_else(|| fractional_epoch(&text)),
            Value::Bool(_) | Value::Ip(_) => None,
        };
        if let Some(stamp) = stamp {
            self.head.time = Some((rank, stamp));
        }
    }

    /// Reads `{product, category, service}`: words, the last two also as lists.
    fn declared(&mut self) -> Result<(), Fault> {
        self.scan.expect(b'{')?;
        if self.scan.step(b'}') {
            return Ok(());
        }
        loop {
            let key = self.scan.quoted()?;
            self.scan.expect(b':')?;
            match self.scan.bytes(key) {
                b"product" => self.head.logsources.product = self.words()?.into_iter().next(),
                b"category" => {
                    let words = self.words()?;
                    self.head.logsources.categories.extend(words);
                }
                b"service" => {
                    let words = self.words()?;
                    self.head.logsources.services.extend(words);
                }
                _ => self.skip(2)?,
            }
            if !self.scan.step(b',') {
                return Ok(self.scan.expect(b'}')?);
            }
        }
    }

    /// Reads a word, or a list of words, or null.
    fn words(&mut self) -> Result<SmallVec<[Cow<'r, str>; 2]>, Fault> {
        let mut words = SmallVec::new();
        match self.scan.token()? {
            Token::Null => {}
            Token::Text(quoted) => words.push(self.word(quoted)),
            Token::Array => {
                if self.scan.step(b']') {
                    return Ok(words);
                }
                loop {
                    let quoted = self.scan.quoted()?;
                    if words.len() == WORDS_MAX {
                        return Err(Fault::Broken(self.scan.broken()));
                    }
                    words.push(self.word(quoted));
                    if !self.scan.step(b',') {
                        self.scan.expect(b']')?;
                        break;
                    }
                }
            }
            _ => return Err(Fault::Broken(self.scan.broken())),
        }
        Ok(words)
    }

    fn word(&self, quoted: Quoted) -> Cow<'r, str> {
        let bytes = self.scan.bytes(quoted);
        if !quoted.is_escaped {
            return String::from_utf8_lossy(bytes);
        }
        let mut word = Vec::new();
        unescape(bytes, &mut word);
        Cow::Owned(String::from_utf8_lossy(&word).into_owned())
    }

    /// Steps over a value.
    fn skip(&mut self, depth: usize) -> Result<(), Fault> {
        if depth > DEPTH_MAX {
            return Err(Fault::TooDeep);
        }
        let (end, is_object) = match self.scan.token()? {
            Token::Object => (b'}', true),
            Token::Array => (b']', false),
            _ => return Ok(()),
        };
        if self.scan.step(end) {
            return Ok(());
        }
        loop {
            if is_object {
                self.scan.quoted()?;
                self.scan.expect(b':')?;
            }
            self.skip(depth + 1)?;
            if !self.scan.step(b',') {
                return Ok(self.scan.expect(end)?);
            }
        }
    }
}

fn shown(number: impl std::fmt::Display, buffer: &mut Vec<u8>) {
    // Writing to a Vec does not fail.
    let _ = write!(buffer, "{number}");
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
