//! Lines of syslog, as daemons, relays and network devices write them. The header is read here, what one program
//! writes behind it in `program`. Does not listen on a network.

pub mod header;

use std::borrow::Cow;

use bytes::Bytes;
use jiff::tz::TimeZone;

use crate::decode::program::{self, Line, Memory};
use crate::decode::reader::{self, Reader};
use crate::decode::syslog::header::Header;
use crate::decode::web::access;
use crate::decode::{DecodeError, Lines, Surroundings, mark, text, time};
use crate::event::Event;
use crate::event::field::{self, Fields};
use crate::event::logsource::LogSources;
use crate::record::Record;

/// The most that `message repeated N times` may claim: a forged line must not outweigh a day of real ones.
const REPEAT_MAX: u32 = 100_000;

/// Reads one stream of syslog lines.
pub struct Syslog {
    zone: TimeZone,
    memory: Memory,
    /// The line before this one, which `last message repeated N times` means. A clone of `Bytes` is a counter.
    last: Option<Bytes>,
}

impl Syslog {
    pub fn new(around: &Surroundings) -> Self {
        Self {
            zone: around.zone.clone(),
            memory: Memory::default(),
            last: None,
        }
    }

    fn emit_line(
        &mut self,
        record: &Record,
        header: &Header<'_>,
        emit: &mut dyn FnMut(&Event<'_>),
    ) {
        let mut event = Event::new(&record.bytes);
        event.time = header.time;
        mark(record, &mut event);
        let (message, repeat) = match repeated_within(header.message) {
            Some((inner, count)) => (inner, count),
            None => (header.message, 1),
        };
        set_repeat(&mut event, repeat);
        self.fill(header, message, &mut event);
        emit(&event);
        self.last = Some(record.bytes.clone());
    }

    /// Emits the line before once more, with the count and the time of this one.
    fn emit_last_again(
        &mut self,
        record: &Record,
        header: &Header<'_>,
        count: u32,
        emit: &mut dyn FnMut(&Event<'_>),
    ) {
        let last = self.last.clone();
        let before = last.as_deref().and_then(|line| {
            Header::read(text(line), &self.zone, record.read_at)
                .ok()
                .filter(|before| before.host == header.host)
                .map(|before| (line, before))
        });
        let Some((raw, before)) = before else {
            let mut event = Event::new(&record.bytes);
            event.time = header.time;
            mark(record, &mut event);
            self.fill(header, header.message, &mut event);
            emit(&event);
            return;
        };
        let mut event = Event::new(raw);
        event.time = header.time;
        mark(record, &mut event);
        set_repeat(&mut event, count);
        let message = repeated_within(before.message).map_or(before.message, |(inner, _)| inner);
        self.fill(&before, message, &mut event);
        emit(&event);
    }

    fn fill<'r>(&mut self, header: &Header<'r>, message: &'r [u8], event: &mut Event<'r>) {
        header.set(event);
        if !message.is_empty() {
            event.set(field::MESSAGE, message);
        }
        let message = header::without_message_id(message);
        if access::speaks_for(header.program) && access::set(message, event).is_ok() {
            event.logsources = access::logsources();
            event.logsources.services.push(Cow::Borrowed("syslog"));
            return;
        }
        let line = Line {
            program: header.program,
            module: header.module,
            process: header.process,
            host: header.host,
            message,
        };
        let found = program::read(&line, &mut self.memory, event);
        event.logsources = logsources(header, &found);
    }
}

impl Lines for Syslog {
    fn attempt(
        &mut self,
        record: &Record,
        _fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let header = match Header::read(text(&record.bytes), &self.zone, record.read_at) {
            Ok(header) => header,
            // Supervisors such as runit keep a daemon's own lines, without a header of syslog's.
            Err(error) => {
                let line = text(&record.bytes);
                let own = program::bare(line).or_else(|| program::own_file(line));
                Header {
                    time: time::leading(line, &self.zone, record.read_at),
                    ..own.map(Header::bare).ok_or(error)?
                }
            }
        };
        match repeated_last(header.message) {
            Some(count) => self.emit_last_again(record, &header, count, emit),
            None => self.emit_line(record, &header, emit),
        }
        Ok(())
    }

    fn logsources<'r>(&self) -> LogSources<'r> {
        LogSources::of(Some("linux"), &[], &["syslog"])
    }
}

fn set_repeat(event: &mut Event<'_>, count: u32) {
    if count > 1 {
        event.repeat = count;
        event.set(field::REPEAT_COUNT, i64::from(count));
    }
}

/// `message repeated N times: [ … ]`, as rsyslog writes it: the program is that of the message.
fn repeated_within(message: &[u8]) -> Option<(&[u8], u32)> {
    let mut reader = Reader::new(message);
    reader.tag(b"message repeated ").then_some(())?;
    let count = reader.digits(1, 9)?;
    reader.tag(b" times: [").then_some(())?;
    reader.spaces();
    let inner = reader.rest().trim_ascii_end().strip_suffix(b"]")?;
    Some((inner.trim_ascii_end(), count.clamp(1, REPEAT_MAX)))
}

/// `last message repeated N times`, as older daemons write it.
fn repeated_last(message: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(message);
    if !reader.tag(b"last message repeated ") {
        return None;
    }
    let count = reader.digits(1, 9)?;
    let ended = reader.tag(b" times") || reader.tag(b" time");
    ended.then_some(count.clamp(1, REPEAT_MAX))
}

/// Every line is of `syslog`, and of its program by Sigma's name for it; what facility, program or content makes a
/// matter of authentication is also of `auth`.
fn logsources<'r>(header: &Header<'r>, found: &program::Found) -> LogSources<'r> {
    let product = if header.is_network_device() {
        "cisco"
    } else {
        "linux"
    };
    let mut sources = LogSources::of(Some(product), &[], &["syslog"]);
    let name = program::service(header.program);
    let is_auth = found.is_authentication
        || matches!(header.facility, Some("auth" | "authpriv"))
        || program::is_authentication(name);
    if found.is_firewall {
        sources.categories.push(Cow::Borrowed("firewall"));
    }
    if is_auth && name != b"auth" {
        sources.services.push(Cow::Borrowed("auth"));
    }
    match std::str::from_utf8(name) {
        Ok("" | "syslog") | Err(_) => {}
        Ok(name) => sources.services.push(Cow::Borrowed(name)),
    }
    sources
}

