//! What changes the file: each call is one transaction, or nothing happened.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::alert::{Alert, Severity};
use crate::deliver::spool::books::{Arrival, Books, Oldest, Place};
use crate::deliver::spool::ledger::{GivenUp, Why};
use crate::deliver::spool::store::{self, Reached, Store, level, number, signed};
use crate::deliver::spool::{Commit, Entry, Limits, RowId, SpoolError};
use crate::deliver::wire::{Epoch, Sequence};
use crate::record::{Mark, Progress};

/// Streams whose progress is kept; beyond it the one that moved longest ago is forgotten. Each costs some 300 bytes;
/// a host with more log files is not known to us.
pub const POSITIONS_MAX: u64 = 10_000;
/// Acknowledged rows that one transaction forgets because of their age: more would make a commit long.
const FORGOTTEN_MAX: u32 = 1000;
/// Of the reason for a rejection: it comes from outside.
const WHY_BYTES_MAX: usize = 1024;

impl Store {
    /// Stores alerts, progress and kept state in one transaction.
    ///
    /// # Errors
    /// The file can't be written, and nothing was.
    pub fn append(
        &mut self,
        commit: &Commit<'_>,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let mut books = self.books.clone();
        let transaction = begin(&mut self.connection)?;
        forget_acknowledged(&transaction, &mut books, limits, now)?;
        for alert in commit.alerts {
            admit(&transaction, &mut books, limits, alert, now)?;
        }
        for progress in commit.progress {
            set_progress(&transaction, progress, now)?;
        }
        if !commit.progress.is_empty() {
            forget_positions(&transaction)?;
        }
        for entry in commit.kept {
            set_entry(&transaction, entry)?;
        }
        write_meta(&transaction, &books)?;
        let mut statement = transaction.prepare_cached("UPDATE meta SET last_commit = ?1")?;
        statement.execute([now.as_millisecond()])?;
        drop(statement);
        transaction.commit()?;
        self.books = books;
        self.last_commit = Some(now);
        Ok(())
    }

    /// Marks rows as acknowledged and moves rejected ones to the dead letters; rows of another epoch, and rows that
    /// don't wait any more, are passed over. Returns how many dead letters had to go.
    ///
    /// # Errors
    /// The file can't be written, and nothing was.
    pub fn done(
        &mut self,
        rows: &[RowId],
        rejected: &[(RowId, String)],
        limits: &Limits,
        now: Timestamp,
    ) -> Result<u64, SpoolError> {
        let mut books = self.books.clone();
        let transaction = begin(&mut self.connection)?;
        let is_ours = |id: &&RowId| id.epoch == self.books.epoch;
        // First the rejected ones: a row that stands in both lists was not accepted.
        for (id, why) in rejected.iter().filter(|(id, _)| is_ours(&id)) {
            bury(&transaction, &mut books, id.seq, why, now)?;
        }
        for id in rows.iter().filter(is_ours) {
            acknowledge(&transaction, &mut books, id.seq, now)?;
        }
        let evicted = evict_dead(&transaction, &mut books, limits)?;
        forget_acknowledged(&transaction, &mut books, limits, now)?;
        write_meta(&transaction, &books)?;
        transaction.commit()?;
        self.books = books;
        Ok(evicted)
    }

    /// Begins an epoch: what waits is numbered anew from 1, the old ledger ends. What was acknowledged goes: it has
    /// arrived under its old numbers and has none in the new epoch. Returns how many rows wait.
    ///
    /// # Errors
    /// The file can't be written, and nothing was.
    pub fn begin_epoch(&mut self, epoch: Epoch) -> Result<u64, SpoolError> {
        let mut books = self.books.clone();
        let transaction = begin(&mut self.connection)?;
        transaction.execute("DELETE FROM alerts WHERE state = 1", [])?;
        books.acknowledged = Default::default();
        let rows = renumber(&transaction)?;
        books.epoch = epoch;
        books.next = rows.saturating_add(1);
        books.given_up = GivenUp::default();
        write_meta(&transaction, &books)?;
        transaction.commit()?;
        self.books = books;
        Ok(rows)
    }

