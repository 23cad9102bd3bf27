//! Commands against a real centre on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use clap::{Args as _, FromArgMatches as _};

use super::{agents, alerts, enrol, profile, token};
use crate::alert::{Alert, Severity};
use crate::centre::query::tokens::NewToken;
use crate::centre::{Config, Running, start};
use crate::deliver::forward::{
    self, Client, Dialer, Enrolment, Forward, Queue, QueueError, Status, Timing,
};
use crate::deliver::identity::Identity;
use crate::deliver::spool::{Batch, Row, RowId};
use crate::deliver::wire::{Epoch, Heartbeat, Ledger, Seen, Sequence};
use crate::metrics::{AgentMetrics, CentreMetrics};

#[tokio::test]
async fn a_profile_a_token_and_an_enrolment_fit_together() {
    let (folder, centre) = centre().await;
    let client = client(&centre);
    let empty = alerts::list::page(&client, &Vec::new(), 10, None)
        .await
        .unwrap();
    assert_eq!(empty.alerts.len(), 0);
    let asked = NewToken {
        agency: "hcm".to_owned(),
        uses: 1,
        expires: None,
        from: vec!["127.0.0.1".to_owned()],
    };
    let token = centre.create_token(&asked).await.unwrap().parse().unwrap();
    let enrolment = |folder: PathBuf| {
        let url = centre.people_url.parse().unwrap();
        let token = &token;
        async move {
            forward::enrol(&Enrolment {
                url,
                token,
                host: "web-1",
                machine: "m",
                folder: &folder,
                dialer: Dialer {
                    proxy: None,
                    no_proxy: Vec::new(),
                },
            })
            .await
        }
    };
    let identity = enrolment(folder.path().join("one")).await.unwrap();
    assert_eq!(identity.agency, "hcm");
    let port = centre.addresses.agents.port();
    assert_eq!(identity.urls, [format!("https://127.0.0.1:{port}")]);
    let refused = enrolment(folder.path().join("two")).await.unwrap_err();
    assert!(refused.to_string().contains("used up"), "{refused}");
    let wrong = NewToken {
        agency: "a b".to_owned(),
        ..asked
    };
    let wrong = centre.create_token(&wrong).await.unwrap_err();
    assert!(wrong.to_string().contains("`agency`"), "{wrong}");
    centre.shutdown().await;
}

#[tokio::test]
async fn a_malformed_filter_is_told_by_the_centre() {
    let (_folder, centre) = centre().await;
    let client = client(&centre);
    let pairs = vec![("field", "src_ip".to_owned())];
    let error = alerts::list::page(&client, &pairs, 10, None)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("NAME=VALUE"), "{error}");
    centre.shutdown().await;
}

#[tokio::test]
async fn what_an_agent_forwards_comes_out_of_tail_once_until_it_is_revoked() {
    let (folder, centre) = centre().await;
    let client = client(&centre);
    let pairs = Vec::new();
    let mut window = alerts::tail::Window::default();
    let start = alerts::list::page(&client, &pairs, 1, None)
        .await
        .unwrap()
        .time;
    let identity = enrol_at(&centre, folder.path()).await;
    let agent = identity.agent.to_string();
    let waiting = Waiting::default();
    waiting.add(1..=3);
    let wake = Arc::new(Notify::new());
    let stop = CancellationToken::new();
    let status = Status::open(folder.path().join("status.json"));
    let forward = Forward {
        queue: waiting.clone(),
        identity,
        config: forward::Config::default(),
        timing: Timing::default(),
        heartbeat: beat,
        wake: wake.clone(),
        stop: stop.clone(),
        metrics: AgentMetrics::default(),
        status: status.clone(),
    };
    let forwarding = tokio::spawn(forward.run());
    let mut shown = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    while shown.len() < 5 {
        assert!(Instant::now() < deadline, "{shown:?} {:?}", status.get());
        let new = window.ask(&client, &pairs, start).await.unwrap();
        shown.extend(new.iter().map(|alert| {
            let alert: Alert = serde_json::from_str(alert.get()).unwrap();
            alert.id.as_bytes()[15]
        }));
        if shown.len() == 3 && waiting.is_empty() {
            waiting.add(4..=5);
            wake.notify_one();
        }
    }
    assert_eq!(shown, [1, 2, 3, 4, 5]);
    let path = format!("/v1/agents/{agent}/revoke");
    let _: serde_json::Value = client.post(&path, &()).await.unwrap();
    waiting.add(6..=6);
    wake.notify_one();
    while status.get().refused.is_none() {
        assert!(Instant::now() < deadline, "{:?}", status.get());
        tokio::task::yield_now().await;
    }
    let refused = status.get().refused.unwrap();
    assert!(refused.starts_with("this agent was revoked"), "{refused}");
    assert!(!waiting.is_empty());
    stop.cancel();
    forwarding.await.unwrap().unwrap();
    centre.shutdown().await;
}

/// What waits to be sent, as a spool would have it.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<Vec<Row>>>);

