//! Every metric: name, help, labels, unit; one struct a role, one registry each, no global.
//! Label values come from closed sets only, never from a log.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Seconds; commits and requests take from a tenth of a millisecond to ten seconds.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// A role's registry, made once and read by `/metrics`.
#[derive(Debug, Clone)]
pub struct Exposition(Registry);

impl Exposition {
    /// Returns the text format 0.0.4.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Encoding into memory fails only for a family without metrics, which the registry leaves out.
        let _ = TextEncoder::new().encode(&self.0.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

struct Maker {
    registry: Registry,
    prefix: &'static str,
}

impl Maker {
    fn new(prefix: &'static str) -> Self {
        let registry = Registry::new();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry
            .register(Box::new(process))
            .expect("an empty registry takes the process collector");
        Self { registry, prefix }
    }

    fn add<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> C {
        let metric = made.expect("names and labels are constants, checked by a test");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("each name is registered once, checked by a test");
        metric
    }

    fn options(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("{}_{name}", self.prefix), help)
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(self.options(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(self.options(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(self.options(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(self.options(name, help), labels))
    }

    fn seconds(&self, name: &str, help: &str) -> Histogram {
        let name = format!("{}_{name}", self.prefix);
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.add(Histogram::with_opts(options))
    }

    fn build_info(&self) {
        self.gauges(
            "build_info",
            "Always 1; the version is a label.",
            &["version"],
        )
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
    }
}

/// What an agent counts. Label `source` is the kind of source (file, capture …), never its path.
#[derive(Debug, Clone)]
pub struct AgentMetrics {
    pub exposition: Exposition,
    pub records: IntCounterVec,
    pub bytes: IntCounterVec,
    pub records_cut: IntCounterVec,
    pub undecodable: IntCounterVec,
    pub last_record: IntGaugeVec,
    pub source_faults: IntGaugeVec,
    pub files_open: IntGauge,
    pub drops: IntCounterVec,
    pub events: IntCounter,
    pub detections: IntCounterVec,
    pub alerts: IntCounterVec,
    pub folded: IntCounterVec,
    pub panics: IntCounter,
    pub rules: IntGaugeVec,
    pub folds_open: IntGauge,
    pub windows_open: IntGauge,
    pub evicted: IntCounterVec,
    pub spool_rows: IntGaugeVec,
    pub spool_bytes: IntGauge,
    pub spool_bytes_max: IntGauge,
    pub spool_oldest: IntGauge,
    pub spool_given_up: IntCounterVec,
    pub spool_salvaged: IntCounter,
    pub commit_seconds: Histogram,
    pub commit_retries: IntCounter,
    pub batches: IntCounterVec,
    pub alerts_sent: IntCounter,
    pub dead_letters: IntCounter,
    pub last_acknowledged: IntGauge,
    pub certificate_expiry: IntGauge,
    pub degraded: IntGaugeVec,
    pub dead_letters_bytes: IntGauge,
    pub dead_letters_bytes_max: IntGauge,
    pub dead_letters_evicted: IntCounter,
    pub file_nuls: IntCounter,
}

impl Default for AgentMetrics {
    fn default() -> Self {
        let m = Maker::new("canhgac_agent");
        m.build_info();
        Self {
            records: m.counters("records_total", "Records read.", &["source"]),
            bytes: m.counters("record_bytes_total", "Bytes of the records read.", &["source"]),
            records_cut: m.counters(
                "records_cut_total",
                "Records longer than the limit, of which the beginning was judged.",
                &["source"],
            ),
            undecodable: m.counters(
                "records_undecodable_total",
                "Records that no decoder understood; they are judged by keyword rules all the same.",
                &["source"],
            ),
            last_record: m.gauges(
                "source_last_record_timestamp_seconds",
                "When the last record was read.",
                &["source"],
            ),
            source_faults: m.gauges(
                "source_faults",
                "Streams that can't be read now.",
                &["source"],
            ),
            files_open: m.gauge("files_open", "Log files held open."),
            drops: m.counters(
                "records_dropped_total",
                "Records lost before they were judged, of sources that can't wait.",
                &["source", "reason"],
            ),
            events: m.counter("events_total", "Events judged by the rules."),
            detections: m.counters(
                "detections_total",
                "Events that a rule matched.",
                &["level"],
            ),
            alerts: m.counters("alerts_total", "Alerts made, folded ones once.", &["level"]),
            folded: m.counters(
                "detections_folded_total",
                "Detections counted into an alert that was open already.",
                &["level"],
            ),
            panics: m.counter(
                "decoder_panics_total",
                "Records on which a decoder or the matcher failed; a fault of canhgac.",
            ),
            rules: m.gauges("rules", "Rules by state.", &["state"]),
            folds_open: m.gauge("folds_open", "Alerts that may still grow."),
            windows_open: m.gauge("windows_open", "Correlation windows in memory."),
            evicted: m.counters(
                "state_evicted_total",
                "Folds and windows ended early because a limit was reached.",
                &["kind"],
            ),
            spool_rows: m.gauges("spool_rows", "Alerts that wait to be sent.", &["level"]),
            spool_bytes: m.gauge("spool_bytes", "Bytes of the alerts that wait."),
            spool_bytes_max: m.gauge("spool_limit_bytes", "Limit of spool_bytes."),
            spool_oldest: m.gauge(
                "spool_oldest_timestamp_seconds",
                "When the oldest waiting alert was stored; 0 when none waits.",
            ),
            spool_given_up: m.counters(
                "alerts_given_up_total",
                "Alerts removed unsent because the spool was full.",
                &["level"],
            ),
            spool_salvaged: m.counter(
                "spool_salvaged_total",
                "Damaged spool files that were set aside.",
            ),
            commit_seconds: m.seconds("commit_seconds", "Time of one commit of the spool."),
            commit_retries: m.counter(
                "commit_retries_total",
                "Commits that failed and were tried again; files wait meanwhile.",
            ),
            batches: m.counters("batches_total", "Batches sent, by result.", &["result"]),
            alerts_sent: m.counter("alerts_acknowledged_total", "Alerts that a centre has."),
            dead_letters: m.counter(
                "alerts_rejected_total",
                "Alerts that the centre will never accept.",
            ),
            last_acknowledged: m.gauge(
                "last_acknowledged_timestamp_seconds",
                "When the centre last answered a batch or heartbeat.",
            ),
            certificate_expiry: m.gauge(
                "certificate_expiry_timestamp_seconds",
                "When this agent's certificate ends.",
            ),
            degraded: m.gauges(
                "degraded",
                "1 while something does not work as it should.",
                &["what"],
            ),
            dead_letters_bytes: m.gauge(
                "dead_letters_bytes",
                "Bytes of the alerts that the centre rejected, kept to be looked at.",
            ),
            dead_letters_bytes_max: m.gauge(
                "dead_letters_limit_bytes",
                "Limit of dead_letters_bytes.",
            ),
            dead_letters_evicted: m.counter(
                "dead_letters_evicted_total",
                "Rejected alerts removed because their limit was reached.",
            ),
            file_nuls: m.counter(
                "file_nul_bytes_total",
                "NUL bytes skipped in log files: holes that a writer left, or the remains of a crash.",
            ),
            exposition: Exposition(m.registry),
        }
    }
}

/// What a centre counts.
#[derive(Debug, Clone)]
pub struct CentreMetrics {
    pub exposition: Exposition,
    pub batches: IntCounterVec,
    pub alerts: IntCounterVec,
    pub duplicates: IntCounter,
    pub rejected: IntCounterVec,
    pub ingest_seconds: Histogram,
    pub heartbeats: IntCounter,
    pub agents: IntGaugeVec,
    pub unexplained_loss: IntGauge,
    pub stated_loss: IntGauge,
    pub connections: IntGauge,
    pub auth_failures: IntCounterVec,
    pub enrolments: IntCounterVec,
    pub requests: IntCounterVec,
    pub query_seconds: Histogram,
    pub store_bytes: IntGauge,
    pub store_bytes_max: IntGauge,
}

impl Default for CentreMetrics {
    fn default() -> Self {
        let m = Maker::new("canhgac_centre");
        m.build_info();
        Self {
            batches: m.counters("batches_total", "Batches received, by result.", &["result"]),
            alerts: m.counters("alerts_total", "Alerts stored, each once.", &["level"]),
            duplicates: m.counter(
                "alerts_duplicate_total",
                "Alerts received again; a growing fold counts here too.",
            ),
            rejected: m.counters(
                "alerts_rejected_total",
                "Alerts refused for good.",
                &["reason"],
            ),
            ingest_seconds: m.seconds(
                "ingest_seconds",
                "Time from a batch's last byte to its commit.",
            ),
            heartbeats: m.counter("heartbeats_total", "Heartbeats received."),
            agents: m.gauges("agents", "Enrolled agents by state.", &["state"]),
            unexplained_loss: m.gauge(
                "alerts_unexplained_loss",
                "Numbers that agents made and that nothing accounts for.",
            ),
            stated_loss: m.gauge("alerts_stated_loss", "Numbers that agents gave up."),
            connections: m.gauge("connections", "Agents' connections open now."),
            auth_failures: m.counters(
                "auth_failures_total",
                "Requests refused for want of identity.",
                &["reason"],
            ),
            enrolments: m.counters("enrolments_total", "Enrolments, by result.", &["result"]),
            requests: m.counters(
                "requests_total",
                "Requests by route and status.",
                &["route", "code"],
            ),
            query_seconds: m.seconds("query_seconds", "Time of one query of alerts."),
            store_bytes: m.gauge("store_bytes", "Bytes of the database."),
            store_bytes_max: m.gauge("store_limit_bytes", "Limit of store_bytes."),
            exposition: Exposition(m.registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_roles_register_every_metric_once() {
        assert!(
            AgentMetrics::default()
                .exposition
                .text()
                .contains("canhgac_agent_build_info")
        );
        assert!(
            CentreMetrics::default()
                .exposition
                .text()
                .contains("canhgac_centre_build_info")
        );
    }
}
