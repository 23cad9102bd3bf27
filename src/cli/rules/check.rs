//! Every fault of the rules, and how many there are.

use std::io::Write;

use crate::cli::pack::{self, RuleFile};
use crate::detect::rule::Placeholders;
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
    let (ruleset, told) = pack::compile_with(files, placeholders);
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
