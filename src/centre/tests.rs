//! A real centre on loopback, talked to over real TLS.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use jiff::SignedDuration;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::deliver::identity::{
    AgentId, Identity, JudgedTime, NewAgent, NewKey, mutual_client, people_client, read_pem,
};
use crate::deliver::wire::{Accepted, EnrolAnswer, HeartbeatAnswer};

#[tokio::test]
async fn a_batch_is_stored_listed_and_counted_once() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    let lines = [line(1, 1, json!({})), line(2, 2, json!({"level": "low"}))];
    let answer = agent.send(&lines.join("\n")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let accepted: Accepted = answer.read();
    assert_eq!((accepted.accepted, accepted.duplicate), (2, 0));
    assert_eq!(accepted.rejected, []);
    let again: Accepted = agent.send(&lines.join("\n")).await.read();
    assert_eq!((again.accepted, again.duplicate), (0, 2));
    let page = centre.get("/v1/alerts").await;
    let alerts = page.json["alerts"].as_array().unwrap().clone();
    assert_eq!(alerts.len(), 2);
    assert_eq!(alerts[0]["agent"], agent.id());
    assert_eq!(alerts[0]["agency"], "hcm/so-y-te");
    assert_eq!(alerts[0]["host"], "web-1");
    let metrics = centre.metrics.exposition.text();
    for line in [
        r#"canhgac_centre_alerts_total{level="high"} 1"#,
        "canhgac_centre_alerts_duplicate_total 2",
        r#"canhgac_centre_batches_total{result="accepted"} 2"#,
    ] {
        assert!(metrics.contains(line), "{line} not in {metrics}");
    }
    centre.stop().await;
}

#[tokio::test]
async fn a_bad_line_is_rejected_by_its_index_and_the_others_are_stored() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    let fields = json!({"k": "x".repeat(70_000)});
    let lines = [
        line(1, 1, json!({})),
        "{not json".to_owned(),
        r#"{"seq":3,"alert":{"id":"x"}}"#.to_owned(),
        line(4, 4, json!({"fields": fields})),
        line(5, 5, json!({"agent": "a0000000000000000"})),
        line(6, 6, json!({"agency": "hn"})),
        line(0, 7, json!({})),
        line(8, 8, json!({"host": ""})),
        r#"{"alert":{}}"#.to_owned(),
        "\u{0}\u{1b}[2J".to_owned(),
        line(11, 11, json!({})),
    ];
    let accepted: Accepted = agent.send(&lines.join("\n")).await.read();
    assert_eq!(accepted.accepted, 2);
    let whys: Vec<(usize, &str)> = accepted
        .rejected
        .iter()
        .map(|rejected| (rejected.index, rejected.why.as_str()))
        .collect();
    for ((index, why), (expected, words)) in whys.iter().zip([
        (1, "not a line"),
        (2, "not an alert"),
        (3, "65536 are allowed"),
        (4, "another agent"),
        (5, "another agency"),
        (6, "seq 0"),
        (7, "host has 0 bytes"),
        (8, "not a line"),
        (9, "not a line"),
    ]) {
        assert_eq!(*index, expected, "{whys:?}");
        assert!(why.contains(words), "{why}");
    }
    assert_eq!(whys.len(), 9);
    let page = centre.get("/v1/alerts").await;
    assert_eq!(page.json["alerts"].as_array().unwrap().len(), 2);
    // The numbers of refused lines are accounted for, except those that were no numbers.
    let beat: HeartbeatAnswer = agent.beat(12, &[]).await.read();
    assert_eq!(beat.seen.unwrap().next, 12);
    let agents = centre.get("/v1/agents").await;
    assert_eq!(
        agents.json["agents"][0]["unexplained_loss"],
        4, // 2, 7, 9 and 10
        "{agents:?}"
    );
    centre.stop().await;
}

