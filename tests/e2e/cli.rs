//! What people read: help, faults, tables; and the exit status that scripts read.

use std::fs;
use std::process::{Command, Output, Stdio};

use assert_cmd::prelude::*;

use crate::site::{SOON, Site, append, binary, said, wait_for};

/// Every command but the group names, with the groups themselves.
const COMMANDS: &[&str] = &[
    "",
    "up",
    "agent",
    "centre",
    "replay",
    "rules",
    "rules check",
    "rules test",
    "rules list",
    "rules coverage",
    "rules explain",
    "alerts",
    "alerts list",
    "alerts show",
    "alerts tail",
    "agents",
    "agents list",
    "agents revoke",
    "token",
    "token create",
    "enrol",
    "doctor",
];

const FAULTY_AGENT: &str = "state: /tmp/nowhere
wrkers: 2
zone: Asia/Saigonn
fold:
  budget: many
spool: { bytes_max: 4096 }
sources:
  file:
    - pth: /var/log/auth.log
    - path: '/var/[log'
      decode: sylog
    - path: /var/log/syslog
      from: middle
builtin_rules: perhaps
metrics_listen: 127.0.0.1
";

const FAULTY_CENTRE: &str = "data: /tmp/nowhere\nnames: 5\nagents_listn: 0.0.0.0:1\nagent_connections: 0\nurls: [ftp://x]\n";

fn canhgac(args: &str) -> Output {
    Command::new(binary())
        .args(args.split_whitespace())
        .env("HOME", "/nonexistent")
        .env_remove("CANHGAC_PROFILE")
        .env_remove("CANHGAC_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn help_says_what_each_command_does() {
    let helps: Vec<(String, String)> = COMMANDS
        .iter()
        .map(|command| {
            let out = canhgac(&format!("{command} --help"));
            out.clone().assert().success();
            assert!(out.stderr.is_empty());
            let name = format!("help {command}").trim_end().replace(' ', "-");
            (name, String::from_utf8(out.stdout).unwrap())
        })
        .collect();
    for (name, text) in &helps {
        let (_, listed) = text.split_once("\nCommands:\n").unwrap_or_default();
        let (listed, _) = listed.split_once("\n\n").unwrap_or_default();
        let group = name.trim_start_matches("help").replace('-', " ");
        // A command stands two columns in; further in is the rest of a long line.
        let commands = listed
            .lines()
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next());
        for command in commands.filter(|command| *command != "help") {
            let full = format!("{group} {command}").trim().to_owned();
            assert!(
                COMMANDS.contains(&full.as_str()),
                "`{full}` is not in the list"
            );
        }
    }
    for (name, text) in helps {
        insta::assert_snapshot!(name, text);
    }
}

#[test]
fn every_fault_of_a_file_is_told_at_once_by_every_command_that_reads_it() {
    let site = Site::new();
    let agent = site.path("faulty-agent.yaml");
    let centre = site.path("faulty-centre.yaml");
    fs::write(&agent, FAULTY_AGENT).unwrap();
    fs::write(&centre, FAULTY_CENTRE).unwrap();
    let folder = site.folder.path().display().to_string();
    let shown = |args: &[&str], config| {
        let out = Command::new(binary())
            .args(args)
            .arg("--config")
            .arg(config)
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", said(&out));
        assert!(out.stdout.is_empty(), "{args:?}");
        said(&out).replace(&folder, "FOLDER")
    };
    let told = shown(&["agent", "--check"], &agent);
    insta::assert_snapshot!("faults-of-agent-yaml", told);
    assert_eq!(shown(&["doctor"], &agent), told);
    // There never was a good one, so the service can't run either.
    assert_eq!(shown(&["agent"], &agent), told);
    let told = shown(&["centre", "--check"], &centre);
    insta::assert_snapshot!("faults-of-centre-yaml", told);
    assert_eq!(shown(&["centre"], &centre), told);
    let absent = site.path("absent.yaml");
    assert!(shown(&["doctor"], &absent).contains("cannot read FOLDER/absent.yaml: No such file"));
}

#[test]
fn the_exit_status_tells_scripts_what_happened() {
    for (args, status, words) in [
        ("--version", 0, ""),
        ("", 2, "Usage: canhgac <COMMAND>"),
        ("watch", 2, "unrecognized subcommand 'watch'"),
        ("agent --chek", 2, "--check"),
        (
            "alerts list --output xml",
            2,
            "[possible values: table, json, csv]",
        ),
        ("alerts list --level worst", 2, "worst"),
        ("alerts list", 2, "no profile of a centre"),
        ("alerts list --profile /nonexistent", 2, "/nonexistent"),
        ("enrol --centre https://localhost:1", 2, "--token <TOKEN>"),
        (
            "enrol --centre http://localhost:1 --token x",
            2,
            "https://host:port",
        ),
    ] {
        let out = canhgac(args);
        assert_eq!(out.status.code(), Some(status), "{args}: {}", said(&out));
        assert!(said(&out).contains(words), "{args}: {}", said(&out));
        assert!(status == 0 || out.stdout.is_empty(), "{args}");
    }
}

#[test]
fn no_colour_and_no_terminal_are_obeyed() {
    let site = Site::new();
    fs::write(site.path("agent.yaml"), FAULTY_AGENT).unwrap();
    let config = site.path("agent.yaml");
    let faulty = format!("agent --check --config {}", config.display());
    for args in ["--help", "nonsense", &faulty] {
        let out = canhgac(args);
        let text = [out.stdout, out.stderr].concat();
        assert!(!text.contains(&b'\x1b'), "{args}");
        let line = format!("{} {args}", binary().display());
        let out = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output();
        match out {
            Ok(out) => assert!(!out.stdout.contains(&b'\x1b'), "{args} on a terminal"),
            Err(error) => crate::site::skip(&format!("script(1) is missing: {error}")),
        }
    }
}

#[test]
fn listings_are_tables_json_and_csv_and_a_closed_pipe_is_no_failure() {
    let site = Site::new();
    site.rule("every.yml", crate::delivery::EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(crate::delivery::NO_FOLD);
    site.enrol();
    let lines: String = (0..200)
        .map(|number| {
            format!("Nov 22 10:00:00 web1 app[1]: attack number {number} \x1b[2J, \"quoted\"\n")
        })
        .collect();
    append(&site.log_file("app.log"), &lines);
    let _agent = site.start_agent();
    wait_for("the alerts", SOON, || {
        (site.alerts(&[]).len() == 200).then_some(())
    });
    let list = |output: &str| {
        let out = site.run(&["alerts", "list", "--limit", "3", "--output", output]);
        out.clone().assert().success();
        assert!(
            !out.stdout.contains(&b'\x1b'),
            "{output} passes escape codes on"
        );
        String::from_utf8(out.stdout).unwrap()
    };
    for line in list("json").lines() {
        let alert: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(alert["rule"]["title"], "Every line");
    }
    assert_eq!(list("json").lines().count(), 3);
    assert!(list("csv").starts_with('"'), "{}", list("csv"));
    assert_eq!(list("csv").lines().count(), 4, "{}", list("csv"));
    assert!(list("table").contains("Every line"), "{}", list("table"));
    for args in [
        "alerts list",
        "alerts list --output json",
        "alerts list --output csv",
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = Command::new(binary())
            .args(args.split(' '))
            .env("CANHGAC_PROFILE", site.profile())
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert_eq!(
            (out.status.code(), said(&out).as_str()),
            (Some(0), ""),
            "{args}"
        );
    }
}