    /// Lets acknowledged rows from this number on wait again. Returns how many.
    ///
    /// # Errors
    /// The file can't be written, and nothing was.
    pub fn send_again(&mut self, from: Sequence) -> Result<u64, SpoolError> {
        let mut books = self.books.clone();
        let transaction = begin(&mut self.connection)?;
        let update = "UPDATE alerts SET state = 0 WHERE state = 1 AND seq >= ?1
            RETURNING level, rule, bytes";
        let mut count = 0;
        {
            let mut statement = transaction.prepare_cached(update)?;
            let mut rows = statement.query([signed(from.0)])?;
            while let Some(row) = rows.next()? {
                let rule: String = row.get("rule")?;
                let bytes = number(row, "bytes")?;
                books.acknowledged.remove(bytes);
                books.add(level(row, "level")?, &rule, bytes);
                count += 1;
            }
        }
        transaction.commit()?;
        self.books = books;
        Ok(count)
    }
}

/// Numbers the waiting rows from 1 without a gap, in their order, and returns how many they are. A row's new number
/// is never above its old one and those below have moved already, so each is free.
///
/// # Errors
/// The file can't be written.
pub fn renumber(transaction: &Connection) -> Result<u64, SpoolError> {
    let numbers = store::waiting(transaction)?;
    let mut statement = transaction.prepare("UPDATE alerts SET seq = ?2 WHERE seq = ?1")?;
    let mut last = 0;
    for (new, old) in (1..).zip(&numbers) {
        if *old != new {
            statement.execute([signed(*old), signed(new)])?;
        }
        last = new;
    }
    Ok(last)
}

/// Writes what the books know and the tables don't.
///
/// # Errors
/// The file can't be written.
pub fn write_meta(transaction: &Connection, books: &Books) -> Result<(), SpoolError> {
    let given_up = serde_json::to_string(&books.given_up)
        .expect("numbers and words without maps are always JSON");
    let mut statement =
        transaction.prepare_cached("UPDATE meta SET epoch = ?1, next = ?2, given_up = ?3")?;
    statement.execute((books.epoch.0.cast_signed(), signed(books.next), given_up))?;
    Ok(())
}

