//! `canhgac rules`: check, test and list Sigma rules.

pub mod sample;
mod check;
mod test;
mod list;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::listing::Output;
use crate::cli::pack::{self, RuleFile};

pub use crate::cli::rules::check::check;
pub use crate::cli::rules::list::list;
pub use crate::cli::rules::test::test;

/// Sigma rules: are they sound, do they fire as they should, which are there
#[derive(Debug, clap::Args)]
pub struct Rules {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Look for faults; exit status 3 if there is an error
    Check {
        /// Rule files or folders [default: the rules inside the program]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Play samples and see whether each rule fires and stays silent as they say; exit status 3 if not
    #[command(
        after_help = "The sample of a rule file A/B.yml is A/B.test.yml beside it, or A/B.yml in the folder of samples:\n  \
        rule: ID\n  \
        fires:  [{name: …, format: syslog|access|json, lines: …, alerts: 1}]\n  \
        silent: [{name: …, pcap: FILE}]"
    )]
    Test {
        /// Rule files or folders [default: the rules inside the program]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Folder of samples
        #[arg(long, value_name = "DIR")]
        samples: Option<PathBuf>,
    },
    /// List the rules
    List {
        /// Rule files or folders [default: the rules inside the program]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Exit status: the check found something.
const FOUND: u8 = 3;

/// # Errors
/// When a path can't be read, there is nothing to look at, or stdout is gone.
pub fn run(args: &Rules) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let found = match &args.command {
        Command::Check { paths } => check(&files(paths)?, &mut out)?,
        Command::Test { paths, samples } => test(&files(paths)?, samples.as_deref(), &mut out)?,
        Command::List { paths, output } => {
            list(&files(paths)?, *output, &mut out)?;
            false
        }
    };
    std::io::Write::flush(&mut out)?;
    Ok(ExitCode::from(if found { FOUND } else { 0 }))
}

fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<RuleFile>> {
    if paths.is_empty() {
        return Ok(pack::embedded());
    }
    let files = pack::load(paths).map_err(|error| crate::cli::usage(format!("{error:#}")))?;
    if files.is_empty() {
        let paths: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(crate::cli::usage(format!(
            "no rule file (*.yml, *.yaml) in {}",
            paths.join(", ")
        )));
    }
    Ok(files)
}

#[cfg(test)]
mod tests;
