//! Recordings of Windows, read as they are: the public rules' own cases fire from their event logs, and a log that is cut
//! or broken gives what stands before and after.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The folder of rules and events, or a loud word that it is missing; CI must have it.
fn sigma() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let named = std::env::var_os("CANHGAC_CORPORA").map(PathBuf::from);
    let mut folders = named
        .into_iter()
        .chain([beside])
        .map(|folder| folder.join("sigma"));
    let found = folders.find(|folder| folder.is_dir());
    if found.is_none() {
        assert!(std::env::var("CI").is_err(), "the public rules are missing");
        eprintln!("SKIPPED: the public rules are missing; name their folder in CANHGAC_CORPORA");
    }
    found
}

fn replay(rules: &Path, inputs: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_canhgac"))
        .arg("replay")
        .arg("--rules")
        .arg(rules)
        .args(["--format", "evtx", "--stats"])
        .args(inputs)
        .output()
        .unwrap()
}

/// The figures, on the last line of stderr.
fn stats(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap()
}

#[test]
fn the_public_cases_fire_from_their_event_logs() {
    let Some(sigma) = sigma() else { return };
    let output = replay(&sigma.join("rules"), &[&sigma.join("dev/evtx")]);
    let mut hits: BTreeMap<(String, String), u64> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let alert: Value = serde_json::from_str(line).unwrap();
        let source = alert["origin"]["source"].as_str().unwrap();
        let file = source.rsplit('/').next().unwrap().to_owned();
        let rule = alert["rule"]["id"].as_str().unwrap().to_owned();
        *hits.entry((file, rule)).or_default() += 1;
    }
    let cases = fs::read_to_string(sigma.join("dev/regression.jsonl")).unwrap();
    let (mut fired, mut exact, mut counted, mut all) = (0, 0, 0, 0);
    let mut missed = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let file = case["evtx"].as_str().unwrap().rsplit('/').next().unwrap();
        let rules = case["expected_rule_ids"].as_array().unwrap();
        let counts: Vec<u64> = rules
            .iter()
            .map(|rule| {
                let key = (file.to_owned(), rule.as_str().unwrap().to_owned());
                hits.get(&key).copied().unwrap_or_default()
            })
            .collect();
        all += 1;
        if counts.iter().all(|&count| count > 0) {
            fired += 1;
        } else {
            missed.push(file.to_owned());
        }
        if let Some(stated) = case["match_count"].as_u64() {
            counted += 1;
            exact += u32::from(counts.iter().all(|&count| count == stated));
        }
    }
    println!(
        "{fired} of {all} cases fire from their event logs, {exact} of {counted} with the stated count"
    );
    assert!(missed.is_empty(), "{missed:?}");
    // Two cases state fewer matches than their logs hold: three files of one name's pattern, two values of a key.
    assert!(exact + 2 >= counted);
}

#[test]
fn a_broken_event_log_gives_what_stands_around_the_break() {
    let Some(sigma) = sigma() else { return };
    let mut logs: Vec<PathBuf> = fs::read_dir(sigma.join("dev/evtx"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    logs.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).unwrap().len()));
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    fs::create_dir(&rules).unwrap();
    let rule = "title: Any\nid: 8c1b8a0e-5d2b-4c7e-9a53-0d2f6a1f4c11\nlogsource: { product: windows }\ndetection: { s: { Channel|contains: '' }, condition: s }\nlevel: low\n";
    fs::write(rules.join("any.yml"), rule).unwrap();
    let whole = fs::read(&logs[0]).unwrap();
    // A log is a head of 4 KiB and chunks of 64 KiB: a second, broken chunk between two good ones.
    let (head, chunk) = (&whole[..4096], &whole[4096..4096 + 65_536]);
    let broken = vec![0x5a; 65_536];
    let path = folder.path().join("broken.evtx");
    let count = |path: &Path| {
        let output = replay(&rules, &[path]);
        let stats = stats(&output);
        (
            stats["events"].as_u64().unwrap(),
            stats["breaks"].as_u64().unwrap(),
            output.status.code(),
        )
    };
    fs::write(&path, [head, chunk].concat()).unwrap();
    let (one, breaks, status) = count(&path);
    assert!(
        one > 0 && breaks == 0 && status == Some(0),
        "{one} {breaks}"
    );
    fs::write(&path, [head, chunk, &broken, chunk].concat()).unwrap();
    let (both, breaks, _) = count(&path);
    assert_eq!(both, 2 * one);
    assert!(breaks > 0, "the break was not counted");
    fs::write(&path, [head, chunk, &chunk[..30_000]].concat()).unwrap();
    let (cut, ..) = count(&path);
    assert!(
        cut >= one,
        "what stood before the cut was lost: {cut} of {one}"
    );
    for junk in [&b"ElfFile\0"[..], &[0x45; 9000], b""] {
        fs::write(&path, junk).unwrap();
        let output = replay(&rules, &[&path]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("broken.evtx"));
    }
}
