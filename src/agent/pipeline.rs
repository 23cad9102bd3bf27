//! Joins the rooms of an agent: sources hand records to workers, workers hand detections to one keeper, the keeper
//! commits. Bounded channels between them: a slow disk slows the files, and nothing else is lost.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tracing::{error, warn};

use crate::agent::keeper::{Keeper, KeeperError};
use crate::alert::Severity;
use crate::decode;
use crate::decode::audit::process::Program;
use crate::decode::net::{NetDecoder, Viewpoint};
use crate::decode::{Decoder, Format, Surroundings};
use crate::detect::rule::{Ruleset, Scratch};
use crate::detect::{Detection, Scene, Sighting};
use crate::metrics::AgentMetrics;
use crate::record::{Mark, Position, Progress, Record, SourceId};
use crate::source::{Inflow, Stream};
use crate::source::{capture, process};

/// Decoders kept at most; beyond it those that hold nothing are made anew when they are needed.
const DECODERS_MAX: usize = 4096;
/// Chunks between the workers and the keeper: a second of a busy host, and under 16 MiB.
pub const CHUNKS_MAX: usize = 64;
/// Records on which a decoder failed, kept for `doctor`.
const FAILED_MAX: usize = 16;

/// The rules in force; a new set is taken between chunks, never within.
#[derive(Debug, Clone)]
pub struct Rules(Arc<RwLock<Arc<Ruleset>>>);

impl Rules {
    pub fn new(ruleset: Ruleset) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ruleset))))
    }

    pub fn current(&self) -> Arc<Ruleset> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, ruleset: Ruleset) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ruleset);
    }
}

/// Beats while the pipeline's last stage makes progress, also while it waits for a full disk: a hang is what stops it.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a worker hands on, also when nothing matched.
#[derive(Debug)]
pub struct Chunk {
    pub detections: Vec<Detection>,
    pub progress: Option<Progress>,
}

/// Records on which a decoder or the matcher failed; raw, so they stay in memory.
pub type Failed = Arc<Mutex<VecDeque<Record>>>;

/// The state of one stream in its worker.
struct Lane {
    decoder: Box<dyn Decoder>,
    /// How far the stream is read; `None` while what was held at the last end is read again.
    mark: Option<Mark>,
    /// Of the last record.
    position: Option<Position>,
}

/// Decodes and judges the records of some streams; one a thread.
pub struct Worker {
    rules: Rules,
    scene: Arc<Scene>,
    around: Surroundings,
    lanes: HashMap<SourceId, Lane>,
    /// When decoders were last asked for what they hold back.
    flushed: Instant,
    scratch: Scratch,
    metrics: AgentMetrics,
    failed: Failed,
}

impl Worker {
    pub fn new(
        rules: Rules,
        scene: Arc<Scene>,
        around: Surroundings,
        metrics: AgentMetrics,
        failed: Failed,
    ) -> Self {
        Self {
            rules,
            scene,
            around,
            lanes: HashMap::new(),
            flushed: Instant::now(),
            scratch: Scratch::default(),
            metrics,
            failed,
        }
    }

