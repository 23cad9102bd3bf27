use std::net::SocketAddr;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::event::Value;
use crate::event::field::FieldId;
use crate::record::Position;

const ETHERNET: LinkType = LinkType(1);
const HOST: &str = "192.0.2.10:22";

#[test]
fn a_connection_start_is_an_event_with_sigmas_names() {
    let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
    let [event] = events(&mut decoder, 100, craft::syn("203.0.113.9:40000", HOST, 1))
        .try_into()
        .unwrap();
    assert_eq!(
        event.fields,
        [
            "SourceIp=203.0.113.9",
            "SourcePort=40000",
            "DestinationIp=192.0.2.10",
            "DestinationPort=22",
            "Protocol=tcp",
            "TcpFlags=S",
        ]
    );
    assert_eq!(event.logsource, "-/network_connection");
    assert_eq!(event.time, Some(Timestamp::from_second(100).unwrap()));
}

#[test]
fn who_began_is_told_only_on_the_host_itself() {
    let own: Arc<[IpAddr]> = vec!["192.0.2.10".parse().unwrap()].into();
    for (from, to, viewpoint, product, initiated) in [
        (
            "203.0.113.9:1",
            HOST,
            Viewpoint::Host(own.clone()),
            "linux",
            Some("false"),
        ),
        (
            HOST,
            "203.0.113.9:1",
            Viewpoint::Host(own.clone()),
            "linux",
            Some("true"),
        ),
        (
            "127.0.0.1:1",
            "127.0.0.1:2",
            Viewpoint::Host(own.clone()),
            "linux",
            Some("true"),
        ),
        (
            "203.0.113.9:1",
            "203.0.113.8:2",
            Viewpoint::Host(own),
            "linux",
            None,
        ),
        (HOST, "203.0.113.9:1", Viewpoint::Elsewhere, "-", None),
    ] {
        let mut decoder = NetDecoder::new(ETHERNET, viewpoint);
        let [event] = events(&mut decoder, 0, craft::syn(from, to, 1))
            .try_into()
            .unwrap();
        let found = event
            .fields
            .iter()
            .find_map(|f| f.strip_prefix("Initiated="));
        assert_eq!(found, initiated, "{from} to {to}");
        assert_eq!(event.logsource, format!("{product}/network_connection"));
    }
}

#[test]
fn a_start_told_twice_is_one() {
    let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
    let syn = |port: u16, sequence| craft::syn(&format!("203.0.113.9:{port}"), HOST, sequence);
    for (what, second, packet, count) in [
        ("the first", 0, syn(1, 1), 1),
        ("the same, seen twice on lo", 0, syn(1, 1), 0),
        ("sent again", 3, syn(1, 1), 0),
        ("another port", 3, syn(2, 1), 1),
        ("a new connection from the same port", 4, syn(1, 900), 1),
        ("the same number, long after", 100, syn(1, 1), 1),
    ] {
        assert_eq!(events(&mut decoder, second, packet).len(), count, "{what}");
    }
}

#[test]
fn other_segments_start_nothing() {
    let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
    for flags in [craft::SYN_ACK, craft::RST_ACK, craft::ACK, craft::PSH_ACK] {
        let segment = craft::Segment {
            from: HOST.parse().unwrap(),
            to: "203.0.113.9:40000".parse().unwrap(),
            flags,
            sequence: 1,
            payload: b"",
        };
        assert_eq!(events(&mut decoder, 0, craft::tcp(&segment)), []);
    }
}

#[test]
fn a_query_and_its_answer_are_two_events_of_the_one_who_asked() {
    let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
    let (client, server) = dns_ends();
    let asked = craft::udp(
        client,
        server,
        &craft::query(5, "WWW.example.com", craft::A),
    );
    let answer = craft::response(
        5,
        "WWW.example.com",
        craft::A,
        0,
        &[(1, vec![192, 0, 2, 80])],
    );
    let answered = craft::udp(server, client, &answer);
    let [query] = events(&mut decoder, 0, asked).try_into().unwrap();
    let [response] = events(&mut decoder, 0, answered).try_into().unwrap();
    let both = [
        "SourceIp=192.0.2.25",
        "SourcePort=33000",
        "DestinationIp=192.0.2.53",
        "DestinationPort=53",
        "Protocol=udp",
        "query=www.example.com",
        "QueryName=www.example.com",
        "QueryLength=15",
        "record_type=A",
        "qtype_name=A",
    ];
    assert_eq!(query.fields, both);
    assert_eq!(query.logsource, "-/dns,dns_query");
    assert_eq!(response.fields[..10], both);
    assert_eq!(
        response.fields[10..],
        ["rcode=NOERROR", "answers=192.0.2.80", "answer=192.0.2.80"]
    );
    assert_eq!(response.logsource, "-/dns");
}

