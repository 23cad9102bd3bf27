//! Every rule that we bring, held to its samples: what must fire, what lies close by and must not, and a day of
//! ordinary lines on which the whole pack keeps quiet. tests/rules/README.md says how a sample is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use canhgac::alert::{HostSecret, Severity};
use canhgac::decode::{self, Format, Surroundings};
use canhgac::detect::correlate::{Correlator, Limits};
use canhgac::detect::mask::Masker;
use canhgac::detect::rule::{Rule, RuleIndex, RuleText, Ruleset, Scratch};
use canhgac::detect::{Detection, Scene, Sighting};
use canhgac::record::{FileId, Position, Record, SourceId};

/// When the samples are read: their times without a year are of this one.
const READ_AT: &str = "2026-11-22T12:00:00Z";
/// Characters of a title that still fit a table on a terminal.
const TITLE_CHARACTERS_MAX: usize = 80;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    rule: String,
    fires: Vec<Case>,
    silent: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    format: String,
    lines: String,
    /// How often exactly; without it at least once.
    alerts: Option<usize>,
}

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
        let file = path.display();
        let Some(rule) = pack.by_id(&samples.rule) else {
            wrong.push_str(&format!("{file}: no rule {}\n", samples.rule));
            continue;
        };
        for case in &samples.fires {
            let seen = count(&pack, rule, case);
            let is_right = case.alerts.map_or(seen > 0, |alerts| seen == alerts);
            if !is_right {
                wrong.push_str(&format!("{file}: `{}` fires {seen} times\n", case.name));
            }
        }
        for case in &samples.silent {
            let seen = count(&pack, rule, case);
            if seen > 0 {
                wrong.push_str(&format!("{file}: `{}` fires {seen} times\n", case.name));
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
        for detection in judge(&pack, format, &lines) {
            let rule = detection.rule();
            let title = &rule.reference.title;
            assert!(rule.silent, "{title}: {}", detection.raw.as_str());
        }
    }
}

/// Returns how often a rule is seen in the lines of a case, be it by itself or only counted by others.
fn count(pack: &Arc<Ruleset>, rule: RuleIndex, case: &Case) -> usize {
    let format = case
        .format
        .parse()
        .unwrap_or_else(|error| panic!("{}: {error}", case.name));
    let found = judge(pack, format, &case.lines);
    found.iter().filter(|found| found.rule == rule).count()
}

/// Plays lines as one stream through decoder, rules and correlations; what only counts is in the answer too.
fn judge(pack: &Arc<Ruleset>, format: Format, lines: &str) -> Vec<Detection> {
    let scene = Scene {
        secret: HostSecret::new(&[1; 32]),
        masker: Masker::new(&[2; 32]),
        host: "web1".to_owned(),
    };
    let around = Surroundings {
        zone: TimeZone::UTC,
    };
    let mut decoder = decode::for_format(format, &around);
    let mut scratch = Scratch::default();
    let mut correlator = Correlator::new(Limits::default());
    let source = SourceId::new("file:sample");
    let read_at: Timestamp = READ_AT.parse().unwrap();
    let mut all = Vec::new();
    let mut offset = 0;
    for line in lines.lines() {
        let file = FileId {
            device: 1,
            inode: 1,
            head: 1,
        };
        let record = Record {
            position: Position::Offset { file, offset },
            read_at,
            bytes: Bytes::copy_from_slice(line.as_bytes()),
            cut: false,
        };
        offset += line.len() as u64 + 1;
        let mut found = Vec::new();
        let mut number = 0;
        let outcome = decoder.decode(&record, pack.fields(), &mut |event| {
            let seen = Sighting {
                source: &source,
                record: &record,
                event,
                number,
            };
            pack.matches(event, &mut scratch, |rule, _| {
                found.push(scene.detection(pack, rule, &seen));
            });
            number += 1;
        });
        assert_eq!(outcome, Ok(()), "{line}");
        for detection in found {
            let mut correlated = Vec::new();
            correlator.observe_all(&detection, &scene.secret, read_at, &mut correlated);
            all.push(detection);
            all.append(&mut correlated);
        }
    }
    all
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
            let samples = serde_yaml::from_str(&read(&path))
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
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
