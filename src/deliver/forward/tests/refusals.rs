//! Who is not let in, who is not trusted, and what is said about it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::centre::*;
use crate::deliver::forward::{Config, NOT_ENROLLED, State, Status};
use crate::deliver::wire::{PATH_ALERTS, PATH_HEARTBEAT};

#[tokio::test]
async fn an_agent_of_another_authority_is_told_so_in_the_handshake() {
    let (site, other) = (Site::new(), Site::new());
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    let stranger = other.agent_trusting(&site.ca, Timestamp::now());
    let agent = Agent::start(stranger, Memory::of(3), &[centre.url()]);
    let state = agent
        .status("a refusal", |state| state.refused.is_some())
        .await;
    assert_eq!(state.refused.as_deref(), Some(NOT_ENROLLED));
    assert_eq!(NOT_ENROLLED, "refused in the handshake: not enrolled here");
    assert!(state.retry_at.is_some());
    assert_eq!(centre.received().len(), 0, "nothing was parsed");
    assert_eq!(agent.queue.waiting(), [1, 2, 3]);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_whose_certificate_ended_long_ago_is_told_so() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    let old = Timestamp::now() - SignedDuration::from_hours(121 * 24);
    let late = site.agent_trusting(&site.ca, old);
    let agent = Agent::start(late, Memory::of(1), &[centre.url()]);
    let state = agent
        .status("a refusal", |state| state.refused.is_some())
        .await;
    let words = "refused in the handshake: the certificate ended too long ago, enrol again";
    assert_eq!(state.refused.as_deref(), Some(words));
    agent.stop().await;
}

#[tokio::test]
async fn a_server_of_another_authority_is_sent_nothing() {
    let (site, other) = (Site::new(), Site::new());
    let centre = Centre::start(other.for_agents(), |request, _| welcome(request)).await;
    let agent = Agent::start(site.agent(), Memory::of(1), &[centre.url()]);
    let state = agent
        .status("an error", |state| state.error.is_some())
        .await;
    let words = "the server is of another centre than the one this host enrolled with";
    assert_eq!(state.error.as_deref(), Some(words));
    assert_eq!(state.refused, None);
    assert_eq!(centre.received().len(), 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_server_of_the_future_is_trusted_only_by_the_time_the_centre_told() {
    let later = Timestamp::now() + SignedDuration::from_hours(200 * 24);
    let site = Site::at(later);
    let server = site.for_people(); // its clock would refuse the agent's certificate
    let centre = Centre::start(server, |request, _| welcome(request)).await;
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("status.json");
    let identity = site.agent_trusting(&site.ca, later);
    let config = Config {
        urls: vec![centre.url()],
        ..Config::default()
    };
    let start = |status| {
        let queue = Memory::of(1);
        Agent::start_with(identity.clone(), queue, config.clone(), quick(), status)
    };
    let agent = start(Status::open(path.clone()));
    let state = agent
        .status("an error", |state| state.error.is_some())
        .await;
    let error = state.error.unwrap();
    assert!(
        error.starts_with("the server's certificate is not valid at "),
        "{error}"
    );
    assert!(error.ends_with("is this machine's clock right?"), "{error}");
    agent.stop().await;
    let told = State {
        told: Some(later),
        ..State::default()
    };
    std::fs::write(&path, serde_json::to_string(&told).unwrap()).unwrap();
    let agent = start(Status::open(path));
    centre.requests(PATH_ALERTS, 1).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_revoked_agent_stops_sending_and_comes_back_by_itself_when_approved() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, before| {
        match (request.path.as_str(), before) {
            (PATH_HEARTBEAT, 0..3) => problem(403, "revoked"),
            _ => welcome(request),
        }
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(1), &[centre.url()]);
    let state = agent
        .status("a refusal", |state| state.refused.is_some())
        .await;
    assert_eq!(state.refused.as_deref(), Some("revoked"));
    let batches = centre.requests(PATH_ALERTS, 1).await;
    let beats = centre.requests(PATH_HEARTBEAT, 4).await;
    assert!(
        beats[3].at <= batches[0].at,
        "no alert went before it was approved"
    );
    let gaps: Vec<Duration> = beats
        .windows(2)
        .map(|pair| pair[1].at - pair[0].at)
        .collect();
    assert!(
        gaps.iter().all(|&gap| gap >= quick().refused_min),
        "{gaps:?}"
    );
    let state = agent
        .status("welcome back", |state| state.refused.is_none())
        .await;
    assert!(state.last_success.is_some());
    agent.stop().await;
}

#[tokio::test]
async fn a_refusal_in_the_midst_keeps_the_batch() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, before| {
        match (request.path.as_str(), before) {
            (PATH_ALERTS, 0) => reply(401, "not JSON \x1b[2J"),
            _ => welcome(request),
        }
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(2), &[centre.url()]);
    let state = agent
        .status("a refusal", |state| state.refused.is_some())
        .await;
    assert_eq!(state.refused.as_deref(), Some("refused with 401"));
    assert_eq!(centre.requests(PATH_ALERTS, 2).await[1].numbers(), [1, 2]);
    agent.stop().await;
}
