//! `canhgac enrol`: this host becomes an agent of a centre.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::agent;
use crate::cli::{listing, usage};
use crate::deliver::forward::{Address, Dialer, Enrolment, Exception, Proxy, enrol};
use crate::deliver::identity::Token;
use crate::diagnostic::visible;

/// Enrol this host at a centre
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  \
    canhgac enrol --centre https://centre.example:8444 --token cg1.…\n  \
    canhgac enrol --centre https://centre.example:8444 --token - < token")]
pub struct Args {
    /// People's port of the centre
    #[arg(long, value_name = "URL")]
    centre: Address,
    /// Token from `canhgac token create`; `-` reads it from stdin, so that no list of processes shows it
    #[arg(long, value_name = "TOKEN")]
    token: String,
    /// The agent's state folder, `state` in agent.yaml; the identity goes to DIR/identity
    #[arg(long, value_name = "DIR", default_value = "/var/lib/canhgac")]
    state: PathBuf,
    /// HTTP proxy on the way: `http://[user:password@]host:port`
    #[arg(long, value_name = "URL")]
    proxy: Option<Proxy>,
    /// What is reached without the proxy: a host, .domain, an address, a network; may be given several times
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    no_proxy: Vec<Exception>,
}

/// # Errors
/// The host is enrolled already, the token is not for this centre, or the centre says no.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let token: Token = read_token(&args.token)?
        .parse()
        .map_err(|error| usage(format!("--token: {error}")))?;
    let (host, machine) = (agent::report::host_name(), agent::report::machine());
    let folder = args.state.join(agent::IDENTITY);
    let identity = listing::run(async {
        let enrolment = Enrolment {
            url: args.centre.clone(),
            token: &token,
            host: &host,
            machine: &machine,
            folder: &folder,
            dialer: Dialer {
                proxy: args.proxy.clone(),
                no_proxy: args.no_proxy.clone(),
            },
        };
        Ok(enrol(&enrolment).await?)
    })?;
    give_to_owner(&args.state, &folder)
        .with_context(|| format!("cannot give {} to the agent's user", folder.display()))?;
    let mut hint = io::stderr().lock();
    writeln!(
        hint,
        "{} is agent {} of {}; it will send to {}",
        visible(&host),
        identity.agent,
        visible(&identity.agency),
        visible(&identity.urls.join(", "))
    )?;
    writeln!(hint, "its key and certificate are in {}", folder.display())?;
    Ok(ExitCode::SUCCESS)
}

/// A token of ours has 80 characters.
const TOKEN_BYTES_MAX: u64 = 1024;

fn read_token(text: &str) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut text = String::new();
    io::stdin()
        .take(TOKEN_BYTES_MAX)
        .read_to_string(&mut text)
        .context("cannot read the token from stdin")?;
    Ok(text)
}

/// Who enrols is root as a rule; who reads the key is the agent's user, whose the state folder is.
fn give_to_owner(state: &Path, identity: &Path) -> io::Result<()> {
    let (wanted, made) = (fs::metadata(state)?, fs::metadata(identity)?);
    if wanted.uid() == made.uid() {
        return Ok(());
    }
    let give = |path: &Path| lchown(path, Some(wanted.uid()), Some(wanted.gid()));
    for entry in fs::read_dir(identity)? {
        give(&entry?.path())?;
    }
    give(identity)
}
