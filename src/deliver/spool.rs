//! The agent's memory, one SQLite file: alerts to send, how far each stream was read, what folds and windows hold, and
//! the ledger. A commit is durable when it returns. Sends nothing and knows no network.

mod books;
mod change;
mod error;
mod file;
mod ledger;
mod limits;
mod positions;
mod salvage;
mod store;

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::value::RawValue;

use crate::alert::{Alert, Severity};
use crate::deliver::spool::file::{Beginning, Files};
use crate::deliver::spool::ledger::Why;
use crate::deliver::spool::store::Store;
use crate::deliver::wire::{Epoch, Ledger, Seen, Sequence};
use crate::metrics::AgentMetrics;
use crate::record::Progress;

pub use crate::deliver::spool::error::SpoolError;
pub use crate::deliver::spool::limits::Limits;

/// Whose kept state it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Room {
    Folds,
    Windows,
}

/// A change of kept state: a new value, or the end of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub room: Room,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
}

/// What goes into one transaction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Commit<'a> {
    pub alerts: &'a [Alert],
    pub progress: &'a [Progress],
    pub kept: &'a [Entry],
}

/// What the last life of the agent left.
#[derive(Debug, Clone, PartialEq)]
pub struct Restored {
    pub progress: Vec<Progress>,
    pub folds: Vec<(Vec<u8>, Vec<u8>)>,
    pub windows: Vec<(Vec<u8>, Vec<u8>)>,
    /// Grows by one at each start and is never used twice. A new spool begins at the seconds of the clock, so a lost
    /// spool repeats no number either.
    pub start: u64,
    /// There was no spool before.
    pub first: bool,
    pub salvaged: Option<Salvage>,
    pub last_commit: Option<Timestamp>,
}

/// What was saved of a damaged spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvage {
    /// Where the damaged file lies now.
    pub set_aside: PathBuf,
    /// Waiting alerts saved.
    pub alerts: u64,
    /// Waiting alerts lost, where the file still told how many there were.
    pub alerts_lost: Option<u64>,
    pub positions: Positions,
    pub positions_saved: u64,
    /// Folds and windows saved.
    pub kept: u64,
    /// None of them was lost.
    pub kept_whole: bool,
    pub dead_letters: u64,
}

/// Where the positions come from after damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Positions {
    /// All from the spool's own table.
    Table,
    /// The table has holes, filled from the hourly copy of this time: what came after is read again.
    Copy(Timestamp),
    /// The table has holes and there is no copy: files of the last 24 hours are to be read from their start.
    Lost,
}

/// A waiting row. It holds the epoch too: an answer that comes after an epoch has ended removes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    pub epoch: Epoch,
    pub seq: Sequence,
}

/// What a request carries.
#[derive(Debug, Clone)]
pub struct Batch {
    pub epoch: Epoch,
    pub rows: Vec<Row>,
}

#[derive(Debug, Clone)]
pub struct Row {
    pub id: RowId,
    pub seq: Sequence,
    pub level: Severity,
    pub alert: Box<RawValue>,
}

/// What followed from what the centre has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeenOutcome {
    /// Nothing: both know the same, or the centre spoke of another epoch.
    InStep,
    /// The agent was restored from a copy; so many waiting rows were numbered anew.
    NewEpoch { epoch: Epoch, waiting: u64 },
    /// The centre was restored; so many acknowledged rows wait again.
    SentAgain { rows: u64 },
}

/// The open spool, its only owner in its only process. Damage that shows while it is open is mended in place: what can
/// be read goes to a new file with a new epoch, and the call is done there.
pub struct Spool {
    hold: RefCell<Hold>,
    epoch: Cell<Epoch>,
    start: u64,
    salvaged: RefCell<Option<Salvage>>,
    positions_copied: Option<Timestamp>,
    limits: Limits,
    metrics: AgentMetrics,
    files: Files,
    _lock: File,
}

enum Hold {
    Open(Box<Store>),
    /// To be salvaged at the next call.
    Damaged,
}

