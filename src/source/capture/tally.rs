//! What sources of packets count and tell: a capture and a recording alike.

use std::error::Error;

use jiff::Timestamp;
use prometheus::{IntCounter, IntGauge};

use crate::metrics::AgentMetrics;
use crate::record::{Record, SourceId};
use crate::source::Health;

pub struct Tally<'h> {
    id: SourceId,
    health: &'h Health,
    records: IntCounter,
    bytes: IntCounter,
    cut: IntCounter,
    dropped: IntCounter,
    last_record: IntGauge,
    faults: IntGauge,
    is_faulty: bool,
}

impl<'h> Tally<'h> {
    /// `id` is the source's, whose faults are told under it; `kind` the label of metrics.
    pub fn new(
        id: SourceId,
        kind: &'static str,
        metrics: &AgentMetrics,
        health: &'h Health,
    ) -> Self {
        Self {
            id,
            health,
            records: metrics.records.with_label_values(&[kind]),
            bytes: metrics.bytes.with_label_values(&[kind]),
            cut: metrics.records_cut.with_label_values(&[kind]),
            dropped: metrics.drops.with_label_values(&[kind, "queue"]),
            last_record: metrics.last_record.with_label_values(&[kind]),
            faults: metrics.source_faults.with_label_values(&[kind]),
            is_faulty: false,
        }
    }

    /// Counts what was read of a stream, before it is known whether there is room for it.
    pub fn read(&self, stream: &SourceId, records: &[Record]) {
        let Some(last) = records.last() else { return };
        let bytes: usize = records.iter().map(|record| record.bytes.len()).sum();
        let cut = records.iter().filter(|record| record.cut).count();
        self.records.inc_by(records.len() as u64);
        self.bytes.inc_by(bytes as u64);
        self.cut.inc_by(cut as u64);
        self.last_record.set(last.read_at.as_second());
        self.health
            .records(stream, records.len() as u64, Timestamp::now());
    }

    pub fn dropped(&self, records: usize) {
        self.dropped.inc_by(records as u64);
    }

    /// Says what keeps the source from being read, or that nothing does any more.
    pub fn fault(&mut self, fault: Option<String>) {
        let was_faulty = std::mem::replace(&mut self.is_faulty, fault.is_some());
        self.faults
            .add(i64::from(self.is_faulty) - i64::from(was_faulty));
        self.health.fault(&self.id, fault);
    }
}

/// Returns a message with its causes, as one sentence.
pub fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
