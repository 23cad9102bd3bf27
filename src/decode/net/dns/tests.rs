use proptest::prelude::*;

use super::*;
use crate::decode::net::craft;

#[test]
fn a_query_is_lower_case_without_the_final_dot() {
    for (asked, of, text, type_text) in [
        ("WWW.Example.COM", 1, "www.example.com", "A"),
        ("example", 28, "example", "AAAA"),
        ("", 2, ".", "NS"),
        ("_dmarc.example.vn", 16, "_dmarc.example.vn", "TXT"),
        ("xn--vnh-0qa.vn", 65, "xn--vnh-0qa.vn", "HTTPS"),
        ("a.b", 4242, "a.b", "TYPE4242"),
    ] {
        let message = read(&craft::query(7, asked, of));
        assert_eq!(message.question.name.text, text);
        assert_eq!(message.question.name.length, asked.len());
        assert_eq!(type_name(message.question.of), type_text);
        assert_eq!(
            (message.id, message.kind, message.fault),
            (7, Kind::Query, None)
        );
    }
}

#[test]
fn hostile_bytes_of_a_name_are_escaped() {
    for (labels, text, length) in [
        (vec![b"a.b".to_vec(), b"c".to_vec()], r"a\.b.c", 5),
        (vec![b"a\\".to_vec()], r"a\\", 2),
        (vec![b"\x1b[31m\0".to_vec()], r"\027[31m\000", 6),
        (vec![vec![0xc3, 0xa1], b" ".to_vec()], r"\195\161.\032", 4),
    ] {
        let mut message = craft::query(1, "", 1)[..12].to_vec();
        for label in labels {
            message.push(label.len() as u8);
            message.extend(label);
        }
        message.extend([0, 0, 1, 0, 1]);
        let name = read(&message).question.name;
        assert_eq!((name.text.as_str(), name.length), (text, length));
    }
}

#[test]
fn answers_have_texts() {
    let pointer = |prefix: &[u8]| [prefix, &[0xc0, 12]].concat();
    let message = read(&craft::response(
        9,
        "mail.example.com",
        A,
        0,
        &[
            (A, vec![192, 0, 2, 7]),
            (AAAA, [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[5]].concat()),
            (CNAME, craft::name("Alias.Example.net")),
            (NS, pointer(b"\x02ns")),
            (MX, pointer(b"\0\x0a\x02mx")),
            (TXT, b"\x05v=spf\x03\\1\x07".to_vec()),
            (43, vec![1, 2, 3]),
        ],
    ));
    let answers: Vec<String> = message.answers.iter().map(shown).collect();
    assert_eq!(
        answers,
        [
            "192.0.2.7",
            "2001:db8::5",
            "alias.example.net",
            "ns.mail.example.com",
            "mx.mail.example.com",
            r"v=spf\\1\007",
        ]
    );
    assert_eq!((message.kind, message.fault), (Kind::Response(0), None));
}

#[test]
fn an_answer_says_how_it_went() {
    for (code, text) in [
        (0, "NOERROR"),
        (3, "NXDOMAIN"),
        (5, "REFUSED"),
        (15, "RCODE15"),
    ] {
        let message = read(&craft::response(9, "a.example", A, code, &[]));
        let Kind::Response(found) = message.kind else {
            panic!("{message:?}");
        };
        assert_eq!(rcode_name(found), text);
    }
}

#[test]
fn answers_are_bounded() {
    let many = vec![(A, vec![192, 0, 2, 1]); 500];
    let message = read(&craft::response(1, "a.example", A, 0, &many));
    assert_eq!((message.answers.len(), message.fault), (ANSWERS_MAX, None));

    let long = [&[255][..], &[b'x'; 255]].concat().repeat(20);
    let message = read(&craft::response(1, "a.example", TXT, 0, &[(TXT, long)]));
    assert_eq!(shown(&message.answers[0]).len(), TEXT_BYTES_MAX);
}

#[test]
fn edns_at_the_end_changes_nothing() {
    let mut message = craft::query(7, "example.com", 1);
    message[11] = 1;
    message.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(read(&message).question.name.text, "example.com");
}

#[test]
fn a_message_that_asks_nothing_is_none() {
    let mut update = craft::query(7, "example.com", 6);
    update[2] = 0x28;
    let mut unasked = craft::query(7, "example.com", 6);
    unasked[5] = 0;
    for bytes in [update, unasked] {
        assert_eq!(Message::read(&bytes), Ok(None));
    }
}

