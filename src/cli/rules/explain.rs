//! Why a rule fires on an event, or doesn't: its steps as a tree. Of a correlation: which of its rules saw the events,
//! and how full its fullest window was.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value as Json;

use crate::alert::Alert;
use crate::cli::agents::url_part;
use crate::cli::alerts::Form;
use crate::cli::listing;
use crate::cli::pack::{self, RuleFile};
use crate::cli::rules::sample;
use crate::decode::{self, Format, Surroundings};
use crate::deliver::forward::Client;
use crate::detect::rule::explain::{Explained, Miss, Step, Verdict};
use crate::detect::rule::{Correlation, Counted, Placeholders, RuleIndex, Ruleset};
use crate::detect::{Detection, GroupKey};
use crate::diagnostic::visible;
use crate::event::Event;
use crate::event::logsource::LogSources;
use crate::record::{FileId, Position, Record};

/// Events that are explained one by one: more is reading for nobody.
const EVENTS_MAX: usize = 20;
/// Of what a correlation counts at most.
const BYTES_MAX: u64 = 64 << 20;

/// What is asked.
#[derive(Debug)]
pub struct Question<'a> {
    /// Id or title of a rule, or a part of its title.
    pub rule: &'a str,
    pub files: &'a [RuleFile],
    pub placeholders: &'a Placeholders,
    pub output: Form,
}

/// One event, and what the rule makes of it.
#[derive(Debug, Serialize)]
struct Answer {
    event: String,
    fires: bool,
    /// The first step that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<Missed>,
    steps: Vec<Step>,
}

#[derive(Debug, Serialize)]
struct Missed {
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Miss>,
}

impl Answer {
    fn of(event: String, steps: Vec<Step>) -> Self {
        let missed = steps.iter().find_map(Step::first_miss).map(|step| Missed {
            what: step.what.clone(),
            why: step.miss,
        });
        Self {
            event,
            fires: missed.is_none(),
            missed,
            steps,
        }
    }
}

/// Explains a rule over the events of a file.
///
/// # Errors
/// When there is no such rule, the file can't be read, or `out` takes no more.
pub fn of_file(
    question: &Question<'_>,
    path: &Path,
    format: Format,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (set, rule) = question.find()?;
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| BufReader::new(file).take(BYTES_MAX).read_to_end(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    if set.rule(rule).correlation().is_some() {
        let text = String::from_utf8_lossy(&text);
        return question.correlation(&Arc::new(set), rule, format, &text, out);
    }
    let mut explained = question.taken_apart(&set, rule)?;
    let mut decoder = decode::for_format(format, &Surroundings::of(TimeZone::system()));
    let (mut shown, mut left) = (0, 0_usize);
    let mut written = Ok(());
    let mut offset = 0;
    for line in text.lines() {
        let line = line?;
        let record = record(&line, offset);
        offset += line.len() as u64 + 1;
        if line.trim().is_empty() {
            continue;
        }
        // What no decoder understands is an event all the same.
        let _ = decoder.decode(&record, set.fields(), &mut |event| {
            if shown == EVENTS_MAX {
                left += 1;
            } else if written.is_ok() {
                shown += 1;
                let answer = Answer::of(format!("event {shown}"), explained.steps(event));
                written = question.write(&set, rule, &answer, out);
            }
        });
    }
    written?;
    if shown == 0 {
        return Err(crate::cli::usage(format!("no event in {}", path.display())));
    }
    if left > 0 {
        eprintln!("{left} more events are not shown");
    }
    Ok(())
}

/// Explains a rule over an alert, as the centre has it: masked.
///
/// # Errors
/// When there is no such rule or alert, the centre can't be asked, or `out` takes no more.
pub async fn of_alert(
    question: &Question<'_>,
    client: &Client,
    id: &str,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (set, rule) = question.find()?;
    let alert: Alert = client.get(&format!("/v1/alerts/{}", url_part(id))).await?;
    let mut explained = question.taken_apart(&set, rule)?;
    let event = event_of(&alert, &set);
    let answer = Answer::of(
        format!("alert {id}, its values masked"),
        explained.steps(&event),
    );
    question.write(&set, rule, &answer, out)
}

/// Returns the event that an alert was made of, as far as the alert tells.
pub fn event_of<'a>(alert: &'a Alert, set: &Ruleset) -> Event<'a> {
    let mut event = Event::new(alert.raw.as_bytes());
    for (name, value) in &alert.fields {
        let Some(id) = set.fields().get(name) else {
            continue;
        };
        let values = match value {
            Json::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            match value {
                Json::String(text) => event.set(id, text.as_str()),
                other => event.set(id, other.to_string()),
            }
        }
    }
    let source = &alert.logsource;
    let word = |word: &'a Option<String>| word.as_deref().map(std::borrow::Cow::Borrowed);
    event.logsources = LogSources {
        product: word(&source.product),
        categories: word(&source.category).into_iter().collect(),
        services: word(&source.service).into_iter().collect(),
        ..LogSources::default()
    };
    event
}

