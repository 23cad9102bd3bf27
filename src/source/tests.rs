use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, sync_channel};

use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::record::Position;
use crate::source::health::{OTHERS, SOURCES_MAX};

fn inflow(id: &str, records: usize) -> Inflow {
    let record = |number| Record {
        position: Position::Counter { start: 1, number },
        read_at: Timestamp::UNIX_EPOCH,
        bytes: Bytes::new(),
        cut: false,
    };
    Inflow {
        stream: Arc::new(Stream {
            id: SourceId::new(id),
            kind: "file",
            format: Format::Auto,
        }),
        records: (0..records as u64).map(record).collect(),
        mark: None,
    }
}

fn outlet(workers: usize, room: usize) -> (Outlet, Vec<Receiver<Inflow>>) {
    let (senders, inlets) = (0..workers).map(|_| sync_channel(room)).unzip();
    (Outlet::new(senders), inlets)
}

#[test]
fn streams_of_one_name_go_to_one_worker_and_names_to_all() {
    let (outlet, _inlets) = outlet(4, 1);
    let mut used = [false; 4];
    for number in 0..64 {
        let worker = |kind: &str| outlet.worker(&SourceId::new(&format!("{kind}:/log/{number}")));
        assert_eq!(worker("file"), worker("file.2"), "{number}");
        used[worker("file")] = true;
    }
    assert_eq!(used, [true; 4]);
}

#[test]
fn a_full_queue_drops_and_says_how_much_or_gives_back() {
    let (outlet, inlets) = outlet(1, 1);
    assert_eq!(outlet.send(inflow("a", 3), Overflow::Drop), Ok(Sent::Taken));
    assert_eq!(
        outlet.send(inflow("a", 5), Overflow::Drop),
        Ok(Sent::Dropped(5))
    );
    let refused = outlet.offer(inflow("a", 7));
    assert!(matches!(refused, Err(Refused::Full(inflow)) if inflow.records.len() == 7));
    drop(inlets);
    assert_eq!(outlet.send(inflow("a", 1), Overflow::Drop), Err(Closed));
    assert_eq!(outlet.send(inflow("a", 1), Overflow::Wait), Err(Closed));
}

#[test]
fn a_waiting_sender_goes_on_when_there_is_room() {
    let (outlet, inlets) = outlet(1, 1);
    let sender = std::thread::spawn(move || {
        (0..20).try_for_each(|_| outlet.send(inflow("a", 1), Overflow::Wait).map(|_| ()))
    });
    assert_eq!(inlets[0].iter().count(), 20);
    assert_eq!(sender.join().unwrap(), Ok(()));
}

#[test]
fn an_outlet_without_workers_is_closed() {
    let outlet = Outlet::new(Vec::new());
    assert_eq!(outlet.send(inflow("a", 1), Overflow::Wait), Err(Closed));
}

#[test]
fn a_stop_wakes_all_that_asked_before_and_after() {
    let (stop, woken) = (Stop::default(), Arc::new(AtomicUsize::new(0)));
    let waker = || {
        let woken = Arc::clone(&woken);
        Box::new(move || {
            woken.fetch_add(1, Ordering::SeqCst);
        })
    };
    stop.on_stop(waker());
    assert!(!stop.is_set());
    stop.clone().stop();
    assert!(stop.is_set());
    stop.on_stop(waker());
    assert_eq!(woken.load(Ordering::SeqCst), 2);
}

#[test]
fn a_beat_tells_each_source_and_counts_anew() {
    let (health, a, b) = (Health::default(), SourceId::new("a"), SourceId::new("b"));
    let at = |second| Timestamp::from_second(second).unwrap();
    health.records(&a, 2, at(5));
    health.records(&a, 3, at(4));
    health.fault(&b, Some("denied".into()));
    health.note(&b, Some("polled".into()));
    let told = health.beat();
    assert_eq!(told[0].records, 5);
    assert_eq!(told[0].last_event, Some(at(5)));
    assert_eq!(told[0].fault, None);
    assert_eq!(told[1].fault.as_deref(), Some("denied"));
    assert_eq!(told[1].note.as_deref(), Some("polled"));
    health.fault(&b, None);
    let told = health.beat();
    assert_eq!((told[0].records, told[0].last_event), (0, Some(at(5))));
    assert_eq!(told[1].fault, None);
}

#[test]
fn a_source_that_ended_is_told_once_more() {
    let (health, a) = (Health::default(), SourceId::new("a"));
    health.records(&a, 2, Timestamp::UNIX_EPOCH);
    health.forget(&a);
    assert_eq!(health.beat()[0].records, 2);
    assert_eq!(health.beat(), []);
    health.forget(&SourceId::new("never known"));
    health.fault(&SourceId::new("never known"), None);
    assert_eq!(health.beat(), []);
}

#[test]
fn sources_beyond_the_limit_are_told_together() {
    let health = Health::default();
    for number in 0..SOURCES_MAX + 50 {
        let id = SourceId::new(&format!("{number:04}"));
        health.records(&id, 1, Timestamp::UNIX_EPOCH);
        health.fault(&id, (number > SOURCES_MAX).then(|| number.to_string()));
    }
    let told = health.beat();
    assert_eq!(told.len(), SOURCES_MAX + 1);
    let others = told.last().unwrap();
    assert_eq!((others.name.as_str(), others.records), (OTHERS, 50));
    assert_eq!(others.fault.as_deref(), Some("249"));
    assert_eq!(health.beat().last().unwrap().fault, None);
}

#[test]
fn a_file_entry_needs_a_path_that_is_a_pattern() {
    for (text, fault) in [
        (
            "file: [{path: /var/log/*.log, decode: json, from: begin}]",
            "",
        ),
        ("file: [{path: /var/log/a, exclude: ['*.gz']}]", ""),
        ("file: [{decode: json}]", "missing field `path`"),
        ("file: [{path: ''}]", "the path is empty"),
        ("file: [{path: '/a/[b'}]", "invalid pattern \"/a/[b\""),
        (
            "file: [{path: /a, exclude: ['***']}]",
            "invalid pattern \"***\"",
        ),
        ("file: [{path: /a, form: begin}]", "unknown field `form`"),
        (
            "file: [{path: /a, from: middle}]",
            "unknown variant `middle`",
        ),
    ] {
        let read: Result<Config, _> = serde_yaml::from_str(text);
        let told = read
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        assert!(
            told.contains(fault) && fault.is_empty() == told.is_empty(),
            "{text}: {told}"
        );
    }
    let sources = open(
        &serde_yaml::from_str("file: [{path: /a}, {path: /b}]").unwrap(),
        &AgentMetrics::default(),
    );
    assert_eq!(sources.len(), 1);
}
