//! Alerts as they are asked for: a page at a time, by the index that the filter allows, with bounded work for a page.
//! What a page's share of work did not reach, the next page goes on with.

mod plan;

use jiff::Timestamp;
use serde_json::value::RawValue;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _};

pub use self::plan::Narrowed;
use self::plan::{Lead, Looked, subtree};
use crate::alert::{AlertId, Severity};
use crate::centre::store::alerts::{AHEAD_MICROS, FLAG_AHEAD, FLAG_GREW};
use crate::centre::store::work::{Status, Work};
use crate::centre::store::{Store, StoreError, clamp, micros, timestamp};

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
    /// One of these.
    pub status: Vec<Status>,
    pub assignee: Option<String>,
    /// The rule has this tag, or one below it.
    pub tag: Option<String>,
    /// Words of the title, the raw record or a field's value, as they stand there.
    pub text: Option<String>,
    /// Each of these fields has this value.
    pub fields: Vec<(String, String)>,
}

/// The name under which a centre adds its own words to an alert.
pub const CENTRE: &str = "centre";

/// Where a page ended: the time and row of its last alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub time: i64,
    pub seq: i64,
}

/// One stored alert.
#[derive(Debug)]
pub struct Entry {
    pub seq: i64,
    pub agent: String,
    pub agency: String,
    /// As the agent sent it.
    pub alert: Box<RawValue>,
    pub work: Work,
}

/// Alerts, newest first; with `text`, `tag` or `fields` the last stored first.
#[derive(Debug)]
pub struct Page {
    pub alerts: Vec<Entry>,
    /// Present when there may be more. A page may hold few or none and still have a next.
    pub next: Option<Cursor>,
}

/// Rows of an index that one page looks at: about 0.1 s where none of them passes.
pub const SCAN_ROWS_MAX: i64 = 20_000;
/// Alerts that one page unpacks to see whether they hold the text as it stands: 40 µs each.
const VERIFIED_MAX: usize = 2000;
/// Rules that a part of a title may stand for.
const RULES_MAX: i64 = 200;
/// Agencies that are looked up one by one; a subtree of more is walked by time.
const AGENCIES_MAX: i64 = 32;

const COLUMNS: &str = "a.seq, a.time, a.agent, a.agency, a.received, a.status, a.disposition, a.assignee, a.version, a.flags, a.acknowledged, a.closed, a.packing, a.payload";