impl Spool {
    /// Opens the spool at this path, or makes it, and its folder if need be. What is damaged is set aside as
    /// `<path>.damaged` and what can be read is saved.
    ///
    /// # Errors
    /// The folder can't be used or another process uses it, the disk is full or fails, the file is a newer agent's.
    /// Damage is none.
    pub fn open(
        path: &Path,
        limits: Limits,
        metrics: &AgentMetrics,
        now: Timestamp,
    ) -> Result<(Self, Restored), SpoolError> {
        let files = Files::at(path)?;
        let lock = files.lock()?;
        files.finish_swap()?;
        let positions_copied = positions::time(&files.folder);
        let beginning = Beginning {
            epoch: new_epoch()?,
            start: u64::try_from(now.as_second()).unwrap_or_default(),
            last_commit: None,
            reserve_bytes: limits.reserve_bytes,
        };
        // A copy of the positions beside no spool, or an empty file: it was lost.
        let is_empty = std::fs::metadata(path).map_or(true, |file| file.len() == 0);
        let is_lost = is_empty && positions_copied.is_some();
        let opened = match is_lost {
            true => None,
            false => unless_damaged(restore(&files, &beginning))?,
        };
        let (store, restored) = match opened {
            Some(opened) => opened,
            None => {
                let saved = salvage(&files, &beginning, metrics)?;
                let (store, restored) = restore(&files, &beginning)?;
                let salvaged = Some(saved);
                (
                    store,
                    Restored {
                        salvaged,
                        ..restored
                    },
                )
            }
        };
        let spool = Self {
            epoch: Cell::new(store.books.epoch),
            start: store.start,
            salvaged: RefCell::new(restored.salvaged.clone()),
            hold: RefCell::new(Hold::Open(Box::new(store))),
            positions_copied,
            limits,
            metrics: metrics.clone(),
            files,
            _lock: lock,
        };
        spool.with(|store| {
            spool.publish(store);
            Ok(())
        })?;
        Ok((spool, restored))
    }

    /// Stores all of it in one transaction; when this returns it is on the disk. Every alert gets its number here,
    /// also one that finds no place. When the spool is full, acknowledged alerts go first, then the oldest of the
    /// lowest level, the arriving one itself if it is the lowest. Each level keeps a tenth of the spool against the
    /// others, and one rule holds at most half of its level. What goes is in the ledger.
    ///
    /// # Errors
    /// Nothing was stored; the same call may be made again if [`SpoolError::is_transient`].
    pub fn commit(&mut self, commit: &Commit<'_>, now: Timestamp) -> Result<(), SpoolError> {
        if commit.alerts.is_empty() && commit.progress.is_empty() && commit.kept.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        self.with(|store| {
            let before = store.books.given_up.clone();
            store.append(commit, &self.limits, now)?;
            for level in Severity::ALL {
                let after = store.books.given_up.count(level, Why::Full);
                let given_up = after.saturating_sub(before.count(level, Why::Full));
                let counter = &self.metrics.spool_given_up;
                counter
                    .with_label_values(&[level.as_str()])
                    .inc_by(given_up);
            }
            self.publish(store);
            Ok(())
        })?;
        self.metrics
            .commit_seconds
            .observe(begun.elapsed().as_secs_f64());
        self.copy_positions(now);
        Ok(())
    }

    /// Returns what to send next: the most severe first, then the oldest, at most so many lines and bytes of the
    /// wire, yet one row if any waits. The same rows come again until they are done.
    ///
    /// # Errors
    /// The file can't be read now.
    pub fn next(&self, lines_max: usize, bytes_max: usize) -> Result<Batch, SpoolError> {
        self.with(|store| {
            let rows = store.next(lines_max, bytes_max)?;
            let epoch = store.books.epoch;
            Ok(Batch { epoch, rows })
        })
    }

    /// Removes exactly these rows from what waits: the accepted ones are kept as acknowledged for a day, the rejected
    /// ones go to the dead letters, of which the oldest go at their limit. A row that stands in both lists was
    /// rejected.
    ///
    /// # Errors
    /// The file can't be written now, and all of the rows wait still.
    pub fn done(
        &mut self,
        rows: &[RowId],
        rejected: &[(RowId, String)],
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        self.with(|store| {
            let evicted = store.done(rows, rejected, &self.limits, now)?;
            self.metrics.dead_letters_evicted.inc_by(evicted);
            self.publish(store);
            Ok(())
        })
    }

    /// Begins an epoch: what waits is numbered anew, and what was acknowledged is not sent again. For a host that
    /// became another agent: its new name would make doubles of what arrived under the old one.
    ///
    /// # Errors
    /// The file can't be written; the epoch is then as it was.
    pub fn begin_epoch(&mut self) -> Result<u64, SpoolError> {
        self.with(|store| {
            let waiting = store.begin_epoch(new_epoch()?)?;
            self.publish(store);
            Ok(waiting)
        })
    }

