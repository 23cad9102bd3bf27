//! `canhgac token create`

use std::io::{self, Write as _};
use std::process::ExitCode;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::centre::query::tokens::{Created, NewToken};
use crate::cli::listing::{self, finish};
use crate::cli::profile;
use crate::cli::time::{self, When};
use crate::deliver::forward::{Address, Client};

/// Tokens that enrol hosts
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    profile: profile::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token; it stands alone on stdout
    #[command(after_help = "Example:\n  \
        canhgac token create --agency hcm/so-y-te --uses 300 --expires 24h --from 10.1.0.0/16")]
    Create {
        /// Agency of the hosts that it enrols, such as hcm/so-y-te
        #[arg(long, value_name = "AGENCY")]
        agency: String,
        /// How many hosts it enrols
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        uses: u32,
        /// When it ends: 24h, 3d, a date or a time
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time::parse)]
        expires: When,
        /// Networks that may use it; may be given several times [default: any]
        #[arg(long, value_name = "CIDR", num_args = 1.., value_delimiter = ',')]
        from: Vec<String>,
    },
}

/// # Errors
/// The centre can't be asked, or says no.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = args.profile.client()?;
    let Command::Create {
        agency,
        uses,
        expires,
        from,
    } = &args.command;
    let asked = NewToken {
        agency: agency.clone(),
        uses: *uses,
        expires: Some(expires.after(Timestamp::now())),
        from: from.clone(),
    };
    finish(listing::run(create(&client, &asked)))
}

/// The centre's address as other machines know it: loopback is this one only.
fn elsewhere(url: &Address) -> String {
    let is_loopback = url.host == "localhost"
        || url
            .host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    if is_loopback {
        format!("https://NAME-OF-THIS-MACHINE:{}", url.port)
    } else {
        url.to_string()
    }
}

async fn create(client: &Client, asked: &NewToken) -> anyhow::Result<()> {
    let created: Created = client.post("/v1/tokens", asked).await?;
    writeln!(io::stdout(), "{}", created.token)?;
    let mut hint = io::stderr().lock();
    let uses = match asked.uses {
        1 => "one host".to_owned(),
        uses => format!("{uses} hosts"),
    };
    if let Some(expires) = asked.expires {
        writeln!(
            hint,
            "enrols {uses} of {} until {}; on each:",
            asked.agency,
            time::shown(expires, &TimeZone::system())
        )?;
    }
    writeln!(
        hint,
        "  canhgac enrol --centre {} --token TOKEN",
        elsewhere(client.url())
    )?;
    Ok(())
}
