//! `canhgac up --demo` on a fresh machine, as a new user types it.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::site::{Process, SOON, Site, binary, wait_for};

#[test]
fn alerts_stand_within_ten_seconds_of_a_first_start() {
    let site = Site::new();
    let data = site.path("up");
    let started = Instant::now();
    let mut up = Process::start(
        Command::new(binary())
            .args(["up", "--demo", "--any-port", "--data"])
            .arg(&data)
            .env("HOME", site.folder.path()),
        &site.path("up.out"),
    );
    let profile = data.join("profile.yaml");
    let list = || {
        let out = Command::new(binary())
            .args(["alerts", "list", "--output", "json", "--profile"])
            .arg(&profile)
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap()
    };
    let wanted = ["ssh", "sudo", "ports", "DNS"];
    let text = wait_for("the demo's alerts", SOON, || {
        assert!(up.is_running(), "{}", up.log_text());
        let text = list();
        wanted
            .iter()
            .all(|word| text.to_lowercase().contains(&word.to_lowercase()))
            .then_some(text)
    });
    let took = started.elapsed();
    println!("{} alerts after {took:?}", text.lines().count());
    assert!(took < Duration::from_secs(10), "{took:?}");
    let said = up.log_text();
    for word in ["alerts", "metrics", "https://127.0.0.1:"] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(up.stop(), Some(0), "{}", up.log_text());
}
