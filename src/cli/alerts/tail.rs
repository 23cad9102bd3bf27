//! Alerts as they arrive, each once. The centre is asked each second for what it received lately; what was shown is
//! known by its key.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::alert::AlertId;
use crate::centre::query::PAGE_MAX;
use crate::cli::alerts::Pairs;
use crate::cli::alerts::list::{page, write};
use crate::cli::listing::Output;
use crate::deliver::forward::{Client, ClientError};

const ASK_EVERY: Duration = Duration::from_secs(1);
/// How far each question reaches back before the last: a commit may be seen this much after the time it bears.
const OVERLAP: SignedDuration = SignedDuration::from_secs(10);

/// What makes an alert one.
#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
struct Key {
    id: AlertId,
    #[serde(default)]
    agent: String,
    time: Timestamp,
}

pub async fn tail(
    client: &Client,
    pairs: &Pairs,
    lines: usize,
    output: Output,
) -> anyhow::Result<()> {
    tokio::select! {
        ended = follow(client, pairs, lines, output) => ended,
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
    }
}

async fn follow(
    client: &Client,
    pairs: &Pairs,
    lines: usize,
    output: Output,
) -> anyhow::Result<()> {
    let zone = TimeZone::system();
    let mut window = Window::default();
    let clock = page(client, pairs, 1, None).await?.time;
    // First what arrived lately, which is not shown as new; then the last lines, which become known with their showing.
    // What arrives in between is in the second or in the next question.
    window.ask(client, pairs, back(clock)).await?;
    let mut newest = page(client, pairs, lines.clamp(1, PAGE_MAX), None)
        .await?
        .alerts;
    newest.truncate(lines);
    for alert in &newest {
        window.known.insert(serde_json::from_str(alert.get())?);
    }
    show(newest.into_iter().rev(), output, &zone)?;
    let mut is_away = false;
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        match window.ask(client, pairs, back(window.next)).await {
            Ok(new) => {
                is_away = false;
                show(new.into_iter(), output, &zone)?;
            }
            Err(error) if passes(&error) => {
                if !is_away {
                    writeln!(
                        io::stderr(),
                        "the centre does not answer, asking on: {error:#}"
                    )?;
                }
                is_away = true;
            }
            Err(error) => return Err(error),
        }
    }
}

fn back(time: Timestamp) -> Timestamp {
    time.checked_sub(OVERLAP).unwrap_or(Timestamp::MIN)
}

/// Whether asking again may help: the centre is restarted or busy, or the line is down.
fn passes(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(ClientError::Exchange { .. }) => true,
        Some(ClientError::Refused { status, .. }) => matches!(status, 429 | 500..),
        _ => false,
    }
}

/// The alerts received lately.
#[derive(Default)]
pub struct Window {
    known: HashSet<Key>,
    /// The centre's clock when it was last asked.
    next: Timestamp,
}

impl Window {
    /// Returns what was received since then and not known, oldest first.
    pub async fn ask(
        &mut self,
        client: &Client,
        pairs: &Pairs,
        since: Timestamp,
    ) -> anyhow::Result<Vec<Box<RawValue>>> {
        let mut pairs = pairs.clone();
        pairs.push(("received_since", since.to_string()));
        let (mut found, mut cursor, mut time) = (Vec::new(), None, None);
        loop {
            let page = page(client, &pairs, PAGE_MAX, cursor.as_deref()).await?;
            time = time.or(Some(page.time));
            found.extend(page.alerts);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        self.next = time.unwrap_or(self.next);
        self.sift(found)
    }

    fn sift(&mut self, found: Vec<Box<RawValue>>) -> anyhow::Result<Vec<Box<RawValue>>> {
        let mut now_known = HashSet::with_capacity(found.len());
        let mut new = Vec::new();
        for alert in found {
            let key: Key = serde_json::from_str(alert.get())?;
            if !self.known.contains(&key) && !now_known.contains(&key) {
                new.push(alert);
            }
            now_known.insert(key);
        }
        // What left the window never comes back into it: forgetting it keeps the set small.
        self.known = now_known;
        new.reverse();
        Ok(new)
    }
}

fn show(
    alerts: impl Iterator<Item = Box<RawValue>>,
    output: Output,
    zone: &TimeZone,
) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for alert in alerts {
        write(&mut out, &alert, output, zone)?;
    }
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_is_new_once_also_when_it_grew() {
        let alert = |id: u64, count: u64| {
            let text = format!(
                r#"{{"id":"{id:032x}","agent":"a","time":"2026-11-05T00:00:00Z","count":{count}}}"#
            );
            RawValue::from_string(text).unwrap()
        };
        let mut window = Window::default();
        for (found, new) in [
            (vec![(2, 1), (1, 1)], vec![1, 2]),
            (vec![(3, 1), (2, 5), (1, 1)], vec![3]),
            (vec![(3, 1)], vec![]),
            (vec![(4, 1), (4, 1), (3, 2)], vec![4]),
            (vec![], vec![]),
        ] {
            let found = found.into_iter().map(|(id, count)| alert(id, count));
            let shown: Vec<Key> = window
                .sift(found.collect())
                .unwrap()
                .iter()
                .map(|alert| serde_json::from_str(alert.get()).unwrap())
                .collect();
            let shown: Vec<String> = shown.iter().map(|key| key.id.to_string()).collect();
            let new: Vec<String> = new.iter().map(|id: &u64| format!("{id:032x}")).collect();
            assert_eq!(shown, new);
        }
    }
}
