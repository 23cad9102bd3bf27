//! An open spool file: what it holds, read. [`crate::deliver::spool::change`] writes it.

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::alert::Severity;
use crate::deliver::spool::books::{Books, Share};
use crate::deliver::spool::file::SCHEMA;
use crate::deliver::spool::ledger;
use crate::deliver::spool::ledger::GivenUp;
use crate::deliver::spool::{Room, Row, RowId, SpoolError};
use crate::deliver::wire::{Epoch, Ledger, Sequence};
use crate::record::{Mark, Progress, Range, SourceId};

/// What stands around an alert and its number on the wire: `{"seq":,"alert":}` and the line end.
const LINE_FRAME_BYTES: usize = 18;

/// One connection and the books that belong to its file.
pub struct Store {
    pub connection: Connection,
    pub books: Books,
    /// Grows by one at each start of the agent.
    pub start: u64,
    pub last_commit: Option<Timestamp>,
}

/// A key and its value, as a room keeps them.
pub type Pair = (Vec<u8>, Vec<u8>);

/// How far a stream was read, without the source, which is the key.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reached {
    pub mark: Mark,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Range>,
}

impl Store {
    /// Reads the books of a file that has its tables.
    ///
    /// # Errors
    /// The file is damaged, can't be read now, or is a newer agent's.
    pub fn load(connection: Connection) -> Result<Self, SpoolError> {
        let found: i64 =
            connection.query_row("SELECT schema FROM meta", [], |row| row.get("schema"))?;
        if found > SCHEMA {
            let known = SCHEMA;
            return Err(SpoolError::Newer { found, known });
        }
        let select = "SELECT epoch, next, start, last_commit, given_up,
                coalesce((SELECT max(seq) FROM alerts), 0) AS last
            FROM meta WHERE one = 1";
        let (mut books, start, last_commit) = connection.query_row(select, [], |row| {
            let next = number(row, "next")?;
            if next <= number(row, "last")? {
                return Err(unreadable(row, "next"));
            }
            let given_up: GivenUp = from_json(row, "given_up")?;
            let epoch = Epoch(row.get::<_, i64>("epoch")?.cast_unsigned());
            let books = Books::new(epoch, next, given_up);
            Ok((
                books,
                number(row, "start")?,
                optional_time(row, "last_commit")?,
            ))
        })?;
        count(&connection, &mut books)?;
        Ok(Self {
            connection,
            books,
            start,
            last_commit,
        })
    }

    /// Counts one more start.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn count_start(&mut self) -> Result<(), SpoolError> {
        let start = self.start.saturating_add(1);
        self.connection
            .execute("UPDATE meta SET start = ?1", [signed(start)])?;
        self.start = start;
        Ok(())
    }

    /// Returns how far each stream was read, by the last commit that concerned it.
    ///
    /// # Errors
    /// The table can't be read.
    pub fn progress(&self) -> Result<Vec<Progress>, SpoolError> {
        let select = "SELECT source, progress FROM positions ORDER BY id";
        let mut statement = self.connection.prepare_cached(select)?;
        let rows = statement.query_map([], progress)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Returns what a room keeps.
    ///
    /// # Errors
    /// The table can't be read.
    pub fn kept(&self, room: Room) -> Result<Vec<Pair>, SpoolError> {
        let select = "SELECT key, value FROM kept WHERE room = ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(select)?;
        let rows = statement.query_map([room as i64], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Returns the most severe waiting rows, the oldest of each level first: at most so many lines and bytes of the
    /// wire, yet one row if there is one.
    ///
    /// # Errors
    /// A row can't be read.
    pub fn next(&self, lines_max: usize, bytes_max: usize) -> Result<Vec<Row>, SpoolError> {
        let select = "SELECT seq, alert FROM alerts INDEXED BY waiting_order
            WHERE state = 0 AND level = ?1 ORDER BY seq";
        let mut statement = self.connection.prepare_cached(select)?;
        let mut batch = Vec::new();
        let mut bytes = 0;
        for level in Severity::ALL.into_iter().rev() {
            let mut rows = statement.query([level as i64])?;
            let mut found = 0;
            while let Some(row) = rows.next()? {
                found += 1;
                let seq = number(row, "seq")?;
                let alert = payload(row, "alert")?;
                bytes += alert.get().len() + seq.to_string().len() + LINE_FRAME_BYTES;
                let is_full = batch.len() >= lines_max || bytes > bytes_max;
                if is_full && !batch.is_empty() {
                    return Ok(batch);
                }
                let id = RowId {
                    epoch: self.books.epoch,
                    seq: Sequence(seq),
                };
                let seq = id.seq;
                batch.push(Row {
                    id,
                    seq,
                    level,
                    alert,
                });
            }
            // A damaged index may hide rows without a word.
            if found != self.books.level(level).rows {
                return Err(rusqlite::Error::QueryReturnedNoRows.into());
            }
        }
        Ok(batch)
    }

    /// Returns which numbers were made, wait, were given up.
    ///
    /// # Errors
    /// The index of the waiting rows can't be read.
    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        let waiting = waiting(&self.connection)?;
        Ok(Ledger {
            epoch: self.books.epoch,
            next: self.books.next,
            waiting: ledger::ranges(waiting),
            given_up: self.books.given_up.on_the_wire(),
        })
    }

    /// Returns when the oldest waiting row was stored.
    ///
    /// # Errors
    /// A row can't be read.
    pub fn oldest(&self) -> Result<Option<Timestamp>, SpoolError> {
        let select = "SELECT stored FROM alerts WHERE seq = (
            SELECT min(seq) FROM alerts INDEXED BY waiting_order WHERE state = 0 AND level = ?1)";
        let mut statement = self.connection.prepare_cached(select)?;
        let mut oldest = None;
        for level in Severity::ALL {
            if self.books.level(level).rows == 0 {
                continue;
            }
            let of_level = statement.query_row([level as i64], |row| time(row, "stored"));
            oldest = oldest.into_iter().chain(of_level.optional()?).min();
        }
        Ok(oldest)
    }
}

