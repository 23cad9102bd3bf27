//! Windows event logs in files (EVTX): each record as one JSON object, in the shape that Windows' own XML has. A chunk
//! that is broken or cut costs its own records; those before and after it are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use evtx::{EvtxParser, ParserSettings};
use thiserror::Error;

/// The file's first bytes.
pub const MAGIC: &[u8] = b"ElfFile\0";
/// Of one record: the largest that Windows writes fits a chunk of 64 KiB, and JSON escapes what it holds.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// One record of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `EventRecordID`.
    pub number: u64,
    pub json: Bytes,
}

#[derive(Debug, Error)]
pub enum EvtxError {
    #[error("cannot open the log")]
    Open(#[source] io::Error),
    #[error("not a Windows event log")]
    Head(#[source] Box<evtx::err::EvtxError>),
    #[error("a broken record or chunk")]
    Broken(#[source] Box<evtx::err::EvtxError>),
    #[error("record {number} has {bytes} bytes, more than {RECORD_BYTES_MAX}")]
    TooLarge { number: u64, bytes: usize },
}

/// Whether a file begins as an event log does.
pub fn is_log(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok()) && head == MAGIC
}

/// Calls `on` for each record in the file's order, and for each break.
///
/// # Errors
/// When the file can't be opened or is no log; what `on` returns.
pub fn read<E: From<EvtxError>>(
    path: &Path,
    mut on: impl FnMut(Result<Entry, EvtxError>) -> Result<(), E>,
) -> Result<(), E> {
    let file = File::open(path).map_err(EvtxError::Open)?;
    let settings = ParserSettings::new()
        .num_threads(1)
        .indent(false)
        .separate_json_attributes(false);
    let parser = EvtxParser::from_read_seek(file).map_err(|error| EvtxError::Head(error.into()))?;
    let mut parser = parser.with_configuration(settings);
    for record in parser.records_json_bytes() {
        let entry = match record {
            Err(error) => Err(EvtxError::Broken(error.into())),
            Ok(record) if record.data.len() > RECORD_BYTES_MAX => Err(EvtxError::TooLarge {
                number: record.event_record_id,
                bytes: record.data.len(),
            }),
            Ok(record) => Ok(Entry {
                number: record.event_record_id,
                json: Bytes::from(record.data),
            }),
        };
        on(entry)?;
    }
    Ok(())
}
