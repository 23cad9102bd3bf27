//! kill -9 of agent or centre at random instants, also in mid-rotation and with correlation windows open, while a
//! known stream of 10,000 attack lines is written: the history holds every one exactly once.
//! CANHGAC_KILL_ROUNDS sets the rounds (10 by default), CANHGAC_SEED the instants.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::delivery::{EVERY_LINE, NO_FOLD, number_of};
use crate::site::{Process, SOON, Site, append, rotate_by_copy, rotate_by_rename, tally, wait_for};

const LINES: usize = 10_000;
/// Addresses that attack in turn; each is a fold's key and a correlation's group.
const ATTACKERS: usize = 7;
/// The correlation fires on every so many events of one address.
const THRESHOLD: usize = 100;

const FAILURE_ID: &str = "5f0b1c1e-0000-4000-8000-000000000002";
const MANY_ID: &str = "5f0b1c1e-0000-4000-8000-000000000003";

const EVERY_ID: &str = "5f0b1c1e-0000-4000-8000-000000000001";
const END_ID: &str = "5f0b1c1e-0000-4000-8000-000000000004";

const END: &str = "title: End
id: 5f0b1c1e-0000-4000-8000-000000000004
status: test
logsource:
    product: linux
detection:
    keywords:
        - 'end of stream'
    condition: keywords
level: informational
";

/// Failures by sshd, one alert each; folded by source address.
const FAILURE: &str = "title: Failure
id: 5f0b1c1e-0000-4000-8000-000000000002
name: failure
status: test
logsource:
    product: linux
    service: sshd
detection:
    selection:
        Outcome: failure
    condition: selection
level: low
";

const CORRELATION: &str = "title: Many failures
id: 5f0b1c1e-0000-4000-8000-000000000003
status: test
correlation:
    type: event_count
    rules:
        - failure
    generate: true
    group-by:
        - SourceIp
    timespan: 1h
    condition:
        gte: 100
level: high
";

#[test]
fn ten_thousand_lines_arrive_once_each_without_folding() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    site.agent_config(NO_FOLD);
    let line =
        |number: usize| format!("Nov 22 10:00:00 web1 app[1]: attack number {number} of many\n");
    let _centre = under_fire(&site, line, "", |site| {
        site.alerts(&["--rule", EVERY_ID]).len() >= LINES
    });
    let alerts = site.alerts(&["--rule", EVERY_ID]);
    let numbers: BTreeSet<_> = alerts.iter().map(number_of).collect();
    let ids: BTreeSet<_> = alerts.iter().map(|alert| alert["id"].to_string()).collect();
    println!(
        "folding off: {} alerts, {} ids, {} of {LINES} lines",
        alerts.len(),
        ids.len(),
        numbers.len()
    );
    let missing: Vec<_> = (0..LINES).filter(|n| !numbers.contains(n)).collect();
    assert!(
        missing.is_empty(),
        "{} lines are missing, such as {:?}",
        missing.len(),
        missing.first()
    );
    assert_eq!(alerts.len(), LINES, "lines are doubled");
    assert_eq!(ids.len(), LINES);
}

#[test]
fn ten_thousand_lines_are_counted_once_each_with_folding() {
    let site = Site::new();
    site.rule("failure.yml", FAILURE);
    site.rule("many.yml", CORRELATION);
    site.agent_config("");
    let line = |number: usize| {
        let clock = format!("10:0{}:{:02}", number / 60 % 6, number % 60);
        failure(&clock, number)
    };
    // Two hours later: the first event past its end closes a fold, and its whole count is sent.
    let later: String = (0..ATTACKERS * THRESHOLD)
        .map(|number| failure("12:00:00", number))
        .collect();
    let written: BTreeMap<_, _> = (1..=ATTACKERS)
        .map(|n| {
            let lines = (0..LINES).filter(|number| number % ATTACKERS + 1 == n);
            (format!("203.0.113.{n}"), lines.count() as u64)
        })
        .collect();
    // Each window of the correlation survives: every hundredth failure of an address completes one.
    let completed: BTreeMap<_, _> = written
        .iter()
        .map(|(address, lines)| (address.clone(), lines / THRESHOLD as u64))
        .collect();
    let first_hour =
        |site: &Site, rule: &str| site.alerts(&["--rule", rule, "--until", "2026-11-22T11:00:00Z"]);
    let _centre = under_fire(&site, line, &later, |site| {
        tally(&first_hour(site, FAILURE_ID), address) == written
            && tally(&first_hour(site, MANY_ID), address) == completed
    });
    let failures = first_hour(&site, FAILURE_ID);
    println!(
        "folding on: {} alerts of {ATTACKERS} addresses",
        failures.len()
    );
    assert_eq!(tally(&failures, address), written);
    assert_eq!(failures.len(), ATTACKERS, "one id a window");
    let many = first_hour(&site, MANY_ID);
    assert_eq!(tally(&many, address), completed);
    assert_eq!(many.len(), ATTACKERS, "one id a window");
}

