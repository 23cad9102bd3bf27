//! `canhgac alerts list|show|tail`

pub mod list;
mod show;
pub mod tail;
mod work;

use std::process::ExitCode;

use jiff::Timestamp;

use crate::alert::Severity;
use crate::cli::listing::{self, Output, finish};
use crate::cli::profile;
use crate::cli::time::{self, When};

/// Alerts that a centre has
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    profile: profile::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The newest alerts
    #[command(after_help = "Examples:\n  \
        canhgac alerts list --since 2h --level high\n  \
        canhgac alerts list --host web-1 --rule 'brute force' --field src_ip=203.0.113.7\n  \
        canhgac alerts list --since 2026-11-01 --until 2026-11-08 --agency hcm --output csv --limit 100000")]
    List {
        #[command(flatten)]
        filter: Filter,
        /// First time, included: 30m, 2h, 3d, a date or a time
        #[arg(long, value_name = "TIME", value_parser = time::parse)]
        since: Option<When>,
        /// Last time, excluded
        #[arg(long, value_name = "TIME", value_parser = time::parse)]
        until: Option<When>,
        /// How many at most
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: usize,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// All of one alert, and what to do about it
    Show {
        /// Id of the alert, as `alerts list` shows it
        id: String,
        /// Agent that made it, where several made the same
        #[arg(long)]
        agent: Option<String>,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        output: Form,
    },
    /// Alerts as they arrive, until Ctrl-C
    Tail {
        #[command(flatten)]
        filter: Filter,
        /// How many of the newest to begin with
        #[arg(long, value_name = "NUMBER", default_value_t = 10)]
        lines: usize,
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// How one alert is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// For reading
    #[default]
    Text,
    /// As the centre has it
    Json,
}

/// Which alerts
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// This level and worse: informational, low, medium, high, critical
    #[arg(long, value_name = "LEVEL")]
    level: Option<Severity>,
    /// Id of a rule, or a part of its title
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Machine that the alert is about
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Agency and all below it
    #[arg(long, value_name = "AGENCY")]
    agency: Option<String>,
    /// Field that has this value; may be given several times
    #[arg(long = "field", value_name = "NAME=VALUE")]
    fields: Vec<String>,
    /// Where it stands: new, acknowledged, in-progress, closed; may be given several times
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,
    /// Person who has it
    #[arg(long, value_name = "NAME")]
    assignee: Option<String>,
    /// Tag of the rule and those below it, such as attack.t1110 or T1110
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Words of the title, the record or a field's value, with or without their marks; `brut*` is a beginning
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

type Pairs = Vec<(&'static str, String)>;

impl Filter {
    fn pairs(&self) -> Pairs {
        let mut pairs = Pairs::new();
        if let Some(level) = self.level {
            pairs.push(("level", level.to_string()));
        }
        for (name, value) in [
            ("rule", &self.rule),
            ("host", &self.host),
            ("agency", &self.agency),
            ("assignee", &self.assignee),
            ("tag", &self.tag),
            ("text", &self.text),
        ] {
            if let Some(value) = value {
                pairs.push((name, value.clone()));
            }
        }
        pairs.extend(self.status.iter().map(|status| ("status", status.clone())));
        pairs.extend(self.fields.iter().map(|field| ("field", field.clone())));
        pairs
    }
}

/// What a rule says beyond its title, for whoever looks at its alert.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advice {
    pub title_vi: Option<String>,
    pub description: Option<String>,
    pub advice: Option<String>,
    pub advice_vi: Option<String>,
    pub false_positives: Vec<String>,
}

/// Runs the command; `advice` tells what is known of a rule by its id.
///
/// # Errors
/// The centre can't be asked, or says no.
pub fn run(args: &Args, advice: &dyn Fn(&str) -> Option<Advice>) -> anyhow::Result<ExitCode> {
    let client = args.profile.client()?;
    finish(listing::run(async {
        match &args.command {
            Command::List {
                filter,
                since,
                until,
                limit,
                output,
            } => {
                let now = Timestamp::now();
                let mut pairs = filter.pairs();
                for (name, when) in [("since", since), ("until", until)] {
                    pairs.extend(when.map(|when| (name, when.before(now).to_string())));
                }
                list::list(&client, &pairs, *limit, *output).await
            }
            Command::Show { id, agent, output } => {
                show::show(&client, id, agent.as_deref(), *output, advice).await
            }
            Command::Tail {
                filter,
                lines,
                output,
            } => tail::tail(&client, &filter.pairs(), *lines, *output).await,
        }
    }))
}
