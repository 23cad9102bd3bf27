//! The kernel's audit trail as it multicasts it, without auditd. A record is written as auditd would write it; behind a
//! 0x1d stand the account's name and the parent's program, which a moment later nobody could tell.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use nix::unistd::{Uid, User};
use serde::Deserialize;
use tracing::{info, warn};

use crate::decode::{self, Format};
use crate::metrics::AgentMetrics;
use crate::record::{Mark, Position, Record, SourceId};
use crate::source::capture::tally::Tally;
use crate::source::netlink::{Group, Heard, Listener};
use crate::source::process;
use crate::source::{
    Closed, Health, Inflow, Outlet, Overflow, Resume, Sent, Source, SourceError, Stop, Stream,
};

/// The audit trail of this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes that the kernel keeps for us; what comes while they are full is lost.
    pub buffer: usize,
}

impl Default for Config {
    /// 8 MiB: some ten thousand records.
    fn default() -> Self {
        Self { buffer: 8 << 20 }
    }
}

/// The label of metrics.
pub const KIND: &str = "audit";
/// MAX_AUDIT_MESSAGE_LENGTH of libaudit, and the header.
const MESSAGE_MAX: usize = 8970 + 16;
/// Records handed on together, and how long one waits for others.
const RECORDS_MAX: usize = 64;
const WAIT: Duration = Duration::from_millis(100);
/// A trail that said nothing for so long after the start has no rules, most likely.
const SILENCE: Duration = Duration::from_secs(60);
/// Accounts whose names are remembered; beyond it they are asked for anew.
const NAMES_MAX: usize = 4096;

const SYSCALL: u16 = 1300;
const EXECVE: u16 = 1309;

/// Reads the trail.
pub struct Audit {
    config: Config,
    metrics: AgentMetrics,
}

impl Audit {
    pub fn new(config: &Config, metrics: &AgentMetrics) -> Self {
        Self {
            config: config.clone(),
            metrics: metrics.clone(),
        }
    }
}

/// The name of this source.
fn id() -> SourceId {
    SourceId::new("audit:kernel")
}

/// Whether the trail may be heard, for `doctor`.
///
/// # Errors
/// When the kernel refuses.
pub fn permitted() -> io::Result<()> {
    Listener::open(Group::AuditLog, Config::default().buffer).map(drop)
}

impl Source for Audit {
    fn name(&self) -> String {
        id().to_string()
    }

    fn run(
        self: Box<Self>,
        from: Resume,
        out: &Outlet,
        stop: &Stop,
        health: &Health,
    ) -> Result<(), SourceError> {
        let mut tally = Tally::new(id(), KIND, &self.metrics, health);
        let listener = match Listener::open(Group::AuditLog, self.config.buffer) {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, "the audit trail can't be heard; it needs CAP_AUDIT_READ");
                tally.fault(Some(format!(
                    "cannot hear the audit trail: {error}; give the service AmbientCapabilities=CAP_AUDIT_READ"
                )));
                return Ok(());
            }
        };
        info!("hearing the kernel's audit trail");
        let stream = Arc::new(Stream {
            id: id(),
            kind: KIND,
            format: Format::Audit,
        });
        let mut batch = Batch::new(stream, from.start, out);
        let mut trail = Trail::default();
        let lost = self.metrics.drops.with_label_values(&[KIND, "kernel"]);
        let mut buffer = vec![0; MESSAGE_MAX];
        let begun = Instant::now();
        let mut is_silent = true;
        while !stop.is_set() {
            match listener.hear(&mut buffer) {
                Ok(Heard::Message { kind, body }) => {
                    if std::mem::take(&mut is_silent) {
                        tally.fault(None);
                    }
                    lost.inc_by(trail.gap(body));
                    batch.add(trail.line(kind, body));
                }
                Ok(Heard::Nothing) => {}
                // How many is told by the gap in the serials that follows.
                Ok(Heard::Lost) => {
                    warn!("the audit trail came faster than it was read; some of it is lost")
                }
                Err(error) => {
                    tally.fault(Some(format!("cannot hear the audit trail: {error}")));
                    return Ok(());
                }
            }
            if is_silent && begun.elapsed() > SILENCE {
                tally.fault(Some(
                    "the audit trail says nothing: load rules, such as deploy/audit/canhgac.rules"
                        .to_owned(),
                ));
            }
            batch.send_if_due(&tally)?;
        }
        batch.send(&tally)?;
        Ok(())
    }
}

/// Records that will be handed on together.
pub struct Batch<'o> {
    stream: Arc<Stream>,
    start: u64,
    number: u64,
    records: Vec<Record>,
    since: Instant,
    out: &'o Outlet,
}

impl<'o> Batch<'o> {
    pub fn new(stream: Arc<Stream>, start: u64, out: &'o Outlet) -> Self {
        Self {
            stream,
            start,
            number: 0,
            records: Vec::new(),
            since: Instant::now(),
            out,
        }
    }

    pub fn add(&mut self, line: Vec<u8>) {
        if self.records.is_empty() {
            self.since = Instant::now();
        }
        self.records.push(Record {
            position: Position::Counter {
                start: self.start,
                number: self.number,
            },
            read_at: Timestamp::now(),
            bytes: Bytes::from(line),
            cut: false,
        });
        self.number += 1;
    }