fn failure(clock: &str, number: usize) -> String {
    format!(
        "2026-11-22T{clock}+00:00 web1 sshd[{number}]: Failed password for root from 203.0.113.{} port {} ssh2\n",
        number % ATTACKERS + 1,
        1024 + number % 60_000,
    )
}

fn address(alert: &serde_json::Value) -> String {
    alert["fields"]["SourceIp"]
        .as_str()
        .unwrap_or("?")
        .to_owned()
}

/// Writes the lines while agent and centre are killed, then what comes `later`, and waits until `is_done`; returns the
/// centre for questions.
fn under_fire(
    site: &Site,
    line: impl Fn(usize) -> String,
    later: &str,
    is_done: impl Fn(&Site) -> bool,
) -> Process {
    let rounds: usize = number("CANHGAC_KILL_ROUNDS", 10);
    let mut chance = Chance(number("CANHGAC_SEED", 0x5eed) as u64 | 1);
    println!("{rounds} rounds, seed {}", chance.0);
    site.rule("end.yml", END);
    let mut centre = site.start_centre();
    site.enrol();
    let mut agent = site.start_agent();
    let log = site.log_file("auth.log");
    // The agent knows the log before anything is killed: what was rotated away before its first commit, nobody saw.
    append(&log, &line(0));
    wait_for("the first line", SOON, || {
        (!site.alerts(&[]).is_empty()).then_some(())
    });
    let mut written = 1;
    for round in 0..rounds {
        let until = LINES * (round + 1) / rounds;
        // The kill falls at a random line of the round and at a random instant after it.
        let at = written + chance.below(until - written);
        while written < until {
            append(&log, &line(written));
            written += 1;
            if written == at {
                rotate(&log, round, &mut chance);
                spin(Duration::from_micros(chance.below(80_000) as u64));
                strike(site, &mut chance, &mut agent, &mut centre);
            }
            spin(Duration::from_micros(50));
        }
    }
    // Behind this line all of the stream has been judged.
    append(
        &log,
        "2026-11-22T10:09:00+00:00 web1 app[1]: end of stream\n",
    );
    wait_for("the end of the stream", SOON * 2, || {
        (!site.alerts(&["--rule", END_ID]).is_empty()).then_some(())
    });
    append(&log, later);
    let is_whole = site.settles(SOON * 4, &is_done);
    if !is_whole {
        eprintln!(
            "not all arrived; the agent says:
{}",
            agent.log_text()
        );
        eprintln!("log files: {}", listing(site));
    }
    // What would come twice comes now: the agent stops in order, and starts once more.
    assert_eq!(agent.stop(), Some(0), "{}", agent.log_text());
    agent = site.start_agent();
    let port = site.agent_metrics_port;
    wait_for("the agent to be idle", SOON, || {
        let is_up = site.metric(port, "canhgac_agent_build_info") > 0.0;
        (is_up && site.metric(port, "canhgac_agent_spool_rows") == 0.0).then_some(())
    });
    assert_eq!(agent.stop(), Some(0), "{}", agent.log_text());
    centre
}

/// The log files with their sizes, for the message of a failure.
fn listing(site: &Site) -> String {
    let mut files: Vec<_> = std::fs::read_dir(site.path("logs"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            format!(
                "{} inode {} {} bytes; ",
                entry.path().display(),
                meta.ino(),
                meta.len()
            )
        })
        .collect();
    files.sort();
    files.concat()
}

fn rotate(log: &std::path::Path, round: usize, chance: &mut Chance) {
    match chance.below(3) {
        0 => rotate_by_rename(log, round),
        1 => rotate_by_copy(log, round),
        _ => {}
    }
}

fn strike(site: &Site, chance: &mut Chance, agent: &mut Process, centre: &mut Process) {
    match chance.below(3) {
        0 => {
            centre.kill();
            *centre = site.start_centre();
        }
        _ => {
            agent.kill();
            *agent = site.start_agent();
        }
    }
}

/// Waits without giving up the core: the instants are far below what a timer keeps.
fn spin(duration: Duration) {
    let until = Instant::now() + duration;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// xorshift64: the seed is printed, so that a round can be run again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}
