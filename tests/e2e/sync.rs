//! A kill leaves the page cache whole, so it can't show that data was synced. The system calls can: every answer of the
//! centre comes after a sync of its write-ahead log, every removal from the spool after the answer.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::delivery::{EVERY_LINE, NO_FOLD};
use crate::site::{Process, SOON, Site, append, binary, http_get, wait_for};

const ALERTS: usize = 30;
const CALLS: &str =
    "trace=fsync,fdatasync,pwrite64,sendto,sendmsg,write,writev,recvfrom,recvmsg,read,readv";

#[test]
fn an_answer_comes_after_a_sync_and_a_removal_after_the_answer() {
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var("CI").is_err(), "strace is missing");
        eprintln!("SKIPPED: strace is missing");
        return;
    }
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    site.agent_config(NO_FOLD);
    let mut first = site.start_centre();
    site.enrol();
    first.stop();
    let mut centre = traced(&site, "centre");
    wait_for("the traced centre", SOON, || {
        http_get(site.centre_metrics_port, "/readyz")
            .filter(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    let mut agent = traced(&site, "agent");
    let keeper = keeper(&agent);
    for number in 0..ALERTS {
        let line = format!("Nov 22 10:00:00 web1 app[1]: attack number {number} of many\n");
        append(&site.log_file("app.log"), &line);
        let port = site.agent_metrics_port;
        wait_for("the acknowledgement", SOON * 2, || {
            let name = "canhgac_agent_alerts_acknowledged_total";
            (site.metric(port, name) >= number as f64 + 1.0).then_some(())
        });
    }
    stop_traced(&mut agent);
    stop_traced(&mut centre);

    let answers = answers_after_sync(&calls(&site, "centre"), site.agents_port);
    println!("centre: {answers} answers, each after a sync of the store's log");
    assert!(answers >= ALERTS, "{answers} answers were seen");
    let removals = removals_after_answer(&calls(&site, "agent"), site.agents_port, keeper);
    println!(
        "agent: {removals} writes of the forwarder to the spool, none while an answer was awaited"
    );
    assert!(removals >= ALERTS, "{removals} removals were seen");
}

/// Counts the answers on the agents' port. After the first synced one of a connection (before it, the handshake is
/// sent) none may lack a sync of the store's log since its request was read.
fn answers_after_sync(calls: &[Call], port: u16) -> usize {
    let own = format!("TCP:[127.0.0.1:{port}->");
    let mut synced: BTreeMap<&str, bool> = BTreeMap::new();
    let mut has_answered: BTreeMap<&str, bool> = BTreeMap::new();
    let mut answers = 0;
    for call in calls {
        let file = call.file.as_str();
        if call.is_sync() && call.ended && file.ends_with("-wal") {
            synced.values_mut().for_each(|is_synced| *is_synced = true);
        } else if file.starts_with(&own) && call.is_read() && call.ended {
            synced.insert(file, false);
        } else if file.starts_with(&own) && call.is_send() && call.began && !call.ends_tls() {
            match synced.get(file) {
                Some(true) => {
                    answers += 1;
                    has_answered.insert(file, true);
                }
                _ => assert!(
                    !has_answered.contains_key(file),
                    "an answer without a sync: {}",
                    call.line
                ),
            }
        }
    }
    answers
}

/// Counts the transactions of the forwarder: none may fall between a request and its answer.
fn removals_after_answer(calls: &[Call], port: u16, keeper: u32) -> usize {
    let centre = format!("->127.0.0.1:{port}]");
    let (mut awaited, mut has_sent, mut removals) = (false, false, 0);
    for call in calls {
        if call.file.ends_with(&centre) && call.is_send() && call.began {
            (awaited, has_sent) = (true, true);
        } else if call.file.ends_with(&centre) && call.is_read() && call.ended {
            awaited = false;
        } else if has_sent
            && call.is_sync()
            && call.began
            && call.file.ends_with("spool.db-wal")
            && call.thread != keeper
        {
            assert!(!awaited, "a removal before the answer: {}", call.line);
            removals += 1;
        }
    }
    removals
}

/// The thread that commits alerts; the forwarder's removals are other threads'.
fn keeper(agent: &Process) -> u32 {
    wait_for("the keeper", SOON, || {
        let threads = fs::read_dir(format!("/proc/{}/task", child_of(agent)?)).ok()?;
        threads.flatten().find_map(|thread| {
            let name = fs::read_to_string(thread.path().join("comm")).ok()?;
            let id = thread.file_name().into_string().ok()?.parse().ok()?;
            (name.trim() == "keeper").then_some(id)
        })
    })
}

/// strace makes short-lived children of its own before the traced one.
fn child_of(strace: &Process) -> Option<String> {
    let id = strace.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    Some(children.split_whitespace().next()?.to_owned())
}

/// One line of a trace: a call that began, ended, or both.
struct Call {
    thread: u32,
    name: String,
    file: String,
    began: bool,
    ended: bool,
    line: String,
}

impl Call {
    fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }

    fn is_send(&self) -> bool {
        matches!(
            self.name.as_str(),
            "sendto" | "sendmsg" | "write" | "writev"
        )
    }

    /// A record of 19 bytes is an alert of two, its type and tag (RFC 8446 6): how TLS says goodbye.
    fn ends_tls(&self) -> bool {
        self.line.contains(r"\27\3\3\0\23")
    }

    fn is_read(&self) -> bool {
        matches!(
            self.name.as_str(),
            "recvfrom" | "recvmsg" | "read" | "readv"
        )
    }
}

/// Reads `strace -f -yy` output: `PID name(3</path>, …) = 0`, in two lines where threads interleave.
fn calls(site: &Site, role: &str) -> Vec<Call> {
    let text = fs::read(site.path(&format!("{role}.trace"))).unwrap();
    let text = String::from_utf8_lossy(&text);
    let mut open: BTreeMap<u32, (String, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let Ok(thread) = thread.parse() else { continue };
        let rest = rest.trim_start();
        let failed = rest.contains(") = -1 ") || rest.ends_with(") = 0") && !rest.contains("sync");
        let (name, file, began) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, file)) = open.remove(&thread) else {
                continue;
            };
            assert!(resumed.starts_with(&name), "{line}");
            (name, file, false)
        } else {
            let Some((name, arguments)) = rest.split_once('(') else {
                continue;
            };
            let file = arguments
                .split_once('<')
                .and_then(|(_, rest)| {
                    rest.split_once(">,")
                        .or(rest.split_once(">)"))
                        .or(rest.split_once("> "))
                })
                .map_or("", |(file, _)| file);
            (name.to_owned(), file.to_owned(), true)
        };
        let ended = !rest.ends_with("<unfinished ...>");
        if !ended {
            open.insert(thread, (name.clone(), file.clone()));
        }
        calls.push(Call {
            thread,
            name,
            file,
            began,
            ended: ended && !failed,
            line: line.chars().take(200).collect(),
        });
    }
    assert!(calls.len() > 100, "the trace of the {role} is empty");
    calls
}

fn traced(site: &Site, role: &str) -> Process {
    Process::start(
        Command::new("strace")
            .args(["-f", "-yy", "-s", "16", "-e", CALLS, "-o"])
            .arg(site.path(&format!("{role}.trace")))
            .arg(binary())
            .args([role, "--config"])
            .arg(site.path(&format!("{role}.yaml"))),
        &site.path(&format!("{role}.out")),
    )
}

/// Stops the traced process; strace ends with it.
fn stop_traced(strace: &mut Process) {
    let child = child_of(strace).unwrap();
    let done = Command::new("kill")
        .args(["-TERM", &child])
        .status()
        .unwrap();
    assert!(done.success());
    wait_for("the traced process to end", SOON, || {
        (!strace.is_running()).then_some(())
    });
}
