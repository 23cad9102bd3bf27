use proptest::prelude::*;

use super::*;
use crate::decode::net::craft;

const LINKS: [LinkType; 10] = [
    NULL,
    ETHERNET,
    RAW_BSD,
    RAW_OPENBSD,
    RAW,
    LOOP,
    SLL,
    IPV4,
    IPV6,
    SLL2,
];

#[test]
fn every_link_layer_is_taken_off() {
    let frame = craft::syn("192.0.2.1:40000", "198.51.100.7:443", 9);
    let ip = &frame[14..];
    let behind = |header: &[u8]| [header, ip].concat();
    for (what, link, bytes, vlan) in [
        ("Ethernet", ETHERNET, frame.clone(), None),
        (
            "one VLAN tag",
            ETHERNET,
            tagged_frame(&[(0x8100, 0x6005)], ip),
            Some(5),
        ),
        (
            "QinQ, the inner tag counts",
            ETHERNET,
            tagged_frame(&[(0x88a8, 7), (0x8100, 9)], ip),
            Some(9),
        ),
        (
            "Linux cooked",
            SLL,
            behind(&[0, 0, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0, 8, 0]),
            None,
        ),
        (
            "Linux cooked 2",
            SLL2,
            behind(&[8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 1, 2, 3, 4, 5, 6, 0, 0]),
            None,
        ),
        ("loopback, little endian", NULL, behind(&[2, 0, 0, 0]), None),
        ("loopback, big endian", NULL, behind(&[0, 0, 0, 2]), None),
        ("OpenBSD's loopback", LOOP, behind(&[0, 0, 0, 2]), None),
        ("raw", RAW, ip.to_vec(), None),
        ("raw of BSD", RAW_BSD, ip.to_vec(), None),
        ("IPv4", IPV4, ip.to_vec(), None),
    ] {
        let packet = read(link, &bytes).unwrap().expect(what);
        assert_eq!(packet.source.to_string(), "192.0.2.1", "{what}");
        assert_eq!(packet.destination.to_string(), "198.51.100.7", "{what}");
        assert_eq!(packet.vlan, vlan, "{what}");
        let Transport::Tcp(tcp) = packet.transport else {
            panic!("{what}: {:?}", packet.transport);
        };
        assert_eq!((tcp.source_port, tcp.destination_port), (40000, 443));
        assert_eq!((tcp.sequence, tcp.flags.text().as_str()), (9, "S"));
        assert!(supports(link));
    }
}

#[test]
fn what_is_not_ip_is_whole_and_no_packet() {
    let mut arp = craft::syn("192.0.2.1:1", "192.0.2.2:2", 0);
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut spanning_tree = tagged_frame(&[], &[0; 40]);
    spanning_tree[12..14].copy_from_slice(&[0, 38]);
    for (what, link, bytes) in [
        ("ARP", ETHERNET, arp),
        (
            "a frame with a length instead of a type",
            ETHERNET,
            spanning_tree,
        ),
        ("a family that is not IP", NULL, vec![16, 0, 0, 0, 1, 2, 3]),
    ] {
        assert_eq!(read(link, &bytes), Ok(None), "{what}");
    }
}

#[test]
fn ipv4_lengths_that_lie_are_named_or_clamped() {
    let good = craft::udp(
        "192.0.2.1:5".parse().unwrap(),
        "192.0.2.2:6".parse().unwrap(),
        b"payload",
    )[14..]
        .to_vec();
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = good.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    let payload = |bytes: &[u8]| match read(RAW, bytes)?.unwrap().transport {
        Transport::Udp(udp) => Ok(String::from_utf8(udp.payload.to_vec()).unwrap()),
        other => panic!("{other:?}"),
    };
    let malformed = |what, at| Err(DecodeError::Malformed { what, at });
    let mut padded = good.clone();
    padded.extend([0; 20]);
    let mut options = good.clone();
    options.splice(20..20, [1, 1, 1, 1]);
    options[0] = 0x46;
    options[3] += 4;
    for (what, bytes, expected) in [
        ("as it should be", good.clone(), Ok("payload".to_owned())),
        ("padding of a short frame", padded, Ok("payload".to_owned())),
        ("options", options, Ok("payload".to_owned())),
        (
            "total 0, before the card cut it",
            with(2, &[0, 0]),
            Ok("payload".into()),
        ),
        (
            "total beyond the end",
            with(2, &[255, 255]),
            Ok("payload".into()),
        ),
        ("total in the payload", with(2, &[0, 31]), Ok("pay".into())),
        (
            "total in the header",
            with(2, &[0, 19]),
            malformed("IPv4 length", 0),
        ),
        (
            "header of 16 bytes",
            with(0, &[0x44]),
            malformed("IPv4 length", 0),
        ),
        (
            "header beyond the end",
            with(0, &[0x4f]),
            malformed("IPv4 length", 0),
        ),
        ("version 5", with(0, &[0x55]), malformed("IP version", 0)),
        ("a later fragment", with(6, &[0, 1]), Err(LATER_FRAGMENT)),
        (
            "the first fragment",
            with(6, &[0x20, 0]),
            Ok("payload".into()),
        ),
        (
            "UDP length in its header",
            with(24, &[0, 7]),
            malformed("UDP length", 20),
        ),
        (
            "UDP length beyond the end",
            with(24, &[9, 9]),
            Ok("payload".into()),
        ),
        ("UDP length 0", with(24, &[0, 0]), Ok("payload".into())),
        ("UDP length shorter", with(24, &[0, 10]), Ok("pa".into())),
        (
            "cut in the UDP header",
            good[..25].to_vec(),
            Err(DecodeError::Truncated {
                what: "UDP header",
                need: 8,
                have: 5,
            }),
        ),
        (
            "nothing",
            Vec::new(),
            Err(DecodeError::Truncated {
                what: "IP header",
                need: 1,
                have: 0,
            }),
        ),
    ] {
        assert_eq!(payload(&bytes), expected, "{what}");
    }
}

