//! The head of a syslog line: RFC 3164, RFC 5424, the ISO times of rsyslog, and what devices make of them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::decode::reader::{self, Reader};
use crate::decode::{DecodeError, program, time};

/// What stands before the message, and the message. Empty means absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Header<'r> {
    pub time: Option<Timestamp>,
    pub host: &'r [u8],
    pub program: &'r [u8],
    /// The program as the line has it: with its path, with its module.
    pub tag: &'r [u8],
    /// `pam_unix` of `su(pam_unix)[123]:`.
    pub module: Option<&'r [u8]>,
    /// A process id; nearly always decimal.
    pub process: Option<&'r [u8]>,
    pub facility: Option<&'static str>,
    pub severity: Option<&'static str>,
    pub message: &'r [u8],
}

/// RFC 5424 6.2.1, table 1.
const FACILITIES: [&str; 24] = [
    "kern",
    "user",
    "mail",
    "daemon",
    "auth",
    "syslog",
    "lpr",
    "news",
    "uucp",
    "cron",
    "authpriv",
    "ftp",
    "ntp",
    "security",
    "console",
    "solaris-cron",
    "local0",
    "local1",
    "local2",
    "local3",
    "local4",
    "local5",
    "local6",
    "local7",
];

/// RFC 5424 6.2.1, table 2.
const SEVERITIES: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

/// RFC 5424 6: the longest of its names, APP-NAME, has 48 bytes; programs under RFC 3164 do not pass 64 either.
const PROGRAM_BYTES_MAX: usize = 64;

/// RFC 5424 6.2.4.
const HOST_BYTES_MAX: usize = 255;

const HEADER: DecodeError = DecodeError::Foreign {
    what: "a syslog line",
};

impl<'r> Header<'r> {
    /// Reads a line.
    ///
    /// # Errors
    /// `Foreign` when there is neither a priority nor a time at its beginning.
    pub fn read(line: &'r [u8], zone: &TimeZone, read_at: Timestamp) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(line);
        let mut header = Self::default();
        if let Some(time) = time::tai64n(&mut reader) {
            header.time = Some(time);
            reader.spaces();
            header.read_tagged(reader);
            return Ok(header);
        }
        let has_priority = header.read_priority(&mut reader);
        if has_priority && reader.tag(b"1 ") {
            return header.read_5424(reader, zone);
        }
        pass_sequence(&mut reader, has_priority);
        let from = reader;
        header.time = read_time(&mut reader, zone, read_at);
        if header.time.is_none() && has_priority {
            // Network devices may name themselves before the time: `gw1: *Mar  1 …`.
            let mut behind = reader;
            if let Some(host) = behind.word().strip_suffix(b":")
                && let Some(time) = read_time(&mut behind, zone, read_at)
            {
                (header.host, header.time) = (host, Some(time));
                reader = behind;
            }
        }
        if header.time.is_none() {
            // Relays may leave the time out; then the tag comes at once.
            if !has_priority {
                return Err(HEADER);
            }
            header.read_tagged(reader);
            return Ok(header);
        }
        if reader.tag(b":") {
            reader.spaces();
            header.read_tagged(reader);
            return Ok(header);
        }
        if !(reader.tag(b" ") || reader.is_empty()) {
            return Err(HEADER);
        }
        reader.spaces();
        let _ = header.read_level(&mut reader);
        let behind = reader.rest();
        if header.host.is_empty() {
            header.read_host(&mut reader);
        }
        header.read_tagged(reader);
        if !has_priority && is_of_programs(from.rest()) && !header.is_certain() {
            header = Self {
                time: header.time,
                message: behind,
                ..Self::default()
            };
        }
        Ok(header)
    }

    /// Whether what stands behind a time that is not syslog's own still looks like host and tag.
    fn is_certain(&self) -> bool {
        let is_level = [self.host, self.program].iter().any(|word| {
            [
                &b"info"[..],
                b"warn",
                b"warning",
                b"error",
                b"debug",
                b"fatal",
                b"trace",
                b"notice",
                b"critical",
            ]
            .iter()
            .any(|level| level.eq_ignore_ascii_case(word))
        });
        !self.program.is_empty() && !is_level
    }