#[tokio::test]
async fn what_unpacks_without_end_is_refused_within_its_limit() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    let bomb = zstd::encode_all(&vec![b'{'; 64 << 20][..], 19).unwrap();
    assert!(bomb.len() < 64 << 10);
    let answer = agent.post("/v1/alerts", "zstd", bomb).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    for (packing, body, status) in [
        ("zstd", b"no zstd".to_vec(), 400),
        ("gzip", Vec::new(), 415),
        ("identity", vec![b'\n'; 1001], 413),
        ("identity", vec![b'x'; (8 << 20) + 1], 413),
        ("identity", Vec::new(), 200),
    ] {
        let answer = agent.post("/v1/alerts", packing, body).await;
        assert_eq!(answer.status, status, "{packing}: {answer:?}");
        agent = agent.again().await; // a refused body may leave the connection closed
    }
    centre.stop().await;
}

#[tokio::test]
async fn a_batch_needs_its_epoch_and_an_unknown_path_is_told() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    for (path, epoch, status) in [
        ("/v1/alerts", None, 400),
        ("/v1/alerts", Some("xyz"), 400),
        ("/v1/alerts", Some("00000000000000ff"), 200),
        ("/v1/tokens", None, 404),
    ] {
        let mut request = hyper::Request::post(path).header("host", "localhost");
        if let Some(epoch) = epoch {
            request = request.header("canhgac-epoch", epoch);
        }
        let request = request.body(Full::default()).unwrap();
        let answer = agent.connection.ask(request).await;
        assert_eq!(answer.status, status, "{path} {epoch:?}: {answer:?}");
    }
    centre.stop().await;
}

#[tokio::test]
async fn a_revoked_agent_is_refused_on_its_open_connection_within_two_seconds() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    assert_eq!(agent.send(&line(1, 1, json!({}))).await.status, 200);
    // As another process on the same database would do it.
    let mut other = centre.database().await;
    sqlx::query("UPDATE agents SET state = 'revoked'")
        .execute(&mut other)
        .await
        .unwrap();
    sqlx::query("UPDATE versions SET number = number + 1")
        .execute(&mut other)
        .await
        .unwrap();
    let start = Instant::now();
    let mut number = 2;
    let refused = loop {
        let answer = agent.send(&line(number, number, json!({}))).await;
        if answer.status != 200 {
            break answer;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
        number += 1;
    };
    assert!(start.elapsed() < Duration::from_millis(3500));
    assert_eq!(refused.status, 403);
    assert_eq!(refused.json["title"], "this agent was revoked");
    centre.stop().await;
}

#[tokio::test]
async fn revocation_by_the_api_counts_at_once() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    let path = format!("/v1/agents/{}/revoke", agent.id());
    let answer = centre.post(&path, &json!({})).await;
    assert_eq!(answer.json["state"], "revoked", "{answer:?}");
    assert_eq!(agent.send(&line(1, 1, json!({}))).await.status, 403);
    assert_eq!(agent.beat(1, &[]).await.status, 403);
    let unknown = centre.post("/v1/agents/a0/revoke", &json!({})).await;
    assert_eq!(unknown.status, 404);
    centre.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_may_only_renew() {
    let centre = Centre::start().await;
    let agent = centre.enrol("web-1").await;
    let old = Timestamp::now() - SignedDuration::from_hours(100 * 24);
    let mut late = centre.agent_with(&agent.answer, old).await;
    let answer = late.send(&line(1, 1, json!({}))).await;
    assert_eq!(answer.status, 403);
    assert_eq!(answer.json["title"], "the agent's certificate has expired");
    let csr = NewKey::random().unwrap().request().unwrap();
    let renewed = late.post_json("/v1/renew", &json!({"csr": csr})).await;
    assert_eq!(renewed.status, 200, "{renewed:?}");
    assert!(read_pem(renewed.json["certificate"].as_str().unwrap()).is_ok());
    let nonsense = late.post_json("/v1/renew", &json!({"csr": "x"})).await;
    assert_eq!(nonsense.status, 400, "{nonsense:?}");
    centre.stop().await;
}

