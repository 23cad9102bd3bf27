use proptest::prelude::*;

use super::*;

const PATH: &str = "test.pcap";

#[test]
fn both_byte_orders_and_both_resolutions_are_read() {
    for (what, order, magic, fraction, expected) in [
        (
            "little",
            Order::Little,
            MAGIC_MICROSECONDS,
            5,
            "1970-01-01T00:01:40.000005Z",
        ),
        (
            "big",
            Order::Big,
            MAGIC_MICROSECONDS,
            5,
            "1970-01-01T00:01:40.000005Z",
        ),
        (
            "little, nano",
            Order::Little,
            MAGIC_NANOSECONDS,
            5,
            "1970-01-01T00:01:40.000000005Z",
        ),
        (
            "big, nano",
            Order::Big,
            MAGIC_NANOSECONDS,
            5,
            "1970-01-01T00:01:40.000000005Z",
        ),
        (
            "a fraction over a second",
            Order::Big,
            MAGIC_MICROSECONDS,
            2_000_000,
            "1970-01-01T00:01:42Z",
        ),
    ] {
        let file = classic(
            order,
            magic,
            113,
            &[(100, fraction, b"one", 3), (100, fraction, b"", 9)],
        );
        let (packets, fault) = whole(&file);
        assert!(fault.is_none(), "{what}: {fault:?}");
        let [one, cut] = packets.try_into().unwrap();
        assert_eq!(one.time.unwrap().to_string(), expected, "{what}");
        assert_eq!(
            one,
            Packet {
                offset: 24,
                end: 43,
                time: one.time,
                link: LinkType(113),
                bytes: Bytes::from_static(b"one"),
                cut: false,
            }
        );
        assert_eq!((cut.offset, cut.end, cut.cut), (43, 59, true), "{what}");
    }
}

#[test]
fn a_link_type_shares_its_word_with_the_length_of_a_checksum() {
    let mut file = classic(Order::Big, MAGIC_MICROSECONDS, 1, &[(0, 0, b"x", 1)]);
    file[20] = 0x24;
    assert_eq!(whole(&file).0[0].link, LinkType(1));
}

#[test]
fn what_is_no_recording_is_said() {
    for (bytes, beginning) in [
        (&b""[..], &b""[..]),
        (b"\xa1\xb2", b"\xa1\xb2"),
        (b"GIF89a", b"GIF8"),
        (b"\x1f\x8b\x08\0\0\0", b"\x1f\x8b\x08\0"),
    ] {
        let (packets, fault) = whole(bytes);
        assert!(packets.is_empty());
        let Some(PcapError::Foreign { beginning: found }) = fault else {
            panic!("{fault:?}");
        };
        assert_eq!(found, beginning);
    }
    let missing = read(Path::new("/nonexistent/x.pcap")).next().unwrap();
    assert_eq!(
        missing.unwrap_err().to_string(),
        "cannot read /nonexistent/x.pcap"
    );
}

#[test]
fn of_a_cut_recording_the_packets_before_the_cut_are_used() {
    let good = classic(
        Order::Little,
        MAGIC_MICROSECONDS,
        1,
        &[(1, 0, b"first", 5), (2, 0, b"second", 6)],
    );
    let first_end = 24 + 16 + 5;
    for length in 24..good.len() {
        let (packets, fault) = whole(&good[..length]);
        assert_eq!(packets.len(), usize::from(length >= first_end), "{length}");
        match (length, fault) {
            (24 | 45, None) => {}
            (25..45, Some(PcapError::Cut { at: 24, .. })) => {}
            (46.., Some(PcapError::Cut { at: 45, .. })) => {}
            (_, fault) => panic!("{length}: {fault:?}"),
        }
    }
    let (_, fault) = whole(&good[..10]);
    let text = fault.unwrap().to_string();
    assert_eq!(
        text,
        "cut in the middle of the file's header, which begins at byte 0"
    );
}

#[test]
fn a_packet_of_insane_length_ends_the_reading() {
    for (length, is_read) in [
        (256 * 1024, true),
        (256 * 1024 + 1, false),
        (u32::MAX, false),
    ] {
        let mut file = classic(Order::Little, MAGIC_MICROSECONDS, 1, &[(1, 0, b"first", 5)]);
        file.extend([0; 8]);
        file.extend(length.to_le_bytes());
        file.extend([0; 4]);
        file.extend(vec![0; (length as usize).min(300 * 1024)]);
        let (packets, fault) = whole(&file);
        assert_eq!(packets.len(), if is_read { 2 } else { 1 }, "{length}");
        if !is_read {
            let Some(PcapError::Length { at, value, .. }) = fault else {
                panic!("{fault:?}");
            };
            assert_eq!((at, value), (45, length.into()));
        }
    }
}

