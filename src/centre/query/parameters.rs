//! Parameters of a query, each judged with words for a person: which one, what was wrong, what would be right.

use std::fmt::Display;
use std::str::FromStr;

use crate::centre::problem::Problem;
use crate::centre::query::{PAGE, PAGE_MAX};
use crate::diagnostic::{nearest, visible};

/// `NAME=VALUE`, decoded, in the order of the address.
pub type Pairs = Vec<(String, String)>;

/// The longest value of one parameter.
const VALUE_BYTES_MAX: usize = 1024;

/// What was wrong with a parameter.
pub fn wrong(name: &str, value: &str, expected: impl Display) -> Problem {
    let shown: String = visible(value).chars().take(80).collect();
    Problem::bad_request(format!("`{name}`: `{shown}` is not {expected}"))
}

/// The parameter is none of `known`.
pub fn unknown(name: &str, known: &[&str]) -> Problem {
    let shown: String = visible(name).chars().take(80).collect();
    let hint = match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    Problem::bad_request(format!("no parameter `{shown}`; {hint}"))
}

/// Refuses what is given twice without being a list, and values beyond the limit.
pub fn check(pairs: &Pairs, lists: &[&str]) -> Result<(), Problem> {
    for (index, (name, value)) in pairs.iter().enumerate() {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Problem::bad_request(format!(
                "`{}` has {} bytes, {VALUE_BYTES_MAX} are allowed",
                visible(name),
                value.len()
            )));
        }
        let earlier = pairs.get(..index).unwrap_or_default();
        if !lists.contains(&name.as_str()) && earlier.iter().any(|(other, _)| other == name) {
            return Err(Problem::bad_request(format!(
                "`{}` is given twice",
                visible(name)
            )));
        }
    }
    Ok(())
}

pub fn parse<T: FromStr>(name: &str, value: &str, expected: &str) -> Result<T, Problem> {
    value.parse().map_err(|_| wrong(name, value, expected))
}

/// A number of entries.
pub fn limit(value: &str) -> Result<usize, Problem> {
    match value.parse() {
        Ok(limit @ 1..=PAGE_MAX) => Ok(limit),
        _ => Err(wrong(
            "limit",
            value,
            format_args!("a number from 1 to {PAGE_MAX} (absent: {PAGE})"),
        )),
    }
}

/// The id of an agency: parts of letters, digits, `-`, `_` and `.`, joined by `/`.
pub fn agency(name: &str, value: &str) -> Result<String, Problem> {
    const AGENCY_BYTES_MAX: usize = 200;
    const PARTS_MAX: usize = 16;
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let good = value.len() <= AGENCY_BYTES_MAX
        && value.split('/').count() <= PARTS_MAX
        && value.split('/').all(is_part);
    if good {
        Ok(value.to_owned())
    } else {
        Err(wrong(
            name,
            value,
            "an agency such as `hcm/so-y-te`: letters, digits, `-`, `_` and `.`, parts joined by `/`",
        ))
    }
}