#[tokio::test]
async fn without_a_certificate_of_this_centre_the_handshake_ends() {
    let centre = Centre::start().await;
    let client = people_client(
        &read_pem(centre.running.ca_pem()).unwrap(),
        Arc::new(JudgedTime::default()),
    )
    .unwrap();
    let mut nobody = Connection::open(centre.running.addresses.agents, client).await;
    let request = hyper::Request::post("/v1/alerts")
        .body(Full::<Bytes>::default())
        .unwrap();
    // TLS 1.3: the client learns of it with its first read.
    let asked = match &mut nobody {
        Ok(connection) => connection.sender.send_request(request).await.is_err(),
        Err(_) => true,
    };
    assert!(asked);
    centre.stop().await;
}

#[tokio::test]
async fn nothing_is_answered_before_commit() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    // A fault that appears with COMMIT and not before: a reference that is looked at only then.
    let mut other = centre.database().await;
    for sql in [
        "CREATE TABLE fault (agent TEXT REFERENCES agents (id) DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TRIGGER fault AFTER INSERT ON alerts BEGIN INSERT INTO fault VALUES ('nobody'); END",
    ] {
        sqlx::query(sql).execute(&mut other).await.unwrap();
    }
    let lines = [line(1, 1, json!({})), line(2, 2, json!({}))].join("\n");
    let answer = agent.send(&lines).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.retry_after.as_deref(), Some("5"));
    assert_eq!(centre.get("/v1/alerts").await.json["alerts"], json!([]));
    let ready = centre.running.store.fault().unwrap();
    assert!(ready.contains("FOREIGN KEY"), "{ready}");
    sqlx::query("DROP TRIGGER fault")
        .execute(&mut other)
        .await
        .unwrap();
    let accepted: Accepted = agent.send(&lines).await.read();
    assert_eq!(accepted.accepted, 2);
    assert_eq!(centre.running.store.fault(), None);
    centre.stop().await;
}

#[tokio::test]
async fn a_token_ends_with_its_uses_its_time_and_its_networks() {
    let centre = Centre::start().await;
    let token = centre.token(&json!({"agency": "hn", "uses": 2})).await;
    let key = NewKey::random().unwrap();
    let first = centre.ask_enrol(&token, "a", &key).await;
    assert_eq!(first.status, 200, "{first:?}");
    // The answer got lost: the same key again is the same agent and spends nothing.
    let again = centre.ask_enrol(&token, "a", &key).await;
    assert_eq!(again.json["agent"], first.json["agent"], "{again:?}");
    let other = NewKey::random().unwrap();
    let second = centre.ask_enrol(&token, "a", &other).await;
    assert_ne!(second.json["agent"], first.json["agent"], "{second:?}");
    let refuse = async |token: &str, words: &str| {
        let key = NewKey::random().unwrap();
        let answer = centre.ask_enrol(token, "a", &key).await;
        assert_eq!((answer.status, answer.title()), (403, words));
    };
    refuse(&token, "the token is used up").await;
    let elsewhere = json!({"agency": "hn", "from": ["10.1.0.0/16", "2001:db8::/32"]});
    let elsewhere = centre.token(&elsewhere).await;
    refuse(&elsewhere, "the token is not for this network").await;
    let here = json!({"agency": "hn", "from": ["127.0.0.0/8"]});
    let here = centre.token(&here).await;
    let key = NewKey::random().unwrap();
    assert_eq!(centre.ask_enrol(&here, "a", &key).await.status, 200);
    let expired = centre.token(&json!({"agency": "hn"})).await;
    sqlx::query("UPDATE tokens SET expires = 0 WHERE uses_left = 1 AND networks = '[]'")
        .execute(&mut centre.database().await)
        .await
        .unwrap();
    refuse(&expired, "the token has expired").await;
    refuse("cg1.x.y", "this centre does not know the token").await;
    // A request that cannot be signed spends no use.
    let fresh = centre.token(&json!({"agency": "hn"})).await;
    let bad = json!({"token": fresh, "csr": "x", "host": "h", "machine": "m"});
    assert_eq!(centre.post("/v1/enrol", &bad).await.status, 400);
    let key = NewKey::random().unwrap();
    assert_eq!(centre.ask_enrol(&fresh, "a", &key).await.status, 200);
    centre.stop().await;
}

