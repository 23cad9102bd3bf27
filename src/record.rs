//! What a source hands on: raw bytes and where they stood. Knows nothing of formats.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The stable name of one stream of records, such as `file:/var/log/auth.log` or `capture:eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SourceId(Arc<str>);

impl SourceId {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which file, and which life of it: a truncated and rewritten file has another `head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    pub device: u64,
    pub inode: u64,
    /// Hash of the first line, of at most 256 bytes of it. No record is made before it is known.
    pub head: u64,
}

/// Where a record stands in its source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Position {
    Offset {
        file: FileId,
        offset: u64,
    },
    Cursor(Box<str>),
    /// A source that can't be read again: how often it was started, and the record's number since.
    Counter {
        start: u64,
        number: u64,
    },
}

impl Position {
    /// The bytes that go into an alert's id; two positions never give the same.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Offset { file, offset } => {
                out.push(1);
                for part in [file.device, file.inode, file.head, *offset] {
                    out.extend_from_slice(&part.to_be_bytes());
                }
            }
            Self::Cursor(cursor) => {
                out.push(2);
                out.extend_from_slice(&(cursor.len() as u64).to_be_bytes());
                out.extend_from_slice(cursor.as_bytes());
            }
            Self::Counter { start, number } => {
                out.push(3);
                out.extend_from_slice(&start.to_be_bytes());
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }
}

/// What people read in `origin.at`: no hash of content in it.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset { file, offset } => {
                write!(f, "{}:{}:{offset}", file.device, file.inode)
            }
            Self::Cursor(cursor) => f.write_str(cursor),
            Self::Counter { start, number } => write!(f, "{start}.{number}"),
        }
    }
}

/// A stretch of a file that a decoder still holds and would have to read again after a kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub file: FileId,
    pub from: u64,
    pub to: u64,
}

/// How far a stream has been read, and how to know the place again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    File {
        file: FileId,
        /// Where the next unread record begins.
        offset: u64,
        /// Hash of the at most 64 bytes that end at `offset`.
        before: u64,
        /// Where the file was found; it may have been renamed since.
        path: PathBuf,
    },
    Cursor(Box<str>),
    /// The start number of a source that can't be read again.
    Counter {
        start: u64,
    },
}

/// Progress of one stream, committed in the transaction of the alerts that came before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub source: SourceId,
    pub mark: Mark,
    pub held: Vec<Range>,
}

/// One raw record: a log line without its line end, a packet, a journal entry.
#[derive(Debug, Clone)]
pub struct Record {
    pub position: Position,
    pub read_at: Timestamp,
    pub bytes: Bytes,
    /// The record was longer than the source's cap; `bytes` is its beginning.
    pub cut: bool,
}
