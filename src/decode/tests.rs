//! What all formats share: recognition, odd input, speed of panicking (never), and the corpora.

mod corpora;
mod hostile;

use std::fmt::Write;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;
use crate::event::field::Unknown;
use crate::record::Position;

/// Shows the fields that `fill` sets, in their order.
pub fn shown<'r>(fill: impl FnOnce(&mut Event<'r>)) -> String {
    let mut event = Event::new(b"");
    fill(&mut event);
    listed(&event, &Fields::default())
}

/// `Name=value` of each field, in the order they were set.
pub fn listed(event: &Event<'_>, fields: &Fields) -> String {
    let mut line = String::new();
    for (id, value) in event.iter() {
        let _ = write!(line, "{}={} ", fields.name(id), value.lossy());
    }
    for (name, value) in event.others() {
        let _ = write!(line, "{name}={} ", value.lossy());
    }
    line.truncate(line.trim_end_matches(' ').len());
    line
}

pub fn record(line: impl AsRef<[u8]>) -> Record {
    Record {
        position: Position::Counter {
            start: 0,
            number: 0,
        },
        read_at: "2026-03-10T12:00:00Z".parse().unwrap(),
        bytes: Bytes::copy_from_slice(line.as_ref()),
        cut: false,
    }
}

pub fn around() -> Surroundings {
    Surroundings::of(TimeZone::UTC)
}

/// An event, with nothing borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub time: Option<Timestamp>,
    pub fields: String,
    pub sources: String,
    pub repeat: u32,
    pub raw: Vec<u8>,
    pub values: Vec<(String, String)>,
}

impl Seen {
    pub fn first(&self, name: &str) -> Option<&str> {
        let found = self.values.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Decodes one record after the other and keeps what was emitted.
pub fn decoded(
    decoder: &mut dyn Decoder,
    record: &Record,
    unknown: Unknown,
) -> (Vec<Seen>, Result<(), DecodeError>) {
    let mut fields = Fields::default();
    fields.unknown = unknown;
    let mut seen = Vec::new();
    let outcome = decoder.decode(record, &fields, &mut |event| {
        let own = event
            .iter()
            .map(|(id, value)| (fields.name(id).to_owned(), value.lossy()));
        let others = event
            .others()
            .map(|(name, value)| (name.to_owned(), value.lossy()));
        seen.push(Seen {
            time: event.time,
            fields: listed(event, &fields),
            sources: format!(
                "{}/{}/{}",
                event.logsources.product.as_deref().unwrap_or(""),
                event.logsources.categories.join(","),
                event.logsources.services.join(",")
            ),
            repeat: event.repeat,
            raw: event.raw.to_vec(),
            values: own.chain(others).collect(),
        });
    });
    (seen, outcome)
}

/// Decodes one line that makes one event.
pub fn one(format: Format, line: impl AsRef<[u8]>) -> (Seen, Result<(), DecodeError>) {
    let mut decoder = for_format(format, &around());
    let (mut seen, outcome) = decoded(&mut *decoder, &record(line), Unknown::Keep);
    assert_eq!(seen.len(), 1, "one line is one event");
    (seen.remove(0), outcome)
}

#[test]
fn auto_knows_each_format_by_its_content() {
    let mut decoder = for_format(Format::Auto, &around());
    for (line, sources) in [
        ("{\"_ls\":{\"product\":\"aws\"},\"a\":1}", "aws//"),
        (
            "Mar  1 10:00:00 web1 sshd[1]: Server listening on :: port 22.",
            "linux//syslog,auth,sshd",
        ),
        (
            "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET / HTTP/1.1\" 200 1 \"-\" \"x\"",
            "/webserver/nginx,apache",
        ),
        (
            "<34>1 2026-03-01T10:00:00Z web1 cron 7 - - (root) CMD (x)",
            "linux//syslog,auth,cron",
        ),
        (
            "2026-03-01T10:00:00.5+07:00 web1 kernel: oops",
            "linux//syslog,kernel",
        ),
    ] {
        let (seen, outcome) = decoded(&mut *decoder, &record(line), Unknown::Drop);
        assert_eq!(outcome, Ok(()), "{line}");
        assert_eq!(seen[0].sources, sources, "{line}");
    }
}

#[test]
fn what_no_decoder_knows_is_an_event_of_the_last_known_kind() {
    let mut decoder = for_format(Format::Auto, &around());
    let strange = record("\tat org.example.Main.run(Main.java:7)");
    let (seen, outcome) = decoded(&mut *decoder, &strange, Unknown::Drop);
    assert!(outcome.is_err());
    assert_eq!((seen.len(), &*seen[0].sources), (1, "linux//"));
    assert_eq!(seen[0].raw, &strange.bytes[..]);
    let access = "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET / HTTP/1.1\" 200 1";
    assert_eq!(
        decoded(&mut *decoder, &record(access), Unknown::Drop).1,
        Ok(())
    );
    let (seen, outcome) = decoded(&mut *decoder, &strange, Unknown::Drop);
    assert!(outcome.is_err());
    assert_eq!(seen[0].sources, "/webserver/nginx,apache");
}

#[test]
fn odd_bytes_are_marked_and_never_lose_the_event() {
    let head = b"Mar  1 10:00:00 web1 app[1]: ";
    for (tail, marks) in [
        (&b"plain\ttext"[..], ""),
        (b"windows line end\r", ""),
        ("chữ Việt".as_bytes(), ""),
        (b"in the \r middle", "control"),
        (b"\x1b[31mred", "control"),
        (b"nul \0 byte", "nul"),
        (b"\xff\xfe", "not-utf8"),
        (b"\xff\0\x1b", "not-utf8 nul control"),
    ] {
        for format in [Format::Auto, Format::Syslog, Format::Json, Format::Access] {
            let line = [&head[..], tail].concat();
            let (seen, _) = one(format, &line);
            let found: Vec<_> = seen
                .values
                .iter()
                .filter(|(name, _)| name == "DecodeMarks")
                .map(|(_, mark)| mark.as_str())
                .collect();
            assert_eq!(found.join(" "), marks, "{tail:?} as {format:?}");
            assert_eq!(seen.raw, line);
        }
    }
}

#[test]
fn a_cut_record_says_so() {
    let mut cut = record("Mar  1 10:00:00 web1 app[1]: and then");
    cut.cut = true;
    let mut decoder = for_format(Format::Syslog, &around());
    let (seen, outcome) = decoded(&mut *decoder, &cut, Unknown::Drop);
    assert_eq!(
        (outcome, seen[0].first("DecodeMarks")),
        (Ok(()), Some("cut"))
    );
}

#[test]
fn formats_are_named_in_lower_case() {
    for name in Format::names() {
        assert!(name.parse::<Format>().is_ok(), "{name}");
        assert!(serde_yaml::from_str::<Format>(name).is_ok(), "{name}");
    }
    let error = "xml".parse::<Format>().unwrap_err().to_string();
    assert_eq!(
        error,
        "unknown format `xml`, expected one of auto, json, syslog, access, audit"
    );
    assert!(serde_yaml::from_str::<Format>("packet").is_err());
}
