//! Recorded packets: files of pcap (both byte orders, micro- and nanoseconds) and pcapng. Reads a file once, from its
//! mark to its end, and then ends; it does not wait for a file to grow.

mod recording;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use tracing::{info, warn};

pub use crate::source::pcap::recording::{Packet, Packets, PcapError, read};

use crate::decode::{Format, LinkType};
use crate::metrics::AgentMetrics;
use crate::record::{FileId, Mark, Position, Progress, Record, SourceId};
use crate::source::capture::tally::{Tally, told};
use crate::source::{Closed, Health, INFLOW_BYTES_MAX, INFLOW_RECORDS_MAX, Inflow, Outlet};
use crate::source::{Overflow, Resume, Source, SourceError, Stop, Stream};

/// One recording.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub path: PathBuf,
}

/// The label of metrics.
pub const KIND: &str = "pcap";

/// Headers and the first packet: what tells one recording from another at the same inode.
const HEAD_BYTES_MAX: u64 = 1024;
const BEFORE_BYTES_MAX: u64 = 64;

/// Reads one recording.
#[derive(Debug)]
pub struct Pcap {
    path: PathBuf,
    metrics: AgentMetrics,
}

impl Pcap {
    pub fn new(config: &Config, metrics: &AgentMetrics) -> Self {
        Self {
            path: config.path.clone(),
            metrics: metrics.clone(),
        }
    }

    /// A file may hold packets of several link types; the first has the plain name.
    fn id(&self, link: Option<LinkType>) -> SourceId {
        let path = self.path.display();
        match link {
            None => SourceId::new(&format!("pcap:{path}")),
            Some(LinkType(number)) => SourceId::new(&format!("pcap:{path}#{number}")),
        }
    }

    fn play(
        &self,
        from: &Resume,
        out: &Outlet,
        stop: &Stop,
        tally: &Tally<'_>,
    ) -> Result<(), PlayError> {
        let file = File::open(&self.path).map_err(|error| self.cannot_read(error))?;
        let file_id = identity(&file, &self.path).map_err(|error| self.cannot_read(error))?;
        let mut streams = BTreeMap::new();
        let mut chunk = Chunk::default();
        let mut fault = None;
        for packet in read(&self.path) {
            let packet = match packet {
                Ok(packet) => packet,
                Err(error) => {
                    fault = Some(error);
                    break;
                }
            };
            if stop.is_set() {
                return Ok(());
            }
            let is_first = streams.is_empty();
            let open = streams.entry(packet.link.0).or_insert_with(|| {
                let id = self.id((!is_first).then_some(packet.link));
                OpenStream {
                    read_to: read_to(&from.streams, &id, file_id, &file),
                    stream: Arc::new(Stream {
                        id,
                        kind: KIND,
                        format: Format::Packet(packet.link),
                    }),
                }
            });
            if packet.offset < open.read_to {
                continue;
            }
            if !chunk.takes(&open.stream, packet.bytes.len()) {
                self.send(&mut chunk, file_id, &file, out, tally)?;
            }
            chunk.add(&open.stream, packet, file_id);
        }
        self.send(&mut chunk, file_id, &file, out, tally)?;
        fault.map_or(Ok(()), |fault| Err(fault.into()))
    }

    fn send(
        &self,
        chunk: &mut Chunk,
        file_id: FileId,
        file: &File,
        out: &Outlet,
        tally: &Tally<'_>,
    ) -> Result<(), PlayError> {
        let Chunk {
            stream,
            records,
            end,
            ..
        } = std::mem::take(chunk);
        let Some(stream) = stream else { return Ok(()) };
        tally.read(&stream.id, &records);
        let mark = Mark::File {
            file: file_id,
            offset: end,
            before: hash_before(file, end).map_err(|error| self.cannot_read(error))?,
            path: self.path.clone(),
        };
        let inflow = Inflow {
            stream,
            records,
            mark: Some(mark),
        };
        out.send(inflow, Overflow::Wait)?;
        Ok(())
    }