impl Store {
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
        let narrowed = self.narrowed(filter).await?;
        if let Some(looked) = Looked::of(filter) {
            return self
                .by_words(filter, &narrowed, &looked, after, limit)
                .await;
        }
        if filter.received_since.is_some() {
            return self.by_arrival(filter, &narrowed, after, limit).await;
        }
        self.by_time(filter, &narrowed, after, limit).await
    }

    /// Returns the alerts of that id: one, unless two agents made the same.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn alert(&self, id: &AlertId, agent: Option<&str>) -> Result<Vec<Entry>, StoreError> {
        let mut query = QueryBuilder::new(format!("SELECT {COLUMNS} FROM alerts a WHERE a.id = "));
        query.push_bind(id.as_bytes().to_vec());
        if let Some(agent) = agent {
            query.push(" AND a.agent = ").push_bind(agent.to_owned());
        }
        query.push(" ORDER BY a.time DESC LIMIT 100");
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(|row| self.entry(row)).collect()
    }

    pub(super) async fn narrowed(&self, filter: &Filter) -> Result<Narrowed, StoreError> {
        let mut narrowed = Narrowed::default();
        if let Some(rule) = &filter.rule {
            let rules: Vec<String> = sqlx::query_scalar(
                "SELECT DISTINCT id FROM rules WHERE id = ? OR title LIKE ? ESCAPE '\\' LIMIT ?",
            )
            .bind(rule)
            .bind(part(rule))
            .bind(RULES_MAX)
            .fetch_all(&self.readers)
            .await?;
            narrowed.rules = Some(rules);
        }
        if let Some(agency) = &filter.agency {
            let mut query = QueryBuilder::new("SELECT id FROM agencies_seen WHERE ");
            subtree(&mut query, "id", agency);
            query.push(" LIMIT ").push_bind(AGENCIES_MAX + 1);
            let agencies: Vec<String> = query.build_query_scalar().fetch_all(&self.readers).await?;
            narrowed.agencies = (clamp(agencies.len() as u64) <= AGENCIES_MAX).then_some(agencies);
        }
        Ok(narrowed)
    }

    /// Each lead walks its own index from the newest; what they find is merged.
    async fn by_time(
        &self,
        filter: &Filter,
        narrowed: &Narrowed,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let wanted = clamp(limit as u64).saturating_add(1);
        let mut found: Vec<Cursor> = Vec::new();
        let mut floor: Option<Cursor> = None;
        for lead in narrowed.leads(filter) {
            let rest = narrowed.rest(filter, &lead);
            let rows: Vec<(i64, i64)> = if rest.is_empty() {
                let mut query = QueryBuilder::new("SELECT time, seq FROM alerts WHERE TRUE");
                lead.push(&mut query, filter, after);
                query.push(" LIMIT ").push_bind(wanted);
                query.build_query_as().fetch_all(&self.readers).await?
            } else {
                // The inner query is a coroutine: it stops when the outer one has enough.
                let mut query = QueryBuilder::new(
                    "SELECT time, seq FROM (SELECT time, seq, level, rule, host, agency, status, assignee FROM alerts WHERE TRUE",
                );
                lead.push(&mut query, filter, after);
                query
                    .push(" LIMIT ")
                    .push_bind(SCAN_ROWS_MAX)
                    .push(") WHERE TRUE");
                rest.iter().for_each(|condition| condition.push(&mut query));
                query.push(" LIMIT ").push_bind(wanted);
                query.build_query_as().fetch_all(&self.readers).await?
            };
            if !rest.is_empty() && clamp(rows.len() as u64) < wanted {
                let mut query = QueryBuilder::new("SELECT time, seq FROM alerts WHERE TRUE");
                lead.push(&mut query, filter, after);
                query.push(" LIMIT 1 OFFSET ").push_bind(SCAN_ROWS_MAX - 1);
                let stop: Option<(i64, i64)> =
                    query.build_query_as().fetch_optional(&self.readers).await?;
                floor = floor.max(stop.map(|(time, seq)| Cursor { time, seq }));
            }
            found.extend(rows.into_iter().map(|(time, seq)| Cursor { time, seq }));
        }
        self.page(found, floor, limit).await
    }

    /// What arrived lately is little: it is found by its own index and sorted.
    async fn by_arrival(
        &self,
        filter: &Filter,
        narrowed: &Narrowed,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let mut query = QueryBuilder::new("SELECT time, seq FROM alerts WHERE received >= ");
        query.push_bind(filter.received_since.map_or(i64::MIN, micros));
        Lead::Time.push_bounds(&mut query, filter, after);
        for condition in narrowed.rest(filter, &Lead::Time) {
            condition.push(&mut query);
        }
        query.push(" ORDER BY +time DESC, +seq DESC LIMIT ");
        query.push_bind(clamp(limit as u64).saturating_add(1));
        let rows: Vec<(i64, i64)> = query.build_query_as().fetch_all(&self.readers).await?;
        let found = rows.into_iter().map(|(time, seq)| Cursor { time, seq });
        self.page(found.collect(), None, limit).await
    }

    async fn page(
        &self,
        mut found: Vec<Cursor>,
        floor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.retain(|cursor| floor.is_none_or(|floor| *cursor >= floor));
        let next = if found.len() > limit {
            found.truncate(limit);
            found.last().copied()
        } else {
            floor
        };
        let mut alerts = Vec::with_capacity(found.len());
        if !found.is_empty() {
            let mut query =
                QueryBuilder::new(format!("SELECT {COLUMNS} FROM alerts a WHERE a.seq IN ("));
            let mut list = query.separated(", ");
            for cursor in &found {
                list.push_bind(cursor.seq);
            }
            query.push(")");
            for row in query.build().fetch_all(&self.readers).await? {
                let time: i64 = row.try_get(1)?;
                alerts.push((time, self.entry(&row)?));
            }
        }
        alerts.sort_unstable_by_key(|(time, entry)| std::cmp::Reverse((*time, entry.seq)));
        Ok(Page {
            alerts: alerts.into_iter().map(|(_, entry)| entry).collect(),
            next,
        })
    }

    /// The index of words gives candidates, the last stored first; each is unpacked and looked at.
    async fn by_words(
        &self,
        filter: &Filter,
        narrowed: &Narrowed,
        looked: &Looked<'_>,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let from = self.stored_since(filter).await?;
        let mut page = Page {
            alerts: Vec::new(),
            next: None,
        };
        let (mut last, mut verified) = (after, 0);
        // Few first: where the words are what is asked for, one step is all.
        let mut step = limit + 1;
        while verified < VERIFIED_MAX {
            let mut query = QueryBuilder::new(format!("SELECT {COLUMNS} FROM (SELECT "));
            looked.push_candidates(&mut query, last, from);
            query.push(" LIMIT ").push_bind(SCAN_ROWS_MAX);
            query.push(") w CROSS JOIN alerts a ON a.seq = w.seq WHERE TRUE");
            Lead::Time.push_range(&mut query, filter);
            for condition in narrowed.rest(filter, &Lead::Time) {
                condition.push(&mut query);
            }
            query.push(" LIMIT ").push_bind(clamp(step as u64));
            let rows = query.build().fetch_all(&self.readers).await?;
            for row in &rows {
                if page.alerts.len() == limit {
                    page.next = last;
                    return Ok(page);
                }
                let entry = self.entry(row)?;
                let time = row.try_get(1)?;
                last = Some(Cursor {
                    time,
                    seq: entry.seq,
                });
                verified += 1;
                if looked.passes(&entry)? {
                    page.alerts.push(entry);
                }
            }
            if rows.len() < step {
                // All that this walk reaches was looked at: where would the next begin?
                let mut query = QueryBuilder::new("SELECT ");
                looked.push_candidates(&mut query, last, from);
                query.push(" LIMIT 1 OFFSET ").push_bind(SCAN_ROWS_MAX - 1);
                let stop: Option<i64> = query
                    .build_query_scalar()
                    .fetch_optional(&self.readers)
                    .await?;
                page.next = stop.map(|seq| Cursor { time: 0, seq });
                return Ok(page);
            }
            step = (step * 4).min(VERIFIED_MAX);
        }
        page.next = last;
        Ok(page)
    }

    /// The lowest row that can hold an alert since then: who is stored earlier happened earlier, but for the few whose
    /// clock was ahead.
    async fn stored_since(&self, filter: &Filter) -> Result<Option<i64>, StoreError> {
        let arrived = filter.received_since.map(micros);
        let happened = filter.since.map(micros);
        let Some(since) = arrived.max(happened.map(|at| at.saturating_sub(AHEAD_MICROS))) else {
            return Ok(None);
        };
        let first: Option<i64> = sqlx::query_scalar(
            "SELECT seq FROM alerts WHERE received >= ? ORDER BY received, seq LIMIT 1",
        )
        .bind(since)
        .fetch_optional(&self.readers)
        .await?;
        let ahead: Option<i64> = match happened.filter(|_| arrived.is_none()) {
            None => None,
            Some(since) => {
                sqlx::query_scalar("SELECT MIN(seq) FROM alerts WHERE flags & 1 = 1 AND time >= ?")
                    .bind(since)
                    .fetch_one(&self.readers)
                    .await?
            }
        };
        Ok([first.or(Some(i64::MAX)), ahead]
            .into_iter()
            .flatten()
            .min())
    }

    fn entry(&self, row: &SqliteRow) -> Result<Entry, StoreError> {
        let json = self
            .packing
            .unpack(row.try_get(12)?, row.try_get::<&[u8], _>(13)?)?;
        let alert =
            RawValue::from_string(json).map_err(|_| StoreError::Row { what: "an alert" })?;
        let flags: i64 = row.try_get(9)?;
        let optional = |micros: Option<i64>| micros.map(timestamp).transpose();
        Ok(Entry {
            seq: row.try_get(0)?,
            agent: row.try_get(2)?,
            agency: row.try_get(3)?,
            alert,
            work: Work {
                received: timestamp(row.try_get(4)?)?,
                status: Status::from_column(row.try_get(5)?)?,
                disposition: row.try_get(6)?,
                assignee: row.try_get(7)?,
                version: row.try_get(8)?,
                clock_ahead: flags & FLAG_AHEAD != 0,
                grew_after_closing: flags & FLAG_GREW != 0,
                acknowledged: optional(row.try_get(10)?)?,
                closed: optional(row.try_get(11)?)?,
            },
        })
    }
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
