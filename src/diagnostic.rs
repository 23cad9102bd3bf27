//! A mistake told in full: where it stands, the line, what is wrong, what would be right.
//! Shared by configuration and rules. Does not read files and does not print.

use std::fmt;

/// How much a diagnostic weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    Warning,
    Error,
}

/// A place in a text; both from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// One fault, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub weight: Weight,
    pub file: String,
    pub place: Option<Place>,
    /// How many characters the caret underlines.
    pub width: usize,
    /// The line at `place`.
    pub source_line: String,
    pub message: String,
    /// Short text beside the caret.
    pub label: String,
    pub hint: String,
}

impl Diagnostic {
    pub fn error(file: &str, message: impl Into<String>) -> Self {
        Self {
            weight: Weight::Error,
            file: file.to_owned(),
            place: None,
            width: 1,
            source_line: String::new(),
            message: message.into(),
            label: String::new(),
            hint: String::new(),
        }
    }

    pub fn warning(file: &str, message: impl Into<String>) -> Self {
        Self {
            weight: Weight::Warning,
            ..Self::error(file, message)
        }
    }

    /// Points at `width` characters at a place of `text`.
    #[must_use]
    pub fn at(mut self, text: &str, place: Place, width: usize) -> Self {
        self.source_line = text
            .lines()
            .nth(place.line.saturating_sub(1))
            .unwrap_or_default()
            .to_owned();
        self.place = Some(place);
        self.width = width.max(1);
        self
    }

    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// The longest source line that is shown; beyond it a window around the column.
const LINE_CHARS_MAX: usize = 160;

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        writeln!(f, "{word}: {}", visible(&self.message))?;
        match self.place {
            None => writeln!(f, "  --> {}", visible(&self.file))?,
            Some(place) => {
                let number = place.line.to_string();
                let margin = " ".repeat(number.len());
                let skip = (place.column + self.width).saturating_sub(LINE_CHARS_MAX);
                let line: String = self
                    .source_line
                    .chars()
                    .skip(skip)
                    .take(LINE_CHARS_MAX)
                    .collect();
                let caret = " ".repeat((place.column - 1).saturating_sub(skip));
                let width = self.width.min(LINE_CHARS_MAX);
                writeln!(
                    f,
                    "{margin}--> {}:{}:{}",
                    visible(&self.file),
                    place.line,
                    place.column
                )?;
                writeln!(f, "{margin} |")?;
                writeln!(f, "{number} | {}", visible(&line))?;
                let under = format!("{margin} | {caret}{} {}", "^".repeat(width), self.label);
                writeln!(f, "{}", visible(under.trim_end()))?;
            }
        }
        if !self.hint.is_empty() {
            writeln!(f, "hint: {}", visible(&self.hint))?;
        }
        Ok(())
    }
}

/// Returns text that can't steer a terminal: control characters, bidirectional marks and
/// zero-width characters are shown as `\u{..}` (CVE-2009-4487 and its family).
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{061c}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns the one of `known` that was most likely meant by `word`, if any is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= limit * 4)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, substitutions, swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_shown_with_its_line_a_caret_and_a_hint() {
        let text = "sources:\n  file:\n    - pth: /var/log/auth.log\n";
        let place = Place { line: 3, column: 7 };
        let fault = Diagnostic::error("agent.yaml", "unknown field `pth`")
            .at(text, place, 3)
            .label("expected one of `path`, `decode`")
            .hint("did you mean `path`?");
        assert_eq!(
            fault.to_string(),
            "error: unknown field `pth`\n --> agent.yaml:3:7\n  |\n3 |     - pth: /var/log/auth.log\n  |       ^^^ expected one of `path`, `decode`\nhint: did you mean `path`?\n"
        );
    }

    #[test]
    fn hostile_text_is_shown_not_obeyed() {
        for (text, shown) in [
            ("a\x1b[2Jb", "a\\u{1b}[2Jb"),
            ("\u{9b}x", "\\u{9b}x"),
            ("x\u{202e}y", "x\\u{202e}y"),
            ("tiếng Việt", "tiếng Việt"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn the_nearest_word_is_offered_only_when_near() {
        let known = ["path", "decode", "format"];
        for (word, meant) in [
            ("pth", Some("path")),
            ("deocde", Some("decode")),
            ("interface", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
