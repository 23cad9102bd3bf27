//! Live packets of one interface, by pnet. Drops what the workers can't take, and counts it; what the kernel drops
//! before that, pnet cannot tell.

pub mod tally;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use jiff::Timestamp;
use pnet::datalink::{self, Channel, DataLinkReceiver, NetworkInterface};
use serde::Deserialize;
use thiserror::Error;
use tracing::{info, warn};

use crate::decode::{Format, LinkType};
use crate::metrics::AgentMetrics;
use crate::record::{Mark, Position, Record, SourceId};
use crate::source::capture::tally::{Tally, told};
use crate::source::{Closed, Health, INFLOW_BYTES_MAX, Inflow, Outlet, Overflow, Resume, Sent};
use crate::source::{Source, SourceError, Stop, Stream};

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub interface: String,
    /// Bytes kept of a packet.
    pub snap: usize,
}

impl Default for Config {
    /// 4,096 bytes: what a DNS answer over UDP may have (RFC 6891 6.2.5); nothing longer is read yet.
    fn default() -> Self {
        Self {
            interface: String::new(),
            snap: 4096,
        }
    }
}

/// An interface of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub up: bool,
    pub loopback: bool,
    pub addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("packets can't be captured without CAP_NET_RAW: {}", .0.line())]
pub struct CapabilityMissing(Executable);

/// Where this program lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Executable(PathBuf);

#[derive(Debug, Error)]
enum CaptureError {
    #[error(transparent)]
    Missing(#[from] CapabilityMissing),
    #[error("interface {0} is not there")]
    Absent(String),
    #[error("interface {0} is down")]
    Down(String),
    #[error("interface {name} has link type {hardware}, which is not supported")]
    Hardware { name: String, hardware: u16 },
    #[error("cannot capture on {name}")]
    Socket {
        name: String,
        #[source]
        error: io::Error,
    },
}

/// The label of metrics.
pub const KIND: &str = "capture";

/// A GSO packet is up to 64 KiB and its header; pnet cuts silently at its buffer's end.
const READ_BUFFER_BYTES: usize = 65_536 + 64;
/// So often `stop` is looked at, and so long a packet waits for others to be handed on with it.
const WAIT: Duration = Duration::from_millis(100);
const RECORDS_MAX: usize = 64;
/// 64 packets of the mean of mixed traffic, 271 bytes, in one allocation.
const BUFFER_BYTES: usize = 16 * 1024;
/// An interface that comes back is heard again within half a minute.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Captures on one interface.
pub struct Capture {
    config: Config,
    metrics: AgentMetrics,
}

/// Returns the interfaces of this host.
pub fn available() -> Vec<Interface> {
    datalink::interfaces()
        .iter()
        .map(|interface| Interface {
            name: interface.name.clone(),
            up: interface.is_up(),
            loopback: interface.is_loopback(),
            addresses: interface.ips.iter().map(|network| network.ip()).collect(),
        })
        .collect()
}

/// Returns whether this process may capture: by doing it, since a user namespace may say one thing and mean another.
///
/// # Errors
/// When it may not; the message ends with the line to type.
pub fn permitted() -> Result<(), CapabilityMissing> {
    let Some(interface) = datalink::interfaces().into_iter().next() else {
        return Ok(());
    };
    match open(&interface) {
        Err(error) if is_refusal(&error) => Err(CapabilityMissing::here()),
        _ => Ok(()),
    }
}

impl CapabilityMissing {
    fn here() -> Self {
        let path = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/canhgac".into());
        Self(Executable(path))
    }

    /// Returns the line to type.
    pub fn remedy(&self) -> String {
        self.0.line()
    }
}

impl Executable {
    fn line(&self) -> String {
        let path = self.0.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
        if path.chars().all(plain) {
            format!("sudo setcap cap_net_raw+ep {path}")
        } else {
            format!(
                "sudo setcap cap_net_raw+ep '{}'",
                path.replace('\'', r"'\''")
            )
        }
    }
}

impl Capture {
    pub fn new(config: &Config, metrics: &AgentMetrics) -> Self {
        Self {
            config: config.clone(),
            metrics: metrics.clone(),
        }
    }

