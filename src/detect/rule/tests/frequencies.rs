//! Counts how often the texts that rules ask for stand in events, and writes what `frequency` reads. By hand:
//! `CANHGAC_FREQUENCIES=src/detect/rule/frequency.bin cargo nextest run --release --lib --run-ignored all -E 'test(frequencies)'`

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;

use super::corpora::{all_rules, corpora, lines, logsources_of};
use super::*;
use crate::detect::rule::frequency::{self, RUNS, key};
use crate::detect::rule::index::Index;
use crate::detect::rule::matcher::{Expr, Test};
use crate::detect::rule::need::{Need, Place};

/// Rates below this are as good as none.
const RATE_MIN: f64 = 1.0 / 400.0;

fn texts(condition: &Expr, all: &mut BTreeSet<Need>) {
    match condition {
        Expr::All(parts) | Expr::Any(parts) | Expr::AtLeast(_, parts) => {
            parts.iter().for_each(|part| texts(part, all));
        }
        Expr::Not(part) => texts(part, all),
        Expr::Shared(part) => texts(part, all),
        Expr::Test(test) => {
            let (field, patterns) = match &**test {
                Test::Text {
                    field, patterns, ..
                } => (Some(*field), patterns),
                Test::Keyword { patterns, .. } => (None, patterns),
                Test::Regex { field, regex } => {
                    all.extend(
                        crate::detect::rule::need::of_regex(regex.as_str(), Some(*field))
                            .into_iter()
                            .flatten(),
                    );
                    return;
                }
                _ => return,
            };
            for (place, text) in patterns.needed().into_iter().flatten() {
                let text = text.into();
                all.insert(Need { field, place, text });
            }
            if field.is_some() {
                let (place, text) = (Place::Present, Box::default());
                all.insert(Need { field, place, text });
            }
        }
    }
}

fn byte(rate: f64) -> u8 {
    (rate.log2() * -4.0).round().clamp(0.0, 255.0) as u8
}

#[test]
#[ignore = "writes a file of the repository"]
fn frequencies_are_counted_over_every_second_event() {
    let (Some(corpora), Some(file)) = (corpora(), std::env::var_os("CANHGAC_FREQUENCIES")) else {
        return;
    };
    let (set, ..) = all_rules(&corpora);
    let mut all = BTreeSet::new();
    for (_, rule) in set.rules() {
        if let Compiled::Detection { condition, .. } = &rule.body {
            texts(condition, &mut all);
        }
    }
    let all: Vec<Need> = all.into_iter().collect();
    let numbered: Vec<_> = (0..)
        .zip(all.iter().map(|need| vec![need.clone()]))
        .collect();
    let index = Index::new(&numbered);
    let mut wanted: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    for need in all.iter().filter(|need| need.place == Place::Anywhere) {
        for gram in need.text.windows(frequency::RUN_BYTES) {
            wanted.insert(gram.to_vec(), 0);
        }
    }
    let mut met = vec![0_u32; all.len()];
    let mut fields: HashMap<Option<FieldId>, u32> = HashMap::new();
    let (mut layout, mut events) = (Layout::default(), 0);
    let cases = lines(&corpora.join("sigma/dev/silver_evtx.jsonl"));
    for case in cases.iter().step_by(2) {
        let raw = case["flat"].to_string();
        let mut event = event(
            case["flat"].as_object().unwrap(),
            raw.as_bytes(),
            set.fields(),
        );
        event.logsources = logsources_of(&case["logsource"]);
        layout.load(&event, &set.asked);
        events += 1;
        *fields.entry(None).or_default() += 1;
        let present: BTreeSet<_> = event.iter().map(|(field, _)| field).collect();
        for field in present {
            *fields.entry(Some(field)).or_default() += 1;
        }
        let mut seen = BTreeSet::new();
        index.candidates(&event, &mut layout, |need| {
            seen.insert(need);
        });
        for need in seen {
            met[need as usize] += 1;
        }
        let mut grams = BTreeSet::new();
        for (_, value) in event.iter() {
            let text = crate::detect::rule::pattern::fold(&value.text());
            grams.extend(text.windows(frequency::RUN_BYTES).map(<[u8]>::to_vec));
        }
        for gram in grams {
            if let Some(count) = wanted.get_mut(&gram) {
                *count += 1;
            }
        }
    }
    let mut rates: BTreeMap<u32, u8> = BTreeMap::new();
    for (need, &count) in all.iter().zip(&met) {
        let of = match need.place {
            Place::Present => events,
            _ => fields.get(&need.field).copied().unwrap_or(1),
        };
        let rate = f64::from(count) / f64::from(of.max(1));
        if rate >= RATE_MIN && of >= 50 {
            let name = need.field.map_or("", |field| set.fields().name(field));
            // How often a field is there differs by log source; within one it mostly is.
            let rate = if need.place == Place::Present {
                rate.max(0.5)
            } else {
                rate
            };
            rates.insert(key(name, need.place, &need.text), byte(rate));
        }
    }
    for (gram, count) in wanted {
        let rate = f64::from(count) / f64::from(events);
        if rate >= RATE_MIN * 4.0 {
            rates.insert(key(RUNS, Place::Anywhere, &gram), byte(rate));
        }
    }
    let bytes: Vec<u8> = rates
        .iter()
        .flat_map(|(key, rate)| [&key.to_le_bytes()[..], &[*rate]].concat())
        .collect();
    eprintln!(
        "{} rates over {events} events, {} bytes",
        rates.len(),
        bytes.len()
    );
    fs::write(file, bytes).unwrap();
    assert!(frequency::rate("", Place::Whole, b"never seen") < 0.01);
}

