//! Records to events: each format reads the bytes of one record and borrows from them. No IO, no clock: the time a
//! record was read comes with it. What a decoder can't read is an event all the same, so that keyword rules see it.

pub mod reader;
pub mod time;
pub mod syslog;
pub mod program;
pub mod web;
pub mod json;
pub mod windows;
pub mod audit;
pub mod net;

#[cfg(test)]
mod tests;

use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use thiserror::Error;

use crate::decode::audit::Audit;
use crate::decode::audit::process::Lookup;
use crate::decode::json::Json;
use crate::decode::syslog::Syslog;
use crate::decode::web::access::Access;
use crate::event::field::{self, Fields};
use crate::event::logsource::LogSources;
use crate::event::{Event, Value};
use crate::record::{Range, Record};

/// The link layer of captured packets, as pcap numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

/// How the records of a stream are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Recognised record by record, by content.
    #[default]
    Auto,
    Json,
    Syslog,
    Access,
    /// The kernel's audit trail.
    Audit,
    /// Set by sources that read packets, never by a person.
    #[serde(skip)]
    Packet(LinkType),
}

impl Format {
    /// Returns the names that people may write.
    pub fn names() -> &'static [&'static str] {
        &["auto", "json", "syslog", "access", "audit"]
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown format `{found}`, expected one of {}", Format::names().join(", "))]
pub struct UnknownFormat {
    pub found: String,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        match name {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "syslog" => Ok(Self::Syslog),
            "access" => Ok(Self::Access),
            "audit" => Ok(Self::Audit),
            _ => Err(UnknownFormat { found: name.into() }),
        }
    }
}