fn record(line: &str, offset: u64) -> Record {
    let file = FileId {
        device: 1,
        inode: 1,
        head: 1,
    };
    Record {
        position: Position::Offset { file, offset },
        read_at: Timestamp::now(),
        bytes: Bytes::copy_from_slice(line.as_bytes()),
        cut: false,
    }
}

impl Question<'_> {
    fn find(&self) -> anyhow::Result<(Ruleset, RuleIndex)> {
        let (set, _) = pack::compile_with(self.files, self.placeholders);
        if let Some(index) = set.by_id(self.rule) {
            return Ok((set, index));
        }
        let wanted = self.rule.to_lowercase();
        let titled = |is_wanted: &dyn Fn(&str) -> bool| -> Vec<RuleIndex> {
            let rules = set.rules();
            rules
                .filter(|(_, rule)| {
                    is_wanted(&rule.reference.title.to_lowercase()) || rule.name == self.rule
                })
                .map(|(index, _)| index)
                .collect()
        };
        let mut found = titled(&|title| title == wanted);
        if found.is_empty() {
            found = titled(&|title| title.contains(&wanted));
        }
        match found.as_slice() {
            [only] => {
                let only = *only;
                Ok((set, only))
            }
            [] => Err(crate::cli::usage(format!(
                "no rule `{}`: name its id or a part of its title, and its files with --rules",
                self.rule
            ))),
            several => {
                let titles = several.iter().take(5).map(|&index| {
                    let rule = set.rule(index);
                    format!("{} ({})", rule.reference.title, rule.id)
                });
                Err(crate::cli::usage(format!(
                    "{} rules fit `{}`: {}",
                    several.len(),
                    self.rule,
                    titles.collect::<Vec<_>>().join(", ")
                )))
            }
        }
    }

    fn taken_apart(&self, set: &Ruleset, rule: RuleIndex) -> anyhow::Result<Explained> {
        let texts: Vec<_> = self.files.iter().map(RuleFile::as_text).collect();
        Explained::of(set, rule, &texts, self.placeholders).ok_or_else(|| {
            crate::cli::usage("a correlation is explained over the events of a file: --event FILE")
        })
    }

    fn write(
        &self,
        set: &Ruleset,
        rule: RuleIndex,
        answer: &Answer,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        if self.output == Form::Json {
            listing::json(out, &serde_json::to_string(answer)?)?;
            return Ok(());
        }
        let rule = set.rule(rule);
        let verb = if answer.fires {
            "fires"
        } else {
            "does not fire"
        };
        writeln!(
            out,
            "{} ({}) {verb} on {}",
            visible(&rule.reference.title),
            visible(&rule.id),
            answer.event
        )?;
        if let Some(missed) = &answer.missed {
            let why = missed.why.map(reason).unwrap_or_default();
            writeln!(out, "first miss: {}{why}", visible(&missed.what))?;
        }
        for step in &answer.steps {
            tree(out, step, 1)?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn correlation(
        &self,
        set: &Arc<Ruleset>,
        rule: RuleIndex,
        format: Format,
        text: &str,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        let found = sample::heard(set, format, text);
        let Some(correlation) = set.rule(rule).correlation() else {
            return Ok(());
        };
        let fired = found.iter().filter(|found| found.rule == rule).count();
        let mut groups: BTreeMap<String, Vec<(usize, &Detection)>> = BTreeMap::new();
        let mut of_base = vec![0_usize; correlation.bases.len()];
        for detection in &found {
            for (at, base) in correlation.bases.iter().enumerate() {
                if base.rule == detection.rule {
                    of_base[at] += 1;
                    let key = group_of(&base.group, detection);
                    groups.entry(key).or_default().push((at, detection));
                }
            }
        }
        let windows: Vec<Filled> = groups
            .into_iter()
            .map(|(group, events)| Filled::of(group, correlation, events))
            .collect();
        let asked = asked(correlation);
        if self.output == Form::Json {
            let object = serde_json::json!({
                "rule": set.rule(rule).id, "fires": fired, "asks": asked, "windows": windows,
            });
            listing::json(out, &object.to_string())?;
            return Ok(());
        }
        let head = set.rule(rule);
        let verb = match fired {
            0 => "does not fire".to_owned(),
            times => format!("fires {times}×"),
        };
        writeln!(
            out,
            "{} ({}) {verb}",
            visible(&head.reference.title),
            visible(&head.id)
        )?;
        writeln!(out, "  asks: {asked}")?;
        for (base, count) in correlation.bases.iter().zip(&of_base) {
            let title = &set.rule(base.rule).reference.title;
            let mark = if *count > 0 { "✓" } else { "✗" };
            writeln!(out, "  {mark} {}: {count} events", visible(title))?;
        }
        for window in &windows {
            writeln!(
                out,
                "  group {}: {} events, at most {} within the time",
                visible(&window.group),
                window.events,
                window.most
            )?;
        }
        if windows.is_empty() {
            writeln!(out, "  no event of its rules has all fields of the group")?;
        }
        Ok(())
    }
}

/// The fullest window of a group.
#[derive(Debug, Serialize)]
struct Filled {
    group: String,
    events: usize,
    /// Of what is counted.
    most: usize,
}

impl Filled {
    fn of(group: String, correlation: &Correlation, mut events: Vec<(usize, &Detection)>) -> Self {
        events.sort_by_key(|(_, detection)| detection.time);
        let most = (0..events.len()).map(|last| {
            let end = events[last].1.time;
            let within = events[..=last]
                .iter()
                .filter(|(_, detection)| end.duration_since(detection.time) < correlation.timespan);
            match correlation.counted {
                Counted::Values => {
                    let values = within.map(|(base, detection)| {
                        value_of(&correlation.bases[*base].values, detection)
                    });
                    values.collect::<std::collections::BTreeSet<_>>().len()
                }
                Counted::Rules | Counted::Sequence => {
                    let rules = within.map(|(base, _)| *base);
                    rules.collect::<std::collections::BTreeSet<_>>().len()
                }
                _ => within.count(),
            }
        });
        Self {
            most: most.max().unwrap_or(0),
            events: events.len(),
            group,
        }
    }
}

fn keys<'d>(names: &[Arc<str>], detection: &'d Detection) -> Vec<&'d GroupKey> {
    let key = |name: &Arc<str>| {
        let mut groups = detection.groups.iter();
        groups.find(|(known, _)| known == name).map(|(_, key)| key)
    };
    names.iter().filter_map(key).collect()
}