#[tokio::test]
async fn an_address_that_tries_tokens_is_slowed() {
    let centre = Centre::start().await;
    let key = NewKey::random().unwrap();
    let wrong = crate::deliver::identity::Token::random(centre.running.pin()).text();
    let mut statuses = Vec::new();
    for _ in 0..25 {
        statuses.push(centre.ask_enrol(&wrong, "a", &key).await.status);
    }
    assert_eq!(statuses[..20], [403; 20]);
    assert_eq!(statuses[20..], [429; 5]);
    // Who holds a good token is not locked out by it.
    assert_eq!(centre.get("/v1/alerts").await.status, 200);
    centre.stop().await;
}

#[tokio::test]
async fn the_query_api_says_who_may_and_what_is_wrong() {
    let centre = Centre::start().await;
    let reader = centre
        .auth()
        .create_api_token(holder(store::tokens::Role::Reader, ""), Timestamp::now())
        .await
        .unwrap();
    let admin = centre.token.clone();
    for (token, method, path, status, words) in [
        ("", "GET", "/v1/alerts", 401, "no valid token"),
        ("cga1_x", "GET", "/v1/alerts", 401, "no valid token"),
        (&reader, "GET", "/v1/alerts", 200, ""),
        (&reader, "GET", "/v1/agents", 200, ""),
        (
            &reader,
            "POST",
            "/v1/tokens",
            403,
            "this token may not do that",
        ),
        (
            &reader,
            "POST",
            "/v1/agents/x/revoke",
            403,
            "this token may not do that",
        ),
        (
            &admin,
            "POST",
            "/v1/tokens",
            400,
            "the request cannot be understood",
        ),
        (
            &admin,
            "GET",
            "/v1/alerts?level=severe",
            400,
            "the request cannot be understood",
        ),
        (
            &admin,
            "GET",
            "/v1/alerts/xyz",
            400,
            "the request cannot be understood",
        ),
        (
            &admin,
            "GET",
            "/v1/alerts/00000000000000000000000000000000",
            404,
            "not found",
        ),
        (&admin, "GET", "/v2/alerts", 404, "not found"),
        (&admin, "PUT", "/v1/alerts", 405, "another method is needed"),
        (&admin, "GET", "/v1/enrol", 405, "another method is needed"),
    ] {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())
            .unwrap();
        let answer = centre.people().await.ask(request).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        if status != 200 {
            assert_eq!(answer.title(), words);
            assert_eq!(answer.content_type, "application/problem+json");
        }
    }
    for (asked, words) in [
        (json!({"agency": "a b"}), "`agency`"),
        (json!({"agency": "hn", "uses": 0}), "`uses`"),
        (json!({"agency": "hn", "from": ["10.0.0.0/33"]}), "`from`"),
        (
            json!({"agency": "hn", "expires": "2001-01-01T00:00:00Z"}),
            "`expires`",
        ),
        (
            json!({"agency": "hn", "expires": "soon"}),
            "expected {agency",
        ),
        (json!({"agency": "hn", "colour": "red"}), "unknown field"),
    ] {
        let answer = centre.post("/v1/tokens", &asked).await;
        let detail = answer.json["detail"].as_str().unwrap();
        assert!(answer.status == 400 && detail.contains(words), "{answer:?}");
    }
    centre.stop().await;
}

#[tokio::test]
async fn hostile_text_comes_back_as_it_was_and_does_nothing() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    let hostile = [
        "'; DROP TABLE alerts; --",
        "\" OR 1=1 --",
        "=cmd|' /C calc'!A0",
        "\u{1b}]0;x\u{7}\u{1b}[2J",
        "<script>alert(1)</script>",
        "a\u{0}b\r\nset-cookie: x",
        "100% _x \\ \u{202e}txt",
    ];
    let lines: Vec<String> = hostile
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let number = index as u64 + 1;
            line(
                number,
                number,
                json!({
                    "host": text, "raw": text, "title": text, "rule_id": text,
                    "fields": {*text: text}, "agent": agent.id(),
                }),
            )
        })
        .collect();
    let accepted: Accepted = agent.send(&lines.join("\n")).await.read();
    assert_eq!(accepted.accepted, hostile.len(), "{accepted:?}");
    for text in hostile {
        let encoded = encode(text);
        for filter in [
            format!("host={encoded}"),
            format!("rule={encoded}"),
            format!("text={encoded}"),
            format!("field={encoded}%3D{encoded}"),
        ] {
            if filter.contains("%3D") && text.contains('=') {
                continue; // a name ends at its first `=`
            }
            if filter.starts_with("text") && text.contains('\0') {
                continue; // LIKE ends at NUL
            }
            let page = centre.get(&format!("/v1/alerts?{filter}")).await;
            let alerts = page.json["alerts"].as_array().unwrap();
            assert_eq!(alerts.len(), 1, "{filter}: {page:?}");
            assert_eq!(alerts[0]["host"], text);
            assert_eq!(alerts[0]["raw"], text);
            assert_eq!(alerts[0]["fields"][text], text);
        }
    }
    centre.stop().await;
}

