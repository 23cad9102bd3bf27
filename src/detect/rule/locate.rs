//! Finds the place of a fault in a rule's text. A file is walked once more, with marks, only when it is faulty.

use std::cell::Cell;
use std::cell::OnceCell;
use std::fmt;

use saphyr::LoadableYamlNode;
use saphyr::MarkedYaml;
use saphyr::YamlData;

use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::diagnostic::Weight;

/// So many faults of a file are told with their place: each costs a walk over the text.
const PLACES_MAX: usize = 200;
/// How many lines below a key a word of its value is looked for.
const WORD_LINES_MAX: usize = 2000;

/// A fault of one document, not yet placed. Boxed, because it is the rare case of every result here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(Box<Unplaced>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Unplaced {
    weight: Weight,
    message: String,
    label: String,
    hint: String,
    spot: Spot,
}

impl Fault {
    pub fn new(message: impl Into<String>) -> Self {
        Self(Box::new(Unplaced {
            weight: Weight::Error,
            message: message.into(),
            label: String::new(),
            hint: String::new(),
            spot: Spot::default(),
        }))
    }

    pub fn warning(message: impl Into<String>) -> Self {
        let mut fault = Self::new(message);
        fault.0.weight = Weight::Warning;
        fault
    }

    #[must_use]
    pub fn at(mut self, spot: Spot) -> Self {
        self.0.spot = spot;
        self
    }

    /// Says that what was taken for one section of the document is another.
    #[must_use]
    pub fn under(mut self, section: &str) -> Self {
        if let Some(first) = self.0.spot.path.first_mut() {
            section.clone_into(first);
        }
        self
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.0.label = label.into();
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = hint.into();
        self
    }
}

/// Where in a document: down these keys, then on to these words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spot {
    path: Vec<String>,
    is_value: bool,
    words: Vec<String>,
}

impl Spot {
    /// The last key itself.
    pub fn key(path: &[&str]) -> Self {
        Self {
            path: path.iter().map(|&key| key.to_owned()).collect(),
            ..Self::default()
        }
    }

    /// The value of the last key.
    pub fn value(path: &[&str]) -> Self {
        Self {
            is_value: true,
            ..Self::key(path)
        }
    }

    /// The first place of a word at or below the last key.
    pub fn word(path: &[&str], word: &str) -> Self {
        Self {
            words: vec![word.to_owned()],
            ..Self::key(path)
        }
    }

    /// A word behind the place so far.
    #[must_use]
    pub fn then(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }
}

/// A file's text, walked with marks when the first fault asks for its place.
pub struct Locator<'a> {
    file: &'a str,
    text: &'a str,
    /// The documents that another parser took already: only they are walked.
    sound: &'a str,
    marked: OnceCell<Vec<MarkedYaml<'a>>>,
    placed: Cell<usize>,
}

impl fmt::Debug for Locator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Locator").field(&self.file).finish()
    }
}

impl<'a> Locator<'a> {
    pub fn new(file: &'a str, text: &'a str, sound: &'a str) -> Self {
        Self {
            file,
            text,
            sound,
            marked: OnceCell::new(),
            placed: Cell::new(0),
        }
    }

    /// Returns the diagnostic of a fault in the document of this number.
    pub fn tell(&self, document: usize, Fault(fault): Fault) -> Diagnostic {
        let told = Diagnostic {
            weight: fault.weight,
            ..Diagnostic::error(self.file, fault.message)
        };
        let told = match self.place(document, &fault.spot) {
            Some((place, width)) => told.at(self.text, place, width),
            None => told,
        };
        told.label(fault.label).hint(fault.hint)
    }

    fn place(&self, document: usize, spot: &Spot) -> Option<(Place, usize)> {
        if self.placed.replace(self.placed.get() + 1) >= PLACES_MAX {
            return None;
        }
        let marked = self
            .marked
            .get_or_init(|| MarkedYaml::load_from_str(self.sound).unwrap_or_default());
        let mut node = marked.get(document)?;
        let mut found = (start(node), 1);
        for (depth, key) in spot.path.iter().enumerate() {
            let YamlData::Mapping(entries) = &node.data else {
                break;
            };
            let entry = entries
                .iter()
                .find(|(name, _)| name.data.as_str() == Some(key.as_str()));
            let Some((name, value)) = entry else { break };
            node = value;
            found = if spot.is_value && depth + 1 == spot.path.len() {
                (start(value), width(value))
            } else {
                (start(name), width(name))
            };
        }
        for word in &spot.words {
            if let Some(place) = self.find(found.0, word) {
                found = (place, word.chars().count());
            }
        }
        Some(found)
    }

    /// Returns the first place of a word at or behind a place.
    fn find(&self, from: Place, word: &str) -> Option<Place> {
        if word.is_empty() {
            return None;
        }
        let lines = self.text.lines().enumerate().skip(from.line - 1);
        for (at, line) in lines.take(WORD_LINES_MAX) {
            let skipped = if at + 1 == from.line {
                from.column - 1
            } else {
                0
            };
            let rest: String = line.chars().skip(skipped).collect();
            let mut searched = 0;
            while let Some(found) = rest.get(searched..).and_then(|rest| rest.find(word)) {
                let byte = searched + found;
                let whole = rest
                    .get(..byte)
                    .is_none_or(|before| !before.ends_with(is_word))
                    && rest
                        .get(byte + word.len()..)
                        .is_none_or(|after| !after.starts_with(is_word));
                let column = rest.get(..byte).map_or(0, |before| before.chars().count());
                if whole {
                    return Some(Place {
                        line: at + 1,
                        column: skipped + column + 1,
                    });
                }
                searched = byte + word.len();
            }
        }
        None
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn start(node: &MarkedYaml<'_>) -> Place {
    let start = node.span.start;
    Place {
        line: start.line().max(1),
        column: start.col() + 1,
    }
}

fn width(node: &MarkedYaml<'_>) -> usize {
    let (start, end) = (node.span.start, node.span.end);
    if start.line() == end.line() {
        end.col().saturating_sub(start.col()).max(1)
    } else {
        1
    }
}
