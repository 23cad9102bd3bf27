//! `canhgac centre`: the monitoring centre.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::centre;
use crate::config;
use crate::metrics::CentreMetrics;

/// Keep the history of an agency, a province or a nation
#[derive(Debug, Args)]
pub struct Centre {
    /// centre.yaml
    #[arg(long, value_name = "FILE", default_value = "/etc/canhgac/centre.yaml")]
    config: PathBuf,
    /// Check the file, and end
    #[arg(long)]
    check: bool,
}

/// # Errors
/// When the configuration is faulty or the centre can't start.
pub fn run(args: &Centre) -> anyhow::Result<ExitCode> {
    let config = config::centre(&args.config)?;
    if args.check {
        println!("{}: valid", args.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let running = centre::start(config, CentreMetrics::default()).await?;
        let at = running.addresses;
        info!(agents = %at.agents, people = %at.people, metrics = %at.metrics, "the centre listens");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => info!("nothing is read again while a centre runs; restart it to take a new file"),
            }
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        running.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}
