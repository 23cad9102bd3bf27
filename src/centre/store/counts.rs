//! Counts by the hour, kept as alerts come, so that a question over months reads hours and not alerts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::sqlite::{Sqlite, SqliteConnection};
use sqlx::{QueryBuilder, Row as _};

use crate::alert::{Alert, Severity};
use crate::centre::store::search::{Entry, Filter, Narrowed};
use crate::centre::store::work::Status;
use crate::centre::store::{Store, StoreError, clamp, micros, timestamp};

/// What one alert counts under.
#[derive(Debug, Clone, Copy)]
pub struct Key<'a> {
    pub agency: &'a str,
    pub rule: &'a str,
    pub level: i64,
    /// Microseconds.
    pub time: i64,
}

const HOUR_MICROS: i64 = 3_600_000_000;
/// What one alert may add to a sum of events: an agent's absurd count must not overflow an hour's.
const EVENTS_MAX: i64 = 1 << 40;

/// What a commit adds, by agency and by rule; in order, so that two writers lock alike.
#[derive(Debug, Default)]
pub struct Tally {
    agencies: BTreeMap<(String, i64, i64), (i64, i64)>,
    rules: BTreeMap<(String, i64, i64), (i64, i64)>,
}

impl Tally {
    /// Adds `alerts` (1 or -1) alerts that stand for `events` each.
    pub fn add(&mut self, key: &Key<'_>, alerts: i64, events: i64) {
        let hour = key.time.div_euclid(HOUR_MICROS);
        let events = alerts.saturating_mul(events.clamp(0, EVENTS_MAX));
        let add = |sum: &mut (i64, i64)| {
            sum.0 = sum.0.saturating_add(alerts);
            sum.1 = sum.1.saturating_add(events);
        };
        for agency in lineage(key.agency) {
            let at = (agency.to_owned(), hour, key.level);
            add(self.agencies.entry(at).or_default());
        }
        let at = (key.rule.to_owned(), hour, key.level);
        add(self.rules.entry(at).or_default());
    }

    pub(super) async fn write(&self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for (insert, sums) in [
            (
                "INSERT INTO agency_hours (agency, hour, level, alerts, events) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (agency, hour, level) DO UPDATE
                 SET alerts = alerts + excluded.alerts, events = events + excluded.events",
                &self.agencies,
            ),
            (
                "INSERT INTO rule_hours (rule, hour, level, alerts, events) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (rule, hour, level) DO UPDATE
                 SET alerts = alerts + excluded.alerts, events = events + excluded.events",
                &self.rules,
            ),
        ] {
            for ((name, hour, level), (alerts, events)) in sums {
                if (*alerts, *events) == (0, 0) {
                    continue;
                }
                sqlx::query(insert)
                    .bind(name)
                    .bind(hour)
                    .bind(level)
                    .bind(alerts)
                    .bind(events)
                    .execute(&mut *db)
                    .await?;
            }
        }
        let mut seen: Option<&str> = None;
        for (agency, _, _) in self.agencies.keys() {
            if seen != Some(agency) {
                sqlx::query("INSERT INTO agencies_seen (id) VALUES (?) ON CONFLICT DO NOTHING")
                    .bind(agency)
                    .execute(&mut *db)
                    .await?;
                seen = Some(agency);
            }
        }
        Ok(())
    }
}

/// An agency, those above it, and '' for all.
fn lineage(agency: &str) -> impl Iterator<Item = &str> {
    let above = agency
        .match_indices('/')
        .filter_map(|(at, _)| agency.get(..at));
    let own = (!agency.is_empty()).then_some(agency);
    std::iter::once("").chain(above).chain(own)
}

/// By what alerts are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Hour,
    Day,
    Level,
    Rule,
    Host,
    Agency,
    Status,
}

