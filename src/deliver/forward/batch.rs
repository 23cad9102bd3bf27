//! The body of one request: NDJSON lines, packed.

use std::io::{self, Write};

use bytes::Bytes;

use crate::deliver::spool::{Batch, RowId};
use crate::deliver::wire::{BATCH_BYTES_MAX, BATCH_LINES_MAX, Epoch};

/// Rows ready to go.
pub struct Packed {
    pub epoch: Epoch,
    /// In the order of the lines: what the centre rejects it names by index.
    pub rows: Vec<RowId>,
    /// zstd.
    pub body: Bytes,
}

/// The most bytes around an alert in a line: `{"seq":18446744073709551615,"alert":}` and its end.
pub const LINE_OVERHEAD: usize = 40;
/// Alerts: 6.5 times smaller; the next levels cost twice the time for a tenth of the size.
const ZSTD_LEVEL: i32 = 3;

/// Packs as many rows as a request may carry, the first ones; the others stay with the queue. A first row alone is
/// packed whatever its size: the centre says what it thinks of it.
///
/// # Errors
/// None but for want of memory.
pub fn pack(batch: &Batch) -> io::Result<Packed> {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
    let mut rows = Vec::with_capacity(batch.rows.len());
    let mut bytes = 0_usize;
    for row in batch.rows.iter().take(BATCH_LINES_MAX) {
        let alert = row.alert.get();
        bytes = bytes.saturating_add(alert.len() + LINE_OVERHEAD);
        if bytes > BATCH_BYTES_MAX && !rows.is_empty() {
            break;
        }
        // JSON text holds no raw line end (RFC 8259 7), but may stand between tokens.
        debug_assert!(!alert.contains('\n'), "an alert is one line");
        writeln!(encoder, r#"{{"seq":{},"alert":{alert}}}"#, row.seq.0)?;
        rows.push(row.id);
    }
    Ok(Packed {
        epoch: batch.epoch,
        rows,
        body: encoder.finish()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::alert::Severity;
    use crate::deliver::spool::Row;
    use crate::deliver::wire::{RawLine, Sequence};

    #[test]
    fn a_batch_is_a_line_an_alert_up_to_the_limits() {
        for (alerts, alert_bytes, packed) in [
            (0, 10, 0),
            (1, 10, 1),
            (1000, 10, 1000),
            (1500, 10, 1000),
            (200, 64 * 1024, 127),
            (2, 9 * 1024 * 1024, 1),
        ] {
            let text = format!("\"{}\"", "x".repeat(alert_bytes - 2));
            let id = |number| RowId {
                epoch: Epoch(1),
                seq: Sequence(number),
            };
            let row = |number| Row {
                id: id(number),
                seq: Sequence(u64::MAX),
                level: Severity::Low,
                alert: RawValue::from_string(text.clone()).unwrap(),
            };
            let batch = Batch {
                epoch: Epoch(1),
                rows: (0..alerts).map(row).collect(),
            };
            let sent = pack(&batch).unwrap();
            let lines = zstd::bulk::decompress(&sent.body, 2 * BATCH_BYTES_MAX).unwrap();
            let lines = String::from_utf8(lines).unwrap();
            assert_eq!(lines.lines().count(), packed, "{alerts} of {alert_bytes}");
            assert!(lines.len() <= BATCH_BYTES_MAX || packed == 1);
            assert_eq!(sent.rows, (0..packed as u64).map(id).collect::<Vec<_>>());
            for line in lines.lines() {
                let line: RawLine = serde_json::from_str(line).unwrap();
                assert_eq!(line.alert.get(), text);
            }
        }
    }
}
