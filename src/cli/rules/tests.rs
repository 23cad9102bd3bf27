use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const RULE: &str = "title: Refused\nid: refused\nlevel: low\ntags: [attack.t1110]\nlogsource: {product: linux, service: sshd}\ndetection:\n  s: {TargetUserName: lan}\n  condition: s\n";
const LINE: &str =
    "Nov 22 10:00:00 web1 sshd[120]: Failed password for lan from 203.0.113.9 port 4022 ssh2";

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn loaded(path: &Path) -> Vec<RuleFile> {
    files(&[path.to_owned()]).unwrap()
}

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap()
}

#[test]
fn a_check_tells_faults_and_counts_them() {
    let misspelt = RULE.replace("condition", "conditon");
    let mild = RULE
        .replace("id: refused", "id: mild")
        .replace("level", "levle");
    for (rules, found, last) in [
        (&[RULE][..], false, "1 rules, 0 faults, 0 warnings"),
        (&[RULE, &mild], false, "2 rules, 0 faults, 1 warnings"),
        (&[RULE, &misspelt], true, "1 rules, 1 faults, 0 warnings"),
        (&[RULE, RULE], true, "1 rules, 1 faults, 0 warnings"),
    ] {
        let names = ["a.yml", "b.yaml"];
        let named: Vec<_> = names.into_iter().zip(rules.iter().copied()).collect();
        let folder = folder(&named);
        let mut out = Vec::new();
        assert_eq!(check(&loaded(folder.path()), &mut out).unwrap(), found);
        let out = text(out);
        assert_eq!(out.lines().last(), Some(last), "{out}");
    }
    let mut out = Vec::new();
    assert!(!check(&pack::embedded(), &mut out).unwrap());
}

#[test]
fn nothing_to_look_at_is_a_mistake_of_the_person() {
    let folder = folder(&[("notes.txt", "x"), ("only.test.yml", "rule: x")]);
    for path in [folder.path().to_owned(), folder.path().join("none")] {
        let error = files(&[path]).unwrap_err();
        assert!(error.is::<crate::cli::Usage>(), "{error}");
    }
    let error = test(&pack::embedded(), None, &mut Vec::new()).unwrap_err();
    assert!(error.is::<crate::cli::Usage>(), "{error}");
}

#[test]
fn samples_are_found_played_and_told() {
    let sample = |fires: &str| {
        format!(
            "rule: refused\nfires:\n  - {{name: one, format: syslog, lines: '{fires}'}}\nsilent:\n  - {{name: two, format: syslog, lines: '{}'}}\n",
            LINE.replace("lan", "an")
        )
    };
    let (good, bad) = (sample(LINE), sample("Nov 22 10:00:00 web1 sshd[1]: hello"));
    let foreign = good.replace("rule: refused", "rule: other");
    let odd = good.replace("format: syslog", "format: \"sysl\\e[2J\"");
    let none = "rule: refused\nfires:\n  - {name: one, pcap: none.pcap}\n";
    for (sample, found, said) in [
        (good.as_str(), false, "2 cases, 0 failed"),
        (&bad, true, "one: does not fire"),
        (&foreign, true, "its rule: no rule with the id other"),
        ("rule: refused\nfirse: []", true, "its sample: cannot read"),
        (&odd, true, "one: unknown format `sysl\\u{1b}[2J`"),
        (none, true, "one: cannot open"),
    ] {
        let beside = folder(&[("linux/a.yml", RULE), ("linux/a.test.yml", sample)]);
        let apart = folder(&[("rules/linux/a.yml", RULE), ("samples/linux/a.yml", sample)]);
        let samples = apart.path().join("samples");
        for (rules, samples) in [
            (beside.path().to_owned(), None),
            (apart.path().join("rules"), Some(&*samples)),
        ] {
            let mut out = Vec::new();
            let outcome = test(&loaded(&rules), samples, &mut out).unwrap();
            let out = text(out);
            assert!(out.contains(said), "{out}");
            assert_eq!(outcome, found, "{out}");
        }
    }
}

#[test]
fn the_numbers_of_events_are_summed() {
    let rules = "title: t\nname: sent\nid: sent\nlogsource: {category: web}\ndetection:\n  s: {bytes|exists: true}\n  condition: s\n---\ntitle: s\nid: sum\ncorrelation:\n  type: value_sum\n  rules: [sent]\n  group-by: [ip]\n  timespan: 1m\n  condition: {field: bytes, gte: 1000}\n";
    let line = |bytes: &str| {
        format!(
            "{{\"_ls\":{{\"category\":\"web\"}},\"time\":\"2026-11-22T10:00:00Z\",\"ip\":\"192.0.2.1\",\"bytes\":{bytes}}}"
        )
    };
    let sample = format!(
        "rule: sum\nfires:\n  - name: one\n    format: json\n    alerts: 1\n    lines: |\n      {}\n      {}\nsilent:\n  - name: two\n    format: json\n    lines: |\n      {}\n      {}\n",
        line("\"400\""),
        line("600.5"),
        line("999"),
        line("\"many\"")
    );
    let folder = folder(&[("a.yml", rules), ("a.test.yml", &sample)]);
    let mut out = Vec::new();
    let found = test(&loaded(folder.path()), None, &mut out).unwrap();
    assert!(!found, "{}", text(out));
}

#[test]
fn samples_are_packets_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recording = root.join("tests/data/demo/attack.pcap");
    let rule = "title: t\nid: t\nlogsource: {category: network_connection}\ndetection:\n  s: {DestinationPort|exists: true}\n  condition: s\n";
    let sample = format!(
        "rule: t\nfires:\n  - name: one\n    pcap: {}\n",
        recording.display()
    );
    let folder = folder(&[("a.yml", rule), ("a.test.yml", &sample)]);
    let mut out = Vec::new();
    let found = test(&loaded(folder.path()), None, &mut out).unwrap();
    assert!(!found, "{}", text(out));
}

#[test]
fn a_list_shows_each_rule_in_three_ways() {
    let hostile = RULE.replace("Refused", "\"=x\\e[2J\"");
    let folder = folder(&[("a.yml", &hostile)]);
    let files = loaded(folder.path());
    for (output, said) in [
        (
            Output::Table,
            "low    =x\\u{1b}[2J  linux sshd  detection  attack.t1110",
        ),
        (
            Output::Json,
            r#""logsource":{"product":"linux","service":"sshd"}"#,
        ),
        (Output::Json, r#""kind":"detection""#),
        (Output::Json, r#""level":"low""#),
        (
            Output::Csv,
            r#""low","'=x\u{1b}[2J","linux sshd","detection""#,
        ),
    ] {
        let mut out = Vec::new();
        list(&files, output, &mut out).unwrap();
        let out = text(out);
        assert!(out.contains(said), "{out}");
        assert!(!out.contains('\u{1b}'));
    }
}
