//! kill -9 of agent or centre at random instants, also in mid-rotation and with correlation windows open, while a
//! known stream of 10,000 attack lines is written: the history holds every one exactly once.
//! CANHGAC_KILL_ROUNDS sets the rounds (10 by default), CANHGAC_SEED the instants.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::delivery::{EVERY_LINE, NO_FOLD, number_of};
use crate::site::{Process, SOON, Site, append, rotate_by_copy, rotate_by_rename, tally, wait_for};

const LINES: usize = 10_000;
/// Addresses that attack in turn; each is a fold's key and a correlation's group.
const ATTACKERS: usize = 7;
/// The correlation fires on every so many events of one address.
const THRESHOLD: usize = 100;

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
    let _centre = under_fire(&site, line, |site| site.alerts(&[]).len() >= LINES);
    let alerts = site.alerts(&[]);
    let numbers: BTreeSet<_> = alerts.iter().map(number_of).collect();
    let ids: BTreeSet<_> = alerts.iter().map(|alert| alert["id"].to_string()).collect();
    println!(
        "folding off: {} alerts, {} ids, {} of {LINES} lines",
        alerts.len(),
        ids.len(),
        numbers.len()
    );
    assert_eq!(numbers.len(), LINES, "lines are missing");
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
        format!(
            "2026-11-22T10:{:02}:{:02}+00:00 web1 sshd[{number}]: Failed password for root from 203.0.113.{} port {} ssh2\n",
            number / 60 % 60 / 10,
            number % 60,
            number % ATTACKERS + 1,
            1024 + number % 60_000,
        )
    };
    let _centre = under_fire(&site, line, |site| {
        let failures = site.alerts(&["--rule", "5f0b1c1e-0000-4000-8000-000000000002"]);
        let counted: u64 = tally(&failures, address).values().sum();
        counted >= LINES as u64
    });
    let failures = site.alerts(&["--rule", "5f0b1c1e-0000-4000-8000-000000000002"]);
    let written: BTreeMap<_, _> = (1..=ATTACKERS)
        .map(|n| {
            let lines = (0..LINES).filter(|number| number % ATTACKERS + 1 == n);
            (format!("203.0.113.{n}"), lines.count() as u64)
        })
        .collect();
    println!(
        "folding on: {} alerts of {ATTACKERS} addresses",
        failures.len()
    );
    assert_eq!(tally(&failures, address), written);
    assert_eq!(failures.len(), ATTACKERS, "one id a window");

    // Each window of the correlation survived: every hundredth failure of an address completed one.
    let many = site.alerts(&["--rule", "5f0b1c1e-0000-4000-8000-000000000003"]);
    let completed: BTreeMap<_, _> = written
        .iter()
        .map(|(address, lines)| (address.clone(), lines / THRESHOLD as u64))
        .collect();
    assert_eq!(tally(&many, address), completed);
}

fn address(alert: &serde_json::Value) -> String {
    alert["fields"]["SourceIp"]
        .as_str()
        .unwrap_or("?")
        .to_owned()
}

/// Writes the lines while agent and centre are killed, then waits until `is_done`; returns the centre for questions.
fn under_fire(
    site: &Site,
    line: impl Fn(usize) -> String,
    is_done: impl Fn(&Site) -> bool,
) -> Process {
    let rounds: usize = number("CANHGAC_KILL_ROUNDS", 10);
    let mut chance = Chance(number("CANHGAC_SEED", 0x5eed) as u64 | 1);
    println!("{rounds} rounds, seed {}", chance.0);
    let mut centre = site.start_centre();
    site.enrol();
    let mut agent = site.start_agent();
    let log = site.log_file("auth.log");
    append(&log, &line(0));
    site.wait_for_alerts(1);
    let mut written = 1;
    for round in 0..rounds {
        let until = LINES * (round + 1) / rounds;
        // The kill falls at a random line of the round and at a random instant after it.
        let at = written + 1 + chance.below(until - written);
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
    wait_for("every line to arrive", SOON * 6, || {
        is_done(site).then_some(())
    });
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
