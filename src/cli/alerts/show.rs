//! All of one alert, for a person: what happened, on what it stands, what to do.

use std::io::{self, Write};

use jiff::tz::TimeZone;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::alert::Alert;
use crate::centre::store::search::CENTRE;
use crate::cli::agents::url_part;
use crate::cli::alerts::{Advice, Form, work};
use crate::cli::listing::json;
use crate::cli::time;
use crate::deliver::forward::{Client, query};
use crate::diagnostic::visible;

pub async fn show(
    client: &Client,
    id: &str,
    agent: Option<&str>,
    output: Form,
    advice: &dyn Fn(&str) -> Option<Advice>,
) -> anyhow::Result<()> {
    let path = format!(
        "/v1/alerts/{}{}",
        url_part(id),
        query(agent.map(|agent| ("agent", agent)))
    );
    let raw: Box<RawValue> = client.get(&path).await?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match output {
        Form::Json => json(&mut out, raw.get())?,
        Form::Text => {
            let mut alert: Alert = serde_json::from_str(raw.get())?;
            let known = alert.other.remove(CENTRE);
            let advice = advice(&alert.rule.id);
            let zone = TimeZone::system();
            write(&mut out, &alert, advice.as_ref(), &zone)?;
            if let Some(known) = known {
                work::write(&mut out, &serde_json::from_value(known)?, &zone)?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// Names stand this wide.
const NAME_WIDTH: usize = 12;
/// Ids of causes that are shown; the rest is counted.
const CAUSES_SHOWN: usize = 20;

fn write(
    out: &mut impl Write,
    alert: &Alert,
    advice: Option<&Advice>,
    zone: &TimeZone,
) -> io::Result<()> {
    writeln!(out, "{} ({})", visible(&alert.rule.title), alert.rule.level)?;
    if let Some(title) = advice.and_then(|advice| advice.title_vi.as_deref()) {
        writeln!(out, "{}", visible(title))?;
    }
    writeln!(out)?;
    facts(out, alert, zone)?;
    if !alert.fields.is_empty() {
        writeln!(out, "\nfields")?;
        for (name, value) in &alert.fields {
            for value in values(value) {
                pair(out, name, &value)?;
            }
        }
    }
    for (name, texts) in [
        ("record", std::slice::from_ref(&alert.raw)),
        ("context", alert.context.as_slice()),
    ] {
        if texts.iter().any(|text| !text.is_empty()) {
            writeln!(out, "\n{name}")?;
            for text in texts {
                block(out, text)?;
            }
        }
    }
    causes(out, alert)?;
    if !alert.other.is_empty() {
        writeln!(out, "\nnot known to this version")?;
        for (name, value) in &alert.other {
            pair(out, name, &value.to_string())?;
        }
    }
    match advice {
        Some(advice) => what_to_do(out, advice),
        None => Ok(()),
    }
}

fn facts(out: &mut impl Write, alert: &Alert, zone: &TimeZone) -> io::Result<()> {
    pair(out, "id", &alert.id.to_string())?;
    pair(out, "time", &time::shown(alert.time, zone))?;
    if alert.count() > 1 {
        let until = match alert.last {
            Some(last) => format!(", the last at {}", time::shown(last, zone)),
            None => String::new(),
        };
        pair(out, "count", &format!("{}{until}", alert.count()))?;
    }
    pair(out, "read at", &time::shown(alert.observed, zone))?;
    for (name, value) in [
        ("host", &alert.host),
        ("agency", &alert.agency),
        ("agent", &alert.agent),
        ("rule", &alert.rule.id),
        ("digest", &alert.rule.digest),
    ] {
        if !value.is_empty() {
            pair(out, name, value)?;
        }
    }
    if !alert.rule.tags.is_empty() {
        pair(out, "tags", &alert.rule.tags.join(", "))?;
    }
    let source = &alert.logsource;
    let parts: Vec<String> = [
        ("product", &source.product),
        ("category", &source.category),
        ("service", &source.service),
    ]
    .iter()
    .filter_map(|(name, value)| Some(format!("{name} {}", value.as_deref()?)))
    .collect();
    if !parts.is_empty() {
        pair(out, "log source", &parts.join(", "))?;
    }
    let origin = &alert.origin;
    let peer = match &origin.peer {
        Some(peer) => format!(", from {peer}"),
        None => String::new(),
    };
    pair(
        out,
        "origin",
        &format!("{} at {}{peer}", origin.source, origin.at),
    )?;
    if !alert.cut.is_empty() {
        pair(out, "cut", &alert.cut.join(", "))?;
    }
    if !alert.via.is_empty() {
        pair(out, "via", &alert.via.join(", "))?;
    }
    Ok(())
}

fn causes(out: &mut impl Write, alert: &Alert) -> io::Result<()> {
    if alert.causes.is_empty() {
        return Ok(());
    }
    let count = alert.causes_count.unwrap_or(alert.causes.len() as u64);
    writeln!(out, "\nstands on {count} alerts")?;
    for id in alert.causes.iter().take(CAUSES_SHOWN) {
        writeln!(out, "  {id}")?;
    }
    if alert.causes.len() > CAUSES_SHOWN {
        writeln!(out, "  …")?;
    }
    Ok(())
}

fn what_to_do(out: &mut impl Write, advice: &Advice) -> io::Result<()> {
    for (name, text) in [
        ("about the rule", &advice.description),
        ("what to do", &advice.advice),
        ("việc cần làm", &advice.advice_vi),
    ] {
        if let Some(text) = text {
            writeln!(out, "\n{name}")?;
            block(out, text)?;
        }
    }
    if !advice.false_positives.is_empty() {
        writeln!(out, "\nmay be harmless")?;
        for text in &advice.false_positives {
            block(out, &format!("- {text}"))?;
        }
    }
    Ok(())
}

pub fn pair(out: &mut impl Write, name: &str, value: &str) -> io::Result<()> {
    let name = visible(name);
    writeln!(out, "  {name:NAME_WIDTH$} {}", visible(value))
}

/// Text of several lines, each harmless.
fn block(out: &mut impl Write, text: &str) -> io::Result<()> {
    for line in text.lines() {
        writeln!(out, "  {}", visible(line))?;
    }
    Ok(())
}

/// A field that repeats stands on a line each.
fn values(value: &Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.iter().flat_map(values_of_one).collect(),
        value => values_of_one(value).collect(),
    }
}

fn values_of_one(value: &Value) -> impl Iterator<Item = String> + use<> {
    let text = match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    std::iter::once(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_shown_whole_and_harmless() {
        let text = r#"{"id":"00000000000000000000000000000001","time":"2026-11-05T00:30:00Z","observed":"2026-11-05T00:30:01Z","agency":"hcm","host":"web-1","agent":"a1","rule":{"id":"r","title":"SSH brute force","level":"high","tags":["attack.t1110"]},"logsource":{"product":"linux","service":"sshd"},"fields":{"User":["root","x\u001b[2J"],"src_ip":"203.0.113.7"},"raw":"line one\nline\rtwo","origin":{"source":"file:/var/log/auth.log","at":"5"},"count":12,"last":"2026-11-05T00:45:00Z","causes":["00000000000000000000000000000002"],"causes_count":300}"#;
        let alert: Alert = serde_json::from_str(text).unwrap();
        let advice = Advice {
            title_vi: Some("Dò mật khẩu SSH".to_owned()),
            advice: Some("Look for a success after the failures.".to_owned()),
            ..Advice::default()
        };
        let mut out = Vec::new();
        let zone = TimeZone::fixed(jiff::tz::offset(7));
        write(&mut out, &alert, Some(&advice), &zone).unwrap();
        let expected = "\
SSH brute force (high)
Dò mật khẩu SSH

  id           00000000000000000000000000000001
  time         2026-11-05 07:30:00+07:00
  count        12, the last at 2026-11-05 07:45:00+07:00
  read at      2026-11-05 07:30:01+07:00
  host         web-1
  agency       hcm
  agent        a1
  rule         r
  tags         attack.t1110
  log source   product linux, service sshd
  origin       file:/var/log/auth.log at 5

fields
  User         root
  User         x\\u{1b}[2J
  src_ip       203.0.113.7

record
  line one
  line\\u{d}two

stands on 300 alerts
  00000000000000000000000000000002

what to do
  Look for a success after the failures.
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
