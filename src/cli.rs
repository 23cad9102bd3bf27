//! The commands. Data goes to stdout, all else to stderr; exit status 0 done, 1 failed, 2 usage or configuration,
//! 3 the check found something.

pub mod up;
pub mod agent;
pub mod centre;
pub mod replay;
pub mod rules;
pub mod alerts;
pub mod agents;
pub mod token;
pub mod enrol;
pub mod doctor;
pub mod demo;
pub mod look;
pub mod pack;
pub mod profile;
mod listing;
mod time;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;
use crate::diagnostic::{Diagnostic, visible};

/// Stands guard over logs and network events: an agent on each host, a monitoring centre above
#[derive(Debug, Parser)]
#[command(name = "canhgac", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Agent(agent::Agent),
    Centre(centre::Centre),
    Replay(replay::Replay),
    Rules(rules::Rules),
    Alerts(alerts::Args),
    Agents(agents::Args),
    Token(token::Args),
    Enrol(enrol::Args),
    Doctor(doctor::Doctor),
}

/// A mistake of the person at the keyboard: exit status 2.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Returns an error that ends the program with status 2.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Parses the command line and runs the command.
///
/// # Errors
/// What the command could not do; `report` says it.
pub fn run() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    start_logging(matches!(
        cli.command,
        Command::Agent(_) | Command::Centre(_)
    ));
    match cli.command {
        Command::Up(args) => up::run(&args),
        Command::Agent(args) => agent::run(&args),
        Command::Centre(args) => centre::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Rules(args) => rules::run(&args),
        Command::Alerts(args) => alerts::run(&args, &pack::advice),
        Command::Agents(args) => agents::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Enrol(args) => enrol::run(&args),
        Command::Doctor(args) => doctor::run(&args),
    }
}

/// Says why the program ends, and with which status.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let is_pipe = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe);
    if is_pipe {
        return ExitCode::SUCCESS; // `… | head` is no failure
    }
    let is_usage = error.chain().any(|cause| {
        cause.is::<Usage>() || cause.is::<ConfigError>() || cause.is::<profile::ProfileError>()
    });
    match error.downcast_ref::<ConfigError>() {
        Some(ConfigError::Faults(faults)) => eprint!("{faults}"),
        _ => eprintln!("error: {}", visible(&format!("{error:#}"))),
    }
    ExitCode::from(if is_usage { 2 } else { 1 })
}

/// Writes faults to stderr; they are escaped already.
pub fn tell(faults: &[Diagnostic]) {
    for fault in faults {
        eprintln!("{fault}");
    }
}

/// Services log what they do, other commands only what is wrong; CANHGAC_LOG overrides (`debug`, `canhgac=trace`).
fn start_logging(is_service: bool) {
    let level = if is_service { "info" } else { "warn" };
    let filter = EnvFilter::try_from_env("CANHGAC_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal && !no_colour)
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests;
