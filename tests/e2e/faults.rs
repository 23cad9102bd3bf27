//! What is wrong on the host or with its files: one sentence that names it, and the work goes on where it can.

use std::fs;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::delivery::{EVERY_LINE, NO_FOLD, number_of};
use crate::site::{Process, SOON, Site, append, binary, is_root, said, skip, wait_for};

const NAMES_ALICE: &str = "title: Alice
id: 5f0b1c1e-0000-4000-8000-000000000002
status: test
logsource:
    product: linux
detection:
    keywords:
        - 'alice'
    condition: keywords
level: high
";

const BROKEN: &str = "title: Broken
id: 5f0b1c1e-0000-4000-8000-000000000003
status: test
logsource:
    product: linux
detection:
    selection:
        user|nosuchmodifier: x
    condition: selection
level: high
";

#[test]
fn a_service_does_not_go_blind_over_its_file() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    wait_for("the copy of the good file", SOON, || {
        site.path("agent/agent.yaml.good").exists().then_some(())
    });
    assert_eq!(agent.stop(), Some(0));
    site.change_agent("builtin_rules", "builtin_ruls: false");
    append(&site.path("agent.yaml"), "workers: many\n");

    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    append(
        &site.log_file("app.log"),
        "Nov 22 10:00:00 web1 app[1]: attack number 1 of many\n",
    );
    wait_for("the alert", SOON, || {
        (site.alerts(&[]).len() == 1).then_some(())
    });
    let metric = "canhgac_agent_degraded{what=\"config\"}";
    assert_eq!(site.sample(site.agent_metrics_port, metric), Some(1.0));
    let log = agent.log_text();
    assert!(log.contains("unknown field `builtin_ruls`"), "{log}");
    assert!(log.contains("its last good copy is in force"), "{log}");
    wait_for("the heartbeat", SOON, || {
        (site.agent()["degraded"] == serde_json::json!(["config"])).then_some(())
    });

    site.change_agent("builtin_ruls", "builtin_rules: false");
    site.change_agent("workers", "workers: 1");
    assert_eq!(agent.stop(), Some(0));
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    assert_ne!(site.sample(site.agent_metrics_port, metric), Some(1.0));
    wait_for("the heartbeat", SOON, || {
        site.agent().get("degraded").is_none().then_some(())
    });
}

#[test]
fn a_broken_rule_is_left_out_and_the_others_fire() {
    let site = Site::new();
    site.rule("a-broken.yml", BROKEN);
    site.rule("every.yml", EVERY_LINE);
    site.rule("nonsense.yml", "title: [\n");
    let _centre = site.start_centre();
    let config = site.agent_config(NO_FOLD);
    site.enrol();
    let checked = Command::new(binary())
        .args(["agent", "--check", "--config"])
        .arg(&config)
        .output();
    let checked = checked.unwrap();
    assert_eq!(checked.status.code(), Some(3));
    for words in ["a-broken.yml:8", "nosuchmodifier", "nonsense.yml"] {
        assert!(said(&checked).contains(words), "{}", said(&checked));
    }
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    append(
        &site.log_file("app.log"),
        "Nov 22 10:00:00 web1 app[1]: attack number 1 of many\n",
    );
    wait_for("the alert", SOON, || {
        (site.alerts(&[]).len() == 1).then_some(())
    });
    for (state, count) in [("rejected", 2.0), ("loaded", 1.0)] {
        let name = format!("canhgac_agent_rules{{state=\"{state}\"}}");
        assert_eq!(
            site.sample(site.agent_metrics_port, &name),
            Some(count),
            "{state}"
        );
    }
    assert!(
        agent.log_text().contains("a rule is left out"),
        "{}",
        agent.log_text()
    );
}

