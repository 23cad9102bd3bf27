//! Saves what can be read of a damaged spool into a new one. Nothing here trusts what the old file says.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{Connection, Row as SqlRow};

use crate::alert::Alert;
use crate::deliver::spool::change::{renumber, set_progress};
use crate::deliver::spool::file::{self, Beginning, Files};
use crate::deliver::spool::positions;
use crate::deliver::spool::store::{number, optional_time, progress, signed, time, waiting};
use crate::deliver::spool::{Positions, Salvage, SpoolError};

/// Rows of one transaction: few syncs, and no WAL of the size of the spool.
const ROWS_PER_COMMIT: u64 = 1000;

/// Makes a new spool of what the damaged one still gives, and puts it in its place; the damaged file is set aside.
///
/// # Errors
/// The new file can't be written now. The damaged one stands as it was, and all can be tried again.
pub fn salvage(files: &Files, beginning: &Beginning) -> Result<Salvage, SpoolError> {
    files.remove_part()?;
    let old = open_damaged(files);
    let meta = old.as_ref().and_then(read_meta);
    let beginning = Beginning {
        start: meta.map_or(beginning.start, |meta| meta.start.max(beginning.start)),
        last_commit: meta
            .and_then(|meta| meta.last_commit)
            .or(beginning.last_commit),
        ..*beginning
    };
    file::touch(&files.part)?;
    let mut new = file::connect(&files.part)?;
    file::create(&mut new, &beginning)?;
    let mut saved = Salvage {
        set_aside: files.damaged.clone(),
        alerts: 0,
        alerts_lost: None,
        positions: Positions::Lost,
        positions_saved: 0,
        kept: 0,
        kept_whole: false,
        dead_letters: 0,
    };
    let mut whole = false;
    if let Some(old) = &old {
        let mut copy = Copying::new(&new)?;
        save_alerts(old, &mut copy, &mut saved)?;
        save_dead(old, &mut copy, &mut saved)?;
        save_kept(old, &mut copy, &mut saved)?;
        whole = save_positions(old, &mut copy, &mut saved)?;
        copy.end()?;
    }
    add_copied_positions(&new, files, whole, &mut saved)?;
    begin(&new)?;
    let rows = renumber(&new)?;
    new.execute(
        "UPDATE meta SET next = ?1",
        [signed(rows.saturating_add(1))],
    )?;
    commit(&new)?;
    file::checkpoint(&new, "TRUNCATE")?;
    drop(new);
    drop(old);
    files.swap()?;
    Ok(saved)
}

/// The writing side: commits each so many rows.
struct Copying<'a> {
    new: &'a Connection,
    rows: u64,
}

impl<'a> Copying<'a> {
    fn new(new: &'a Connection) -> Result<Self, SpoolError> {
        begin(new)?;
        Ok(Self { new, rows: 0 })
    }

