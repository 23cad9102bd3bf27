//! Where records come from. A source blocks in a thread of its own and hands chunks of records on; it knows nothing of
//! what they say.

pub mod health;
pub mod file;
pub mod capture;
pub mod pcap;
pub mod evtx;
pub mod netlink;
pub mod audit;
pub mod process;

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use thiserror::Error;

use crate::decode::Format;
use crate::metrics::AgentMetrics;
use crate::record::{Mark, Progress, Record, SourceId};

pub use health::{Health, SourceHealth};

/// One sequence of records: what a decoder keeps state for and a mark is kept of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    pub id: SourceId,
    /// "file", "capture", "pcap": label of metrics
    pub kind: &'static str,
    pub format: Format,
}

/// Records handed on together, and how far the stream has been read after them.
#[derive(Debug)]
pub struct Inflow {
    pub stream: Arc<Stream>,
    /// Empty when only the mark moved.
    pub records: Vec<Record>,
    /// Absent for records that are read again: the stored mark and its held ranges stay until the last of them.
    pub mark: Option<Mark>,
}

/// What to do with an inflow when its worker's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    Wait,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Taken,
    /// So many records are lost; the source counts them.
    Dropped(usize),
}

/// No worker takes records any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the pipeline takes no more records")]
pub struct Closed;

/// Why an offered inflow was not taken.
#[derive(Debug)]
pub enum Refused {
    /// Given back; its worker's queue is full.
    Full(Inflow),
    Closed(Closed),
}

/// Records an inflow holds at most. Above 256 the cost of the channel is lost in that of decoding.
pub const INFLOW_RECORDS_MAX: usize = 256;
/// Bytes of the records of one inflow.
pub const INFLOW_BYTES_MAX: usize = 256 << 10;
/// Inflows that wait for one worker: 4 MiB at most, and some milliseconds of work.
pub const QUEUE_INFLOWS: usize = 16;

/// Where sources put what they read: one bounded queue a worker. Streams of one name always go to the same worker.
#[derive(Debug, Clone)]
pub struct Outlet {
    workers: Arc<[SyncSender<Inflow>]>,
}

impl Outlet {
    pub fn new(workers: Vec<SyncSender<Inflow>>) -> Self {
        Self {
            workers: workers.into(),
        }
    }

    /// Hands an inflow on; with [`Overflow::Wait`] only once there is room.
    ///
    /// # Errors
    /// [`Closed`] when the worker is gone.
    pub fn send(&self, inflow: Inflow, overflow: Overflow) -> Result<Sent, Closed> {
        match overflow {
            Overflow::Wait => {
                let worker = self.workers.get(self.worker(&inflow.stream.id));
                let sent = worker.ok_or(Closed)?.send(inflow);
                sent.map(|()| Sent::Taken).map_err(|_| Closed)
            }
            Overflow::Drop => match self.offer(inflow) {
                Ok(()) => Ok(Sent::Taken),
                Err(Refused::Full(inflow)) => Ok(Sent::Dropped(inflow.records.len())),
                Err(Refused::Closed(closed)) => Err(closed),
            },
        }
    }

    /// Hands an inflow on if there is room now, for a source that has other things to do meanwhile.
    ///
    /// # Errors
    /// [`Refused`], with the inflow when there was no room.
    pub fn offer(&self, inflow: Inflow) -> Result<(), Refused> {
        let Some(worker) = self.workers.get(self.worker(&inflow.stream.id)) else {
            return Err(Refused::Closed(Closed));
        };
        worker.try_send(inflow).map_err(|refusal| match refusal {
            TrySendError::Full(inflow) => Refused::Full(inflow),
            TrySendError::Disconnected(_) => Refused::Closed(Closed),
        })
    }

