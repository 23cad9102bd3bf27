//! Proxies, expectations and peers that mean harm.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::centre::*;
use crate::deliver::forward::{Config, Status};
use crate::deliver::wire::{PATH_ALERTS, PATH_HEARTBEAT};

/// A proxy that writes down what it is asked and, with the right password, does it.
async fn proxy(asked: Arc<Mutex<Vec<String>>>) -> std::net::SocketAddr {
    raw(move |mut tcp| {
        let asked = Arc::clone(&asked);
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let may = head.contains("Proxy-Authorization: Basic dTpwQHM=\r\n"); // u:p@s
            asked.lock().unwrap().push(head);
            if !may {
                let _ = tcp
                    .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                    .await;
                return;
            }
            let mut to = TcpStream::connect(target).await.unwrap();
            tcp.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
                .await
                .unwrap();
            let _ = copy_bidirectional(&mut tcp, &mut to).await;
        }
    })
    .await
}

fn by(proxy: &str, no_proxy: &[&str], centre: &Centre) -> Config {
    Config {
        urls: vec![centre.url()],
        proxy: Some(proxy.parse().unwrap()),
        no_proxy: no_proxy.iter().map(|text| text.parse().unwrap()).collect(),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_proxy_is_asked_with_its_password_unless_the_centre_is_excepted() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let proxy = proxy(Arc::clone(&asked)).await;
    for (no_proxy, through) in [
        (&["10.0.0.0/8", "example"][..], true),
        (&["127.0.0.0/8"], false),
    ] {
        asked.lock().unwrap().clear();
        let before = centre.requests(PATH_ALERTS, 0).await.len();
        let config = by(&format!("http://u:p%40s@{proxy}"), no_proxy, &centre);
        let agent = Agent::start_with(
            site.agent(),
            Memory::of(1),
            config,
            quick(),
            Status::default(),
        );
        centre.requests(PATH_ALERTS, before + 1).await;
        agent.stop().await;
        let heads = asked.lock().unwrap().clone();
        assert_eq!(!heads.is_empty(), through, "{no_proxy:?}");
        for head in heads {
            let line = format!("CONNECT {} HTTP/1.1\r\n", centre.address);
            assert!(head.starts_with(&line), "{head}");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_without_the_password() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    let proxy = proxy(Arc::default()).await;
    let config = by(&format!("http://u:wrong@{proxy}"), &[], &centre);
    let agent = Agent::start_with(
        site.agent(),
        Memory::of(1),
        config,
        quick(),
        Status::default(),
    );
    let state = agent
        .status("an error", |state| state.error.is_some())
        .await;
    let words = format!("the proxy http://{proxy} asks for another user and password");
    assert_eq!(state.error, Some(words));
    assert_eq!(centre.received().len(), 0);
    agent.stop().await;
}

#[tokio::test]
async fn a_hostile_proxy_is_bounded() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    for (name, answer, words) in [
        ("not HTTP", "SSH-2.0-x\r\n\r\n".to_owned(), "is not HTTP"),
        ("no status", "HTTP/1.1 \r\n\r\n".to_owned(), "is not HTTP"),
        (
            "endless",
            "HTTP/1.1 200 OK\r\n".to_owned() + &"X: y\r\n".repeat(4000),
            "is not HTTP",
        ),
        (
            "an error",
            "HTTP/1.1 502 Bad Gateway\r\n\r\n".to_owned(),
            "answers 502",
        ),
        ("hangs up", "HTTP/1.1 200".to_owned(), "broke"),
    ] {
        let proxy = raw(move |mut tcp| {
            let answer = answer.clone();
            async move {
                let _ = tcp.write_all(answer.as_bytes()).await;
                let _ = tcp.read(&mut [0; 1024]).await;
            }
        })
        .await;
        let config = by(&format!("http://{proxy}"), &[], &centre);
        let agent = Agent::start_with(
            site.agent(),
            Memory::of(1),
            config,
            quick(),
            Status::default(),
        );
        let state = agent.status(name, |state| state.error.is_some()).await;
        let error = state.error.unwrap();
        assert!(error.contains(words), "{name}: {error}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn hostile_answers_are_bounded_and_cost_no_alert() {
    let site = Site::new();
    let endless_headers = "HTTP/1.1 200 OK\r\n".to_owned() + &"X-A: b\r\n".repeat(200_000);
    let long_header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(4_000_000));
    let huge = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        u64::MAX / 2
    ) + &"x".repeat(1_000_000);
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
        + &format!("fffff\r\n{}\r\n", "x".repeat(0xf_ffff)).repeat(3);
    for (name, answer) in [
        ("endless headers", endless_headers),
        ("a long header", long_header),
        ("a huge body", huge),
        ("endless chunks", chunked),
        ("garbage", "\0\u{1}\u{2}garbage\r\n\r\n".to_owned()),
        (
            "garbage JSON",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"a\":[[[[".to_owned(),
        ),
        ("deep JSON", {
            let body = "[".repeat(60_000);
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        }),
        (
            "interim answers without end",
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(20_000),
        ),
        ("nothing", String::new()),
    ] {
        let acceptor = TlsAcceptor::from(site.for_agents());
        let address = raw(move |tcp| {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else {
                    return;
                };
                let _ = stream.read(&mut [0; 64 * 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
        .await;
        let url = format!("https://{address}").parse().unwrap();
        let config = Config {
            urls: vec![url],
            ..Config::default()
        };
        let agent = Agent::start_with(
            site.agent(),
            Memory::of(3),
            config,
            quick(),
            Status::default(),
        );
        // What can't be understood as the answer to a heartbeat is logged; the batch then makes it an error.
        agent.status(name, |state| state.error.is_some()).await;
        assert_eq!(agent.queue.waiting(), [1, 2, 3], "{name}");
        assert_eq!(agent.queue.dead(), [], "{name}");
        agent.stop().await;
    }
}

#[tokio::test]
async fn a_large_body_waits_until_the_server_wants_it() {
    let site = Site::new();
    // Random text does not pack: 64 KiB of it stay well above the limit for the expectation.
    let noise = || {
        let bytes: Vec<u8> = (0..2048)
            .flat_map(|_| {
                crate::deliver::identity::AgentId::random()
                    .as_str()
                    .as_bytes()[1..]
                    .to_vec()
            })
            .collect();
        format!("{:?}", String::from_utf8(bytes).unwrap())
    };
    let heads = Arc::new(Mutex::new(Vec::new()));
    let acceptor = TlsAcceptor::from(site.for_agents());
    let seen = Arc::clone(&heads);
    // Answers 503 at the head of a batch: had the body come with it, it would be in the same read.
    let address = raw(move |tcp| {
        let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
        async move {
            let Ok(mut stream) = acceptor.accept(tcp).await else {
                return;
            };
            loop {
                let mut head = vec![0; 64 * 1024];
                let Ok(count) = stream.read(&mut head).await else {
                    return;
                };
                if count == 0 {
                    return;
                }
                head.truncate(count);
                let text = String::from_utf8_lossy(&head).into_owned();
                let answer = if text.starts_with(&format!("POST {PATH_HEARTBEAT}")) {
                    let body = r#"{"time":"2026-11-22T00:00:00Z","next_in":60}"#;
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                } else {
                    seen.lock().unwrap().push(text);
                    "HTTP/1.1 503 Busy\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n".to_owned()
                };
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let queue = Memory::default();
    (0..2).for_each(|_| queue.append(&noise()));
    let url = format!("https://{address}").parse().unwrap();
    let config = Config {
        urls: vec![url],
        ..Config::default()
    };
    let timing = crate::deliver::forward::Timing {
        continue_grace: Duration::from_secs(4),
        ..quick()
    };
    let agent = Agent::start_with(site.agent(), queue, config, timing, Status::default());
    agent
        .status("asked to wait", |state| {
            state.error.as_deref() == Some("the centre asks to wait")
        })
        .await;
    let heads = heads.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0]
            .to_ascii_lowercase()
            .contains("expect: 100-continue\r\n"),
        "{}",
        heads[0]
    );
    assert!(heads[0].ends_with("\r\n\r\n"), "no body came along");
    agent.stop().await;
}

#[tokio::test]
async fn a_large_body_goes_when_the_server_wants_it_or_says_nothing() {
    let site = Site::new();
    let centre = Centre::start(site.for_agents(), |request, _| welcome(request)).await;
    let queue = Memory::default();
    // 100 alerts of 3 KiB of ids: 90 KiB packed.
    for _ in 0..100 {
        let ids: String = (0..180)
            .map(|_| crate::deliver::identity::AgentId::random().to_string())
            .collect();
        queue.append(&format!("{ids:?}"));
    }
    let timing = crate::deliver::forward::Timing {
        continue_grace: Duration::from_secs(4),
        ..quick()
    };
    let config = Config {
        urls: vec![centre.url()],
        ..Config::default()
    };
    let agent = Agent::start_with(site.agent(), queue, config, timing, Status::default());
    let batch = centre.requests(PATH_ALERTS, 1).await.remove(0);
    assert_eq!(batch.headers["expect"], "100-continue");
    assert!(batch.body.len() > 64 * 1024);
    let beat = centre.requests(PATH_HEARTBEAT, 1).await.remove(0);
    // hyper's server says 100 when the body is read: the grace was not needed.
    assert!(batch.at - beat.at < Duration::from_secs(3));
    eventually("an empty queue", || {
        agent.queue.waiting().is_empty().then_some(())
    })
    .await;
    agent.stop().await;
}
