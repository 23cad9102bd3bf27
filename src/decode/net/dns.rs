//! Reads one DNS message (RFC 1035): the first question and the answers' texts. Follows no transaction, verifies no
//! DNSSEC, and reads neither updates nor notifications.

pub mod stream;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decode::DecodeError;
use crate::event::field;
use crate::event::field::network;
use crate::event::{Event, Value};
use smallvec::SmallVec;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub id: u16,
    /// The header's, RFC 1035 4.1.1.
    pub flags: u16,
    pub kind: Kind,
    pub question: Question,
    /// Of kinds that have a text; at most `ANSWERS_MAX`.
    pub answers: SmallVec<[Answer; 2]>,
    /// Where reading the answers ended early.
    pub fault: Option<DecodeError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Query,
    /// With its RCODE, RFC 1035 4.1.1.
    Response(u8),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub name: Name,
    /// QTYPE.
    pub of: u16,
    /// QCLASS.
    pub class: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Address(IpAddr),
    Name(Name),
    /// The strings of a TXT record, joined; escaped as names are, but for spaces and dots.
    Text(String),
}

/// A name, lower case, without the final dot; `.` is the root. Bytes that are not printable ASCII stand as `\DDD`,
/// and a dot or backslash within a label has a backslash before it (RFC 4343 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    /// Bytes of the labels and the dots between them: the text's length before anything was escaped.
    pub length: usize,
}

pub const PORT: u16 = 53;

/// More texts than a rule looks at; a reply of 64 KiB could hold 4,000.
pub const ANSWERS_MAX: usize = 32;
/// A TXT record may have 64 KiB; what tells a tunnel stands in its beginning.
const TEXT_BYTES_MAX: usize = 1024;
/// RFC 1035 3.1: with the length bytes and the root.
const NAME_BYTES_MAX: usize = 255;
const HEADER_BYTES: usize = 12;
/// Each useful pointer follows a label, and a name has at most 127.
const POINTERS_MAX: usize = 127;
/// RFC 9619: exactly one; a few more are stepped over to reach the answers.
const QUESTIONS_MAX: u16 = 8;

const REFUSED: u8 = 5;

const A: u16 = 1;
const NS: u16 = 2;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;

/// The IANA registry's names of what is asked for.
const TYPES: &[(u16, &str)] = &[
    (A, "A"),
    (NS, "NS"),
    (CNAME, "CNAME"),
    (6, "SOA"),
    (10, "NULL"),
    (PTR, "PTR"),
    (13, "HINFO"),
    (MX, "MX"),
    (TXT, "TXT"),
    (25, "KEY"),
    (AAAA, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (41, "OPT"),
    (43, "DS"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (50, "NSEC3"),
    (52, "TLSA"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (255, "ANY"),
    (257, "CAA"),
];

const RCODES: [&str; 12] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "DSOTYPENI",
];

impl Message {
    /// Reads a message; `None`: it is one without a question, or of a kind that asks none.
    ///
    /// # Errors
    /// What is wrong in the header or the question; places count from the message's beginning.
    /// A fault in the answers is in the message, beside those before it.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader { bytes, at: 0 };
        let id = reader.number("DNS header")?;
        let flags = reader.number("DNS header")?;
        let questions = reader.number("DNS header")?;
        let answers = reader.number("DNS header")?;
        reader.skip(4, "DNS header")?;
        let opcode = flags >> 11 & 0x0f;
        if opcode != 0 || questions == 0 {
            return Ok(None);
        }
        let question = reader.question()?;
        let mut message = Self {
            id,
            flags,
            kind: match flags >> 15 {
                0 => Kind::Query,
                _ => Kind::Response((flags & 0x0f) as u8),
            },
            question,
            answers: SmallVec::new(),
            fault: None,
        };
        if let Kind::Response(_) = message.kind {
            message.fault = reader
                .answers(questions, answers, &mut message.answers)
                .err();
        }
        Ok(Some(message))
    }

    pub fn set(self, event: &mut Event<'_>) {
        let Question { name, of, class } = self.question;
        event.set(field::DNS_QUERY, name.text.clone());
        event.set(field::QUERY_NAME, name.text);
        event.set(field::QUERY_LENGTH, name.length as i64);
        let type_text = type_name(of).into_owned();
        event.set(field::RECORD_TYPE, type_text.clone());
        event.set(field::QTYPE_NAME, type_text);
        event.set(network::QCLASS_NAME, class_name(class));
        event.set(network::TRANS_ID, self.id);
        for (id, bit) in [
            (network::DNS_AA, 10),
            (network::DNS_TC, 9),
            (network::DNS_RD, 8),
            (network::DNS_RA, 7),
        ] {
            event.set(id, self.flags >> bit & 1 == 1);
        }
        event.set(network::DNS_Z, self.flags >> 4 & 7);
        if let Kind::Response(code) = self.kind {
            let code_text = rcode_name(code).into_owned();
            event.set(field::DNS_RCODE, code_text.clone());
            event.set(network::RCODE_NAME, code_text);
            event.set(network::REJECTED, code == REFUSED);
        }
        for answer in self.answers {
            let value = match answer {
                Answer::Address(address) => Value::Ip(address),
                Answer::Name(name) => name.text.into(),
                Answer::Text(text) => text.into(),
            };
            event.set(field::ZEEK_ANSWERS, value.clone());
            event.set(network::QUERY_RESULTS, value.clone());
            event.set(field::DNS_ANSWER, value);
        }
    }
}

fn class_name(class: u16) -> Cow<'static, [u8]> {
    // RFC 6762 5.4: the highest bit asks for an answer to one.
    match class & 0x7fff {
        1 => Cow::Borrowed(b"C_INTERNET"),
        3 => Cow::Borrowed(b"C_CHAOS"),
        4 => Cow::Borrowed(b"C_HESIOD"),
        255 => Cow::Borrowed(b"C_ANY"),
        other => Cow::Owned(format!("qclass-{other}").into_bytes()),
    }
}