/// What an event costs: how many rules are asked of it, and which are asked most often for nothing.
#[test]
#[ignore = "prints figures"]
fn candidates_of_ordinary_events() {
    let Some(corpora) = corpora() else { return };
    let (set, ..) = all_rules(&corpora);
    let cases = lines(&corpora.join("sigma/dev/silver_evtx.jsonl"));
    let mut scratch = Scratch::default();
    let mut asked: HashMap<String, (u32, u32, u32)> = HashMap::new();
    let mut vain: HashMap<u32, u32> = HashMap::new();
    for case in cases.iter().skip(1).step_by(2) {
        let raw = case["flat"].to_string();
        let mut event = event(
            case["flat"].as_object().unwrap(),
            raw.as_bytes(),
            set.fields(),
        );
        event.logsources = logsources_of(&case["logsource"]);
        let plan = scratch.plans.of(&set, &event.logsources);
        scratch.layout.load(&event, &set.asked);
        let category = event
            .logsources
            .categories
            .first()
            .or(event.logsources.services.first());
        let entry = asked
            .entry(category.map(ToString::to_string).unwrap_or_default())
            .or_default();
        entry.0 += 1;
        let found = scratch
            .candidates
            .of(&plan, &event, &mut scratch.layout)
            .to_vec();
        for rule in found {
            entry.1 += 1;
            let Compiled::Detection { condition, .. } = &set.rule(RuleIndex(rule)).body else {
                continue;
            };
            if condition.holds(&event, &mut scratch.layout) {
                entry.2 += 1;
            } else {
                *vain.entry(rule).or_default() += 1;
            }
        }
    }
    for (category, (events, candidates, hits)) in &asked {
        let events = f64::from(*events);
        eprintln!(
            "{category:<24}{events:>6} events {:>8.2} asked {:>8.2} hit",
            f64::from(*candidates) / events,
            f64::from(*hits) / events
        );
    }
    let mut vain: Vec<_> = vain.into_iter().collect();
    vain.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    for (rule, count) in vain.into_iter().take(40) {
        let rule = set.rule(RuleIndex(rule));
        let Compiled::Detection { needs, .. } = &rule.body else {
            continue;
        };
        let told: Vec<String> = needs
            .iter()
            .flatten()
            .take(4)
            .map(|need| {
                let name = need
                    .field
                    .map_or("record", |field| set.fields().name(field));
                format!(
                    "{name} {:?} {:?} {:.5}",
                    need.place,
                    String::from_utf8_lossy(&need.text),
                    frequency::rate(name, need.place, &need.text)
                )
            })
            .collect();
        eprintln!(
            "{count:>6} {} {} {told:?}",
            rule.reference.title,
            needs.as_ref().map_or(0, |n| n.len())
        );
    }
}