    /// Returns the number of the worker that reads a stream. What stands before the colon is left out of the hash:
    /// there files tell the lives of one path apart, and those share a worker.
    pub fn worker(&self, id: &SourceId) -> usize {
        let name = id.as_str();
        let shared = name.split_once(':').map_or(name, |(_, rest)| rest);
        let mut hasher = DefaultHasher::new();
        shared.hash(&mut hasher);
        let workers = self.workers.len().max(1) as u64;
        usize::try_from(hasher.finish() % workers).unwrap_or(0)
    }

    pub fn workers(&self) -> usize {
        self.workers.len()
    }
}

/// Tells sources to end. A clone tells the same sources.
#[derive(Clone, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Default)]
struct StopState {
    is_set: AtomicBool,
    wakers: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl Stop {
    pub fn stop(&self) {
        let wakers = self.0.wakers.lock();
        self.0.is_set.store(true, Ordering::SeqCst);
        for wake in wakers.unwrap_or_else(PoisonError::into_inner).iter() {
            wake();
        }
    }

    pub fn is_set(&self) -> bool {
        self.0.is_set.load(Ordering::SeqCst)
    }

    /// Has `wake` called at the stop; at once if that was already.
    pub fn on_stop(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let wakers = self.0.wakers.lock();
        if self.is_set() {
            wake();
        }
        wakers.unwrap_or_else(PoisonError::into_inner).push(wake);
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.is_set()).finish()
    }
}

/// Where the sources were when the agent ended.
#[derive(Debug, Clone, Default)]
pub struct Resume {
    pub streams: Vec<Progress>,
    /// Counts starts of the agent: for positions that can't be read again.
    pub start: u64,
    /// There was no spool before: what is there already is read as `from` says.
    pub first: bool,
}

/// One place that records come from.
pub trait Source: Send {
    fn name(&self) -> String;

    /// Reads until `stop`, which it obeys within 200 ms unless the pipeline makes it wait.
    ///
    /// # Errors
    /// [`SourceError`] when the source can't go on; what may pass is retried and told to `health`.
    fn run(
        self: Box<Self>,
        from: Resume,
        out: &Outlet,
        stop: &Stop,
        health: &Health,
    ) -> Result<(), SourceError>;
}

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("invalid pattern {pattern:?}")]
    Pattern {
        pattern: String,
        #[source]
        source: glob::PatternError,
    },
    #[error("cannot look at {path:?}")]
    Look {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot open {path:?}")]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read {path:?}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path:?} is a {kind}, not a file")]
    NotAFile { path: PathBuf, kind: &'static str },
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl SourceError {
    /// Returns the message with its causes, as one sentence.
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// The configured sources, a list a kind.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub file: Vec<file::Config>,
    pub capture: Vec<capture::Config>,
    pub pcap: Vec<pcap::Config>,
    pub audit: Vec<audit::Config>,
    pub process: Vec<process::Config>,
}

/// Where auditd writes the trail that the kernel multicasts.
const AUDIT_LOGS: &str = "/var/log/audit/*";

/// Returns the files to read. One origin is read once: where the kernel's trail is heard, auditd's files are left out.
fn origins(config: &Config) -> Vec<file::Config> {
    let mut files = config.file.clone();
    if !config.audit.is_empty() {
        for entry in &mut files {
            entry.exclude.push(AUDIT_LOGS.to_owned());
        }
    }
    files
}

/// Makes the configured sources: one for all files, one for each other entry.
pub fn open(config: &Config, metrics: &AgentMetrics) -> Vec<Box<dyn Source>> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    let files = origins(config);
    if !files.is_empty() {
        sources.push(Box::new(file::Files::new(&files, metrics)));
    }
    for entry in &config.audit {
        sources.push(Box::new(audit::Audit::new(entry, metrics)));
    }
    for entry in &config.process {
        sources.push(Box::new(process::Processes::new(entry, metrics)));
    }
    for entry in &config.capture {
        sources.push(Box::new(capture::Capture::new(entry, metrics)));
    }
    for entry in &config.pcap {
        sources.push(Box::new(pcap::Pcap::new(entry, metrics)));
    }
    sources
}

#[cfg(test)]
mod tests;