#[tokio::test]
async fn the_first_start_makes_all_and_the_next_keeps_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let centre = Centre::start().await;
    let data = centre.folder.path().join("data");
    for (path, mode) in [
        ("", 0o700),
        ("profile.yaml", 0o600),
        ("ca/ca.key", 0o600),
        ("ca/server.key", 0o600),
        ("centre.db", 0o600),
    ] {
        let metadata = std::fs::metadata(data.join(path)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
    }
    let token = centre.token.clone();
    let mut agent = centre.enrol("web-1").await;
    agent.send(&line(1, 1, json!({}))).await;
    let centre = centre.restart().await;
    assert_eq!(centre.token, token);
    assert_eq!(
        centre.get("/v1/alerts").await.json["alerts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        centre.get("/v1/agents").await.json["agents"][0]["host"],
        "web-1"
    );
    centre.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_told_and_nothing_is_left_running() {
    let centre = Centre::start().await;
    let mut config = centre.config.clone();
    config.data = centre.folder.path().join("other");
    config.agents_listen = centre.running.addresses.agents;
    let error = start(config, CentreMetrics::default()).await.unwrap_err();
    let expected = format!(
        "port {} is taken by ",
        centre.running.addresses.agents.port()
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    centre.stop().await;
}

#[tokio::test]
async fn a_heartbeat_is_kept_and_losses_are_told_apart() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    assert_eq!(
        agent.beat(1, &[]).await.read::<HeartbeatAnswer>().seen,
        None
    );
    agent.send(&line(1, 1, json!({}))).await;
    agent.send(&line(5, 5, json!({}))).await;
    let given_up = json!([{"from": 2, "to": 2, "level": "low", "count": 1, "why": "full"}]);
    let waiting = json!([{"from": 3, "to": 3}]);
    let answer = agent.beat_with(6, &waiting, &given_up).await;
    let answer: HeartbeatAnswer = answer.read();
    assert_eq!((answer.next_in, answer.seen.unwrap().next), (60, 6));
    let agents = centre.get("/v1/agents").await.json["agents"].clone();
    assert_eq!(agents[0]["unexplained_loss"], 1); // 4
    assert_eq!(agents[0]["stated_loss"], 1); // 2
    assert_eq!(agents[0]["version"], "0.1.0");
    let kept = centre.running.store.last_heartbeat(&agent.id()).await;
    assert!(kept.unwrap().unwrap().contains("file:/var/log/auth.log"));
    assert_eq!(
        agent.post_json("/v1/heartbeat", &json!({})).await.status,
        400
    );
    centre.stop().await;
}

#[tokio::test]
async fn a_busy_centre_says_so_before_the_body_and_recovers() {
    let centre = Centre::start_with(|config| config.batch_memory_bytes = 0).await;
    let head = "POST /v1/alerts HTTP/1.1\r\nhost: localhost\r\ncanhgac-epoch: 00000000000000ff\r\n\
                content-length: 8388608\r\n\r\n";
    let mut held = Vec::new();
    let answer = loop {
        // Of one agent no more than two; the rest of the memory is filled by others.
        let agent = centre.enrol("web-1").await;
        let mut stream = agent.stream().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = vec![0; 1024];
        let read = stream.read(&mut answer);
        // One that is let in is not answered: its body is waited for.
        match tokio::time::timeout(Duration::from_millis(300), read).await {
            Ok(read) => {
                answer.truncate(read.unwrap());
                break String::from_utf8(answer).unwrap();
            }
            Err(_) => held.push(stream),
        }
        assert!(held.len() < 10);
    };
    assert_eq!(held.len(), 2);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 5"), "{answer}");
    drop(held);
    let mut agent = centre.enrol("web-1").await;
    let start = Instant::now();
    while agent.send(&line(1, 1, json!({}))).await.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    centre.stop().await;
}

#[tokio::test]
async fn one_agent_has_two_batches_under_way_and_no_more() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    let head = "POST /v1/alerts HTTP/1.1\r\nhost: localhost\r\ncanhgac-epoch: 00000000000000ff\r\n\
                content-length: 10\r\n\r\n";
    let mut held = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut stream = agent.stream().await;
        held.spawn(async move {
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            let mut answer = vec![0; 1024];
            let read = stream.read(&mut answer).await.unwrap();
            answer.truncate(read);
            String::from_utf8(answer).unwrap()
        });
    }
    // Two wait for their bodies; the third is answered.
    let answer = held.join_next().await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    held.shutdown().await;
    let start = Instant::now();
    while agent.send(&line(1, 1, json!({}))).await.status != 200 {
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::task::yield_now().await;
    }
    centre.stop().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_gives_its_place_back() {
    // After its handshake, which costs a stranger nothing; in either version of HTTP, and in the middle of a request.
    for said in [
        &b""[..],
        b"GET",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"POST /v1/enrol HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n",
    ] {
        let centre = Centre::start().await;
        let ca = read_pem(centre.running.ca_pem()).unwrap();
        let keys = ServerKeys::open(
            &centre.running.ca,
            &["localhost".to_owned()],
            Timestamp::now(),
        );
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener {
            name: "test",
            socket,
            tls: people_listener(Arc::new(keys.unwrap())).unwrap(),
            router: axum::Router::new().route("/v1/enrol", axum::routing::post(read_all)),
            limits: Limits {
                connections: 1,
                handshakes: 1,
                handshake_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_millis(100),
            },
            open: None,
        };
        let stop = CancellationToken::new();
        let served = tokio::spawn(listener.serve(stop.clone()));
        let client = people_client(&ca, Arc::new(JudgedTime::default())).unwrap();
        let mut idle = connect(address, client.clone()).await.unwrap();
        idle.write_all(said).await.unwrap();
        idle.flush().await.unwrap();
        // The only place: the next one gets it when the first has lost it.
        let next = tokio::time::timeout(Duration::from_secs(10), connect(address, client)).await;
        assert!(next.is_ok(), "{:?}", String::from_utf8_lossy(said));
        drop((idle, next));
        stop.cancel();
        served.await.unwrap();
        centre.stop().await;
    }
}

async fn read_all(request: axum::extract::Request) -> &'static str {
    let _ = listen::read_body(request, 1000).await;
    "read"
}

