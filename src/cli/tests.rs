//! Commands against a real centre on loopback.

use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::{alerts, profile};
use crate::centre::query::tokens::NewToken;
use crate::centre::{Config, Running, start};
use crate::deliver::forward::{Client, Dialer, Enrolment, enrol};
use crate::metrics::CentreMetrics;

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
            enrol(&Enrolment {
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