    /// Returns which numbers of the epoch were made, wait, were given up. All others are acknowledged.
    ///
    /// # Errors
    /// The file can't be read now.
    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        self.with(|store| store.ledger())
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch.get()
    }

    /// Compares with what the centre has seen. More than was ever sent: this spool is a restored copy, and begins a
    /// new epoch. Less than was acknowledged: the centre was restored, and what it lacks waits again under its old
    /// numbers. A centre that knows nothing of the epoch has seen `next: 1`.
    ///
    /// # Errors
    /// The file can't be written now, and nothing was changed.
    pub fn seen(&mut self, seen: Seen) -> Result<SeenOutcome, SpoolError> {
        self.with(|store| {
            if seen.epoch != store.books.epoch {
                return Ok(SeenOutcome::InStep);
            }
            let outcome = if seen.next > store.books.next {
                let epoch = new_epoch()?;
                let waiting = store.begin_epoch(epoch)?;
                SeenOutcome::NewEpoch { epoch, waiting }
            } else {
                match store.send_again(Sequence(seen.next))? {
                    0 => SeenOutcome::InStep,
                    rows => SeenOutcome::SentAgain { rows },
                }
            };
            self.publish(store);
            Ok(outcome)
        })
    }

    /// Returns what was saved when damage was last mended since the start.
    pub fn salvaged(&self) -> Option<Salvage> {
        self.salvaged.borrow().clone()
    }

    /// Makes a call; if it meets damage, mends the file and makes it once more.
    fn with<T>(
        &self,
        mut call: impl FnMut(&mut Store) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let mut hold = self.hold.borrow_mut();
        if let Hold::Open(store) = &mut *hold {
            if let Some(answer) = unless_damaged(call(store))? {
                self.epoch.set(store.books.epoch);
                return Ok(answer);
            }
            *hold = Hold::Damaged;
        }
        let beginning = Beginning {
            epoch: new_epoch()?,
            start: self.start,
            last_commit: None,
            reserve_bytes: self.limits.reserve_bytes,
        };
        let saved = salvage(&self.files, &beginning, &self.metrics)?;
        self.salvaged.replace(Some(saved));
        let mut store = Store::load(file::connect(&self.files.spool)?)?;
        let answer = call(&mut store);
        self.epoch.set(store.books.epoch);
        *hold = Hold::Open(Box::new(store));
        answer
    }

    /// Never fails: what was committed must not be committed again for want of a number to show.
    fn publish(&self, store: &Store) {
        let (metrics, books) = (&self.metrics, &store.books);
        for level in Severity::ALL {
            let gauge = metrics.spool_rows.with_label_values(&[level.as_str()]);
            gauge.set(store::signed(books.level(level).rows));
        }
        metrics
            .spool_bytes
            .set(store::signed(books.waiting_bytes()));
        metrics
            .spool_bytes_max
            .set(store::signed(self.limits.bytes_max));
        metrics
            .dead_letters_bytes
            .set(store::signed(books.dead_bytes));
        metrics
            .dead_letters_bytes_max
            .set(store::signed(self.limits.dead_bytes_max));
        if let Ok(oldest) = store.oldest() {
            metrics
                .spool_oldest
                .set(oldest.map_or(0, Timestamp::as_second));
        }
    }

    /// A copy that can't be made is made an hour later; the commit before it stands.
    fn copy_positions(&mut self, now: Timestamp) {
        let is_fresh = |time: Timestamp| time <= now && now.duration_since(time) < positions::EVERY;
        if self.positions_copied.is_some_and(is_fresh) {
            return;
        }
        let Ok(streams) = self.with(|store| store.progress()) else {
            return;
        };
        if streams.is_empty() {
            return;
        }
        self.positions_copied = Some(now);
        let copy = positions::Copy { time: now, streams };
        if let Err(error) = positions::write(&self.files.folder, &copy) {
            tracing::warn!(%error, folder = %self.files.folder.display(), "cannot copy the positions");
        }
    }
}

/// Opens the spool, makes it if there is none, and reads what the agent goes on from.
fn restore(files: &Files, beginning: &Beginning) -> Result<(Store, Restored), SpoolError> {
    file::touch(&files.spool)?;
    let mut connection = file::connect(&files.spool)?;
    let first = file::is_blank(&connection)?;
    if first {
        file::create(&mut connection, beginning)?;
        files.sync_folder()?;
    }
    let mut store = Store::load(connection)?;
    store.count_start()?;
    let restored = Restored {
        progress: store.progress()?,
        folds: store.kept(Room::Folds)?,
        windows: store.kept(Room::Windows)?,
        start: store.start,
        first,
        salvaged: None,
        last_commit: store.last_commit,
    };
    Ok((store, restored))
}

fn salvage(
    files: &Files,
    beginning: &Beginning,
    metrics: &AgentMetrics,
) -> Result<Salvage, SpoolError> {
    let saved = salvage::salvage(files, beginning)?;
    metrics.spool_salvaged.inc();
    tracing::error!(
        ?saved,
        "the spool was damaged; what could be read was saved"
    );
    Ok(saved)
}

/// Returns nothing for damage, which is mended and no error of the call.
fn unless_damaged<T>(answer: Result<T, SpoolError>) -> Result<Option<T>, SpoolError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(SpoolError::Damaged(error)) => {
            tracing::error!(%error, "the spool is damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn new_epoch() -> Result<Epoch, SpoolError> {
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| SpoolError::Random)?;
    Ok(Epoch(u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests;