    /// A daemon's own line without a head.
    pub fn bare((program, message): (&'static [u8], &'r [u8])) -> Self {
        Self {
            program,
            tag: program,
            message,
            ..Self::default()
        }
    }

    /// Whether the tag is a mnemonic such as `%SYS-5-CONFIG_I`.
    pub fn is_network_device(&self) -> bool {
        self.program.first() == Some(&b'%') && self.program.contains(&b'-')
    }

    /// Reads `<PRI>`, RFC 5424 6.2.1: at most 191.
    fn read_priority(&mut self, reader: &mut Reader<'r>) -> bool {
        let mut ahead = *reader;
        if !ahead.tag(b"<") {
            return false;
        }
        let Some(priority) = ahead.digits(1, 3).filter(|&p| p <= 191) else {
            return false;
        };
        if !ahead.tag(b">") {
            return false;
        }
        let priority = priority as usize;
        self.facility = FACILITIES.get(priority / 8).copied();
        self.severity = SEVERITIES.get(priority % 8).copied();
        *reader = ahead;
        true
    }

    /// RFC 5424 6: TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG.
    fn read_5424(mut self, mut reader: Reader<'r>, zone: &TimeZone) -> Result<Self, DecodeError> {
        let malformed = |reader: &Reader<'_>| DecodeError::Malformed {
            what: "RFC 5424 header",
            at: reader.at(),
        };
        if !reader.tag(b"- ") {
            self.time = time::iso(&mut reader, zone);
            if self.time.is_none() || !reader.tag(b" ") {
                return Err(malformed(&reader));
            }
        }
        let nilable = |reader: &mut Reader<'r>| match reader.until(b' ') {
            Some(b"-") => Some(&b""[..]),
            other => other,
        };
        let parts = [(); 4].map(|()| nilable(&mut reader));
        let [Some(host), Some(program), Some(process), Some(_message_id)] = parts else {
            return Err(malformed(&reader));
        };
        self.host = host;
        self.program = bare_name(program);
        self.tag = program;
        self.process = (!process.is_empty()).then_some(process);
        pass_structured_data(&mut reader).ok_or_else(|| malformed(&reader))?;
        let _ = reader.tag(b" ");
        let _ = reader.tag(b"\xef\xbb\xbf");
        self.message = reader.rest();
        Ok(self)
    }

    /// Reads the host, if what stands next is not the tag already.
    fn read_host(&mut self, reader: &mut Reader<'r>) {
        let mut ahead = *reader;
        let word = ahead.word();
        // `sogod [26818]:`, which has no host either.
        let is_spaced_tag = is_process(ahead.word());
        ahead = *reader;
        let _ = ahead.word();
        let is_tag = is_spaced_tag
            || word.ends_with(b":") && !word.ends_with(b"::")
            || word.starts_with(b"[")
            || memchr::memchr(b'[', word).is_some_and(|_| word.ends_with(b"]"));
        if is_tag || word.len() > HOST_BYTES_MAX || program::bare(reader.rest()).is_some() {
            return;
        }
        self.host = word;
        *reader = ahead;
    }

    /// Reads `program(module)[pid]: message`. What has no tag is all message.
    fn read_tagged(&mut self, mut reader: Reader<'r>) {
        let before = reader;
        if self.read_level(&mut reader) {
            return self.read_tagged_once(reader);
        }
        self.read_tagged_once(before);
    }

    /// Reads `auth.info`, as BSD and some relays put between host and tag.
    fn read_level(&mut self, reader: &mut Reader<'r>) -> bool {
        let mut ahead = *reader;
        let word = ahead.word();
        let word = word.strip_suffix(b":").unwrap_or(word);
        let word = word
            .strip_prefix(b"<")
            .and_then(|word| word.strip_suffix(b">"))
            .unwrap_or(word);
        let Some((facility, severity)) = reader::split_byte(word, b'.') else {
            return false;
        };
        let known = |names: &[&'static str], name: &[u8]| {
            names.iter().copied().find(|n| n.as_bytes() == name)
        };
        let (Some(facility), Some(severity)) =
            (known(&FACILITIES, facility), known(&SEVERITIES, severity))
        else {
            return false;
        };
        (self.facility, self.severity) = (Some(facility), Some(severity));
        *reader = ahead;
        true
    }

    fn read_tagged_once(&mut self, mut reader: Reader<'r>) {
        // Firewalls write `host : %ASA-6-302013: …`.
        let _ = reader.tag(b": ");
        self.message = reader.rest();
        if let Some((program, message)) = program::bare(self.message) {
            (self.program, self.tag, self.message) = (program, program, message);
            return;
        }
        // `[sshd]:` of some journals and relays.
        let is_bracketed = reader.tag(b"[");
        let name = reader.while_(|b| !matches!(b, b' ' | b':' | b'[' | b']' | b'('));
        let name = match name {
            b"" if reader.peek() == Some(b'(') => parenthesised(&mut reader),
            name => name,
        };
        if name.is_empty() || name.len() > PROGRAM_BYTES_MAX {
            return;
        }
        let mut is_tag = is_bracketed && reader.tag(b"]");
        let mut module = None;
        if reader.tag(b"(") {
            module = reader.until(b')');
            is_tag |= module.is_some();
        }
        let tag_end = self.message.len() - reader.rest().len();
        let mut process = None;
        let mut ahead = reader;
        if ahead.tag(b" ") && is_process(ahead.word()) {
            let _ = reader.tag(b" ");
        }
        if reader.tag(b"[") {
            process = reader.until(b']');
            is_tag |= process.is_some();
        }
        is_tag |= reader.tag(b":");
        if !is_tag {
            return;
        }
        self.program = bare_name(name);
        self.tag = match is_bracketed {
            true => name,
            false => self.message.get(..tag_end).unwrap_or(name),
        };
        self.module = module;
        self.process = process;
        // `auth(an@example.org,192.0.2.7,sasl:login)<…>: …` is no module: what stands in it is half of the message.
        if module.is_some_and(|module| module.contains(&b',')) {
            (self.tag, self.module) = (name, None);
            return;
        }
        let _ = reader.tag(b" ");
        self.message = reader.rest();
    }
}