    fn cannot_read(&self, error: io::Error) -> PcapError {
        PcapError::Read {
            path: self.path.clone(),
            error,
        }
    }
}

impl Source for Pcap {
    fn name(&self) -> String {
        self.id(None).to_string()
    }

    /// A fault of the file is told by `health` and the log and ends the source: it would be no better a second time.
    fn run(
        self: Box<Self>,
        from: Resume,
        out: &Outlet,
        stop: &Stop,
        health: &Health,
    ) -> Result<(), SourceError> {
        let id = self.id(None);
        let mut tally = Tally::new(id.clone(), KIND, &self.metrics, health);
        match self.play(&from, out, stop, &tally) {
            Ok(()) => {
                info!(source = %id, "recording read to its end");
                Ok(())
            }
            Err(PlayError::Pcap(error)) => {
                let text = told(&error);
                warn!(source = %id, error = text, "recording read in part");
                tally.fault(Some(text));
                Ok(())
            }
            Err(PlayError::Closed(closed)) => Err(closed.into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum PlayError {
    #[error(transparent)]
    Pcap(#[from] PcapError),
    #[error(transparent)]
    Closed(#[from] Closed),
}

struct OpenStream {
    stream: Arc<Stream>,
    /// What begins before was committed by an earlier run.
    read_to: u64,
}

#[derive(Default)]
struct Chunk {
    stream: Option<Arc<Stream>>,
    records: Vec<Record>,
    bytes: usize,
    end: u64,
}

impl Chunk {
    fn takes(&self, stream: &Arc<Stream>, bytes: usize) -> bool {
        self.stream
            .as_ref()
            .is_none_or(|mine| Arc::ptr_eq(mine, stream))
            && self.records.len() < INFLOW_RECORDS_MAX
            && (self.records.is_empty() || self.bytes + bytes <= INFLOW_BYTES_MAX)
    }

    fn add(&mut self, stream: &Arc<Stream>, packet: Packet, file: FileId) {
        self.stream.get_or_insert_with(|| stream.clone());
        self.bytes += packet.bytes.len();
        self.end = packet.end;
        self.records.push(packet.record(file));
    }
}

impl Packet {
    /// Returns the packet as a record that was read when it was caught.
    pub fn record(self, file: FileId) -> Record {
        Record {
            position: Position::Offset {
                file,
                offset: self.offset,
            },
            read_at: self.time.unwrap_or_else(Timestamp::now),
            bytes: self.bytes,
            cut: self.cut,
        }
    }
}

/// How far an earlier run came, if it read this very file.
fn read_to(streams: &[Progress], id: &SourceId, now: FileId, file: &File) -> u64 {
    let earlier = streams.iter().find(|progress| progress.source == *id);
    match earlier.map(|progress| &progress.mark) {
        Some(Mark::File {
            file: then,
            offset,
            before,
            ..
        }) if *then == now && hash_before(file, *offset).ok() == Some(*before) => *offset,
        _ => 0,
    }
}

/// Returns which file this is; its head is all up to the end of the first packet.
///
/// # Errors
/// What the file system says.
pub fn identity(file: &File, path: &Path) -> io::Result<FileId> {
    let metadata = file.metadata()?;
    let first = read(path).next().and_then(Result::ok);
    let end = first.map_or(0, |packet| packet.end).min(HEAD_BYTES_MAX);
    Ok(FileId {
        device: metadata.dev(),
        inode: metadata.ino(),
        head: hash(file, 0, end)?,
    })
}

fn hash_before(file: &File, end: u64) -> io::Result<u64> {
    hash(file, end.saturating_sub(BEFORE_BYTES_MAX), end)
}

/// FNV-1a, 64 bits: it is kept in the spool, so it must be the same in every build.
fn hash(file: &File, from: u64, to: u64) -> io::Result<u64> {
    let mut bytes = vec![0; to.saturating_sub(from).min(HEAD_BYTES_MAX) as usize];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

#[cfg(test)]
mod tests;
