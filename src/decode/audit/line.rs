//! One line of the audit trail: `type=NAME msg=audit(SECONDS.MILLIS:SERIAL): key=value …` (kernel/audit.c, and what
//! auditd writes of it). Values borrow from the line unless hexadecimal forced a copy.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::decode::audit::table;
use crate::decode::reader;

/// What makes records one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    pub seconds: i64,
    pub millis: u16,
    pub serial: u32,
}

impl Stamp {
    pub fn time(&self) -> Option<Timestamp> {
        let time = Timestamp::from_second(self.seconds).ok()?;
        let millis = jiff::SignedDuration::from_millis(self.millis.into());
        time.checked_add(millis).ok()
    }

    /// Milliseconds since 1970; saturates.
    pub fn millis(&self) -> i64 {
        self.seconds
            .saturating_mul(1000)
            .saturating_add(self.millis.into())
    }
}

/// A line taken apart as far as the join needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'r> {
    /// Of a stream that several machines write to.
    pub node: Option<&'r [u8]>,
    /// By name; numeric types have been looked up.
    pub kind: &'r [u8],
    pub number: Option<u32>,
    pub stamp: Stamp,
    /// `key=value …`
    pub body: &'r [u8],
}

/// Takes a line apart; `None` when it is none of the audit trail. Accepts what auditd writes, what the kernel prints
/// (`audit: type=1400 audit(…): …`) and what the journal keeps (`SYSCALL audit(…)` is not: it has other fields).
pub fn read(line: &[u8]) -> Option<Line<'_>> {
    let mut rest = line.trim_ascii();
    let mut node = None;
    if let Some(behind) = rest.strip_prefix(b"node=") {
        let (name, behind) = reader::split_byte(behind, b' ')?;
        node = Some(name);
        rest = behind;
    }
    let rest = rest.strip_prefix(b"type=")?;
    let (kind, rest) = reader::split_byte(rest, b' ')?;
    let rest = rest.trim_ascii_start();
    let rest = rest.strip_prefix(b"msg=").unwrap_or(rest);
    let rest = rest.strip_prefix(b"audit(")?;
    // auditd's own `DAEMON_CONFIG` has no colon behind the stamp.
    let (stamp, rest) = reader::split_byte(rest, b')')?;
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    let number = table::type_number(kind);
    let kind = match (kind.first(), number.and_then(table::type_name)) {
        (Some(b'0'..=b'9' | b'U'), Some(name)) => name.as_bytes(),
        _ => kind,
    };
    Some(Line {
        node,
        kind,
        number,
        stamp: stamp_of(stamp)?,
        body: rest.trim_ascii(),
    })
}

fn stamp_of(text: &[u8]) -> Option<Stamp> {
    let (time, serial) = reader::split_byte(text, b':')?;
    let (seconds, millis) = reader::split_byte(time, b'.')?;
    Some(Stamp {
        seconds: i64::try_from(reader::decimal(seconds)?).ok()?,
        millis: u16::try_from(reader::decimal(millis)?)
            .ok()
            .filter(|&millis| millis < 1000)?,
        serial: u32::try_from(reader::decimal(serial)?).ok()?,
    })
}

/// One `key=value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'r> {
    pub key: &'r [u8],
    /// Without its quotes.
    pub value: &'r [u8],
    pub quoted: bool,
}

/// Names that auditd's enrichment adds behind a 0x1d; some relays drop that byte, so that they stick to the value
/// before them.
const ENRICHED: &[&[u8]] = &[
    b"ARCH=",
    b"SYSCALL=",
    b"AUID=",
    b"UID=",
    b"GID=",
    b"EUID=",
    b"SUID=",
    b"FSUID=",
    b"EGID=",
    b"SGID=",
    b"FSGID=",
    b"OUID=",
    b"OGID=",
    b"OAUID=",
    b"OLD-AUID=",
    b"SADDR=",
    b"ID=",
];

/// The pairs of a body, also those within `msg='…'`. Words without `=` are passed over.
#[derive(Debug, Clone)]
pub struct Pairs<'r> {
    rest: &'r [u8],
    /// Behind the closing quote of `msg='…'`.
    later: Option<&'r [u8]>,
}

/// Returns the pairs of a line's body.
pub fn pairs(body: &[u8]) -> Pairs<'_> {
    Pairs {
        rest: body,
        later: None,
    }
}

impl<'r> Iterator for Pairs<'r> {
    type Item = Pair<'r>;

