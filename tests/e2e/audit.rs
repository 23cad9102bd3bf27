//! The kernel's own word of programs that are started: a real audit rule, the real process connector, an alert at the
//! centre.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::site::{SOON, Site, wait_for};

const RULE: &str = "title: The probe was started
id: 5a2c8c0e-3a55-4f0d-9b5e-1d1f0a7b2c11
logsource: { product: linux, category: process_creation }
detection: { s: { Image|endswith: /probe-FAMILY, ParentImage|contains: e2e }, condition: s }
level: medium
";

/// Whether this kernel lets us; a container may be without the capability.
fn auditctl(arguments: &[&str]) -> bool {
    let status = Command::new("auditctl")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// An audit rule for one program, taken away again.
struct Watched {
    program: String,
    was_off: bool,
}

impl Watched {
    fn new(program: &Path) -> Option<Self> {
        let status = Command::new("auditctl").arg("-s").output().ok()?;
        if !status.status.success() {
            return None;
        }
        let watched = Self {
            program: format!("exe={}", program.display()),
            was_off: String::from_utf8_lossy(&status.stdout).contains("enabled 0"),
        };
        let is_set = auditctl(&["-e", "1"]) && auditctl(&watched.rule("-a"));
        is_set.then_some(watched)
    }

    fn rule<'a>(&'a self, action: &'a str) -> [&'a str; 10] {
        [
            action,
            "always,exit",
            "-F",
            "arch=b64",
            "-S",
            "execve",
            "-F",
            &self.program,
            "-k",
            "canhgac-test",
        ]
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        auditctl(&self.rule("-d"));
        if self.was_off {
            auditctl(&["-e", "0"]);
        }
    }
}

/// A copy of cat(1), which waits for its input to end.
fn probe(site: &Site, family: &str) -> PathBuf {
    let path = site.path(&format!("probe-{family}"));
    fs::copy("/bin/cat", &path).unwrap();
    path
}

fn start(probe: &Path) -> Child {
    Command::new(probe)
        .arg("-u")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn watch(site: &Site, family: &str, source: &str) -> (crate::site::Process, crate::site::Process) {
    site.rule("probe.yml", &RULE.replace("FAMILY", family));
    let centre = site.start_centre();
    site.enrol();
    site.agent_config(&format!("  {source}: [{{}}]\n"));
    let agent = site.start_agent();
    wait_for("the agent to hear the kernel", SOON, || {
        agent.log_text().contains("hearing the").then_some(())
    });
    (centre, agent)
}

fn check(site: &Site, kind: &str) {
    site.wait_for_alerts(1);
    let alerts = site.alerts(&[]);
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    let fields = &alerts[0]["fields"];
    assert_eq!(fields["User"], "root");
    assert!(
        fields["CommandLine"].as_str().unwrap().ends_with(" -u -"),
        "{fields}"
    );
    assert!(fields["CurrentDirectory"].as_str().is_some(), "{fields}");
    assert!(
        alerts[0]["origin"]["source"]
            .as_str()
            .unwrap()
            .starts_with(kind)
    );
}

#[test]
fn a_program_that_the_kernel_s_audit_names_is_an_alert() {
    let site = Site::new();
    let probe = probe(&site, "audit");
    let Some(watched) = Watched::new(&probe) else {
        eprintln!("SKIPPED: no audit rule can be set here (auditctl and CAP_AUDIT_CONTROL)");
        return;
    };
    let (_centre, _agent) = watch(&site, "audit", "audit");
    let mut child = start(&probe);
    check(&site, "audit:");
    drop(watched);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_program_that_the_process_connector_names_is_an_alert() {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: the process connector needs root");
        return;
    }
    let site = Site::new();
    let probe = probe(&site, "connector");
    let (_centre, _agent) = watch(&site, "connector", "process");
    let mut child = start(&probe);
    check(&site, "process:");
    child.kill().unwrap();
    child.wait().unwrap();
}