#[test]
fn a_folder_of_rules_that_is_gone_blinds_nobody_to_the_others() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    let config = site.agent_config(NO_FOLD);
    site.enrol();
    let (there, gone) = (site.path("rules"), site.path("gone"));
    let both = format!("rules: [{}, {}]", gone.display(), there.display());
    site.change_agent("rules", &format!("rules: [{}]", gone.display()));
    // Without a single rule the logs wait on disk for rules.
    let out = run("agent", &config);
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    let words = format!(
        "error: cannot read rules in {}: No such file",
        gone.display()
    );
    assert!(said(&out).contains(&words), "{}", said(&out));
    site.change_agent("rules", &both);
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    append(
        &site.log_file("app.log"),
        "Nov 22 10:00:00 web1 app[1]: attack number 1 of many\n",
    );
    wait_for("the alert", SOON, || {
        (site.alerts(&[]).len() == 1).then_some(())
    });
    let degraded = || site.agent().get("degraded").cloned();
    wait_for("the heartbeat", SOON, || {
        (degraded() == Some(serde_json::json!(["rules"]))).then_some(())
    });
    fs::create_dir(&gone).unwrap();
    crate::site::signal(&agent, "-HUP");
    let metric = "canhgac_agent_degraded{what=\"rules\"}";
    wait_for("the rules", SOON, || {
        (site.sample(site.agent_metrics_port, metric) == Some(0.0)).then_some(())
    });
}

#[test]
fn rules_are_read_again_at_sighup() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    let log = site.log_file("app.log");
    let of = |title: &str| site.alerts(&["--rule", title]).len();
    let reloads = |agent: &Process| agent.log_text().matches("rules read again").count();
    append(
        &log,
        "Nov 22 10:00:00 web1 app[1]: attack number 1 by alice\n",
    );
    wait_for("the first alert", SOON, || {
        (of("Every line") == 1).then_some(())
    });
    assert_eq!(of("Alice"), 0);

    site.rule("alice.yml", NAMES_ALICE);
    crate::site::signal(&agent, "-HUP");
    wait_for("the rules", SOON, || (reloads(&agent) == 1).then_some(()));
    append(
        &log,
        "Nov 22 10:00:01 web1 app[1]: attack number 2 by alice\n",
    );
    wait_for("both alerts", SOON, || {
        (of("Alice") == 1 && of("Every line") == 2).then_some(())
    });

    // What can't be read leaves the rules in force.
    fs::rename(site.path("rules"), site.path("rules.away")).unwrap();
    crate::site::signal(&agent, "-HUP");
    wait_for("the refusal", SOON, || {
        agent
            .log_text()
            .contains("the old ones stay in force")
            .then_some(())
    });
    append(
        &log,
        "Nov 22 10:00:02 web1 app[1]: attack number 3 by alice\n",
    );
    wait_for("the alert by the old rules", SOON, || {
        (of("Alice") == 2).then_some(())
    });
    assert!(agent.is_running());
}

