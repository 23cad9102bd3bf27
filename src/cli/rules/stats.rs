//! What each rule needs in an event, what it is expected to cost, and how often it fired on records that are given.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;

use crate::cli::listing::{self, Output};
use crate::cli::pack::{self, RuleFile};
use crate::cli::rules::sample;
use crate::decode::Format;
use crate::detect::rule::{Placeholders, RuleIndex, Ruleset};

const HEAD: [&str; 6] = ["NEEDS", "ASKED", "HITS", "LEVEL", "TITLE", "ID"];
const CSV_HEAD: [&str; 6] = ["needs", "asked_per_mille", "hits", "level", "title", "id"];

struct Row {
    /// Texts of which an event must have one; `None`: every event of the log source is asked.
    needs: Option<usize>,
    per_mille: f64,
    hits: Option<u64>,
    rule: RuleIndex,
}

/// Writes the rules, the dearest first. Faults go to stderr.
///
/// # Errors
/// When a file of records can't be read, or `out` takes no more.
pub fn stats(
    files: &[RuleFile],
    placeholders: &Placeholders,
    records: &[PathBuf],
    output: Output,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (set, faults) = pack::compile_with(files, placeholders);
    crate::cli::tell(&faults);
    let set = Arc::new(set);
    let hits = hits(&set, records)?;
    let mut rows: Vec<Row> = set
        .rules()
        .filter(|(_, rule)| rule.correlation().is_none())
        .map(|(rule, _)| {
            let cost = set.cost(rule);
            Row {
                needs: cost.map(|cost| cost.needs),
                per_mille: cost.map_or(1000.0, |cost| cost.per_mille),
                hits: hits
                    .as_ref()
                    .map(|hits| hits.get(rule.at()).copied().unwrap_or(0)),
                rule,
            }
        })
        .collect();
    rows.sort_by(|a, b| b.per_mille.total_cmp(&a.per_mille));
    match output {
        Output::Table => {
            let cells: Vec<_> = rows.iter().map(|row| cells(&set, row).to_vec()).collect();
            listing::table(out, &HEAD, &cells)?;
        }
        Output::Csv => {
            listing::csv(out, &CSV_HEAD)?;
            for row in &rows {
                listing::csv(out, &cells(&set, row).each_ref().map(String::as_str))?;
            }
        }
        Output::Json => {
            for row in &rows {
                let rule = set.rule(row.rule);
                let object = json!({
                    "id": rule.id,
                    "title": rule.reference.title,
                    "needs": row.needs,
                    "asked_per_mille": row.per_mille,
                    "hits": row.hits,
                });
                listing::json(out, &object.to_string())?;
            }
        }
    }
    Ok(())
}

fn cells(set: &Ruleset, row: &Row) -> [String; 6] {
    let rule = set.rule(row.rule);
    [
        row.needs
            .map_or_else(|| "none".to_owned(), |needs| needs.to_string()),
        format!("{:.3} ‰", row.per_mille),
        row.hits
            .map_or_else(|| "-".to_owned(), |hits| hits.to_string()),
        rule.reference.level.to_string(),
        rule.reference.title.clone(),
        rule.id.clone(),
    ]
}

/// Returns how often each rule fired on the records, by its place; `None` without records.
fn hits(set: &Arc<Ruleset>, records: &[PathBuf]) -> anyhow::Result<Option<Vec<u64>>> {
    if records.is_empty() {
        return Ok(None);
    }
    let mut hits = vec![0; set.len()];
    for path in records {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        for found in sample::heard(set, Format::Auto, &text) {
            if let Some(hits) = hits.get_mut(found.rule.at()) {
                *hits += 1;
            }
        }
    }
    Ok(Some(hits))
}
