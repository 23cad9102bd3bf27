//! Tails files: one thread for all of them. A file waits on disk while the pipeline is full, is known again after a
//! rename, a copy, a truncation or a restart, and gives each of its lines once. Knows nothing of what lines say.
//!
//! No position is kept here: each inflow carries its mark, and what was not committed is read again. A file keeps its
//! stream for life, also under other names. When another file takes over the path while the former is still known, its
//! stream is `file.2:/path` (or the next free number), so that neither overwrites the other's mark.

mod identity;
mod read;
mod tail;
mod scan;
mod watch;
mod courier;
mod table;
mod turn;
mod rotate;
mod restore;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Deserializer, de};

use crate::decode::Format;
use crate::metrics::AgentMetrics;
use crate::record::{FileId, SourceId};
use crate::source::file::courier::{Courier, KIND, RETRY};
use crate::source::file::identity::{BEFORE_BYTES, Inode, Place};
use crate::source::file::read::WINDOW_BYTES;
use crate::source::file::restore::Claim;
use crate::source::file::rotate::Ended;
use crate::source::file::scan::Entry;
use crate::source::file::tail::{Presence, Tail};
use crate::source::file::turn::Turn;
use crate::source::file::watch::{Hints, Watch};
use crate::source::{Closed, Health, Outlet, Resume, Source, SourceError, Stop};

/// Files that one pattern names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `*`, `?`, `[a-z]` within a name, `**` for any number of directories.
    #[serde(deserialize_with = "pattern")]
    pub path: String,
    #[serde(default)]
    pub decode: Format,
    /// Where the files begin that are there at the very first start. Later ones are read whole.
    #[serde(default)]
    pub from: FirstRead,
    /// Patterns of files to leave out; one without a slash is of the name alone.
    #[serde(default, deserialize_with = "patterns")]
    pub exclude: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirstRead {
    Begin,
    #[default]
    End,
}

/// What happens how often.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Every file is looked at, whatever is hinted.
    sweep: Duration,
    /// Patterns are looked at when no name is hinted.
    scan: Duration,
    /// A file that lost its name is read until nothing came for so long: writers keep it open until they are told.
    grace: Duration,
    hints: Hinting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hinting {
    On,
    /// As on a network file system.
    #[cfg(test)]
    Off,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            sweep: Duration::from_secs(2),
            scan: Duration::from_secs(10),
            grace: Duration::from_secs(5),
            hints: Hinting::On,
        }
    }
}

/// Names that come in a burst are looked at together; and scans take a tenth of the time at most.
const SCAN_GAP: Duration = Duration::from_millis(50);
/// One file's share of a round, so that a fast one starves nobody.
const TURN_BYTES: usize = 1 << 20;
/// Idle files beyond so many are closed and opened again when they change.
const OPEN_MAX: usize = 512;
/// Inodes whose last file is remembered, in case they are used again.
const FORMER_MAX: usize = 1024;

/// The source of all configured files.
pub struct Files {
    configs: Vec<Config>,
    metrics: AgentMetrics,
    pace: Pace,
}

impl Files {
    pub fn new(configs: &[Config], metrics: &AgentMetrics) -> Self {
        Self {
            configs: configs.to_vec(),
            metrics: metrics.clone(),
            pace: Pace::default(),
        }
    }
}

impl Source for Files {
    fn name(&self) -> String {
        KIND.into()
    }

    fn run(
        self: Box<Self>,
        from: Resume,
        out: &Outlet,
        stop: &Stop,
        health: &Health,
    ) -> Result<(), SourceError> {
        let entries = self.configs.iter().map(Entry::new);
        let entries = entries.collect::<Result<_, _>>()?;
        let courier = Courier::new(out, health, &self.metrics);
        match Reader::new(entries, courier, stop, from, self.pace).run() {
            Err(Closed) if !stop.is_set() => Err(Closed.into()),
            _ => Ok(()),
        }
    }
}

struct Reader<'a> {
    entries: Vec<Entry>,
    tails: BTreeMap<Inode, Tail>,
    /// Files that may have more to read, the next first.
    ready: VecDeque<Inode>,
    /// Opened files, the longest ago first; some may be closed again.
    opened: VecDeque<Inode>,
    /// What changes are told under.
    names: HashMap<PathBuf, Inode>,
    streams: HashSet<SourceId>,
    /// The last file of inodes that are not followed now.
    former: HashMap<Inode, FileId>,
    /// How far files were read that lost their names and were let go.
    left: HashMap<Inode, Place>,
    /// When a file that is not followed now was written last, by the path that it was found at.
    last_known: HashMap<PathBuf, SystemTime>,
    /// Contents that ended without a copy being found.
    ended: Vec<Ended>,
    /// Marks whose file can't be reached yet.
    claims: Vec<Claim>,
    /// Paths with a fault that belongs to no followed file.
    faults: HashSet<SourceId>,
    resume: Option<Resume>,
    courier: Courier<'a>,
    watch: Watch,
    stop: &'a Stop,
    pace: Pace,
    scan_at: Instant,
    scan_not_before: Instant,
    /// A directory is watched since the last look at it.
    scan_again: bool,
    sweep_at: Instant,
    scratch: Vec<u8>,
}