/// `[26818]:`
fn is_process(word: &[u8]) -> bool {
    word.strip_prefix(b"[")
        .and_then(|word| word.strip_suffix(b"]:"))
        .is_some_and(|digits| reader::decimal(digits).is_some())
}

/// `(systemd)` and `(sd-pam)` are names of processes too.
fn parenthesised<'r>(reader: &mut Reader<'r>) -> &'r [u8] {
    let mut ahead = *reader;
    let whole = ahead.rest();
    if ahead.until(b')').is_none() {
        return b"";
    }
    let length = whole.len() - ahead.rest().len();
    reader.take(length).unwrap_or_default()
}

/// Network devices number their lines: `123: `.
fn pass_sequence(reader: &mut Reader<'_>, has_priority: bool) {
    let mut ahead = *reader;
    if has_priority && ahead.digits(1, 9).is_some() && ahead.tag(b": ") {
        *reader = ahead;
    }
}

/// A time of any of these kinds. Network devices mark a clock that is not set.
fn read_time(reader: &mut Reader<'_>, zone: &TimeZone, read_at: Timestamp) -> Option<Timestamp> {
    let mut ahead = *reader;
    let _ = ahead.tag(b"*") || ahead.tag(b".");
    pass_weekday(&mut ahead);
    let time = time::bsd(&mut ahead, zone, read_at).or_else(|| time::iso(&mut ahead, zone))?;
    *reader = ahead;
    Some(time)
}

/// Whether a time has the space that programs write into their own files, `2026-03-01 12:34:56`, and no daemon of syslog.
/// What follows it may be a level, a thread or anything.
fn is_of_programs(time: &[u8]) -> bool {
    time.first().is_some_and(u8::is_ascii_digit) && time.get(10) == Some(&b' ')
}

/// C's own text of a time begins with `Mon `.
fn pass_weekday(reader: &mut Reader<'_>) {
    const DAYS: [&[u8]; 7] = [
        b"Mon ", b"Tue ", b"Wed ", b"Thu ", b"Fri ", b"Sat ", b"Sun ",
    ];
    let _ = DAYS.iter().any(|day| reader.tag(day));
}