    pub fn send_if_due(&mut self, tally: &Tally<'_>) -> Result<(), Closed> {
        let is_due = self.records.len() >= RECORDS_MAX
            || (!self.records.is_empty() && self.since.elapsed() >= WAIT);
        if is_due { self.send(tally) } else { Ok(()) }
    }

    pub fn send(&mut self, tally: &Tally<'_>) -> Result<(), Closed> {
        if self.records.is_empty() {
            return Ok(());
        }
        let records = std::mem::take(&mut self.records);
        tally.read(&self.stream.id, &records);
        let inflow = Inflow {
            stream: Arc::clone(&self.stream),
            records,
            mark: Some(Mark::Counter { start: self.start }),
        };
        if let Sent::Dropped(dropped) = self.out.send(inflow, Overflow::Drop)? {
            tally.dropped(dropped);
        }
        Ok(())
    }
}

/// What the lines before this one said.
#[derive(Default)]
struct Trail {
    serial: Option<u32>,
    /// Of the last system call.
    parent: Option<u32>,
    names: HashMap<u32, Option<String>>,
}

impl Trail {
    /// Returns how many events are missing before this record. Serials wrap.
    fn gap(&mut self, body: &[u8]) -> u64 {
        let Some(serial) = serial(body) else { return 0 };
        let last = self.serial.replace(serial);
        let step = last.map_or(0, |last| serial.wrapping_sub(last));
        // A step back is a record of an event that was still open.
        if (2..1 << 31).contains(&step) {
            u64::from(step) - 1
        } else {
            0
        }
    }

    /// Returns the record as a line of the trail, with what must be asked for at once.
    fn line(&mut self, kind: u16, body: &[u8]) -> Vec<u8> {
        let body = body.trim_ascii_end();
        let body = body.strip_suffix(b"\0").unwrap_or(body);
        let name = decode::audit::type_name(kind.into());
        let name = name.map_or_else(|| format!("UNKNOWN[{kind}]"), str::to_owned);
        let mut line = format!("type={name} msg=").into_bytes();
        line.extend_from_slice(body);
        match kind {
            SYSCALL => {
                self.parent = number(body, b" ppid=");
                if let Some(user) = number(body, b" uid=").and_then(|uid| self.name(uid)) {
                    line.extend_from_slice(format!("\u{1d}UID=\"{user}\"").as_bytes());
                }
            }
            EXECVE => {
                if let Some(parent) = self.parent.and_then(process::look) {
                    line.push(0x1d);
                    parent.write_as_parent(&mut line);
                }
            }
            _ => {}
        }
        line
    }

    fn name(&mut self, uid: u32) -> Option<&str> {
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        let named = self.names.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok()??;
            let is_plain = user.name.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
            is_plain.then_some(user.name)
        });
        named.as_deref()
    }
}

/// Returns the serial of `audit(SECONDS.MILLIS:SERIAL): …`.
fn serial(body: &[u8]) -> Option<u32> {
    let end = memchr::memmem::find(body, b"):")?;
    let head = body.get(..end)?;
    let at = memchr::memrchr(b':', head)?;
    std::str::from_utf8(head.get(at + 1..)?).ok()?.parse().ok()
}

fn number(body: &[u8], key: &[u8]) -> Option<u32> {
    let at = memchr::memmem::find(body, key)? + key.len();
    let digits = body.get(at..)?.split(|b| !b.is_ascii_digit()).next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_by_serial_and_wrap() {
        let mut trail = Trail::default();
        let mut gap = |serial: u32| trail.gap(format!("audit(1.000:{serial}): x=y").as_bytes());
        assert_eq!(gap(4_294_967_294), 0, "nothing was heard before");
        assert_eq!(gap(4_294_967_294), 0, "another record of the same event");
        assert_eq!(gap(4_294_967_295), 0);
        assert_eq!(gap(2), 2, "0 and 1 are missing");
        assert_eq!(gap(1), 0, "a record of an event that was still open");
        assert_eq!(trail.gap(b"no serial"), 0);
    }

    #[test]
    fn a_record_is_written_as_auditd_writes_it() {
        let mut trail = Trail::default();
        let own = std::process::id();
        let body = format!("audit(1.000:1): syscall=59 ppid={own} pid=2 uid=0\0");
        let line = trail.line(SYSCALL, body.as_bytes());
        let line = String::from_utf8(line).unwrap();
        assert!(
            line.starts_with("type=SYSCALL msg=audit(1.000:1): syscall=59"),
            "{line}"
        );
        assert!(line.ends_with("\u{1d}UID=\"root\""), "{line}");
        let line =
            String::from_utf8(trail.line(EXECVE, b"audit(1.000:1): argc=1 a0=\"x\"")).unwrap();
        assert!(line.contains("\u{1d}ppexe="), "{line}");
        let line = String::from_utf8(trail.line(1999, b"audit(1.000:2): a=b")).unwrap();
        assert_eq!(line, "type=UNKNOWN[1999] msg=audit(1.000:2): a=b");
    }
}
