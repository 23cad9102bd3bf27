//! What the store does for itself: takes over alerts of the earlier version, and trains dictionaries.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use crate::alert::Alert;
use crate::centre::store::alerts::add_words;
use crate::centre::store::counts::{Key, Tally};
use crate::centre::store::packing::{self, PLAIN, Packing};
use crate::centre::store::{Store, StoreError, Write, words};

/// Rows of one step of the take-over: a tenth of a second.
const STEP_ROWS: i64 = 1000;
/// A dictionary is trained when so many alerts were stored since the store was made: what a site sees changes.
const TRAIN_AT: [i64; 4] = [2000, 50_000, 1_000_000, 20_000_000];
/// Alerts that one is trained on, the newest: 3 MB, half a second.
const SAMPLES: i64 = 4096;

/// Gives alerts that an earlier version stored their words, counts and packing. It goes on where it was interrupted.
///
/// # Errors
/// When the database can't be written.
pub async fn take_over(db: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let number = "SELECT number FROM versions WHERE name = ?";
    let last: i64 = sqlx::query_scalar(number)
        .bind("carry")
        .fetch_one(&mut *db)
        .await?;
    let mut done: i64 = sqlx::query_scalar(number)
        .bind("carried")
        .fetch_one(&mut *db)
        .await?;
    let mut rows = 0;
    while done < last {
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *db).await?;
        match step(db, done, last).await {
            Ok((reached, taken)) => {
                sqlx::query("COMMIT").execute(&mut *db).await?;
                done = reached;
                rows += taken;
            }
            Err(error) => {
                // Closing the connection would end it too; the first fault is the one to tell.
                let _ = sqlx::query("ROLLBACK").execute(&mut *db).await;
                return Err(error);
            }
        }
    }
    Ok(rows)
}

async fn step(db: &mut SqliteConnection, done: i64, last: i64) -> Result<(i64, i64), sqlx::Error> {
    let rows = sqlx::query(
        "SELECT seq, time, level, rule, agency, count, packing, payload FROM alerts
         WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
    )
    .bind(done)
    .bind(last)
    .bind(STEP_ROWS)
    .fetch_all(&mut *db)
    .await?;
    let plain = Packing::default().packer();
    let mut press = plain.press().map_err(sqlx::Error::Io)?;
    let (mut reached, mut taken, mut tally) = (last, 0, Tally::default());
    for row in &rows {
        reached = row.try_get(0)?;
        let (rule, agency): (String, String) = (row.try_get(3)?, row.try_get(4)?);
        let key = Key {
            agency: &agency,
            rule: &rule,
            level: row.try_get(2)?,
            time: row.try_get(1)?,
        };
        tally.add(&key, 1, row.try_get(5)?);
        let packing: i64 = row.try_get(6)?;
        let json: Vec<u8> = row.try_get(7)?;
        // A payload that can't be read stays as it is: it is counted, and told when it is asked for.
        let (PLAIN, Ok(json)) = (packing, String::from_utf8(json)) else {
            continue;
        };
        if let Ok(alert) = serde_json::from_str::<Alert>(&json) {
            add_words(db, reached, &words::of(&alert)).await?;
        }
        let (packing, payload) = press.pack(&json).map_err(sqlx::Error::Io)?;
        sqlx::query("UPDATE alerts SET packing = ?, payload = ? WHERE seq = ?")
            .bind(packing)
            .bind(payload)
            .bind(reached)
            .execute(&mut *db)
            .await?;
        taken += 1;
    }
    if (rows.len() as u64).cast_signed() < STEP_ROWS {
        reached = last;
    }
    tally.write(db).await?;
    sqlx::query("UPDATE versions SET number = ? WHERE name = 'carried'")
        .bind(reached)
        .execute(db)
        .await?;
    Ok((reached, taken))
}

struct Dictionary {
    number: i64,
    rows: i64,
    bytes: Vec<u8>,
}

impl Write for Dictionary {
    type Out = ();

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO dictionaries (number, rows, bytes) VALUES (?, ?, ?)")
            .bind(self.number)
            .bind(self.rows)
            .bind(&self.bytes)
            .execute(db)
            .await?;
        Ok(())
    }
}

impl Store {
    /// Trains a dictionary if one is due; tells whether it did.
    ///
    /// # Errors
    /// When the database can't be read or written.
    pub async fn train(&self) -> Result<bool, StoreError> {
        let rows: Option<i64> = sqlx::query_scalar("SELECT MAX(seq) FROM alerts")
            .fetch_one(&self.readers)
            .await?;
        let rows = rows.unwrap_or(0);
        let held: (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT MAX(number), MAX(rows) FROM dictionaries")
                .fetch_one(&self.readers)
                .await?;
        let (number, trained_at) = (held.0.unwrap_or(0), held.1.unwrap_or(0));
        if !TRAIN_AT.iter().any(|at| trained_at < *at && *at <= rows) {
            return Ok(false);
        }
        let samples = sqlx::query("SELECT packing, payload FROM alerts ORDER BY seq DESC LIMIT ?")
            .bind(SAMPLES)
            .fetch_all(&self.readers)
            .await?;
        let mut payloads = Vec::with_capacity(samples.len());
        for row in &samples {
            let payload: &[u8] = row.try_get(1)?;
            payloads.push(self.packing.unpack(row.try_get(0)?, payload)?);
        }
        let trained = tokio::task::spawn_blocking(move || packing::train(&payloads)).await;
        // Too few or too alike: the next mark may do better, and without one all works as well.
        let Ok(Ok(bytes)) = trained else {
            return Ok(false);
        };
        let number = number + 1;
        self.write(Dictionary {
            number,
            rows,
            bytes: bytes.clone(),
        })
        .await?;
        // Used only once it is on the disk: what it packs could not be read without it.
        self.packing.add(number, &bytes);
        Ok(true)
    }
}