impl<'r> Header<'r> {
    fn set(&self, event: &mut Event<'r>) {
        if !self.host.is_empty() {
            event.set(field::COMPUTER, self.host);
        }
        if !self.program.is_empty() {
            event.set(field::PROGRAM, self.program);
        }
        // Both: rules name the program, people know the tag.
        if self.tag != self.program {
            event.set(field::PROGRAM, self.tag);
        }
        if let Some(process) = self.process {
            match reader::decimal(process).and_then(|number| i64::try_from(number).ok()) {
                Some(number) => event.set(field::PROCESS_ID, number),
                None => event.set(field::PROCESS_ID, process),
            }
        }
        if let Some(facility) = self.facility {
            event.set(field::FACILITY, facility);
        }
        if let Some(severity) = self.severity {
            event.set(field::SEVERITY, severity);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::tests::{around, decoded, one, record};
    use crate::decode::{Format, for_format};
    use crate::event::field::Unknown;

    #[test]
    fn a_line_belongs_to_syslog_its_program_and_auth() {
        for (tag, sources) in [
            ("sshd[7]", "linux//syslog,auth,sshd"),
            ("sshd-session[7]", "linux//syslog,auth,sshd"),
            ("sudo", "linux//syslog,auth,sudo"),
            ("CRON[7]", "linux//syslog,cron"),
            ("clamd[7]", "linux//syslog,clamav"),
            ("guacd[7]", "linux//syslog,guacamole"),
            ("useradd[7]", "linux//syslog,auth,useradd"),
            ("dovecot(pam_unix)[7]", "linux//syslog,auth,dovecot"),
            ("app", "linux//syslog,app"),
            ("%SYS-5-CONFIG_I", "cisco//syslog,%SYS-5-CONFIG_I"),
        ] {
            let (seen, _) = one(Format::Syslog, format!("Mar  1 10:00:00 web1 {tag}: m"));
            assert_eq!(seen.sources, sources, "{tag}");
        }
        let (seen, _) = one(Format::Syslog, "<86>Mar  1 10:00:00 web1 app: m");
        assert_eq!(seen.sources, "linux//syslog,auth,app");
    }

    #[test]
    fn a_repeated_message_is_an_event_that_counts_as_many() {
        let line = "Mar  1 10:00:00 web1 sshd[7]: message repeated 3 times: [ Failed password for root from 192.0.2.7 port 51 ssh2]";
        let (seen, _) = one(Format::Syslog, line);
        assert_eq!((seen.repeat, seen.first("RepeatCount")), (3, Some("3")));
        assert_eq!(seen.first("SourceIp"), Some("192.0.2.7"));
        assert_eq!(
            seen.first("Message"),
            Some("Failed password for root from 192.0.2.7 port 51 ssh2")
        );
        for (count, repeat) in [
            ("0", 1),
            ("999999999", super::REPEAT_MAX),
            ("99999999999", 1),
        ] {
            let line = format!("Mar  1 10:00:00 web1 app: message repeated {count} times: [ m]");
            assert_eq!(one(Format::Syslog, line).0.repeat, repeat, "{count}");
        }
    }

    #[test]
    fn the_last_message_is_repeated_with_its_own_fields() {
        let mut decoder = for_format(Format::Syslog, &around());
        let first = record(
            "Mar  1 10:00:00 web1 login[7]: FAILED LOGIN 1 FROM 192.0.2.7 FOR an, Authentication failure",
        );
        let (_, outcome) = decoded(&mut *decoder, &first, Unknown::Drop);
        assert_eq!(outcome, Ok(()));
        let again = record("Mar  1 10:00:30 web1 last message repeated 4 times");
        let (seen, outcome) = decoded(&mut *decoder, &again, Unknown::Drop);
        assert_eq!((outcome, seen.len(), seen[0].repeat), (Ok(()), 1, 4));
        assert_eq!(seen[0].first("SourceIp"), Some("192.0.2.7"));
        assert_eq!(seen[0].time, Some("2026-03-01T10:00:30Z".parse().unwrap()));
        assert_eq!(seen[0].raw, &first.bytes[..]);
        let elsewhere = record("Mar  1 10:00:30 web2 last message repeated 4 times");
        let (seen, _) = decoded(&mut *decoder, &elsewhere, Unknown::Drop);
        assert_eq!((seen[0].repeat, seen[0].first("SourceIp")), (1, None));
    }

    #[test]
    fn access_lines_sent_by_syslog_are_web_events() {
        let line = "<190>Mar  1 10:00:00 web1 nginx: 192.0.2.7 - - [01/Mar/2026:10:00:00 +0000] \"GET /x HTTP/1.1\" 404 1 \"-\" \"y\"";
        let (seen, _) = one(Format::Syslog, line);
        assert_eq!(seen.sources, "/webserver/nginx,apache,syslog");
        assert_eq!(
            (seen.first("cs-uri-stem"), seen.first("Computer")),
            (Some("/x"), Some("web1"))
        );
    }
}
