//! Alerts: written by the batch, asked for by the page.

use serde_json::value::RawValue;
use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{QueryBuilder, Row as _};

use crate::alert::{Alert, AlertId, Severity};
use crate::centre::store::received::{self, Range};
use crate::centre::store::{Store, StoreError, Write, clamp, micros};
use jiff::Timestamp;

/// One alert ready to be written: serialised before the writer's turn.
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
    payload: String,
}

impl Row {
    /// # Errors
    /// When the alert can't be written as JSON.
    pub fn new(alert: &Alert) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: alert.id,
            time: micros(alert.time),
            level: alert.rule.level,
            rule: alert.rule.id.clone(),
            title: alert.rule.title.clone(),
            host: alert.host.clone(),
            agency: alert.agency.clone(),
            count: clamp(alert.count()),
            payload: serde_json::to_string(alert)?,
        })
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

impl Write for Batch {
    type Out = Stored;

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<Stored, sqlx::Error> {
        let mut stored = Stored::default();
        let now = micros(self.received);
        if !self.numbers.is_empty() {
            received::note(db, &self.agent, self.epoch, &self.numbers, now).await?;
        }
        let mut known: Option<(&str, &str)> = None;
        for row in &self.rows {
            if insert(db, &self.agent, row, now).await? {
                stored.accepted[row.level as usize] += 1;
            } else {
                grow(db, &self.agent, row).await?;
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
        Ok(stored)
    }

    fn weight(&self) -> usize {
        self.rows.len() + 1
    }
}

async fn insert(
    db: &mut SqliteConnection,
    agent: &str,
    row: &Row,
    now: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "INSERT INTO alerts (id, agent, time, received, level, rule, title, host, agency, count, payload)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id, agent, time) DO NOTHING",
    )
    .bind(&row.id.as_bytes()[..])
    .bind(agent)
    .bind(row.time)
    .bind(now)
    .bind(row.level as i64)
    .bind(&row.rule)
    .bind(&row.title)
    .bind(&row.host)
    .bind(&row.agency)
    .bind(row.count)
    .bind(&row.payload)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A fold is sent again as it grows: the higher count wins, whichever comes first.
async fn grow(db: &mut SqliteConnection, agent: &str, row: &Row) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE alerts SET count = ?1, payload = ?2, level = ?3, rule = ?4, title = ?5, host = ?6
         WHERE id = ?7 AND agent = ?8 AND time = ?9 AND count < ?1",
    )
    .bind(row.count)
    .bind(&row.payload)
    .bind(row.level as i64)
    .bind(&row.rule)
    .bind(&row.title)
    .bind(&row.host)
    .bind(&row.id.as_bytes()[..])
    .bind(agent)
    .bind(row.time)
    .execute(db)
    .await?;
    Ok(())
}

/// Which alerts; absent means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// That time included.
    pub since: Option<Timestamp>,
    /// That time excluded.
    pub until: Option<Timestamp>,
    /// Stored here at that time or later.
    pub received_since: Option<Timestamp>,
    /// This level or a worse one.
    pub level: Option<Severity>,
    /// A rule's id, or a part of its title.
    pub rule: Option<String>,
    pub host: Option<String>,
    /// The agency and all below it.
    pub agency: Option<String>,
    /// A part of the title, the raw record or a field's value.
    pub text: Option<String>,
    /// Each of these fields has this value.
    pub fields: Vec<(String, String)>,
}

/// Where a page ended: the time and row of its last alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub time: i64,
    pub seq: i64,
}

/// Alerts as they are stored, newest first.
#[derive(Debug)]
pub struct Page {
    pub alerts: Vec<Box<RawValue>>,
    /// Present when there may be more. With `text` or `fields` a page may hold few or none and still have a next.
    pub next: Option<Cursor>,
}

/// Rows that `text` and `fields` look at for one page: no index helps them, so one request does at most this much
/// (about 0.2 s) and the next page goes on from there.
pub const SCAN_ROWS_MAX: i64 = 20_000;
/// Rules that a part of a title may stand for.
const RULES_MAX: i64 = 200;

impl Store {
    /// Writes a batch; when it returns, it is on the disk.
    ///
    /// # Errors
    /// When it could not be committed; then nothing of it is stored.
    pub async fn append(&self, batch: Batch) -> Result<Stored, StoreError> {
        self.write(batch).await
    }

