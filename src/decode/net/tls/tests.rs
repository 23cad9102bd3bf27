use super::*;
use crate::event::Value;
use crate::event::field::FieldId;

/// Made here; the fingerprints were computed by hand from their definitions.
fn client_hello(name: &[u8]) -> Vec<u8> {
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes()[..], &long(data)].concat();
    let extensions = [
        extension(0x3a3a, b""),
        extension(0, &long(&[&[0][..], &long(name)].concat())),
        extension(10, &long(&[0x4a, 0x4a, 0, 29, 0, 23])),
        extension(11, &[1, 0]),
        extension(13, &long(&[4, 3, 8, 4])),
        extension(16, &long(b"\x02h2\x08http/1.1")),
        extension(43, &[6, 0x5a, 0x5a, 3, 4, 3, 3]),
        extension(51, &long(b"")),
    ]
    .concat();
    let ciphers = [0x1a, 0x1a, 0x13, 1, 0x13, 2, 0xc0, 0x2b, 0, 0x2f];
    [
        &[3, 3][..],
        &[0; 32],
        &[2, 0xaa, 0xbb],
        &long(&ciphers),
        &[1, 0],
        &long(&extensions),
    ]
    .concat()
}

fn server_hello(version: u16, session: &[u8]) -> Vec<u8> {
    let extensions = match version {
        0x0304 => [&[0, 51, 0, 4, 0, 29, 0, 0][..], &[0, 43, 0, 2, 3, 4]].concat(),
        _ => [&[0, 16, 0, 5, 0, 3, 2][..], b"h2"].concat(),
    };
    [
        &[3, 3][..],
        &[1; 32],
        &[session.len() as u8],
        session,
        &[0x13, 1, 0],
        &long(&extensions),
    ]
    .concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u32).to_be_bytes();
    [&[kind][..], &length[1..], body].concat()
}

fn record_of(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3][..], &long(body)].concat()
}

/// A handshake message over records of `piece` bytes.
fn records(kind: u8, body: &[u8], piece: usize) -> Vec<u8> {
    let message = message(kind, body);
    message
        .chunks(piece)
        .flat_map(|part| record_of(HANDSHAKE, part))
        .collect()
}

#[derive(Default)]
struct Seen {
    sessions: Vec<Session>,
    certificates: Vec<(Certificate, usize)>,
}

impl Seen {
    fn feed(
        &mut self,
        tls: &mut Tls,
        side: Side,
        bytes: &[u8],
        piece: usize,
    ) -> Result<Step, DecodeError> {
        let mut kept = Vec::new();
        let mut last = Step::Used(0);
        for part in bytes.chunks(piece) {
            kept.extend_from_slice(part);
            last = tls.feed(side, &kept, &mut |found| match found {
                Found::Session(session) => self.sessions.push(session.clone()),
                Found::Certificate {
                    certificate, place, ..
                } => self.certificates.push((certificate.clone(), place)),
            })?;
            match last {
                Step::Used(used) => drop(kept.drain(..used)),
                _ => return Ok(last),
            }
        }
        Ok(last)
    }
}

fn texts(session: &Session, id: FieldId) -> Vec<String> {
    let mut event = Event::new(b"");
    session.set(&mut event);
    event.all(id).map(Value::lossy).collect()
}

#[test]
fn a_handshake_of_tls_1_3_is_told_when_both_sides_are_encrypted() {
    for piece in [1, 5, 4000] {
        let (mut tls, mut seen) = (Tls::default(), Seen::default());
        let client = records(CLIENT_HELLO, &client_hello(b"Www.Example.vn"), 60);
        seen.feed(&mut tls, Side::Client, &client, piece).unwrap();
        let server = [
            records(SERVER_HELLO, &server_hello(0x0304, b""), 4000),
            record_of(CHANGE_CIPHER_SPEC, &[1]),
            record_of(APPLICATION_DATA, &[9; 90]),
        ]
        .concat();
        seen.feed(&mut tls, Side::Server, &server, piece).unwrap();
        assert_eq!(seen.sessions.len(), 0);
        let client = [
            record_of(CHANGE_CIPHER_SPEC, &[1]),
            record_of(APPLICATION_DATA, &[8; 50]),
        ]
        .concat();
        let step = seen.feed(&mut tls, Side::Client, &client, piece);
        assert_eq!(step, Ok(Step::Done));
        let [session] = seen.sessions.as_slice() else {
            panic!("{:?}", seen.sessions);
        };
        for (id, values) in [
            (network::SERVER_NAME, vec!["www.example.vn"]),
            (network::VERSION, vec!["TLSv13"]),
            (network::CIPHER, vec!["TLS_AES_128_GCM_SHA256"]),
            (network::CURVE, vec!["x25519"]),
            (network::ALPN, vec!["h2", "http/1.1"]),
            (network::JA3, vec!["d71889cbed282403c4c833bcae8fe302"]),
            (network::JA4, vec!["t13d0407h2_52f89ac5ce33_078775ef5e04"]),
            (network::JA3S, vec!["eb1d94daa7e0344597e756a1fb6e7054"]),
            (network::ESTABLISHED, vec!["true"]),
            (network::RESUMED, vec!["false"]),
        ] {
            assert_eq!(texts(session, id), values, "{id:?}");
        }
        tls.end(&mut |_| panic!("told twice"));
    }
}