    fn id(&self) -> SourceId {
        SourceId::new(&format!("capture:{}", self.config.interface))
    }

    /// Finds the interface anew: its index changes when it goes and comes back.
    fn open(&self) -> Result<(LinkType, Box<dyn DataLinkReceiver>), CaptureError> {
        let name = || self.config.interface.clone();
        let interface = datalink::interfaces()
            .into_iter()
            .find(|interface| interface.name == self.config.interface)
            .ok_or_else(|| CaptureError::Absent(name()))?;
        if !interface.is_up() {
            return Err(CaptureError::Down(name()));
        }
        let hardware = hardware(&interface);
        let link = link_type(hardware).ok_or_else(|| CaptureError::Hardware {
            name: name(),
            hardware,
        })?;
        match open(&interface) {
            Ok(receiver) => Ok((link, receiver)),
            Err(error) if is_refusal(&error) => Err(CapabilityMissing::here().into()),
            Err(error) => Err(CaptureError::Socket {
                name: name(),
                error,
            }),
        }
    }

    /// Reads until `stop` or an error of the interface.
    fn receive(
        &self,
        receiver: &mut dyn DataLinkReceiver,
        chunk: &mut Chunk,
        lines: &Lines<'_>,
    ) -> Result<(), ReceiveError> {
        while !lines.stop.is_set() {
            match receiver.next() {
                Ok(packet) => chunk.add(packet, self.config.snap),
                Err(error) if is_nothing(&error) => {}
                Err(error) => {
                    self.send(chunk, lines)?;
                    return Err(ReceiveError::Interface(CaptureError::Socket {
                        name: self.config.interface.clone(),
                        error,
                    }));
                }
            }
            if chunk.is_due() {
                self.send(chunk, lines)?;
            }
        }
        self.send(chunk, lines)?;
        Ok(())
    }

    fn send(&self, chunk: &mut Chunk, lines: &Lines<'_>) -> Result<(), Closed> {
        let Some((stream, records)) = chunk.take() else {
            return Ok(());
        };
        lines.tally.read(&stream.id, &records);
        let inflow = Inflow {
            stream,
            records,
            mark: Some(Mark::Counter { start: chunk.start }),
        };
        if let Sent::Dropped(dropped) = lines.out.send(inflow, Overflow::Drop)? {
            lines.tally.dropped(dropped);
        }
        Ok(())
    }
}

impl Source for Capture {
    fn name(&self) -> String {
        self.id().to_string()
    }

    fn run(
        self: Box<Self>,
        from: Resume,
        out: &Outlet,
        stop: &Stop,
        health: &Health,
    ) -> Result<(), SourceError> {
        let id = self.id();
        let tally = Tally::new(id.clone(), KIND, &self.metrics, health);
        let mut lines = Lines { out, stop, tally };
        let me = thread::current();
        stop.on_stop(Box::new(move || me.unpark()));
        let mut chunk = Chunk::new(from.start);
        let mut retry = Retry::default();
        while !stop.is_set() {
            let error = match self.open() {
                Ok((link, mut receiver)) => {
                    lines.tally.fault(None);
                    info!(source = %id, link = link.0, "capturing");
                    chunk.open(&id, link);
                    let opened = Instant::now();
                    match self.receive(receiver.as_mut(), &mut chunk, &lines) {
                        Ok(()) => return Ok(()),
                        Err(ReceiveError::Closed(closed)) => return Err(closed.into()),
                        Err(ReceiveError::Interface(error)) => {
                            retry.lasted(opened.elapsed());
                            error
                        }
                    }
                }
                Err(error) => error,
            };
            let text = told(&error);
            // A process does not gain the capability while it runs.
            let ends = matches!(error, CaptureError::Missing(_));
            if retry.is_new(&text) {
                warn!(source = %id, error = text, "cannot capture");
                lines.tally.fault(Some(text));
            }
            if ends {
                return Ok(());
            }
            wait(stop, retry.next_delay());
        }
        Ok(())
    }
}

/// What a running source talks to.
struct Lines<'l> {
    out: &'l Outlet,
    stop: &'l Stop,
    tally: Tally<'l>,
}