    fn row_done(&mut self) -> Result<(), SpoolError> {
        self.rows += 1;
        if self.rows.is_multiple_of(ROWS_PER_COMMIT) {
            commit(self.new)?;
            begin(self.new)?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), SpoolError> {
        commit(self.new)
    }
}

fn begin(connection: &Connection) -> Result<(), SpoolError> {
    Ok(connection.execute_batch("BEGIN IMMEDIATE")?)
}

fn commit(connection: &Connection) -> Result<(), SpoolError> {
    Ok(connection.execute_batch("COMMIT")?)
}

/// A file that SQLite won't even open gives nothing.
fn open_damaged(files: &Files) -> Option<Connection> {
    let connection = file::open(&files.spool).ok()?;
    // Without this one malformed line of the schema hides all tables. Where even that can't be set, the reads tell.
    connection.execute_batch("PRAGMA writable_schema = ON").ok();
    Some(connection)
}

#[derive(Clone, Copy)]
struct Meta {
    start: u64,
    last_commit: Option<Timestamp>,
}

fn read_meta(old: &Connection) -> Option<Meta> {
    let select = "SELECT start, last_commit FROM meta";
    let meta = old.query_row(select, [], |row| {
        Ok(Meta {
            start: number(row, "start")?,
            last_commit: optional_time(row, "last_commit")?,
        })
    });
    meta.ok()
}

fn save_alerts(
    old: &Connection,
    copy: &mut Copying<'_>,
    saved: &mut Salvage,
) -> Result<(), SpoolError> {
    // The index lies on pages of its own: it may still say how many there were.
    let expected = waiting(old).ok().map(|numbers| numbers.len() as u64);
    let insert =
        "INSERT OR IGNORE INTO alerts(seq, state, level, rule, bytes, stored, acknowledged, alert)
        VALUES (?1, 0, ?2, ?3, ?4, ?5, ?5, ?6)";
    let table = Table {
        name: "alerts",
        key: "seq",
        columns: "state, stored, alert",
    };
    // A damaged tree may lead to one row twice; a fold's later row has another count.
    let mut seen = HashSet::new();
    let whole = each_row(old, &table, |row| {
        let Ok((state, seq, stored, json)) = read_alert(row) else {
            return Ok(Found::Unreadable);
        };
        if state == 1 {
            return Ok(Found::Read); // the centre has it
        }
        let Ok(alert) = serde_json::from_slice::<Alert>(&json) else {
            return Ok(Found::Unreadable);
        };
        if seen.insert((alert.id, alert.count())) {
            let (level, rule) = (alert.rule.level as i64, &alert.rule.id);
            let stored = stored.as_millisecond();
            let values = (signed(seq), level, rule, json.len() as i64, stored, &json);
            saved.alerts += copy.new.prepare_cached(insert)?.execute(values)? as u64;
            copy.row_done()?;
        }
        Ok(Found::Read)
    })?;
    saved.alerts_lost = match expected {
        Some(expected) => Some(expected.saturating_sub(saved.alerts)),
        None => whole.then_some(0),
    };
    Ok(())
}

fn read_alert(row: &SqlRow<'_>) -> rusqlite::Result<(i64, u64, Timestamp, Vec<u8>)> {
    let json = row.get("alert")?;
    Ok((
        row.get("state")?,
        number(row, "key")?,
        time(row, "stored")?,
        json,
    ))
}

fn save_dead(
    old: &Connection,
    copy: &mut Copying<'_>,
    saved: &mut Salvage,
) -> Result<(), SpoolError> {
    let table = Table {
        name: "dead",
        key: "id",
        columns: "epoch, seq, level, stored, rejected, bytes, why, alert",
    };
    let insert =
        "INSERT OR IGNORE INTO dead(id, epoch, seq, level, stored, rejected, bytes, why, alert)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    each_row(old, &table, |row| {
        let Ok(values) = read_dead(row) else {
            return Ok(Found::Unreadable);
        };
        saved.dead_letters += copy.new.prepare_cached(insert)?.execute(values)? as u64;
        copy.row_done()?;
        Ok(Found::Read)
    })?;
    Ok(())
}

type Dead = (i64, i64, i64, i64, i64, i64, i64, String, Vec<u8>);

fn read_dead(row: &SqlRow<'_>) -> rusqlite::Result<Dead> {
    let (why, alert): (String, Vec<u8>) = (row.get("why")?, row.get("alert")?);
    let bytes = (why.len() + alert.len()) as i64;
    Ok((
        row.get("key")?,
        row.get("epoch")?,
        row.get("seq")?,
        row.get("level")?,
        row.get("stored")?,
        row.get("rejected")?,
        bytes,
        why,
        alert,
    ))
}

fn save_kept(
    old: &Connection,
    copy: &mut Copying<'_>,
    saved: &mut Salvage,
) -> Result<(), SpoolError> {
    let table = Table {
        name: "kept",
        key: "id",
        columns: "room, key AS name, value",
    };
    let insert = "INSERT OR IGNORE INTO kept(id, room, key, value) VALUES (?1, ?2, ?3, ?4)";
    saved.kept_whole = each_row(old, &table, |row| {
        let read = |row: &SqlRow<'_>| -> rusqlite::Result<(i64, i64, Vec<u8>, Vec<u8>)> {
            Ok((
                row.get("key")?,
                row.get("room")?,
                row.get("name")?,
                row.get("value")?,
            ))
        };
        let Ok(values) = read(row) else {
            return Ok(Found::Unreadable);
        };
        saved.kept += copy.new.prepare_cached(insert)?.execute(values)? as u64;
        copy.row_done()?;
        Ok(Found::Read)
    })?;
    Ok(())
}

/// Returns whether the table could be read as a whole.
fn save_positions(
    old: &Connection,
    copy: &mut Copying<'_>,
    saved: &mut Salvage,
) -> Result<bool, SpoolError> {
    let table = Table {
        name: "positions",
        key: "id",
        columns: "source, moved, progress",
    };
    let whole = each_row(old, &table, |row| {
        let (Ok(progress), Ok(moved)) = (progress(row), time(row, "moved")) else {
            return Ok(Found::Unreadable);
        };
        set_progress(copy.new, &progress, moved)?;
        saved.positions_saved += 1;
        copy.row_done()?;
        Ok(Found::Read)
    })?;
    saved.positions = Positions::Table;
    Ok(whole)
}

