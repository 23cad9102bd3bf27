//! `canhgac replay`: recorded logs to alerts, through the same decode, match and correlate as the agent.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write, stdout};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Map, json};

use crate::alert::HostSecret;
use crate::cli::pack;
use crate::decode;
use crate::decode::{Decoder, Format, LinkType, Surroundings};
use crate::detect::correlate::Correlator;
use crate::detect::mask::Masker;
use crate::detect::rule::{Ruleset, Scratch};
use crate::detect::{Detection, Scene, Sighting};
use crate::event::Event;
use crate::event::field::{Fields, Unknown};
use crate::record::{FileId, Position, Record, SourceId};
use crate::source::{evtx, pcap};

/// A line longer than this is judged by its beginning, as the agent does.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Classic pcap in its four variants, and pcapng.
const PCAP_MAGICS: [[u8; 4]; 5] = [
    [0xd4, 0xc3, 0xb2, 0xa1],
    [0xa1, 0xb2, 0xc3, 0xd4],
    [0x4d, 0x3c, 0xb2, 0xa1],
    [0xa1, 0xb2, 0x3c, 0x4d],
    [0x0a, 0x0d, 0x0d, 0x0a],
];

/// Judge recorded logs, JSON lines or packets; alerts go to stdout, one JSON a line
#[derive(Debug, Args)]
pub struct Replay {
    /// Rule files or folders; without it the rules that canhgac brings
    #[arg(long, value_name = "PATH", num_args = 1..)]
    rules: Vec<PathBuf>,
    /// auto, json, syslog, access (nginx, Apache), audit, evtx or pcap
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    format: String,
    /// Write every decoded event instead of alerts
    #[arg(long)]
    events: bool,
    /// Write one JSON line of figures to stderr
    #[arg(long)]
    stats: bool,
    /// Files or folders
    #[arg(required = true, value_name = "FILE|DIR")]
    inputs: Vec<PathBuf>,
}

