//! The words by which an alert is found, folded so that `mat khau` finds `Mật khẩu`: lower case, NFD, marks off,
//! đ as d. We fold, not the database, so that every database finds the same. Pure.

use std::net::IpAddr;

use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use crate::alert::Alert;

/// What a search looks for: words that the index knows, and how to tell a find from a chance meeting of its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needle {
    /// Folded, each of letters and digits, or an address; the last may be a beginning.
    words: Vec<String>,
    is_beginning: bool,
    folded: String,
}

/// Longer ones are no words; the index holds their beginning, and so does what is looked for.
const WORD_BYTES_MAX: usize = 64;
/// Of one alert; a word costs about a microsecond.
const WORDS_MAX: usize = 1000;
/// Of one search; more narrow it no further.
const NEEDLE_WORDS_MAX: usize = 16;

/// Returns the text in lower case without marks.
pub fn fold(text: &str) -> String {
    text.chars()
        .flat_map(char::to_lowercase)
        .nfd()
        .filter(|c| !is_combining_mark(*c))
        .map(|c| if c == 'đ' { 'd' } else { c })
        .collect()
}

/// Returns everything that the index should know of an alert: words apart by spaces.
pub fn of(alert: &Alert) -> String {
    let mut words = Words::default();
    words.text(&alert.rule.title);
    words.text(&alert.raw);
    for value in alert.fields.values() {
        words.value(value, 0);
    }
    for tag in &alert.rule.tags {
        words.tag(tag);
    }
    words.text
}

/// Returns the text in which a needle is looked for, and the values apart by line ends.
pub fn haystack(alert: &Alert) -> String {
    let mut text = String::with_capacity(alert.raw.len() + 256);
    text.push_str(&alert.rule.title);
    text.push('\n');
    text.push_str(&alert.raw);
    for value in alert.fields.values() {
        texts(value, 0, &mut |value| {
            text.push('\n');
            text.push_str(value);
        });
    }
    fold(&text)
}

impl Needle {
    /// A text: all its words, in this order, as they stand; a last `*` makes the last word a beginning.
    pub fn of(text: &str) -> Self {
        let text_before = text.trim_end_matches('*');
        Self::with(text_before, text_before.len() < text.len())
    }

    /// A value: all its words.
    pub fn whole(text: &str) -> Self {
        Self::with(text, false)
    }

    fn with(text: &str, is_beginning: bool) -> Self {
        let folded = fold(text);
        let mut words = Words::default();
        words.folded(&folded);
        let mut words: Vec<String> = words.text.split(' ').map(str::to_owned).collect();
        words.retain(|word| !word.is_empty());
        words.truncate(NEEDLE_WORDS_MAX);
        let is_beginning = is_beginning && folded.ends_with(char::is_alphanumeric);
        Self {
            words,
            is_beginning,
            folded,
        }
    }

    /// Tells whether it stands in a folded text at a word's beginning and, unless it is a beginning, at a word's end.
    pub fn is_in(&self, haystack: &str) -> bool {
        let starts_word = self.folded.starts_with(char::is_alphanumeric);
        let ends_word = self.folded.ends_with(char::is_alphanumeric) && !self.is_beginning;
        haystack.match_indices(&self.folded).any(|(at, found)| {
            let before = haystack.get(..at).and_then(|text| text.chars().next_back());
            let after = haystack.get(at + found.len()..);
            let after = after.and_then(|text| text.chars().next());
            let is_cut = starts_word && before.is_some_and(char::is_alphanumeric)
                || ends_word && after.is_some_and(char::is_alphanumeric);
            !is_cut
        })
    }

    /// Adds it to an expression of FTS5 in which all must be met.
    pub fn push_expression(&self, expression: &mut String) {
        let last = self.words.len().saturating_sub(1);
        for (index, word) in self.words.iter().enumerate() {
            push_quoted(expression, word);
            if self.is_beginning && index == last {
                expression.push('*');
            }
        }
    }
}

/// Adds the tag to an expression of FTS5.
pub fn push_tag_expression(expression: &mut String, tag: &str) {
    push_quoted(expression, &tag_word(&whole_tag(tag)));
}