impl By {
    pub const ALL: [(&'static str, Self); 7] = [
        ("hour", Self::Hour),
        ("day", Self::Day),
        ("level", Self::Level),
        ("rule", Self::Rule),
        ("host", Self::Host),
        ("agency", Self::Agency),
        ("status", Self::Status),
    ];

    /// Over a table with a column `hour`, or with a time.
    fn column(self, hours: bool) -> &'static str {
        match (self, hours) {
            (Self::Hour, true) => "hour",
            (Self::Day, true) => "hour / 24",
            (Self::Hour, false) => "time / 3600000000",
            (Self::Day, false) => "time / 86400000000",
            (Self::Level, _) => "level",
            (Self::Rule, _) => "rule",
            (Self::Host, _) => "host",
            (Self::Agency, _) => "agency",
            (Self::Status, _) => "status",
        }
    }
}

/// One group: the start of its hour or day, or its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    Time(Timestamp),
    Level(Severity),
    Status(Status),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub group: Group,
    pub alerts: i64,
    /// Folded ones counted as often as they happened.
    pub events: i64,
}

/// An answer, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Counts {
    /// Whole hours: from the one that holds `since` to the one that holds `until`.
    Hours(Vec<Count>),
    Exact(Vec<Count>),
    /// More alerts than `COUNT_ROWS_MAX` pass the filter.
    TooMany,
}

/// Alerts that one count reads where hours don't answer: about 0.2 s.
pub const COUNT_ROWS_MAX: i64 = 200_000;
/// Groups of an answer; 90 days have 2,160 hours.
pub const GROUPS_MAX: i64 = 10_000;

impl Store {
    /// Counts the alerts that pass the filter. Text, fields and tags are no filter here.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn counts(&self, filter: &Filter, by: By) -> Result<Counts, StoreError> {
        let narrowed = self.narrowed(filter).await?;
        if let Some(query) = hours(filter, by, &narrowed) {
            return Ok(Counts::Hours(self.groups(query, by).await?.0));
        }
        let query = exact(filter, by, &narrowed);
        let (groups, rows) = self.groups(query, by).await?;
        if rows > COUNT_ROWS_MAX {
            return Ok(Counts::TooMany);
        }
        Ok(Counts::Exact(groups))
    }

    async fn groups(
        &self,
        mut query: QueryBuilder<Sqlite>,
        by: By,
    ) -> Result<(Vec<Count>, i64), StoreError> {
        let (mut groups, mut sum) = (Vec::new(), 0_i64);
        for row in query.build().fetch_all(&self.readers).await? {
            let group = match by {
                By::Hour => Group::Time(start(row.try_get(0)?, HOUR_MICROS)?),
                By::Day => Group::Time(start(row.try_get(0)?, 24 * HOUR_MICROS)?),
                By::Level => {
                    let level: i64 = row.try_get(0)?;
                    let level = usize::try_from(level)
                        .ok()
                        .and_then(|level| Severity::ALL.get(level).copied());
                    Group::Level(level.ok_or(StoreError::Row { what: "a level" })?)
                }
                By::Status => Group::Status(Status::from_column(row.try_get(0)?)?),
                By::Rule | By::Host | By::Agency => Group::Name(row.try_get(0)?),
            };
            let alerts: i64 = row.try_get(1)?;
            sum = sum.saturating_add(alerts);
            groups.push(Count {
                group,
                alerts,
                events: row.try_get(2)?,
            });
        }
        Ok((groups, sum))
    }
}

impl Entry {
    /// Returns the group that it counts in.
    ///
    /// # Errors
    /// When the stored alert does not read as one.
    pub fn group(&self, by: By) -> Result<Group, StoreError> {
        let alert = self.read()?;
        let time = micros(alert.time);
        Ok(match by {
            By::Hour => Group::Time(start(time.div_euclid(HOUR_MICROS), HOUR_MICROS)?),
            By::Day => {
                let day = 24 * HOUR_MICROS;
                Group::Time(start(time.div_euclid(day), day)?)
            }
            By::Level => Group::Level(alert.rule.level),
            By::Rule => Group::Name(alert.rule.id),
            By::Host => Group::Name(alert.host),
            By::Agency => Group::Name(self.agency.clone()),
            By::Status => Group::Status(self.work.status),
        })
    }