impl Waiting {
    fn add(&self, numbers: std::ops::RangeInclusive<u64>) {
        self.0.lock().unwrap().extend(numbers.map(|number| {
            let alert = format!(
                r#"{{"id":"{number:032x}","time":"2026-11-05T00:00:{number:02}Z","observed":"2026-11-05T00:01:00Z","host":"h","rule":{{"id":"r","title":"t","level":"high"}}}}"#
            );
            Row {
                id: RowId {
                    epoch: Epoch(7),
                    seq: Sequence(number),
                },
                seq: Sequence(number),
                level: Severity::High,
                alert: RawValue::from_string(alert).unwrap(),
            }
        }));
    }

    fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl Queue for Waiting {
    async fn next(&self, lines_max: usize, _: usize) -> Result<Batch, QueueError> {
        let rows = self.0.lock().unwrap();
        let copy = |row: &Row| Row {
            id: row.id,
            seq: row.seq,
            level: row.level,
            alert: row.alert.clone(),
        };
        Ok(Batch {
            epoch: Epoch(7),
            rows: rows.iter().take(lines_max).map(copy).collect(),
        })
    }

    async fn done(&self, done: &[RowId], _: &[(RowId, String)]) -> Result<(), QueueError> {
        self.0.lock().unwrap().retain(|row| !done.contains(&row.id));
        Ok(())
    }

    async fn ledger(&self) -> Result<Ledger, QueueError> {
        Ok(Ledger {
            epoch: Epoch(7),
            next: 1,
            waiting: Vec::new(),
            given_up: Vec::new(),
        })
    }

    async fn seen(&self, _: Seen) -> Result<(), QueueError> {
        Ok(())
    }
}

fn beat(ledger: Ledger) -> Heartbeat {
    Heartbeat {
        version: "0".to_owned(),
        machine: "m".to_owned(),
        boot: "b".to_owned(),
        host: "h".to_owned(),
        rules: "d".to_owned(),
        ledger,
        sources: Vec::new(),
        drops: BTreeMap::new(),
        degraded: Vec::new(),
        clock: Timestamp::UNIX_EPOCH,
    }
}

async fn enrol_at(centre: &Running, folder: &Path) -> Identity {
    let asked = NewToken {
        agency: "hcm".to_owned(),
        uses: 1,
        expires: None,
        from: Vec::new(),
    };
    let token = centre.create_token(&asked).await.unwrap().parse().unwrap();
    let enrolment = Enrolment {
        url: centre.people_url.parse().unwrap(),
        token: &token,
        host: "web-1",
        machine: "m",
        folder: &folder.join("identity"),
        dialer: Dialer {
            proxy: None,
            no_proxy: Vec::new(),
        },
    };
    forward::enrol(&enrolment).await.unwrap()
}

#[test]
fn arguments_are_read_as_the_help_says() {
    let command = || {
        let under = |name: &'static str| clap::Command::new(name);
        clap::Command::new("canhgac")
            .subcommand(alerts::Args::augment_args(under("alerts")))
            .subcommand(agents::Args::augment_args(under("agents")))
            .subcommand(token::Args::augment_args(under("token")))
            .subcommand(enrol::Args::augment_args(under("enrol")))
    };
    command().debug_assert();
    for (line, good) in [
        ("alerts list", true),
        (
            "alerts list --since 2h --level high --output csv --limit 5",
            true,
        ),
        (
            "alerts list --field a=b --field c=d --text x --profile p",
            true,
        ),
        ("alerts --profile p list", true),
        ("alerts list --level severe", false),
        ("alerts list --since yesterday", false),
        ("alerts show 0123 --agent a --output json", true),
        ("alerts show", false),
        ("alerts tail --lines 3 --rule r --host h --agency a", true),
        ("agents list --output json", true),
        ("agents revoke a1", true),
        (
            "token create --agency A --uses 300 --expires 24h --from 10.1.0.0/16",
            true,
        ),
        (
            "token create --agency A --from 10.1.0.0/16,10.2.0.0/16",
            true,
        ),
        ("token create", false),
        (
            "enrol --centre https://c:8444 --token T --proxy http://p:1",
            true,
        ),
        ("enrol --centre http://c:8444 --token T", false),
        ("enrol --centre https://c:8444", false),
    ] {
        let words = std::iter::once("canhgac").chain(line.split(' '));
        let read = command().try_get_matches_from(words);
        assert_eq!(read.is_ok(), good, "{line}: {read:?}");
        let Ok(read) = read else { continue };
        let (name, read) = read.subcommand().unwrap();
        let read = match name {
            "alerts" => alerts::Args::from_arg_matches(read).map(drop),
            "agents" => agents::Args::from_arg_matches(read).map(drop),
            "token" => token::Args::from_arg_matches(read).map(drop),
            _ => enrol::Args::from_arg_matches(read).map(drop),
        };
        assert!(read.is_ok(), "{line}: {read:?}");
    }
}

async fn centre() -> (TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let loopback = "127.0.0.1:0".parse().unwrap();
    let config = Config {
        data: folder.path().join("centre"),
        agents_listen: loopback,
        people_listen: loopback,
        metrics_listen: loopback,
        ..Config::default()
    };
    let running = start(config, CentreMetrics::default()).await.unwrap();
    (folder, running)
}

fn client(centre: &Running) -> Arc<Client> {
    let args = profile::Args {
        profile: Some(centre.profile.clone()),
    };
    Arc::new(args.client().unwrap())
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    super::Cli::command().debug_assert();
}
