//! A small language for the sentences that daemons write about one attempt: fixed words with captures between them.
//! Does not know any program.
//!
//! `{user}` `{method}` take what stands up to the **last** occurrence of the words that follow, for a name may hold
//! them; `{any}` takes up to the first and `{most}` up to the last; `{ip}` takes an address and a port behind it, `{host}` a name as well. `^` ties
//! the words to the beginning of the line, `$` to its end. A captured piece is never copied.

use std::net::IpAddr;

use crate::decode::program::{FAILURE, SUCCESS};
use crate::decode::reader;
use crate::event::field;
use crate::event::{Event, Value};

/// What a sentence says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
    /// It names the parties and gives no verdict, or one that is counted elsewhere.
    Silent,
}

/// One sentence of a program.
#[derive(Debug, Clone, Copy)]
pub struct Phrase {
    pub words: &'static str,
    pub verdict: Verdict,
}

/// The sentences of one program, under every name that it writes.
#[derive(Debug)]
pub struct Voice {
    pub programs: &'static [&'static str],
    pub service: &'static str,
    pub phrases: &'static [Phrase],
}

/// A line that is a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'r> {
    verdict: Verdict,
    captured: Captured<'r>,
}

/// What a sentence captured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Captured<'r> {
    user: Option<&'r [u8]>,
    method: Option<&'r [u8]>,
    address: Option<IpAddr>,
    name: Option<&'r [u8]>,
    port: Option<u16>,
}

/// Tries of one phrase on one line. No line that a daemon writes needs more than a dozen; a line made to be slow ends here.
const STEPS_MAX: u32 = 256;

pub const fn failure(words: &'static str) -> Phrase {
    Phrase {
        words,
        verdict: Verdict::Failure,
    }
}

pub const fn success(words: &'static str) -> Phrase {
    Phrase {
        words,
        verdict: Verdict::Success,
    }
}

pub const fn silent(words: &'static str) -> Phrase {
    Phrase {
        words,
        verdict: Verdict::Silent,
    }
}

impl Voice {
    /// Whether a program writes in this voice.
    pub fn is_of(&self, program: &[u8]) -> bool {
        self.programs
            .iter()
            .any(|name| name.as_bytes().eq_ignore_ascii_case(program))
    }
}

impl<'r> Found<'r> {
    pub fn is_silent(&self) -> bool {
        self.verdict == Verdict::Silent
    }

    pub fn set(&self, event: &mut Event<'r>) {
        self.captured.set(event);
        match self.verdict {
            Verdict::Failure => event.set(field::OUTCOME, FAILURE),
            Verdict::Success => event.set(field::OUTCOME, SUCCESS),
            Verdict::Silent => {}
        }
    }
}

impl Phrase {
    /// Returns what the sentence captures of a line, if the line is that sentence.
    pub fn follow<'r>(&self, text: &'r [u8]) -> Option<Found<'r>> {
        let mut steps = STEPS_MAX;
        let words = self.words.as_bytes();
        let captured = match words.strip_prefix(b"^") {
            Some(words) => follow(words, text, Captured::default(), &mut steps),
            None => {
                let (first, rest) = literal(words);
                first_fit(first, text, &mut steps, |_, behind, steps| {
                    follow(rest, behind, Captured::default(), steps)
                })
            }
        };
        captured.map(|captured| Found {
            verdict: self.verdict,
            captured,
        })
    }

    /// Returns the longest of the fixed words, without which no line is this sentence.
    pub fn rarest(&self) -> &'static str {
        let pieces = self.words.split(['{', '}']).step_by(2);
        let fixed = pieces.map(|piece| piece.trim_start_matches('^').trim_end_matches('$'));
        fixed.max_by_key(|piece| piece.len()).unwrap_or_default()
    }
}

impl<'r> Captured<'r> {
    fn set(&self, event: &mut Event<'r>) {
        if let Some(address) = self.address {
            event.set(field::SOURCE_IP, Value::Ip(address));
        }
        if let Some(name) = self.name {
            event.set(field::SOURCE_HOSTNAME, name);
        }
        if let Some(port) = self.port {
            event.set(field::SOURCE_PORT, port);
        }
        if let Some(user) = self.user.filter(|user| !user.is_empty()) {
            event.set(field::TARGET_USER_NAME, user);
        }
        if let Some(method) = self.method.filter(|method| !method.is_empty()) {
            event.set(field::AUTHENTICATION_METHOD, method);
        }
    }
}

