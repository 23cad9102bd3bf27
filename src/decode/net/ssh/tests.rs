use super::*;
use crate::event::Value;
use crate::event::field::FieldId;

fn offer(lists: [&str; 8]) -> Vec<u8> {
    let mut payload = vec![KEXINIT];
    payload.extend([7; 16]);
    for list in lists.iter().chain(&["", ""]) {
        payload.extend((list.len() as u32).to_be_bytes());
        payload.extend(list.as_bytes());
    }
    payload.extend([0; 5]);
    let padding = 8;
    let mut packet = ((payload.len() + 1 + padding) as u32)
        .to_be_bytes()
        .to_vec();
    packet.push(padding as u8);
    packet.extend(payload);
    packet.extend(vec![0; padding]);
    packet
}

/// What a conversation in pieces tells: field by field of each event.
fn told(client: &[u8], server: &[u8], piece: usize, ids: &[FieldId]) -> Vec<Vec<String>> {
    let mut ssh = Ssh::default();
    let mut told = Vec::new();
    let mut on = |session: &Session<'_>| {
        let mut event = Event::new(b"");
        session.set(&mut event);
        told.push(
            ids.iter()
                .map(|&id| event.get(id).map_or(String::new(), Value::lossy))
                .collect(),
        );
    };
    for (side, bytes) in [(Side::Server, server), (Side::Client, client)] {
        let mut kept = Vec::new();
        for part in bytes.chunks(piece) {
            kept.extend_from_slice(part);
            match ssh.feed(side, &kept, &mut on) {
                Ok(Step::Used(used)) => drop(kept.drain(..used)),
                _ => break,
            }
        }
    }
    ssh.end(&mut on);
    told
}

#[test]
fn both_sides_offers_are_one_event_with_their_fingerprints() {
    let client = [
        b"SSH-2.0-Test_1.0\r\n".to_vec(),
        offer(["k2,k1", "h1", "c9,c1", "c1", "m1,m2", "m1", "none", "none"]),
    ]
    .concat();
    let server = [
        b"welcome\r\nto this host\r\nSSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(),
        offer([
            "k1,k2",
            "h1,h2",
            "c1",
            "c1,c5",
            "m2",
            "m2",
            "zlib,none",
            "none",
        ]),
    ]
    .concat();
    let hash = |text: &str| crate::decode::net::tls::fingerprint::md5_hex(text.as_bytes());
    for piece in [1, 9, 5000] {
        let told = told(
            &client,
            &server,
            piece,
            &[
                network::CLIENT,
                network::SERVER,
                network::VERSION,
                network::KEX_ALG,
                network::CIPHER_ALG,
                network::MAC_ALG,
                network::COMPRESSION_ALG,
                network::HASSH,
                network::HASSH_SERVER,
            ],
        );
        let expected = [
            "SSH-2.0-Test_1.0",
            "SSH-2.0-OpenSSH_9.2p1 Debian-2",
            "2",
            "k2",
            "c1",
            "m2",
            "none",
            &hash("k2,k1;c9,c1;m1,m2;none"),
            &hash("k1,k2;c1,c5;m2;none"),
        ];
        assert_eq!(told, [expected.map(str::to_owned).to_vec()], "{piece}");
    }
}

#[test]
fn a_connection_that_ends_early_is_told_as_far_as_it_went() {
    let ids = [network::CLIENT, network::SERVER, network::VERSION];
    for (client, server, expected) in [
        (
            "SSH-1.5-old\n",
            "SSH-1.99-both\n",
            ["SSH-1.5-old", "SSH-1.99-both", "1"],
        ),
        ("", "SSH-2.0-x\r\n", ["", "SSH-2.0-x", ""]),
    ] {
        let told = told(client.as_bytes(), server.as_bytes(), 3, &ids);
        assert_eq!(told, [expected.map(str::to_owned).to_vec()], "{client}");
    }
    assert!(told(b"", b"", 1, &ids).is_empty());
}

#[test]
fn what_lies_is_refused() {
    let long = [b"SSH-2.0-".to_vec(), vec![b'x'; 300]].concat();
    for bytes in [
        &b"hello\r\n"[..],
        &long,
        b"SSH-2.0-x\r\n\xff\xff\xff\xff",
        b"SSH-2.0-x\r\n\0\0\0\x02\xff\x14",
        b"SSH-2.0-x\r\n\0\0\0\x08\x04\x14\0\0\0\0\0\0",
    ] {
        let step = Ssh::default().feed(Side::Client, bytes, &mut |_| ());
        assert!(step.is_err(), "{bytes:?}: {step:?}");
    }
}