#[test]
fn a_message_seen_twice_is_one_and_asked_again_is_two() {
    let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
    let (client, server) = dns_ends();
    let query = |id| craft::udp(client, server, &craft::query(id, "example.com", craft::A));
    for (what, second, packet, count) in [
        ("the first", 0, query(1), 1),
        ("seen twice on lo", 0, query(1), 0),
        ("another id", 0, query(2), 1),
        ("asked again after a timeout", 5, query(1), 1),
    ] {
        assert_eq!(events(&mut decoder, second, packet).len(), count, "{what}");
    }
}

#[test]
fn dns_over_tcp_is_read_however_it_is_cut() {
    let message = craft::query(5, "example.com", craft::TXT);
    let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    for (what, payload, count) in [
        ("whole", framed.clone(), 1),
        ("half", framed[..20].to_vec(), 0),
        ("two in one", framed.repeat(2), 2),
        ("empty", Vec::new(), 0),
    ] {
        let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
        let (client, server) = dns_ends();
        let segment = craft::Segment {
            from: client,
            to: server,
            flags: craft::PSH_ACK,
            sequence: 1,
            payload: &payload,
        };
        assert_eq!(
            events(&mut decoder, 0, craft::tcp(&segment)).len(),
            count,
            "{what}"
        );
    }
}

#[test]
fn a_fault_in_the_answers_is_an_event_and_an_error() {
    let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
    let (client, server) = dns_ends();
    let answer = craft::response(5, "example.com", craft::A, 0, &[(1, vec![192, 0, 2])]);
    let mut count = 0;
    let outcome = decoder.decode(
        &record(0, craft::udp(server, client, &answer)),
        &Fields::default(),
        &mut |_| count += 1,
    );
    assert_eq!(count, 1);
    assert!(matches!(outcome, Err(DecodeError::Malformed { .. })));
}

#[test]
fn what_is_not_a_packet_is_an_error_and_no_event() {
    let mut decoder = decoder(ETHERNET);
    let outcome = decoder.decode(
        &record(0, b"not a packet".to_vec()),
        &Fields::default(),
        &mut |event| panic!("{event:?}"),
    );
    assert!(matches!(outcome, Err(DecodeError::Truncated { .. })));
}

#[derive(Debug, PartialEq)]
struct Seen {
    fields: Vec<String>,
    logsource: String,
    time: Option<Timestamp>,
}

fn events(decoder: &mut NetDecoder, second: i64, bytes: Vec<u8>) -> Vec<Seen> {
    let fields = Fields::default();
    let mut seen = Vec::new();
    // Zeek's names say the same again.
    let is_sigmas = |(id, _): &(FieldId, &Value<'_>)| id.index() < usize::from(network::FIRST);
    let shown =
        |(id, value): (FieldId, &Value<'_>)| format!("{}={}", fields.name(id), value.lossy());
    decoder
        .decode(&record(second, bytes), &fields, &mut |event| {
            seen.push(Seen {
                fields: event.iter().filter(is_sigmas).map(shown).collect(),
                logsource: format!(
                    "{}/{}",
                    event.logsources.product.as_deref().unwrap_or("-"),
                    event.logsources.categories.join(",")
                ),
                time: event.time,
            });
        })
        .unwrap();
    seen
}

fn record(second: i64, bytes: Vec<u8>) -> Record {
    Record {
        position: Position::Counter {
            start: 0,
            number: 0,
        },
        read_at: Timestamp::from_second(second).unwrap(),
        bytes: Bytes::from(bytes),
        cut: false,
    }
}

fn dns_ends() -> (SocketAddr, SocketAddr) {
    (
        "192.0.2.25:33000".parse().unwrap(),
        "192.0.2.53:53".parse().unwrap(),
    )
}

proptest! {
    #[test]
    fn no_packets_make_it_panic(
        packets in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..120), -1_000_i64..1_000), 0..10),
        link in prop::sample::select(vec![0_u16, 1, 101, 113, 276]),
    ) {
        let mut decoder = NetDecoder::new(LinkType(link), Viewpoint::Elsewhere);
        for (bytes, second) in packets {
            let _ = decoder.decode(&record(second, bytes), &Fields::default(), &mut |_| ());
        }
    }

    #[test]
    fn no_changed_message_makes_it_panic(
        changes in prop::collection::vec((0_usize..110, any::<u8>()), 0..6),
    ) {
        let (client, server) = dns_ends();
        let message = craft::response(5, "www.example.com", 1, 0, &[(1, vec![192, 0, 2, 80])]);
        let mut frame = craft::udp(server, client, &message);
        for (at, byte) in changes {
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
        let mut decoder = NetDecoder::new(ETHERNET, Viewpoint::Elsewhere);
        let _ = decoder.decode(&record(0, frame), &Fields::default(), &mut |_| ());
    }
}