/// # Errors
/// When an input can't be read or stdout is gone.
pub fn run(args: &Replay) -> anyhow::Result<ExitCode> {
    let format: Format = match args.format.as_str() {
        "pcap" | "evtx" | "auto" => Format::Auto,
        named => named.parse().map_err(|_| {
            crate::cli::usage(format!(
                "unknown format `{named}`; expected auto, json, syslog, access, audit, evtx or pcap"
            ))
        })?,
    };
    let (mut ruleset, faults) = pack::ruleset(&args.rules)?;
    crate::cli::tell(&faults);
    if args.events {
        ruleset.fields_mut().unknown = Unknown::Keep;
    }
    let mut player = Player::new(ruleset, args.events)?;
    let started = Instant::now();
    let mut is_whole = true;
    for path in files(&args.inputs)? {
        let outcome = match args.format.as_str() {
            "pcap" => player.packets(&path),
            "evtx" => player.windows_log(&path),
            "auto" if looks_like_pcap(&path) => player.packets(&path),
            "auto" if evtx::is_log(&path) => player.windows_log(&path),
            _ => player.lines(&path, format),
        };
        if let Err(error) = outcome {
            if is_broken_pipe(&error) {
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!("error: {error:#}");
            is_whole = false;
        }
    }
    player.out.flush().context("cannot write to stdout")?;
    if args.stats {
        let figures = json!({
            "events": player.events,
            "bytes": player.bytes,
            "seconds": started.elapsed().as_secs_f64(),
            "alerts": player.alerts,
            "breaks": player.breaks,
            "rules": player.ruleset.rules().count(),
        });
        eprintln!("{figures}");
    }
    Ok(ExitCode::from(u8::from(!is_whole)))
}

/// Judges records as they come and writes what it finds.
struct Player {
    ruleset: Arc<Ruleset>,
    scene: Scene,
    around: Surroundings,
    scratch: Scratch,
    correlator: Correlator,
    out: BufWriter<std::io::Stdout>,
    shows_events: bool,
    events: u64,
    bytes: u64,
    alerts: u64,
    /// Places where a log was broken.
    breaks: u64,
}

impl Player {
    fn new(ruleset: Ruleset, shows_events: bool) -> anyhow::Result<Self> {
        let mut key = [0; 32];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
        Ok(Self {
            ruleset: Arc::new(ruleset),
            scene: Scene {
                // A constant, so that a recording gives the same ids each time; tokens are of this run alone.
                secret: HostSecret::new(b"canhgac replay: ids of recordings"[..32].try_into()?),
                masker: Masker::new(&key),
                host: crate::agent::report::host_name(),
            },
            around: Surroundings::of(jiff::tz::TimeZone::system()),
            scratch: Scratch::default(),
            correlator: Correlator::default(),
            out: BufWriter::new(stdout()),
            shows_events,
            events: 0,
            bytes: 0,
            alerts: 0,
            breaks: 0,
        })
    }

    fn lines(&mut self, path: &Path, format: Format) -> anyhow::Result<()> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let meta = file.metadata()?;
        let source = SourceId::new(&format!("replay:{}", path.display()));
        let id = FileId {
            device: meta.dev(),
            inode: meta.ino(),
            head: 0,
        };
        let mut reader = BufReader::with_capacity(LINE_BYTES_MAX, file);
        let mut decoder = decode::for_format(format, &self.around);
        let mut offset = 0;
        let mut line = Vec::new();
        loop {
            line.clear();
            let taken = (&mut reader)
                .take(LINE_BYTES_MAX as u64 + 1)
                .read_until(b'\n', &mut line)
                .with_context(|| format!("cannot read {}", path.display()))?;
            if taken == 0 {
                return self.finish(&source, decoder.as_mut());
            }
            let mut length = taken as u64;
            let cut = line.last() != Some(&b'\n') && line.len() > LINE_BYTES_MAX;
            if cut {
                line.truncate(LINE_BYTES_MAX);
                length += skip_line(&mut reader)?;
            }
            while line.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
                line.pop();
            }
            let position = Position::Offset { file: id, offset };
            offset += length;
            self.bytes += length;
            if line.is_empty() {
                continue;
            }
            let record = Record {
                position,
                read_at: Timestamp::now(),
                bytes: Bytes::copy_from_slice(&line),
                cut,
            };
            self.judge(&source, &record, decoder.as_mut())?;
        }
    }

    /// A break in the log is told; what stands before and after it is judged.
    fn windows_log(&mut self, path: &Path) -> anyhow::Result<()> {
        let source = SourceId::new(&format!("replay:{}", path.display()));
        let mut decoder = decode::for_format(Format::Json, &self.around);
        let mut breaks = 0_u64;
        let outcome = evtx::read::<anyhow::Error>(path, |entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    if breaks == 0 {
                        eprintln!(
                            "warning: {}: {:#}",
                            path.display(),
                            anyhow::Error::from(error)
                        );
                    }
                    breaks += 1;
                    return Ok(());
                }
            };
            self.bytes += entry.json.len() as u64;
            let record = Record {
                position: Position::Counter {
                    start: 0,
                    number: entry.number,
                },
                read_at: Timestamp::now(),
                bytes: entry.json,
                cut: false,
            };
            self.judge(&source, &record, decoder.as_mut())
        });
        if breaks > 1 {
            eprintln!("warning: {}: {breaks} breaks in all", path.display());
        }
        self.breaks += breaks;
        outcome.with_context(|| format!("cannot read {}", path.display()))
    }

    fn packets(&mut self, path: &Path) -> anyhow::Result<()> {
        let source = SourceId::new(&format!("replay:{}", path.display()));
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let id = pcap::identity(&file, path)?;
        let mut decoder: Option<(LinkType, Box<dyn Decoder>)> = None;
        for packet in pcap::read(path) {
            let packet = packet?;
            let link = packet.link;
            if decoder.as_ref().is_none_or(|(of, _)| *of != link) {
                let made = decode::for_format(Format::Packet(link), &self.around);
                decoder = Some((link, made));
            }
            self.bytes += packet.bytes.len() as u64;
            if let Some((_, decoder)) = &mut decoder {
                self.judge(&source, &packet.record(id), decoder.as_mut())?;
            }
        }
        if let Some((_, decoder)) = &mut decoder {
            self.finish(&source, decoder.as_mut())?;
        }
        Ok(())
    }

    /// Judges what a decoder held back for records that did not come.
    fn finish(&mut self, source: &SourceId, decoder: &mut dyn Decoder) -> anyhow::Result<()> {
        let record = Record {
            position: Position::Counter {
                start: 0,
                number: u64::MAX,
            },
            read_at: Timestamp::now(),
            bytes: Bytes::new(),
            cut: false,
        };
        self.judge_with(source, &record, |fields, emit| {
            decoder.flush(Timestamp::MAX, fields, emit);
        })
    }

    fn judge(
        &mut self,
        source: &SourceId,
        record: &Record,
        decoder: &mut dyn Decoder,
    ) -> anyhow::Result<()> {
        self.judge_with(source, record, |fields, emit| {
            // What no decoder understands is an event all the same; the figure of it is the agent's to keep.
            let _ = decoder.decode(record, fields, emit);
        })
    }

    fn judge_with(
        &mut self,
        source: &SourceId,
        record: &Record,
        events: impl FnOnce(&Fields, &mut dyn FnMut(&Event<'_>)),
    ) -> anyhow::Result<()> {
        let mut found: Vec<Detection> = Vec::new();
        let mut shown = Vec::new();
        let mut number = 0;
        let (ruleset, scene, scratch) = (&self.ruleset, &self.scene, &mut self.scratch);
        let shows_events = self.shows_events;
        events(ruleset.fields(), &mut |event| {
            if shows_events {
                shown.push(event_json(event, ruleset.fields(), source, record));
            } else {
                let seen = Sighting {
                    source,
                    record,
                    event,
                    number,
                };
                ruleset.matches(event, scratch, |index, _| {
                    found.push(scene.detection(ruleset, index, &seen));
                });
            }
            number += 1;
        });
        self.events += u64::from(number);
        for event in shown {
            writeln!(self.out, "{event}")?;
        }
        let now = record.read_at;
        for detection in found {
            let mut correlated = Vec::new();
            self.correlator
                .observe(&detection, &scene.secret, now, &mut correlated);
            for detection in std::iter::once(detection).chain(correlated) {
                if !detection.rule().silent {
                    let mut alert = detection.into_alert();
                    alert.fit();
                    serde_json::to_writer(&mut self.out, &alert)?;
                    self.out.write_all(b"\n")?;
                    self.alerts += 1;
                }
            }
        }
        Ok(())
    }
}

fn event_json(
    event: &Event<'_>,
    fields: &Fields,
    source: &SourceId,
    record: &Record,
) -> serde_json::Value {
    let mut map = Map::new();
    let named = event.iter().map(|(id, value)| (fields.name(id), value));
    for (name, value) in named.chain(event.others()) {
        let value = serde_json::Value::from(value.lossy());
        match map.get_mut(name) {
            None => {
                map.insert(name.to_owned(), value);
            }
            Some(serde_json::Value::Array(values)) => values.push(value),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    let of = &event.logsources;
    json!({
        "time": event.time.unwrap_or(record.read_at).to_string(),
        "logsource": {"product": of.product, "category": of.categories.as_slice(), "service": of.services.as_slice()},
        "fields": map,
        "origin": {"source": source.as_str(), "at": record.position.to_string()},
    })
}

/// Skips to the end of a line that is too long; returns the bytes skipped.
fn skip_line(reader: &mut impl BufRead) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(skipped);
        }
        let end = memchr::memchr(b'\n', chunk);
        let taken = end.map_or(chunk.len(), |at| at + 1);
        reader.consume(taken);
        skipped += taken as u64;
        if end.is_some() {
            return Ok(skipped);
        }
    }
}

fn looks_like_pcap(path: &Path) -> bool {
    let mut head = [0; 4];
    File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok())
        && PCAP_MAGICS.contains(&head)
}

/// Files as they are named, folders with all that is in them, by name.
fn files(inputs: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for input in inputs {
        let meta = input
            .metadata()
            .with_context(|| format!("cannot read {}", input.display()))?;
        if !meta.is_dir() {
            found.push(input.clone());
            continue;
        }
        let mut within = pack::walk(input, |path| path.is_file())?;
        within.sort();
        found.extend(within);
    }
    Ok(found)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
        || error
            .downcast_ref::<serde_json::Error>()
            .is_some_and(|error| error.io_error_kind() == Some(std::io::ErrorKind::BrokenPipe))
}