/// RFC 5424 6.3: `-`, or elements in brackets whose values are quoted, with `\"`, `\\` and `\]` escaped.
fn pass_structured_data(reader: &mut Reader<'_>) -> Option<()> {
    if reader.tag(b"-") {
        return Some(());
    }
    let mut ahead = *reader;
    let mut elements = 0;
    while ahead.tag(b"[") {
        let mut is_quoted = false;
        loop {
            match ahead.u8()? {
                b'"' => is_quoted = !is_quoted,
                b'\\' if is_quoted => {
                    ahead.u8()?;
                }
                b']' if !is_quoted => break,
                _ => {}
            }
        }
        elements += 1;
    }
    if elements == 0 {
        return None;
    }
    *reader = ahead;
    Some(())
}

/// A program that names itself by its path is known by the last part of it.
fn bare_name(name: &[u8]) -> &[u8] {
    match name {
        [b'/', ..] => reader::rsplit_byte(name, b'/')
            .map(|(_, last)| last)
            .filter(|last| !last.is_empty())
            .unwrap_or(name),
        name => name,
    }
}

/// Drops `[ID 800047 auth.info] `, which Solaris puts before a message.
pub fn without_message_id(message: &[u8]) -> &[u8] {
    match message.strip_prefix(b"[ID ") {
        Some(rest) => reader::split(rest, b"] ").map_or(message, |(_, message)| message),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(line: &str) -> String {
        let read_at = "2026-03-10T12:00:00Z".parse().unwrap();
        match Header::read(line.as_bytes(), &TimeZone::UTC, read_at) {
            Err(error) => error.to_string(),
            Ok(header) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                [
                    header.time.map(|time| time.to_string()).unwrap_or_default(),
                    text(header.host),
                    text(header.program),
                    text(header.module.unwrap_or_default()),
                    text(header.process.unwrap_or_default()),
                    [
                        header.facility.unwrap_or_default(),
                        header.severity.unwrap_or_default(),
                    ]
                    .join("."),
                    text(header.message),
                ]
                .join("|")
            }
        }
    }

    #[test]
    fn heads_of_every_kind_are_read() {
        for (line, expected) in [
            (
                "Mar  1 10:00:00 web1 sshd[7]: m",
                "2026-03-01T10:00:00Z|web1|sshd||7|.|m",
            ),
            (
                "<86>Mar  1 10:00:00 web1 sshd[7]: m",
                "2026-03-01T10:00:00Z|web1|sshd||7|authpriv.info|m",
            ),
            (
                "Mar  1 10:00:00 web1 su(pam_unix)[7]: m",
                "2026-03-01T10:00:00Z|web1|su|pam_unix|7|.|m",
            ),
            (
                "Mar  1 10:00:00 web1 kernel: [1.2] m",
                "2026-03-01T10:00:00Z|web1|kernel|||.|[1.2] m",
            ),
            (
                "Mar  1 10:00:00 web1 /usr/sbin/cron[7]: m",
                "2026-03-01T10:00:00Z|web1|cron||7|.|m",
            ),
            (
                "Mar  1 10:00:00 web1 postfix/smtpd[7]: m",
                "2026-03-01T10:00:00Z|web1|postfix/smtpd||7|.|m",
            ),
            (
                "Mar  1 10:00:00 web1 (systemd)[7]: m",
                "2026-03-01T10:00:00Z|web1|(systemd)||7|.|m",
            ),
            (
                "Mar  1 10:00:00 sshd[7]: m",
                "2026-03-01T10:00:00Z||sshd||7|.|m",
            ),
            (
                "Mar  1 10:00:00 [sshd]: m",
                "2026-03-01T10:00:00Z||sshd|||.|m",
            ),
            (
                "Mar  1 10:00:00 web1 auth.info sshd[7]: m",
                "2026-03-01T10:00:00Z|web1|sshd||7|auth.info|m",
            ),
            (
                "Mar  1 10:00:00 <auth.info> web1 sshd[7]: m",
                "2026-03-01T10:00:00Z|web1|sshd||7|auth.info|m",
            ),
            (
                "Mar  1 10:00:00 sogod [7]: m",
                "2026-03-01T10:00:00Z||sogod||7|.|m",
            ),
            (
                "Mar  1 10:00:00 auth(an,192.0.2.7,sasl)<x>: m",
                "2026-03-01T10:00:00Z||auth|||.|auth(an,192.0.2.7,sasl)<x>: m",
            ),
            (
                "@4000000069a40eaa1dcd6500 imap-login: m",
                "2026-03-01T10:02:08.5Z||imap-login|||.|m",
            ),
            (
                "2026-03-01 10:00:00 UTC web1 sshd[7]: m",
                "2026-03-01T10:00:00Z|web1|sshd||7|.|m",
            ),
            (
                "Mar  1 10:00:00 2001:db8::1 sshd[7]: m",
                "2026-03-01T10:00:00Z|2001:db8::1|sshd||7|.|m",
            ),
            (
                "Mar  1 10:00:00 web1 no tag here: m",
                "2026-03-01T10:00:00Z|web1||||.|no tag here: m",
            ),
            (
                "Mar  1 10:00:00 web1 sshd[7] m",
                "2026-03-01T10:00:00Z|web1|sshd||7|.|m",
            ),
            (
                "2026-03-01T10:00:00.5+07:00 web1 sshd[7]: m",
                "2026-03-01T03:00:00.5Z|web1|sshd||7|.|m",
            ),
            (
                "2026-03-01 10:00:00 web1 sshd[7]: m",
                "2026-03-01T10:00:00Z|web1|sshd||7|.|m",
            ),
            (
                "Sun Mar  1 10:00:00 2026 web1 sshd[7]: m",
                "2026-03-01T10:00:00Z|web1|sshd||7|.|m",
            ),
            (
                "*Mar  1 10:00:00.5: %SYS-5-CONFIG_I: m",
                "2026-03-01T10:00:00.5Z||%SYS-5-CONFIG_I|||.|m",
            ),
            (
                "<189>42: gw1: *Mar  1 10:00:00: %A-1-B: m",
                "2026-03-01T10:00:00Z|gw1|%A-1-B|||local7.notice|m",
            ),
            (
                "<189>42: Mar  1 10:00:00 UTC: %A-1-B: m",
                "2026-03-01T10:00:00Z||%A-1-B|||local7.notice|m",
            ),
            (
                "Mar  1 10:00:00 fw1 : %ASA-6-302013: m",
                "2026-03-01T10:00:00Z|fw1|%ASA-6-302013|||.|m",
            ),
            ("<34>su: m", "||su|||auth.crit|m"),
            (
                "2026-03-01 10:00:00,5 INFO [main] m: n",
                "2026-03-01T10:00:00.5Z|||||.|INFO [main] m: n",
            ),
            (
                "2026-03-01 10:00:00 192.0.2.7 GET /x",
                "2026-03-01T10:00:00Z|||||.|192.0.2.7 GET /x",
            ),
            (
                "2026 Mar  1 10:00:00 web1 app: m",
                "2026-03-01T10:00:00Z|web1|app|||.|m",
            ),
            ("Mar  1 10:00:00 web1", "2026-03-01T10:00:00Z|web1||||.|"),
            ("<192>Mar  1 10:00:00 web1 x: m", "not a syslog line"),
            ("no head at all", "not a syslog line"),
            ("", "not a syslog line"),
        ] {
            assert_eq!(show(line), expected, "{line}");
        }
    }

    #[test]
    fn rfc_5424_is_read_with_its_data_passed() {
        for (line, expected) in [
            (
                "<34>1 2026-03-01T10:00:00.003Z web1 su - ID47 - \u{feff}m",
                "2026-03-01T10:00:00.003Z|web1|su|||auth.crit|m",
            ),
            (
                "<165>1 2026-03-01T10:00:00+07:00 web1 app 7 - [a@1 k=\"]\\\"]\" l=\"\"][b@1] m",
                "2026-03-01T03:00:00Z|web1|app||7|local4.notice|m",
            ),
            (
                "<0>1 - - - - - -",
                "||||||kern.emerg|".replacen("||", "|", 1).as_str(),
            ),
            (
                "<34>1 2026-03-01T10:00:00Z web1 su - - [a",
                "malformed RFC 5424 header at byte 39",
            ),
            (
                "<34>1 2026-03-01T10:00:00Z web1",
                "malformed RFC 5424 header at byte 27",
            ),
            (
                "<34>1 yesterday web1 su - - - m",
                "malformed RFC 5424 header at byte 6",
            ),
        ] {
            assert_eq!(show(line), expected, "{line}");
        }
    }
}