#[test]
fn blocks_of_both_byte_orders_are_read() {
    for order in [Order::Little, Order::Big] {
        let blocks = Blocks(order);
        let file = [
            blocks.section(),
            blocks.interface(1, 0, &[]),
            blocks.interface(101, 0, &[(9, vec![9]), (14, 100_i64.to_bytes(order))]),
            blocks.block(0x0bad, &[1, 2, 3, 4]),
            blocks.enhanced(0, 100_000_005, b"one", 3),
            blocks.enhanced(1, 7, b"four", 40),
        ]
        .concat();
        let (packets, fault) = whole(&file);
        assert!(fault.is_none(), "{fault:?}");
        let [one, four] = packets.try_into().unwrap();
        assert_eq!(
            (one.link, &one.bytes[..], one.cut),
            (LinkType(1), &b"one"[..], false)
        );
        assert_eq!(one.time.unwrap().to_string(), "1970-01-01T00:01:40.000005Z");
        assert_eq!(
            (four.link, &four.bytes[..], four.cut),
            (LinkType(101), &b"four"[..], true)
        );
        assert_eq!(
            four.time.unwrap().to_string(),
            "1970-01-01T00:01:40.000000007Z"
        );
        assert_eq!((one.end, four.end), (four.offset, file.len() as u64));
    }
}

#[test]
fn a_simple_packet_has_no_time_and_the_first_interfaces_snap_length() {
    let blocks = Blocks(Order::Little);
    let file = [
        blocks.section(),
        blocks.interface(1, 4, &[]),
        blocks.block(3, &[&9_u32.to_le_bytes()[..], b"abcd"].concat()),
    ]
    .concat();
    let [packet] = whole(&file).0.try_into().unwrap();
    assert_eq!(
        (&packet.bytes[..], packet.cut, packet.time),
        (&b"abcd"[..], true, None)
    );
}

#[test]
fn a_second_section_has_its_own_byte_order_and_interfaces() {
    let (little, big) = (Blocks(Order::Little), Blocks(Order::Big));
    let file = [
        little.section(),
        little.interface(1, 0, &[]),
        little.enhanced(0, 0, b"a", 1),
        big.section(),
        big.interface(113, 0, &[]),
        big.enhanced(0, 0, b"b", 1),
        little.section(),
        little.enhanced(0, 0, b"c", 1),
    ]
    .concat();
    let (packets, fault) = whole(&file);
    let links: Vec<_> = packets.iter().map(|packet| packet.link.0).collect();
    assert_eq!(links, [1, 113]);
    let text = fault.unwrap().to_string();
    assert!(text.starts_with("malformed packet block"), "{text}");
}

#[test]
fn blocks_that_lie_end_the_reading() {
    let blocks = Blocks(Order::Little);
    let start = [blocks.section(), blocks.interface(1, 0, &[])].concat();
    let at = start.len() as u64;
    let length = |length: u32| [&6_u32.to_le_bytes()[..], &length.to_le_bytes(), &[0; 64]].concat();
    let mut long_packet = blocks.enhanced(0, 0, b"abcd", 4);
    long_packet[20] = 200;
    for (what, block, expected) in [
        ("shorter than its header", length(8), "length of the block"),
        ("not of whole words", length(33), "length of the block"),
        ("4 GiB", length(u32::MAX - 3), "length of the block"),
        (
            "beyond the end",
            length(1 << 20),
            "cut in the middle of a block",
        ),
        (
            "a packet longer than its block",
            long_packet,
            "malformed packet block",
        ),
        (
            "an unknown interface",
            blocks.enhanced(7, 0, b"", 0),
            "malformed packet block",
        ),
        (
            "too short a packet block",
            blocks.block(6, &[0; 16]),
            "malformed packet block",
        ),
        (
            "too short an interface",
            blocks.block(1, &[0; 4]),
            "malformed interface",
        ),
        (
            "an option beyond its block",
            blocks.block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 99, 0]),
            "malformed interface",
        ),
        (
            "a resolution of 10^-200",
            blocks.interface(1, 0, &[(9, vec![100])]),
            "malformed interface",
        ),
        (
            "a section of no byte order",
            blocks.block(SECTION, &[0; 16]),
            "malformed section header",
        ),
    ] {
        let (packets, fault) = whole(&[start.clone(), block].concat());
        assert!(packets.is_empty(), "{what}");
        let text = fault.map_or(String::new(), |fault| fault.to_string());
        assert!(text.contains(expected), "{what}: {text}");
        assert!(
            text.is_empty() || text.contains(&format!("byte {at}")),
            "{what}: {text}"
        );
    }
}

