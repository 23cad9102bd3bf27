//! Alerts as they are written: by the batch, each found by its words and counted by its hour in the same commit.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use crate::alert::{Alert, AlertId, Severity};
use crate::centre::store::counts::{Key, Tally};
use crate::centre::store::packing::{Packing, Press};
use crate::centre::store::received::{self, Range};
use crate::centre::store::{Store, StoreError, Write, clamp, micros, words};
use jiff::Timestamp;
use thiserror::Error;

/// One alert ready to be written: serialised, packed and taken to words before the writer's turn.
#[derive(Debug)]
pub struct Row {
    id: AlertId,
    time: i64,
    level: Severity,
    rule: String,
    title: String,
    host: String,
    agency: String,
    count: i64,
    words: String,
    packing: i64,
    payload: Vec<u8>,
}

/// Why an alert can't be stored.
#[derive(Debug, Error)]
pub enum RowError {
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Packing(#[from] std::io::Error),
}

impl Row {
    /// # Errors
    /// When the alert can't be written as JSON or packed.
    pub fn new(alert: &Alert, press: &mut Press<'_>) -> Result<Self, RowError> {
        let json = serde_json::to_string(alert)?;
        let (packing, payload) = press.pack(&json)?;
        Ok(Self {
            id: alert.id,
            time: micros(alert.time),
            level: alert.rule.level,
            rule: alert.rule.id.clone(),
            title: alert.rule.title.clone(),
            host: alert.host.clone(),
            agency: alert.agency.clone(),
            count: clamp(alert.count()),
            words: words::of(alert),
            packing,
            payload,
        })
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key {
            agency: &self.agency,
            rule: &self.rule,
            level: self.level as i64,
            time: self.time,
        }
    }
}

/// What one request brought: rows and the numbers that it accounts for, also those of refused lines.
#[derive(Debug)]
pub struct Batch {
    pub agent: String,
    pub epoch: u64,
    pub numbers: Vec<Range>,
    pub rows: Vec<Row>,
    pub received: Timestamp,
}

/// What became of a batch.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Stored {
    /// New ones, by level, the least first.
    pub accepted: [usize; 5],
    /// Seen before; also those that only grew.
    pub duplicate: usize,
}

impl Stored {
    pub fn accepted(&self) -> usize {
        self.accepted.iter().sum()
    }
}

/// Its time lay further ahead of our clock than `AHEAD_MICROS`.
pub(super) const FLAG_AHEAD: i64 = 1;
/// It grew after it was closed.
pub(super) const FLAG_GREW: i64 = 2;
/// An agent takes no log's clock for more than 5 minutes ahead of its own; its own may be off by as much.
pub(super) const AHEAD_MICROS: i64 = 10 * 60 * 1_000_000;

struct Append {
    batch: Batch,
    packing: Packing,
}

impl Write for Append {
    type Out = Stored;

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<Stored, sqlx::Error> {
        let mut stored = Stored::default();
        let batch = &self.batch;
        let now = micros(batch.received);
        if !batch.numbers.is_empty() {
            received::note(db, &batch.agent, batch.epoch, &batch.numbers, now).await?;
        }
        let mut tally = Tally::default();
        let mut known: Option<(&str, &str)> = None;
        for row in &batch.rows {
            if let Some(seq) = insert(db, &batch.agent, row, now).await? {
                add_words(db, seq, &row.words).await?;
                tally.add(&row.key(), 1, row.count);
                stored.accepted[row.level as usize] += 1;
            } else {
                grow(db, &batch.agent, row, &self.packing, &mut tally).await?;
                stored.duplicate += 1;
            }
            let rule = (row.rule.as_str(), row.title.as_str());
            if known != Some(rule) {
                sqlx::query("INSERT INTO rules (id, title) VALUES (?, ?) ON CONFLICT DO NOTHING")
                    .bind(rule.0)
                    .bind(rule.1)
                    .execute(&mut *db)
                    .await?;
                known = Some(rule);
            }
        }
        tally.write(db).await?;
        Ok(stored)
    }

