//! `canhgac agent`: the service on a host. It never goes blind over its file: a faulty agent.yaml at start means the last
//! good copy, and saying so.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info, warn};

use crate::agent;
use crate::agent::{Config, Setup};
use crate::cli::pack;
use crate::config;
use crate::config::Loaded;
use crate::detect::rule::Ruleset;
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
    let (ruleset, rejected) = rules(&config)?;
    println!(
        "{}: valid; {} rules, {rejected} rejected",
        args.config.display(),
        ruleset.rules().count()
    );
    Ok(ExitCode::from(if rejected > 0 { 3 } else { 0 }))
}

async fn serve(args: &Agent, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let config = loaded.config;
    let (ruleset, rejected) = rules(&config)?;
    let count = ruleset.rules().count();
    let mut degraded = Vec::new();
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
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let broken = agent.broken.clone();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = broken.cancelled() => break,
            _ = hang_up.recv() => reload(&agent, &config),
        }
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    agent.stop().await?;
    info!("the agent has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Reads the rules again; what can't be read leaves the old ones in force.
fn reload(agent: &agent::Agent, config: &Config) {
    match rules(config) {
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

/// Returns the rules that the configuration names, and how many were left out because of a fault.
///
/// # Errors
/// When a path can't be read.
pub fn rules(config: &Config) -> anyhow::Result<(Ruleset, usize)> {
    let mut files = match config.builtin_rules {
        true => pack::embedded(),
        false => Vec::new(),
    };
    files.extend(pack::load(&config.rules)?);
    let (ruleset, faults) = pack::compile(&files);
    for fault in &faults {
        warn!("{fault}");
    }
    let rejected = faults
        .iter()
        .filter(|fault| fault.weight == crate::diagnostic::Weight::Error)
        .count();
    Ok((ruleset, rejected))
}