/// Splits the words before the next capture, or before the mark of the end, from the rest.
fn literal(words: &'static [u8]) -> (&'static [u8], &'static [u8]) {
    let end = words
        .iter()
        .position(|&b| matches!(b, b'{' | b'$'))
        .unwrap_or(words.len());
    words.split_at_checked(end).unwrap_or((words, b""))
}

fn follow<'r>(
    words: &'static [u8],
    text: &'r [u8],
    captured: Captured<'r>,
    steps: &mut u32,
) -> Option<Captured<'r>> {
    *steps = steps.checked_sub(1)?;
    let (fixed, rest) = literal(words);
    let text = text.strip_prefix(fixed)?;
    if rest.is_empty() {
        return Some(captured);
    }
    if rest == b"$" {
        return text.trim_ascii_end().is_empty().then_some(captured);
    }
    let (name, after) = reader::split_byte(rest.get(1..)?, b'}')?;
    match name {
        b"ip" => {
            let (address, port, behind) = address_at(text)?;
            let captured = Captured {
                address: Some(address),
                port: port.or(captured.port),
                ..captured
            };
            follow(after, behind, captured, steps)
        }
        b"host" => {
            if let Some((address, port, behind)) = address_at(text) {
                let captured = Captured {
                    address: Some(address),
                    port: port.or(captured.port),
                    ..captured
                };
                return follow(after, behind, captured, steps);
            }
            let is_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            let mut reader = reader::Reader::new(text);
            let name = reader.while_(is_name);
            let captured = Captured {
                name: (!name.is_empty()).then_some(name),
                ..captured
            };
            follow(after, reader.rest(), captured, steps)
        }
        _ => open(name, after, text, captured, steps),
    }
}

/// A capture that ends where the words behind it stand.
fn open<'r>(
    name: &[u8],
    after: &'static [u8],
    text: &'r [u8],
    captured: Captured<'r>,
    steps: &mut u32,
) -> Option<Captured<'r>> {
    let with = |piece: &'r [u8]| match name {
        b"user" => Captured {
            user: Some(piece.trim_ascii()),
            ..captured
        },
        b"method" => Captured {
            method: Some(piece.trim_ascii()),
            ..captured
        },
        _ => captured,
    };
    let (fixed, rest) = literal(after);
    if fixed.is_empty() {
        return Some(with(text));
    }
    let next = |before: &'r [u8], behind: &'r [u8], steps: &mut u32| {
        follow(rest, behind, with(before), steps)
    };
    match name {
        b"user" | b"method" | b"most" => last_fit(fixed, text, steps, next),
        _ => first_fit(fixed, text, steps, next),
    }
}

/// Tries each place where `fixed` stands, from the left.
fn first_fit<'r>(
    fixed: &[u8],
    text: &'r [u8],
    steps: &mut u32,
    mut next: impl FnMut(&'r [u8], &'r [u8], &mut u32) -> Option<Captured<'r>>,
) -> Option<Captured<'r>> {
    for at in memchr::memmem::find_iter(text, fixed) {
        *steps = steps.checked_sub(1)?;
        let behind = text.get(at.checked_add(fixed.len())?..)?;
        if let Some(found) = next(text.get(..at)?, behind, steps) {
            return Some(found);
        }
    }
    None
}

/// Tries each place where `fixed` stands, from the right.
fn last_fit<'r>(
    fixed: &[u8],
    text: &'r [u8],
    steps: &mut u32,
    mut next: impl FnMut(&'r [u8], &'r [u8], &mut u32) -> Option<Captured<'r>>,
) -> Option<Captured<'r>> {
    for at in memchr::memmem::rfind_iter(text, fixed) {
        *steps = steps.checked_sub(1)?;
        let behind = text.get(at.checked_add(fixed.len())?..)?;
        if let Some(found) = next(text.get(..at)?, behind, steps) {
            return Some(found);
        }
    }
    None
}