    fn next(&mut self) -> Option<Pair<'r>> {
        loop {
            self.rest = trim_start(self.rest);
            if self.rest.is_empty() {
                self.rest = self.later.take()?;
                continue;
            }
            let end = self
                .rest
                .iter()
                .position(|&b| matches!(b, b'=' | b' ' | 0x1d));
            let Some(end) = end else {
                self.rest = &[];
                continue;
            };
            let (key, behind) = self.rest.split_at_checked(end)?;
            let Some(behind) = behind.strip_prefix(b"=") else {
                // `old auid=1 new auid=2` (before Linux 2.6.26): the word belongs to the name.
                if let Some(pair) = two_words(key, behind) {
                    self.rest = pair.1;
                    return Some(pair.0);
                }
                self.rest = behind;
                continue;
            };
            // `msg='op=… acct="…" …'`: what user space wrote, with pairs of its own up to the last apostrophe.
            if key == b"msg"
                && let Some(inner) = behind.strip_prefix(b"'")
            {
                let (inner, later) = reader::rsplit_byte(inner, b'\'').unwrap_or((inner, b""));
                self.rest = inner;
                self.later = Some(later);
                continue;
            }
            let (value, quoted, behind) = value(behind);
            self.rest = behind;
            let (key, value) = bare(key, value, quoted);
            if !key.is_empty() {
                return Some(Pair { key, value, quoted });
            }
        }
    }
}

/// Leaves out the brackets of `(hostname=?, addr=?, terminal=cron res=success)`.
fn bare<'r>(key: &'r [u8], value: &'r [u8], quoted: bool) -> (&'r [u8], &'r [u8]) {
    let key = key.strip_prefix(b"(").unwrap_or(key);
    let value = match value.strip_suffix(b")") {
        Some(inner) if !quoted && !value.starts_with(b"(") => inner,
        _ => value,
    };
    (key, value)
}

/// Reads `old auid=…` and `new auid=…` as one pair; also returns what follows it.
fn two_words<'r>(word: &'r [u8], behind: &'r [u8]) -> Option<(Pair<'r>, &'r [u8])> {
    let key: &[u8] = match word {
        b"old" => b"old_auid",
        b"new" => b"new_auid",
        _ => return None,
    };
    let (value, quoted, rest) = value(behind.strip_prefix(b" auid=")?);
    Some((Pair { key, value, quoted }, rest))
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes
        .iter()
        .position(|&b| !matches!(b, b' ' | 0x1d | b',' | b'\n'))
        .unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}

/// Returns a value, whether it was quoted, and what follows it.
fn value(bytes: &[u8]) -> (&[u8], bool, &[u8]) {
    for (open, close) in [(b'"', b'"'), (b'\'', b'\''), (b'{', b'}')] {
        if bytes.first() == Some(&open)
            && let Some((value, behind)) =
                reader::split_byte(bytes.get(1..).unwrap_or_default(), close)
        {
            return (value, true, behind);
        }
    }
    let end = bytes
        .iter()
        .position(|&b| matches!(b, b' ' | 0x1d | b'\n'))
        .unwrap_or(bytes.len());
    let whole = bytes.get(..end).unwrap_or_default();
    let end = glued(whole).unwrap_or(end);
    let (value, behind) = bytes.split_at_checked(end).unwrap_or((bytes, b""));
    (value.strip_suffix(b",").unwrap_or(value), false, behind)
}

/// Returns where an enriched name begins within an unquoted value: `(null)ARCH=x86_64`, `0OUID="root"`.
fn glued(value: &[u8]) -> Option<usize> {
    let plain = if value.starts_with(b"(null)") {
        6
    } else {
        value.iter().take_while(|b| b.is_ascii_digit()).count()
    };
    let behind = value.get(plain..).filter(|_| plain > 0)?;
    ENRICHED
        .iter()
        .any(|name| behind.starts_with(name))
        .then_some(plain)
}

/// Keys whose unquoted value is hexadecimal when the text needed it (audit_log_untrustedstring in kernel/audit.c, and
/// libaudit's audit_encode_value).
const ENCODED: &[&[u8]] = &[
    b"exe",
    b"comm",
    b"cwd",
    b"name",
    b"proctitle",
    b"acct",
    b"cmd",
    b"data",
    b"vm",
    b"path",
    b"dir",
    b"key",
    b"ocomm",
    b"watch",
    b"file",
    b"new-disk",
    b"old-disk",
    b"device",
    b"grp",
    b"new_group",
    b"root_dir",
    b"sw",
    b"ppexe",
    b"ppcmd",
    b"cmdline",
    b"invalid_context",
    b"profile",
    b"info",
    b"target",
];

/// Returns a value as the program meant it; `None` for `(null)` and `?`, which say that there is none.
pub fn meant<'r>(pair: &Pair<'r>, is_argument: bool) -> Option<Cow<'r, [u8]>> {
    if pair.quoted {
        return Some(Cow::Borrowed(pair.value));
    }
    if matches!(pair.value, b"(null)" | b"?" | b"") {
        return None;
    }
    if (is_argument || ENCODED.contains(&pair.key))
        && let Some(bytes) = unhex(pair.value)
    {
        return Some(Cow::Owned(bytes));
    }
    Some(Cow::Borrowed(pair.value))
}

