//! Text patterns: literals, `*`, `?` and the five dashes of `windash`, over folded or exact bytes.
//! Knows nothing of fields and rules.

use aho_corasick::AhoCorasick;
use aho_corasick::AhoCorasickKind;
use memchr::memmem::Finder;

use crate::detect::rule::need::Place;

/// The dashes that `windash` takes for one another: `-`, `/`, en dash, em dash, horizontal bar.
pub const DASHES: [&str; 5] = ["-", "/", "\u{2013}", "\u{2014}", "\u{2015}"];

/// Literals that are looked for together from this number on; below it one search each is as fast.
const TOGETHER_MIN: usize = 8;

/// One step of a pattern as written in a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Text(Vec<u8>),
    /// `?`: one character.
    One,
    /// `*`: any characters, also none.
    Many,
    /// One of [`DASHES`].
    Dash,
}

/// Appends `text` in lower case, character by character: a character whose lower case is not one character
/// stays, so that `?` counts the same before and after. Bytes that are not UTF-8 stay.
pub fn fold_into(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    if text.is_ascii() {
        out.extend_from_slice(text);
        if let Some(added) = out.get_mut(start..) {
            added.make_ascii_lowercase();
        }
        return;
    }
    for chunk in text.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(c) = rest.chars().next() {
            if c.is_ascii() {
                let plain = rest.bytes().take_while(u8::is_ascii).count();
                let (plain, behind) = rest.split_at(plain);
                let from = out.len();
                out.extend_from_slice(plain.as_bytes());
                if let Some(added) = out.get_mut(from..) {
                    added.make_ascii_lowercase();
                }
                rest = behind;
                continue;
            }
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            let mut lower = c.to_lowercase();
            let c = match (lower.next(), lower.next()) {
                (Some(one), None) => one,
                _ => c,
            };
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        out.extend_from_slice(chunk.invalid());
    }
}