#[tokio::test]
async fn pages_of_the_api_follow_each_other() {
    let centre = Centre::start().await;
    let mut agent = centre.enrol("web-1").await;
    let lines: Vec<String> = (1..=5).map(|n| line(n, n, json!({}))).collect();
    agent.send(&lines.join("\n")).await;
    let (mut path, mut seen) = ("/v1/alerts?limit=2".to_owned(), Vec::new());
    loop {
        let page = centre.get(&path).await;
        let alerts = page.json["alerts"].as_array().unwrap();
        seen.extend(alerts.iter().map(|alert| alert["id"].to_string()));
        match page.json["next"].as_str() {
            Some(next) => path = format!("/v1/alerts?limit=2&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (1..=5).rev().map(|n| format!("\"{n:032x}\"")).collect();
    assert_eq!(seen, expected);
    let one = centre.get(&format!("/v1/alerts/{:032x}", 3)).await;
    assert_eq!(one.json["id"], format!("{:032x}", 3));
    let other = format!("/v1/alerts/{:032x}?agent=a0", 3);
    assert_eq!(centre.get(&other).await.status, 404);
    centre.stop().await;
}

// Helpers.

struct Centre {
    folder: TempDir,
    config: Config,
    running: Running,
    metrics: CentreMetrics,
    token: String,
}

impl Centre {
    async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let mut config = Config {
            data: folder.path().join("data"),
            agents_listen: loopback,
            people_listen: loopback,
            metrics_listen: loopback,
            ..Config::default()
        };
        change(&mut config);
        Self::start_in(folder, config).await
    }

    async fn start_in(folder: TempDir, config: Config) -> Self {
        let metrics = CentreMetrics::default();
        let running = start(config.clone(), metrics.clone()).await.unwrap();
        let profile = std::fs::read_to_string(&running.profile).unwrap();
        let token = profile
            .lines()
            .find_map(|line| line.strip_prefix("token: "))
            .unwrap();
        Self {
            token: token.to_owned(),
            folder,
            config,
            running,
            metrics,
        }
    }

    async fn restart(self) -> Self {
        self.running.shutdown().await;
        Self::start_in(self.folder, self.config).await
    }

    async fn stop(self) {
        self.running.shutdown().await;
    }

    fn auth(&self) -> Auth {
        Auth::new(self.running.store.clone(), self.metrics.clone())
    }

    async fn database(&self) -> sqlx::SqliteConnection {
        let path = self.config.data.join(DATABASE);
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true);
        sqlx::SqliteConnection::connect_with(&options)
            .await
            .unwrap()
    }

    async fn people(&self) -> Connection {
        let ca = read_pem(self.running.ca_pem()).unwrap();
        let client = people_client(&ca, Arc::new(JudgedTime::default())).unwrap();
        let address = self.running.addresses.people;
        Connection::open(address, client).await.unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        let request = hyper::Request::get(path)
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::default())
            .unwrap();
        self.people().await.ask(request).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = hyper::Request::post(path)
            .header("authorization", format!("Bearer {}", self.token))
            .header("host", "localhost:8444")
            .body(Full::from(body.to_string()))
            .unwrap();
        self.people().await.ask(request).await
    }

    async fn token(&self, asked: &Value) -> String {
        let answer = self.post("/v1/tokens", asked).await;
        answer.json["token"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer:?}"))
            .to_owned()
    }

    async fn ask_enrol(&self, token: &str, host: &str, key: &NewKey) -> Answer {
        let csr = key.request().unwrap();
        let asked = json!({"token": token, "csr": csr, "host": host, "machine": "m"});
        self.post("/v1/enrol", &asked).await
    }

    async fn enrol(&self, host: &str) -> Agent {
        let token = self.token(&json!({"agency": "hcm/so-y-te"})).await;
        let key = NewKey::random().unwrap();
        let answer: EnrolAnswer = self.ask_enrol(&token, host, &key).await.read();
        let port = self.running.addresses.agents.port();
        assert_eq!(answer.urls, [format!("https://localhost:{port}")]);
        self.agent(answer, &key).await
    }

    /// The same agent with another key, certified at `then`.
    async fn agent_with(&self, answer: &EnrolAnswer, then: Timestamp) -> Agent {
        let key = NewKey::random().unwrap();
        let id: AgentId = answer.agent.parse().unwrap();
        let signed = self
            .running
            .ca
            .sign_agent(&key.request().unwrap(), &id, then)
            .unwrap();
        let answer = EnrolAnswer {
            certificate: signed,
            ..answer.clone()
        };
        self.agent(answer, &key).await
    }

    async fn agent(&self, answer: EnrolAnswer, key: &NewKey) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let id: AgentId = answer.agent.parse().unwrap();
        let new = NewAgent {
            agent: &id,
            agency: &answer.agency,
            urls: &answer.urls,
            certificate: &answer.certificate,
            authority: &answer.ca,
        };
        let identity = Identity::create(&folder.path().join("identity"), key, &new).unwrap();
        let client = mutual_client(
            identity.authority(),
            identity.pair(),
            Arc::new(JudgedTime::default()),
        )
        .unwrap();
        let address = self.running.addresses.agents;
        let connection = Connection::open(address, client.clone()).await.unwrap();
        Agent {
            answer,
            address,
            client,
            connection,
        }
    }
}

