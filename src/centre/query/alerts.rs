//! GET /v1/alerts: the history, newest first, a page at a time. GET /v1/alerts/counts: how many, by whatever is asked.
//! GET /v1/alerts/{id}: one of them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::alert::AlertId;
use crate::centre::problem::Problem;
use crate::centre::query::parameters::{self, Pairs, parse, unknown, wrong};
use crate::centre::query::{Desk, PAGE, PAGE_MAX};
use crate::centre::store::counts::{By, COUNT_ROWS_MAX, Count, Counts, Group};
use crate::centre::store::search::{CENTRE, Cursor, Entry, Filter};
use crate::centre::store::tokens::{Holder, is_within};
use crate::centre::store::work::{Status, Work};

/// One page of alerts.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    /// As the agents sent them, and under `centre` what the centre knows of each.
    pub alerts: Vec<Box<RawValue>>,
    /// Present when there may be more: `cursor` of the next page. A page may be empty and still have a next one.
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
    "status",
    "assignee",
    "tag",
    "text",
    "field",
    "limit",
    "cursor",
    "by",
];
/// Each costs a look into every row that is read.
const FIELDS_MAX: usize = 8;

struct Asked {
    filter: Filter,
    limit: usize,
    cursor: Option<Cursor>,
    by: Option<By>,
}

impl Asked {
    /// Narrows to the holder's part of the tree: what lies outside is as if it were not there.
    fn within(mut self, holder: &Holder) -> Self {
        match &self.filter.agency {
            Some(agency) if holder.sees(agency) => {}
            Some(agency) if !is_within(&holder.scope, agency) => {
                self.filter.agency = Some(NOWHERE.to_owned());
            }
            _ => {
                let all = holder.scope.is_empty();
                self.filter.agency = (!all).then(|| holder.scope.clone());
            }
        }
        self
    }
}

/// No agency's id has such a sign.
const NOWHERE: &str = "\u{0}";

/// What the centre knows of an alert, under `centre`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    pub received: Timestamp,
    /// new, acknowledged, in-progress or closed
    pub status: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disposition: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed: Option<Timestamp>,
    /// Raised by each act of a person; what If-Match is held to.
    pub version: i64,
    /// Its time lay ahead of the centre's clock.
    #[serde(default, skip_serializing_if = "is_false")]
    pub clock_ahead: bool,
    /// It grew after it was closed: look again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub grew_after_closing: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

impl From<Work> for Known {
    fn from(work: Work) -> Self {
        Self {
            received: work.received,
            status: work.status.as_str().to_owned(),
            disposition: work.disposition,
            assignee: work.assignee,
            acknowledged: work.acknowledged,
            closed: work.closed,
            version: work.version,
            clock_ahead: work.clock_ahead,
            grew_after_closing: work.grew_after_closing,
        }
    }
}

/// Adds what the centre knows to what the agent said.
pub fn told(entry: Entry) -> Box<RawValue> {
    let known = serde_json::to_string(&Known::from(entry.work)).unwrap_or_default();
    let told = match entry.alert.get().trim_end().strip_suffix('}') {
        Some(open) => RawValue::from_string(format!("{open},\"{CENTRE}\":{known}}}")),
        None => return entry.alert,
    };
    told.unwrap_or(entry.alert)
}

/// GET /v1/alerts
pub async fn list(
    State(desk): State<Desk>,
    Extension(holder): Extension<Holder>,
    pairs: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(pairs) = pairs.map_err(|_| Problem::bad_request("the query cannot be decoded"))?;
    let asked = read(&pairs)?.within(&holder);
    if asked.by.is_some() {
        return Err(unknown("by", PARAMETERS));
    }
    let time = Timestamp::now();
    let timer = desk.metrics.query_seconds.start_timer();
    let page = desk
        .store
        .alerts(&asked.filter, asked.cursor, asked.limit)
        .await?;
    timer.observe_duration();
    Ok(Json(Page {
        alerts: page.alerts.into_iter().map(told).collect(),
        next: page.next.map(write_cursor),
        time,
    }))
}

/// How many alerts, by what was asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counted {
    pub by: String,
    /// Exact when `since` and `until` stand at whole hours or are left out; else they are taken to whole hours.
    pub whole_hours: bool,
    pub counts: Vec<CountedGroup>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct CountedGroup {
    /// The start of the hour or day, or a name.
    pub group: String,
    pub alerts: i64,
    /// Folded ones counted as often as they happened.
    pub events: i64,
}

/// Alerts that a count by words, tag or fields looks at.
const COUNT_LOOKED_MAX: usize = 5000;
/// Pages of such a count.
const COUNT_PAGES_MAX: usize = 20;

