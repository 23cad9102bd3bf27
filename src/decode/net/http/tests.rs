use super::*;
use crate::event::Value;
use crate::event::field::FieldId;

fn texts(exchange: &Exchange, id: FieldId) -> Vec<String> {
    let mut event = Event::new(b"");
    exchange.set(&mut event);
    event.all(id).map(Value::lossy).collect()
}

/// Feeds both sides whole and in pieces of `piece` bytes; returns what was told.
fn told(client: &[u8], server: &[u8], piece: usize) -> Vec<Exchange> {
    let mut http = Http::default();
    let mut found = Vec::new();
    for (side, bytes) in [(Side::Client, client), (Side::Server, server)] {
        let (mut kept, mut skip) = (Vec::new(), 0);
        for part in bytes.chunks(piece) {
            let passed = part.len().min(skip);
            skip -= passed;
            kept.extend_from_slice(&part[passed..]);
            if kept.is_empty() {
                continue;
            }
            match http.feed(side, &kept, &mut |exchange| found.push(exchange.clone())) {
                Ok(Step::Used(used)) => drop(kept.drain(..used)),
                Ok(Step::Skip(count)) => {
                    kept.clear();
                    skip = count as usize;
                }
                Ok(Step::Switch(_) | Step::Done) | Err(_) => break,
            }
        }
    }
    http.end(&mut |exchange| found.push(exchange.clone()));
    found
}

#[test]
fn a_request_and_its_answer_are_one() {
    let client =
        b"POST /a/b%20c.PHP?x=1+2 HTTP/1.1\r\nHost: Web.example:8080\r\nUser-Agent: curl/8\r\n\
        Authorization: Basic YW46c2VjcmV0\r\nCookie: s=1\r\nReferer: http://r.example/\r\n\
        X-Forwarded-For: 203.0.113.5\r\nContent-Type: text/x\r\nContent-Length: 5\r\n\r\nhello";
    let server =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=x\r\nContent-Length: 4\r\n\r\nMZab";
    for piece in [1, 7, 1000] {
        let found = told(client, server, piece);
        let [exchange] = found.as_slice() else {
            panic!("{piece}: {found:?}");
        };
        for (id, values) in [
            (field::CS_METHOD, vec!["POST"]),
            (field::C_URI, vec!["/a/b%20c.PHP?x=1+2", "/a/b c.PHP?x=1 2"]),
            (field::CS_URI_STEM, vec!["/a/b%20c.PHP", "/a/b c.PHP"]),
            (network::C_URI_QUERY, vec!["x=1+2"]),
            (network::C_URI_EXTENSION, vec!["PHP"]),
            (network::HOST, vec!["Web.example"]),
            (field::CS_HOST, vec!["Web.example:8080"]),
            (field::CS_USER_AGENT, vec!["curl/8"]),
            (network::USERNAME, vec!["an"]),
            (network::CLEAR_TEXT, vec!["true"]),
            (network::PROXIED, vec!["X-FORWARDED-FOR -> 203.0.113.5"]),
            (network::REQUEST_BODY_LEN, vec!["5"]),
            (field::SC_STATUS, vec!["200"]),
            (network::RESP_MIME_TYPES, vec!["application/x-dosexec"]),
            (network::RESPONSE_BODY_LEN, vec!["4"]),
        ] {
            assert_eq!(texts(exchange, id), values, "{piece}: {id:?}");
        }
        let mut event = Event::new(b"");
        exchange.set(&mut event);
        let line = event.describe(&crate::event::field::Fields::default());
        assert!(!line.contains("secret"), "{line}");
    }
}