#[test]
fn the_number_of_interfaces_is_bounded() {
    let blocks = Blocks(Order::Little);
    let file = [
        blocks.section(),
        blocks.interface(1, 0, &[]).repeat(INTERFACES_OVER),
    ]
    .concat();
    assert!(matches!(
        whole(&file).1,
        Some(PcapError::Length { value: 1025, .. })
    ));
}

const INTERFACES_OVER: usize = 1025;

fn whole(bytes: &[u8]) -> (Vec<Packet>, Option<PcapError>) {
    let mut packets = Vec::new();
    let mut reader = Packets::new(bytes, Path::new(PATH));
    for packet in reader.by_ref() {
        match packet {
            Ok(packet) => packets.push(packet),
            Err(error) => {
                assert!(reader.next().is_none(), "a fault is the last item");
                return (packets, Some(error));
            }
        }
    }
    (packets, None)
}

/// Seconds, fraction, bytes, and how long the packet was.
type Caught<'p> = (u32, u32, &'p [u8], u32);

fn classic(order: Order, magic: u32, link: u32, packets: &[Caught<'_>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [magic, 0x0002_0004, 0, 0, 65_535, link] {
        file.extend(word.to_bytes(order));
    }
    for (second, fraction, bytes, whole) in packets {
        for word in [*second, *fraction, bytes.len() as u32, *whole] {
            file.extend(word.to_bytes(order));
        }
        file.extend(*bytes);
    }
    file
}

struct Blocks(Order);

impl Blocks {
    fn block(&self, kind: u32, body: &[u8]) -> Vec<u8> {
        let mut block = kind.to_bytes(self.0);
        let length = (body.len().next_multiple_of(4) as u32 + 12).to_bytes(self.0);
        block.extend(&length);
        block.extend(body);
        block.resize(8 + body.len().next_multiple_of(4), 0);
        block.extend(&length);
        block
    }

    fn section(&self) -> Vec<u8> {
        let mut body = 0x1a2b_3c4d_u32.to_bytes(self.0);
        body.extend([0; 12]);
        self.block(0x0a0d_0d0a, &body)
    }

    fn interface(&self, link: u32, snap: u32, options: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = match self.0 {
            Order::Little => link.to_le_bytes().to_vec(),
            Order::Big => (link << 16).to_be_bytes().to_vec(),
        };
        body.extend(snap.to_bytes(self.0));
        for (code, value) in options {
            body.extend(code.to_bytes(self.0));
            body.extend((value.len() as u16).to_bytes(self.0));
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        self.block(1, &body)
    }

    fn enhanced(&self, interface: u32, units: u64, bytes: &[u8], whole: u32) -> Vec<u8> {
        let mut body = Vec::new();
        let (high, low) = ((units >> 32) as u32, units as u32);
        for word in [interface, high, low, bytes.len() as u32, whole] {
            body.extend(word.to_bytes(self.0));
        }
        body.extend(bytes);
        self.block(6, &body)
    }
}

trait ToBytes {
    fn to_bytes(self, order: Order) -> Vec<u8>;
}

impl ToBytes for u16 {
    fn to_bytes(self, order: Order) -> Vec<u8> {
        match order {
            Order::Big => self.to_be_bytes().to_vec(),
            Order::Little => self.to_le_bytes().to_vec(),
        }
    }
}

impl ToBytes for u32 {
    fn to_bytes(self, order: Order) -> Vec<u8> {
        match order {
            Order::Big => self.to_be_bytes().to_vec(),
            Order::Little => self.to_le_bytes().to_vec(),
        }
    }
}

impl ToBytes for i64 {
    fn to_bytes(self, order: Order) -> Vec<u8> {
        match order {
            Order::Big => self.to_be_bytes().to_vec(),
            Order::Little => self.to_le_bytes().to_vec(),
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        magic in prop::sample::select(vec![
            vec![], vec![0xa1, 0xb2, 0xc3, 0xd4], vec![0x4d, 0x3c, 0xb2, 0xa1],
            vec![0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a],
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        whole(&[magic, bytes].concat());
    }

    #[test]
    fn no_change_of_a_good_file_makes_it_panic(
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..8),
        length in 0_usize..240,
    ) {
        let blocks = Blocks(Order::Little);
        for mut file in [
            classic(Order::Little, MAGIC_MICROSECONDS, 1, &[(1, 0, b"first", 5), (2, 0, b"second", 6)]),
            [
                blocks.section(),
                blocks.interface(1, 0, &[(9, vec![6])]),
                blocks.enhanced(0, 1, b"first", 5),
                blocks.enhanced(0, 2, b"second", 6),
            ].concat(),
        ] {
            for &(at, byte) in &changes {
                if let Some(place) = file.get_mut(at) {
                    *place = byte;
                }
            }
            file.truncate(length);
            whole(&file);
        }
    }
}
