//! How a filter is answered: which index is walked, what is then looked at in a row, and what in a payload.

use sqlx::QueryBuilder;
use sqlx::sqlite::Sqlite;

use crate::alert::{Alert, Severity};
use crate::centre::store::search::{Cursor, Entry, Filter};
use crate::centre::store::words::{self, Needle};
use crate::centre::store::work::Status;
use crate::centre::store::{StoreError, micros};

/// What a filter's names stand for.
#[derive(Debug, Default)]
pub struct Narrowed {
    pub rules: Option<Vec<String>>,
    /// Absent also when there are more than are looked up one by one.
    pub agencies: Option<Vec<String>>,
}

/// The column whose index gives the order.
#[derive(Debug, Clone)]
pub enum Lead {
    Time,
    Text(&'static str, String),
    Number(&'static str, i64),
}

impl Lead {
    /// All that the index of this lead answers, and its order.
    pub fn push(&self, query: &mut QueryBuilder<Sqlite>, filter: &Filter, after: Option<Cursor>) {
        match self {
            Self::Time => {}
            Self::Text(column, value) => {
                query.push(format_args!(" AND {column} = "));
                query.push_bind(value.clone());
            }
            Self::Number(column, value) => {
                query.push(format_args!(" AND {column} = "));
                query.push_bind(*value);
            }
        }
        self.push_bounds(query, filter, after);
        query.push(" ORDER BY time DESC, seq DESC");
    }

    pub fn push_bounds(
        &self,
        query: &mut QueryBuilder<Sqlite>,
        filter: &Filter,
        after: Option<Cursor>,
    ) {
        self.push_range(query, filter);
        if let Some(after) = after {
            query.push(" AND (time, seq) < (").push_bind(after.time);
            query.push(", ").push_bind(after.seq).push(")");
        }
    }

    pub fn push_range(&self, query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
        if let Some(since) = filter.since {
            query.push(" AND time >= ").push_bind(micros(since));
        }
        if let Some(until) = filter.until {
            query.push(" AND time < ").push_bind(micros(until));
        }
    }

    fn is(&self, other: &str) -> bool {
        match self {
            Self::Time => false,
            Self::Text(column, _) | Self::Number(column, _) => *column == other,
        }
    }
}

/// A condition that the lead's index does not answer.
#[derive(Debug)]
pub enum Condition {
    Level(Severity),
    Texts(&'static str, Vec<String>),
    Statuses(Vec<Status>),
    Subtree(String),
    Received(i64),
}

impl Condition {
    pub fn push(&self, query: &mut QueryBuilder<Sqlite>) {
        match self {
            Self::Level(level) => {
                query.push(" AND level >= ").push_bind(*level as i64);
            }
            Self::Texts(column, values) => {
                let mut list = query
                    .push(format_args!(" AND {column} IN ("))
                    .separated(", ");
                for value in values {
                    list.push_bind(value.clone());
                }
                query.push(")");
            }
            Self::Statuses(statuses) => {
                let mut list = query.push(" AND status IN (").separated(", ");
                for status in statuses {
                    list.push_bind(*status as i64);
                }
                query.push(")");
            }
            Self::Subtree(agency) => {
                query.push(" AND ");
                subtree(query, "agency", agency);
            }
            Self::Received(since) => {
                query.push(" AND received >= ").push_bind(*since);
            }
        }
    }
}

impl Narrowed {
    /// The indexes to walk: of the filter's columns the one that is likely to leave least.
    pub fn leads(&self, filter: &Filter) -> Vec<Lead> {
        let texts = |column: &'static str, values: &[String]| -> Vec<Lead> {
            let lead = |value: &String| Lead::Text(column, value.clone());
            values.iter().map(lead).collect()
        };
        if let Some(assignee) = &filter.assignee {
            return vec![Lead::Text("assignee", assignee.clone())];
        }
        if let Some(host) = &filter.host {
            return vec![Lead::Text("host", host.clone())];
        }
        if let Some(rules) = &self.rules {
            return texts("rule", rules);
        }
        if let Some(agencies) = &self.agencies {
            return texts("agency", agencies);
        }
        let statuses = |statuses: &[Status]| -> Vec<Lead> {
            let lead = |status: &Status| Lead::Number("status", *status as i64);
            statuses.iter().map(lead).collect()
        };
        let is_worked_on = !filter.status.is_empty() && !filter.status.contains(&Status::New);
        match filter.level {
            _ if is_worked_on => statuses(&filter.status),
            // One walk a level, not a range: then the index gives the order too.
            Some(least) if least > Severity::Informational => Severity::ALL
                .into_iter()
                .filter(|level| *level >= least)
                .map(|level| Lead::Number("level", level as i64))
                .collect(),
            _ if !filter.status.is_empty() => statuses(&filter.status),
            _ => vec![Lead::Time],
        }
    }

    /// What is left to look at in each row.
    pub fn rest(&self, filter: &Filter, lead: &Lead) -> Vec<Condition> {
        let mut rest = Vec::new();
        if let Some(level) = filter.level
            && level > Severity::Informational
            && !lead.is("level")
        {
            rest.push(Condition::Level(level));
        }
        if let Some(rules) = &self.rules
            && !lead.is("rule")
        {
            rest.push(Condition::Texts("rule", rules.clone()));
        }
        for (column, value) in [("host", &filter.host), ("assignee", &filter.assignee)] {
            if let Some(value) = value
                && !lead.is(column)
            {
                rest.push(Condition::Texts(column, vec![value.clone()]));
            }
        }
        if let Some(agency) = &filter.agency
            && !lead.is("agency")
        {
            rest.push(Condition::Subtree(agency.clone()));
        }
        if !filter.status.is_empty() && !lead.is("status") {
            rest.push(Condition::Statuses(filter.status.clone()));
        }
        if let Some(received) = filter.received_since {
            rest.push(Condition::Received(micros(received)));
        }
        rest
    }

    /// All conditions on columns.
    pub fn push_all(&self, query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
        Lead::Time.push_range(query, filter);
        for condition in self.rest(filter, &Lead::Time) {
            condition.push(query);
        }
    }
}

/// What only the payload tells.
#[derive(Debug)]
pub struct Looked<'a> {
    /// For the index of words; empty when nothing of the filter is a word.
    expression: String,
    text: Option<Needle>,
    filter: &'a Filter,
}

impl<'a> Looked<'a> {
    pub fn of(filter: &'a Filter) -> Option<Self> {
        if filter.text.is_none() && filter.tag.is_none() && filter.fields.is_empty() {
            return None;
        }
        let mut expression = String::new();
        let text = filter.text.as_deref().map(Needle::of);
        if let Some(needle) = &text {
            needle.push_expression(&mut expression);
        }
        if let Some(tag) = &filter.tag {
            words::push_tag_expression(&mut expression, tag);
        }
        for (_, value) in &filter.fields {
            Needle::whole(value).push_expression(&mut expression);
        }
        Some(Self {
            expression,
            text,
            filter,
        })
    }

