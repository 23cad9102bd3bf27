//! `canhgac up`: a centre and an agent on this machine in one process, for a first look and for a small site.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::port::PortError;
use crate::agent;
use crate::agent::Setup;
use crate::centre;
use crate::centre::query::tokens::NewToken;
use crate::cli::look::{Look, Seen};
use crate::cli::{demo, look, pack, tell};
use crate::decode::Format;
use crate::deliver::forward;
use crate::deliver::forward::Enrolment;
use crate::deliver::identity::Identity;
use crate::detect::rule::Placeholders;
use crate::metrics::{AgentMetrics, CentreMetrics};
use crate::source;
use crate::source::file::FirstRead;

/// The agency that `up` enrols its own agent for.
const AGENCY: &str = "local";

/// Start a centre and an agent on this machine and watch what it has
#[derive(Debug, Args)]
pub struct Up {
    /// Folder for all that is kept [default: ~/.local/share/canhgac]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Play a short recorded attack besides
    #[arg(long)]
    demo: bool,
    /// Take free ports instead of 8443, 8444, 9464 and 9465
    #[arg(long)]
    any_port: bool,
}

/// # Errors
/// When a folder or a port can't be used.
pub fn run(args: &Up) -> anyhow::Result<ExitCode> {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => default_data()?,
    };
    // What is read, printed and matched must not depend on where the command was typed.
    fs::create_dir_all(&data)
        .with_context(|| format!("cannot make the folder {}", data.display()))?;
    let data = fs::canonicalize(&data)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args, &data))
}

async fn serve(args: &Up, data: &Path) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?; // the terminal was closed
    let port = |port: u16| SocketAddr::from(([127, 0, 0, 1], if args.any_port { 0 } else { port }));
    let centre = centre::start(
        centre::Config {
            data: data.join("centre"),
            agents_listen: port(8443),
            people_listen: port(8444),
            metrics_listen: port(9465),
            ..centre::Config::default()
        },
        CentreMetrics::default(),
    )
    .await
    .map_err(|error| match error {
        centre::StartError::Port(taken @ PortError::Taken { .. }) if !args.any_port => {
            anyhow::anyhow!("{taken}; `--any-port` takes free ones")
        }
        other => other.into(),
    })?;
    let profile = data.join("profile.yaml");
    fs::copy(&centre.profile, &profile)
        .with_context(|| format!("cannot write {}", profile.display()))?;
    let profile_said = offer_profile(&profile);
    let at = centre.addresses;
    let state = data.join("agent");
    enrol(&state, &centre).await?;

    let mut seen = look::at_this_machine();
    if args.demo {
        demo_sources(&data.join("demo"), &mut seen.sources)?;
    }
    let (ruleset, faults) = pack::ruleset(&[], &Placeholders::new())?;
    tell(&faults);
    let rules = ruleset.rules().count();
    let agent = agent::Agent::start(Setup {
        config: agent::Config {
            state,
            sources: seen.sources.clone(),
            metrics_listen: Some(port(9464)),
            centre: forward::Config {
                urls: vec![format!("https://{}", at.agents).parse()?],
                ..forward::Config::default()
            },
            ..agent::Config::default()
        },
        ruleset,
        rules_rejected: faults.len(),
        degraded: Vec::new(),
        metrics: AgentMetrics::default(),
    })
    .await?;
    greet(&seen, &at, agent.metrics_at, rules, &profile_said, data);
    let broken = agent.broken.clone();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hang_up.recv() => {}
        () = broken.cancelled() => {}
    }
    let _ = writeln!(std::io::stderr(), "stopping"); // nobody may be left to read it
    agent.stop().await?;
    centre.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

fn default_data() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
        .context("neither HOME nor XDG_DATA_HOME is set; name a folder with --data DIR")?;
    Ok(base.join("canhgac"))
}

/// Writes the person's default profile if there is none; returns how to name the profile in a command.
fn offer_profile(profile: &Path) -> String {
    let named = format!(" --profile {}", profile.display());
    let Some(home) = std::env::var_os("HOME") else {
        return named;
    };
    let default = PathBuf::from(home).join(".config/canhgac/profile.yaml");
    let ours = fs::read(profile).ok();
    if fs::read(&default).ok() == ours && ours.is_some() {
        return String::new();
    }
    let is_taken = default.exists();
    let folder = default.parent().map(fs::create_dir_all);
    if is_taken || !matches!(folder, Some(Ok(()))) || fs::copy(profile, &default).is_err() {
        return named;
    }
    String::new()
}

/// Enrols the agent the way any agent is, if it has no identity yet.
async fn enrol(state: &Path, centre: &centre::Running) -> anyhow::Result<()> {
    let folder = state.join(agent::IDENTITY);
    if Identity::is_in(&folder) {
        return Ok(());
    }
    let token = centre
        .create_token(&NewToken {
            agency: AGENCY.to_owned(),
            uses: 1,
            expires: None,
            from: Vec::new(),
        })
        .await?;
    forward::enrol(&Enrolment {
        url: format!("https://{}", centre.addresses.people).parse()?,
        token: &token.parse()?,
        host: &agent::report::host_name(),
        machine: &agent::report::machine(),
        folder: &folder,
        dialer: forward::Config::default().dialer(),
    })
    .await
    .context("cannot enrol this machine's agent at its own centre")?;
    Ok(())
}

/// Writes the recording with times of now and adds it to what is watched.
fn demo_sources(folder: &Path, sources: &mut source::Config) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let now = Timestamp::now();
    for (name, text) in demo::lines(now, &agent::report::host_name()) {
        // A new file each time: what was judged in an earlier one is not judged again.
        let path = folder.join(format!("{}-{name}", now.as_millisecond()));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        sources.file.push(source::file::Config {
            path: path.display().to_string(),
            decode: Format::Auto,
            from: FirstRead::Begin,
            exclude: Vec::new(),
        });
    }
    let path = folder.join(format!("{}-attack.pcap", now.as_millisecond()));
    fs::write(&path, demo::pcap(now))
        .with_context(|| format!("cannot write {}", path.display()))?;
    sources.pcap.push(source::pcap::Config { path });
    Ok(())
}

fn greet(
    seen: &Seen,
    at: &centre::Addresses,
    agent_metrics: Option<SocketAddr>,
    rules: usize,
    profile: &str,
    data: &Path,
) {
    println!(
        "canhgac stands guard: {rules} rules; all is kept in {}",
        data.display()
    );
    for look in &seen.looks {
        match look {
            Look::Watched(what) => println!("  watching   {what}"),
            Look::Unreadable { what, mend } => println!("  can't read {what}: type  {mend}"),
            Look::Missing(what) => println!("  not here   {what}"),
        }
    }
    // As it was called, so that the lines can be typed as they stand.
    let program = std::env::args()
        .next()
        .unwrap_or_else(|| "canhgac".to_owned());
    println!("alerts:     {program} alerts list{profile}");
    println!("one alert:  {program} alerts show ID{profile}");
    println!("live:       {program} alerts tail{profile}");
    println!(
        "query API:  https://{}/v1/alerts (the token is in the profile)",
        at.people
    );
    println!("metrics:    http://{}/metrics (centre)", at.metrics);
    if let Some(metrics) = agent_metrics {
        println!("            http://{metrics}/metrics (agent)");
    }
    println!("Ctrl-C stops both.");
}