/// `192.0.2.1`, `192.0.2.1:50`, `192.0.2.1.50` (dante), `[2001:db8::1]:50`, `::ffff:192.0.2.1:50`, and what follows.
fn address_at(text: &[u8]) -> Option<(IpAddr, Option<u16>, &[u8])> {
    // Sendmail's mark, RFC 5321 4.1.3.
    let text = text.strip_prefix(b"IPv6:").unwrap_or(text);
    if let Some(inner) = text.strip_prefix(b"[") {
        let (inside, behind) = reader::split_byte(inner, b']')?;
        let inside = inside.strip_prefix(b"IPv6:").unwrap_or(inside);
        let address = reader::address(inside)?;
        let Some(tail) = behind.strip_prefix(b":") else {
            return Some((address, None, behind));
        };
        let mut digits = reader::Reader::new(tail);
        let port = reader::port(digits.while_(|b| b.is_ascii_digit()));
        let behind = if port.is_some() {
            digits.rest()
        } else {
            behind
        };
        return Some((address, port, behind));
    }
    let mut reader = reader::Reader::new(text);
    let run = reader.while_(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    if let Some(address) = reader::address(run) {
        return Some((address, None, reader.rest()));
    }
    // A sentence may go on with a colon or end with a point.
    let run = run.strip_suffix(b":").unwrap_or(run);
    let run = run.strip_suffix(b".").unwrap_or(run);
    let behind = text.get(run.len()..)?;
    if let Some(address) = reader::address(run) {
        return Some((address, None, behind));
    }
    let end = run.iter().rposition(|b| matches!(b, b':' | b'.'))?;
    let address = reader::address(run.get(..end)?)?;
    match reader::port(run.get(end.checked_add(1)?..)?) {
        Some(port) => Some((address, Some(port), behind)),
        None => Some((address, None, text.get(end..)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    const PHRASES: [Phrase; 5] = [
        silent("unimportant {ip}"),
        failure("^no {user} from {ip}$"),
        failure("by {method} of {any}[{ip}]: no"),
        success("yes {host}"),
        failure("name={most},peer={ip}"),
    ];

    fn follow(line: &[u8]) -> Option<Found<'_>> {
        PHRASES.iter().find_map(|phrase| phrase.follow(line))
    }

    #[test]
    fn sentences_give_parties_and_verdict() {
        for (line, expected) in [
            (
                "no an from 192.0.2.7",
                "SourceIp=192.0.2.7 TargetUserName=an Outcome=failure",
            ),
            (
                "no an from 198.51.100.1 from 192.0.2.7:50 ",
                "SourceIp=192.0.2.7 SourcePort=50 TargetUserName=an from 198.51.100.1 Outcome=failure",
            ),
            ("no an from 192.0.2.7 and more", ""),
            (
                "it: by PLAIN of gw[2001:db8::1]: no",
                "SourceIp=2001:db8::1 AuthenticationMethod=PLAIN Outcome=failure",
            ),
            (
                "unimportant 192.0.2.7.50",
                "SourceIp=192.0.2.7 SourcePort=50",
            ),
            (
                "yes [2001:db8::1]:22",
                "SourceIp=2001:db8::1 SourcePort=22 Outcome=success",
            ),
            (
                "yes gw.example.org.",
                "SourceHostname=gw.example.org. Outcome=success",
            ),
            ("no an from 192.0.2.7:50: and more", ""),
            (
                "unimportant 192.0.2.7:50: so",
                "SourceIp=192.0.2.7 SourcePort=50",
            ),
            ("unimportant [IPv6:2001:db8::1] so", "SourceIp=2001:db8::1"),
            ("unimportant 2001:db8::1: so", "SourceIp=2001:db8::1"),
            (
                "name=x,peer=198.51.100.1,x,peer=192.0.2.7",
                "SourceIp=192.0.2.7 Outcome=failure",
            ),
            ("", ""),
        ] {
            let seen = shown(|event| {
                if let Some(found) = follow(line.as_bytes()) {
                    found.set(event);
                }
            });
            assert_eq!(seen, expected, "{line}");
        }
    }

    #[test]
    fn a_line_made_to_be_slow_ends() {
        let line = "by of [".repeat(20_000);
        assert_eq!(follow(line.as_bytes()), None);
        let line = format!("no {}", " from ".repeat(20_000));
        assert_eq!(follow(line.as_bytes()), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_phrase_panic(bytes: Vec<u8>, at in 0usize..40) {
            let mut line = b"by PLAIN of gw[2001:db8::1]: no an from 192.0.2.7:5".to_vec();
            line.splice(at..at, bytes);
            follow(&line);
        }
    }
}