/// Returns the registry's name, else `TYPE123` (RFC 3597 5).
pub fn type_name(of: u16) -> Cow<'static, str> {
    match TYPES.iter().find(|(number, _)| *number == of) {
        Some((_, name)) => Cow::Borrowed(name),
        None => Cow::Owned(format!("TYPE{of}")),
    }
}

pub fn rcode_name(code: u8) -> Cow<'static, str> {
    match RCODES.get(usize::from(code)) {
        Some(name) => Cow::Borrowed(name),
        None => Cow::Owned(format!("RCODE{code}")),
    }
}

struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl<'m> Reader<'m> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'m [u8], DecodeError> {
        let taken = self
            .at
            .checked_add(count)
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or(DecodeError::Truncated {
                what,
                need: count,
                have: self.bytes.len().saturating_sub(self.at),
            })?;
        self.at += count;
        Ok(taken)
    }

    fn skip(&mut self, count: usize, what: &'static str) -> Result<(), DecodeError> {
        self.take(count, what).map(|_| ())
    }

    fn number(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let mut number = 0;
        for &byte in self.take(2, what)? {
            number = number << 8 | u16::from(byte);
        }
        Ok(number)
    }

    fn question(&mut self) -> Result<Question, DecodeError> {
        let name = self.name()?;
        let of = self.number("DNS question")?;
        let class = self.number("DNS question")?;
        Ok(Question { name, of, class })
    }

    fn answers(
        &mut self,
        questions: u16,
        count: u16,
        out: &mut SmallVec<[Answer; 2]>,
    ) -> Result<(), DecodeError> {
        if questions > QUESTIONS_MAX {
            return Err(DecodeError::Malformed {
                what: "number of DNS questions",
                at: 4,
            });
        }
        for _ in 1..questions {
            self.skip_name()?;
            self.skip(4, "DNS question")?;
        }
        for _ in 0..count {
            if out.len() == ANSWERS_MAX {
                return Ok(());
            }
            self.skip_name()?;
            let of = self.number("DNS answer")?;
            self.skip(6, "DNS answer")?; // class, time to live
            let length = self.number("DNS answer")?;
            let start = self.at;
            let data = self.take(length.into(), "DNS answer")?;
            let end = self.at;
            out.extend(self.answer(of, start, data)?);
            self.at = end;
        }
        Ok(())
    }

    /// A name in the data may point to names before it, so it is read within the message, from `start`.
    fn answer(
        &mut self,
        of: u16,
        start: usize,
        data: &[u8],
    ) -> Result<Option<Answer>, DecodeError> {
        const WHAT: &str = "data of a DNS answer";
        let malformed = DecodeError::Malformed {
            what: WHAT,
            at: start,
        };
        Ok(Some(match of {
            A => {
                let octets: [u8; 4] = data.try_into().map_err(|_| malformed)?;
                Answer::Address(Ipv4Addr::from(octets).into())
            }
            AAAA => {
                let octets: [u8; 16] = data.try_into().map_err(|_| malformed)?;
                Answer::Address(Ipv6Addr::from(octets).into())
            }
            CNAME | NS | PTR => {
                self.at = start;
                Answer::Name(self.name()?)
            }
            MX => {
                self.at = start;
                self.skip(2, WHAT)?; // preference
                Answer::Name(self.name()?)
            }
            TXT => Answer::Text(strings(data).ok_or(malformed)?),
            _ => return Ok(None),
        }))
    }

    /// Reads a name and steps behind it. RFC 1035 4.1.4: a pointer must go to an earlier place, so following it ends.
    fn name(&mut self) -> Result<Name, DecodeError> {
        const WHAT: &str = "DNS name";
        let mut text = String::new();
        let mut length = 0;
        let mut part_start = self.at;
        let mut behind = None;
        let mut pointers = 0;
        loop {
            let label_at = self.at;
            let malformed = DecodeError::Malformed {
                what: WHAT,
                at: label_at,
            };
            let [first] = *self.take(1, WHAT)?.first_chunk().ok_or(malformed)?;
            match first {
                0 => break,
                1..=0x3f => {
                    let label = self.take(first.into(), WHAT)?;
                    length += label.len() + usize::from(length > 0);
                    if length + 2 > NAME_BYTES_MAX {
                        return Err(malformed);
                    }
                    if !text.is_empty() {
                        text.push('.');
                    }
                    escape(label, &mut text);
                }
                0xc0..=0xff => {
                    self.at = label_at;
                    let target = usize::from(self.number(WHAT)? & 0x3fff);
                    behind.get_or_insert(self.at);
                    pointers += 1;
                    if !(HEADER_BYTES..part_start).contains(&target) || pointers > POINTERS_MAX {
                        return Err(malformed);
                    }
                    part_start = target;
                    self.at = target;
                }
                // RFC 6891 5: extended labels are not to be used.
                0x40..=0xbf => return Err(malformed),
            }
        }
        self.at = behind.unwrap_or(self.at);
        if text.is_empty() {
            text.push('.');
        }
        Ok(Name { text, length })
    }

    fn skip_name(&mut self) -> Result<(), DecodeError> {
        const WHAT: &str = "DNS name";
        let start = self.at;
        while self.at - start < NAME_BYTES_MAX {
            let at = self.at;
            let malformed = DecodeError::Malformed { what: WHAT, at };
            let [first] = *self.take(1, WHAT)?.first_chunk().ok_or(malformed)?;
            match first {
                0 => return Ok(()),
                1..=0x3f => self.skip(first.into(), WHAT)?,
                0xc0..=0xff => return self.skip(1, WHAT),
                0x40..=0xbf => return Err(malformed),
            }
        }
        Err(DecodeError::Malformed {
            what: WHAT,
            at: start,
        })
    }
}

/// RFC 1035 3.3.14: strings of a length byte and as many bytes.
fn strings(mut data: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let Some((&length, rest)) = data.split_first() {
        let (string, behind) = rest.split_at_checked(length.into())?;
        let room = TEXT_BYTES_MAX.saturating_sub(text.len());
        for &byte in string.get(..room).unwrap_or(string) {
            match byte {
                b'\\' => text.push_str("\\\\"),
                b' '..=b'~' => text.push(byte.into()),
                other => text.push_str(&decimal(other)),
            }
        }
        data = behind;
    }
    Some(text)
}

fn escape(label: &[u8], out: &mut String) {
    for &byte in label {
        match byte {
            b'.' | b'\\' => out.extend(['\\', byte.into()]),
            b'!'..=b'~' => out.push(byte.to_ascii_lowercase().into()),
            other => out.push_str(&decimal(other)),
        }
    }
}

fn decimal(byte: u8) -> String {
    format!("\\{byte:03}")
}

#[cfg(test)]
mod tests;
