//! What a YAML text would cost before it is read: how deep it nests, for the parsers take time by the square of
//! that or recurse, and how large it becomes when its aliases are followed; a few lines can stand for gigabytes.

use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::diagnostic::Place;

/// What aliases may make of a text: this many times its length, plus [`EXPANDED_BYTES_FREE`].
const EXPANDED_FACTOR_MAX: usize = 4;
const EXPANDED_BYTES_FREE: usize = 64 << 10;

/// The deepest nesting on one line or of brackets; the deepest public rule has 6 levels.
pub const NESTING_MAX: usize = 64;

/// Returns the place where brackets, or `- - -` within a line, nest too deep. Follows quotes and comments well
/// enough for that, and is no YAML parser: in doubt it counts more.
pub fn check_nesting(text: &str) -> Result<(), Place> {
    let mut open = 0_usize;
    for (number, line) in text.lines().enumerate() {
        let mut entries = 0;
        // Ends with its line here, so that a stray one hides nothing.
        let mut quote = None;
        // Whether a value may begin here: else a quote or bracket is part of a plain text.
        let mut begins = true;
        let mut before = ' ';
        let mut chars = line.chars().enumerate().peekable();
        while let Some((column, c)) = chars.next() {
            let spaced = chars.peek().is_none_or(|(_, next)| next.is_whitespace());
            match (quote, c) {
                (Some('"'), '\\') => {
                    chars.next();
                }
                (Some(end), _) if c == end => quote = None,
                (Some(_), _) => {}
                (None, '#') if before.is_whitespace() => break,
                (None, '\'' | '"') if begins => quote = Some(c),
                (None, '[' | '{') if begins || open > 0 => open += 1,
                (None, ']' | '}') => open = open.saturating_sub(1),
                (None, '-' | '?') if begins && spaced => entries += 1,
                _ => {}
            }
            if open + entries > NESTING_MAX {
                return Err(Place {
                    line: number + 1,
                    column: column + 1,
                });
            }
            begins = match c {
                ' ' | '\t' => begins,
                '-' | '?' => begins && spaced,
                ':' => spaced || open > 0,
                '[' | '{' | ',' => begins || open > 0,
                _ => false,
            };
            before = c;
        }
    }
    Ok(())
}

/// Returns an error if a document is out of proportion to its text.
pub fn check_aliases(text: &str) -> Result<(), serde_yaml::Error> {
    // Only a text with an anchor can be made larger than it is.
    if !text.contains('&') {
        return Ok(());
    }
    for document in serde_yaml::Deserializer::from_str(text) {
        let mut left = text
            .len()
            .saturating_mul(EXPANDED_FACTOR_MAX)
            .saturating_add(EXPANDED_BYTES_FREE);
        Weigh { left: &mut left }.deserialize(document)?;
    }
    Ok(())
}

/// Walks a document, aliases followed, and ends with an error when it gets too large.
struct Weigh<'b> {
    left: &'b mut usize,
}

impl Weigh<'_> {
    fn take<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        match self.left.checked_sub(bytes.saturating_add(1)) {
            Some(left) => {
                *self.left = left;
                Ok(())
            }
            None => Err(E::custom(format_args!(
                "aliases make the document more than {EXPANDED_FACTOR_MAX} times as large as its text"
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E: serde::de::Error>(mut self, _: bool) -> Result<(), E> {
        self.take(1)
    }

    fn visit_i64<E: serde::de::Error>(mut self, _: i64) -> Result<(), E> {
        self.take(8)
    }

    fn visit_u64<E: serde::de::Error>(mut self, _: u64) -> Result<(), E> {
        self.take(8)
    }

    fn visit_i128<E: serde::de::Error>(mut self, _: i128) -> Result<(), E> {
        self.take(16)
    }

    fn visit_u128<E: serde::de::Error>(mut self, _: u128) -> Result<(), E> {
        self.take(16)
    }

    fn visit_f64<E: serde::de::Error>(mut self, _: f64) -> Result<(), E> {
        self.take(8)
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<(), E> {
        self.take(text.len())
    }

    fn visit_unit<E: serde::de::Error>(mut self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_none<E: serde::de::Error>(mut self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_newtype_struct<D: serde::Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.take(1)?;
        while entries
            .next_element_seed(Weigh { left: self.left })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.take(1)?;
        while entries.next_key_seed(Weigh { left: self.left })?.is_some() {
            entries.next_value_seed(Weigh { left: self.left })?;
        }
        Ok(())
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("a YAML tag, which no rule needs"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nests_is_counted_as_nesting() {
        let deep = NESTING_MAX + 1;
        for (text, is_deep) in [
            ("a: [b, {c: [d]}]\n".repeat(200), false),
            (
                "a: '[[['\nb: \"{{\\\"[\"\nc: x[[[\n# [[[\n".repeat(200),
                false,
            ),
            ("- re: '\\[a\n  x[[ it''s ['\n".repeat(200), false),
            ("- - a\n".repeat(200), false),
            (format!("a: |\n  '\nb: {}", "[".repeat(deep)), true),
            ("a: ".to_owned() + &"[".repeat(deep), true),
            ("{a: ".repeat(deep), true),
            ("[a,\n".repeat(deep), true),
            ("- ".repeat(deep), true),
            ("? ".repeat(deep), true),
        ] {
            assert_eq!(check_nesting(&text).is_err(), is_deep, "{text}");
        }
    }
}
