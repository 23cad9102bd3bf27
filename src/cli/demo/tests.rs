use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use jiff::tz::TimeZone;

use super::*;
use crate::decode::net::{NetDecoder, Viewpoint, craft};
use crate::decode::{Decoder, Format, LinkType, Surroundings, for_format};
use crate::event::field::{self, FieldId, Fields};
use crate::record::{FileId, Position, Record};
use crate::source::pcap::Packets;

const RECORDING_BYTES_MAX: usize = 64 * 1024;
const SCANNER: &str = "203.0.113.66";
const SERVER: &str = "192.0.2.10";
const CLIENT: &str = "192.0.2.25";
const RESOLVER: &str = "192.0.2.53";
const TUNNEL: &str = "t.cap-nhat.example";

/// With CANHGAC_REGENERATE set it writes the recording anew; look at what changed before you commit it.
#[test]
fn the_recording_is_what_the_generator_makes() {
    let made = recording();
    assert!(made.len() <= RECORDING_BYTES_MAX, "{} bytes", made.len());
    if std::env::var_os("CANHGAC_REGENERATE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/demo/attack.pcap");
        std::fs::write(path, &made).unwrap();
    }
    assert!(made == ATTACK, "set CANHGAC_REGENERATE=1 to write it anew");
}

#[test]
fn the_recording_ends_now_and_keeps_its_pace() {
    let now: Timestamp = "2026-11-22T14:12:01.5Z".parse().unwrap();
    let times = |file: &[u8]| -> Vec<Timestamp> {
        let packets = Packets::new(file, Path::new("demo"));
        packets
            .map(|packet| packet.unwrap().time.unwrap())
            .collect()
    };
    let (then, moved) = (times(ATTACK), times(&pcap(now)));
    assert_eq!(moved.iter().max(), Some(&now));
    assert!(moved.windows(2).all(|pair| pair[0] <= pair[1]));
    assert!(now.duration_since(moved[0]) < SignedDuration::from_mins(2));
    let steps = |times: &[Timestamp]| -> Vec<SignedDuration> {
        times
            .windows(2)
            .map(|pair| pair[1].duration_since(pair[0]))
            .collect()
    };
    assert_eq!(steps(&then), steps(&moved));
}

#[test]
fn the_recording_holds_a_scan_a_tunnel_and_a_lookup_of_a_pool() {
    let now = "2026-11-22T14:12:01Z".parse().unwrap();
    let file = FileId {
        device: 0,
        inode: 0,
        head: 0,
    };
    let mut decoder = NetDecoder::new(LinkType(1), Viewpoint::Elsewhere);
    let (mut ports, mut tunnelled, mut names) = (BTreeSet::new(), 0, BTreeSet::new());
    for packet in Packets::new(&pcap(now)[..], Path::new("demo")) {
        let record = packet.unwrap().record(file);
        let decoded = decoder.decode(&record, &Fields::default(), &mut |event| {
            let text = |id: FieldId| event.get(id).map(|value| value.lossy()).unwrap_or_default();
            if text(field::SOURCE_IP) == SCANNER {
                ports.insert(text(field::DESTINATION_PORT));
            }
            let name = text(field::DNS_QUERY);
            if name.ends_with(TUNNEL) && !event.has(field::DNS_RCODE) {
                tunnelled += 1;
            }
            names.insert(name);
        });
        assert_eq!(decoded, Ok(()));
    }
    assert!(ports.len() >= 60, "{} ports", ports.len());
    assert!(tunnelled >= 40, "{tunnelled} queries");
    assert!(names.contains("stratum.pool.example"), "{names:?}");
}

#[test]
fn every_line_has_the_times_and_the_host_of_now() {
    let now: Timestamp = "2026-11-22T14:12:01Z".parse().unwrap();
    let logs = lines(now, "may-chu-1");
    let files: Vec<_> = logs.iter().map(|(file, _)| *file).collect();
    assert_eq!(files, ["auth.log", "syslog", "access.log"]);
    for (file, log) in &logs {
        assert!(log.lines().count() >= 5, "{file}");
        for line in log.lines() {
            assert!(
                !line.contains(['{', '}']) || line.contains("${jndi:"),
                "{line}"
            );
            let (at, format, is_here) = match *file {
                "access.log" => {
                    let (_, rest) = line.split_once('[').expect(line);
                    (
                        rest.split(']').next().unwrap(),
                        "%d/%b/%Y:%H:%M:%S %z",
                        true,
                    )
                }
                _ => {
                    let (time, rest) = line.split_once(' ').expect(line);
                    (
                        time,
                        "%Y-%m-%dT%H:%M:%S%.f%:z",
                        rest.starts_with("may-chu-1 "),
                    )
                }
            };
            assert!(is_here, "{line}");
            let at = jiff::fmt::strtime::parse(format, at)
                .unwrap()
                .to_timestamp()
                .unwrap();
            let ago = now.duration_since(at);
            assert!((0..300).contains(&ago.as_secs()), "{line}: {ago}");
        }
    }
    let auth = &logs[0].1;
    assert!(auth.matches("Failed password").count() >= 12);
    assert!(auth.contains("Accepted password"));
}

