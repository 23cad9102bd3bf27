//! `canhgac agents list|revoke`

use std::io::{self, Write};
use std::process::ExitCode;

use jiff::tz::TimeZone;

use crate::centre::query::agents::{Agent, Changed, Page};
use crate::cli::listing::{self, Output, csv, finish, json, table};
use crate::cli::{profile, time};
use crate::deliver::forward::{Client, query};
use crate::diagnostic::visible;

/// Agents of a centre
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    profile: profile::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Who is enrolled and when each was last heard
    List {
        /// How to write it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Hear an agent no more; what it sent stays
    Revoke {
        /// Id of the agent, as `agents list` shows it
        id: String,
    },
}

/// # Errors
/// The centre can't be asked, or says no.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let client = args.profile.client()?;
    finish(listing::run(async {
        match &args.command {
            Command::List { output } => list(&client, *output).await,
            Command::Revoke { id } => revoke(&client, id).await,
        }
    }))
}

/// Agents asked for at a time.
const PAGE: &str = "1000";

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut pairs = vec![("limit", PAGE)];
        if let Some(after) = &after {
            pairs.push(("after", after));
        }
        let page: Page = client.get(&format!("/v1/agents{}", query(pairs))).await?;
        agents.extend(page.agents);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out, &agents, output, &TimeZone::system())?;
    out.flush()?;
    Ok(())
}

fn write(
    out: &mut impl Write,
    agents: &[Agent],
    output: Output,
    zone: &TimeZone,
) -> anyhow::Result<()> {
    let heard = |agent: &Agent| {
        agent
            .last_heard
            .map_or_else(String::new, |at| at.to_string())
    };
    match output {
        Output::Json => {
            for agent in agents {
                json(out, &serde_json::to_string(agent)?)?;
            }
        }
        Output::Csv => {
            let head = "id,agency,host,state,enrolled,last_heard,version,degraded,unexplained_loss,stated_loss";
            csv(out, &head.split(',').collect::<Vec<_>>())?;
            for agent in agents {
                csv(
                    out,
                    &[
                        &agent.id,
                        &agent.agency,
                        &agent.host,
                        &agent.state,
                        &agent.enrolled.to_string(),
                        &heard(agent),
                        agent.version.as_deref().unwrap_or_default(),
                        &agent.degraded.join(" "),
                        &agent.unexplained_loss.to_string(),
                        &agent.stated_loss.to_string(),
                    ],
                )?;
            }
        }
        Output::Table => {
            let rows: Vec<Vec<String>> = agents.iter().map(|agent| row(agent, zone)).collect();
            let head = [
                "AGENT",
                "STATE",
                "HOST",
                "AGENCY",
                "LAST HEARD",
                "VERSION",
                "DEGRADED",
                "LOST",
            ];
            table(out, &head, &rows)?;
        }
    }
    Ok(())
}

fn row(agent: &Agent, zone: &TimeZone) -> Vec<String> {
    let heard = agent.last_heard.map(|at| time::shown(at, zone));
    let lost = match (agent.unexplained_loss, agent.stated_loss) {
        (0, 0) => "-".to_owned(),
        (unexplained, 0) => format!("{unexplained} unexplained"),
        (0, stated) => format!("{stated} given up"),
        (unexplained, stated) => format!("{unexplained} unexplained, {stated} given up"),
    };
    vec![
        agent.id.clone(),
        agent.state.clone(),
        agent.host.clone(),
        agent.agency.clone(),
        heard.unwrap_or_else(|| "never".to_owned()),
        agent.version.clone().unwrap_or_else(|| "-".to_owned()),
        match agent.degraded.is_empty() {
            true => "-".to_owned(),
            false => agent.degraded.join(", "),
        },
        lost,
    ]
}

async fn revoke(client: &Client, id: &str) -> anyhow::Result<()> {
    let id = url_part(id);
    let changed: Changed = client
        .post(&format!("/v1/agents/{id}/revoke"), &serde_json::Map::new())
        .await?;
    let mut error = io::stderr().lock();
    writeln!(
        error,
        "{} is {}",
        visible(&changed.id),
        visible(&changed.state)
    )?;
    Ok(())
}

/// One part of a path, escaped as a query's value is.
pub fn url_part(text: &str) -> String {
    let pair = query([("x", text)]);
    pair.strip_prefix("?x=").unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_listed_for_people_and_programs() {
        let agent = Agent {
            id: "a1".to_owned(),
            agency: "hcm".to_owned(),
            host: "web\u{1b}[2J".to_owned(),
            state: "active".to_owned(),
            enrolled: "2026-11-05T00:00:00Z".parse().unwrap(),
            last_heard: None,
            version: None,
            degraded: vec!["config".to_owned()],
            unexplained_loss: 3,
            stated_loss: 0,
        };
        for (output, expected) in [
            (
                Output::Table,
                "AGENT  STATE   HOST          AGENCY  LAST HEARD  VERSION  DEGRADED  LOST\n\
                 a1     active  web\\u{1b}[2J  hcm     never       -        config    3 unexplained\n",
            ),
            (
                Output::Json,
                "{\"id\":\"a1\",\"agency\":\"hcm\",\"host\":\"web\\u001b[2J\",\"state\":\"active\",\
                 \"enrolled\":\"2026-11-05T00:00:00Z\",\"degraded\":[\"config\"],\"unexplained_loss\":3,\"stated_loss\":0}\n",
            ),
            (
                Output::Csv,
                "\"id\",\"agency\",\"host\",\"state\",\"enrolled\",\"last_heard\",\"version\",\"degraded\",\"unexplained_loss\",\"stated_loss\"\r\n\
                 \"a1\",\"hcm\",\"web\\u{1b}[2J\",\"active\",\"2026-11-05T00:00:00Z\",\"\",\"\",\"config\",\"3\",\"0\"\r\n",
            ),
        ] {
            let mut out = Vec::new();
            write(
                &mut out,
                std::slice::from_ref(&agent),
                output,
                &TimeZone::UTC,
            )
            .unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn an_id_stays_one_part_of_the_path() {
        for (text, part) in [("a1", "a1"), ("../x?y#z", "..%2Fx%3Fy%23z"), ("", "")] {
            assert_eq!(url_part(text), part);
        }
    }
}