#[derive(Debug, Error)]
enum ReceiveError {
    #[error(transparent)]
    Closed(#[from] Closed),
    #[error(transparent)]
    Interface(CaptureError),
}

/// Packets that will be handed on together, copied into one allocation.
struct Chunk {
    start: u64,
    number: u64,
    stream: Option<Arc<Stream>>,
    buffer: BytesMut,
    records: Vec<Record>,
    bytes: usize,
    since: Instant,
}

impl Chunk {
    fn new(start: u64) -> Self {
        Self {
            start,
            number: 0,
            stream: None,
            buffer: BytesMut::new(),
            records: Vec::new(),
            bytes: 0,
            since: Instant::now(),
        }
    }

    /// The number goes on: an interface that came back is the same source.
    fn open(&mut self, id: &SourceId, link: LinkType) {
        self.stream = Some(Arc::new(Stream {
            id: id.clone(),
            kind: KIND,
            format: Format::Packet(link),
        }));
    }

    fn add(&mut self, packet: &[u8], snap: usize) {
        if self.records.is_empty() {
            self.since = Instant::now();
            // The last one is freed when its records are.
            self.buffer = BytesMut::with_capacity(BUFFER_BYTES);
        }
        let kept = packet.get(..snap).unwrap_or(packet);
        self.buffer.extend_from_slice(kept);
        self.bytes += kept.len();
        self.records.push(Record {
            position: Position::Counter {
                start: self.start,
                number: self.number,
            },
            read_at: Timestamp::now(),
            bytes: self.buffer.split().freeze(),
            cut: kept.len() < packet.len(),
        });
        self.number += 1;
    }

    fn is_due(&self) -> bool {
        !self.records.is_empty()
            && (self.records.len() >= RECORDS_MAX
                || self.bytes >= INFLOW_BYTES_MAX
                || self.since.elapsed() >= WAIT)
    }

    fn take(&mut self) -> Option<(Arc<Stream>, Vec<Record>)> {
        if self.records.is_empty() {
            return None;
        }
        let stream = self.stream.clone()?;
        self.bytes = 0;
        Some((stream, std::mem::take(&mut self.records)))
    }
}

/// Waits twice as long each time, until something lasted.
#[derive(Default)]
struct Retry {
    failures: u32,
    last: Option<String>,
}

impl Retry {
    fn next_delay(&mut self) -> Duration {
        let delay = RETRY.saturating_mul(1 << self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        delay.min(RETRY_MAX)
    }

    fn lasted(&mut self, time: Duration) {
        self.last = None;
        if time > RETRY_MAX {
            self.failures = 0;
        }
    }

    /// Told once, not each time.
    fn is_new(&mut self, text: &str) -> bool {
        let new = self.last.as_deref() != Some(text);
        self.last = Some(text.to_owned());
        new
    }
}

fn open(interface: &NetworkInterface) -> io::Result<Box<dyn DataLinkReceiver>> {
    let config = datalink::Config {
        read_buffer_size: READ_BUFFER_BYTES,
        read_timeout: Some(WAIT),
        promiscuous: false,
        ..datalink::Config::default()
    };
    match datalink::channel(interface, config)? {
        Channel::Ethernet(_, receiver) => Ok(receiver),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// ARPHRD_*, linux/if_arp.h. Without /sys: Ethernet, as nearly all are.
fn hardware(interface: &NetworkInterface) -> u16 {
    const ETHER: u16 = 1;
    fs::read_to_string(format!("/sys/class/net/{}/type", interface.name))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(ETHER)
}

/// What a raw socket delivers on hardware of that number.
fn link_type(hardware: u16) -> Option<LinkType> {
    const ETHERNET: LinkType = LinkType(1);
    const RAW: LinkType = LinkType(101);
    match hardware {
        1 | 772 => Some(ETHERNET), // Ethernet, loopback
        // PPP, the tunnels of IPv4 and IPv6 and SIT, and tun devices: IP without a header before it.
        512 | 768 | 769 | 776 | 65_534 => Some(RAW),
        _ => None,
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn wait(stop: &Stop, time: Duration) {
    let end = Instant::now() + time;
    while !stop.is_set()
        && let Some(left) = end.checked_duration_since(Instant::now())
        && !left.is_zero()
    {
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests;
