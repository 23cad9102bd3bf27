//! The rules that canhgac brings, inside the binary, and rules from files and folders.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rust_embed::RustEmbed;

use crate::cli::alerts::Advice;
use crate::detect::rule::{Placeholders, RuleText, Ruleset};
use crate::diagnostic::Diagnostic;

/// rules/**/*.yml
#[derive(RustEmbed)]
#[folder = "rules/"]
#[include = "*.yml"]
struct Embedded;

/// Folders below a folder of rules or recordings.
const DEPTH_MAX: usize = 16;
/// A rule file is a few KiB; a longer one is no rule.
const RULE_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// A rule file, by its name for people.
#[derive(Debug, Clone)]
pub struct RuleFile {
    pub name: String,
    pub text: String,
}

/// Returns the rules inside the binary, by name.
pub fn embedded() -> Vec<RuleFile> {
    let mut files: Vec<_> = Embedded::iter()
        .filter_map(|name| {
            let text = Embedded::get(&name)?.data.into_owned();
            Some(RuleFile {
                name: format!("rules/{name}"),
                text: String::from_utf8_lossy(&text).into_owned(),
            })
        })
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// Returns the rule files of files and folders; a folder gives its *.yml and *.yaml, at any depth.
///
/// # Errors
/// When one can't be read: a watch with half its rules would not be noticed.
pub fn load(paths: &[PathBuf]) -> anyhow::Result<Vec<RuleFile>> {
    let mut files = Vec::new();
    for path in paths {
        let meta = fs::metadata(path)
            .with_context(|| format!("cannot read rules in {}", path.display()))?;
        let found = if meta.is_dir() {
            // A sample may lie beside its rule.
            let is_rule = |path: &Path| {
                path.extension()
                    .is_some_and(|extension| extension == "yml" || extension == "yaml")
                    && !path.to_string_lossy().ends_with(".test.yml")
            };
            walk(path, is_rule)?
        } else {
            vec![path.clone()]
        };
        for file in found {
            let size = fs::metadata(&file)?.len();
            anyhow::ensure!(
                size <= RULE_BYTES_MAX,
                "{} has {size} bytes; a rule file has at most {RULE_BYTES_MAX}",
                file.display()
            );
            let bytes =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            files.push(RuleFile {
                name: file.display().to_string(),
                text: String::from_utf8_lossy(&bytes).into_owned(),
            });
        }
    }
    Ok(files)
}

/// Returns the compiled rules of `paths`, or the embedded ones when there is no path, and every fault.
///
/// # Errors
/// When a path can't be read.
pub fn ruleset(paths: &[PathBuf]) -> anyhow::Result<(Ruleset, Vec<Diagnostic>)> {
    let files = if paths.is_empty() {
        embedded()
    } else {
        load(paths)?
    };
    Ok(compile(&files))
}

pub fn compile(files: &[RuleFile]) -> (Ruleset, Vec<Diagnostic>) {
    compile_with(files, &Placeholders::new())
}

pub fn compile_with(files: &[RuleFile], placeholders: &Placeholders) -> (Ruleset, Vec<Diagnostic>) {
    let texts: Vec<_> = files
        .iter()
        .map(|file| RuleText {
            file: &file.name,
            text: &file.text,
        })
        .collect();
    Ruleset::compile_with(&texts, placeholders)
}

/// Returns what the embedded rules say to do about an alert of a rule.
pub fn advice(rule: &str) -> Option<Advice> {
    let (ruleset, _) = compile(&embedded());
    let rule = ruleset.rule(ruleset.by_id(rule)?);
    let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Some(Advice {
        title_vi: said(&rule.title_vi),
        description: said(&rule.description),
        advice: said(&rule.advice),
        advice_vi: said(&rule.advice_vi),
        false_positives: rule.false_positives.clone(),
    })
}

/// Returns the paths below `folder` that are wanted, by name. Links to folders are not followed: they may go in circles.
///
/// # Errors
/// When a folder can't be read.
pub fn walk(folder: &Path, wants: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .with_context(|| format!("cannot read the folder {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                if depth < DEPTH_MAX {
                    folders.push((path, depth + 1));
                }
            } else if wants(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