#[test]
fn messages_behind_bodies_of_every_kind_are_found() {
    let requests = b"GET /1 HTTP/1.1\r\n\r\nPUT /2 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\nX: y\r\n\r\n\r\nHEAD /3 HTTP/1.1\r\n\r\nGET /4 HTTP/1.0\n\n";
    let answers = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n\
        4;e=1\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 9\r\n\r\n\
        HTTP/1.1 404 Not Found\r\nContent-Length: 900\r\n\r\nHTTP/1.0 500 Oh\r\n\r\n<html>to the end";
    for piece in [1, 3, 64, 10_000] {
        let seen: Vec<_> = told(requests, answers, piece)
            .iter()
            .map(|exchange| {
                (
                    texts(exchange, network::URI).concat(),
                    texts(exchange, field::SC_STATUS).concat(),
                )
            })
            .collect();
        let expected = [("/1", "200"), ("/2", "204"), ("/3", "404"), ("/4", "500")];
        let expected: Vec<_> = expected
            .map(|(uri, status)| (uri.to_owned(), status.to_owned()))
            .into();
        assert_eq!(seen, expected, "pieces of {piece}");
    }
}

#[test]
fn a_tunnel_is_another_protocol() {
    let mut http = Http::default();
    let mut count = 0;
    let mut on = |_: &Exchange| count += 1;
    let request = b"CONNECT mail.example:443 HTTP/1.1\r\n\r\n";
    assert_eq!(
        http.feed(Side::Client, request, &mut on),
        Ok(Step::Used(request.len()))
    );
    let answer = b"HTTP/1.1 200 Yes\r\n\r\n\x16\x03";
    assert_eq!(
        http.feed(Side::Server, answer, &mut on),
        Ok(Step::Switch(20))
    );
    assert_eq!(count, 1);
}

#[test]
fn what_is_not_answered_is_told_at_the_end_and_bounded() {
    let requests = b"GET / HTTP/1.1\r\n\r\n".repeat(100);
    let mut http = Http::default();
    let mut count = 0;
    let step = http.feed(Side::Client, &requests, &mut |_| count += 1);
    assert_eq!(step, Ok(Step::Used(requests.len())));
    assert_eq!((count, http.asked.len()), (100 - ASKED_MAX, ASKED_MAX));
    http.end(&mut |_| count += 1);
    assert_eq!(count, 100);
}

#[test]
fn what_lies_is_refused() {
    for (side, bytes) in [
        (Side::Client, &b"\x16\x03\x01 x\r\n\r\n"[..]),
        (Side::Client, b"nothing\r\n\r\n"),
        (
            Side::Client,
            b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        ),
        (
            Side::Client,
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        ),
        (
            Side::Client,
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11112222333344445\r\n",
        ),
        (Side::Server, b"SSH-2.0-x\r\n\r\n"),
        (Side::Server, b"HTTP/1.1 2x0 OK\r\n\r\n"),
    ] {
        let step = Http::default().feed(side, bytes, &mut |_| ());
        assert!(
            step.is_err(),
            "{:?}: {step:?}",
            String::from_utf8_lossy(bytes)
        );
    }
    let endless = vec![b'a'; HEAD_BYTES_MAX];
    assert!(
        Http::default()
            .feed(Side::Client, &endless, &mut |_| ())
            .is_err()
    );
}

#[test]
fn guesses_wait_for_enough() {
    for (side, bytes, guess) in [
        (Side::Client, &b"GET / HTTP/1.1"[..], Guess::Yes),
        (Side::Client, b"PROP", Guess::Perhaps),
        (Side::Client, b"EHLO x", Guess::No),
        (Side::Server, b"HTTP/1.0 200", Guess::Yes),
        (Side::Server, b"HTT", Guess::Perhaps),
        (Side::Server, b"220 ", Guess::No),
    ] {
        assert_eq!(
            Http::guess(&Opening {
                side,
                bytes,
                other: b""
            }),
            guess,
            "{bytes:?}"
        );
    }
}

#[test]
fn a_host_loses_its_port_only() {
    for (host, name) in [
        ("a.example:80", "a.example"),
        ("a.example", "a.example"),
        ("[::1]:80", "[::1]"),
        ("::1", "::1"),
        ("a:b", "a:b"),
    ] {
        assert_eq!(without_port(host.as_bytes()), name.as_bytes(), "{host}");
    }
}
