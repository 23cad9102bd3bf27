//! The engine beside rsigma-eval, in one process and one run: the public rules over real Windows events, on one thread,
//! by the time of the CPU. Without the corpora it says so and ends.
//!
//! `tests/run bench engine` prints the table; `load` and `linux` as arguments print what a fresh process holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use canhgac::decode::{self, Decoder, Format, Surroundings};
use canhgac::detect::rule::{RuleText, Ruleset, Scratch};
use canhgac::record::{FileId, Position, Record};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::time::{ClockId, clock_gettime};
use rsigma_eval::{Engine, JsonEvent};
use serde_json::Value;

/// Events that a category must have to be a row of the table.
const CATEGORY_MIN: usize = 100;

struct Case {
    category: String,
    /// As a shipper would send it, with its log source for us.
    ours: Vec<u8>,
    theirs: Vec<u8>,
    flat: Value,
    sources: Vec<rsigma_parser::LogSource>,
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let Some(corpora) = corpora() else { return };
    match arguments.next().as_deref() {
        None => table(&corpora),
        Some("load") => load(&corpora, |_| true),
        Some("linux") => load(&corpora, |text| {
            let product = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("product:"));
            product.is_none_or(|product| product.trim() == "linux")
        }),
        Some("rules") => curve(&corpora),
        Some("cores") => cores(&corpora),
        Some("alone") => alone(&corpora),
        Some(other) => {
            eprintln!("unknown part {other}: load, linux, rules, cores, alone or nothing");
        }
    }
}

fn corpora() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora");
    let named = std::env::var_os("CANHGAC_CORPORA").map(PathBuf::from);
    let found = named
        .into_iter()
        .chain([beside])
        .find(|path| path.join("sigma").is_dir());
    if found.is_none() {
        eprintln!("SKIPPED: no corpora beside the repository; set CANHGAC_CORPORA");
    }
    found
}

