//! How large a YAML text becomes when its aliases are followed; a few lines can stand for gigabytes.

use std::fmt;

use serde::de::DeserializeSeed;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

/// What aliases may make of a text: this many times its length, plus [`EXPANDED_BYTES_FREE`].
const EXPANDED_FACTOR_MAX: usize = 4;
const EXPANDED_BYTES_FREE: usize = 64 << 10;

/// Returns an error if a document is out of proportion to its text.
pub fn check(text: &str) -> Result<(), serde_yaml::Error> {
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