#[test]
fn a_taken_port_is_told_with_the_process_that_has_it() {
    let site = Site::new();
    site.agent_config("");
    for (role, port) in [
        ("agent", site.agent_metrics_port),
        ("centre", site.people_port),
    ] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let out = run(role, &site.path(&format!("{role}.yaml")));
        assert_eq!(out.status.code(), Some(1), "{role}");
        let text = said(&out);
        let own = format!("(process {})", std::process::id());
        assert!(
            text.contains(&format!("error: port {port} is taken by ")),
            "{text}"
        );
        assert!(text.contains(&own), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn up_says_how_to_go_round_a_taken_port() {
    let site = Site::new();
    // Ours, or another's that had it before: taken in both cases.
    let _taken = TcpListener::bind(("127.0.0.1", 8443));
    let out = Command::new(binary())
        .args(["up", "--data"])
        .arg(site.path("up"))
        .env("HOME", site.folder.path())
        .output()
        .unwrap();
    let text = said(&out);
    assert_eq!(out.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: port 8443 is taken by "), "{text}");
    assert!(text.ends_with("; `--any-port` takes free ones\n"), "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let site = Site::new();
    site.agent_config("");
    let closed = site.path("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();
    let folder = closed.display().to_string();
    site.change_agent("state", &format!("state: {folder}"));
    let centre = site.path("centre.yaml");
    let text = fs::read_to_string(&centre).unwrap();
    let data = site.path("centre").display().to_string();
    fs::write(&centre, text.replace(&data, &folder)).unwrap();
    let config = |role: &str| site.path(&format!("{role}.yaml")).display().to_string();
    for args in [
        vec!["agent", "--config", &config("agent")],
        vec!["centre", "--config", &config("centre")],
        vec!["up", "--any-port", "--data", &folder],
    ] {
        let out = site.unprivileged().args(&args).output().unwrap();
        let text = said(&out);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.starts_with("error: cannot "), "{text}");
        assert!(text.contains(&folder), "{text}");
        assert!(text.contains("Permission denied"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn a_second_agent_on_one_state_folder_is_refused() {
    let site = Site::new();
    site.agent_config("");
    let mut first = site.start_agent();
    site.wait_for_agent(&mut first);
    site.change_agent("metrics_listen", "metrics_listen: null");
    let out = run("agent", &site.path("agent.yaml"));
    let text = said(&out);
    assert_eq!(out.status.code(), Some(1), "{text}");
    let folder = site.path("agent").display().to_string();
    assert!(
        text.starts_with("error: another canhgac uses the folder"),
        "{text}"
    );
    assert!(text.contains(&folder), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(first.is_running());
}

#[test]
fn a_full_disk_is_waited_out_and_loses_nothing() {
    if !is_root() {
        eprintln!("SKIPPED: only root can mount a small disk");
        return;
    }
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let state = site.path("agent");
    let Some(_disk) = Disk::mount(&state) else {
        return skip("no disk can be mounted here");
    };
    let mut centre = site.start_centre();
    site.agent_config(&format!("{NO_FOLD}spool: {{ reserve_bytes: 0 }}\n"));
    site.enrol();
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    let ballast = state.join("ballast");
    let filled = Command::new("dd")
        .args(["if=/dev/zero", "bs=4096"])
        .arg(format!("of={}", ballast.display()))
        .output();
    assert!(
        !filled.unwrap().status.success(),
        "the disk did not get full"
    );
    let total = 5000;
    let lines: String = (0..total)
        .map(|number| format!("Nov 22 10:00:00 web1 app[1]: attack number {number} of many\n"))
        .collect();
    append(&site.log_file("app.log"), &lines);
    let metric = "canhgac_agent_degraded{what=\"spool\"}";
    wait_for("the agent to say so", SOON * 2, || {
        assert!(agent.is_running(), "{}", agent.log_text());
        (site.sample(site.agent_metrics_port, metric) == Some(1.0)).then_some(())
    });
    assert!(
        agent
            .log_text()
            .contains("cannot write the spool; reading waits")
    );
    fs::remove_file(&ballast).unwrap();
    wait_for("all alerts", Duration::from_secs(120), || {
        assert!(agent.is_running(), "{}", agent.log_text());
        (site.alerts(&[]).len() >= total).then_some(())
    });
    let mut numbers: Vec<_> = site.alerts(&[]).iter().map(number_of).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..total).collect::<Vec<_>>());
    assert!(agent.log_text().contains("the spool can be written again"));
    assert_eq!(site.sample(site.agent_metrics_port, metric), Some(0.0));
    assert_eq!(agent.stop(), Some(0));
    assert_eq!(centre.stop(), Some(0));
}

/// A disk of 48 MiB in memory.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=48m,mode=0700", "tmpfs"])
            .arg(at)
            .output()
            .ok()?;
        mounted.status.success().then(|| Self(at.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(role: &str, config: &Path) -> std::process::Output {
    Command::new(binary())
        .args([role, "--config"])
        .arg(config)
        .output()
        .unwrap()
}
