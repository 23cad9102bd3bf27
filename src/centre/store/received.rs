//! Which numbers of an agent's spool were received, as ranges: what unexplained losses are computed from.

use sqlx::sqlite::SqliteConnection;

use crate::centre::store::{Store, StoreError, clamp};

/// Numbers `first..=last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    pub first: u64,
    pub last: u64,
}

/// Ranges kept of one epoch. An agent sends the most severe first, so holes are normal; beyond this many the two
/// lowest ranges become one, that is, the oldest hole is no longer seen.
pub const RANGES_MAX: i64 = 10_000;
/// Epochs kept of one agent: each is a lost or restored spool. The least recently used goes first.
pub const EPOCHS_MAX: i64 = 16;

/// Returns the numbers as the fewest ranges, ascending.
pub fn ranges(mut numbers: Vec<u64>) -> Vec<Range> {
    numbers.sort_unstable();
    let mut ranges: Vec<Range> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(range) if number <= range.last.saturating_add(1) => range.last = number,
            _ => ranges.push(Range {
                first: number,
                last: number,
            }),
        }
    }
    ranges
}

/// An epoch is 64 bits; the column is signed.
fn column(epoch: u64) -> i64 {
    epoch.cast_signed()
}

/// Notes that numbers of an epoch were received.
pub(super) async fn note(
    db: &mut SqliteConnection,
    agent: &str,
    epoch: u64,
    ranges: &[Range],
    now: i64,
) -> Result<(), sqlx::Error> {
    let epoch = column(epoch);
    let next = ranges
        .last()
        .map_or(0, |range| clamp(range.last.saturating_add(1)));
    use_epoch(db, agent, epoch, next, now).await?;
    for range in ranges {
        join(db, agent, epoch, clamp(range.first), clamp(range.last)).await?;
    }
    let (count,): (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM received WHERE agent = ? AND epoch = ?")
            .bind(agent)
            .bind(epoch)
            .fetch_one(&mut *db)
            .await?;
    for _ in RANGES_MAX..count {
        join_lowest(db, agent, epoch).await?;
    }
    Ok(())
}

async fn use_epoch(
    db: &mut SqliteConnection,
    agent: &str,
    epoch: i64,
    next: i64,
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO epochs (agent, epoch, used, next) VALUES (?, ?, ?, ?)
         ON CONFLICT (agent, epoch) DO UPDATE SET used = excluded.used, next = MAX(next, excluded.next)",
    )
    .bind(agent)
    .bind(epoch)
    .bind(now)
    .bind(next)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "DELETE FROM epochs WHERE agent = ?1 AND epoch IN
         (SELECT epoch FROM epochs WHERE agent = ?1 AND epoch <> ?2 ORDER BY used DESC LIMIT -1 OFFSET ?3)",
    )
    .bind(agent)
    .bind(epoch)
    .bind(EPOCHS_MAX - 1)
    .execute(db)
    .await?;
    Ok(())
}

/// Adds a range and makes one of it and those it touches.
async fn join(
    db: &mut SqliteConnection,
    agent: &str,
    epoch: i64,
    first: i64,
    last: i64,
) -> Result<(), sqlx::Error> {
    let (low, high): (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT MIN(first), MAX(last) FROM received
         WHERE agent = ? AND epoch = ? AND first <= ? AND last >= ?",
    )
    .bind(agent)
    .bind(epoch)
    .bind(last.saturating_add(1))
    .bind(first.saturating_sub(1))
    .fetch_one(&mut *db)
    .await?;
    let first = low.map_or(first, |low| low.min(first));
    let last = high.map_or(last, |high| high.max(last));
    sqlx::query("DELETE FROM received WHERE agent = ? AND epoch = ? AND first BETWEEN ? AND ?")
        .bind(agent)
        .bind(epoch)
        .bind(first)
        .bind(last)
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO received (agent, epoch, first, last) VALUES (?, ?, ?, ?)")
        .bind(agent)
        .bind(epoch)
        .bind(first)
        .bind(last)
        .execute(db)
        .await?;
    Ok(())
}

async fn join_lowest(
    db: &mut SqliteConnection,
    agent: &str,
    epoch: i64,
) -> Result<(), sqlx::Error> {
    let lowest: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT first, last FROM received WHERE agent = ? AND epoch = ? ORDER BY first LIMIT 2",
    )
    .bind(agent)
    .bind(epoch)
    .fetch_all(&mut *db)
    .await?;
    match lowest[..] {
        [(first, _), (_, last)] => join(db, agent, epoch, first, last).await,
        _ => Ok(()),
    }
}

/// What an agent's ledger came to, beside what was received.
#[derive(Debug)]
pub(super) struct Losses {
    pub unexplained: u64,
    pub stated: u64,
}

pub(super) async fn note_losses(
    db: &mut SqliteConnection,
    agent: &str,
    epoch: u64,
    losses: &Losses,
    now: i64,
) -> Result<(), sqlx::Error> {
    let epoch = column(epoch);
    use_epoch(db, agent, epoch, 0, now).await?;
    sqlx::query("UPDATE epochs SET unexplained = ?, stated = ? WHERE agent = ? AND epoch = ?")
        .bind(clamp(losses.unexplained))
        .bind(clamp(losses.stated))
        .bind(agent)
        .bind(epoch)
        .execute(db)
        .await?;
    Ok(())
}

/// Sums over all agents and epochs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LossTotals {
    pub unexplained: i64,
    pub stated: i64,
}

impl Store {
    /// Returns the ranges received of an epoch, ascending, and one above the highest number.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn received(
        &self,
        agent: &str,
        epoch: u64,
    ) -> Result<(Vec<Range>, Option<u64>), StoreError> {
        let rows: Vec<(i64, i64)> = sqlx::query_as(
            "SELECT first, last FROM received WHERE agent = ? AND epoch = ? ORDER BY first",
        )
        .bind(agent)
        .bind(column(epoch))
        .fetch_all(&self.readers)
        .await?;
        let ranges: Vec<Range> = rows
            .into_iter()
            .map(|(first, last)| Range {
                first: first.unsigned_abs(),
                last: last.unsigned_abs(),
            })
            .collect();
        let next = ranges.last().map(|range| range.last.saturating_add(1));
        Ok((ranges, next))
    }

    /// # Errors
    /// When the database can't be read.
    pub async fn losses(&self) -> Result<LossTotals, StoreError> {
        // TOTAL never overflows, as SUM does when agents claim absurd numbers.
        let (unexplained, stated): (f64, f64) =
            sqlx::query_as("SELECT TOTAL(unexplained), TOTAL(stated) FROM epochs")
                .fetch_one(&self.readers)
                .await?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "`as` saturates, which is meant"
        )]
        Ok(LossTotals {
            unexplained: unexplained as i64,
            stated: stated as i64,
        })
    }
}
