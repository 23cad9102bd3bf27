//! `canhgac agent`: the service on a host. It never goes blind over its file: a faulty agent.yaml at start means the last
//! good copy, and saying so.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::agent;
use crate::agent::pipeline::Pulse;
use crate::agent::{Config, Setup};
use crate::cli::{pack, tell, usage};
use crate::config;
use crate::config::Loaded;
use crate::detect::rule::Ruleset;
use crate::diagnostic::{Diagnostic, Weight};
use crate::metrics::AgentMetrics;

/// Watch this host, as a service
#[derive(Debug, Args)]
pub struct Agent {
    /// agent.yaml
    #[arg(long, value_name = "FILE", default_value = "/etc/canhgac/agent.yaml")]
    config: PathBuf,
    /// Check the file and the rules it names, and end
    #[arg(long)]
    check: bool,
}

/// # Errors
/// When the configuration is faulty and there never was a good one, or the agent can't start.
pub fn run(args: &Agent) -> anyhow::Result<ExitCode> {
    if args.check {
        return check(args);
    }
    let loaded = config::agent_or_last_good(&args.config)?;
    if let Some(faults) = &loaded.faults {
        eprint!("{faults}");
        error!("the configuration is faulty; its last good copy is in force");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2) // it only waits: one forwarder, one small listener
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args, loaded))
}

fn check(args: &Agent) -> anyhow::Result<ExitCode> {
    let config = config::agent(&args.config)?;
    let (ruleset, rejected) = rules(&config).map_err(|error| usage(format!("{error:#}")))?;
    tell(&rejected);
    println!(
        "{}: valid; {} rules, {} rejected",
        args.config.display(),
        ruleset.rules().count(),
        rejected.len()
    );
    Ok(ExitCode::from(if rejected.is_empty() { 0 } else { 3 }))
}

async fn serve(args: &Agent, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let config = loaded.config;
    let mut degraded = Vec::new();
    let (ruleset, rejected) = match counted_rules(&config) {
        Ok(rules) => rules,
        Err(cause) => {
            let rest = readable_rules(&config).ok_or(cause)?;
            degraded.push("rules".to_owned());
            rest
        }
    };
    let count = ruleset.rules().count();
    if loaded.faults.is_some() {
        degraded.push("config".to_owned());
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let agent = agent::Agent::start(Setup {
        config: config.clone(),
        ruleset,
        rules_rejected: rejected,
        degraded,
        metrics: AgentMetrics::default(),
    })
    .await?;
    if loaded.faults.is_none()
        && let Err(error) = config::keep_good(&args.config, &config)
    {
        warn!(%error, "cannot keep a copy of the configuration");
    }
    info!(rules = count, rejected, metrics = ?agent.metrics_at, "the agent watches");
    // Nobody listens when systemd did not start us; that is no fault.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let stopped = CancellationToken::new();
    let watchdog = tokio::spawn(feed_watchdog(agent.pulse.clone(), stopped.clone()));
    let broken = agent.broken.clone();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = broken.cancelled() => break,
            _ = hang_up.recv() => reload(&agent, &config),
        }
    }
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    let outcome = agent.stop().await;
    stopped.cancel();
    let _ = watchdog.await; // it can't fail: it only waits and sends
    outcome?;
    info!("the agent has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Whoever asks for more is told no more often.
const WATCHDOG_LEAST: Duration = Duration::from_millis(50);

/// Tells systemd that the agent lives, but only while its last stage does: one that hangs is started anew.
async fn feed_watchdog(pulse: Pulse, stop: CancellationToken) {
    let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
        return;
    };
    let mut ticks = tokio::time::interval(period.div_f64(2.0).max(WATCHDOG_LEAST));
    let mut last = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Some(pulse.beats());
        if now != last {
            let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            last = now;
        }
    }
}

/// Reads the rules again; what can't be read leaves the old ones in force.
fn reload(agent: &agent::Agent, config: &Config) {
    match counted_rules(config) {
        Ok((ruleset, rejected)) => {
            info!(
                rules = ruleset.rules().count(),
                rejected, "rules read again"
            );
            agent.reload(ruleset, rejected);
        }
        Err(error) => error!(%error, "cannot read the rules; the old ones stay in force"),
    }
}

/// Returns the rules of the paths that can be read: a path that can't must not blind the host to all the others. `None`
/// when there is not one rule: then what is in the logs waits for rules.
fn readable_rules(config: &Config) -> Option<(Ruleset, usize)> {
    let mut config = config.clone();
    config
        .rules
        .retain(|path| match pack::load(std::slice::from_ref(path)) {
            Ok(_) => true,
            Err(cause) => {
                error!(error = format!("{cause:#}"), "rules are left out");
                false
            }
        });
    let (ruleset, rejected) = counted_rules(&config).ok()?;
    (ruleset.rules().count() > 0).then_some((ruleset, rejected))
}

/// Returns the rules, and how many were left out: each is a line in the log, so that `grep` finds its file.
fn counted_rules(config: &Config) -> anyhow::Result<(Ruleset, usize)> {
    let (ruleset, rejected) = rules(config)?;
    for fault in &rejected {
        let line = fault.place.map_or(0, |place| place.line);
        warn!(
            file = fault.file,
            line,
            fault = fault.message,
            "a rule is left out"
        );
    }
    Ok((ruleset, rejected.len()))
}

/// Returns the rules that the configuration names, and why some were left out.
///
/// # Errors
/// When a path can't be read.
pub fn rules(config: &Config) -> anyhow::Result<(Ruleset, Vec<Diagnostic>)> {
    let mut files = match config.builtin_rules {
        true => pack::embedded(),
        false => Vec::new(),
    };
    files.extend(pack::load(&config.rules)?);
    let (ruleset, mut faults) = pack::compile_with(&files, &config.placeholders);
    faults.retain(|fault| fault.weight == Weight::Error);
    Ok((ruleset, faults))
}
