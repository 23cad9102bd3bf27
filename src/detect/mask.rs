//! Personal identifiers become keyed tokens before anything of a detection reaches the disk.
//! A first few recognisers: citizen identity numbers, mobile numbers, e-mail addresses. What is not
//! recognised stays as it is; names of persons are not looked for.

use std::borrow::Cow;
use std::net::IpAddr;

use regex::{Captures, Regex};
use ring::hmac;
use serde_json::{Map, Value as Json};

use crate::alert::VALUE_BYTES_MAX;
use crate::event::Value;

/// All fields of an alert together; the rest of the 64 KiB is for `raw`, `causes` and the frame.
const FIELDS_BYTES_MAX: usize = 40 * 1024;

/// Text in which personal identifiers were replaced. Only a `Masker` makes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MaskedText(String);

impl MaskedText {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// Fields in which personal identifiers were replaced. Only a `Masker` makes them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MaskedFields(Map<String, Json>);

impl MaskedFields {
    pub fn as_map(&self) -> &Map<String, Json> {
        &self.0
    }

    pub fn into_map(self) -> Map<String, Json> {
        self.0
    }

    /// Adds a value that holds nothing from a log, such as a count.
    pub fn note(&mut self, name: &str, value: impl Into<Json>) {
        self.0.insert(name.to_owned(), value.into());
    }
}

/// Replaces personal identifiers by tokens: equal identifiers give equal tokens under one key.
#[derive(Clone)]
pub struct Masker {
    key: hmac::Key,
    pattern: Regex,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Masker(..)")
    }
}

/// What is looked for in one pass; a digit run is taken whole, so that its borders are sure.
/// `@` and what stands before a number may be written as in URLs (`%40`, `%20`) and JSON (`\n`, `\u0020`).
const PATTERN: &str = r"(?x)
    (?<mail>[A-Za-z0-9._%+-]{1,64}(?:@|%40|\\u0040)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8})
    |(?<escape>%[0-9A-Fa-f]{2}|\\(?:u[0-9A-Fa-f]{4}|[bfnrt]))
    |(?<digits>\+?[0-9]+)";

impl Masker {
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            pattern: Regex::new(PATTERN).expect("the pattern is a constant, checked by the tests"),
        }
    }

    /// Returns at most `bytes_max` bytes of `text`, masked, and whether it was cut.
    /// What is not UTF-8 is replaced; an identifier that the cut would split is left out.
    pub fn text(&self, text: &[u8], bytes_max: usize) -> (MaskedText, bool) {
        let (window, cut) = match text.get(..bytes_max) {
            Some(window) if text.len() > bytes_max => (whole_words(window), true),
            _ => (text, false),
        };
        let clear = String::from_utf8_lossy(window);
        let mut masked = self.masked(&clear).into_owned();
        // A token may be longer than what it stands for.
        if masked.len() > bytes_max {
            masked.truncate(masked.floor_char_boundary(bytes_max));
            return (MaskedText(masked), true);
        }
        (MaskedText(masked), cut)
    }

    /// Returns the fields as JSON, masked, and the names of those that were cut or left out.
    pub fn fields<'v, 'r: 'v>(
        &self,
        fields: impl Iterator<Item = (&'v str, &'v Value<'r>)>,
    ) -> (MaskedFields, Vec<String>) {
        let mut map = Map::new();
        let mut cut = Vec::new();
        let mut bytes = 0;
        for (name, value) in fields {
            let json = match value {
                Value::Int(number) => {
                    let text = number.to_string();
                    match self.masked(&text) {
                        Cow::Owned(masked) if masked != text => Json::from(masked),
                        _ => Json::from(*number),
                    }
                }
                Value::Bool(truth) => Json::from(*truth),
                Value::Ip(address) => Json::from(address.to_string()),
                Value::Text(text) if is_address(text) => {
                    Json::from(String::from_utf8_lossy(text).into_owned())
                }
                Value::Text(text) => {
                    let (masked, was_cut) = self.text(text, VALUE_BYTES_MAX);
                    if was_cut {
                        cut.push(name.to_owned());
                    }
                    Json::from(masked.0)
                }
            };
            // Quotes and escapes can double a text; two bytes a byte is the bound that is budgeted.
            let size = name.len() + json.as_str().map_or(20, str::len) + 6;
            if bytes + size > FIELDS_BYTES_MAX {
                cut.push(name.to_owned());
                continue;
            }
            bytes += size;
            add(&mut map, name, json);
        }
        cut.dedup();
        cut.truncate(64);
        (MaskedFields(map), cut)
    }

    fn masked<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut border = 0; // where the last escape ended
        self.pattern.replace_all(text, |found: &Captures<'_>| {
            let whole = found.get(0).expect("group 0 is the match");
            let text_of = whole.as_str();
            if found.name("mail").is_some() {
                let plain = text_of.replace("%40", "@").replace(r"\u0040", "@");
                return self.token("mail", &plain.to_lowercase());
            }
            if found.name("escape").is_some() {
                border = whole.end();
                return text_of.to_owned();
            }
            if whole.start() != border && !begins_alone(text, whole.start())
                || !ends_alone(text, whole.end())
            {
                return text_of.to_owned();
            }
            let digits = text_of.strip_prefix('+').unwrap_or(text_of);
            if text_of.len() == digits.len() && is_citizen_number(digits) {
                return self.token("cccd", digits);
            }
            match mobile(digits) {
                Some(national) => self.token("phone", national),
                None => text_of.to_owned(),
            }
        })
    }

    fn token(&self, kind: &str, clear: &str) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(clear.as_bytes());
        let tag = context.sign();
        let hex: String = tag
            .as_ref()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("[{kind}:{hex}]")
    }
}

