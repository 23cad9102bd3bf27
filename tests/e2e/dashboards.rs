//! Every query of the dashboards and alerting rules runs against a real Prometheus that scrapes a real centre and agent.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::delivery::{EVERY_LINE, NO_FOLD};
use crate::site::{Process, SOON, Site, append, free_port, http_get, wait_for};

/// Series that a healthy site does not have: their queries must run, but may find nothing.
const MAY_BE_EMPTY: &[&str] = &["increase(", "level=~"];

#[test]
fn every_query_finds_something() {
    if Command::new("prometheus")
        .arg("--version")
        .output()
        .is_err()
    {
        assert!(std::env::var("CI").is_err(), "prometheus is missing");
        eprintln!("SKIPPED: prometheus is missing");
        return;
    }
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    site.agent_config(NO_FOLD);
    let _centre = site.start_centre();
    site.enrol();
    let _agent = site.start_agent();
    append(
        &site.log_file("app.log"),
        "Nov 22 10:00:00 web1 app[1]: attack number 1 of many\n",
    );
    wait_for("the alert", SOON, || {
        (site.alerts(&[]).len() == 1).then_some(())
    });
    check_metrics(site.centre_metrics_port);
    check_metrics(site.agent_metrics_port);

    let port = free_port();
    let _prometheus = prometheus(&site, port);
    for query in queries() {
        wait_for(&format!("an answer to {query}"), SOON, || {
            let answer = ask(port, &query)?;
            assert_eq!(answer["status"], "success", "{query}: {answer}");
            let found = answer["data"]["result"].as_array()?.len();
            let may_be_empty = MAY_BE_EMPTY.iter().any(|part| query.contains(part));
            (found > 0 || may_be_empty).then_some(())
        });
    }
}

/// promtool's lints: help texts, units, names.
fn check_metrics(port: u16) {
    let answer = http_get(port, "/metrics").unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let checked = assert_cmd::Command::new("promtool")
        .args(["check", "metrics"])
        .write_stdin(body)
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

fn prometheus(site: &Site, port: u16) -> Process {
    let config = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: ['{rules}']\nscrape_configs:\n  - job_name: canhgac\n    static_configs:\n      - targets: ['127.0.0.1:{centre}', '127.0.0.1:{agent}']\n",
        rules = root().join("dashboards/alerts.yml").display(),
        centre = site.centre_metrics_port,
        agent = site.agent_metrics_port,
    );
    let file = site.path("prometheus.yml");
    fs::write(&file, config).unwrap();
    Process::start(
        Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                site.path("tsdb").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        &site.path("prometheus.out"),
    )
}

/// The expressions of the dashboards with their variables filled in, and those of the alerting rules.
fn queries() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("dashboards")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let board: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            for panel in board["panels"].as_array().unwrap() {
                assert!(
                    panel["description"]
                        .as_str()
                        .is_some_and(|text| !text.is_empty())
                );
                for target in panel["targets"].as_array().unwrap() {
                    found.push(target["expr"].as_str().unwrap().to_owned());
                }
            }
        }
    }
    assert!(found.len() >= 12, "{} queries", found.len());
    found
        .iter()
        .map(|query| {
            query
                .replace("$job", ".+")
                .replace("$instance", ".+")
                .replace("$__rate_interval", "30s")
        })
        .collect()
}

fn ask(port: u16, query: &str) -> Option<Value> {
    let encoded: String = query
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect();
    let answer = http_get(port, &format!("/api/v1/query?query={encoded}"))?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let json = &body[body.find('{')?..=body.rfind('}')?];
    serde_json::from_str(json).ok()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
