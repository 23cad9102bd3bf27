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

#[cfg(test)]
mod tests {
    use super::*;

    type Case<'c> = (&'c [u8], Rest, &'c [(usize, usize)], usize, usize);

    #[test]
    fn lines_are_found_and_what_is_none_is_passed_over() {
        use Rest::{Leave, Take};
        let cases: &[Case<'_>] = &[
            (b"", Leave, &[], 0, 0),
            (b"a\nb\n", Leave, &[(0, 1), (2, 3)], 4, 0),
            (b"a\nb", Leave, &[(0, 1)], 2, 0),
            (b"a\nb", Take, &[(0, 1), (2, 3)], 3, 0),
            (b"a\r\nb\rc\n", Leave, &[(0, 1), (3, 6)], 7, 0),
            (b"\n\r\n\n", Leave, &[], 4, 0),
            (b"\r\r\n", Leave, &[(0, 1)], 3, 0),
            (b"\0\0a\0b\0\n", Leave, &[(2, 5)], 7, 3),
            (b"a\n\0\0", Leave, &[(0, 1)], 2, 0),
            (b"a\n\0\0", Take, &[(0, 1)], 4, 2),
            (b"a\0", Take, &[(0, 1)], 2, 1),
        ];
        for (window, rest, spans, consumed, nuls) in cases {
            let split = split(window, false, *rest);
            let found: Vec<_> = split
                .spans
                .iter()
                .map(|span| (span.from, span.to))
                .collect();
            let case = format!("{:?} {rest:?}", window.escape_ascii().to_string());
            assert_eq!(&found, spans, "{case}");
            assert_eq!((split.consumed, split.nuls), (*consumed, *nuls), "{case}");
            assert!(!split.skipping, "{case}");
        }
    }

    #[test]
    fn a_line_is_cut_at_the_limit_and_not_before() {
        let line = |length: usize, end: &str| [&vec![b'x'; length], end.as_bytes()].concat();
        let max = LINE_BYTES_MAX;
        for (window, to, cut, consumed, skipping) in [
            (line(max, "\n"), max, false, max + 1, false),
            (line(max, ""), 0, false, 0, false),
            (line(max + 1, ""), max, true, max + 1, true),
            (line(max + 1, "\n"), max, true, max + 2, false),
        ] {
            let split = split(&window, false, Rest::Leave);
            let span = split.spans.first();
            assert_eq!(span.map_or(0, |span| span.to), to, "{}", window.len());
            assert_eq!(span.is_some_and(|span| span.cut), cut, "{}", window.len());
            assert_eq!((split.consumed, split.skipping), (consumed, skipping));
        }
        let split = split(b"rest of it\nnext\n", true, Rest::Leave);
        assert_eq!(
            split.spans,
            [Span {
                from: 11,
                to: 15,
                cut: false
            }]
        );
    }

    #[test]
    fn a_hole_is_passed_over_in_pieces_and_a_short_run_may_be_data_on_its_way() {
        assert_eq!(
            split(&[0; HOLE_BYTES], false, Rest::Leave).consumed,
            HOLE_BYTES
        );
        assert_eq!(split(&[0; HOLE_BYTES - 1], false, Rest::Leave).consumed, 0);
    }

    #[test]
    fn records_of_one_window_share_its_records_limit_and_their_memory() {
        let window = b"ab\n".repeat(INFLOW_RECORDS_MAX + 5);
        let split = split(&window, false, Rest::Leave);
        assert_eq!(split.spans.len(), INFLOW_RECORDS_MAX);
        assert_eq!(split.consumed, 3 * INFLOW_RECORDS_MAX);
        let file = FileId {
            device: 1,
            inode: 2,
            head: 3,
        };
        let records = split.records(&window, file, 100, Timestamp::UNIX_EPOCH);
        assert_eq!(records[1].bytes, "ab");
        assert_eq!(records[1].position, Position::Offset { file, offset: 103 });
    }
}
