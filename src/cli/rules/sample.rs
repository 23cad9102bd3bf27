//! Samples of rules: records on which a rule must fire, and some close by on which it must not. They go the way of
//! an agent's records, through decoder, rules and correlations, on a clock of their own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;

use crate::alert::HostSecret;
use crate::decode::{self, Decoder, Format, LinkType, Surroundings};
use crate::detect::correlate::{Correlator, Limits};
use crate::detect::mask::Masker;
use crate::detect::rule::{RuleIndex, Ruleset, Scratch};
use crate::detect::{Detection, Scene, Sighting};
use crate::event::Event;
use crate::event::field::Fields;
use crate::record::{FileId, Position, Record, SourceId};
use crate::source::pcap;

/// The samples of one rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Samples {
    /// The rule's id.
    pub rule: String,
    #[serde(default)]
    pub fires: Vec<Case>,
    #[serde(default)]
    pub silent: Vec<Case>,
    /// Where recordings are looked for.
    #[serde(skip)]
    folder: PathBuf,
}

/// Lines of a format, or a recording of packets.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub format: Option<String>,
    pub lines: Option<String>,
    /// A recording, from the sample's folder.
    pub pcap: Option<PathBuf>,
    /// How often exactly; without it at least once.
    pub alerts: Option<usize>,
}

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub case: String,
    /// What is wrong, if it is.
    pub wrong: Option<String>,
}

/// When lines are read: times without a year are of this one. That of packets is their own.
const READ_AT: Timestamp = Timestamp::constant(1_795_348_800, 0);
/// A sample is written by hand; a longer file is something else.
const SAMPLE_BYTES_MAX: u64 = 16 << 20;

impl Samples {
    /// # Errors
    /// When the file can't be read or is no sample.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read the sample {}", path.display());
        let size = fs::metadata(path).with_context(cannot)?.len();
        anyhow::ensure!(
            size <= SAMPLE_BYTES_MAX,
            "{} has {size} bytes; a sample has at most {SAMPLE_BYTES_MAX}",
            path.display()
        );
        let text = fs::read_to_string(path).with_context(cannot)?;
        let samples: Self = serde_yaml::from_str(&text).with_context(cannot)?;
        Ok(Self {
            folder: path.parent().map(Path::to_owned).unwrap_or_default(),
            ..samples
        })
    }

    /// Plays every case with all rules and counts how often the sample's own is seen.
    pub fn play(&self, rules: &Arc<Ruleset>) -> Vec<Outcome> {
        let Some(rule) = rules.by_id(&self.rule) else {
            return vec![Outcome {
                case: "its rule".to_owned(),
                wrong: Some(format!("no rule with the id {}", self.rule)),
            }];
        };
        let fires = self.fires.iter().map(|case| (case, true));
        let silent = self.silent.iter().map(|case| (case, false));
        fires
            .chain(silent)
            .map(|(case, must_fire)| Outcome {
                case: case.name.clone(),
                wrong: self.judge(rules, rule, case, must_fire),
            })
            .collect()
    }

    fn judge(
        &self,
        rules: &Arc<Ruleset>,
        rule: RuleIndex,
        case: &Case,
        must_fire: bool,
    ) -> Option<String> {
        let found = match (&case.lines, &case.format, &case.pcap) {
            (Some(lines), Some(format), None) => match format.parse() {
                Ok(format) => lines_of(rules, format, lines),
                Err(unknown) => return Some(decode::UnknownFormat::to_string(&unknown)),
            },
            (None, None, Some(pcap)) => packets_of(rules, &self.folder.join(pcap)),
            _ => return Some("a case has `format` and `lines`, or `pcap`".to_owned()),
        };
        let seen = match found {
            Ok(found) => found.iter().filter(|found| found.rule == rule).count(),
            Err(error) => return Some(format!("{error:#}")),
        };
        let times = |count: usize| format!("{count} {}", if count == 1 { "time" } else { "times" });
        match (must_fire, case.alerts) {
            (true, Some(wanted)) if seen != wanted => {
                Some(format!("fires {}, expected {}", times(seen), times(wanted)))
            }
            (true, None) if seen == 0 => Some("does not fire".to_owned()),
            (false, _) if seen > 0 => Some(format!("fires {}, expected silence", times(seen))),
            _ => None,
        }
    }
}

