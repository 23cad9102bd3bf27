use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use super::*;
use crate::decode::net::packet::{self, Transport};
use crate::decode::net::{NetDecoder, Viewpoint, craft};
use crate::decode::{Decoder, Format};
use crate::event::field::{self, Fields};
use crate::source::SourceHealth;

/// More than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn the_loopback_is_among_the_interfaces() {
    let all = available();
    let lo = all.iter().find(|interface| interface.loopback);
    let Some(lo) = lo else {
        return assert!(all.is_empty(), "no loopback among {all:?}");
    };
    assert!(lo.addresses.iter().all(IpAddr::is_loopback), "{lo:?}");
}

#[test]
fn the_line_to_type_survives_a_shell() {
    for (path, line) in [
        (
            "/usr/bin/canhgac",
            "sudo setcap cap_net_raw+ep /usr/bin/canhgac",
        ),
        ("/home/a b/c", "sudo setcap cap_net_raw+ep '/home/a b/c'"),
        ("/it's/c", r"sudo setcap cap_net_raw+ep '/it'\''s/c'"),
    ] {
        let missing = CapabilityMissing(Executable(path.into()));
        assert_eq!(missing.remedy(), line);
        assert_eq!(
            missing.to_string(),
            format!("packets can't be captured without CAP_NET_RAW: {line}")
        );
    }
}

#[test]
fn retries_wait_longer_each_time_and_tell_a_fault_once() {
    let mut retry = Retry::default();
    let mut delays = || retry.next_delay().as_secs();
    assert_eq!([delays(), delays(), delays(), delays()], [1, 2, 4, 8]);
    for _ in 0..100 {
        assert!(retry.next_delay() <= RETRY_MAX);
    }
    assert!(retry.is_new("down"));
    assert!(!retry.is_new("down"));
    assert!(retry.is_new("gone"));
    retry.lasted(Duration::from_secs(1));
    assert!(retry.is_new("gone"), "it worked in between");
    assert_eq!(retry.next_delay(), RETRY_MAX, "an interface that flaps");
    retry.lasted(RETRY_MAX + Duration::from_secs(1));
    assert_eq!(retry.next_delay(), RETRY);
}

#[test]
fn packets_are_kept_to_the_snap_length_and_numbered() {
    let mut chunk = Chunk::new(7);
    chunk.open(&SourceId::new("capture:x"), LinkType(1));
    assert!(!chunk.is_due());
    for packet in [&b"0123456789"[..], b"0123"] {
        chunk.add(packet, 4);
    }
    let (stream, records) = chunk.take().unwrap();
    assert_eq!(
        (stream.kind, stream.format),
        (KIND, Format::Packet(LinkType(1)))
    );
    let seen: Vec<_> = records
        .iter()
        .map(|record| (&record.bytes[..], record.cut, record.position.to_string()))
        .collect();
    assert_eq!(
        seen,
        [
            (&b"0123"[..], true, "7.0".into()),
            (b"0123", false, "7.1".into())
        ]
    );
    assert!(chunk.take().is_none());
    for _ in 0..RECORDS_MAX {
        chunk.add(b"", 4);
    }
    assert!(chunk.is_due());
    assert_eq!(chunk.take().unwrap().1[0].position.to_string(), "7.2");
    chunk.add(&[0; INFLOW_BYTES_MAX], INFLOW_BYTES_MAX);
    assert!(chunk.is_due());
}

#[test]
fn every_hardware_whose_packets_can_be_read_has_a_link_type() {
    for (hardware, link) in [
        (1, Some(1)),
        (772, Some(1)),
        (65_534, Some(101)),
        (801, None),
    ] {
        assert_eq!(link_type(hardware), link.map(LinkType), "{hardware}");
    }
}

#[test]
fn an_interface_that_is_not_there_is_told_and_waited_for() {
    let running = Running::start("cg-absent", 16);
    running.wait_for("a fault", |health| {
        health.fault.as_deref() == Some("interface cg-absent is not there")
    });
    running.stop();
}

#[test]
fn a_full_queue_drops_and_counts() {
    let Some(()) = may_capture("a full queue") else {
        return;
    };
    let running = Running::start("lo", 1);
    let dropped = running.metrics.drops.with_label_values(&[KIND, "queue"]);
    let deadline = Instant::now() + PATIENCE;
    while dropped.get() == 0 {
        assert!(Instant::now() < deadline, "nothing was dropped");
        ask("full.queue.example");
    }
    running.stop();
}

#[test]
fn packets_on_the_loopback_become_events_each_once() {
    let Some(()) = may_capture("the loopback") else {
        return;
    };
    let running = Running::start("lo", 1024);
    let mut watcher = Watcher::default();
    watcher.until(&running, "the capture to begin", |watcher| {
        ask("canhgac-begin.example");
        watcher.counts("canhgac-begin.example").0 > 0
    });
    ask("canhgac-once.example");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let client = std::net::TcpStream::connect(server).unwrap();
    let ports = format!(
        "{} to {}",
        client.local_addr().unwrap().port(),
        server.port()
    );
    watcher.until(&running, "both to be seen twice", |watcher| {
        watcher.packets_of(&ports) >= 2 && watcher.counts("canhgac-once.example").1 >= 2
    });
    running.stop();
    assert_eq!(watcher.counts("canhgac-once.example").0, 1, "one question");
    assert_eq!(
        watcher
            .events
            .iter()
            .filter(|event| **event == ports)
            .count(),
        1
    );
}

