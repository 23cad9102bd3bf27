//! The pipeline's last stage: correlates, folds and commits. What a commit concerns goes into one transaction:
//! alerts, positions, open folds and windows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::agent::pipeline::{Chunk, Pulse, Rules};
use crate::alert::{Alert, HostSecret, Severity};
use crate::deliver::spool::{Commit, Entry, Restored, Room, Spool, SpoolError};
use crate::deliver::wire::Epoch;
use crate::detect::correlate::Correlator;
use crate::detect::fold::Folder;
use crate::detect::{Detection, Kept};
use crate::metrics::AgentMetrics;
use crate::record::{Mark, Progress, SourceId};

/// A first alert waits this long for company.
const COMMIT_AFTER: Duration = Duration::from_millis(20);
/// So many alerts wait no longer.
const COMMIT_AT: usize = 64;
/// A position that moved without an alert is committed this often.
const POSITION_AFTER: Duration = Duration::from_secs(1);
/// Between tries of a commit that failed for want of space or by an I/O error.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("cannot write the spool")]
    Spool(#[source] SpoolError),
    #[error(
        "stopped while the spool could not be written: {alerts} alerts are read again at the next start"
    )]
    Stopped {
        alerts: usize,
        #[source]
        cause: SpoolError,
    },
}

/// Which position a mark replaces: files by device and inode, so that a file's new life replaces its old one.
type Stream = (SourceId, Option<(u64, u64)>);

/// Correlates, folds and commits, in the order in which chunks arrive.
pub struct Keeper {
    spool: Arc<Mutex<Spool>>,
    folder: Folder,
    correlator: Correlator,
    secret: HostSecret,
    rules: Rules,
    /// Of the rules whose windows are kept; those of others are dropped at the next tick.
    digest: String,
    alerts: Vec<Alert>,
    progress: HashMap<Stream, Progress>,
    /// When the first of `alerts` and the first of `progress` came.
    alerts_since: Option<Instant>,
    progress_since: Option<Instant>,
    metrics: AgentMetrics,
    pulse: Pulse,
    stop: CancellationToken,
    /// Of the spool that holds all of the folds and windows.
    epoch: Epoch,
}

/// What a keeper works with.
pub struct Parts {
    pub spool: Arc<Mutex<Spool>>,
    pub folder: Folder,
    pub correlator: Correlator,
    pub secret: HostSecret,
    pub rules: Rules,
    pub metrics: AgentMetrics,
    pub pulse: Pulse,
    /// Ends the wait for a disk that stays full.
    pub stop: CancellationToken,
}

impl Keeper {
    /// Takes back the folds and windows that the spool kept.
    pub fn new(mut parts: Parts, restored: &mut Restored) -> Self {
        parts.folder.restore(std::mem::take(&mut restored.folds));
        let windows = std::mem::take(&mut restored.windows).into_iter();
        let unreadable = parts.correlator.restore(
            windows
                .map(|(key, value)| Kept {
                    key,
                    value: Some(value),
                })
                .collect(),
        );
        if unreadable > 0 {
            warn!(
                windows = unreadable,
                "correlation windows of the spool can't be read"
            );
        }
        let epoch = (parts.spool.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .epoch();
        Self {
            epoch,
            spool: parts.spool,
            folder: parts.folder,
            correlator: parts.correlator,
            secret: parts.secret,
            rules: parts.rules,
            digest: String::new(),
            alerts: Vec::new(),
            progress: HashMap::new(),
            alerts_since: None,
            progress_since: None,
            metrics: parts.metrics,
            pulse: parts.pulse,
            stop: parts.stop,
        }
    }

    pub fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    /// Takes a chunk whole: a commit never falls within one.
    pub fn take(&mut self, chunk: Chunk, now: Timestamp) {
        let mut correlated = Vec::new();
        for detection in chunk.detections {
            self.correlator
                .observe(&detection, &self.secret, now, &mut correlated);
            self.fold(detection, now);
            for detection in correlated.drain(..) {
                self.fold(detection, now);
            }
        }
        if let Some(progress) = chunk.progress {
            let file = match &progress.mark {
                Mark::File { file, .. } => Some((file.device, file.inode)),
                Mark::Cursor(_) | Mark::Counter { .. } => None,
            };
            self.progress
                .insert((progress.source.clone(), file), progress);
            self.progress_since.get_or_insert_with(Instant::now);
        }
        self.note_alerts();
    }

    /// Lets the clock close folds and windows.
    pub fn tick(&mut self, now: Timestamp) {
        let rules = self.rules.current();
        if rules.digest() != self.digest {
            self.digest = rules.digest().to_owned();
            self.correlator.keep_only(&rules);
        }
        self.folder.tick(now, &mut self.alerts);
        self.correlator.tick(now);
        self.note_alerts();
        self.count_evicted();
        self.metrics.folds_open.set(count(self.folder.open()));
        self.metrics
            .windows_open
            .set(count(self.correlator.groups()));
    }

    fn count_evicted(&self) {
        let windows = self.correlator.evicted();
        for (kind, evicted) in [
            ("fold", self.folder.evicted()),
            ("window", windows.groups),
            ("window_event", windows.events),
        ] {
            let counter = self.metrics.evicted.with_label_values(&[kind]);
            counter.inc_by(evicted.saturating_sub(counter.get()));
        }
    }

    /// When the next commit is due; `None`: nothing waits.
    pub fn due(&self) -> Option<Instant> {
        let alerts = self.alerts_since.map(|since| since + COMMIT_AFTER);
        let progress = self.progress_since.map(|since| since + POSITION_AFTER);
        match (alerts, progress) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        }
    }