/// A second value makes an array.
fn add(map: &mut Map<String, Json>, name: &str, value: Json) {
    match map.get_mut(name) {
        None => {
            map.insert(name.to_owned(), value);
        }
        Some(Json::Array(values)) => values.push(value),
        Some(first) => {
            let first_value = first.take();
            *first = Json::Array(vec![first_value, value]);
        }
    }
}

/// Ends the window before a word that the cut may have split.
fn whole_words(window: &[u8]) -> &[u8] {
    let keep = window
        .iter()
        .rposition(|b| !(b.is_ascii_alphanumeric() || b"@.+-_%".contains(b)))
        .map_or(0, |at| at + 1);
    // A window that is one word throughout is shown up to its last 80 bytes: longer than any identifier.
    let keep = keep.max(window.len().saturating_sub(80));
    window.get(..keep).unwrap_or(window)
}

fn is_address(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<IpAddr>().is_ok())
}

/// A digit run inside a word is no identifier.
fn begins_alone(text: &str, start: usize) -> bool {
    let before = text.as_bytes().get(..start).and_then(<[u8]>::last);
    !before.is_some_and(joins)
}

fn ends_alone(text: &str, end: usize) -> bool {
    !text.as_bytes().get(end).is_some_and(joins)
}

fn joins(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || *byte == b'_'
}

/// Twelve digits: a province 001–096, a digit for century and sex, two of the birth year, six random.
/// The century digit goes up to 3 (born before 2100); in the 21st century the year is at most 26 now.
fn is_citizen_number(digits: &str) -> bool {
    let part =
        |range: std::ops::Range<usize>| digits.get(range).and_then(|d| d.parse::<u16>().ok());
    if digits.len() != 12 {
        return false;
    }
    let (Some(province), Some(century), Some(year)) = (part(0..3), part(3..4), part(4..6)) else {
        return false;
    };
    (1..=96).contains(&province) && (century <= 1 || (century <= 3 && year <= 40))
}

