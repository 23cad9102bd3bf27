//! What goes, what stays, what is sent again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::centre::*;
use crate::deliver::forward::{Config, Status, Timing};
use crate::deliver::wire::{
    HeartbeatAnswer, PATH_ALERTS, PATH_HEARTBEAT, PATH_RENEW, RenewAnswer, RenewRequest, Seen,
};

#[tokio::test]
async fn a_backlog_is_delivered_and_what_comes_later_goes_at_once() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    let identity = site.agent();
    let id = identity.agent.clone();
    let agent = Agent::start(identity, Memory::of(2500), &[centre.url()]);
    let batches = centre.requests(PATH_ALERTS, 3).await;
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.numbers().len()).collect();
    assert_eq!(sizes, [1000, 1000, 500]);
    for batch in &batches {
        assert_eq!(batch.headers["canhgac-epoch"], "000000000000feed");
        assert_eq!(batch.headers["content-type"], "application/x-ndjson");
        assert_eq!(batch.headers["content-encoding"], "zstd");
        assert_eq!(batch.peer.as_ref().unwrap().agent, id);
    }
    eventually("an empty queue", || {
        agent.queue.waiting().is_empty().then_some(())
    })
    .await;
    let appended = tokio::time::Instant::now();
    agent.queue.append(r#"{"n":"late"}"#);
    agent.wake.notify_one();
    let late = centre.requests(PATH_ALERTS, 4).await;
    assert_eq!(late[3].numbers(), [2501]);
    // A poll would take its interval; a wake takes a round trip on loopback.
    assert!(late[3].at - appended < Duration::from_secs(1));
    let accepted = agent.metrics.batches.with_label_values(&["accepted"]);
    eventually("counted", || (accepted.get() == 4).then_some(())).await;
    let state = agent
        .status("a success", |state| state.last_success.is_some())
        .await;
    assert_eq!(state.url, Some(centre.url().to_string()));
    assert_eq!((state.refused, state.error), (None, None));
    assert_eq!(
        centre.received()[0].path,
        PATH_HEARTBEAT,
        "first of all it says that it lives"
    );
    agent.stop().await;
}

#[tokio::test]
async fn rows_stay_until_a_200_accounts_for_each_of_them() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, before| -> Met {
        if request.path == PATH_HEARTBEAT {
            return welcome(request).into();
        }
        match before {
            0 => reply(500, "").into(),
            1 => Met::Cut,
            2 => reply(200, "{").into(),
            3 => reply(
                200,
                r#"{"accepted":2,"duplicate":0,"rejected":[],"time":"2026-01-01T00:00:00Z"}"#,
            )
            .into(),
            4 => reply(204, "").into(),
            5 => reply(200, "x".repeat(300 * 1024)).into(),
            _ => welcome(request).into(),
        }
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(3), &[centre.url()]);
    let batches = centre.requests(PATH_ALERTS, 7).await;
    for batch in &batches[..6] {
        assert_eq!(batch.numbers(), [1, 2, 3], "sent again, whole");
    }
    eventually("an empty queue", || {
        agent.queue.waiting().is_empty().then_some(())
    })
    .await;
    assert_eq!(agent.queue.dead(), []);
    agent.stop().await;
}

#[tokio::test]
async fn a_lost_answer_means_the_batch_goes_again() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, before| -> Met {
        match (request.path.as_str(), before) {
            (PATH_ALERTS, 0) => Met::Cut,
            _ => welcome(request).into(),
        }
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(5), &[centre.url()]);
    let batches = centre.requests(PATH_ALERTS, 2).await;
    assert_eq!(batches[0].body, batches[1].body);
    agent.stop().await;
}

#[tokio::test]
async fn rejected_rows_become_dead_letters_and_the_others_are_done() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| {
        match request.path.as_str() {
            PATH_ALERTS => rejecting(request, &[1, 3]),
            _ => welcome(request),
        }
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(5), &[centre.url()]);
    eventually("an empty queue", || {
        agent.queue.waiting().is_empty().then_some(())
    })
    .await;
    let why = "wrong agency".to_owned();
    assert_eq!(agent.queue.dead(), [(2, why.clone()), (4, why)]);
    eventually("counted", || {
        (agent.metrics.dead_letters.get() == 2).then_some(())
    })
    .await;
    assert_eq!(agent.metrics.alerts_sent.get(), 3);
    agent.stop().await;
}