struct Agent {
    answer: EnrolAnswer,
    address: SocketAddr,
    client: Arc<ClientConfig>,
    connection: Connection,
}

impl Agent {
    fn id(&self) -> String {
        self.answer.agent.clone()
    }

    async fn stream(&self) -> TlsStream<TcpStream> {
        connect(self.address, self.client.clone()).await.unwrap()
    }

    async fn again(self) -> Self {
        let connection = Connection::open(self.address, self.client.clone())
            .await
            .unwrap();
        Self { connection, ..self }
    }

    async fn send(&mut self, lines: &str) -> Answer {
        let body = zstd::encode_all(lines.as_bytes(), 3).unwrap();
        self.post("/v1/alerts", "zstd", body).await
    }

    async fn post(&mut self, path: &str, packing: &str, body: Vec<u8>) -> Answer {
        let request = hyper::Request::post(path)
            .header("host", "localhost")
            .header("content-encoding", packing)
            .header("canhgac-epoch", "00000000000000ff")
            .body(Full::from(body))
            .unwrap();
        self.connection.ask(request).await
    }

    async fn post_json(&mut self, path: &str, body: &Value) -> Answer {
        self.post(path, "identity", body.to_string().into_bytes())
            .await
    }

    async fn beat(&mut self, next: u64, waiting: &[u64]) -> Answer {
        let waiting: Vec<Value> = waiting
            .iter()
            .map(|number| json!({"from": number, "to": number}))
            .collect();
        self.beat_with(next, &Value::from(waiting), &json!([]))
            .await
    }

