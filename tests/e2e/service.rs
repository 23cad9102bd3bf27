//! As a service manager sees it: readiness, watchdog, stop, units; and as somebody without rights does.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::delivery::{EVERY_LINE, NO_FOLD, number_of};
use crate::site::{Process, SOON, Site, append, binary, skip, wait_for};

/// What `systemctl stop` grants before it kills is more; a person who waits for a prompt is less patient.
const STOP_MAX: Duration = Duration::from_secs(10);

#[test]
fn sigterm_commits_what_was_read_and_ends_well() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    let log = site.log_file("app.log");
    let mut number = 0;
    for _ in 0..4 {
        let mut agent = site.start_agent();
        site.wait_for_agent(&mut agent);
        for _ in 0..500 {
            append(
                &log,
                &format!("Nov 22 10:00:00 web1 app[1]: attack number {number} of many\n"),
            );
            number += 1;
        }
        let asked = Instant::now();
        assert_eq!(agent.stop(), Some(0), "{}", agent.log_text());
        assert!(asked.elapsed() < STOP_MAX, "{:?}", asked.elapsed());
        assert!(agent.log_text().contains("the agent has stopped"));
    }
    let mut agent = site.start_agent();
    wait_for("all alerts", SOON, || {
        (site.alerts(&[]).len() >= number).then_some(())
    });
    let mut numbers: Vec<_> = site.alerts(&[]).iter().map(number_of).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..number).collect::<Vec<_>>());
    assert_eq!(agent.stop(), Some(0));
}

#[test]
fn a_stop_does_not_wait_for_a_centre_that_is_gone() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let mut centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    assert_eq!(centre.stop(), Some(0), "{}", centre.log_text());
    append(
        &site.log_file("app.log"),
        "Nov 22 10:00:00 web1 app[1]: attack number 1 of many\n",
    );
    let mut agent = site.start_agent();
    let port = site.agent_metrics_port;
    wait_for("the alert in the spool", SOON, || {
        (site.metric(port, "canhgac_agent_spool_rows") == 1.0).then_some(())
    });
    let asked = Instant::now();
    assert_eq!(agent.stop(), Some(0), "{}", agent.log_text());
    assert!(asked.elapsed() < STOP_MAX, "{:?}", asked.elapsed());
}

#[test]
fn systemd_is_told_that_the_agent_is_ready_lives_and_stops() {
    let site = Site::new();
    site.agent_config("");
    let told = UnixDatagram::bind(site.path("notify")).unwrap();
    told.set_read_timeout(Some(SOON)).unwrap();
    let mut agent = Process::start(
        Command::new(binary())
            .args(["agent", "--config"])
            .arg(site.path("agent.yaml"))
            .env("NOTIFY_SOCKET", site.path("notify"))
            .env("WATCHDOG_USEC", "400000")
            .env_remove("WATCHDOG_PID"),
        &site.path("agent.out"),
    );
    let next = || {
        let mut message = [0; 512];
        let length = told.recv(&mut message).expect("a word within the deadline");
        String::from_utf8_lossy(&message[..length])
            .trim()
            .to_owned()
    };
    // It is ready without a centre: the host is watched.
    assert_eq!(next(), "READY=1");
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    assert_eq!(agent.stop(), Some(0), "{}", agent.log_text());
    told.set_nonblocking(true).unwrap();
    let mut rest = Vec::new();
    let mut message = [0; 512];
    while let Ok(length) = told.recv(&mut message) {
        rest.push(
            String::from_utf8_lossy(&message[..length])
                .trim()
                .to_owned(),
        );
    }
    assert!(rest.contains(&"STOPPING=1".to_owned()), "{rest:?}");
}

#[test]
fn up_works_for_somebody_without_rights() {
    let site = Site::new();
    let data = site.path("data");
    let mut up = Process::start(
        site.unprivileged()
            .args(["up", "--demo", "--any-port", "--data"])
            .arg(&data),
        &site.path("up.out"),
    );
    let profile = data.join("profile.yaml").display().to_string();
    let enough = 10;
    wait_for("the demo's alerts", SOON * 2, || {
        assert!(up.is_running(), "{}", up.log_text());
        if !Path::new(&profile).exists() {
            return None;
        }
        let out = site.run(&["alerts", "list", "--output", "json", "--profile", &profile]);
        let alerts = String::from_utf8(out.stdout).unwrap().lines().count();
        (alerts >= enough).then_some(())
    });
    let text = up.log_text();
    // Packets need a capability, and the line to type names it; a container may have no interface at all.
    let packets = text.lines().find(|line| line.contains("packets: "));
    match packets {
        Some(line) => {
            assert!(line.contains("can't read packets: "), "{line}");
            assert!(line.contains("type  sudo setcap cap_net_raw"), "{line}");
        }
        None => assert!(text.contains("a network interface that is up"), "{text}"),
    }
    assert!(site.path(".config/canhgac/profile.yaml").exists());
    assert_eq!(up.stop(), Some(0), "{}", up.log_text());
}

#[test]
fn the_units_are_hardened_and_well_formed() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return skip("systemd-analyze is missing");
    }
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    for (unit, threshold) in [
        ("canhgac-agent.service", 21),
        ("canhgac-centre.service", 12),
    ] {
        let unit = units.join(unit);
        let scored = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={threshold}"))
            .arg(&unit)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&scored.stdout);
        println!("{}", text.lines().last().unwrap_or_default());
        assert!(scored.status.success(), "above {threshold}: {text}");
        let site = Site::new();
        // Verified with the binary where it is: the unit names where the package puts it.
        let there = binary().display().to_string();
        let text = fs::read_to_string(&unit)
            .unwrap()
            .replace("/usr/bin/canhgac", &there);
        let copy = site.path(unit.file_name().unwrap().to_str().unwrap());
        fs::write(&copy, text).unwrap();
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--recursive-errors=no"])
            .arg(&copy)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&verified.stderr);
        assert!(verified.status.success(), "{told}");
        assert!(!told.contains(copy.to_str().unwrap()), "{told}");
    }
}
