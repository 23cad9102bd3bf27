//! Brings inflows of files to the workers and counts them. A full worker holds up its own files and no others.

use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use crate::metrics::AgentMetrics;
use crate::record::SourceId;
use crate::source::{Closed, Health, Inflow, Outlet, Refused};

/// Between two offers to a full worker: its queue holds some milliseconds of work.
pub const RETRY: Duration = Duration::from_millis(2);

pub const KIND: &str = "file";

pub struct Courier<'a> {
    outlet: &'a Outlet,
    pub health: &'a Health,
    /// One inflow a worker that found no room: what its files go on from, and no more is read of them till it is taken.
    parked: Vec<Option<Inflow>>,
    counters: Counters,
}

struct Counters {
    records: IntCounter,
    bytes: IntCounter,
    cut: IntCounter,
    nuls: IntCounter,
    last_record: IntGauge,
    faults: IntGauge,
    open: IntGauge,
}

impl<'a> Courier<'a> {
    pub fn new(outlet: &'a Outlet, health: &'a Health, metrics: &AgentMetrics) -> Self {
        Self {
            outlet,
            health,
            parked: (0..outlet.workers()).map(|_| None).collect(),
            counters: Counters {
                records: metrics.records.with_label_values(&[KIND]),
                bytes: metrics.bytes.with_label_values(&[KIND]),
                cut: metrics.records_cut.with_label_values(&[KIND]),
                nuls: metrics.file_nuls.clone(),
                last_record: metrics.last_record.with_label_values(&[KIND]),
                faults: metrics.source_faults.with_label_values(&[KIND]),
                open: metrics.files_open.clone(),
            },
        }
    }

    /// Whether the worker of a stream has no room.
    pub fn is_full(&mut self, stream: &SourceId) -> Result<bool, Closed> {
        self.flush()?;
        let parked = self.parked.get(self.outlet.worker(stream));
        Ok(parked.ok_or(Closed)?.is_some())
    }

    /// Tries again what waits for room; true when some still waits.
    pub fn flush(&mut self) -> Result<bool, Closed> {
        for parked in &mut self.parked {
            match parked.take().map(|inflow| self.outlet.offer(inflow)) {
                None | Some(Ok(())) => (),
                Some(Err(Refused::Full(inflow))) => *parked = Some(inflow),
                Some(Err(Refused::Closed(closed))) => return Err(closed),
            }
        }
        Ok(self.parked.iter().any(Option::is_some))
    }

    /// Takes an inflow of a stream whose worker was not full, and counts it under `name`.
    pub fn take(&mut self, name: &SourceId, inflow: Inflow) -> Result<(), Closed> {
        self.count(name, &inflow);
        self.put(inflow)
    }

    fn put(&mut self, inflow: Inflow) -> Result<(), Closed> {
        let worker = self.outlet.worker(&inflow.stream.id);
        match self.outlet.offer(inflow) {
            Ok(()) => Ok(()),
            Err(Refused::Full(inflow)) => {
                let parked = self.parked.get_mut(worker).ok_or(Closed)?;
                debug_assert!(parked.is_none(), "nothing is read for a full worker");
                *parked = Some(inflow);
                Ok(())
            }
            Err(Refused::Closed(closed)) => Err(closed),
        }
    }

    fn count(&self, name: &SourceId, inflow: &Inflow) {
        let Some(last) = inflow.records.last() else {
            return;
        };
        let records = inflow.records.len() as u64;
        self.health.records(name, records, last.read_at);
        self.counters.records.inc_by(records);
        let bytes = inflow
            .records
            .iter()
            .map(|record| record.bytes.len() as u64);
        self.counters.bytes.inc_by(bytes.sum());
        let cut = inflow.records.iter().filter(|record| record.cut).count();
        self.counters.cut.inc_by(cut as u64);
        self.counters.last_record.set(last.read_at.as_second());
    }

    pub fn skipped_nuls(&self, nuls: usize) {
        self.counters.nuls.inc_by(nuls as u64);
    }

    pub fn opened(&self, open: usize, faults: usize) {
        self.counters
            .open
            .set(i64::try_from(open).unwrap_or(i64::MAX));
        self.counters
            .faults
            .set(i64::try_from(faults).unwrap_or(i64::MAX));
    }
}
