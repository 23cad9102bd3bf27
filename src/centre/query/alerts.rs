//! GET /v1/alerts: the history, newest first, a page at a time. GET /v1/alerts/{id}: one of them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::alert::AlertId;
use crate::centre::problem::Problem;
use crate::centre::query::parameters::{self, Pairs, parse, unknown, wrong};
use crate::centre::query::{Desk, PAGE};
use crate::centre::store::alerts::{Cursor, Filter};

/// One page of alerts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    /// As the agents sent them.
    pub alerts: Vec<Box<RawValue>>,
    /// Present when there may be more: `cursor` of the next page. A page with `text` or `field` may be empty and still
    /// have a next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// The centre's clock as the query began: what came later may be missing.
    pub time: Timestamp,
}

const PARAMETERS: &[&str] = &[
    "since",
    "until",
    "received_since",
    "level",
    "rule",
    "host",
    "agency",
    "text",
    "field",
    "limit",
    "cursor",
];
/// Each costs a look into every row that is read.
const FIELDS_MAX: usize = 8;

struct Asked {
    filter: Filter,
    limit: usize,
    cursor: Option<Cursor>,
}

/// GET /v1/alerts
pub async fn list(
    State(desk): State<Desk>,
    pairs: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(pairs) = pairs.map_err(|_| Problem::bad_request("the query cannot be decoded"))?;
    let asked = read(&pairs)?;
    let time = Timestamp::now();
    let timer = desk.metrics.query_seconds.start_timer();
    let page = desk
        .store
        .alerts(&asked.filter, asked.cursor, asked.limit)
        .await?;
    timer.observe_duration();
    Ok(Json(Page {
        alerts: page.alerts,
        next: page.next.map(write_cursor),
        time,
    }))
}

fn read(pairs: &Pairs) -> Result<Asked, Problem> {
    const TIME: &str = "a time such as 2026-11-05T07:30:00Z";
    parameters::check(pairs, &["field"])?;
    let mut asked = Asked {
        filter: Filter::default(),
        limit: PAGE,
        cursor: None,
    };
    let filter = &mut asked.filter;
    for (name, value) in pairs {
        match name.as_str() {
            "since" => filter.since = Some(parse(name, value, TIME)?),
            "until" => filter.until = Some(parse(name, value, TIME)?),
            "received_since" => filter.received_since = Some(parse(name, value, TIME)?),
            "level" => {
                filter.level = Some(parse(
                    name,
                    value,
                    "a level: informational, low, medium, high or critical (that one and worse)",
                )?);
            }
            "rule" => {
                filter.rule = Some(filled(name, value, "a rule's id or a part of its title")?)
            }
            "host" => filter.host = Some(filled(name, value, "a host's name")?),
            "agency" => filter.agency = Some(parameters::agency(name, value)?),
            "text" => filter.text = Some(filled(name, value, "a text to look for")?),
            "field" => {
                let pair = value.split_once('=').filter(|(key, _)| !key.is_empty());
                let Some((key, value)) = pair else {
                    return Err(wrong(name, value, "NAME=VALUE, such as src_ip=203.0.113.7"));
                };
                if filter.fields.len() == FIELDS_MAX {
                    return Err(Problem::bad_request(format!(
                        "`field` may be given {FIELDS_MAX} times"
                    )));
                }
                filter.fields.push((key.to_owned(), value.to_owned()));
            }
            "limit" => asked.limit = parameters::limit(value)?,
            "cursor" => {
                let cursor = read_cursor(value)
                    .ok_or_else(|| wrong(name, value, "the `next` of an earlier page"))?;
                asked.cursor = Some(cursor);
            }
            _ => return Err(unknown(name, PARAMETERS)),
        }
    }
    Ok(asked)
}

fn filled(name: &str, value: &str, expected: &str) -> Result<String, Problem> {
    if value.is_empty() {
        Err(wrong(name, value, expected))
    } else {
        Ok(value.to_owned())
    }
}