    /// The rest of a `SELECT` that gives rows, the last stored first.
    pub fn push_candidates(
        &self,
        query: &mut QueryBuilder<Sqlite>,
        after: Option<Cursor>,
        from: Option<i64>,
    ) {
        if self.expression.is_empty() {
            query.push("rowid AS seq FROM alerts WHERE TRUE");
        } else {
            query.push("rowid AS seq FROM words WHERE words MATCH ");
            query.push_bind(self.expression.clone());
        }
        if let Some(after) = after {
            query.push(" AND rowid < ").push_bind(after.seq);
        }
        if let Some(from) = from {
            query.push(" AND rowid >= ").push_bind(from);
        }
        query.push(" ORDER BY rowid DESC");
    }

    pub fn passes(&self, entry: &Entry) -> Result<bool, StoreError> {
        let alert: Alert = serde_json::from_str(entry.alert.get())
            .map_err(|_| StoreError::Row { what: "an alert" })?;
        let text = match &self.text {
            None => true,
            Some(needle) => needle.is_in(&words::haystack(&alert)),
        };
        let tag = self.filter.tag.as_deref();
        let mut fields = self.filter.fields.iter();
        Ok(text
            && tag.is_none_or(|tag| words::has_tag(&alert, tag))
            && fields.all(|(name, value)| words::has_field(&alert, name, value)))
    }
}

pub fn subtree(query: &mut QueryBuilder<Sqlite>, column: &str, agency: &str) {
    query.push(format_args!("({column} = "));
    query.push_bind(agency.to_owned());
    // `0` follows `/`: every path below, by a range that an index answers.
    query.push(format_args!(" OR ({column} >= "));
    query.push_bind(format!("{agency}/"));
    query.push(format_args!(" AND {column} < "));
    query.push_bind(format!("{agency}0")).push("))");
}