fn rule_files(folder: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rule_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            files.push((
                path.display().to_string(),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
}

fn rules(corpora: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    rule_files(&corpora.join("sigma/rules"), &mut files);
    files
}

fn compile(files: &[(String, String)]) -> Ruleset {
    let texts: Vec<_> = files
        .iter()
        .map(|(file, text)| RuleText { file, text })
        .collect();
    Ruleset::compile(&texts).0
}

/// Every second event: the frequencies that the engine chooses by were counted over the others.
fn cases(corpora: &Path) -> Vec<Case> {
    let text = fs::read_to_string(corpora.join("sigma/dev/silver_evtx.jsonl")).unwrap();
    text.lines().skip(1).step_by(2).map(case).collect()
}

fn case(line: &str) -> Case {
    let json: Value = serde_json::from_str(line).unwrap();
    let word = |name: &str| json["logsource"][name].as_str().map(str::to_owned);
    let categories: Vec<String> = match &json["logsource"]["category"] {
        Value::Array(all) => all
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        Value::String(one) => vec![one.clone()],
        _ => Vec::new(),
    };
    let source = |category: Option<String>| rsigma_parser::LogSource {
        category,
        product: word("product"),
        service: word("service"),
        ..Default::default()
    };
    let mut sources: Vec<_> = categories
        .iter()
        .cloned()
        .map(|category| source(Some(category)))
        .collect();
    if sources.is_empty() {
        sources.push(source(None));
    }
    let mut ours = json["flat"].clone();
    ours["_ls"] = json["logsource"].clone();
    Case {
        category: categories
            .first()
            .cloned()
            .or_else(|| word("service"))
            .unwrap_or_default(),
        ours: serde_json::to_vec(&ours).unwrap(),
        theirs: serde_json::to_vec(&json["flat"]).unwrap(),
        flat: json["flat"].clone(),
        sources,
    }
}

fn cpu() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// Runs `work` at least three times and for half a second; returns the time of the fastest.
fn fastest(mut work: impl FnMut()) -> Duration {
    let (begun, mut best) = (cpu(), Duration::MAX);
    for round in 0.. {
        let start = cpu();
        work();
        best = best.min(cpu() - start);
        if round >= 2 && cpu() - begun > Duration::from_millis(500) {
            break;
        }
    }
    best
}

fn record(bytes: &[u8]) -> Record {
    let file = FileId {
        device: 1,
        inode: 1,
        head: 1,
    };
    Record {
        position: Position::Offset { file, offset: 0 },
        read_at: Timestamp::UNIX_EPOCH,
        bytes: Bytes::copy_from_slice(bytes),
        cut: false,
    }
}

fn decoder() -> Box<dyn Decoder> {
    decode::for_format(Format::Json, &Surroundings::of(TimeZone::UTC))
}

/// Decodes and matches; returns the hits.
fn ours(set: &Ruleset, records: &[Record]) -> usize {
    let (mut decoder, mut scratch, mut hits) = (decoder(), Scratch::default(), 0);
    for record in records {
        let _ = decoder.decode(record, set.fields(), &mut |event| {
            set.matches(event, &mut scratch, |_, _| hits += 1);
        });
    }
    hits
}

/// The time of matching alone: of decoding and matching, less decoding.
fn ours_decode(set: &Ruleset, records: &[Record]) -> usize {
    let (mut decoder, mut events) = (decoder(), 0);
    for record in records {
        let _ = decoder.decode(record, set.fields(), &mut |event| {
            events += event.iter().count();
        });
    }
    events
}

fn theirs_eval(engine: &Engine, cases: &[&Case]) -> usize {
    let each = cases.iter().map(|case| {
        let event = JsonEvent::borrow(&case.flat);
        let hits = case
            .sources
            .iter()
            .map(|source| engine.evaluate_with_logsource(&event, source).len());
        hits.sum::<usize>()
    });
    each.sum()
}

fn theirs(engine: &Engine, cases: &[&Case]) -> usize {
    let each = cases.iter().map(|case| {
        let value: Value = serde_json::from_slice(&case.theirs).unwrap();
        let event = JsonEvent::owned(value);
        let hits = case
            .sources
            .iter()
            .map(|source| engine.evaluate_with_logsource(&event, source).len());
        hits.sum::<usize>()
    });
    each.sum()
}

fn table(corpora: &Path) {
    let files = rules(corpora);
    let started = Instant::now();
    let set = compile(&files);
    println!("{} rules loaded in {:?}", set.len(), started.elapsed());
    let engine = their_engine(&files);
    let cases = cases(corpora);
    let mut by_category: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in &cases {
        by_category.entry(&case.category).or_default().push(case);
    }
    println!(
        "{:<22}{:>8}{:>12}{:>12}{:>8}{:>12}{:>12}{:>8}",
        "events/s", "events", "both", "rsigma", "ratio", "eval", "rsigma", "ratio"
    );
    row("all", &cases.iter().collect::<Vec<_>>(), &set, &engine);
    for (category, cases) in by_category
        .iter()
        .filter(|(_, cases)| cases.len() >= CATEGORY_MIN)
    {
        row(category, cases, &set, &engine);
    }
}

#[expect(clippy::cast_precision_loss)]
fn row(name: &str, cases: &[&Case], set: &Ruleset, engine: &Engine) {
    let records: Vec<Record> = cases.iter().map(|case| record(&case.ours)).collect();
    let rate = |time: Duration| cases.len() as f64 / time.as_secs_f64();
    let both = fastest(|| _ = std::hint::black_box(ours(set, &records)));
    let decode = fastest(|| _ = std::hint::black_box(ours_decode(set, &records)));
    let their_both = fastest(|| _ = std::hint::black_box(theirs(engine, cases)));
    let their_eval = fastest(|| _ = std::hint::black_box(theirs_eval(engine, cases)));
    let eval = both.saturating_sub(decode);
    println!(
        "{name:<22}{:>8}{:>12.0}{:>12.0}{:>8.1}{:>12.0}{:>12.0}{:>8.1}",
        cases.len(),
        rate(both),
        rate(their_both),
        rate(both) / rate(their_both),
        rate(eval),
        rate(their_eval),
        rate(eval) / rate(their_eval),
    );
}

fn their_engine(files: &[(String, String)]) -> Engine {
    let mut engine = Engine::new();
    let collections = files
        .iter()
        .filter_map(|(_, text)| rsigma_parser::parse_sigma_yaml(text).ok());
    let rules: Vec<_> = collections
        .flat_map(|collection| collection.rules)
        .collect();
    let refused = engine.add_rules(&rules);
    println!(
        "rsigma-eval: {} of {} rules",
        rules.len() - refused.len(),
        rules.len()
    );
    engine
}

/// Resident memory, in KiB: (now, peak).
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
            .unwrap_or(0)
    };
    (field("VmRSS:"), field("VmHWM:"))
}