#[test]
fn ipv6_extension_headers_are_walked_to_a_bound() {
    let tcp = craft::syn("[2001:db8::1]:40000", "[2001:db8::2]:22", 1)[14 + 40..].to_vec();
    let packet = |first: u8, chain: &[u8]| {
        let ends = (
            "2001:db8::1".parse().unwrap(),
            "2001:db8::2".parse().unwrap(),
        );
        craft::ip(ends.0, ends.1, first, &[chain, &tcp].concat())
    };
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let reaches = |bytes: &[u8]| match read(RAW, bytes)?.unwrap().transport {
        Transport::Tcp(tcp) => Ok(tcp.destination_port),
        Transport::Other(number) => Ok(number.into()),
        Transport::Udp(udp) => panic!("{udp:?}"),
    };
    let eight = [60, 60, 60, 60, 60, 60, 60, 6].map(options).concat();
    let seven = [60, 60, 60, 60, 60, 60, 6].map(options).concat();
    let long = [[6, 31].as_slice(), &[0; 254]].concat();
    for (what, bytes, expected) in [
        ("none", packet(6, &[]), Ok(22)),
        ("hop by hop", packet(0, &options(6)), Ok(22)),
        (
            "routing, then destination options",
            packet(43, &[options(60), options(6)].concat()),
            Ok(22),
        ),
        ("a long one", packet(60, &long), Ok(22)),
        (
            "authentication, in words of 4 bytes",
            packet(51, &[[6, 4].as_slice(), &[0; 22]].concat()),
            Ok(22),
        ),
        (
            "the first fragment",
            packet(44, &[6, 0, 0, 1, 0, 0, 0, 9]),
            Ok(22),
        ),
        (
            "a later fragment",
            packet(44, &[6, 0, 0, 8, 0, 0, 0, 9]),
            Err(LATER_FRAGMENT),
        ),
        ("encrypted", packet(50, &[]), Ok(50)),
        ("nothing behind it", packet(59, &[]), Ok(59)),
        ("seven", packet(60, &seven), Ok(22)),
        (
            "eight",
            packet(60, &eight),
            Err(DecodeError::Malformed {
                what: "chain of IPv6 extension headers",
                at: 40 + 64,
            }),
        ),
        (
            "one that is longer than the packet",
            packet(0, &[6, 255, 0, 0]),
            Err(DecodeError::Truncated {
                what: "IPv6 extension header",
                need: 2048,
                have: 24,
            }),
        ),
    ] {
        assert_eq!(reaches(&bytes), expected, "{what}");
    }
}

#[test]
fn a_tcp_header_is_read_as_far_as_it_was_kept() {
    let frame = craft::tcp(&craft::Segment {
        from: "192.0.2.1:40000".parse().unwrap(),
        to: "192.0.2.2:53".parse().unwrap(),
        flags: craft::PSH_ACK,
        sequence: 1,
        payload: b"abc",
    });
    let offset = 14 + 20 + 12;
    let with_offset = |words: u8| {
        let mut frame = frame.clone();
        frame[offset] = words << 4;
        frame
    };
    let payload = |bytes: &[u8]| match read(ETHERNET, bytes)?.unwrap().transport {
        Transport::Tcp(tcp) => Ok(tcp.payload.to_vec()),
        other => panic!("{other:?}"),
    };
    for (what, bytes, expected) in [
        ("whole", frame.clone(), Ok(b"abc".to_vec())),
        (
            "options that were cut away",
            with_offset(15),
            Ok(Vec::new()),
        ),
        (
            "an offset within the header",
            with_offset(4),
            Err(DecodeError::Malformed {
                what: "TCP data offset",
                at: 34,
            }),
        ),
        (
            "cut",
            frame[..34 + 19].to_vec(),
            Err(DecodeError::Truncated {
                what: "TCP header",
                need: 20,
                have: 19,
            }),
        ),
    ] {
        assert_eq!(payload(&bytes), expected, "{what}");
    }
}

#[test]
fn only_a_plain_syn_starts() {
    for (flags, text, starts) in [
        (0x02, "S", true),
        (0xc2, "SEC", true),
        (0x12, "SA", false),
        (0x06, "SR", false),
        (0x14, "AR", false),
        (0x00, "", false),
        (0x29, "FPU", false),
    ] {
        assert_eq!(
            (Flags(flags).text().as_str(), Flags(flags).starts()),
            (text, starts)
        );
    }
}

#[test]
fn an_unknown_link_type_is_said() {
    let foreign = DecodeError::Foreign {
        what: "a packet of a known link type",
    };
    assert_eq!(read(LinkType(105), &[0; 64]), Err(foreign));
    assert!(!supports(LinkType(105)));
}

fn tagged_frame(tags: &[(u16, u16)], ip: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    for (kind, tag) in tags {
        frame.extend(kind.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend([8, 0]);
    frame.extend(ip);
    frame
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        link in prop::sample::select(&LINKS[..]),
        bytes in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = read(link, &bytes);
    }

    #[test]
    fn no_change_of_a_good_packet_makes_it_panic(
        changes in prop::collection::vec((0_usize..80, any::<u8>()), 0..6),
        length in 0_usize..90,
    ) {
        for mut frame in [
            craft::syn("192.0.2.1:1", "192.0.2.2:2", 3),
            craft::syn("[2001:db8::1]:1", "[2001:db8::2]:2", 3),
        ] {
            for &(at, byte) in &changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(length);
            let _ = read(ETHERNET, &frame);
        }
    }
}