    pub fn is_due(&self, now: Instant) -> bool {
        self.alerts.len() >= COMMIT_AT || self.due().is_some_and(|due| due <= now)
    }

    /// Alerts that wait for a commit.
    pub fn waiting(&self) -> usize {
        self.alerts.len()
    }

    /// Commits all that waits; returns whether there were alerts in it. A full disk or an I/O error is waited out:
    /// the files wait meanwhile, and what can't wait is counted where it is dropped.
    pub fn commit(&mut self) -> Result<bool, KeeperError> {
        let had_alerts = self.commit_changed()?;
        let epoch = self.epoch_now();
        if epoch != self.epoch {
            // A damaged spool was mended, here or by the forwarder, and may have lost some of what it kept.
            warn!("the spool began a new epoch; folds and windows are written again");
            self.epoch = epoch;
            self.folder.touch_all();
            self.correlator.touch_all();
            self.commit_changed()?;
        }
        Ok(had_alerts)
    }

    fn commit_changed(&mut self) -> Result<bool, KeeperError> {
        let entries: Vec<Entry> = (self.folder.changed().into_iter())
            .map(|kept| entry(Room::Folds, kept))
            .chain((self.correlator.changed().into_iter()).map(|kept| entry(Room::Windows, kept)))
            .collect();
        if self.alerts.is_empty() && self.progress.is_empty() && entries.is_empty() {
            return Ok(false);
        }
        let progress: Vec<Progress> = self
            .progress
            .drain()
            .map(|(_, progress)| progress)
            .collect();
        let commit = Commit {
            alerts: &self.alerts,
            progress: &progress,
            kept: &entries,
        };
        self.write(&commit)?;
        let had_alerts = !self.alerts.is_empty();
        for alert in self.alerts.drain(..) {
            self.metrics
                .alerts
                .with_label_values(&[alert.rule.level.as_str()])
                .inc();
        }
        self.alerts_since = None;
        self.progress_since = None;
        Ok(had_alerts)
    }

    fn epoch_now(&self) -> Epoch {
        let spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        spool.epoch()
    }

    fn write(&self, commit: &Commit<'_>) -> Result<(), KeeperError> {
        let mut is_first = true;
        loop {
            let outcome = {
                let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
                spool.commit(commit, Timestamp::now())
            };
            match outcome {
                Ok(()) => {
                    if !is_first {
                        info!("the spool can be written again");
                        self.metrics.degraded.with_label_values(&["spool"]).set(0);
                    }
                    return Ok(());
                }
                Err(cause) if cause.is_transient() => {
                    self.metrics.commit_retries.inc();
                    if is_first {
                        error!(error = %cause, "cannot write the spool; reading waits");
                        self.metrics.degraded.with_label_values(&["spool"]).set(1);
                        is_first = false;
                    }
                    if self.stop.is_cancelled() {
                        return Err(KeeperError::Stopped {
                            alerts: self.alerts.len(),
                            cause,
                        });
                    }
                    self.pulse.beat();
                    std::thread::sleep(RETRY_AFTER);
                }
                Err(cause) => return Err(KeeperError::Spool(cause)),
            }
        }
    }