fn load(corpora: &Path, wanted: impl Fn(&str) -> bool) {
    let mut files = rules(corpora);
    files.retain(|(_, text)| wanted(text));
    let (before, _) = memory();
    let started = cpu();
    let set = compile(&files);
    let took = cpu() - started;
    let lean = files.len();
    drop(files);
    let (after, peak) = memory();
    println!(
        "{} of {lean} rules in {took:?} of CPU; resident {} KiB more than before, peak {peak} KiB",
        set.len(),
        after.saturating_sub(before)
    );
    let records: Vec<Record> = cases(corpora)
        .iter()
        .map(|case| record(&case.ours))
        .collect();
    let (before, _) = memory();
    ours(&set, &records);
    let (after, _) = memory();
    println!(
        "plans and scratch for {} events: {} KiB more",
        records.len(),
        after.saturating_sub(before)
    );
}

/// The same rules again under other ids and with other literals, until there are enough.
fn copies(files: &[(String, String)], wanted: usize) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = files.iter().take(wanted).cloned().collect();
    for copy in 1.. {
        if all.len() >= wanted {
            return all;
        }
        for (file, text) in files.iter().take(wanted - all.len()) {
            all.push((format!("{file}#{copy}"), altered(text, copy)));
        }
    }
    all
}

/// Puts a mark behind every quoted literal, and into the id.
fn altered(text: &str, copy: usize) -> String {
    let mut out = String::new();
    let mut in_detection = false;
    for line in text.lines() {
        if !line.starts_with([' ', '#', '-']) {
            in_detection = line.starts_with("detection");
        }
        if let Some(id) = line.strip_prefix("id: ") {
            let tail = id.trim().get(8..).unwrap_or_default();
            out.push_str(&format!("id: {copy:08x}{tail}\n"));
        } else if in_detection && line.trim_end().ends_with('\'') && !line.contains("|re") {
            let cut = line.trim_end().strip_suffix('\'').unwrap_or(line);
            out.push_str(&format!("{cut}{copy}q'\n"));
        } else {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[expect(clippy::cast_precision_loss)]
fn curve(corpora: &Path) {
    let files = rules(corpora);
    let cases = cases(corpora);
    let records: Vec<Record> = cases.iter().map(|case| record(&case.ours)).collect();
    for wanted in [100, 1_000, 3_780, 10_000] {
        let set = compile(&copies(&files, wanted));
        let time = fastest(|| _ = std::hint::black_box(ours(&set, &records)));
        println!(
            "{:>6} rules: {:>8.0} events/s",
            set.len(),
            records.len() as f64 / time.as_secs_f64()
        );
    }
}

/// Ours alone for five seconds, for a profiler.
fn alone(corpora: &Path) {
    let set = compile(&rules(corpora));
    let cases = cases(corpora);
    let records: Vec<Record> = cases.iter().map(|case| record(&case.ours)).collect();
    let begun = cpu();
    while cpu() - begun < Duration::from_secs(5) {
        std::hint::black_box(ours(&set, &records));
    }
}

#[expect(clippy::cast_precision_loss)]
fn cores(corpora: &Path) {
    let set = Arc::new(compile(&rules(corpora)));
    let cases = cases(corpora);
    let records: Arc<Vec<Record>> = Arc::new(cases.iter().map(|case| record(&case.ours)).collect());
    let run = |threads: usize| {
        let started = Instant::now();
        let handles: Vec<_> = (0..threads)
            .map(|_| {
                let (set, records) = (Arc::clone(&set), Arc::clone(&records));
                std::thread::spawn(move || (0..5).map(|_| ours(&set, &records)).sum::<usize>())
            })
            .collect();
        handles.into_iter().for_each(|handle| drop(handle.join()));
        (threads * 5 * records.len()) as f64 / started.elapsed().as_secs_f64()
    };
    run(1);
    let (one, two) = (run(1), run(2));
    println!(
        "one thread {one:.0} events/s, two {two:.0}: {:.2}×",
        two / one
    );
}
