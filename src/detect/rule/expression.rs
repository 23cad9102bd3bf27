//! Regular expressions of rules: linear time, bounded memory, and a word about what those exclude.

use regex::bytes::Regex;
use regex::bytes::RegexBuilder;

use crate::detect::rule::locate::Fault;

/// The most memory of one compiled regular expression: the largest public one needs more than 2 MiB.
const REGEX_BYTES_MAX: usize = 10 << 20;
/// How deep a regular expression may nest: the compiler walks it by recursion.
const REGEX_DEPTH_MAX: u32 = 50;

#[derive(Debug, Clone, Copy)]
pub struct Flags {
    pub ignores_case: bool,
    pub is_multiline: bool,
    pub dot_takes_all: bool,
}

pub fn compile(text: &str, flags: Flags) -> Result<Regex, Fault> {
    if let Some((construct, instead)) = unsupported(text) {
        let message = format!("a regular expression with {construct}");
        return Err(Fault::new(message).hint(instead));
    }
    RegexBuilder::new(&flagged(text, flags))
        .size_limit(REGEX_BYTES_MAX)
        .nest_limit(REGEX_DEPTH_MAX)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => Fault::new(format!(
                "a regular expression that needs more than {limit} bytes compiled"
            ))
            .hint(r"shorten its repetitions: `\w{1,1000}` is a thousand steps"),
            other => {
                let said = other.to_string();
                // The last line says what is wrong, those before draw it.
                let said = said.lines().last().unwrap_or_default();
                let said = said.trim_start_matches("error: ");
                Fault::new(format!("a regular expression that can't be read: {said}"))
            }
        })
}

/// Returns the expression with its flags written out, so that whoever reads it knows them.
fn flagged(text: &str, flags: Flags) -> String {
    let letters: String = [
        (flags.ignores_case, 'i'),
        (flags.is_multiline, 'm'),
        (flags.dot_takes_all, 's'),
    ]
    .into_iter()
    .filter_map(|(is_set, letter)| is_set.then_some(letter))
    .collect();
    if letters.is_empty() {
        text.to_owned()
    } else {
        format!("(?{letters}){text}")
    }
}

/// Returns what a linear-time engine can't do, and what to write instead.
fn unsupported(regex: &str) -> Option<(&'static str, &'static str)> {
    let mut rest = regex.chars();
    while let Some(c) = rest.next() {
        let after = rest.as_str();
        match c {
            '\\' => {
                let escaped = rest.next()?;
                if ('1'..='9').contains(&escaped) || after.starts_with("k<") {
                    return Some((
                        r"a back-reference (\1)",
                        "compare two fields with `fieldref`, or write the repeated text out",
                    ));
                }
            }
            '(' if after.starts_with("?=") || after.starts_with("?!") => {
                return Some((
                    "a look-ahead ((?=…) or (?!…))",
                    "put it into a selection of its own: `selection and not filter`",
                ));
            }
            '(' if after.starts_with("?<=") || after.starts_with("?<!") => {
                return Some((
                    "a look-behind ((?<=…) or (?<!…))",
                    "write what stands before as part of the expression, or a selection of its own",
                ));
            }
            '(' if after.starts_with("?>") => {
                return Some((
                    "an atomic group ((?>…))",
                    "a plain group: this engine takes linear time without",
                ));
            }
            _ => {}
        }
    }
    None
}
