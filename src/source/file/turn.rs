//! One file's turn: recognise it, read on, hand on what came.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tracing::warn;

use crate::record::Record;
use crate::source::file::identity::{self, Head, Inode};
use crate::source::file::read::{self, Rest, WINDOW_BYTES};
use crate::source::file::rotate::Verdict;
use crate::source::file::tail::{self, Origin, Presence, Tail, Window};
use crate::source::file::{Reader, TURN_BYTES};
use crate::source::{Closed, INFLOW_RECORDS_MAX, Inflow, SourceError};

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// All is read that is there.
    Idle,
    /// And no more will come.
    Over,
    More,
    /// Nothing could be read, as the worker has no room or another file comes first.
    Blocked,
}

enum Step {
    Moved(usize),
    End,
    /// The content is another; a copy of the former comes first.
    Replaced,
    /// Another file has its turn first.
    Later,
}

impl Reader<'_> {
    /// Reads one file on, at most its share of a round.
    pub fn turn(&mut self, inode: Inode) -> Result<Turn, Closed> {
        let Some(mut tail) = self.tails.remove(&inode) else {
            return Ok(Turn::Idle);
        };
        tail.is_queued = false;
        let was_open = tail.file.is_some();
        let turn = match self.read_on(&mut tail) {
            Ok(turn) => {
                if std::mem::take(&mut tail.has_fault) {
                    self.courier.health.fault(&tail.name, None);
                }
                turn
            }
            Err(SourceError::Closed(closed)) => return Err(closed),
            Err(error) => self.failed(&mut tail, &error),
        };
        if turn == Turn::Over && tail.presence == Presence::Left {
            self.let_go(tail);
            return Ok(Turn::Idle);
        }
        if turn == Turn::Over {
            tail.file = None;
        }
        if !was_open && tail.file.is_some() {
            self.opened.push_back(inode);
        }
        let is_queued = tail.is_queued;
        self.tails.insert(inode, tail);
        if is_queued {
            self.ready.push_back(inode);
        }
        self.close_idle();
        Ok(turn)
    }

    fn failed(&mut self, tail: &mut Tail, error: &SourceError) -> Turn {
        let is_gone = matches!(error, SourceError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound);
        if is_gone && tail.presence == Presence::Here {
            self.scan_soon(); // renamed or deleted since the last look
            return Turn::Idle;
        }
        if !std::mem::replace(&mut tail.has_fault, true) {
            warn!(path = ?tail.path, error = error.told(), "cannot read file");
        }
        self.courier.health.fault(&tail.name, Some(error.told()));
        if tail.presence == Presence::Here {
            tail.file = None; // a stale handle of a network file system heals by opening anew
        }
        match tail.is_over(Instant::now(), self.pace.grace) {
            true => Turn::Over,
            false => Turn::Idle,
        }
    }

    fn read_on(&mut self, tail: &mut Tail) -> Result<Turn, SourceError> {
        let now = Instant::now();
        if self.has_to_wait(tail) {
            return Ok(Turn::Blocked);
        }
        let rest = tail.rest(now, self.pace.grace);
        let mut left = TURN_BYTES;
        loop {
            if self.courier.is_full(&tail.stream.id)? {
                let has_read = left < TURN_BYTES;
                return Ok(if has_read { Turn::More } else { Turn::Blocked });
            }
            tail.open()?;
            if matches!(tail.origin, Origin::Twin { .. }) && !self.has_parted(tail)? {
                break;
            }
            let mut scratch = std::mem::take(&mut self.scratch);
            let step = match tail.held.ranges.is_empty() {
                true => self.step(tail, &mut scratch, rest, now),
                false => self.step_held(tail, &mut scratch),
            };
            self.scratch = scratch;
            match step? {
                Step::End => break,
                Step::Replaced => return Ok(Turn::More),
                Step::Later => return Ok(Turn::Blocked),
                Step::Moved(bytes) => match left.checked_sub(bytes) {
                    Some(less) => left = less,
                    None => return Ok(Turn::More),
                },
            }
        }
        if tail.owes_mark {
            if self.courier.is_full(&tail.stream.id)? {
                return Ok(Turn::Blocked);
            }
            self.give(tail, Vec::new())?;
        }
        Ok(match rest {
            Rest::Take => Turn::Over,
            Rest::Leave => Turn::Idle,
        })
    }

    /// Whether the file whose place this one took is still to be read first.
    fn has_to_wait(&self, tail: &mut Tail) -> bool {
        let former = tail.follows.and_then(|inode| self.tails.get(&inode));
        let waits = former.is_some_and(|former| former.is_queued && !former.caught_up);
        if !waits {
            tail.follows = None;
        }
        waits
    }

    /// Reads one window and hands on what it holds.
    fn step(
        &mut self,
        tail: &mut Tail,
        scratch: &mut [u8],
        rest: Rest,
        now: Instant,
    ) -> Result<Step, SourceError> {
        let read_at = Timestamp::now();
        let Window::Same { bytes, behind } = tail.window(scratch)? else {
            self.end_life(tail, now);
            return Ok(Step::Replaced);
        };
        let window = bytes.get(behind..).unwrap_or_default();
        if tail.id.is_none() {
            let offset = tail.offset;
            match self.recognise(tail, window, rest)? {
                Verdict::Read => (),
                Verdict::Later => return Ok(Step::Later),
                Verdict::Leave => {
                    tail.reached(window.len() as u64, now);
                    return Ok(Step::End);
                }
            }
            if tail.offset != offset {
                return Ok(Step::Moved(0));
            }
        }
        let Some(id) = tail.id else {
            return Ok(Step::End);
        };
        let split = read::split(window, tail.skipping, rest);
        let end = tail.offset + window.len() as u64;
        if split.consumed > 0 {
            let records = split.records(window, id, tail.offset, read_at);
            let through = bytes.get(..behind + split.consumed).unwrap_or_default();
            tail.skipping = split.skipping;
            tail.advance(split.consumed, through);
            self.courier.skipped_nuls(split.nuls);
            self.give(tail, records)?;
        }
        if split.spans.len() < INFLOW_RECORDS_MAX && window.len() < WINDOW_BYTES {
            tail.reached(end, now);
            return Ok(Step::End);
        }
        Ok(Step::Moved(split.consumed))
    }

    /// Reads the records again that begin in the first of the held ranges. Only the last of all ranges comes with a mark:
    /// before it the stored ranges have to stay.
    fn step_held(&mut self, tail: &mut Tail, scratch: &mut [u8]) -> Result<Step, SourceError> {
        let (Some((from, to)), Some(file), Some(id)) =
            (tail.held.ranges.pop_front(), &tail.file, tail.id)
        else {
            return Ok(Step::Moved(0));
        };
        let window = scratch.get_mut(..WINDOW_BYTES).unwrap_or_default();
        let have = identity::read_at(file, window, from).map_err(|error| tail.unreadable(error))?;
        let window = window.get(..have).unwrap_or_default();
        let mut split = read::split(window, tail.held.skipping, Rest::Take);
        split.spans.retain(|span| from + (span.from as u64) < to);
        let next = from + split.consumed as u64;
        tail.held.skipping = split.skipping;
        if split.consumed > 0 && next < to {
            tail.held.ranges.push_front((next, to));
        } else {
            tail.held.skipping = false;
        }
        let inflow = Inflow {
            stream: Arc::clone(&tail.stream),
            records: split.records(window, id, from, Timestamp::now()),
            mark: tail.mark().filter(|_| tail.held.ranges.is_empty()),
        };
        self.courier.take(&tail.name, inflow)?;
        Ok(Step::Moved(split.consumed))
    }

    fn give(&mut self, tail: &mut Tail, records: Vec<Record>) -> Result<(), Closed> {
        tail.owes_mark = false;
        let inflow = Inflow {
            stream: Arc::clone(&tail.stream),
            records,
            mark: tail.mark(),
        };
        self.courier.take(&tail.name, inflow)
    }

    /// Decides what a file is as soon as its first line is there.
    fn recognise(
        &mut self,
        tail: &mut Tail,
        window: &[u8],
        rest: Rest,
    ) -> Result<Verdict, SourceError> {
        if identity::is_compressed(window) {
            tail.origin = Origin::Skipped;
            return Ok(Verdict::Leave);
        }
        let head = Head::of(window);
        if window.is_empty() || (!head.is_final && rest == Rest::Leave) {
            return Ok(Verdict::Leave);
        }
        let former = tail.former.or(self.former.get(&tail.inode).copied());
        tail.former = former;
        match tail.origin {
            Origin::End { size } => {
                let Some(file) = &tail.file else {
                    return Ok(Verdict::Leave);
                };
                let line = tail::last_line(file, size);
                let line = line.map_err(|error| tail.unreadable(error))?;
                tail.begin_at(line)?;
            }
            Origin::Unknown | Origin::Skipped => {
                tail.origin = Origin::Unknown;
                if self.has_missed(tail) {
                    return Ok(Verdict::Later);
                }
                let verdict = self.judge(tail, head.hash)?;
                if verdict != Verdict::Read {
                    return Ok(verdict);
                }
            }
            Origin::Known | Origin::Twin { .. } => (),
        }
        if tail.id.is_none() {
            tail.id = Some(head.name(tail.inode, former));
        }
        Ok(Verdict::Read)
    }
}