    fn weight(&self) -> usize {
        self.batch.rows.len() + 1
    }
}

impl Store {
    /// Writes a batch; when it returns, it is on the disk.
    ///
    /// # Errors
    /// When it could not be committed; then nothing of it is stored.
    pub async fn append(&self, batch: Batch) -> Result<Stored, StoreError> {
        let packing = self.packing.clone();
        self.write(Append { batch, packing }).await
    }
}

/// Returns the number of the new row; nothing if it is there already.
async fn insert(
    db: &mut SqliteConnection,
    agent: &str,
    row: &Row,
    now: i64,
) -> Result<Option<i64>, sqlx::Error> {
    let is_ahead = row.time > now.saturating_add(AHEAD_MICROS);
    let done = sqlx::query(
        "INSERT INTO alerts (id, agent, time, received, level, rule, host, agency, count, packing, payload, flags)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, agent, time) DO NOTHING",
    )
    .bind(&row.id.as_bytes()[..])
    .bind(agent)
    .bind(row.time)
    .bind(now)
    .bind(row.level as i64)
    .bind(&row.rule)
    .bind(&row.host)
    .bind(&row.agency)
    .bind(row.count)
    .bind(row.packing)
    .bind(&row.payload)
    .bind(if is_ahead { FLAG_AHEAD } else { 0 })
    .execute(db)
    .await?;
    Ok((done.rows_affected() == 1).then(|| done.last_insert_rowid()))
}

pub(super) async fn add_words(
    db: &mut SqliteConnection,
    seq: i64,
    text: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO words (rowid, text) VALUES (?, ?)")
        .bind(seq)
        .bind(text)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn drop_words(db: &mut SqliteConnection, seq: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM words WHERE rowid = ?")
        .bind(seq)
        .execute(db)
        .await?;
    Ok(())
}

/// A fold is sent again as it grows: the higher count wins, whichever comes first. What people did stays.
async fn grow(
    db: &mut SqliteConnection,
    agent: &str,
    row: &Row,
    packing: &Packing,
    tally: &mut Tally,
) -> Result<(), sqlx::Error> {
    let held = sqlx::query(
        "SELECT seq, count, level, rule, agency, packing, payload FROM alerts
         WHERE id = ? AND agent = ? AND time = ? AND count < ?",
    )
    .bind(&row.id.as_bytes()[..])
    .bind(agent)
    .bind(row.time)
    .bind(row.count)
    .fetch_optional(&mut *db)
    .await?;
    let Some(held) = held else { return Ok(()) };
    let seq: i64 = held.try_get(0)?;
    let (rule, agency): (String, String) = (held.try_get(3)?, held.try_get(4)?);
    let before = Key {
        agency: &agency,
        rule: &rule,
        level: held.try_get(2)?,
        time: row.time,
    };
    tally.add(&before, -1, held.try_get(1)?);
    let after = Key {
        agency: &agency,
        ..row.key()
    };
    tally.add(&after, 1, row.count);
    // To index words again out of turn costs a hundred times the comparison, and a fold's words rarely change.
    let old = packing
        .unpack(held.try_get(5)?, held.try_get(6)?)
        .ok()
        .and_then(|json| serde_json::from_str::<Alert>(&json).ok());
    if old.is_none_or(|old| words::of(&old) != row.words) {
        drop_words(db, seq).await?;
        add_words(db, seq, &row.words).await?;
    }
    sqlx::query(
        "UPDATE alerts SET count = ?, packing = ?, payload = ?, level = ?, rule = ?, host = ?,
             flags = flags | (CASE WHEN status = 3 THEN ? ELSE 0 END)
         WHERE seq = ?",
    )
    .bind(row.count)
    .bind(row.packing)
    .bind(&row.payload)
    .bind(row.level as i64)
    .bind(&row.rule)
    .bind(&row.host)
    .bind(FLAG_GREW)
    .bind(seq)
    .execute(db)
    .await?;
    Ok(())
}