#[test]
fn every_line_is_understood_by_the_decoders() {
    let now = "2026-11-22T14:12:01Z".parse().unwrap();
    let around = Surroundings::of(TimeZone::UTC);
    let mut sources = BTreeSet::new();
    for (file, log) in lines(now, "may-chu-1") {
        let mut decoder = for_format(Format::Auto, &around);
        for line in log.lines() {
            let record = Record {
                position: Position::Cursor(file.into()),
                read_at: now,
                bytes: line.to_owned().into(),
                cut: false,
            };
            let mut count = 0;
            let outcome = decoder.decode(&record, &Fields::default(), &mut |event| {
                count += 1;
                assert!(event.time.is_some(), "{line}");
                let services = event.logsources.services.iter();
                sources.extend(services.map(ToString::to_string));
                sources.extend(event.logsources.categories.iter().map(ToString::to_string));
            });
            assert_eq!((outcome, count), (Ok(()), 1), "{line}");
        }
    }
    for source in ["sshd", "sudo", "cron", "webserver"] {
        assert!(sources.contains(source), "no {source} among {sources:?}");
    }
}

/// Packets with their times, and how they become a file.
#[derive(Default)]
struct Tape {
    file: Vec<u8>,
    microseconds: u64,
}

impl Tape {
    /// The first packet stands at the year's beginning.
    const START: u64 = 1_767_225_600 * 1_000_000;

    fn begin() -> Self {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
            file.extend(word.to_le_bytes());
        }
        Self {
            file,
            microseconds: Self::START,
        }
    }

    fn add(&mut self, later_microseconds: u64, packet: &[u8]) {
        self.microseconds += later_microseconds;
        let length = packet.len() as u32;
        let second = (self.microseconds / 1_000_000) as u32;
        for word in [
            second,
            (self.microseconds % 1_000_000) as u32,
            length,
            length,
        ] {
            self.file.extend(word.to_le_bytes());
        }
        self.file.extend(packet);
    }

    fn lookup(&mut self, id: u16, name: &str, of: u16, answers: &[(u16, Vec<u8>)]) {
        let code = if answers.is_empty() {
            craft::NXDOMAIN
        } else {
            0
        };
        let port = 20_000 + id % 40_000;
        let (client, server) = (end(CLIENT, port), end(RESOLVER, 53));
        self.add(
            300_000,
            &craft::udp(client, server, &craft::query(id, name, of)),
        );
        let answer = craft::response(id, name, of, code, answers);
        self.add(12_000, &craft::udp(server, client, &answer));
    }

    fn knock(&mut self, from_port: u16, port: u16) {
        let (scanner, server) = (end(SCANNER, from_port), end(SERVER, port));
        let sequence = u32::from(from_port) << 12 | u32::from(port);
        let segment = |from, to, flags| {
            craft::tcp(&craft::Segment {
                from,
                to,
                flags,
                sequence,
                payload: b"",
            })
        };
        self.add(60_000, &segment(scanner, server, craft::SYN));
        if [22, 80, 443].contains(&port) {
            self.add(400, &segment(server, scanner, craft::SYN_ACK));
            self.add(300, &segment(scanner, server, craft::RST_ACK));
        } else {
            self.add(400, &segment(server, scanner, craft::RST_ACK));
        }
    }
}

/// Ordinary traffic, a scan of 80 ports in 5 s, ordinary traffic, a tunnel of 48 queries in 15 s, a mining pool.
fn recording() -> Vec<u8> {
    let mut tape = Tape::begin();
    let page = |tape: &mut Tape, id, name: &str, address: [u8; 4], port| {
        tape.lookup(id, name, craft::A, &[(craft::A, address.to_vec())]);
        let server = SocketAddr::new(address.into(), 443);
        let syn = craft::syn(&format!("{CLIENT}:{port}"), &server.to_string(), id.into());
        tape.add(1_000, &syn);
    };
    page(
        &mut tape,
        101,
        "www.example.com",
        [198, 51, 100, 80],
        50_101,
    );
    page(
        &mut tape,
        102,
        "cong-dich-vu.example.vn",
        [198, 51, 100, 81],
        50_102,
    );
    for step in 0..80_u16 {
        tape.knock(
            40_000 + step,
            SCANNED
                .get(usize::from(step))
                .copied()
                .unwrap_or(8_000 + step),
        );
    }
    page(
        &mut tape,
        103,
        "deb.example.org",
        [198, 51, 100, 82],
        50_103,
    );
    let mut noise = Noise(2026);
    for id in 1_000..1_048 {
        let name = format!("{}.{}.{TUNNEL}", noise.hex(56), noise.hex(56));
        let text = noise.hex(120);
        let data = [&[text.len() as u8][..], text.as_bytes()].concat();
        tape.lookup(id, &name, craft::TXT, &[(craft::TXT, data)]);
    }
    tape.lookup(
        2_001,
        "stratum.pool.example",
        craft::A,
        &[(craft::A, vec![198, 51, 100, 99])],
    );
    page(
        &mut tape,
        104,
        "www.example.com",
        [198, 51, 100, 80],
        50_104,
    );
    tape.file
}

/// What a scanner tries first; it goes on from 8,000.
const SCANNED: [u16; 24] = [
    21, 22, 23, 25, 53, 80, 110, 111, 135, 139, 143, 443, 445, 993, 995, 1433, 1521, 3306, 3389,
    5432, 5900, 6379, 8080, 27017,
];

/// A linear congruential generator (Knuth's constants): the same bytes in every build.
struct Noise(u64);

impl Noise {
    fn hex(&mut self, digits: usize) -> String {
        let mut digit = || {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from_digit((self.0 >> 60) as u32, 16).unwrap()
        };
        (0..digits).map(|_| digit()).collect()
    }
}

fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}
