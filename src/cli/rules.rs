//! `canhgac rules`: check, test and list Sigma rules.

use std::process::ExitCode;
#[derive(Debug, clap::Args)]
pub struct Rules {}
pub fn run(_: &Rules) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