/// Why a record was not understood. `at` counts bytes from the record's beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("not {what}")]
    Foreign { what: &'static str },
    #[error("malformed {what} at byte {at}")]
    Malformed { what: &'static str, at: usize },
    #[error("truncated {what}: need {need} bytes, have {have}")]
    Truncated {
        what: &'static str,
        need: usize,
        have: usize,
    },
    #[error("{what} nested deeper than {limit}")]
    TooDeep { what: &'static str, limit: usize },
}

/// Reads the records of one stream, in their order.
pub trait Decoder: Send {
    /// Calls `emit` for each event of the record, at least once.
    ///
    /// # Errors
    /// When the record was not understood; it was emitted all the same, with its raw bytes.
    fn decode(
        &mut self,
        record: &Record,
        fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError>;

    /// Emits what was held back too long by the reader's clock, and all of it at the end of what can be read
    /// (`now` is then [`Timestamp::MAX`]).
    fn flush(&mut self, now: Timestamp, fields: &Fields, emit: &mut dyn FnMut(&Event<'_>)) {
        let _ = (now, fields, emit);
    }

    /// Returns what would have to be read again after a kill.
    fn held(&self) -> &[Range] {
        &[]
    }
}

/// What a decoder must know of the machine it runs on.
#[derive(Clone)]
pub struct Surroundings {
    /// For times that are written without a zone.
    pub zone: TimeZone,
    /// Asks the system for a running process; `None` where records are not of this system, or old.
    pub processes: Option<Lookup>,
}

impl Surroundings {
    /// Those of records that say nothing of the machine they are read on.
    pub fn of(zone: TimeZone) -> Self {
        Self {
            zone,
            processes: None,
        }
    }
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Surroundings").field(&self.zone).finish()
    }
}

/// Makes the decoder of one stream.
pub fn for_format(format: Format, around: &Surroundings) -> Box<dyn Decoder> {
    match format {
        Format::Auto => Box::new(Auto::new(around)),
        Format::Json => Box::new(Whole(Json::new(around))),
        Format::Syslog => Box::new(Whole(Syslog::new(around))),
        Format::Access => Box::new(Whole(Access)),
        Format::Audit => Box::new(Audit::new(around)),
        Format::Packet(link) => net::decoder(link),
    }
}

/// A format of lines: one that can say "not mine" before anything was emitted.
trait Lines: Send {
    /// Emits the record's event, or says why it can't and emits nothing.
    fn attempt(
        &mut self,
        record: &Record,
        fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError>;

    /// The log source of a record that was not understood.
    fn logsources<'r>(&self) -> LogSources<'r>;
}

/// A stream of one known format.
struct Whole<L>(L);

impl<L: Lines> Decoder for Whole<L> {
    fn decode(
        &mut self,
        record: &Record,
        fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let outcome = self.0.attempt(record, fields, emit);
        if outcome.is_err() {
            emit(&unread(record, self.0.logsources()));
        }
        outcome
    }
}

/// Tries the format that read the last record first, then the others: streams seldom change.
struct Auto {
    json: Json,
    syslog: Syslog,
    access: Access,
    last: Format,
}

impl Auto {
    fn new(around: &Surroundings) -> Self {
        Self {
            json: Json::new(around),
            syslog: Syslog::new(around),
            access: Access,
            last: Format::Auto,
        }
    }

    fn format(&mut self, format: Format) -> Option<&mut dyn Lines> {
        match format {
            Format::Json => Some(&mut self.json),
            Format::Syslog => Some(&mut self.syslog),
            Format::Access => Some(&mut self.access),
            Format::Auto | Format::Audit | Format::Packet(_) => None,
        }
    }
}

impl Decoder for Auto {
    fn decode(
        &mut self,
        record: &Record,
        fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let last = self.last;
        // Strictest first: a line of JSON is never an access line, and an access line could pass for a bare program line.
        let others = [Format::Json, Format::Access, Format::Syslog];
        let order = std::iter::once(last).chain(others.into_iter().filter(|&f| f != last));
        let mut error = None;
        for format in order {
            let Some(lines) = self.format(format) else {
                continue;
            };
            match lines.attempt(record, fields, emit) {
                Ok(()) => {
                    self.last = format;
                    return Ok(());
                }
                // A record that is JSON, but broken, says more than three times "not mine".
                Err(found @ (DecodeError::TooDeep { .. } | DecodeError::Malformed { .. })) => {
                    error = Some(found);
                }
                Err(_) => {}
            }
        }
        let logsources = match self.format(last) {
            Some(lines) => lines.logsources(),
            None => LogSources::of(Some("linux"), &[], &[]),
        };
        emit(&unread(record, logsources));
        Err(error.unwrap_or(DecodeError::Foreign {
            what: "JSON, syslog or an access log",
        }))
    }
}

/// A record that no decoder understood, for the rules that search its raw bytes.
fn unread<'r>(record: &'r Record, logsources: LogSources<'r>) -> Event<'r> {
    let mut event = Event::new(&record.bytes);
    event.logsources = logsources;
    mark(record, &mut event);
    event
}

/// Says in `DecodeMarks` what is odd about a record.
fn mark(record: &Record, event: &mut Event<'_>) {
    let mut add = |name: &'static str| event.set(field::DECODE_MARKS, name);
    if record.cut {
        add("cut");
    }
    let line = text(&record.bytes);
    // One pass without branches, which the compiler makes wide: nearly every line ends here.
    let plain = line.iter().fold(true, |plain, &b| {
        plain & ((0x20..0x7f).contains(&b) | (b == b'\t'))
    });
    if plain {
        return;
    }
    if std::str::from_utf8(line).is_err() {
        add("not-utf8");
    }
    if memchr::memchr(0, line).is_some() {
        add("nul");
    }
    if line.iter().any(|&b| is_control(b)) {
        add("control");
    }
}

/// Carriage returns within a line and escape codes are what hides text on a terminal.
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t' && byte != 0) || byte == 0x7f
}

/// A record without the carriage return of a line end that two systems disagree on.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// Puts a value that may be an address where addresses stand, and a name where names stand.
fn set_source<'r>(event: &mut Event<'r>, host: &'r [u8]) {
    match reader::address(host) {
        Some(address) => event.set(field::SOURCE_IP, Value::Ip(address)),
        None if host.is_empty() => {}
        None => event.set(field::SOURCE_HOSTNAME, host),
    }
}
