//! Every fault of the rules, and how many there are.

use std::io::Write;

use crate::cli::pack::{self, RuleFile};
use crate::detect::rule::{Placeholders, lint};
use crate::diagnostic::Weight;

/// Writes the faults; returns whether there is an error among them.
///
/// # Errors
/// When `out` takes no more.
pub fn check(
    files: &[RuleFile],
    placeholders: &Placeholders,
    out: &mut impl Write,
) -> anyhow::Result<bool> {
    let (ruleset, mut told) = pack::compile_with(files, placeholders);
    let texts: Vec<_> = files.iter().map(RuleFile::as_text).collect();
    told.extend(lint::lint(&ruleset, &texts, placeholders));
    for fault in &told {
        writeln!(out, "{fault}")?;
    }
    let faults = told.iter().filter(|told| told.weight == Weight::Error);
    let faults = faults.count();
    writeln!(
        out,
        "{} rules, {faults} faults, {} warnings",
        ruleset.len(),
        told.len() - faults
    )?;
    Ok(faults > 0)
}
