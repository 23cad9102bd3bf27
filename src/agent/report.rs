//! What an agent says of itself in a heartbeat.

use std::collections::BTreeMap;
use std::fs;

use jiff::Timestamp;
use prometheus::core::Collector;
use ring::digest::{SHA256, digest};

use crate::agent::pipeline::Rules;
use crate::deliver::wire::{Heartbeat, Ledger, SourceState};
use crate::metrics::AgentMetrics;
use crate::source::Health;

/// What a centre is told of when it does not work as it should; delivery it sees for itself.
const DEGRADED: [&str; 3] = ["config", "rules", "spool"];

/// Makes heartbeats.
pub struct Reporter {
    rules: Rules,
    host: String,
    machine: String,
    boot: String,
    health: Health,
    metrics: AgentMetrics,
    unheard: u64,
}

impl Reporter {
    /// `unheard`: seconds before this start in which sources that can't be read again were not heard.
    pub fn new(
        rules: Rules,
        host: String,
        health: Health,
        metrics: AgentMetrics,
        unheard: u64,
    ) -> Self {
        Self {
            rules,
            host,
            machine: machine(),
            boot: read_line("/proc/sys/kernel/random/boot_id"),
            health,
            metrics,
            unheard,
        }
    }

    pub fn heartbeat(&self, ledger: Ledger) -> Heartbeat {
        let sources = self.health.beat().into_iter().map(|source| SourceState {
            name: source.name,
            last_event: source.last_event,
            records: source.records,
            fault: source.fault,
        });
        let is_degraded = |what: &str| self.metrics.degraded.with_label_values(&[what]).get() > 0;
        let degraded = DEGRADED.into_iter().filter(|what| is_degraded(what));
        Heartbeat {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine: self.machine.clone(),
            boot: self.boot.clone(),
            host: self.host.clone(),
            rules: self.rules.current().digest().to_owned(),
            ledger,
            sources: sources.collect(),
            drops: self.drops(),
            degraded: degraded.map(str::to_owned).collect(),
            clock: Timestamp::now(),
        }
    }

    /// By reason, over all kinds of sources.
    fn drops(&self) -> BTreeMap<String, u64> {
        let mut drops = BTreeMap::new();
        for family in self.metrics.drops.collect() {
            for metric in family.get_metric() {
                let reason = (metric.get_label().iter())
                    .find(|label| label.name() == "reason")
                    .map_or("other", |label| label.value());
                // Counters of records are whole numbers below 2^53.
                let count = metric.get_counter().get_value() as u64;
                *drops.entry(reason.to_owned()).or_default() += count;
            }
        }
        if self.unheard > 0 {
            drops.insert("unheard_seconds".to_owned(), self.unheard);
        }
        drops
    }
}

/// Returns the name of this machine.
pub fn host_name() -> String {
    let name = read_line("/proc/sys/kernel/hostname");
    if name.is_empty() {
        return "localhost".to_owned();
    }
    name
}

/// Returns what tells this machine from others, the same at enrolment and in heartbeats: its id, hashed, since it must
/// not leave the machine in clear (machine-id(5)). A container without one is told by its name.
pub fn machine() -> String {
    let ids = ["/etc/machine-id", "/var/lib/dbus/machine-id"].map(read_line);
    let id = ids.into_iter().find(|id| !id.is_empty());
    let id = id.unwrap_or_else(host_name);
    let hash = digest(&SHA256, format!("canhgac {id}").as_bytes());
    let hex = hash.as_ref().iter().take(16);
    hex.map(|byte| format!("{byte:02x}")).collect()
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
