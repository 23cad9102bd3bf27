//! A line in a log is an alert at the centre, soon and once.

use std::time::{Duration, Instant};

use crate::site::{SOON, Site, append, rotate_by_copy, rotate_by_rename, wait_for};

/// Fires on every line of the tests' logs and keeps its number.
pub const EVERY_LINE: &str = "title: Every line
id: 5f0b1c1e-0000-4000-8000-000000000001
status: test
logsource:
    product: linux
detection:
    keywords:
        - 'attack number'
    condition: keywords
level: medium
";

pub const NO_FOLD: &str = "fold: { window: 0s }\n";

fn line(number: usize) -> String {
    format!("Nov 22 10:00:00 web1 app[1]: attack number {number} of many\n")
}

/// The number in an alert's raw record.
pub fn number_of(alert: &serde_json::Value) -> usize {
    let raw = alert["raw"].as_str().unwrap();
    let rest = raw.split("attack number ").nth(1).unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_line_is_an_alert_within_two_seconds() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    let log = site.log_file("app.log");
    append(&log, &line(0));
    let _agent = site.start_agent();
    site.wait_for_alerts(1);
    let mut times: Vec<Duration> = (1..=200)
        .map(|number| {
            append(&log, &line(number));
            let written = Instant::now();
            let port = site.centre_metrics_port;
            // The counter is added to after the commit, so the alert is in the history when it moves.
            wait_for("the alert", SOON, || {
                let stored = site.metric(port, "canhgac_centre_alerts_total");
                (stored >= number as f64 + 1.0).then_some(())
            });
            written.elapsed()
        })
        .collect();
    times.sort();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("line to history over 200 lines: p50 {p50:?}, p99 {p99:?}");
    assert_eq!(site.alerts(&[]).len(), 201);
    assert!(p99 < Duration::from_secs(2), "p99 {p99:?}");
}

#[test]
fn rotation_in_mid_stream_loses_and_doubles_nothing() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    let agent = site.start_agent();
    let log = site.log_file("app.log");
    let total = 2000;
    append(&log, &line(0));
    site.wait_for_alerts(1);
    for number in 1..total {
        append(&log, &line(number));
        match number % 400 {
            199 => rotate_by_rename(&log, number),
            399 => rotate_by_copy(&log, number),
            _ => {}
        }
    }
    let stored = |site: &Site| site.metric(site.centre_metrics_port, "canhgac_centre_alerts_total");
    let is_whole = site.settles(SOON * 2, |site| stored(site) >= total as f64);
    let mut counts = vec![0; total];
    site.alerts(&[])
        .iter()
        .map(number_of)
        .for_each(|n| counts[n] += 1);
    let wrong: Vec<_> = (0..total)
        .filter(|n| counts[*n] != 1)
        .map(|n| (n, counts[n]))
        .collect();
    assert!(
        wrong.is_empty() && is_whole,
        "lines not there once: {wrong:?}\n{}",
        agent.log_text()
    );
}

#[test]
fn an_agent_without_a_centre_keeps_its_alerts() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let mut centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    centre.kill();
    let _agent = site.start_agent();
    let log = site.log_file("app.log");
    for number in 0..50 {
        append(&log, &line(number));
    }
    wait_for("the spool to fill", SOON, || {
        (site.metric(site.agent_metrics_port, "canhgac_agent_spool_rows") >= 50.0).then_some(())
    });
    let _centre = site.start_centre();
    wait_for("the alerts to arrive", SOON * 4, || {
        (site.alerts(&[]).len() == 50).then_some(())
    });
}

#[test]
fn a_line_that_is_no_text_is_an_alert_all_the_same() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    let log = site.log_file("app.log");
    let mut bytes =
        b"Nov 22 10:00:00 web1 app[1]: attack number 1 \xff\xfe\x00\x1b[2J\r tail\n".to_vec();
    bytes.extend(b"Nov 22 10:00:00 web1 app[1]: attack number 2 ");
    bytes.extend(std::iter::repeat_n(b'x', 200_000));
    bytes.extend(b"\nNov 22 10:00:00 web1 app[1]: attack number 3 of many\n");
    std::fs::write(&log, bytes).unwrap();
    let _agent = site.start_agent();
    site.wait_for_alerts(3);
    let table = site.run(&["alerts", "list"]);
    assert!(
        !table.stdout.contains(&0x1b),
        "an escape code reached the terminal"
    );
    let alerts = site.alerts(&[]);
    let long = alerts.iter().find(|alert| number_of(alert) == 2).unwrap();
    assert!(long["cut"].as_array().unwrap().contains(&"raw".into()));
}
