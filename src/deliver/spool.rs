//! The agent's memory.

use jiff::Timestamp;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::alert::Severity;
use crate::deliver::wire::{Epoch, Ledger, Seen, Sequence};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    pub epoch: Epoch,
    pub seq: Sequence,
}

#[derive(Debug)]
pub struct Row {
    pub id: RowId,
    pub seq: Sequence,
    pub level: Severity,
    pub alert: Box<RawValue>,
}

#[derive(Debug)]
pub struct Batch {
    pub epoch: Epoch,
    pub rows: Vec<Row>,
}

#[derive(Debug, Error)]
pub enum SpoolError {}

#[derive(Debug)]
pub struct Spool(());

impl Spool {
    pub fn next(&self, _lines_max: usize, _bytes_max: usize) -> Result<Batch, SpoolError> {
        unreachable!("no spool can be made yet")
    }

    pub fn done(
        &mut self,
        _rows: &[RowId],
        _rejected: &[(RowId, String)],
        _now: Timestamp,
    ) -> Result<(), SpoolError> {
        unreachable!("no spool can be made yet")
    }

    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        unreachable!("no spool can be made yet")
    }

    pub fn seen(&mut self, _seen: Seen) -> Result<(), SpoolError> {
        unreachable!("no spool can be made yet")
    }
}