/// Where the table has holes the hourly copy fills them; what the table gave is newer.
fn add_copied_positions(
    new: &Connection,
    files: &Files,
    whole: bool,
    saved: &mut Salvage,
) -> Result<(), SpoolError> {
    if whole {
        return Ok(());
    }
    let Some(copied) = positions::read(&files.folder) else {
        saved.positions = Positions::Lost;
        return Ok(());
    };
    begin(new)?;
    // Written first as the copy has them, then again as the table had them.
    let mut statement = new.prepare("SELECT source, moved, progress FROM positions")?;
    let rows = statement.query_map([], |row| Ok((progress(row)?, time(row, "moved")?)))?;
    let newer = rows.collect::<Result<Vec<_>, _>>()?;
    for progress in &copied.streams {
        set_progress(new, progress, copied.time)?;
    }
    for (progress, moved) in &newer {
        set_progress(new, progress, *moved)?;
    }
    let count = new.query_row("SELECT count(*) AS rows FROM positions", [], |row| {
        number(row, "rows")
    });
    saved.positions_saved = count?;
    commit(new)?;
    saved.positions = Positions::Copy(copied.time);
    Ok(())
}

struct Table {
    name: &'static str,
    /// Its rowid; read as `key`.
    key: &'static str,
    columns: &'static str,
}

/// What became of a row of the damaged file.
enum Found {
    Read,
    Unreadable,
    /// Enough was seen.
    Stop,
}

/// Hands over each row of a table that can be reached, and returns whether nothing was in the way. Over a page that
/// can't be read it leaps, by one, two, four … keys until a row answers, then reads backwards to the page's end.
fn each_row(
    old: &Connection,
    table: &Table,
    mut take: impl FnMut(&SqlRow<'_>) -> Result<Found, SpoolError>,
) -> Result<bool, SpoolError> {
    let Table { name, key, columns } = table;
    let select = format!(
        "SELECT {key} AS key, {columns} FROM {name} NOT INDEXED WHERE {key} > ?1 AND {key} <= ?2"
    );
    let forward = format!("{select} ORDER BY {key}");
    let backward = format!("{select} ORDER BY {key} DESC");
    let mut unreadable = false;
    let mut counting = |row: &SqlRow<'_>| {
        let found = take(row)?;
        unreadable |= matches!(found, Found::Unreadable);
        Ok(found)
    };
    let mut whole = true;
    let mut after = 0;
    loop {
        let read = scan(old, &forward, (after, i64::MAX), &mut counting)?;
        if read.end == End::Whole {
            return Ok(whole && !unreadable);
        }
        whole = false;
        after = read.last.unwrap_or(after);
        let landed = leap(old, &forward, after)?;
        let to = landed.unwrap_or(i64::MAX);
        scan(old, &backward, (after, to), &mut counting)?;
        match landed {
            Some(key) => after = key,
            None => return Ok(false),
        }
    }
}

/// Returns a key behind which a row can be read, or that there is none.
fn leap(old: &Connection, forward: &str, after: i64) -> Result<Option<i64>, SpoolError> {
    let mut stop = |_: &SqlRow<'_>| Ok(Found::Stop);
    // 63 doublings reach every key.
    for distance in (0..63).map(|power| 1i64 << power) {
        let key = after.saturating_add(distance);
        match scan(old, forward, (key, i64::MAX), &mut stop)?.end {
            End::Stopped => return Ok(Some(key)),
            End::Whole => return Ok(None),
            End::Broken => {}
        }
    }
    Ok(None)
}

struct Scan {
    end: End,
    last: Option<i64>,
}

#[derive(PartialEq, Eq)]
enum End {
    /// No row was left.
    Whole,
    /// The next row can't be read.
    Broken,
    /// As `take` wished.
    Stopped,
}

/// Reads rows with `?1 < key <= ?2`. Errors are those of `take` alone: what the old file answers is no error.
fn scan(
    old: &Connection,
    select: &str,
    (after, to): (i64, i64),
    take: &mut dyn FnMut(&SqlRow<'_>) -> Result<Found, SpoolError>,
) -> Result<Scan, SpoolError> {
    let mut scan = Scan {
        end: End::Broken,
        last: None,
    };
    let Ok(mut statement) = old.prepare_cached(select) else {
        return Ok(scan);
    };
    let Ok(mut rows) = statement.query((after, to)) else {
        return Ok(scan);
    };
    let mut turned = None;
    loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => {
                scan.end = End::Whole;
                return Ok(scan);
            }
            Err(_) => return Ok(scan),
        };
        let Ok(key) = row.get::<_, i64>("key") else {
            return Ok(scan);
        };
        // A damaged tree may lead in circles: the keys must go on in one direction, and stay within what was asked.
        let direction = scan.last.map(|last| key.cmp(&last));
        if key <= after || key > to || direction == Some(std::cmp::Ordering::Equal) {
            return Ok(scan);
        }
        if direction.is_some() && turned.is_some() && direction != turned {
            return Ok(scan);
        }
        turned = turned.or(direction);
        if let Found::Stop = take(row)? {
            scan.end = End::Stopped;
            return Ok(scan);
        }
        scan.last = Some(key);
    }
}