pub fn fold(text: &[u8]) -> Vec<u8> {
    let mut folded = Vec::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

/// Several patterns, one of which must hold. All are folded, or none.
#[derive(Debug)]
pub struct Patterns {
    /// Sorted.
    equal: Box<[Box<[u8]>]>,
    starts: Box<[Box<[u8]>]>,
    ends: Box<[Box<[u8]>]>,
    inner: Box<[Box<[u8]>]>,
    /// For `inner`, when they are few.
    finders: Box<[Finder<'static>]>,
    /// For `inner`, when they are many.
    together: Option<AhoCorasick>,
    globs: Box<[Glob]>,
    anything: bool,
}

impl Patterns {
    pub fn new(patterns: &[Vec<Step>]) -> Self {
        let (mut equal, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut inner, mut globs, mut anything) = (Vec::new(), Vec::new(), false);
        for steps in patterns {
            let steps = merged(steps);
            match steps.as_slice() {
                [] => equal.push(Box::default()),
                [Step::Many] => anything = true,
                [Step::Text(text)] => equal.push(text.as_slice().into()),
                [Step::Text(text), Step::Many] => starts.push(text.as_slice().into()),
                [Step::Many, Step::Text(text)] => ends.push(text.as_slice().into()),
                [Step::Many, Step::Text(text), Step::Many] => inner.push(text.clone()),
                _ => globs.push(Glob::new(&steps)),
            }
        }
        equal.sort();
        let together = (inner.len() >= TOGETHER_MIN)
            .then(|| {
                AhoCorasick::builder()
                    .kind(Some(AhoCorasickKind::ContiguousNFA))
                    .build(&inner)
                    .ok()
            })
            .flatten();
        let few = if together.is_some() { &[][..] } else { &inner };
        let finders = few.iter().map(|text| Finder::new(text).into_owned());
        Self {
            finders: finders.collect(),
            equal: equal.into(),
            starts: starts.into(),
            ends: ends.into(),
            inner: inner.into_iter().map(Vec::into_boxed_slice).collect(),
            together,
            globs: globs.into(),
            anything,
        }
    }

    pub fn hold(&self, text: &[u8]) -> bool {
        self.anything
            || self
                .equal
                .binary_search_by(|known| (**known).cmp(text))
                .is_ok()
            || self.ends.iter().any(|end| text.ends_with(end))
            || self.starts.iter().any(|start| text.starts_with(start))
            || self
                .finders
                .iter()
                .any(|finder| finder.find(text).is_some())
            || self.together.as_ref().is_some_and(|all| all.is_match(text))
            || self.globs.iter().any(|glob| glob.holds(text))
    }

    /// Returns texts in lower case of which one must stand where it says; `None` when nothing need stand anywhere.
    /// A glob's text may be empty.
    pub fn needed(&self) -> Option<Vec<(Place, Vec<u8>)>> {
        if self.anything {
            return None;
        }
        let placed = |texts: &[Box<[u8]>], place: Place| -> Vec<(Place, Vec<u8>)> {
            texts.iter().map(|text| (place, fold(text))).collect()
        };
        let globs = self.globs.iter().map(|glob| {
            let text = glob.needed.as_ref().map(Finder::needle);
            (Place::Anywhere, fold(text.unwrap_or_default()))
        });
        let mut texts = placed(&self.equal, Place::Whole);
        texts.extend(placed(&self.starts, Place::Start));
        texts.extend(placed(&self.ends, Place::End));
        texts.extend(placed(&self.inner, Place::Anywhere));
        texts.extend(globs);
        // Bytes that are no text may become other letters beside their neighbours.
        let are_texts = texts
            .iter()
            .all(|(_, text)| std::str::from_utf8(text).is_ok());
        are_texts.then_some(texts)
    }

    /// Returns a rough price for ordering: what is cheap is asked first.
    pub fn cost(&self) -> u32 {
        let searched = self.finders.len() + self.globs.len() * 4;
        let searched = searched + if self.together.is_some() { 6 } else { 0 };
        let compared = self.equal.len().min(4) + self.starts.len() + self.ends.len();
        u32::try_from(compared + searched * 4).unwrap_or(u32::MAX)
    }
}

/// Joins neighbouring texts and neighbouring `*`, and drops empty texts.
fn merged(steps: &[Step]) -> Vec<Step> {
    let mut merged: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        match (merged.last_mut(), step) {
            (_, Step::Text(text)) if text.is_empty() => {}
            (Some(Step::Text(before)), Step::Text(text)) => before.extend_from_slice(text),
            (Some(Step::Many), Step::Many) => {}
            _ => merged.push(step.clone()),
        }
    }
    merged
}

/// Segments between `*`. In characters every segment has a fixed length, so the leftmost place for each
/// in turn is the right one and no backtracking is needed.
#[derive(Debug)]
struct Glob {
    open_start: bool,
    open_end: bool,
    segments: Box<[Box<[Step]>]>,
    /// The longest literal, without which nothing can match.
    needed: Option<Finder<'static>>,
}

impl Glob {
    fn new(steps: &[Step]) -> Self {
        let longest = steps.iter().filter_map(|step| match step {
            Step::Text(text) => Some(text),
            _ => None,
        });
        Self {
            open_start: steps.first() == Some(&Step::Many),
            open_end: steps.last() == Some(&Step::Many),
            segments: steps
                .split(|step| *step == Step::Many)
                .filter(|segment| !segment.is_empty())
                .map(Into::into)
                .collect(),
            needed: longest
                .max_by_key(|text| text.len())
                .map(|text| Finder::new(text).into_owned()),
        }
    }

    fn holds(&self, text: &[u8]) -> bool {
        if let Some(needed) = &self.needed
            && needed.find(text).is_none()
        {
            return false;
        }
        let mut rest = text;
        let mut segments = &*self.segments;
        if !self.open_start {
            let Some((first, others)) = segments.split_first() else {
                return text.is_empty();
            };
            let Some(after) = strip_front(first, rest) else {
                return false;
            };
            if others.is_empty() && !self.open_end {
                return after.is_empty();
            }
            (rest, segments) = (after, others);
        }
        if !self.open_end {
            let Some((last, others)) = segments.split_last() else {
                // Unreachable: a pattern of one anchored segment has returned above.
                return rest.is_empty();
            };
            let Some(before) = strip_back(last, rest) else {
                return false;
            };
            (rest, segments) = (before, others);
        }
        for segment in segments {
            match find(segment, rest) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        true
    }
}

/// Returns what follows the leftmost place where the segment fits.
fn find<'t>(segment: &[Step], text: &'t [u8]) -> Option<&'t [u8]> {
    let mut rest = text;
    loop {
        if let Some(Step::Text(first)) = segment.first() {
            let at = memchr::memmem::find(rest, first)?;
            rest = rest.get(at..)?;
        }
        if let Some(after) = strip_front(segment, rest) {
            return Some(after);
        }
        let step = first_char(rest)?;
        rest = rest.get(step..)?;
    }
}

