//! Bytes of a file to records: where lines begin and end, and what of them is no record. Does no IO.

use bytes::Bytes;
use jiff::Timestamp;

use crate::record::{FileId, Position, Record};
use crate::source::INFLOW_RECORDS_MAX;

/// A longer line is judged by its beginning, so that one endless line blinds nobody and takes no memory.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// What is read at once: room for a line of [`LINE_BYTES_MAX`] and what ends it, below the limit of an inflow.
pub const WINDOW_BYTES: usize = 128 << 10;
/// A run of so many NULs is a hole that a writer without O_APPEND left; a shorter one at the end may be data on its way.
const HOLE_BYTES: usize = LINE_BYTES_MAX;

/// What to do with a last line that has no end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Its writer is not done with it.
    Leave,
    /// Nobody writes here any more.
    Take,
}

/// Where a record stands in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: usize,
    pub to: usize,
    pub cut: bool,
}

/// What one window gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Split {
    pub spans: Vec<Span>,
    /// Bytes that are done with: records, empty lines, NULs, ends of cut lines.
    pub consumed: usize,
    pub nuls: usize,
    /// The window ended within a line whose beginning was taken already; the next begins by skipping the rest.
    pub skipping: bool,
}

/// Finds the records of a window, at most [`INFLOW_RECORDS_MAX`].
pub fn split(window: &[u8], skipping: bool, rest: Rest) -> Split {
    let mut split = Split {
        skipping,
        ..Split::default()
    };
    while split.spans.len() < INFLOW_RECORDS_MAX && split.step(window, rest) {}
    split
}

impl Split {
    /// Goes on by one line or one run of NULs; false when there is no whole one.
    fn step(&mut self, window: &[u8], rest: Rest) -> bool {
        let from = self.consumed;
        let left = window.get(from..).unwrap_or_default();
        if left.is_empty() {
            return false;
        }
        if self.skipping {
            let end = memchr::memchr(b'\n', left);
            self.skipping = end.is_none();
            self.consumed += end.map_or(left.len(), |end| end + 1);
            return true;
        }
        let nuls = left.iter().take_while(|&&byte| byte == 0).count();
        if nuls > 0 {
            let is_done = nuls < left.len() || nuls >= HOLE_BYTES || rest == Rest::Take;
            if is_done {
                self.nuls += nuls;
                self.consumed += nuls;
            }
            return is_done;
        }
        match memchr::memchr(b'\n', left) {
            Some(end) if end <= LINE_BYTES_MAX => self.take(left, from, end, end + 1),
            None if left.len() <= LINE_BYTES_MAX && rest == Rest::Leave => return false,
            None if left.len() <= LINE_BYTES_MAX => self.take(left, from, left.len(), left.len()),
            _ => {
                self.spans.push(Span {
                    from,
                    to: from + LINE_BYTES_MAX,
                    cut: true,
                });
                self.consumed += LINE_BYTES_MAX;
                self.skipping = true;
            }
        }
        true
    }

    fn take(&mut self, left: &[u8], from: usize, end: usize, next: usize) {
        let line = left.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let nuls = line.iter().rev().take_while(|&&byte| byte == 0).count();
        let to = from + line.len() - nuls;
        if to > from {
            self.spans.push(Span {
                from,
                to,
                cut: false,
            });
        }
        self.nuls += nuls;
        self.consumed += next;
    }

    /// Copies the records out of the window; they share one allocation of their size.
    pub fn records(
        &self,
        window: &[u8],
        file: FileId,
        offset: u64,
        read_at: Timestamp,
    ) -> Vec<Record> {
        let (Some(first), Some(last)) = (self.spans.first(), self.spans.last()) else {
            return Vec::new();
        };
        let shared = window.get(first.from..last.to).unwrap_or_default();
        let shared = Bytes::copy_from_slice(shared);
        let record = |span: &Span| Record {
            position: Position::Offset {
                file,
                offset: offset + span.from as u64,
            },
            read_at,
            bytes: shared.slice(span.from - first.from..span.to - first.from),
            cut: span.cut,
        };
        self.spans.iter().map(record).collect()
    }
}