/// Plays lines as one stream; what only counts is in the answer too.
///
/// # Errors
/// When the decoder does not understand a line.
pub fn lines_of(
    rules: &Arc<Ruleset>,
    format: Format,
    lines: &str,
) -> anyhow::Result<Vec<Detection>> {
    let mut player = Player::new(rules);
    let mut decoder = decode::for_format(format, &player.around);
    let file = FileId {
        device: 1,
        inode: 1,
        head: 1,
    };
    let mut offset = 0;
    for line in lines.lines() {
        let record = Record {
            position: Position::Offset { file, offset },
            read_at: READ_AT,
            bytes: Bytes::copy_from_slice(line.as_bytes()),
            cut: false,
        };
        offset += line.len() as u64 + 1;
        player
            .play(&record, decoder.as_mut())
            .context(line.to_owned())?;
    }
    Ok(player.found)
}

/// Plays a recording of packets as one stream.
///
/// # Errors
/// When the recording can't be read.
pub fn packets_of(rules: &Arc<Ruleset>, path: &Path) -> anyhow::Result<Vec<Detection>> {
    let mut player = Player::new(rules);
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let id = pcap::identity(&file, path)?;
    let mut decoder: Option<(LinkType, Box<dyn Decoder>)> = None;
    for packet in pcap::read(path) {
        let packet = packet?;
        let link = packet.link;
        if decoder.as_ref().is_none_or(|(of, _)| *of != link) {
            decoder = Some((
                link,
                decode::for_format(Format::Packet(link), &player.around),
            ));
        }
        if let Some((_, decoder)) = &mut decoder {
            // Of packets, what no decoder knows is ordinary.
            let _ = player.play(&packet.record(id), decoder.as_mut());
        }
    }
    if let Some((_, decoder)) = &mut decoder {
        let end = Record {
            position: Position::Offset {
                file: id,
                offset: u64::MAX,
            },
            read_at: READ_AT,
            bytes: Bytes::new(),
            cut: false,
        };
        player.judge(&end, |fields, emit| {
            decoder.flush(Timestamp::MAX, fields, emit)
        });
    }
    Ok(player.found)
}

struct Player<'r> {
    rules: &'r Arc<Ruleset>,
    scene: Scene,
    around: Surroundings,
    scratch: Scratch,
    correlator: Correlator,
    source: SourceId,
    found: Vec<Detection>,
}

impl<'r> Player<'r> {
    fn new(rules: &'r Arc<Ruleset>) -> Self {
        Self {
            rules,
            // Nothing leaves this: the keys need not be secret, and the same each time is what a test wants.
            scene: Scene {
                secret: HostSecret::new(&[1; 32]),
                masker: Masker::new(&[2; 32]),
                host: "sample".to_owned(),
            },
            around: Surroundings::of(TimeZone::UTC),
            scratch: Scratch::default(),
            correlator: Correlator::new(Limits::default()),
            source: SourceId::new("file:sample"),
            found: Vec::new(),
        }
    }

    fn play(
        &mut self,
        record: &Record,
        decoder: &mut dyn Decoder,
    ) -> Result<(), decode::DecodeError> {
        self.judge(record, |fields, emit| decoder.decode(record, fields, emit))
    }

    fn judge<R>(
        &mut self,
        record: &Record,
        events: impl FnOnce(&Fields, &mut dyn FnMut(&Event<'_>)) -> R,
    ) -> R {
        let (rules, scene) = (self.rules, &self.scene);
        let mut matched = Vec::new();
        let mut number = 0;
        let outcome = events(rules.fields(), &mut |event| {
            let seen = Sighting {
                source: &self.source,
                record,
                event,
                number,
            };
            rules.matches(event, &mut self.scratch, |rule, _| {
                matched.push(scene.detection(rules, rule, &seen));
            });
            number += 1;
        });
        for detection in matched {
            let mut above = Vec::new();
            let now = record.read_at;
            self.correlator
                .observe_all(&detection, &scene.secret, now, &mut above);
            self.found.push(detection);
            self.found.append(&mut above);
        }
        outcome
    }
}