    /// Runs until the sources are gone or the keeper is.
    pub fn run(mut self, inlet: &Receiver<Inflow>, outlet: &SyncSender<Chunk>) {
        loop {
            match inlet.recv_timeout(FLUSH) {
                Ok(inflow) => {
                    if outlet.send(self.judge(&inflow)).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.flushed.elapsed() >= FLUSH {
                self.flushed = Instant::now();
                for chunk in self.flush(Timestamp::now()) {
                    if outlet.send(chunk).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns what decoders held back for others to join, and what will not be joined any more.
    pub fn flush(&mut self, now: Timestamp) -> Vec<Chunk> {
        let waiting: Vec<SourceId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.mark.is_some() && lane.position.is_some())
            .map(|(id, _)| id.clone())
            .collect();
        waiting
            .iter()
            .filter_map(|id| self.flush_lane(id, now))
            .collect()
    }

    fn flush_lane(&mut self, id: &SourceId, now: Timestamp) -> Option<Chunk> {
        let ruleset = self.rules.current();
        let lane = self.lanes.get_mut(id)?;
        // What a flush gives is known by where it began: the first record held, which no other event begins with.
        let position = match lane.decoder.held().first() {
            Some(range) => Position::Offset {
                file: range.file,
                offset: range.from,
            },
            None => lane.position.clone()?,
        };
        let mut record = Record {
            position,
            read_at: now,
            bytes: Bytes::new(),
            cut: false,
        };
        let mut detections = Vec::new();
        let mut number = 0;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            lane.decoder.flush(now, ruleset.fields(), &mut |event| {
                record.bytes = Bytes::copy_from_slice(event.raw);
                let seen = Sighting {
                    source: id,
                    record: &record,
                    event,
                    number,
                };
                ruleset.matches(event, &mut self.scratch, |index, _| {
                    detections.push(self.scene.detection(&ruleset, index, &seen));
                });
                number += 1;
            });
        }));
        if outcome.is_err() {
            self.lanes.remove(id);
            self.scratch = Scratch::default();
            self.note_failure(&record);
            return None;
        }
        if number == 0 {
            return None;
        }
        self.metrics.events.inc_by(number.into());
        self.count(&detections);
        let lane = self.lanes.get(id)?;
        Some(Chunk {
            detections,
            progress: lane.mark.clone().map(|mark| Progress {
                source: id.clone(),
                mark,
                held: lane.decoder.held().to_vec(),
            }),
        })
    }

    /// Returns what the rules found in the records, and how far their stream is read.
    pub fn judge(&mut self, inflow: &Inflow) -> Chunk {
        let ruleset = self.rules.current();
        let stream = &inflow.stream;
        if self.lanes.len() >= DECODERS_MAX {
            self.lanes.retain(|_, lane| !lane.decoder.held().is_empty());
        }
        let mut detections = Vec::new();
        let mut tally = Tally::default();
        for record in &inflow.records {
            let lane = self
                .lanes
                .entry(stream.id.clone())
                .or_insert_with(|| Lane::new(stream, &self.around));
            let mut number = 0;
            let before = detections.len();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                lane.decoder.decode(record, ruleset.fields(), &mut |event| {
                    let seen = Sighting {
                        source: &stream.id,
                        record,
                        event,
                        number,
                    };
                    ruleset.matches(event, &mut self.scratch, |index, _| {
                        detections.push(self.scene.detection(&ruleset, index, &seen));
                    });
                    number += 1;
                })
            }));
            tally.events += u64::from(number);
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(_)) => tally.undecodable += 1,
                Err(_) => {
                    detections.truncate(before);
                    self.lanes.remove(&stream.id);
                    self.scratch = Scratch::default();
                    self.note_failure(record);
                }
            }
        }
        self.publish(inflow, &detections, &tally);
        let lane = self.lanes.get_mut(&stream.id);
        let held = lane.map(|lane| {
            lane.mark.clone_from(&inflow.mark);
            if let Some(last) = inflow.records.last() {
                lane.position = Some(last.position.clone());
            }
            lane.decoder.held().to_vec()
        });
        Chunk {
            detections,
            progress: inflow.mark.clone().map(|mark| Progress {
                source: stream.id.clone(),
                mark,
                held: held.unwrap_or_default(),
            }),
        }
    }

    fn note_failure(&self, record: &Record) {
        self.metrics.panics.inc();
        error!(at = %record.position, "a decoder failed on a record; please report it");
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() == FAILED_MAX {
            failed.pop_front();
        }
        failed.push_back(record.clone());
    }

    /// Sources count what they read; this counts what became of it.
    fn publish(&self, inflow: &Inflow, detections: &[Detection], tally: &Tally) {
        let metrics = &self.metrics;
        metrics
            .undecodable
            .with_label_values(&[inflow.stream.kind])
            .inc_by(tally.undecodable);
        metrics.events.inc_by(tally.events);
        self.count(detections);
    }

    fn count(&self, detections: &[Detection]) {
        for level in Severity::ALL {
            let count = detections
                .iter()
                .filter(|detection| detection.rule().reference.level == level)
                .count();
            if count > 0 {
                self.metrics
                    .detections
                    .with_label_values(&[level.as_str()])
                    .inc_by(count as u64);
            }
        }
    }
}

impl Lane {
    fn new(stream: &Stream, around: &Surroundings) -> Self {
        Self {
            decoder: decoder(stream, around),
            mark: None,
            position: None,
        }
    }
}

/// An older record may be of another process of the same number.
const FRESH: SignedDuration = SignedDuration::from_secs(10);

/// What a process runs now, for a record that was written just before.
pub fn running(pid: u32, written: Timestamp) -> Option<Program> {
    if Timestamp::now().duration_since(written) > FRESH {
        return None;
    }
    let process = process::look(pid)?;
    Some(Program {
        image: process.image.into(),
        command: process.command.into(),
    })
}

/// Packets of an interface are this host's own; those of a recording may be any host's.
fn decoder(stream: &Stream, around: &Surroundings) -> Box<dyn Decoder> {
    match stream.format {
        Format::Packet(link) if stream.kind == capture::KIND => {
            let own = capture::available()
                .into_iter()
                .flat_map(|interface| interface.addresses)
                .collect();
            Box::new(NetDecoder::new(link, Viewpoint::Host(own)))
        }
        format => decode::for_format(format, around),
    }
}

#[derive(Default)]
struct Tally {
    events: u64,
    undecodable: u64,
}

/// Runs the keeper until every worker is gone, then commits what is left.
///
/// # Errors
/// When the spool can't be written in a way that waiting does not mend.
pub fn keep(mut keeper: Keeper, inlet: &Receiver<Chunk>, wake: &Notify) -> Result<(), KeeperError> {
    let mut ticked = Instant::now();
    loop {
        keeper.pulse().beat();
        let now = Instant::now();
        if now.duration_since(ticked) >= TICK {
            keeper.tick(Timestamp::now());
            ticked = now;
        }
        if keeper.is_due(Instant::now()) && keeper.commit()? {
            wake.notify_one();
        }
        let wait = keeper
            .due()
            .map_or(TICK, |due| due.saturating_duration_since(Instant::now()))
            .min(TICK);
        match inlet.recv_timeout(wait) {
            Ok(chunk) => keeper.take(chunk, Timestamp::now()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if keeper.commit()? {
        wake.notify_one();
    }
    warn_if_any_left(&keeper);
    Ok(())
}

/// How often decoders are asked for what they hold back: half of what a joined event may wait.
const FLUSH: Duration = Duration::from_secs(1);

/// How often folds and windows are looked at by the clock.
const TICK: Duration = Duration::from_secs(1);

fn warn_if_any_left(keeper: &Keeper) {
    if keeper.waiting() > 0 {
        warn!(
            alerts = keeper.waiting(),
            "alerts left uncommitted at the end"
        );
    }
}
