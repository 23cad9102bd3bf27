//! The rules as a list.

use std::io::Write;

use serde_json::json;

use crate::cli::listing::{self, Output};
use crate::cli::pack::{self, RuleFile};
use crate::detect::rule::{Placeholders, Rule};

const HEAD: [&str; 7] = ["LEVEL", "TITLE", "LOG SOURCE", "KIND", "TAGS", "FILE", "ID"];
const CSV_HEAD: [&str; 7] = ["level", "title", "logsource", "kind", "tags", "file", "id"];

/// Writes the rules that are sound; faults go to stderr.
///
/// # Errors
/// When `out` takes no more.
pub fn list(
    files: &[RuleFile],
    placeholders: &Placeholders,
    output: Output,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (ruleset, faults) = pack::compile_with(files, placeholders);
    crate::cli::tell(&faults);
    let rules = ruleset.rules().map(|(_, rule)| rule);
    match output {
        Output::Table => {
            let rows: Vec<_> = rules.map(|rule| cells(rule).to_vec()).collect();
            listing::table(out, &HEAD, &rows)?;
        }
        Output::Csv => {
            listing::csv(out, &CSV_HEAD)?;
            for rule in rules {
                let cells = cells(rule);
                listing::csv(out, &cells.each_ref().map(String::as_str))?;
            }
        }
        Output::Json => {
            for rule in rules {
                listing::json(out, &object(rule).to_string())?;
            }
        }
    }
    Ok(())
}

fn cells(rule: &Rule) -> [String; 7] {
    let source = &rule.logsource;
    let words = [&source.product, &source.category, &source.service];
    let words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
    [
        rule.reference.level.to_string(),
        rule.reference.title.clone(),
        words.join(" "),
        kind(rule).to_owned(),
        rule.reference.tags.join(" "),
        rule.file.clone(),
        rule.id.clone(),
    ]
}

fn object(rule: &Rule) -> serde_json::Value {
    let source = &rule.logsource;
    let words = [
        ("product", &source.product),
        ("category", &source.category),
        ("service", &source.service),
    ];
    let words = words
        .into_iter()
        .filter_map(|(name, word)| Some((name.to_owned(), json!(word.as_ref()?))));
    json!({
        "id": rule.id,
        "title": rule.reference.title,
        "level": rule.reference.level,
        "logsource": words.collect::<serde_json::Map<_, _>>(),
        "tags": rule.reference.tags,
        "kind": kind(rule),
        "file": rule.file,
    })
}

/// What only correlations count alerts nobody, which a reader of the list must see.
fn kind(rule: &Rule) -> &'static str {
    match (rule.correlation().is_some(), rule.silent) {
        (false, false) => "detection",
        (false, true) => "detection, only counted",
        (true, false) => "correlation",
        (true, true) => "correlation, only counted",
    }
}