/// Stores how far a stream was read.
///
/// # Errors
/// The file can't be written.
pub fn set_progress(
    transaction: &Connection,
    progress: &Progress,
    now: Timestamp,
) -> Result<(), SpoolError> {
    let reached = Reached {
        mark: with_text_path(&progress.mark),
        held: progress.held.clone(),
    };
    let text =
        serde_json::to_string(&reached).expect("numbers and text without maps are always JSON");
    let mut statement = transaction.prepare_cached(
        "INSERT INTO positions(source, stream, moved, progress) VALUES (?1, ?2, ?3, ?4)
        ON CONFLICT (source, stream) DO UPDATE SET moved = ?3, progress = ?4",
    )?;
    let stream = stream(&progress.mark);
    statement.execute((progress.source.as_str(), stream, now.as_millisecond(), text))?;
    Ok(())
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, SpoolError> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// Gives an alert its number and its place, or gives it or others up.
fn admit(
    transaction: &Transaction<'_>,
    books: &mut Books,
    limits: &Limits,
    alert: &Alert,
    now: Timestamp,
) -> Result<(), SpoolError> {
    let json = serde_json::to_vec(alert).expect("an alert's maps have strings as keys");
    let arrival = Arrival {
        level: alert.rule.level,
        rule: &alert.rule.id,
        bytes: json.len() as u64,
    };
    let seq = books.next;
    books.next += 1;
    loop {
        let place = books.place(arrival, limits.bytes_max, |level, rule| {
            oldest_waiting(transaction, level, rule)
        })?;
        match place {
            Place::Free => break,
            Place::Acknowledged => forget_oldest_acknowledged(transaction, books)?,
            Place::Of(row) => give_up(transaction, books, &row)?,
            Place::Nowhere => {
                books.given_up.add(seq, arrival.level, Why::Full);
                return Ok(());
            }
        }
    }
    let mut statement = transaction.prepare_cached(
        "INSERT INTO alerts(seq, state, level, rule, bytes, stored, acknowledged, alert)
        VALUES (?1, 0, ?2, ?3, ?4, ?5, ?5, ?6)",
    )?;
    statement.execute((
        signed(seq),
        arrival.level as i64,
        arrival.rule,
        signed(arrival.bytes),
        now.as_millisecond(),
        json,
    ))?;
    books.add(arrival.level, arrival.rule, arrival.bytes);
    Ok(())
}

/// Finds nothing only where the books and the file disagree, which is damage.
fn oldest_waiting(
    transaction: &Transaction<'_>,
    of: Severity,
    rule: Option<&str>,
) -> Result<Oldest, SpoolError> {
    let select = match rule {
        None => {
            "SELECT seq, level, rule, bytes FROM alerts INDEXED BY waiting_order
            WHERE state = 0 AND level = ?1 AND ?2 IS NULL ORDER BY seq LIMIT 1"
        }
        Some(_) => {
            "SELECT seq, level, rule, bytes FROM alerts INDEXED BY waiting_rule
            WHERE state = 0 AND level = ?1 AND rule = ?2 ORDER BY seq LIMIT 1"
        }
    };
    let mut statement = transaction.prepare_cached(select)?;
    let oldest = statement.query_row((of as i64, rule), |row| {
        Ok(Oldest {
            seq: number(row, "seq")?,
            level: level(row, "level")?,
            rule: row.get("rule")?,
            bytes: number(row, "bytes")?,
        })
    })?;
    Ok(oldest)
}

fn give_up(
    transaction: &Transaction<'_>,
    books: &mut Books,
    row: &Oldest,
) -> Result<(), SpoolError> {
    delete(transaction, row.seq)?;
    books.remove(row.level, &row.rule, row.bytes);
    books.given_up.add(row.seq, row.level, Why::Full);
    Ok(())
}

fn delete(transaction: &Transaction<'_>, seq: u64) -> Result<(), SpoolError> {
    let mut statement = transaction.prepare_cached("DELETE FROM alerts WHERE seq = ?1")?;
    statement.execute([signed(seq)])?;
    Ok(())
}

fn forget_oldest_acknowledged(
    transaction: &Transaction<'_>,
    books: &mut Books,
) -> Result<(), SpoolError> {
    let mut statement = transaction.prepare_cached(
        "DELETE FROM alerts WHERE seq = (
            SELECT seq FROM alerts INDEXED BY acknowledged_order WHERE state = 1
            ORDER BY acknowledged, seq LIMIT 1)
        RETURNING bytes",
    )?;
    let bytes = statement.query_row([], |row| number(row, "bytes"))?;
    books.acknowledged.remove(bytes);
    Ok(())
}

fn forget_acknowledged(
    transaction: &Transaction<'_>,
    books: &mut Books,
    limits: &Limits,
    now: Timestamp,
) -> Result<(), SpoolError> {
    let keep = i64::try_from(limits.acknowledged_keep.as_millis()).unwrap_or(i64::MAX);
    let before = now.as_millisecond().saturating_sub(keep);
    let mut statement = transaction.prepare_cached(
        "DELETE FROM alerts WHERE seq IN (
            SELECT seq FROM alerts INDEXED BY acknowledged_order
            WHERE state = 1 AND acknowledged < ?1 ORDER BY acknowledged, seq LIMIT ?2)
        RETURNING bytes",
    )?;
    let mut rows = statement.query((before, FORGOTTEN_MAX))?;
    while let Some(row) = rows.next()? {
        books.acknowledged.remove(number(row, "bytes")?);
    }
    Ok(())
}

fn acknowledge(
    transaction: &Transaction<'_>,
    books: &mut Books,
    seq: Sequence,
    now: Timestamp,
) -> Result<(), SpoolError> {
    let mut statement = transaction.prepare_cached(
        "UPDATE alerts SET state = 1, acknowledged = ?2 WHERE seq = ?1 AND state = 0
        RETURNING level, rule, bytes",
    )?;
    let mut rows = statement.query((signed(seq.0), now.as_millisecond()))?;
    while let Some(row) = rows.next()? {
        let rule: String = row.get("rule")?;
        let bytes = number(row, "bytes")?;
        books.remove(level(row, "level")?, &rule, bytes);
        books.acknowledged.add(bytes);
    }
    Ok(())
}