    /// Returns how many events it stands for.
    ///
    /// # Errors
    /// When the stored alert does not read as one.
    pub fn events(&self) -> Result<i64, StoreError> {
        Ok(clamp(self.read()?.count()).min(EVENTS_MAX))
    }

    fn read(&self) -> Result<Alert, StoreError> {
        serde_json::from_str(self.alert.get()).map_err(|_| StoreError::Row { what: "an alert" })
    }
}

fn start(number: i64, unit: i64) -> Result<Timestamp, StoreError> {
    timestamp(number.saturating_mul(unit))
}

/// Returns the question over hours, if hours can answer it: then it reads one key's hours.
fn hours(filter: &Filter, by: By, narrowed: &Narrowed) -> Option<QueryBuilder<Sqlite>> {
    let only_hours = Filter {
        since: filter.since,
        until: filter.until,
        level: filter.level,
        agency: filter.agency.clone(),
        rule: filter.rule.clone(),
        ..Filter::default()
    };
    if *filter != only_hours {
        return None;
    }
    let rule = match narrowed.rules.as_deref() {
        None => None,
        Some([rule]) => Some(rule),
        Some(_) => return None,
    };
    let (table, key, value) = match (by, &filter.agency, rule) {
        (By::Hour | By::Day | By::Level | By::Rule, None, Some(rule)) => {
            ("rule_hours", Some("rule"), rule.as_str())
        }
        (By::Rule, None, None) => ("rule_hours", None, ""),
        (By::Hour | By::Day | By::Level, agency, None) => (
            "agency_hours",
            Some("agency"),
            agency.as_deref().unwrap_or(""),
        ),
        _ => return None,
    };
    let column = by.column(true);
    let mut query = QueryBuilder::new(format!(
        "SELECT {column}, SUM(alerts), SUM(events) FROM {table} WHERE TRUE"
    ));
    if let Some(key) = key {
        query
            .push(format!(" AND {key} = "))
            .push_bind(value.to_owned());
    }
    if let Some(since) = filter.since {
        let hour = micros(since).div_euclid(HOUR_MICROS);
        query.push(" AND hour >= ").push_bind(hour);
    }
    if let Some(until) = filter.until {
        let hour = micros(until).saturating_sub(1).div_euclid(HOUR_MICROS);
        query.push(" AND hour <= ").push_bind(hour);
    }
    if let Some(level) = filter.level {
        query.push(" AND level >= ").push_bind(level as i64);
    }
    finish(&mut query, by, column, "SUM(alerts)");
    Some(query)
}

fn exact(filter: &Filter, by: By, narrowed: &Narrowed) -> QueryBuilder<Sqlite> {
    let column = by.column(false);
    let mut query = QueryBuilder::new(format!(
        "SELECT {column}, COUNT(*), SUM(MIN(count, 1099511627776)) FROM (SELECT time, level, rule, host, agency, status, count FROM alerts WHERE TRUE"
    ));
    narrowed.push_all(&mut query, filter);
    query
        .push(" LIMIT ")
        .push_bind(COUNT_ROWS_MAX + 1)
        .push(")");
    finish(&mut query, by, column, "COUNT(*)");
    query
}

/// Times go on from the first; names begin with the most frequent.
fn finish(query: &mut QueryBuilder<Sqlite>, by: By, column: &str, sum: &str) {
    query.push(format!(" GROUP BY {column}"));
    match by {
        By::Hour | By::Day | By::Level | By::Status => query.push(" ORDER BY 1"),
        By::Rule | By::Host | By::Agency => query.push(format!(" ORDER BY {sum} DESC, 1")),
    };
    query.push(" LIMIT ").push_bind(GROUPS_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_counts_for_its_agency_and_all_above() {
        for (agency, all) in [
            ("", vec![""]),
            ("hcm", vec!["", "hcm"]),
            ("hcm/a/b", vec!["", "hcm", "hcm/a", "hcm/a/b"]),
        ] {
            assert_eq!(lineage(agency).collect::<Vec<_>>(), all);
        }
    }
}