    /// Returns the newest `limit` alerts that pass the filter, from `after` on.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn alerts(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let rules = match &filter.rule {
            None => None,
            Some(rule) => Some(self.rules_named(rule).await?),
        };
        let floor = if filter.text.is_some() || !filter.fields.is_empty() {
            self.scan_floor(filter, rules.as_deref(), after).await?
        } else {
            None
        };
        let mut query = QueryBuilder::new("SELECT time, seq, payload FROM alerts WHERE TRUE");
        narrow(&mut query, filter, rules.as_deref(), after);
        search(&mut query, filter);
        if let Some(floor) = floor {
            query.push(" AND (time, seq) >= (").push_bind(floor.time);
            query.push(", ").push_bind(floor.seq).push(")");
        }
        order(&mut query, filter);
        query
            .push(" LIMIT ")
            .push_bind(clamp(limit as u64).saturating_add(1));
        let rows = query.build().fetch_all(&self.readers).await?;
        let mut page = Page {
            alerts: Vec::with_capacity(rows.len().min(limit)),
            next: floor,
        };
        let mut last = None;
        for (index, row) in rows.iter().enumerate() {
            if index == limit {
                page.next = last;
                break;
            }
            last = Some(Cursor {
                time: row.try_get(0)?,
                seq: row.try_get(1)?,
            });
            page.alerts.push(payload(row.try_get(2)?)?);
        }
        Ok(page)
    }

    /// Returns the alerts of that id, with their agents: one, unless two agents made the same.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn alert(
        &self,
        id: &AlertId,
        agent: Option<&str>,
    ) -> Result<Vec<(String, Box<RawValue>)>, StoreError> {
        let mut query = QueryBuilder::new("SELECT agent, payload FROM alerts WHERE id = ");
        query.push_bind(id.as_bytes().to_vec());
        if let Some(agent) = agent {
            query.push(" AND agent = ").push_bind(agent.to_owned());
        }
        query.push(" ORDER BY time DESC LIMIT 100");
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, payload(row.try_get(1)?)?)))
            .collect()
    }

    async fn rules_named(&self, rule: &str) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "SELECT DISTINCT id FROM rules WHERE id = ? OR title LIKE ? ESCAPE '\\' LIMIT ?",
        )
        .bind(rule)
        .bind(part(rule))
        .bind(RULES_MAX)
        .fetch_all(&self.readers)
        .await?)
    }

    /// Where a search that no index helps stops for this page; nothing if it reaches the end.
    async fn scan_floor(
        &self,
        filter: &Filter,
        rules: Option<&[String]>,
        after: Option<Cursor>,
    ) -> Result<Option<Cursor>, StoreError> {
        let mut query = QueryBuilder::new("SELECT time, seq FROM alerts WHERE TRUE");
        narrow(&mut query, filter, rules, after);
        order(&mut query, filter);
        query
            .push(" LIMIT 1 OFFSET ")
            .push_bind(SCAN_ROWS_MAX.saturating_sub(1));
        let floor: Option<(i64, i64)> =
            query.build_query_as().fetch_optional(&self.readers).await?;
        Ok(floor.map(|(time, seq)| Cursor { time, seq }))
    }
}

fn payload(text: String) -> Result<Box<RawValue>, StoreError> {
    RawValue::from_string(text).map_err(|_| StoreError::Row { what: "an alert" })
}

/// The conditions that an index answers.
fn narrow(
    query: &mut QueryBuilder<Sqlite>,
    filter: &Filter,
    rules: Option<&[String]>,
    after: Option<Cursor>,
) {
    if let Some(since) = filter.since {
        query.push(" AND time >= ").push_bind(micros(since));
    }
    if let Some(until) = filter.until {
        query.push(" AND time < ").push_bind(micros(until));
    }
    if let Some(received) = filter.received_since {
        query.push(" AND received >= ").push_bind(micros(received));
    }
    match filter.level {
        None | Some(Severity::Informational) => {}
        // One value, not a range: then the index of the level gives the order too.
        Some(Severity::Critical) => {
            query
                .push(" AND level = ")
                .push_bind(Severity::Critical as i64);
        }
        Some(level) => {
            query.push(" AND level >= ").push_bind(level as i64);
        }
    }
    match rules {
        None => {}
        Some([rule]) => {
            query.push(" AND rule = ").push_bind(rule.clone());
        }
        Some(rules) => {
            let mut list = query.push(" AND rule IN (").separated(", ");
            for rule in rules {
                list.push_bind(rule.clone());
            }
            query.push(")");
        }
    }
    if let Some(host) = &filter.host {
        query.push(" AND host = ").push_bind(host.clone());
    }
    if let Some(agency) = &filter.agency {
        query.push(" AND (agency = ").push_bind(agency.clone());
        // `0` follows `/`: every path below, by a range that an index answers.
        query
            .push(" OR (agency >= ")
            .push_bind(format!("{agency}/"));
        query
            .push(" AND agency < ")
            .push_bind(format!("{agency}0"))
            .push("))");
    }
    if let Some(after) = after {
        query.push(" AND (time, seq) < (").push_bind(after.time);
        query.push(", ").push_bind(after.seq).push(")");
    }
}

/// The conditions for which rows are read.
fn search(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    if let Some(text) = &filter.text {
        let part = part(text);
        query.push(" AND (title LIKE ").push_bind(part.clone());
        query.push(r" ESCAPE '\' OR json_extract(payload, '$.raw') LIKE ");
        query.push_bind(part.clone());
        query.push(
            r" ESCAPE '\' OR EXISTS (SELECT 1 FROM json_tree(payload, '$.fields') WHERE CAST(atom AS TEXT) LIKE ",
        );
        query.push_bind(part).push(r" ESCAPE '\'))");
    }
    for (name, value) in &filter.fields {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(payload, '$.fields') AS f WHERE f.key = ");
        query.push_bind(name.clone());
        for (start, end) in [
            (" AND (CAST(f.value AS TEXT) = ", ""),
            (" OR (f.type IN ('true', 'false') AND f.type = ", ")"),
            (
                " OR (f.type = 'array' AND EXISTS (SELECT 1 FROM json_each(f.value) AS v WHERE CAST(v.value AS TEXT) = ",
                "))",
            ),
        ] {
            query.push(start).push_bind(value.clone()).push(end);
        }
        query.push("))");
    }
}

fn order(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    // What arrived lately is little: find it by its own index and sort, rather than walk all times (`+` forbids that).
    query.push(if filter.received_since.is_some() {
        " ORDER BY +time DESC, +seq DESC"
    } else {
        " ORDER BY time DESC, seq DESC"
    });
}

/// A LIKE pattern for text that contains `text`, whatever signs it has.
fn part(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