/// Moves a rejected row to the dead letters; the ledger says so.
fn bury(
    transaction: &Transaction<'_>,
    books: &mut Books,
    seq: Sequence,
    why: &str,
    now: Timestamp,
) -> Result<(), SpoolError> {
    let mut statement = transaction
        .prepare_cached("SELECT level, rule, bytes FROM alerts WHERE seq = ?1 AND state = 0")?;
    let found = statement.query_row([signed(seq.0)], |row| {
        let rule: String = row.get("rule")?;
        Ok((level(row, "level")?, rule, number(row, "bytes")?))
    });
    let Some((level, rule, bytes)) = found.optional()? else {
        return Ok(());
    };
    let why = why
        .get(..why.floor_char_boundary(WHY_BYTES_MAX))
        .unwrap_or(why);
    let dead_bytes = bytes + why.len() as u64;
    let mut statement = transaction.prepare_cached(
        "INSERT INTO dead(epoch, seq, level, stored, rejected, bytes, why, alert)
        SELECT ?2, seq, level, stored, ?3, ?4, ?5, alert FROM alerts WHERE seq = ?1",
    )?;
    let epoch = books.epoch.0.cast_signed();
    let rejected = now.as_millisecond();
    statement.execute((signed(seq.0), epoch, rejected, signed(dead_bytes), why))?;
    delete(transaction, seq.0)?;
    books.remove(level, &rule, bytes);
    books.dead_bytes += dead_bytes;
    books.given_up.add(seq.0, level, Why::Rejected);
    Ok(())
}

fn evict_dead(
    transaction: &Transaction<'_>,
    books: &mut Books,
    limits: &Limits,
) -> Result<u64, SpoolError> {
    let mut evicted = 0;
    while books.dead_bytes > limits.dead_bytes_max {
        let mut statement = transaction.prepare_cached(
            "DELETE FROM dead WHERE id = (SELECT min(id) FROM dead) RETURNING bytes",
        )?;
        let bytes = statement.query_row([], |row| number(row, "bytes"))?;
        books.dead_bytes = books.dead_bytes.saturating_sub(bytes);
        evicted += 1;
    }
    Ok(evicted)
}

/// JSON can't hold a path that isn't UTF-8. A file is known by its identity; the path is where it was seen.
fn with_text_path(mark: &Mark) -> Mark {
    let mut mark = mark.clone();
    if let Mark::File { path, .. } = &mut mark
        && path.to_str().is_none()
    {
        *path = path.to_string_lossy().into_owned().into();
    }
    mark
}

/// Two files of one source are two streams, whatever their names are now.
fn stream(mark: &Mark) -> String {
    match mark {
        Mark::File { file, .. } => format!("{}:{}", file.device, file.inode),
        Mark::Cursor(_) | Mark::Counter { .. } => String::new(),
    }
}

fn forget_positions(transaction: &Transaction<'_>) -> Result<(), SpoolError> {
    let mut statement = transaction.prepare_cached(
        "DELETE FROM positions WHERE id IN (
            SELECT id FROM positions ORDER BY moved LIMIT max(0, (SELECT count(*) FROM positions) - ?1))",
    )?;
    let forgotten = statement.execute([signed(POSITIONS_MAX)])?;
    if forgotten > 0 {
        tracing::warn!(
            forgotten,
            limit = POSITIONS_MAX,
            "forgot the positions that moved longest ago"
        );
    }
    Ok(())
}

fn set_entry(transaction: &Transaction<'_>, entry: &Entry) -> Result<(), SpoolError> {
    let room = entry.room as i64;
    let Some(value) = &entry.value else {
        let mut statement =
            transaction.prepare_cached("DELETE FROM kept WHERE room = ?1 AND key = ?2")?;
        statement.execute((room, &entry.key))?;
        return Ok(());
    };
    let mut statement = transaction.prepare_cached(
        "INSERT INTO kept(room, key, value) VALUES (?1, ?2, ?3)
        ON CONFLICT (room, key) DO UPDATE SET value = ?3",
    )?;
    statement.execute((room, &entry.key, value))?;
    Ok(())
}