#[test]
fn certificates_of_tls_1_2_are_read_in_clear() {
    let der = rcgen::generate_simple_self_signed(vec!["db.example".into(), "*.web.example".into()])
        .unwrap()
        .cert
        .der()
        .to_vec();
    let listed = [&(der.len() as u32).to_be_bytes()[1..], &der[..]].concat();
    let list = [&(listed.len() as u32).to_be_bytes()[1..], &listed[..]].concat();
    let (mut tls, mut seen) = (Tls::default(), Seen::default());
    let client = records(CLIENT_HELLO, &client_hello(b"db.example"), 4000);
    seen.feed(&mut tls, Side::Client, &client, 4000).unwrap();
    let server = [
        records(SERVER_HELLO, &server_hello(0x0303, b"\x01"), 4000),
        records(CERTIFICATE, &list, 100),
        record_of(ALERT, &[2, 40]),
    ]
    .concat();
    seen.feed(&mut tls, Side::Server, &server, 50).unwrap();
    let [(certificate, 0)] = seen.certificates.as_slice() else {
        panic!("{:?}", seen.certificates);
    };
    assert!(certificate.is_self_signed);
    assert!(certificate.names_host("db.example") && certificate.names_host("a.web.example"));
    assert!(!certificate.names_host("a.b.web.example") && !certificate.names_host("web.example"));
    tls.end(&mut |found| {
        if let Found::Session(session) = found {
            seen.sessions.push(session.clone());
        }
    });
    let session = &seen.sessions[0];
    assert_eq!(texts(session, network::LAST_ALERT), ["handshake_failure"]);
    assert_eq!(texts(session, network::NEXT_PROTOCOL), ["h2"]);
    assert_eq!(
        texts(session, network::SUBJECT).concat(),
        certificate.subject
    );
    assert_eq!(texts(session, network::ESTABLISHED), ["false"]);
}

#[test]
fn what_lies_is_refused() {
    let hello = client_hello(b"a.example");
    for cut in 1..hello.len() {
        let body = &hello[..cut];
        let step = Tls::default().feed(
            Side::Client,
            &records(CLIENT_HELLO, body, 4000),
            &mut |_| (),
        );
        // Without extensions it is whole.
        assert!(
            step.is_err() || cut == 2 + 32 + 3 + 12 + 2,
            "cut at {cut}: {step:?}"
        );
    }
    for bytes in [
        &b"\x16\x03\x01\xff\xff"[..],
        b"\x47\x03\x01\x00\x01",
        b"\x16\x02\x01\x00\x01",
        b"\x16\x03\x03\x00\x04\x01\xff\xff\xff",
    ] {
        let step = Tls::default().feed(Side::Client, bytes, &mut |_| ());
        assert!(step.is_err(), "{bytes:?}: {step:?}");
    }
}

#[test]
fn a_message_over_many_records_is_bounded() {
    let mut tls = Tls::default();
    let start = record_of(HANDSHAKE, &[CERTIFICATE, 0, 0xff, 0xff]);
    tls.feed(Side::Server, &start, &mut |_| ()).unwrap();
    let part = record_of(HANDSHAKE, &[0; 16_000]);
    for _ in 0..8 {
        tls.feed(Side::Server, &part, &mut |_| ()).unwrap();
        assert!(tls.server.message.len() <= MESSAGE_BYTES_MAX);
    }
}

#[test]
fn hellos_are_guessed_by_their_first_bytes() {
    for (side, bytes, guess) in [
        (Side::Client, &b"\x16\x03\x01\x02\x00\x01"[..], Guess::Yes),
        (Side::Client, b"\x16\x03\x01\x02\x00\x02", Guess::No),
        (Side::Server, b"\x16\x03\x03\x00\x40\x02", Guess::Yes),
        (Side::Client, b"\x16\x03", Guess::Perhaps),
        (Side::Client, b"\x16\x03\x09", Guess::No),
        (Side::Client, b"\x15\x03\x01", Guess::No),
        (Side::Client, b"", Guess::Perhaps),
    ] {
        assert_eq!(
            Tls::guess(&Opening {
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
fn numbers_have_the_registries_names() {
    for (found, name) in [
        (name::cipher(0x1301), "TLS_AES_128_GCM_SHA256"),
        (
            name::cipher(0xc02f),
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
        (name::cipher(0x0a0a), "unknown-2570"),
        (name::version(0x0301), "TLSv10"),
        (name::version(0x7f12), "TLSv13"),
        (name::group(23), "secp256r1"),
        (name::alert(48), "unknown_ca"),
        (name::alert(0), "close_notify"),
    ] {
        assert_eq!(String::from_utf8_lossy(&found), name);
    }
}
