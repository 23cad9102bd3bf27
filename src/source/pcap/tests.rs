use std::fs;
use std::sync::mpsc::{Receiver, sync_channel};

use super::*;

#[test]
fn a_recording_is_handed_on_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcap");
    fs::write(&path, file(300)).unwrap();
    let played = play(&path, Vec::new());
    assert_eq!(played.records.len(), 300);
    let offsets: Vec<u64> = played.records.iter().map(offset).collect();
    let expected: Vec<u64> = (0..300).map(|n| 24 + n * 20).collect();
    assert_eq!(offsets, expected);
    assert_eq!(played.chunks, [256, 44]);
    assert_eq!(
        played.records[3].read_at,
        Timestamp::from_second(3).unwrap()
    );
    assert_eq!(played.records[3].bytes[..], 3_u32.to_be_bytes());
    assert_eq!(played.fault, None);
}

#[test]
fn a_recording_that_was_read_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcap");
    fs::write(&path, file(300)).unwrap();
    let first = play(&path, Vec::new());
    for (what, progress, count) in [
        ("to its end", first.progress[1].clone(), 0),
        ("a part", first.progress[0].clone(), 44),
    ] {
        assert_eq!(play(&path, vec![progress]).records.len(), count, "{what}");
    }
    let end = first.progress[1].clone();
    let mut longer = fs::OpenOptions::new().append(true).open(&path).unwrap();
    std::io::Write::write_all(&mut longer, &file(302)[file(300).len()..]).unwrap();
    assert_eq!(
        play(&path, vec![end.clone()]).records.len(),
        2,
        "it has grown"
    );

    let mut other = file(300);
    other[24] = 9; // the first packet's time
    fs::write(&path, other).unwrap();
    assert_eq!(
        play(&path, vec![end]).records.len(),
        300,
        "another in its place"
    );
}

#[test]
fn a_cut_is_told_and_what_came_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcap");
    let whole = file(3);
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let played = play(&path, Vec::new());
    assert_eq!(played.records.len(), 2);
    assert_eq!(
        played.fault.as_deref(),
        Some("cut in the middle of a packet, which begins at byte 64")
    );
}

#[test]
fn a_missing_recording_is_told() {
    let played = play(Path::new("/nonexistent/a.pcap"), Vec::new());
    let fault = played.fault.unwrap();
    assert!(
        fault.starts_with("cannot read /nonexistent/a.pcap: No such file"),
        "{fault}"
    );
}

struct Played {
    records: Vec<Record>,
    chunks: Vec<usize>,
    progress: Vec<Progress>,
    fault: Option<String>,
}

fn play(path: &Path, streams: Vec<Progress>) -> Played {
    let config = Config {
        path: path.to_owned(),
    };
    let metrics = AgentMetrics::default();
    let source = Pcap::new(&config, &metrics);
    let (sender, receiver): (_, Receiver<Inflow>) = sync_channel(64);
    let health = Health::default();
    let from = Resume {
        streams,
        start: 1,
        first: false,
    };
    let out = Outlet::new(vec![sender]);
    Box::new(source)
        .run(from, &out, &Stop::default(), &health)
        .unwrap();
    drop(out);
    let mut played = Played {
        records: Vec::new(),
        chunks: Vec::new(),
        progress: Vec::new(),
        fault: health.beat().into_iter().find_map(|source| source.fault),
    };
    for inflow in receiver {
        assert_eq!(inflow.stream.kind, KIND);
        assert_eq!(inflow.stream.format, Format::Packet(LinkType(1)));
        played.chunks.push(inflow.records.len());
        played.records.extend(inflow.records);
        played.progress.push(Progress {
            source: inflow.stream.id.clone(),
            mark: inflow.mark.unwrap(),
            held: Vec::new(),
        });
    }
    played
}

fn offset(record: &Record) -> u64 {
    match record.position {
        Position::Offset { offset, .. } => offset,
        ref other => panic!("{other:?}"),
    }
}

/// Packets of four bytes, one a second from 0.
fn file(count: u32) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0002_0004, 0, 0, 65_535, 1] {
        file.extend(word.to_be_bytes());
    }
    for number in 0..count {
        for word in [number, 0, 4, 4, number] {
            file.extend(word.to_be_bytes());
        }
    }
    file
}