fn write_cursor(cursor: Cursor) -> String {
    let mut bytes = [0; 16];
    let (time, seq) = bytes.split_at_mut(8);
    time.copy_from_slice(&cursor.time.to_be_bytes());
    seq.copy_from_slice(&cursor.seq.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str) -> Option<Cursor> {
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (time, seq) = bytes.split_first_chunk::<8>()?;
    Some(Cursor {
        time: i64::from_be_bytes(*time),
        seq: i64::from_be_bytes(seq.try_into().ok()?),
    })
}

/// GET /v1/alerts/{id}
pub async fn show(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    pairs: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Box<RawValue>>, Problem> {
    let Query(pairs) = pairs.map_err(|_| Problem::bad_request("the query cannot be decoded"))?;
    parameters::check(&pairs, &[])?;
    let mut agent = None;
    for (name, value) in &pairs {
        match name.as_str() {
            "agent" => agent = Some(value.as_str()),
            _ => return Err(unknown(name, &["agent"])),
        }
    }
    let id: AlertId = parse("id", &id, "an alert's id: 32 hex digits")?;
    let found = desk.store.alert(&id, agent).await?;
    let mut agents: Vec<&str> = found.iter().map(|(agent, _)| agent.as_str()).collect();
    agents.dedup();
    if agents.len() > 1 {
        return Err(Problem::new(
            axum::http::StatusCode::CONFLICT,
            "several agents have an alert of this id",
            format!("name one with `agent`: {}", agents.join(", ")),
        ));
    }
    // Newest first: the same id at two times comes from a host whose clock was set while its spool was lost.
    let newest = found.into_iter().next();
    newest
        .map(|(_, alert)| Json(alert))
        .ok_or_else(|| Problem::not_found("there is no such alert here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Pairs {
        list.iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn a_malformed_parameter_is_named_with_what_would_be_right() {
        let long = "x".repeat(2000);
        for (name, value, words) in [
            (
                "since",
                "yesterday",
                "`since`: `yesterday` is not a time such as",
            ),
            ("until", "2026-13-01T00:00:00Z", "`until`"),
            (
                "level",
                "severe",
                "informational, low, medium, high or critical",
            ),
            ("limit", "0", "from 1 to 1000"),
            ("limit", "1001", "from 1 to 1000"),
            ("limit", "all", "from 1 to 1000"),
            ("cursor", "abc", "the `next` of an earlier page"),
            ("field", "src_ip", "NAME=VALUE"),
            ("field", "=x", "NAME=VALUE"),
            ("agency", "hcm//x", "an agency such as"),
            ("agency", "a' OR 1=1 --", "an agency such as"),
            ("host", "", "a host's name"),
            ("levle", "high", "did you mean `level`?"),
            ("colour", "red", "there are since, until"),
            ("text", &long, "1024 are allowed"),
            ("host", "\u{1b}[2J\u{0}", ""),
        ] {
            match read(&pairs(&[(name, value)])) {
                Ok(_) => assert_eq!(words, "", "{name}={value}"),
                Err(problem) => {
                    let problem = format!("{problem:?}");
                    assert!(!words.is_empty() && problem.contains(words), "{problem}");
                }
            }
        }
        let twice = read(&pairs(&[("host", "a"), ("host", "b")])).err().unwrap();
        assert!(format!("{twice:?}").contains("given twice"));
    }

    #[test]
    fn a_cursor_reads_back_and_nothing_else_does() {
        for cursor in [
            Cursor { time: 0, seq: 0 },
            Cursor {
                time: i64::MIN,
                seq: i64::MAX,
            },
        ] {
            assert_eq!(read_cursor(&write_cursor(cursor)), Some(cursor));
        }
        for bad in ["", "AAAA", "!", &"A".repeat(23)] {
            assert_eq!(read_cursor(bad), None, "{bad}");
        }
    }
}
