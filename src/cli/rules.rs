//! `canhgac rules`: check, test and list Sigma rules.

pub mod sample;
mod check;
mod test;
mod list;
mod explain;
mod coverage;
mod junit;
mod stats;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::alert::AlertId;
use crate::cli::alerts::Form;
use crate::cli::listing::{self, Output};
use crate::cli::pack::{self, RuleFile};
use crate::cli::profile;
use crate::decode::Format;

pub use crate::cli::rules::check::check;
pub use crate::cli::rules::list::list;
pub use crate::cli::rules::test::test;

/// Sigma rules: are they sound, do they fire as they should, which are there
#[derive(Debug, clap::Args)]
pub struct Rules {
    /// Lists of values for the rules' placeholders (`expand`): a YAML file of `name: [value, …]`
    #[arg(long, value_name = "FILE", global = true)]
    placeholders: Option<PathBuf>,
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
        /// Write the outcomes as JUnit's XML too
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
    },
    /// List the rules
    List {
        /// Rule files or folders [default: the rules inside the program]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
        #[arg(long, value_enum, default_value_t)]
        output: Output,
        /// What each rule needs in an event, and what it is expected to cost
        #[arg(long)]
        stats: bool,
        /// Files of records to count each rule's hits in; with --stats
        #[arg(long, value_name = "FILE", requires = "stats", num_args = 1..)]
        hits: Vec<PathBuf>,
    },
    /// Techniques of ATT&CK that the rules speak of, as a Navigator layer (JSON)
    Coverage {
        /// Rule files or folders [default: the rules inside the program]
        #[arg(value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
    /// Why a rule fires on an event, or doesn't
    #[command(after_help = "Examples:\n  \
        canhgac rules explain 'Brute force' --event /var/log/auth.log\n  \
        canhgac rules explain 5a17 --rules my-rules/ --event event.json --output json\n  \
        canhgac rules explain 'Shell from a web server' --event 3f2a…, an alert's id")]
    Explain {
        /// Id of a rule, or a part of its title
        rule: String,
        /// File of records, or the id of an alert that the centre has
        #[arg(long, value_name = "FILE|ALERT")]
        event: String,
        /// Rule files or folders [default: the rules inside the program]
        #[arg(long, value_name = "PATH", num_args = 1..)]
        rules: Vec<PathBuf>,
        /// How the file's records are to be read
        #[arg(long, value_name = "FORMAT", default_value = "auto")]
        format: Format,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        output: Form,
        #[command(flatten)]
        profile: profile::Args,
    },
}

/// Exit status: the check found something.
const FOUND: u8 = 3;

/// # Errors
/// When a path can't be read, there is nothing to look at, or stdout is gone.
pub fn run(args: &Rules) -> anyhow::Result<ExitCode> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let lists = pack::placeholders(args.placeholders.as_deref())?;
    let found = match &args.command {
        Command::Check { paths } => check(&files(paths)?, &lists, &mut out)?,
        Command::Test {
            paths,
            samples,
            junit,
        } => {
            let (found, cases) = test(&files(paths)?, &lists, samples.as_deref(), &mut out)?;
            if let Some(path) = junit {
                std::fs::write(path, junit::report(&cases))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
            found
        }
        Command::List {
            paths,
            output,
            stats,
            hits,
        } => {
            let files = files(paths)?;
            if *stats {
                stats::stats(&files, &lists, hits, *output, &mut out)?;
            } else {
                list(&files, &lists, *output, &mut out)?;
            }
            false
        }
        Command::Coverage { paths } => {
            coverage::coverage(&files(paths)?, &lists, &mut out)?;
            false
        }
        Command::Explain {
            rule,
            event,
            rules,
            format,
            output,
            profile,
        } => {
            let question = explain::Question {
                rule,
                files: &files(rules)?,
                placeholders: &lists,
                output: *output,
            };
            let path = Path::new(event);
            if path.exists() || event.parse::<AlertId>().is_err() {
                explain::of_file(&question, path, *format, &mut out)?;
            } else {
                let client = profile.client()?;
                listing::run(explain::of_alert(&question, &client, event, &mut out))?;
            }
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
