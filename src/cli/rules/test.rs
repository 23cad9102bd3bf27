//! Samples, played case by case.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::pack::{self, RuleFile};
use crate::cli::rules::junit::Case;
use crate::cli::rules::sample::Samples;
use crate::detect::rule::Placeholders;
use crate::diagnostic::{Weight, visible};

/// Plays the samples of the rules with all rules loaded; returns whether a case failed or a rule was
/// refused, and the cases.
///
/// # Errors
/// When there is no sample at all, or `out` takes no more.
pub fn test(
    files: &[RuleFile],
    placeholders: &Placeholders,
    folder: Option<&Path>,
    out: &mut impl Write,
) -> anyhow::Result<(bool, Vec<Case>)> {
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        return Err(crate::cli::usage(format!("no folder {}", folder.display())));
    }
    let (rules, told) = pack::compile_with(files, placeholders);
    crate::cli::tell(&told);
    let rules = Arc::new(rules);
    let (mut cases, mut failed, mut without) = (Vec::new(), 0, 0);
    for file in files {
        let Some(path) = sample_of(&file.name, folder) else {
            without += 1;
            continue;
        };
        let mut say = |case: &str, wrong: Option<&str>| {
            cases.push(Case {
                file: file.name.clone(),
                name: case.to_owned(),
                wrong: wrong.map(str::to_owned),
            });
            failed += usize::from(wrong.is_some());
            let word = if wrong.is_some() { "FAIL" } else { "ok  " };
            let why = wrong.map(|wrong| format!(": {wrong}")).unwrap_or_default();
            let line = format!("{word} {}: {case}{why}", file.name);
            writeln!(out, "{}", visible(&line))
        };
        match Samples::read(&path) {
            Err(error) => say("its sample", Some(&format!("{error:#}")))?,
            Ok(samples) => {
                for outcome in samples.play(&rules) {
                    say(&outcome.case, outcome.wrong.as_deref())?;
                }
            }
        }
    }
    if cases.is_empty() {
        return Err(crate::cli::usage(
            "no sample of these rules: name their folder, such as --samples tests/rules",
        ));
    }
    writeln!(
        out,
        "{} cases, {failed} failed; {without} of {} rule files have no sample",
        cases.len(),
        files.len()
    )?;
    let found = failed > 0 || told.iter().any(|told| told.weight == Weight::Error);
    Ok((found, cases))
}

/// Returns B.test.yml beside the rule file A/B.yml, else A/B.yml or B.yml in the folder of samples.
fn sample_of(file: &str, folder: Option<&Path>) -> Option<PathBuf> {
    let path = Path::new(file);
    let beside = path.with_extension("test.yml");
    if beside.is_file() {
        return Some(beside);
    }
    let folder = folder?;
    let parts: Vec<_> = path.iter().collect();
    let ends = (0..parts.len()).filter_map(|skip| parts.get(skip..));
    ends.map(|end| folder.join(end.iter().collect::<PathBuf>()))
        .find(|sample| sample.is_file() && sample != path)
}
