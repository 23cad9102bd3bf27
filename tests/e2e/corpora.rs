//! A first number over log lines that others labelled: how many attack lines raise an alert, how many benign ones do.
//! Not a target: a single failed login is an attack line there and no alert here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::site::Site;

/// Judged as one recording a source and label.
#[derive(Default)]
struct Judged {
    lines: usize,
    alerted: usize,
    cases: usize,
    cases_alerted: usize,
}

#[test]
fn labelled_lines_are_counted() {
    let Some(folder) = corpus() else {
        assert!(
            std::env::var("CI").is_err(),
            "the labelled logs are missing"
        );
        eprintln!("SKIPPED: the labelled logs are missing; name their folder in CANHGAC_CORPORA");
        return;
    };
    let site = Site::new();
    println!(
        "{:<14} {:>22} {:>22}",
        "lines that alert", "attack", "benign"
    );
    let (mut attacks, mut benign) = (Judged::default(), Judged::default());
    for source in ["crowdsec-hub", "fail2ban", "sshguard", "wazuh", "ossec"] {
        let rows = rows(&folder.join(format!("{source}.jsonl")));
        let attack = judge(
            &site,
            rows.iter().filter(|row| is_attack(row) == Some(true)),
        );
        let calm = judge(
            &site,
            rows.iter().filter(|row| is_attack(row) == Some(false)),
        );
        println!("{source:<14} {:>22} {:>22}", attack.told(), calm.told());
        attacks.add(&attack);
        benign.add(&calm);
    }
    println!("{:<14} {:>22} {:>22}", "all", attacks.told(), benign.told());
    println!(
        "cases with an alert: attack {} of {}",
        attacks.cases_alerted, attacks.cases
    );
    assert!(
        attacks.lines > 1000 && benign.lines > 300,
        "the corpus has changed"
    );
    // Far below what stands; it only tells that the judging works at all.
    assert!(attacks.alerted > 50);
    assert!(
        benign.alerted * 10 < benign.lines,
        "one benign line in ten raises an alert"
    );
}

/// fail2ban and sshguard say so; Wazuh and OSSEC by level; a CrowdSec scenario overflows or doesn't.
fn is_attack(row: &Value) -> Option<bool> {
    let detection = row["expected"].get("detection")?;
    if let Some(is_match) = detection["match"].as_bool() {
        return Some(is_match);
    }
    if let Some(alerts) = detection["alerts"].as_u64() {
        return Some(alerts > 0);
    }
    if detection["negate"].as_bool()? {
        return None; // says that one rule must be silent, not that all should
    }
    match detection["level"].as_str()?.parse::<u8>().ok()? {
        0..=3 => Some(false),
        6.. => Some(true),
        _ => None,
    }
}

fn judge<'a>(site: &Site, rows: impl Iterator<Item = &'a Value>) -> Judged {
    let (mut text, mut starts, mut cases) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let from = starts.len();
        for line in row["lines"].as_array().unwrap() {
            starts.push(text.len() as u64);
            text.extend(line.as_str().unwrap().replace('\n', " ").bytes());
            text.push(b'\n');
        }
        cases.push(from..starts.len());
    }
    let file = site.path("recording.log");
    fs::write(&file, text).unwrap();
    let out = site.run(&["replay", file.to_str().unwrap()]);
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let alerted: BTreeSet<u64> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let alert: Value = serde_json::from_str(line).unwrap();
            let at = alert["origin"]["at"].as_str().unwrap().to_owned();
            at.rsplit(':').next().unwrap().parse().unwrap()
        })
        .collect();
    let has_alerted = |line: usize| alerted.contains(&starts[line]);
    Judged {
        lines: starts.len(),
        alerted: (0..starts.len()).filter(|line| has_alerted(*line)).count(),
        cases: cases.len(),
        cases_alerted: cases
            .into_iter()
            .filter(|lines| lines.clone().any(has_alerted))
            .count(),
    }
}

impl Judged {
    fn told(&self) -> String {
        format!("{} of {}", self.alerted, self.lines)
    }

    fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.alerted += other.alerted;
        self.cases += other.cases;
        self.cases_alerted += other.cases_alerted;
    }
}

fn rows(path: &Path) -> Vec<Value> {
    // Bytes that are no text stand as lone surrogates, which serde_json refuses; such a line is left out.
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn corpus() -> Option<PathBuf> {
    let base = match std::env::var_os("CANHGAC_CORPORA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"),
    };
    Some(base.join("logs/dev")).filter(|folder| folder.is_dir())
}