    async fn beat_with(&mut self, next: u64, waiting: &Value, given_up: &Value) -> Answer {
        let beat = json!({
            "version": "0.1.0", "machine": "m", "boot": "b", "host": "web-1", "rules": "d",
            "ledger": {
                "epoch": "00000000000000ff", "next": next, "waiting": waiting, "given_up": given_up,
            },
            "sources": [{"name": "file:/var/log/auth.log", "records": 3}],
            "clock": "2026-11-05T07:30:00Z",
        });
        self.post_json("/v1/heartbeat", &beat).await
    }
}

async fn connect(
    address: SocketAddr,
    client: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(client)
        .connect(name, stream)
        .await
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    async fn open(address: SocketAddr, client: Arc<ClientConfig>) -> std::io::Result<Self> {
        let stream = connect(address, client).await?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    async fn ask(&mut self, request: hyper::Request<Full<Bytes>>) -> Answer {
        let response = self.sender.send_request(request).await.unwrap();
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let (content_type, retry_after) = (header("content-type"), header("retry-after"));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            content_type: content_type.unwrap_or_default(),
            retry_after,
            json: serde_json::from_slice(&body).unwrap_or_default(),
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    content_type: String,
    retry_after: Option<String>,
    json: Value,
}

impl Answer {
    fn read<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_value(self.json.clone()).unwrap_or_else(|_| panic!("{self:?}"))
    }

    fn title(&self) -> &str {
        self.json["title"].as_str().unwrap_or_default()
    }
}

fn holder(role: store::tokens::Role, scope: &str) -> store::tokens::Holder {
    store::tokens::Holder {
        name: role.as_str().to_owned(),
        role,
        scope: scope.to_owned(),
        expires: None,
    }
}

/// A line of a batch; `with` replaces fields, `level`, `title` and `rule_id` those of the rule.
fn line(seq: u64, id: u64, with: Value) -> String {
    let mut alert = json!({
        "id": format!("{id:032x}"),
        "time": "2026-11-05T07:30:00Z",
        "observed": "2026-11-05T07:30:01Z",
        "host": "web-1",
        "rule": {"id": "ssh-brute-force", "title": "SSH brute force", "level": "high"},
        "origin": {"source": "file:/var/log/auth.log", "at": "5"},
    });
    let Value::Object(with) = with else {
        panic!("{with}");
    };
    for (name, value) in with {
        match name.as_str() {
            "level" | "title" => alert["rule"][&name] = value,
            "rule_id" => alert["rule"]["id"] = value,
            _ => alert[&name] = value,
        }
    }
    json!({"seq": seq, "alert": alert}).to_string()
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