/// Returns the national part of a Vietnamese mobile number (nine digits), whatever its prefix.
fn mobile(digits: &str) -> Option<&str> {
    let national = match digits.len() {
        10 => digits.strip_prefix('0')?,
        11 => digits.strip_prefix("84")?,
        _ => return None,
    };
    let (first, second) = (national.as_bytes().first()?, national.as_bytes().get(1)?);
    let known = match first {
        b'3' => (b'2'..=b'9').contains(second),
        b'5' => b"25689".contains(second),
        b'7' => b"06789".contains(second),
        b'8' => (b'1'..=b'9').contains(second),
        b'9' => *second != b'5',
        _ => false,
    };
    known.then_some(national)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        Masker::new(&[1; 32]).text(text.as_bytes(), 8192).0.0
    }

    #[test]
    fn personal_identifiers_become_tokens_and_nothing_else_does() {
        for (text, hidden) in [
            ("cccd=087084000999&x", Some("087084000999")),
            ("call 0912345678 now", Some("0912345678")),
            ("call +84912345678 now", Some("912345678")),
            ("from an.nguyen@soyte.gov.vn ok", Some("an.nguyen")),
            ("order 999084000999", None),
            ("id a087084000999", None),
            ("1700000000000", None),
            ("time 1763805600", None),
            ("203.0.113.7 port 50022", None),
            ("x-id 0123456789abcdef", None),
        ] {
            let shown = masked(text);
            match hidden {
                Some(hidden) => assert!(!shown.contains(hidden) && shown.contains('['), "{shown}"),
                None => assert_eq!(shown, text),
            }
        }
    }

    #[test]
    fn identifiers_are_found_behind_the_escapes_of_urls_and_json() {
        for (text, hidden) in [
            ("/s?email=an.nguyen%40soyte.gov.vn&x=1", "nguyen"),
            ("/s?phone=%2B84912345678", "912345678"),
            ("/s?q=sdt%3D0912345678", "0912345678"),
            ("/s?q=so%20087084000999", "087084000999"),
            (r#"{"m":"call\n0912345678"}"#, "0912345678"),
            (r#"{"m":"an.nguyen\u0040soyte.gov.vn"}"#, "nguyen"),
            (r"EXAMPLE\0912345678", "0912345678"),
            (r#"{"m":"cccd\t087084000999"}"#, "087084000999"),
        ] {
            let shown = masked(text);
            assert!(!shown.contains(hidden) && shown.contains('['), "{shown}");
        }
        assert_eq!(masked("/s?q=a%2f2Fb%20c"), "/s?q=a%2f2Fb%20c");
    }

    #[test]
    fn a_number_of_json_is_masked_like_its_text() {
        let masker = Masker::new(&[1; 32]);
        let values = [
            ("phone", Value::Int(84_912_345_678)),
            ("port", Value::Int(50_022)),
            ("time", Value::Int(1_763_805_600)),
        ];
        let (fields, _) = masker.fields(values.iter().map(|(n, v)| (*n, v)));
        assert_eq!(fields.0["phone"], masked("84912345678"));
        assert_eq!(fields.0["port"], 50_022);
        assert_eq!(fields.0["time"], 1_763_805_600);
    }

    #[test]
    fn one_person_has_one_token_under_one_key() {
        assert_eq!(masked("0912345678"), masked("84912345678"));
        assert_ne!(masked("0912345678"), masked("0912345679"));
        let other = Masker::new(&[2; 32]).text(b"0912345678", 99).0.0;
        assert_ne!(masked("0912345678"), other);
    }

    #[test]
    fn a_cut_never_shows_half_an_identifier() {
        let masker = Masker::new(&[1; 32]);
        let text = b"a 087084000999";
        for bytes_max in 0..text.len() {
            let (shown, cut) = masker.text(text, bytes_max);
            assert!(cut, "{bytes_max}");
            assert!(!shown.0.contains("0870"), "{bytes_max}: {}", shown.0);
        }
    }

    #[test]
    fn values_and_fields_are_bounded_and_say_so() {
        let masker = Masker::new(&[1; 32]);
        let long = Value::from(vec![b' '; VALUE_BYTES_MAX + 1]);
        let values: Vec<_> = (0..100).map(|n| (format!("f{n}"), long.clone())).collect();
        let (fields, cut) = masker.fields(values.iter().map(|(n, v)| (n.as_str(), v)));
        assert!(serde_json::to_string(&fields.0).unwrap().len() < FIELDS_BYTES_MAX + 1024);
        assert!(cut.contains(&"f0".to_owned()) && cut.len() <= 64);
    }
}