/// GET /v1/alerts/counts
pub async fn counts(
    State(desk): State<Desk>,
    Extension(holder): Extension<Holder>,
    pairs: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Counted>, Problem> {
    let Query(pairs) = pairs.map_err(|_| Problem::bad_request("the query cannot be decoded"))?;
    let asked = read(&pairs)?.within(&holder);
    if asked.cursor.is_some() || pairs.iter().any(|(name, _)| name == "limit") {
        return Err(Problem::bad_request(
            "counts come whole: there is no `limit` and no `cursor`",
        ));
    }
    let by = asked.by.unwrap_or(By::Level);
    let timer = desk.metrics.query_seconds.start_timer();
    let filter = &asked.filter;
    let is_looked = filter.text.is_some() || filter.tag.is_some() || !filter.fields.is_empty();
    let counts = if is_looked {
        looked(&desk, filter, by).await?
    } else {
        desk.store.counts(filter, by).await?
    };
    timer.observe_duration();
    let (whole_hours, counts) = match counts {
        Counts::Hours(counts) => (true, counts),
        Counts::Exact(counts) => (false, counts),
        Counts::TooMany => {
            return Err(Problem::bad_request(format!(
                "more alerts than one count reads pass this filter ({COUNT_ROWS_MAX}; by text, tag or field {COUNT_LOOKED_MAX}): narrow `since` and `until`, or ask by hour, day, level or rule with no filter but time, level, rule or agency"
            )));
        }
    };
    let word = By::ALL.into_iter().find(|(_, other)| *other == by);
    Ok(Json(Counted {
        by: word.map_or("", |(word, _)| word).to_owned(),
        whole_hours,
        counts: counts.into_iter().map(counted).collect(),
    }))
}

fn counted(count: Count) -> CountedGroup {
    let group = match count.group {
        Group::Time(time) => time.to_string(),
        Group::Level(level) => level.to_string(),
        Group::Status(status) => status.as_str().to_owned(),
        Group::Name(name) => name,
    };
    CountedGroup {
        group,
        alerts: count.alerts,
        events: count.events,
    }
}

/// What no index counts is looked at alert by alert.
async fn looked(desk: &Desk, filter: &Filter, by: By) -> Result<Counts, Problem> {
    let mut sums: std::collections::BTreeMap<Group, (i64, i64)> = std::collections::BTreeMap::new();
    let (mut cursor, mut looked) = (None, 0);
    for _ in 0..COUNT_PAGES_MAX {
        let page = desk.store.alerts(filter, cursor, PAGE_MAX).await?;
        looked += page.alerts.len();
        for entry in &page.alerts {
            let sum = sums.entry(entry.group(by)?).or_default();
            sum.0 += 1;
            sum.1 = sum.1.saturating_add(entry.events()?);
        }
        cursor = page.next;
        if cursor.is_none() || looked > COUNT_LOOKED_MAX {
            break;
        }
    }
    if cursor.is_some() || looked > COUNT_LOOKED_MAX {
        return Ok(Counts::TooMany);
    }
    let count = |(group, (alerts, events))| Count {
        group,
        alerts,
        events,
    };
    Ok(Counts::Exact(sums.into_iter().map(count).collect()))
}

fn read(pairs: &Pairs) -> Result<Asked, Problem> {
    const TIME: &str = "a time such as 2026-11-05T07:30:00Z";
    parameters::check(pairs, &["field", "status"])?;
    let mut asked = Asked {
        filter: Filter::default(),
        limit: PAGE,
        cursor: None,
        by: None,
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
            "status" => {
                let status = Status::named(value).ok_or_else(|| {
                    wrong(
                        name,
                        value,
                        "a status: new, acknowledged, in-progress or closed",
                    )
                })?;
                if !filter.status.contains(&status) {
                    filter.status.push(status);
                }
            }
            "assignee" => filter.assignee = Some(filled(name, value, "a person's name")?),
            "tag" => {
                filter.tag = Some(filled(name, value, "a tag such as attack.t1110, or T1110")?);
            }
            "by" => {
                let by = By::ALL.into_iter().find(|(word, _)| word == value);
                let by = by.ok_or_else(|| {
                    wrong(
                        name,
                        value,
                        "one of hour, day, level, rule, host, agency, status",
                    )
                })?;
                asked.by = Some(by.1);
            }
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
    Extension(holder): Extension<Holder>,
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
    let mut found = desk.store.alert(&id, agent).await?;
    found.retain(|entry| holder.sees(&entry.agency));
    let mut agents: Vec<&str> = found.iter().map(|entry| entry.agent.as_str()).collect();
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
        .map(|entry| Json(told(entry)))
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