/// Tells whether a tag is the one asked for or below it: `attack.t1110` holds `attack.t1110.001`.
pub fn has_tag(alert: &Alert, asked: &str) -> bool {
    let asked = whole_tag(asked);
    alert.rule.tags.iter().any(|tag| {
        let tag = fold(tag);
        tag.strip_prefix(&asked)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// As one word of the index: with signs it would be several.
fn tag_word(tag: &str) -> String {
    let sign = |c: char| if c.is_alphanumeric() { c } else { '.' };
    let mut word: String = std::iter::once('#').chain(tag.chars().map(sign)).collect();
    word.truncate(word.floor_char_boundary(WORD_BYTES_MAX));
    word
}

/// `T1110` stands for `attack.t1110`, as people write it.
fn whole_tag(tag: &str) -> String {
    let tag = fold(tag);
    let number = tag.strip_prefix('t').unwrap_or_default();
    if number.starts_with(|c: char| c.is_ascii_digit()) {
        format!("attack.{tag}")
    } else {
        tag
    }
}

fn push_quoted(expression: &mut String, word: &str) {
    if !expression.is_empty() {
        expression.push(' ');
    }
    expression.push('"');
    // No word of ours has a quote; one that comes another way must not end the string.
    expression.extend(word.chars().filter(|c| *c != '"'));
    expression.push('"');
}

/// Collects words, apart by spaces.
#[derive(Default)]
struct Words {
    text: String,
    count: usize,
}

impl Words {
    fn push(&mut self, word: &str) {
        if self.count < WORDS_MAX {
            if !self.text.is_empty() {
                self.text.push(' ');
            }
            let end = word.floor_char_boundary(WORD_BYTES_MAX);
            self.text.push_str(word.get(..end).unwrap_or_default());
            self.count += 1;
        }
    }

    fn value(&mut self, value: &Value, depth: usize) {
        texts(value, depth, &mut |text| self.text(text));
    }

    fn tag(&mut self, tag: &str) {
        let tag = fold(tag);
        for (at, _) in tag.match_indices('.') {
            self.push(&tag_word(tag.get(..at).unwrap_or_default()));
        }
        self.push(&tag_word(&tag));
    }

    fn text(&mut self, text: &str) {
        if text.is_ascii() {
            self.folded(&text.to_ascii_lowercase());
        } else {
            self.folded(&fold(text));
        }
    }

    /// An address is one word: as four numbers it would be found by intersecting the four longest lists.
    fn folded(&mut self, text: &str) {
        let is_inner = |c: char| c.is_alphanumeric() || matches!(c, '.' | ':');
        for piece in text.split(|c| !is_inner(c)) {
            let piece = piece.trim_matches(['.', ':']);
            if piece.is_empty() {
                continue;
            }
            // 45: the longest IPv6 address as text.
            let may_be_address = piece.len() <= 45 && piece.contains(['.', ':']);
            if may_be_address && piece.parse::<IpAddr>().is_ok() {
                self.push(piece);
                continue;
            }
            for word in piece.split(['.', ':']).filter(|word| !word.is_empty()) {
                self.push(word);
            }
        }
    }
}

/// Nested deeper, a value is left out.
const DEPTH_MAX: usize = 16;

/// Hands on each text, number and truth value.
fn texts(value: &Value, depth: usize, on: &mut dyn FnMut(&str)) {
    match value {
        Value::String(text) => on(text),
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) => on(&value.to_string()),
        Value::Array(values) if depth < DEPTH_MAX => {
            values.iter().for_each(|value| texts(value, depth + 1, on));
        }
        Value::Object(values) if depth < DEPTH_MAX => {
            values
                .values()
                .for_each(|value| texts(value, depth + 1, on));
        }
        Value::Array(_) | Value::Object(_) => {}
    }
}

/// Tells whether a field, or one of its values, is this text.
pub fn has_field(alert: &Alert, name: &str, asked: &str) -> bool {
    let is = |value: &Value| match value {
        Value::String(text) => text == asked,
        Value::Null => false,
        Value::Bool(value) => asked == if *value { "true" } else { "false" },
        other => {
            let text = other.to_string();
            text == asked
        }
    };
    match alert.fields.get(name) {
        None => false,
        Some(Value::Array(values)) => values.iter().any(is),
        Some(value) => is(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vietnamese_is_found_without_its_marks_and_with_them() {
        for (text, folded) in [
            ("Mật khẩu", "mat khau"),
            ("ĐĂNG NHẬP", "dang nhap"),
            ("Mâ\u{323}t", "mat"), // decomposed as some keyboards send it
            ("ữỵÀ", "uya"),
            ("ÅSA İ", "asa i"),
            ("plain-1", "plain-1"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn a_text_becomes_words_and_an_address_one_word() {
        for (text, words) in [
            ("Failed password for root", "failed password for root"),
            ("from 203.0.113.7 port 22", "from 203.0.113.7 port 22"),
            ("[2001:db8::1]:22", "2001:db8::1 22"),
            ("2001:db8::1 up.", "2001:db8::1 up"),
            ("a.b.example.vn:443", "a b example vn 443"),
            ("%$'--", ""),
            ("x\"y", "x y"),
        ] {
            let mut found = Words::default();
            found.text(text);
            assert_eq!(found.text, words, "{text}");
        }
        let mut many = Words::default();
        many.text(&"a ".repeat(5000));
        assert_eq!(many.count, WORDS_MAX);
    }

    #[test]
    fn a_needle_stands_at_the_bounds_of_words() {
        for (needle, haystack, is_in) in [
            ("brute", "ssh brute force", true),
            ("rute", "ssh brute force", false),
            ("brut", "ssh brute force", false),
            ("brut*", "ssh brute force", true),
            ("brute force", "force brute", false),
            ("50% off", "now 50% off", true),
            ("5_% off", "now 50% off", false),
            ("a_b", "xa_b", false),
            ("Khẩu", "mat khau", true),
            ("10.0.0.1", "10.0.0.11", false),
        ] {
            assert_eq!(Needle::of(needle).is_in(haystack), is_in, "{needle}");
        }
    }

    #[test]
    fn no_sign_of_a_needle_reaches_the_expression() {
        for (needle, expression) in [
            ("a OR b", r#""a" "or" "b""#),
            ("\" OR NEAR(x)", r#""or" "near" "x""#),
            ("x* y*", r#""x" "y"*"#),
            ("^{}()", ""),
        ] {
            let mut found = String::new();
            Needle::of(needle).push_expression(&mut found);
            assert_eq!(found, expression, "{needle}");
        }
    }
}