#[test]
fn names_that_lie_are_refused() {
    let header = &craft::query(1, "", 1)[..12];
    let question = |name: &[u8]| [header, name, &[0, 1, 0, 1]].concat();
    let label = [&[63][..], &[b'a'; 63]].concat();
    let malformed = |at| {
        Err(DecodeError::Malformed {
            what: "DNS name",
            at,
        })
    };
    let truncated = |need, have| {
        Err(DecodeError::Truncated {
            what: "DNS name",
            need,
            have,
        })
    };
    for (what, bytes, expected) in [
        ("a pointer to itself", question(&[0xc0, 12]), malformed(12)),
        ("a pointer forward", question(&[0xc0, 14]), malformed(12)),
        (
            "a pointer into the header",
            question(&[0xc0, 4]),
            malformed(12),
        ),
        (
            "a pointer back into its own label",
            question(&[1, b'a', 0xc0, 12]),
            malformed(14),
        ),
        ("an extended label", question(&[0x41, 0]), malformed(12)),
        (
            "a label kind that never was",
            question(&[0x80, 0]),
            malformed(12),
        ),
        (
            "255 bytes and more",
            question(&[label.repeat(4), vec![0]].concat()),
            malformed(12 + 64 * 3),
        ),
        (
            "a label beyond the end",
            [header, &[9, b'a']].concat(),
            truncated(9, 1),
        ),
        ("no end", [header, &[1, b'a']].concat(), truncated(1, 0)),
        (
            "half a pointer",
            [header, &[0xc0]].concat(),
            truncated(2, 1),
        ),
        (
            "nothing",
            Vec::new(),
            Err(DecodeError::Truncated {
                what: "DNS header",
                need: 2,
                have: 0,
            }),
        ),
        (
            "no type",
            [header, &[0, 0]].concat(),
            Err(DecodeError::Truncated {
                what: "DNS question",
                need: 2,
                have: 1,
            }),
        ),
    ] {
        assert_eq!(Message::read(&bytes).map(|_| ()), expected, "{what}");
    }
}

#[test]
fn the_longest_name_is_read() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    let name = read(&craft::query(1, &longest, 1)).question.name;
    assert_eq!((name.length, name.text), (253, longest));
}

#[test]
fn a_fault_in_the_answers_keeps_what_came_before_it() {
    let good = (A, vec![192, 0, 2, 7]);
    let loops = {
        // The second answer's data begins behind both names, at 12 + 15 + 16 + 12.
        let at = 12 + 15 + 16 + 12;
        vec![good.clone(), (CNAME, vec![0xc0, at])]
    };
    for (what, records) in [
        (
            "an address of three bytes",
            vec![good.clone(), (A, vec![1, 2, 3])],
        ),
        ("a name that points to itself", loops),
        (
            "a string beyond its record",
            vec![good.clone(), (TXT, vec![9, b'a'])],
        ),
    ] {
        let message = read(&craft::response(1, "a.example", A, 0, &records));
        assert_eq!(message.answers.len(), 1, "{what}");
        assert!(message.fault.is_some(), "{what}");
    }
    let whole = craft::response(1, "a.example", A, 0, &[good]);
    let message = read(&whole[..whole.len() - 1]);
    assert!(matches!(message.fault, Some(DecodeError::Truncated { .. })));
}

#[test]
fn a_chain_of_pointers_ends_early() {
    // Each pointer goes to the one before it: allowed by the letter, and 8,000 long.
    let mut message = craft::response(1, "a.example", A, 0, &[]);
    message[7] = 2;
    let mut data = vec![0xc0, 12];
    let start = message.len() as u16 + 12;
    for step in 0..400_u16 {
        data.extend((0xc000 | (start + step * 2)).to_be_bytes());
    }
    let record = |of: u16, data: &[u8]| {
        let mut record = vec![0xc0, 12];
        record.extend(of.to_be_bytes());
        record.extend([0, 1, 0, 0, 0, 0]);
        record.extend((data.len() as u16).to_be_bytes());
        record.extend(data);
        record
    };
    message.extend(record(10, &data));
    message.extend(record(CNAME, &(0xc000 | (start + 800)).to_be_bytes()));
    assert!(matches!(
        read(&message).fault,
        Some(DecodeError::Malformed {
            what: "DNS name",
            ..
        })
    ));
}

fn read(bytes: &[u8]) -> Message {
    Message::read(bytes).unwrap().expect("a question")
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Address(address) => address.to_string(),
        Answer::Name(name) => name.text.clone(),
        Answer::Text(text) => text.clone(),
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Message::read(&bytes);
    }

    #[test]
    fn no_change_of_a_good_answer_makes_it_panic(
        changes in prop::collection::vec((0_usize..120, any::<u8>()), 0..8),
        length in 0_usize..140,
    ) {
        let mut bytes = craft::response(1, "www.example.com", A, 0, &[
            (A, vec![192, 0, 2, 7]),
            (CNAME, vec![1, b'x', 0xc0, 12]),
            (TXT, b"\x05hello".to_vec()),
        ]);
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(length);
        let _ = Message::read(&bytes);
    }
}