/// Returns the bytes of upper-case hexadecimal of even length; `None` when it is anything else.
pub fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    if text.is_empty() || !text.len().is_multiple_of(2) {
        return None;
    }
    text.chunks_exact(2)
        .map(|pair| match pair {
            &[high, low] if !high.is_ascii_lowercase() && !low.is_ascii_lowercase() => {
                reader::hex_byte(high, low)
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Vec<(String, String, bool)> {
        pairs(body.as_bytes())
            .map(|p| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                (text(p.key), text(p.value), p.quoted)
            })
            .collect()
    }

    fn expected(pairs: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
        pairs
            .iter()
            .map(|&(k, v, q)| (k.into(), v.into(), q))
            .collect()
    }

    #[test]
    fn the_head_names_machine_type_and_serial() {
        let line =
            read(b"node=web1 type=1300 msg=audit(1700000000.123:77): arch=c000003e").unwrap();
        assert_eq!(line.node, Some(&b"web1"[..]));
        assert_eq!(line.kind, b"SYSCALL");
        assert_eq!(
            (line.stamp.serial, line.stamp.millis()),
            (77, 1_700_000_000_123)
        );
        assert_eq!(line.body, b"arch=c000003e");
        assert_eq!(
            read(b"type=1400 audit(1700000000.1:5): apparmor=\"DENIED\"")
                .unwrap()
                .kind,
            b"AVC"
        );
        for broken in [
            &b""[..],
            b"type=",
            b"type=SYSCALL msg=audit(",
            b"type=SYSCALL msg=audit(1:2): a=b",
            b"type=SYSCALL msg=audit(99999999999999999999.1:2): a=b",
            b"Nov 23 type=SYSCALL",
        ] {
            assert_eq!(read(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn pairs_are_read_through_quotes_messages_and_enrichment() {
        for (body, pairs) in [
            (
                r#"a=1 comm="my prog" key=(null)"#,
                &[
                    ("a", "1", false),
                    ("comm", "my prog", true),
                    ("key", "(null)", false),
                ][..],
            ),
            (
                "pid=7 msg='op=PAM:auth acct=\"root\" res=failed' UID=\"root\"",
                &[
                    ("pid", "7", false),
                    ("op", "PAM:auth", false),
                    ("acct", "root", true),
                    ("res", "failed", false),
                    ("UID", "root", true),
                ],
            ),
            (
                "key=(null)ARCH=x86_64 cap_frootid=0OUID=\"root\"",
                &[
                    ("key", "(null)", false),
                    ("ARCH", "x86_64", false),
                    ("cap_frootid", "0", false),
                    ("OUID", "root", true),
                ],
            ),
            (
                "key=\"k\"\u{1d}ARCH=x86_64\u{1d}SADDR={ saddr_fam=inet laddr=::1 }",
                &[
                    ("key", "k", true),
                    ("ARCH", "x86_64", false),
                    ("SADDR", " saddr_fam=inet laddr=::1 ", true),
                ],
            ),
            (
                "avc:  denied  { read } for  pid=3 name=\"x\"",
                &[("pid", "3", false), ("name", "x", true)],
            ),
            (
                "a[0]=41 a1_len=3",
                &[("a[0]", "41", false), ("a1_len", "3", false)],
            ),
            (
                "login pid=1 old auid=4294967295 new auid=0",
                &[
                    ("pid", "1", false),
                    ("old_auid", "4294967295", false),
                    ("new_auid", "0", false),
                ],
            ),
            (
                "acct=root : exe=\"/c\" (hostname=?, addr=?, terminal=cron res=success)",
                &[
                    ("acct", "root", false),
                    ("exe", "/c", true),
                    ("hostname", "?", false),
                    ("addr", "?", false),
                    ("terminal", "cron", false),
                    ("res", "success", false),
                ],
            ),
            (
                "tty=(none) ses=1",
                &[("tty", "(none)", false), ("ses", "1", false)],
            ),
            ("= ==", &[]),
        ] {
            assert_eq!(told(body), expected(pairs), "{body}");
        }
    }

    #[test]
    fn only_marked_keys_are_read_as_hexadecimal() {
        for (key, value, quoted, argument, meaning) in [
            ("exe", "2F746D702F61", false, false, Some("/tmp/a")),
            ("exe", "2F746D702F61", true, false, Some("2F746D702F61")),
            ("a0", "7FED", false, false, Some("7FED")),
            ("a0", "7F45", false, true, Some("\u{7f}E")),
            ("pid", "10", false, false, Some("10")),
            ("comm", "7fed", false, false, Some("7fed")),
            ("comm", "ABC", false, false, Some("ABC")),
            ("key", "(null)", false, false, None),
            ("addr", "?", false, false, None),
        ] {
            let pair = Pair {
                key: key.as_bytes(),
                value: value.as_bytes(),
                quoted,
            };
            let found = meant(&pair, argument);
            assert_eq!(
                found.as_deref(),
                meaning.map(str::as_bytes),
                "{key}={value}"
            );
        }
    }
}