fn strip_front<'t>(segment: &[Step], text: &'t [u8]) -> Option<&'t [u8]> {
    let mut rest = text;
    for step in segment {
        rest = match step {
            Step::Text(wanted) => rest.strip_prefix(wanted.as_slice())?,
            Step::One => rest.get(first_char(rest)?..)?,
            Step::Dash => DASHES
                .iter()
                .find_map(|dash| rest.strip_prefix(dash.as_bytes()))?,
            Step::Many => return None, // segments hold none
        };
    }
    Some(rest)
}

fn strip_back<'t>(segment: &[Step], text: &'t [u8]) -> Option<&'t [u8]> {
    let mut rest = text;
    for step in segment.iter().rev() {
        rest = match step {
            Step::Text(wanted) => rest.strip_suffix(wanted.as_slice())?,
            Step::One => rest.get(..rest.len().checked_sub(last_char(rest)?)?)?,
            Step::Dash => DASHES
                .iter()
                .find_map(|dash| rest.strip_suffix(dash.as_bytes()))?,
            Step::Many => return None, // segments hold none
        };
    }
    Some(rest)
}

/// Returns the length of the first character; a byte that begins none counts as one. `None`: no text.
fn first_char(text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    if first.is_ascii() {
        return Some(1);
    }
    let whole = |length: &usize| {
        text.get(..*length)
            .is_some_and(|bytes| std::str::from_utf8(bytes).is_ok())
    };
    Some((2..=4).find(whole).unwrap_or(1))
}

fn last_char(text: &[u8]) -> Option<usize> {
    let last = *text.last()?;
    if last.is_ascii() {
        return Some(1);
    }
    let whole = |length: &usize| {
        text.len()
            .checked_sub(*length)
            .and_then(|at| text.get(at..))
            .is_some_and(|bytes| first_char(bytes) == Some(*length))
    };
    Some((2..=4).find(whole).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `*`, `?`, and `~` for the dash.
    fn steps(pattern: &str) -> Vec<Step> {
        pattern
            .chars()
            .map(|c| match c {
                '*' => Step::Many,
                '?' => Step::One,
                '~' => Step::Dash,
                c => Step::Text(c.to_string().into_bytes()),
            })
            .collect()
    }

    #[test]
    fn wildcards_match_characters_not_bytes() {
        for (pattern, text, holds) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a", "a", true),
            ("a*", "ab", true),
            ("*a", "ba", true),
            ("*b*", "abc", true),
            ("?", "é", true),
            ("??", "é", false),
            ("*??", "€", false),
            ("*??", "€a", true),
            ("??*", "€", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*1?", "0x10", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("a*a", "a", false),
            ("*~x*", "run \u{2014}x", true),
            ("*~x", "run /x", true),
            ("~x*", "xx", false),
            ("*?b?*", "ab", false),
            ("*?b?*", "aébcd", true),
        ] {
            let set = Patterns::new(&[steps(pattern)]);
            assert_eq!(set.hold(text.as_bytes()), holds, "{pattern} over {text}");
        }
    }

    #[test]
    fn many_literals_are_looked_for_together() {
        let many: Vec<_> = (0..20).map(|n| steps(&format!("*<{n}>*"))).collect();
        let set = Patterns::new(&many);
        assert!(set.hold(b"a <19> b"));
        assert!(!set.hold(b"a <20> b"));
    }

    #[test]
    fn folding_keeps_the_number_of_characters_and_foreign_bytes() {
        for (text, folded) in [
            (&b"ABC"[..], &b"abc"[..]),
            ("ĐÃ".as_bytes(), "đã".as_bytes()),
            ("İ".as_bytes(), "İ".as_bytes()),
            ("aÉBÉÉc\u{212a}D".as_bytes(), "aébééckd".as_bytes()),
            (b"A\xffB\xc3", b"a\xffb\xc3"),
        ] {
            assert_eq!(fold(text), folded);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_single_characters() {
        let set = Patterns::new(&[steps("a??")]);
        assert!(set.hold(b"a\xff\xfe"));
        assert!(!set.hold(b"a\xff"));
    }
}