    fn fold(&mut self, detection: Detection, now: Timestamp) {
        if detection.rule().silent {
            return;
        }
        let level: Severity = detection.rule().reference.level;
        let before = self.alerts.len();
        self.folder.observe(detection, now, &mut self.alerts);
        if self.alerts.len() == before {
            self.metrics
                .folded
                .with_label_values(&[level.as_str()])
                .inc();
        }
    }

    fn note_alerts(&mut self) {
        if !self.alerts.is_empty() {
            self.alerts_since.get_or_insert_with(Instant::now);
        }
    }
}

fn entry(room: Room, kept: Kept) -> Entry {
    Entry {
        room,
        key: kept.key,
        value: kept.value,
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::spool::Limits;
    use crate::deliver::wire::Seen;
    use crate::detect::mask::Masker;
    use crate::detect::rule::{RuleIndex, RuleText, Ruleset};
    use crate::detect::{Scene, Sighting, fold};
    use crate::event::Event;
    use crate::record::{Position, Record};

    const RULE: &str = "title: Any
id: 00000000-0000-4000-8000-00000000000a
logsource: { product: linux }
detection: { s: { User: x }, condition: s }
level: low
";

    #[test]
    fn another_epoch_begun_by_the_forwarder_has_all_state_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool.db");
        let metrics = AgentMetrics::default();
        let now = Timestamp::now();
        let (spool, mut restored) = Spool::open(&path, Limits::default(), &metrics, now).unwrap();
        let spool = Arc::new(Mutex::new(spool));
        let parts = Parts {
            spool: Arc::clone(&spool),
            folder: Folder::new(fold::Config::default()),
            correlator: Correlator::default(),
            secret: HostSecret::new(&[1; 32]),
            rules: Rules::new(Ruleset::compile(&[]).0),
            pulse: Pulse::default(),
            metrics,
            stop: CancellationToken::new(),
        };
        let mut keeper = Keeper::new(parts, &mut restored);
        keeper.take(chunk(vec![detection()]), now);
        assert!(keeper.commit().unwrap());
        keeper.folder.touch_all();
        let lost: Vec<Entry> = (keeper.folder.changed().into_iter())
            .map(|kept| Entry {
                value: None,
                ..entry(Room::Folds, kept)
            })
            .collect();
        assert_eq!(lost.len(), 2, "a fold and what was spent of the budget");
        // As when the forwarder meets damage and mends it, but not all that was kept can be read.
        {
            let mut spool = spool.lock().unwrap();
            let epoch = spool.epoch();
            spool.seen(Seen { epoch, next: 1000 }).unwrap();
            assert_ne!(spool.epoch(), epoch);
            let commit = Commit {
                kept: &lost,
                ..Commit::default()
            };
            spool.commit(&commit, now).unwrap();
        }
        keeper.take(chunk(Vec::new()), now);
        keeper.commit().unwrap();
        drop((keeper, spool));
        let metrics = AgentMetrics::default();
        let (_, restored) = Spool::open(&path, Limits::default(), &metrics, now).unwrap();
        assert_eq!(restored.folds.len(), 2);
    }

    fn chunk(detections: Vec<Detection>) -> Chunk {
        Chunk {
            detections,
            progress: Some(Progress {
                source: SourceId::new("capture:eth0"),
                mark: Mark::Counter { start: 1 },
                held: Vec::new(),
            }),
        }
    }

    fn detection() -> Detection {
        let texts = [RuleText {
            file: "r.yml",
            text: RULE,
        }];
        let scene = Scene {
            secret: HostSecret::new(&[1; 32]),
            masker: Masker::new(&[2; 32]),
            host: "web1".to_owned(),
        };
        let record = Record {
            position: Position::Counter {
                start: 1,
                number: 1,
            },
            read_at: Timestamp::now(),
            bytes: bytes::Bytes::new(),
            cut: false,
        };
        let seen = Sighting {
            source: &SourceId::new("capture:eth0"),
            record: &record,
            event: &Event::new(b"raw"),
            number: 0,
        };
        scene.detection(&Arc::new(Ruleset::compile(&texts).0), RuleIndex(0), &seen)
    }
}