fn group_of(names: &[Arc<str>], detection: &Detection) -> String {
    let shown: Vec<String> = names
        .iter()
        .zip(keys(names, detection))
        .map(|(name, key)| format!("{name}={}", key.shown))
        .collect();
    if shown.is_empty() {
        "(all)".to_owned()
    } else {
        shown.join(" ")
    }
}

fn value_of(names: &[Arc<str>], detection: &Detection) -> Vec<[u8; 16]> {
    keys(names, detection).iter().map(|key| key.hash).collect()
}

fn asked(correlation: &Correlation) -> String {
    let counted = match correlation.counted {
        Counted::Events => "events".to_owned(),
        Counted::Values => "distinct values".to_owned(),
        Counted::Rules => "distinct rules".to_owned(),
        Counted::Sequence => "rules in their order".to_owned(),
        other => format!("{other:?} of numbers").to_lowercase(),
    };
    let by = match correlation.group_by.as_slice() {
        [] => String::new(),
        names => format!(" by {}", names.join(", ")),
    };
    let bounds: Vec<String> = correlation
        .predicates
        .iter()
        .map(|(comparison, bound)| format!("{} {bound}", comparison.sign()))
        .collect();
    let bounds = match (&correlation.presence, bounds.as_slice()) {
        (Some(_), _) => "as its condition names the rules".to_owned(),
        (None, bounds) => bounds.join(" and "),
    };
    format!("{counted}{by}, {bounds}, within {:#}", correlation.timespan)
}

fn reason(miss: Miss) -> &'static str {
    match miss {
        Miss::LogSource => " (the event is of another log source)",
        Miss::FieldAbsent => " (the event has no such field)",
        Miss::Value => " (the value is another)",
        Miss::Excluded => " (what it excludes is there)",
        Miss::Filter => " (a filter excepts it)",
    }
}

fn tree(out: &mut impl Write, step: &Step, depth: usize) -> std::io::Result<()> {
    let mark = match step.verdict {
        Verdict::True => "✓",
        Verdict::False => "✗",
        Verdict::NotReached => "·",
    };
    let seen = match step.seen.as_slice() {
        [] if step.miss == Some(Miss::FieldAbsent) => "   ← absent".to_owned(),
        [] => String::new(),
        seen => format!("   ← {}", visible(&seen.join(", "))),
    };
    let what = visible(&step.what);
    writeln!(out, "{:indent$}{mark} {what}{seen}", "", indent = depth * 2)?;
    for part in &step.parts {
        tree(out, part, depth + 1)?;
    }
    Ok(())
}
