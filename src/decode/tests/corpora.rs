//! How much of the public corpora is understood. The figures are for people; the bounds are what stood when they
//! were written, so that a later change can't quietly lose a format.

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::Value as Json;

use super::*;

/// The folder of labelled lines, or a loud word that it is missing; CI must have it.
fn corpus(name: &str) -> Option<Vec<Json>> {
    let root = env::var_os("CANHGAC_CORPORA")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora"));
    let path = root.join("logs/dev").join(name);
    let Ok(text) = fs::read_to_string(&path) else {
        assert_ne!(
            env::var("CI").as_deref(),
            Ok("true"),
            "no corpus at {}",
            path.display()
        );
        eprintln!("SKIPPED: no corpus at {}", path.display());
        return None;
    };
    // Lone surrogates stand for bytes that were no UTF-8; none of the lines judged here has one.
    Some(
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
    )
}

fn lines(case: &Json) -> impl Iterator<Item = &str> {
    case["lines"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
}

/// Counts the cases that hold, and shows up to 120 that don't when `CANHGAC_SHOW` is set.
struct Share {
    what: String,
    held: usize,
    all: usize,
    missed: Vec<String>,
}

impl Share {
    fn of(what: &str) -> Self {
        Self {
            what: what.into(),
            held: 0,
            all: 0,
            missed: Vec::new(),
        }
    }

    fn add(&mut self, held: bool, miss: impl FnOnce() -> String) {
        self.all += 1;
        match held {
            true => self.held += 1,
            false => self.missed.push(miss()),
        }
    }

    fn percent(&self) -> f64 {
        100.0 * self.held as f64 / self.all.max(1) as f64
    }

    fn join(&mut self, other: Self) {
        self.held += other.held;
        self.all += other.all;
        self.missed.extend(other.missed);
    }

    /// The interval of Wilson (1927) that holds the true share with 95 % confidence, in percent.
    fn interval(&self) -> (f64, f64) {
        let (n, z) = (self.all.max(1) as f64, 1.96_f64);
        let p = self.held as f64 / n;
        let middle = p + z * z / (2.0 * n);
        let half = z * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        let scale = 100.0 / (1.0 + z * z / n);
        ((middle - half) * scale, (middle + half) * scale)
    }

    fn print(&self) {
        let (low, high) = self.interval();
        eprintln!(
            "{}: {} of {} ({:.1} %, 95 % interval {low:.1}–{high:.1})",
            self.what,
            self.held,
            self.all,
            self.percent()
        );
        if env::var_os("CANHGAC_SHOW").is_some() {
            for miss in self.missed.iter().take(120) {
                eprintln!("    {miss}");
            }
        }
    }
}

/// The formats that are supported, by the corpus's own names.
const ATTEMPTS: [&str; 3] = ["f2b:sshd", "f2b:pam-generic", "f2b:vsftpd"];

/// Jails over logs of web servers, proxies, databases and audit, and over files of JSON: other formats read those.
const OTHER_ROOMS: [&str; 14] = [
    "apache-",
    "nginx-",
    "haproxy-",
    "traefik-",
    "php-url",
    "openhab",
    "selinux",
    "mongodb",
    "cowrie",
    "grafana",
    "zoneminder",
    "bsd/",
    "squid",
    // Lines made up to try fail2ban itself, of no program.
    "zzz-generic-example",
];

/// The command that prints the table: `cargo nextest run --lib --no-capture -E 'test(attempts_of_every_jail)'`.
#[test]
fn attempts_of_every_jail_are_failures_from_the_host_named() {
    let Some(cases) = corpus("fail2ban.jsonl") else {
        return;
    };
    let (mut all, mut none) = (
        Share::of(
            "fail2ban, syslog and programs' own files, match: true, Outcome failure from the host",
        ),
        Share::of("fail2ban, syslog and programs' own files, match: false, no failure"),
    );
    let mut jails: Vec<&str> = cases
        .iter()
        .filter_map(|case| case["format"].as_str())
        .collect();
    jails.sort_unstable();
    jails.dedup();
    for jail in jails {
        let name = jail.strip_prefix("f2b:").unwrap_or(jail);
        if OTHER_ROOMS.iter().any(|other| name.starts_with(other)) {
            continue;
        }
        let (mut attempts, mut others) = (Share::of(jail), Share::of(jail));
        let mut decoder = for_format(Format::Auto, &around());
        for case in cases.iter().filter(|case| case["format"] == jail) {
            let expected = &case["expected"]["detection"];
            for line in lines(case) {
                let (seen, _) = decoded(&mut *decoder, &record(line), Unknown::Drop);
                judge(expected, line, &seen, &mut attempts, &mut others);
            }
        }
        eprintln!(
            "{jail:<28} {:>4} of {:<4} attempts, {:>3} of {:<3} others kept silent",
            attempts.held, attempts.all, others.held, others.all
        );
        all.join(attempts);
        none.join(others);
    }
    all.print();
    none.print();
    assert!(all.percent() >= 95.0 && none.percent() >= 98.0);
}

#[test]
fn failed_logins_are_failures_from_the_host_named() {
    let Some(cases) = corpus("fail2ban.jsonl") else {
        return;
    };
    for format in ATTEMPTS {
        let mut attempts = Share::of(&format!(
            "{format}, match: true, Outcome failure from the host"
        ));
        let mut others = Share::of(&format!("{format}, match: false, no failure"));
        let mut decoder = for_format(Format::Syslog, &around());
        for case in cases.iter().filter(|case| case["format"] == format) {
            let expected = &case["expected"]["detection"];
            for line in lines(case) {
                let (seen, _) = decoded(&mut *decoder, &record(line), Unknown::Drop);
                judge(expected, line, &seen, &mut attempts, &mut others);
            }
        }
        attempts.print();
        others.print();
        if format == "f2b:sshd" {
            assert!(
                attempts.percent() >= 90.0 && others.percent() >= 95.0,
                "{format}"
            );
        }
    }
}

#[test]
fn sshguards_lines_are_failures_from_the_host_named() {
    let Some(cases) = corpus("sshguard.jsonl") else {
        return;
    };
    let mut attempts = Share::of("sshguard, match: true, Outcome failure from the host");
    let mut others = Share::of("sshguard, match: false, no failure");
    for case in &cases {
        let expected = &case["expected"]["detection"];
        let service = expected["service"].as_str().unwrap_or_default();
        // Access lines are attacks there, and no failed logins.
        if matches!(service, "350" | "360" | "370") {
            continue;
        }
        let mut decoder = for_format(Format::Auto, &around());
        for line in lines(case) {
            let (seen, _) = decoded(&mut *decoder, &record(line), Unknown::Drop);
            judge(expected, line, &seen, &mut attempts, &mut others);
        }
    }
    attempts.print();
    others.print();
    assert!(attempts.percent() >= 95.0);
}

fn judge(expected: &Json, line: &str, seen: &[Seen], attempts: &mut Share, others: &mut Share) {
    let event = &seen[0];
    let failed = event.first("Outcome") == Some("failure");
    let found = event.first("SourceIp").or(event.first("SourceHostname"));
    let told = || format!("{line}\n      -> {}", event.fields);
    match expected["match"].as_bool() {
        Some(true) => {
            let host = expected["host"].as_str();
            // One address may be written in many ways.
            let same = |a: &str, b: &str| match (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
                (Ok(a), Ok(b)) => a == b,
                _ => a == b,
            };
            let is_host = match (host, found) {
                (Some(host), Some(found)) => same(host, found),
                (host, _) => host.is_none(),
            };
            attempts.add(failed && is_host, told);
        }
        Some(false) => others.add(!failed, told),
        None => {}
    }
}

#[test]
fn headers_of_loghub_are_read_as_labelled() {
    let Some(cases) = corpus("loghub.jsonl") else {
        return;
    };
    let mut headers = Share::of("loghub, syslog headers as labelled");
    for case in cases.iter().filter(|case| case["format"] == "syslog3164") {
        let expected = &case["expected"]["fields"];
        for line in lines(case) {
            let (seen, _) = one(Format::Syslog, line);
            let is_same = [
                ("host", "Computer"),
                ("program", "Program"),
                ("pid", "ProcessId"),
                ("message", "Message"),
            ]
            .iter()
            .all(|(theirs, ours)| match expected[theirs].as_str() {
                None | Some("") => true,
                Some(value) => seen
                    .values
                    .iter()
                    .any(|(name, found)| name == ours && found.trim_end() == value.trim_end()),
            });
            headers.add(is_same, || {
                format!("{line}\n      -> {} <> {expected}", seen.fields)
            });
        }
    }
    headers.print();
    assert!(headers.percent() >= 95.0);
}

#[test]
fn syslog_and_access_lines_of_crowdsec_are_read_as_labelled() {
    let Some(cases) = corpus("crowdsec-hub.jsonl") else {
        return;
    };
    let pairs = [
        ("parsed.message", "Message"),
        ("parsed.program", "Program"),
        ("parsed.pid", "ProcessId"),
        ("meta.machine", "Computer"),
        ("parsed.remote_addr", "c-ip"),
        ("parsed.clientip", "c-ip"),
        ("parsed.verb", "cs-method"),
        ("parsed.request", "cs-uri-query"),
        ("parsed.status", "sc-status"),
        ("parsed.response", "sc-status"),
        ("parsed.http_user_agent", "cs-user-agent"),
    ];
    for (format, ours) in [
        ("cs:syslog", Format::Syslog),
        ("cs:nginx", Format::Access),
        ("cs:apache2", Format::Access),
    ] {
        let mut understood = Share::of(&format!("{format}, lines understood"));
        let mut values = Share::of(&format!("{format}, values as labelled"));
        for case in cases.iter().filter(|case| case["format"] == format) {
            let expected = &case["expected"]["fields"];
            let is_theirs = case["expected"]["ok"] != Json::Bool(false);
            for line in lines(case) {
                let (seen, outcome) = one(ours, line);
                understood.add(outcome.is_ok(), || line.into());
                if outcome.is_err() || !is_theirs {
                    continue;
                }
                for (theirs, name) in pairs {
                    let Some(value) = expected[theirs]
                        .as_str()
                        .filter(|v| !matches!(*v, "" | "-"))
                    else {
                        continue;
                    };
                    if ours == Format::Access
                        && matches!(name, "Message" | "Program" | "ProcessId" | "Computer")
                    {
                        continue;
                    }
                    let held = seen.values.iter().any(|(n, v)| n == name && v == value);
                    values.add(held, || {
                        format!("{theirs}={value} in {line}\n      -> {}", seen.fields)
                    });
                }
            }
        }
        understood.print();
        values.print();
    }
}
