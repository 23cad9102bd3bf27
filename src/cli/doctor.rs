//! `canhgac doctor`: what works, what doesn't, what to type to mend it. Looks only; changes nothing.

use std::fs;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use jiff::{SignedDuration, Timestamp};

use crate::agent;
use crate::cli::agent::rules;
use crate::cli::look::{self, Look};
use crate::config;
use crate::deliver::forward::State;
use crate::deliver::identity::Identity;
use crate::diagnostic::visible;
use crate::source::capture;

/// The forwarder speaks to the centre at least each minute; three beats without a word are silence.
const SILENT_AFTER: SignedDuration = SignedDuration::from_mins(4);
/// A certificate is renewed at two thirds of its 90 days; later than this it was not.
const EXPIRES_SOON: SignedDuration = SignedDuration::from_hours(24 * 14);

/// Say what works, what doesn't, and what to type to mend it
#[derive(Debug, Args)]
pub struct Doctor {
    /// agent.yaml; without it this machine is looked at as `up` would
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// # Errors
/// When the configuration is faulty: then nothing else can be said.
pub fn run(args: &Doctor) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    match &args.config {
        None => this_machine(&mut report),
        Some(path) => {
            let config = config::agent(path)?;
            report.good(&format!("configuration {}", path.display()), "valid");
            agent_checks(&config, &mut report);
        }
    }
    Ok(ExitCode::from(if report.findings > 0 { 3 } else { 0 }))
}

fn this_machine(report: &mut Report) {
    for look in look::at_this_machine().looks {
        match look {
            Look::Watched(what) => report.good(&what, "can be watched"),
            Look::Unreadable { what, mend } => report.bad(&what, "not readable", &mend),
            Look::Missing(what) => report.note(&what, "not on this machine"),
        }
    }
}

fn agent_checks(config: &agent::Config, report: &mut Report) {
    state(&config.state, report);
    rule_checks(config, report);
    for source in &config.sources.file {
        files(&source.path, report);
    }
    if !config.sources.capture.is_empty() {
        match capture::permitted() {
            Ok(()) => report.good("packets", "may be captured"),
            Err(missing) => report.bad("packets", &missing.to_string(), &missing.remedy()),
        }
    }
    identity(&config.state, report);
    link(&config.state, report);
}

fn state(folder: &Path, report: &mut Report) {
    let what = format!("state folder {}", folder.display());
    match fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => match tempfile_in(folder) {
            Ok(()) => report.good(&what, "can be written"),
            Err(error) => report.bad(
                &what,
                &error.to_string(),
                &format!("sudo chown -R canhgac: {}", folder.display()),
            ),
        },
        Ok(_) => report.bad(&what, "is no folder", "name another one under `state:`"),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            report.note(&what, "not made yet; the agent makes it at its first start");
        }
        Err(error) => report.bad(&what, &error.to_string(), "look at the folder's owner"),
    }
}

fn tempfile_in(folder: &Path) -> std::io::Result<()> {
    let path = folder.join(format!(".doctor-{}", std::process::id()));
    File::create(&path)?;
    fs::remove_file(path)
}

fn rule_checks(config: &agent::Config, report: &mut Report) {
    match rules(config) {
        Ok((ruleset, faults)) if faults.is_empty() => {
            let count = ruleset.rules().count();
            if count == 0 {
                report.bad(
                    "rules",
                    "there are none",
                    "set `builtin_rules: true` or name some",
                );
            } else {
                report.good("rules", &format!("{count} loaded"));
            }
        }
        Ok((ruleset, faults)) => report.bad(
            "rules",
            &format!(
                "{} loaded, {} left out because of a fault",
                ruleset.rules().count(),
                faults.len()
            ),
            "canhgac agent --check --config FILE  says where",
        ),
        Err(error) => report.bad("rules", &format!("{error:#}"), "name paths that exist"),
    }
}

fn files(pattern: &str, report: &mut Report) {
    let found: Vec<_> = match glob::glob(pattern) {
        Ok(paths) => paths.flatten().collect(),
        Err(error) => {
            return report.bad(pattern, &error.to_string(), "mend the pattern");
        }
    };
    if found.is_empty() {
        report.note(pattern, "no file matches yet");
    }
    for path in found.iter().take(20) {
        let what = path.display().to_string();
        match File::open(path) {
            Ok(_) => report.good(&what, "readable"),
            Err(error) => report.bad(
                &what,
                &error.to_string(),
                "sudo usermod -aG adm,systemd-journal canhgac  and restart the agent",
            ),
        }
    }
}

fn identity(state: &Path, report: &mut Report) {
    match Identity::load(&state.join(agent::IDENTITY)) {
        Ok(identity) => {
            let left = identity.pair().not_after().duration_since(Timestamp::now());
            let days = left.as_hours() / 24;
            let what = format!("identity {} of {}", identity.agent, identity.agency);
            if left < EXPIRES_SOON {
                report.bad(
                    &what,
                    &format!("the certificate ends in {days} days"),
                    "see the line on the centre: it renews by itself when it can be reached",
                );
            } else {
                report.good(&what, &format!("the certificate is good for {days} days"));
            }
        }
        Err(error) => report.bad(
            "identity",
            &error.to_string(),
            &format!(
                "sudo canhgac enrol --state {} --centre URL --token TOKEN",
                state.display()
            ),
        ),
    }
}

fn link(state: &Path, report: &mut Report) {
    let Ok(status) = State::read(&state.join(agent::STATUS)) else {
        return report.note("centre", "the agent has not run yet");
    };
    let since = status
        .last_success
        .map(|at| Timestamp::now().duration_since(at));
    match (&status.refused, &status.error, since) {
        (Some(refused), _, _) => report.bad(
            "centre",
            refused,
            &format!(
                "`canhgac agents list` at the centre shows where this host stands; to enrol anew: \
                 sudo rm -r {state}/identity && sudo canhgac enrol --state {state} --centre URL --token TOKEN \
                 && sudo systemctl restart canhgac-agent",
                state = state.display()
            ),
        ),
        (None, _, Some(since)) if since < SILENT_AFTER => report.good("centre", "answers"),
        (None, Some(error), _) => {
            report.bad(
                "centre",
                error,
                "check the address, the proxy and the firewall",
            );
        }
        (None, None, _) => report.bad(
            "centre",
            "has not been heard for four minutes",
            "systemctl status canhgac-agent",
        ),
    }
}

#[derive(Default)]
struct Report {
    findings: usize,
}

impl Report {
    fn good(&mut self, what: &str, how: &str) {
        println!("ok    {}: {}", visible(what), visible(how));
    }

    fn note(&mut self, what: &str, how: &str) {
        println!("-     {}: {}", visible(what), visible(how));
    }

    fn bad(&mut self, what: &str, why: &str, mend: &str) {
        self.findings += 1;
        println!("BAD   {}: {}", visible(what), visible(why.trim_end()));
        println!("      to mend it: {}", visible(mend));
    }
}