/// Returns the numbers that wait, ascending. From the index, not from the table: its pages are the payload's.
///
/// # Errors
/// The index can't be read.
pub fn waiting(connection: &Connection) -> Result<Vec<u64>, SpoolError> {
    let select = "SELECT seq FROM alerts INDEXED BY waiting_order WHERE state = 0";
    let mut statement = connection.prepare_cached(select)?;
    let rows = statement.query_map([], |row| number(row, "seq"))?;
    let mut numbers = rows.collect::<Result<Vec<u64>, _>>()?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// Enters what the tables hold into new books.
fn count(connection: &Connection, books: &mut Books) -> Result<(), SpoolError> {
    let select = "SELECT level, rule, count(*) AS rows, sum(bytes) AS bytes
        FROM alerts INDEXED BY waiting_rule WHERE state = 0 GROUP BY level, rule";
    let mut statement = connection.prepare(select)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let rule: String = row.get("rule")?;
        books.enter(level(row, "level")?, &rule, share(row)?);
    }
    let select = "SELECT count(*) AS rows, coalesce(sum(bytes), 0) AS bytes
        FROM alerts INDEXED BY acknowledged_order WHERE state = 1";
    books.acknowledged = connection.query_row(select, [], share)?;
    let select = "SELECT coalesce(sum(bytes), 0) AS bytes FROM dead";
    books.dead_bytes = connection.query_row(select, [], |row| number(row, "bytes"))?;
    Ok(())
}

fn share(row: &SqlRow<'_>) -> rusqlite::Result<Share> {
    Ok(Share {
        rows: number(row, "rows")?,
        bytes: number(row, "bytes")?,
    })
}

/// Returns one row of `positions`.
///
/// # Errors
/// It is not what an agent wrote.
pub fn progress(row: &SqlRow<'_>) -> rusqlite::Result<Progress> {
    let source: String = row.get("source")?;
    let reached: Reached = from_json(row, "progress")?;
    Ok(Progress {
        source: SourceId::new(&source),
        mark: reached.mark,
        held: reached.held,
    })
}

/// Returns an alert's JSON. One that is no JSON any more, since SQLite has no checksum over its pages, is sent as
/// `null`: the centre rejects it, and it ends among the dead letters as it is, not at the head of each batch.
fn payload(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Box<RawValue>> {
    let bytes: Vec<u8> = row.get(column)?;
    let text = String::from_utf8(bytes).unwrap_or_default();
    Ok(RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned()))
}

/// Returns a number that is never negative.
///
/// # Errors
/// It is, or is no number.
pub fn number(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| unreadable(row, column))
}

/// Returns a level, stored by its place in [`Severity::ALL`].
///
/// # Errors
/// There is no such level.
pub fn level(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Severity> {
    let place = usize::try_from(number(row, column)?).unwrap_or(usize::MAX);
    let level = Severity::ALL.get(place).copied();
    level.ok_or_else(|| unreadable(row, column))
}

/// Returns a time, stored in milliseconds.
///
/// # Errors
/// It lies outside of what a time can be.
pub fn time(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let milliseconds: i64 = row.get(column)?;
    Timestamp::from_millisecond(milliseconds).map_err(|_| unreadable(row, column))
}

/// Returns a time or that there is none.
///
/// # Errors
/// Those of [`time`].
pub fn optional_time(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<Option<Timestamp>> {
    match row.get::<_, Option<i64>>(column)? {
        Some(_) => time(row, column).map(Some),
        None => Ok(None),
    }
}

fn from_json<T: for<'de> Deserialize<'de>>(row: &SqlRow<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        let index = row.as_ref().column_index(column).unwrap_or_default();
        rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
    })
}

/// The value is not one that an agent writes: damage.
fn unreadable(row: &SqlRow<'_>, column: &str) -> rusqlite::Error {
    let index = row.as_ref().column_index(column).unwrap_or_default();
    rusqlite::Error::InvalidColumnType(index, column.to_owned(), Type::Integer)
}

/// SQLite's integers are signed; no counter of ours gets that far.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
