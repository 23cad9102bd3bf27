//! The newest alerts, page by page.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use crate::alert::Alert;
use crate::centre::query::PAGE_MAX;
use crate::centre::query::alerts::Page;
use crate::cli::alerts::Pairs;
use crate::cli::listing::{Output, csv, json, table};
use crate::cli::time;
use crate::deliver::forward::{Client, query};

const HEAD: [&str; 7] = ["TIME", "LEVEL", "HOST", "AGENCY", "COUNT", "RULE", "ID"];
const CSV_HEAD: [&str; 14] = [
    "time", "observed", "level", "rule", "title", "agency", "host", "agent", "count", "last", "id",
    "raw", "fields", "tags",
];

/// Asks for one page.
pub async fn page(
    client: &Client,
    pairs: &Pairs,
    limit: usize,
    cursor: Option<&str>,
) -> anyhow::Result<Page> {
    let limit = limit.min(PAGE_MAX).to_string();
    let mut all: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    all.push(("limit", &limit));
    all.extend(cursor.map(|cursor| ("cursor", cursor)));
    Ok(client.get(&format!("/v1/alerts{}", query(all))).await?)
}

pub async fn list(
    client: &Client,
    pairs: &Pairs,
    limit: usize,
    output: Output,
) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let zone = TimeZone::system();
    // A table needs all rows to line up; the other two are written as they come.
    let mut rows = Vec::new();
    if output == Output::Csv {
        csv(&mut out, &CSV_HEAD)?;
    }
    let (mut left, mut cursor) = (limit, None);
    while left > 0 {
        let page = page(client, pairs, left, cursor.as_deref()).await?;
        left = left.saturating_sub(page.alerts.len());
        for alert in &page.alerts {
            match output {
                Output::Table => rows.push(row(&serde_json::from_str(alert.get())?, &zone)),
                Output::Csv | Output::Json => write(&mut out, alert, output, &zone)?,
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if output == Output::Table {
        table(&mut out, &HEAD, &rows)?;
    }
    out.flush()?;
    Ok(())
}

/// Writes one alert on a line of its own.
pub fn write(
    out: &mut impl Write,
    alert: &RawValue,
    output: Output,
    zone: &TimeZone,
) -> anyhow::Result<()> {
    match output {
        Output::Json => json(out, alert.get())?,
        Output::Csv => {
            let cells = cells(&serde_json::from_str(alert.get())?)?;
            csv(out, &cells.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Output::Table => {
            let row = row(&serde_json::from_str(alert.get())?, zone);
            let cells: Vec<String> = row
                .iter()
                .map(|cell| crate::cli::listing::fit(cell))
                .collect();
            writeln!(out, "{}", cells.join("  "))?;
        }
    }
    Ok(())
}

pub fn row(alert: &Alert, zone: &TimeZone) -> Vec<String> {
    vec![
        time::shown(alert.time, zone),
        alert.rule.level.to_string(),
        alert.host.clone(),
        alert.agency.clone(),
        alert.count().to_string(),
        alert.rule.title.clone(),
        alert.id.to_string(),
    ]
}

fn cells(alert: &Alert) -> anyhow::Result<Vec<String>> {
    Ok(vec![
        alert.time.to_string(),
        alert.observed.to_string(),
        alert.rule.level.to_string(),
        alert.rule.id.clone(),
        alert.rule.title.clone(),
        alert.agency.clone(),
        alert.host.clone(),
        alert.agent.clone(),
        alert.count().to_string(),
        alert.last.map(|at| at.to_string()).unwrap_or_default(),
        alert.id.to_string(),
        alert.raw.clone(),
        serde_json::to_string(&alert.fields)?,
        alert.rule.tags.join(" "),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_one_line_whatever_its_text_holds() {
        let text = r#"{"id":"00000000000000000000000000000001","time":"2026-11-05T00:30:00Z","observed":"2026-11-05T00:30:01Z","agency":"hcm","host":"=cmd|' /C calc'!A0","agent":"a1","rule":{"id":"r","title":"a\nb\u001b[2J","level":"high"},"logsource":{},"raw":"-1\u202e","origin":{"source":"s","at":"1"}}"#;
        let alert = RawValue::from_string(text.to_owned()).unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(7));
        for (output, expected) in [
            (
                Output::Table,
                "2026-11-05 07:30:00+07:00  high  =cmd|' /C calc'!A0  hcm  1  a\\u{a}b\\u{1b}[2J  00000000000000000000000000000001\n",
            ),
            (
                Output::Csv,
                "\"2026-11-05T00:30:00Z\",\"2026-11-05T00:30:01Z\",\"high\",\"r\",\"a\\u{a}b\\u{1b}[2J\",\"hcm\",\"'=cmd|' /C calc'!A0\",\"a1\",\"1\",\"\",\"00000000000000000000000000000001\",\"'-1\\u{202e}\",\"{}\",\"\"\r\n",
            ),
            (Output::Json, &format!("{text}\n")),
        ] {
            let mut out = Vec::new();
            write(&mut out, &alert, output, &zone).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
