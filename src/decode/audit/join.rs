//! Records of one event, put together: they carry one stamp and may interleave with those of others.
//!
//! An event ends with its EOE; where auditd wrote the trail there is none, and it ends with PROCTITLE, which the kernel
//! writes last (audit_log_exit in kernel/auditsc.c). Types of user space are events alone. What never ends is closed by
//! the trail's own clock, by the reader's, and by count.

use std::collections::VecDeque;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::decode::audit::line::{Line, Stamp};
use crate::record::{Position, Range, Record};

/// auditd's own `end_of_event_timeout`.
const OPEN_FOR: SignedDuration = SignedDuration::from_secs(2);
/// Records held at most: each may be a range that is read again after a kill.
pub const RECORDS_MAX: usize = 1000;
/// Bytes held at most, of all events together.
pub const BYTES_MAX: usize = 4 << 20;
/// Records of one event. A call with more paths than this is not known.
pub const EVENT_RECORDS_MAX: usize = 256;
/// Bytes of one event: room for a command line of 128 KiB (MAX_ARG_STRLEN) in hexadecimal.
pub const EVENT_BYTES_MAX: usize = 512 << 10;

const LOGIN: u32 = 1006;
const USER_FIRST: u32 = 1100;
const KERNEL_FIRST: u32 = 1300;
const SYSCALL: u32 = 1300;
const EOE: u32 = 1320;
const PROCTITLE: u32 = 1327;
const KERNEL: u32 = 2000;

/// One record of an event.
#[derive(Debug, Clone)]
pub struct Part {
    pub bytes: Bytes,
    range: Option<Range>,
}

/// Records with one stamp.
#[derive(Debug)]
pub struct Joined {
    pub node: Option<Box<[u8]>>,
    pub stamp: Stamp,
    pub parts: Vec<Part>,
    /// Some of it was left out.
    pub cut: bool,
    bytes: usize,
    has_call: bool,
    read_at: Timestamp,
}

impl Joined {
    fn new(line: &Line<'_>, read_at: Timestamp) -> Self {
        Self {
            node: line.node.map(Into::into),
            stamp: line.stamp,
            parts: Vec::new(),
            cut: false,
            bytes: 0,
            has_call: false,
            read_at,
        }
    }

    fn is_of(&self, line: &Line<'_>) -> bool {
        self.stamp == line.stamp && self.node.as_deref() == line.node
    }

    fn take(&mut self, record: &Record, line: &Line<'_>) {
        self.cut |= record.cut;
        self.has_call |= line.number == Some(SYSCALL);
        let is_room = self.parts.len() < EVENT_RECORDS_MAX
            && self.bytes.saturating_add(record.bytes.len()) <= EVENT_BYTES_MAX;
        if !is_room {
            self.cut = true;
            return;
        }
        self.bytes += record.bytes.len();
        self.parts.push(Part {
            bytes: record.bytes.clone(),
            range: range(record),
        });
    }
}

/// The events that are not whole yet, oldest first.
#[derive(Debug, Default)]
pub struct Join {
    open: VecDeque<Joined>,
    records: usize,
    bytes: usize,
    held: Vec<Range>,
}

impl Join {
    /// Takes one record in and hands on what is whole, or will never be.
    pub fn take(&mut self, record: &Record, line: &Line<'_>, whole: &mut Vec<Joined>) {
        self.close_past(line, whole);
        if is_alone(line.number) {
            let mut event = Joined::new(line, record.read_at);
            event.take(record, line);
            whole.push(event);
            self.renew();
            return;
        }
        let at = match self.open.iter().rposition(|open| open.is_of(line)) {
            Some(at) => at,
            None if line.number == Some(EOE) => {
                self.renew();
                return;
            }
            None => {
                self.open.push_back(Joined::new(line, record.read_at));
                self.open.len() - 1
            }
        };
        if let Some(event) = self.open.get_mut(at) {
            let (records, bytes) = (event.parts.len(), event.bytes);
            event.take(record, line);
            self.records += event.parts.len() - records;
            self.bytes += event.bytes - bytes;
            let ends =
                line.number == Some(EOE) || (line.number == Some(PROCTITLE) && event.has_call);
            if ends {
                self.close(at, whole);
            }
        }
        while self.records > RECORDS_MAX || self.bytes > BYTES_MAX {
            self.close(0, whole);
        }
        self.renew();
    }

    /// Hands on what was begun longer than two seconds before `now`, by the reader's clock.
    pub fn tick(&mut self, now: Timestamp, whole: &mut Vec<Joined>) {
        let is_old = |open: &Joined| now.duration_since(open.read_at) > OPEN_FOR;
        while let Some(at) = self.open.iter().position(is_old) {
            self.close(at, whole);
        }
        self.renew();
    }

    /// What must be read again after a kill.
    pub fn held(&self) -> &[Range] {
        &self.held
    }

    #[cfg(test)]
    pub fn bytes_held(&self) -> usize {
        self.bytes
    }

    /// Closes what the same machine's later record shows to be over.
    fn close_past(&mut self, line: &Line<'_>, whole: &mut Vec<Joined>) {
        let span = i64::try_from(OPEN_FOR.as_millis()).unwrap_or(i64::MAX);
        let now = line.stamp.millis();
        let is_past = |open: &Joined| {
            open.node.as_deref() == line.node && now.saturating_sub(open.stamp.millis()) > span
        };
        while let Some(at) = self.open.iter().position(is_past) {
            self.close(at, whole);
        }
    }

    fn close(&mut self, at: usize, whole: &mut Vec<Joined>) {
        if let Some(event) = self.open.remove(at) {
            self.records -= event.parts.len();
            self.bytes -= event.bytes;
            if !event.parts.is_empty() {
                whole.push(event);
            }
        }
    }

    fn renew(&mut self) {
        self.held.clear();
        let parts = self.open.iter().flat_map(|open| &open.parts);
        for range in parts.filter_map(|part| part.range) {
            match self.held.last_mut() {
                Some(last) if last.file == range.file && last.to == range.from => {
                    last.to = range.to;
                }
                _ => self.held.push(range),
            }
        }
    }
}

/// Whether a type is an event by itself: what user space and the audit daemon say.
fn is_alone(number: Option<u32>) -> bool {
    number.is_some_and(|number| {
        (USER_FIRST..KERNEL_FIRST).contains(&number)
            || number >= KERNEL
            || (number < USER_FIRST && number != LOGIN)
    })
}

/// Where a record stands, with its line end; nothing where it can't be read again.
fn range(record: &Record) -> Option<Range> {
    let Position::Offset { file, offset } = record.position else {
        return None;
    };
    let to = offset
        .checked_add(record.bytes.len() as u64)?
        .checked_add(1)?;
    Some(Range {
        file,
        from: offset,
        to,
    })
}