impl<'a> Reader<'a> {
    fn new(
        entries: Vec<Entry>,
        courier: Courier<'a>,
        stop: &'a Stop,
        resume: Resume,
        pace: Pace,
    ) -> Self {
        let now = Instant::now();
        Self {
            entries,
            tails: BTreeMap::new(),
            ready: VecDeque::new(),
            opened: VecDeque::new(),
            names: HashMap::new(),
            streams: HashSet::new(),
            former: HashMap::new(),
            left: HashMap::new(),
            last_known: HashMap::new(),
            ended: Vec::new(),
            claims: Vec::new(),
            faults: HashSet::new(),
            resume: Some(resume),
            courier,
            watch: Watch::new(stop, pace.hints),
            stop,
            pace,
            scan_at: now,
            scan_not_before: now,
            scan_again: false,
            sweep_at: now + pace.sweep,
            scratch: vec![0; BEFORE_BYTES + WINDOW_BYTES],
        }
    }

    fn run(mut self) -> Result<(), Closed> {
        while !self.stop.is_set() {
            let now = Instant::now();
            if now >= self.scan_at {
                self.scan(now);
                let gap = SCAN_GAP.max(now.elapsed() * 10);
                self.scan_not_before = Instant::now() + gap;
                self.scan_at = Instant::now() + self.pace.scan.max(gap);
                if std::mem::take(&mut self.scan_again) {
                    self.scan_soon();
                }
            }
            if now >= self.sweep_at {
                self.sweep();
                self.sweep_at = Instant::now() + self.pace.sweep;
            }
            let is_blocked = self.round()? | self.courier.flush()?;
            let hints = if is_blocked {
                self.watch.pause(Instant::now() + RETRY);
                self.watch.wait(Instant::now())
            } else if self.ready.is_empty() {
                self.watch.wait(self.scan_at.min(self.sweep_at))
            } else {
                self.watch.wait(Instant::now())
            };
            self.heed(hints);
        }
        Ok(())
    }

    fn heed(&mut self, hints: Hints) {
        if hints.is_blind {
            let all: Vec<Inode> = self.tails.keys().copied().collect();
            all.into_iter().for_each(|inode| self.queue(inode));
        }
        for name in &hints.changed {
            if let Some(inode) = self.names.get(name) {
                self.queue(*inode);
            }
        }
        if hints.is_blind || hints.has_new_names {
            self.scan_soon();
        }
    }

    fn scan_soon(&mut self) {
        self.scan_at = self.scan_at.min(self.scan_not_before);
    }

    fn queue(&mut self, inode: Inode) {
        if let Some(tail) = self.tails.get_mut(&inode)
            && !std::mem::replace(&mut tail.is_queued, true)
        {
            self.ready.push_back(inode);
        }
    }

    /// Looks at each file by its path; notices what no hint told.
    fn sweep(&mut self) {
        let mut changed = Vec::new();
        let mut has_moved = false;
        for tail in self.tails.values_mut() {
            let is_away = tail.presence == Presence::Left || tail.path != tail.base;
            let mut is_changed = tail.has_fault || (is_away && tail.file.is_some());
            if tail.presence == Presence::Here {
                match std::fs::metadata(&tail.path) {
                    Ok(meta) if Inode::of(&meta) == tail.inode => {
                        let stamp = Some(tail::stamp(&meta));
                        is_changed |= std::mem::replace(&mut tail.stamp, stamp) != stamp;
                    }
                    Ok(_) => has_moved = true,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => has_moved = true,
                    Err(_) => is_changed = true,
                }
            }
            if is_changed {
                changed.push(tail.inode);
            }
        }
        changed.into_iter().for_each(|inode| self.queue(inode));
        if has_moved {
            self.scan_soon();
        }
        let open = self.tails.values().filter(|tail| tail.file.is_some());
        let faults = self.tails.values().filter(|tail| tail.has_fault).count();
        self.courier
            .opened(open.count(), faults + self.faults.len());
        self.ended.retain(Ended::is_fresh);
    }

    /// Gives each ready file one turn; true when all that are left wait for a worker.
    fn round(&mut self) -> Result<bool, Closed> {
        let mut has_read = false;
        let mut waiting = Vec::new();
        for _ in 0..self.ready.len() {
            let Some(inode) = self.ready.pop_front().filter(|_| !self.stop.is_set()) else {
                return Ok(false);
            };
            let turn = self.turn(inode)?;
            has_read |= turn != Turn::Blocked;
            match turn {
                Turn::More => self.queue(inode),
                Turn::Blocked => waiting.push(inode),
                Turn::Idle | Turn::Over => (),
            }
        }
        // Who got nothing is first when there is room again.
        let is_blocked = !has_read && !waiting.is_empty();
        for inode in waiting.into_iter().rev() {
            self.queue_first(inode);
        }
        Ok(is_blocked)
    }

    fn queue_first(&mut self, inode: Inode) {
        if let Some(tail) = self.tails.get_mut(&inode)
            && !std::mem::replace(&mut tail.is_queued, true)
        {
            self.ready.push_front(inode);
        }
    }
}

/// A pattern that can't be read is a fault of the configuration, told with its line.
fn pattern<'d, D: Deserializer<'d>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Err(de::Error::custom("the path is empty"));
    }
    let read = glob::Pattern::new(&text).map(|_| ());
    read.map_err(|error| de::Error::custom(format_args!("invalid pattern {text:?}: {error}")))?;
    Ok(text)
}

fn patterns<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Checked(#[serde(deserialize_with = "pattern")] String);
    let texts = Vec::<Checked>::deserialize(from)?;
    Ok(texts.into_iter().map(|Checked(text)| text).collect())
}

#[cfg(test)]
mod tests;