#[tokio::test]
async fn a_batch_too_large_is_halved_and_one_too_large_alone_is_given_up() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| {
        let is_batch = request.path == PATH_ALERTS;
        if is_batch && (request.numbers().len() > 2 || request.numbers().contains(&7)) {
            return reply(413, "");
        }
        welcome(request)
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(8), &[centre.url()]);
    eventually("an empty queue", || {
        agent.queue.waiting().is_empty().then_some(())
    })
    .await;
    let why = "too large for the centre, alone".to_owned();
    assert_eq!(agent.queue.dead(), [(7, why)]);
    let batches = centre.requests(PATH_ALERTS, 1).await;
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.numbers().len()).collect();
    assert_eq!(sizes[..3], [8, 4, 2], "{sizes:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_batch_too_slow_for_the_line_is_halved() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| -> Met {
        if request.path == PATH_ALERTS && request.numbers().len() > 4 {
            return Met::Silence;
        }
        welcome(request).into()
    })
    .await;
    let config = Config {
        urls: vec![centre.url()],
        ..Config::default()
    };
    let timing = Timing {
        request: Duration::from_millis(200),
        ..quick()
    };
    let agent = Agent::start_with(
        site.agent(),
        Memory::of(8),
        config,
        timing,
        Status::default(),
    );
    let batches = centre.requests(PATH_ALERTS, 2).await;
    assert_eq!(batches[0].numbers().len(), 8);
    assert_eq!(batches[1].numbers().len(), 4);
    eventually("an empty queue", || {
        agent.queue.waiting().is_empty().then_some(())
    })
    .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_centre_that_asks_to_wait_is_left_alone_so_long() {
    let site = Site::new();
    for status in [429, 503] {
        let centre = Centre::start(site.for_agents(), move |request, before| {
            match (request.path.as_str(), before) {
                (PATH_ALERTS, 0) => later(status, "1"),
                _ => welcome(request),
            }
        })
        .await;
        let agent = Agent::start(site.agent(), Memory::of(1), &[centre.url()]);
        let batches = centre.requests(PATH_ALERTS, 2).await;
        let waited = batches[1].at - batches[0].at;
        assert!(waited >= Duration::from_secs(1), "{status}: {waited:?}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn what_the_centre_has_seen_reaches_the_queue() {
    let site = Site::new();
    let seen = Seen {
        epoch: EPOCH,
        next: 7,
    };
    let centre = Centre::start(site.for_agents(), move |_, _| {
        let answer = HeartbeatAnswer {
            time: Timestamp::now(),
            bundle: None,
            next_in: 60,
            seen: Some(seen),
        };
        reply(200, serde_json::to_string(&answer).unwrap())
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::default(), &[centre.url()]);
    let given = eventually("seen", || agent.queue.seen().first().copied()).await;
    assert_eq!(given, seen);
    agent.stop().await;
}

#[tokio::test]
async fn each_connection_begins_with_a_heartbeat() {
    // A centre restored from a copy must be found before new numbers hide that it lacks older ones.
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| {
        let mut reply = welcome(request);
        let close = "close".parse().unwrap();
        reply.headers_mut().insert("connection", close);
        reply
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(1), &[centre.url()]);
    for batches in 1..=3 {
        centre.requests(PATH_ALERTS, batches).await;
        agent.queue.append("{}");
        agent.wake.notify_one();
    }
    centre.requests(PATH_ALERTS, 4).await;
    let paths: Vec<String> = centre.received().into_iter().map(|r| r.path).collect();
    let expected = [PATH_HEARTBEAT, PATH_ALERTS].repeat(4);
    assert_eq!(paths, expected);
    agent.stop().await;
}

#[tokio::test]
async fn a_heartbeat_that_is_not_taken_does_not_hold_up_alerts() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| {
        match request.path.as_str() {
            PATH_HEARTBEAT => reply(500, "{\"title\":\"oh\",\"status\":500}"),
            _ => welcome(request),
        }
    })
    .await;
    let agent = Agent::start(site.agent(), Memory::of(2), &[centre.url()]);
    assert_eq!(centre.requests(PATH_ALERTS, 1).await[0].numbers(), [1, 2]);
    agent.stop().await;
}

#[tokio::test]
async fn a_stop_sends_what_waits_first_and_gives_up_after_the_grace() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| -> Met {
        if request.path == PATH_ALERTS && request.numbers().contains(&3) {
            return Met::Silence;
        }
        welcome(request).into()
    })
    .await;
    let config = Config {
        urls: vec![centre.url()],
        stop_grace_seconds: 1,
        ..Config::default()
    };
    let queue = Memory::default();
    let agent = Agent::start_with(
        site.agent(),
        queue.clone(),
        config,
        quick(),
        Status::default(),
    );
    centre.requests(PATH_HEARTBEAT, 1).await;
    queue.append("{}");
    queue.append("{}");
    agent.stop.cancel(); // no wake: it looks by itself
    eventually("the rest is sent", || {
        queue.waiting().is_empty().then_some(())
    })
    .await;
    agent.stop().await;

    queue.append("{}");
    let agent = Agent::start(site.agent(), queue.clone(), &[centre.url()]);
    centre.requests(PATH_ALERTS, 2).await;
    agent.stop().await;
    assert_eq!(queue.waiting(), [3]);
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_is_dead() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    let dead = "https://127.0.0.1:1".parse().unwrap();
    let agent = Agent::start(site.agent(), Memory::of(1), &[dead, centre.url()]);
    centre.requests(PATH_ALERTS, 1).await;
    let state = agent
        .status("a success", |state| state.last_success.is_some())
        .await;
    assert_eq!(state.url, Some(centre.url().to_string()));
    agent.stop().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_and_the_new_one_used_and_kept() {
    let site = std::sync::Arc::new(Site::new());
    let signer = std::sync::Arc::clone(&site);
    let old = Timestamp::now() - SignedDuration::from_hours(70 * 24);
    let identity = site.agent_trusting(&site.ca, old);
    let folder = site.folder.path().join(identity.agent.as_str());
    let centre = Centre::start(site.for_agents(), move |request, before| {
        match (request.path.as_str(), before) {
            (PATH_RENEW, 0) => reply(500, ""),
            (PATH_RENEW, _) => {
                let asked: RenewRequest = serde_json::from_slice(&request.body).unwrap();
                let agent = &request.peer.as_ref().unwrap().agent;
                let signed = signer.ca.sign_agent(&asked.csr, agent, Timestamp::now());
                let certificate = signed.unwrap();
                reply(
                    200,
                    serde_json::to_string(&RenewAnswer { certificate }).unwrap(),
                )
            }
            _ => welcome(request),
        }
    })
    .await;
    let old_end = identity.pair().not_after();
    let agent = Agent::start(identity, Memory::of(1), &[centre.url()]);
    centre.requests(PATH_ALERTS, 1).await;
    // The first try failed, the alert went all the same; a wake comes after the retry is due.
    let new_end = eventually("a later end", || {
        agent.queue.append("{}");
        agent.wake.notify_one();
        let kept = crate::deliver::identity::Identity::load(&folder).unwrap();
        (!kept.is_on_trial() && kept.pair().not_after() > old_end)
            .then_some(kept.pair().not_after())
    })
    .await;
    let state = agent
        .status("the new end", |state| {
            state.certificate_ends == Some(new_end)
        })
        .await;
    assert_eq!(state.error, None);
    let last = centre.received().last().unwrap().clone();
    assert_eq!(last.peer.unwrap().not_after, new_end);
    agent.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_opens_the_door_for_renewal_and_then_all_goes() {
    let site = std::sync::Arc::new(Site::new());
    let signer = std::sync::Arc::clone(&site);
    let old = Timestamp::now() - SignedDuration::from_hours(110 * 24);
    let identity = site.agent_trusting(&site.ca, old);
    let centre = Centre::start(site.for_agents(), move |request, _| {
        let peer = request.peer.as_ref().unwrap();
        let expired = peer.has_expired(Timestamp::now());
        match request.path.as_str() {
            PATH_RENEW => {
                let asked: RenewRequest = serde_json::from_slice(&request.body).unwrap();
                let signed = signer
                    .ca
                    .sign_agent(&asked.csr, &peer.agent, Timestamp::now());
                let certificate = signed.unwrap();
                reply(
                    200,
                    serde_json::to_string(&RenewAnswer { certificate }).unwrap(),
                )
            }
            _ if expired => problem(403, "the certificate has ended"),
            _ => welcome(request),
        }
    })
    .await;
    let agent = Agent::start(identity, Memory::of(1), &[centre.url()]);
    centre.requests(PATH_ALERTS, 1).await;
    let paths: Vec<String> = centre
        .received()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths, [PATH_RENEW, PATH_HEARTBEAT, PATH_ALERTS]);
    agent.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_that_is_refused_is_dropped_and_the_old_one_goes_on() {
    let site = std::sync::Arc::new(Site::new());
    let signer = std::sync::Arc::clone(&site);
    let hours = |days: i64| SignedDuration::from_hours(days * 24);
    let identity = site.agent_trusting(&site.ca, Timestamp::now() - hours(70));
    let old_end = identity.pair().not_after();
    let folder = site.folder.path().join(identity.agent.as_str());
    let centre = Centre::start(site.for_agents(), move |request, _| {
        if request.path != PATH_RENEW {
            return welcome(request);
        }
        let asked: RenewRequest = serde_json::from_slice(&request.body).unwrap();
        let agent = &request.peer.as_ref().unwrap().agent;
        // Of a centre whose clock is half a year slow: the handshake will refuse it.
        let slow = Timestamp::now() - hours(180);
        let certificate = signer.ca.sign_agent(&asked.csr, agent, slow).unwrap();
        let answer = RenewAnswer { certificate };
        reply(200, serde_json::to_string(&answer).unwrap())
    })
    .await;
    let config = Config {
        urls: vec![centre.url()],
        ..Config::default()
    };
    let timing = Timing {
        renewal_retry: Duration::from_secs(3600),
        ..quick()
    };
    let status = Status::default();
    let agent = Agent::start_with(identity, Memory::of(1), config, timing, status);
    let batch = centre.requests(PATH_ALERTS, 1).await.remove(0);
    assert_eq!(batch.peer.unwrap().not_after, old_end);
    assert_eq!(agent.status.get().refused, None);
    agent.stop().await;
    let kept = crate::deliver::identity::Identity::load(&folder).unwrap();
    assert!(!kept.is_on_trial());
    assert_eq!(kept.pair().not_after(), old_end);
}
