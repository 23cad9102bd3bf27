//! Every rule that we bring, held to its samples: what must fire, what lies close by and must not, and a day of
//! ordinary lines on which the whole pack keeps quiet. tests/rules/README.md says how a sample is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use canhgac::alert::Severity;
use canhgac::cli::rules::sample::{Samples, lines_of};
use canhgac::decode::Format;
use canhgac::detect::rule::{Rule, RuleText, Ruleset};

/// Characters of a title that still fit a table on a terminal.
const TITLE_CHARACTERS_MAX: usize = 80;

#[test]
fn every_rule_is_read_without_a_word() {
    let (_, told) = compiled();
    let told: String = told.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told}");
}

#[test]
fn every_rule_fires_and_stays_silent_as_its_samples_say() {
    let pack = pack();
    let mut wrong = String::new();
    for (path, samples) in all_samples() {
        for outcome in samples.play(&pack) {
            if let Some(why) = outcome.wrong {
                wrong.push_str(&format!("{}: `{}` {why}\n", path.display(), outcome.case));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_rule_that_alerts_has_samples_that_fire_and_near_misses() {
    let pack = pack();
    let samples = all_samples();
    for (_, rule) in pack.rules().filter(|(_, rule)| !rule.silent) {
        let of: Vec<_> = samples.iter().filter(|(_, s)| s.rule == rule.id).collect();
        let [(_, own)] = of.as_slice() else {
            panic!("{} has {} files of samples", rule.file, of.len());
        };
        assert!(!own.fires.is_empty(), "{} never fires", rule.file);
        assert!(
            own.silent.len() >= 2,
            "{} has too few near misses",
            rule.file
        );
    }
}

#[test]
fn every_rule_says_what_its_reader_needs() {
    let pack = pack();
    for (_, rule) in pack.rules() {
        let Rule { file, .. } = rule;
        let title = &rule.reference.title;
        assert!(title.chars().count() <= TITLE_CHARACTERS_MAX, "{file}");
        assert!(!rule.title_vi.is_empty(), "{file}: x-title-vi");
        assert!(!rule.description.is_empty(), "{file}: description");
        assert!(!rule.false_positives.is_empty(), "{file}: falsepositives");
        let is_technique = |tag: &String| tag.starts_with("attack.t1");
        assert!(rule.reference.tags.iter().any(is_technique), "{file}: tags");
        if rule.silent {
            assert_eq!(rule.reference.level, Severity::Informational, "{file}");
        } else {
            assert!(!rule.advice.is_empty(), "{file}: x-advice");
            assert!(!rule.advice_vi.is_empty(), "{file}: x-advice-vi");
        }
    }
}

#[test]
fn ordinary_logs_raise_no_alert() {
    let pack = pack();
    for (name, format) in [("auth.log", Format::Syslog), ("access.log", Format::Access)] {
        let lines = read(&root().join("tests/rules/benign").join(name));
        for detection in lines_of(&pack, format, &lines).unwrap() {
            let rule = detection.rule();
            let title = &rule.reference.title;
            assert!(rule.silent, "{title}: {}", detection.raw.as_str());
        }
    }
}

fn pack() -> Arc<Ruleset> {
    Arc::new(compiled().0)
}

fn compiled() -> (Ruleset, Vec<canhgac::diagnostic::Diagnostic>) {
    let files: Vec<_> = yaml_below("rules")
        .into_iter()
        .map(|path| (path.display().to_string(), read(&path)))
        .collect();
    let texts: Vec<_> = files
        .iter()
        .map(|(file, text)| RuleText { file, text })
        .collect();
    Ruleset::compile(&texts)
}

fn all_samples() -> Vec<(PathBuf, Samples)> {
    yaml_below("tests/rules")
        .into_iter()
        .map(|path| {
            let samples = Samples::read(&path).unwrap_or_else(|error| panic!("{error:#}"));
            (path, samples)
        })
        .collect()
}

/// Returns the files FOLDER/PRODUCT/NAME.yml, by name.
fn yaml_below(folder: &str) -> Vec<PathBuf> {
    let products = entries(&root().join(folder))
        .into_iter()
        .filter(|path| path.is_dir());
    let mut files: Vec<_> = products.flat_map(|product| entries(&product)).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    assert!(!files.is_empty(), "nothing in {folder}");
    files
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