#[test]
fn an_interface_may_go_and_come_back() {
    let Some(()) = may_capture("an interface that goes") else {
        return;
    };
    let name = format!("cg{}", std::process::id() % 1_000_000);
    let peer = format!("{name}p");
    let ip = |words: &[&str]| {
        let status = Command::new("ip").args(words).output();
        status.is_ok_and(|output| output.status.success())
    };
    let make = || ip(&["link", "add", &name, "type", "veth", "peer", "name", &peer]);
    let up = || ip(&["link", "set", &name, "up"]) && ip(&["link", "set", &peer, "up"]);
    if !make() {
        // Takes CAP_NET_ADMIN and iproute2 besides.
        return eprintln!("SKIPPED an interface that goes: this machine makes no veth pair");
    }
    let running = Running::start(&name, 64);
    let faults = |text: &'static str| {
        move |health: &SourceHealth| health.fault.as_deref().is_some_and(|f| f.contains(text))
    };
    running.wait_for("down", faults("is down"));
    assert!(up());
    running.wait_for("up", |health| health.fault.is_none());
    assert!(ip(&["link", "del", &name]));
    running.wait_for("gone", faults("is not there"));
    assert!(make() && up());
    running.wait_for("back", |health| health.fault.is_none());
    running.stop();
    assert!(ip(&["link", "del", &name]));
}

struct Running {
    stop: Stop,
    health: Health,
    metrics: AgentMetrics,
    receiver: Receiver<Inflow>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start(interface: &str, queue: usize) -> Self {
        let config = Config {
            interface: interface.to_owned(),
            ..Config::default()
        };
        let (stop, health, metrics) = (Stop::default(), Health::default(), AgentMetrics::default());
        let (sender, receiver) = sync_channel(queue);
        let source = Box::new(Capture::new(&config, &metrics));
        let (its_stop, its_health) = (stop.clone(), health.clone());
        let thread = thread::spawn(move || {
            let from = Resume {
                streams: Vec::new(),
                start: 1,
                first: true,
            };
            let out = Outlet::new(vec![sender]);
            source.run(from, &out, &its_stop, &its_health).unwrap();
        });
        Self {
            stop,
            health,
            metrics,
            receiver,
            thread,
        }
    }

    fn wait_for(&self, what: &str, holds: impl Fn(&SourceHealth) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.health.beat().iter().any(&holds) {
            assert!(
                Instant::now() < deadline,
                "not {what}: {:?}",
                self.health.beat()
            );
            thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn stop(self) {
        self.stop.stop();
        let stopped = Instant::now();
        self.thread.join().unwrap();
        assert!(stopped.elapsed() < PATIENCE);
    }
}

/// What came of the packets on `lo`, other programs' among them.
struct Watcher {
    decoder: NetDecoder,
    fields: Fields,
    /// Queries, and starts as "port to port".
    events: Vec<String>,
    packets: Vec<Vec<u8>>,
}

impl Default for Watcher {
    fn default() -> Self {
        Self {
            decoder: NetDecoder::new(LinkType(1), Viewpoint::Host(Arc::default())),
            fields: Fields::default(),
            events: Vec::new(),
            packets: Vec::new(),
        }
    }
}

impl Watcher {
    fn until(&mut self, running: &Running, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            if let Ok(inflow) = running.receiver.recv_timeout(WAIT) {
                inflow.records.iter().for_each(|record| self.watch(record));
            }
        }
    }

    fn watch(&mut self, record: &Record) {
        self.packets.push(record.bytes.to_vec());
        let events = &mut self.events;
        // Other programs' packets may be anything.
        let _ = self.decoder.decode(record, &self.fields, &mut |event| {
            let text = |id| event.get(id).map(|value| value.lossy());
            let ports = format!(
                "{} to {}",
                text(field::SOURCE_PORT).unwrap_or_default(),
                text(field::DESTINATION_PORT).unwrap_or_default()
            );
            events.push(text(field::DNS_QUERY).unwrap_or(ports));
        });
    }

    /// Events of a name, and packets of it.
    fn counts(&self, name: &str) -> (usize, usize) {
        let label = name.split('.').next().unwrap().as_bytes();
        let holds = |packet: &&Vec<u8>| packet.windows(label.len()).any(|window| window == label);
        (
            self.events.iter().filter(|event| *event == name).count(),
            self.packets.iter().filter(holds).count(),
        )
    }

    /// SYNs between two ports.
    fn packets_of(&self, ports: &str) -> usize {
        let of = |bytes: &&Vec<u8>| {
            let Ok(Some(packet)) = packet::read(LinkType(1), bytes) else {
                return false;
            };
            let Transport::Tcp(tcp) = packet.transport else {
                return false;
            };
            tcp.flags.starts()
                && format!("{} to {}", tcp.source_port, tcp.destination_port) == ports
        };
        self.packets.iter().filter(of).count()
    }
}

/// Sends a DNS query to the loopback, where nobody need answer.
fn ask(name: &str) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let query = craft::query(1, name, 1);
    // Refused, when the one before was.
    let _ = socket.send_to(&query, "127.0.0.1:53");
}

fn may_capture(what: &str) -> Option<()> {
    match permitted() {
        Ok(())
            if available()
                .iter()
                .any(|interface| interface.name == "lo" && interface.up) =>
        {
            Some(())
        }
        Ok(()) => {
            skip(&format!("{what}: no loopback that is up"));
            None
        }
        Err(missing) => {
            skip(&format!("{what}: {missing}"));
            None
        }
    }
}

/// A machine of one's own may lack the right; in CI, who has it must be found to have it.
fn skip(what: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!(is_ci && has_capability()), "not tested: {what}");
    eprintln!("SKIPPED {what}");
}

/// capabilities(7): CAP_NET_RAW is bit 13 of the effective set.
fn has_capability() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set & 1 << 13 != 0)
}
