//! What OpenSSH's sshd writes. `Outcome: failure` stands on each refused attempt, and on the line that closes a
//! connection before login if no attempt of it was counted yet: a client that only probes names or keys counts once.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::decode::program::{FAILURE, Line, SUCCESS};
use crate::decode::reader::{self, Reader};
use crate::decode::set_source;
use crate::event::field;
use crate::event::{Event, Value};

/// Connections remembered at a time. sshd's own limit of unauthenticated ones, MaxStartups, is 100 by default.
const SESSIONS_MAX: usize = 1024;

/// What is remembered of connections whose lines are still coming, by host and process.
#[derive(Debug, Default)]
pub struct Sessions {
    known: HashMap<u64, Session>,
    /// Oldest first.
    order: VecDeque<u64>,
}

#[derive(Debug, Default, Clone)]
struct Session {
    peer: Option<(Value<'static>, Option<u16>)>,
    /// A failure of it was reported.
    is_counted: bool,
    is_accepted: bool,
    /// It failed, by a line that names no peer: the next one that does counts.
    is_pending: bool,
}

impl Sessions {
    fn of(&mut self, line: &Line<'_>) -> Option<&mut Session> {
        let process = line.process?;
        let mut hasher = DefaultHasher::new();
        (line.host, process).hash(&mut hasher);
        let key = hasher.finish();
        if !self.known.contains_key(&key) {
            if self.order.len() == SESSIONS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(key);
        }
        Some(self.known.entry(key).or_default())
    }
}

/// What one line says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Said<'r> {
    verdict: Verdict,
    user: Option<&'r [u8]>,
    method: Option<&'r [u8]>,
    peer: Option<&'r [u8]>,
    port: Option<u16>,
    /// The process writes no more of this connection.
    is_last: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Says nothing of an attempt.
    #[default]
    None,
    /// A connection begins: a process id may come back.
    Opened,
    Granted,
    /// An attempt was refused.
    Refused,
    /// The connection ended before login.
    ClosedEarly,
    /// The connection ended, or it is not said when.
    Closed,
}

/// Whether a line without a tag is sshd's.
pub fn begins(line: &[u8]) -> bool {
    let Some(first) = line.first() else {
        return false;
    };
    if !b"FAIPUBDRe".contains(first) {
        return false;
    }
    [
        &b"Failed password for "[..],
        b"Failed publickey for ",
        b"Failed keyboard-interactive",
        b"Accepted password for ",
        b"Accepted publickey for ",
        b"Accepted keyboard-interactive",
        b"Invalid user ",
        b"error: PAM: ",
        b"error: maximum authentication attempts exceeded for ",
        b"Bad protocol version identification ",
        b"Did not receive identification string from ",
        b"ROOT LOGIN REFUSED FROM ",
        b"Disconnected from authenticating user ",
        b"Disconnected from invalid user ",
    ]
    .iter()
    .any(|start| line.starts_with(start))
        || ended_by_ssh(line, b"Failed ")
        || line.starts_with(b"User ") && reader::contains(line, b" not allowed because ")
}

/// `Failed … for … from … port … ssh2` with a method not listed above.
fn ended_by_ssh(line: &[u8], start: &[u8]) -> bool {
    line.starts_with(start) && reader::contains(line, b" for ") && reader::contains(line, b" ssh2")
}

pub fn read<'r>(line: &Line<'r>, sessions: &mut Sessions, event: &mut Event<'r>) {
    event.set(field::SERVICE, "sshd");
    let said = Said::read(line.message);
    if let Some(method) = said.method {
        event.set(field::AUTHENTICATION_METHOD, method);
    }
    if let Some(user) = said.user.filter(|user| !user.is_empty()) {
        event.set(field::TARGET_USER_NAME, user);
    }
    if let Some(peer) = said.peer {
        set_source(event, peer);
    }
    if let Some(port) = said.port {
        event.set(field::SOURCE_PORT, port);
    }
    if said.verdict == Verdict::None && said.peer.is_none() {
        return;
    }
    let mut alone = Session::default();
    let session = sessions.of(line).unwrap_or(&mut alone);
    if let Some(outcome) = session.judge(&said, event) {
        event.set(field::OUTCOME, outcome);
    }
    if said.is_last {
        *session = Session::default();
    }
}

impl Session {
    fn judge(&mut self, said: &Said<'_>, event: &mut Event<'_>) -> Option<&'static str> {
        // A process id that comes back with another peer is another connection.
        let is_another = match (said.peer.and_then(remembered), &self.peer) {
            (Some(peer), Some((known, port))) => {
                peer != *known || matches!((said.port, port), (Some(a), Some(b)) if a != *b)
            }
            _ => false,
        };
        if is_another || said.verdict == Verdict::Opened {
            *self = Self::default();
        }
        match (said.peer, &self.peer) {
            (Some(peer), _) => {
                if let Some(peer) = remembered(peer) {
                    let port = said.port.or(self.peer.as_ref().and_then(|(_, port)| *port));
                    self.peer = Some((peer, port));
                }
            }
            (None, Some((peer, port))) => {
                event.set(field::SOURCE_IP, peer.clone());
                if let Some(port) = *port {
                    event.set(field::SOURCE_PORT, port);
                }
            }
            (None, None) => {}
        }
        let is_open = !(self.is_counted || self.is_accepted);
        match said.verdict {
            Verdict::Granted => {
                self.is_accepted = true;
                Some(SUCCESS)
            }
            Verdict::Refused => {
                self.is_counted = true;
                Some(FAILURE)
            }
            Verdict::ClosedEarly if is_open && self.peer.is_none() && said.peer.is_none() => {
                self.is_pending = true;
                None
            }
            Verdict::ClosedEarly if is_open => {
                self.is_counted = true;
                Some(FAILURE)
            }
            Verdict::Closed if is_open && self.is_pending => {
                self.is_counted = true;
                Some(FAILURE)
            }
            Verdict::None | Verdict::Opened | Verdict::ClosedEarly | Verdict::Closed => None,
        }
    }
}

fn remembered(peer: &[u8]) -> Option<Value<'static>> {
    reader::address(peer).map(Value::Ip)
}

impl<'r> Said<'r> {
    fn read(message: &'r [u8]) -> Self {
        let message = message.trim_ascii();
        let (message, is_early) = match message.strip_suffix(b" [preauth]") {
            Some(message) => (message.trim_ascii_end(), true),
            None => (message, false),
        };
        let mut reader = Reader::new(message);
        let _ = reader.tag(b"error: ") || reader.tag(b"fatal: ") || reader.tag(b"warning: ");
        let text = reader.rest();
        // The first letters of a line choose its reader: most lines meet one or two comparisons.
        match text.first().copied().unwrap_or_default() {
            b'F' => Self::failed(text),
            b'A' => Self::accepted(text),
            b'P' => Self::postponed(text).or_else(|| Self::pam(text)),
            b'I' | b'i' => Self::invalid_user(text),
            b'C' => Self::connection(text, is_early),
            b'D' => Self::disconnect(text, is_early),
            b'R' => Self::received(text, is_early),
            b'U' => Self::not_allowed(text).or_else(|| Self::negotiation(text)),
            b'm' => Self::maximum(text),
            b'S' | b's' => Self::dispatch(text).or_else(|| Self::patched(text)),
            _ => None,
        }
        .or_else(|| Self::seldom(text, is_early))
        .unwrap_or_default()
    }

    fn refused(user: Option<&'r [u8]>, from: From<'r>) -> Self {
        Self {
            verdict: Verdict::Refused,
            user,
            peer: Some(from.peer),
            port: from.port,
            ..Self::default()
        }
    }

    /// `Failed password for [invalid user ]NAME from ADDRESS port N ssh2[: KEY]`
    fn failed(text: &'r [u8]) -> Option<Self> {
        let (method, subject) = reader::split(text.strip_prefix(b"Failed ")?, b" for ")?;
        let (user, is_known, from) = subject_from(subject)?;
        // Clients offer one key after another; a refused key of a known account is not yet a failed login. If none
        // fits, the line that closes the connection counts.
        let verdict = match method {
            b"publickey" if is_known => Verdict::None,
            // The first, empty attempt by which clients ask for the methods.
            b"none" if is_known => Verdict::None,
            _ => Verdict::Refused,
        };
        Some(Self {
            verdict,
            method: Some(method),
            ..Self::refused(Some(user), from)
        })
    }

    /// `Accepted publickey for NAME from ADDRESS port N ssh2: KEY`
    fn accepted(text: &'r [u8]) -> Option<Self> {
        let (method, subject) = reader::split(text.strip_prefix(b"Accepted ")?, b" for ")?;
        let (user, _, from) = subject_from(subject)?;
        Some(Self {
            verdict: Verdict::Granted,
            method: Some(method),
            ..Self::refused(Some(user), from)
        })
    }

    /// `Postponed publickey for …`, `Partial publickey for …`: the attempt goes on.
    fn postponed(text: &'r [u8]) -> Option<Self> {
        let rest = text
            .strip_prefix(b"Postponed ")
            .or_else(|| text.strip_prefix(b"Partial "))?;
        let (method, subject) = reader::split(rest, b" for ")?;
        let (user, _, from) = subject_from(subject)?;
        Some(Self {
            verdict: Verdict::None,
            method: Some(method),
            ..Self::refused(Some(user), from)
        })
    }

    /// `PAM: Authentication failure for [illegal user ]NAME from HOST[ via ADDRESS]`
    fn pam(text: &'r [u8]) -> Option<Self> {
        let (_, subject) = reader::split(text.strip_prefix(b"PAM: ")?, b" for ")?;
        let (user, host) = reader::rsplit(subject, b" from ")?;
        let host = reader::split(host, b" via ").map_or(host, |(host, _)| host);
        let (user, _) = known(user);
        Some(Self::refused(
            Some(user),
            From {
                peer: host,
                port: None,
            },
        ))
    }

    /// `Invalid user NAME from ADDRESS[ port N]`. sshd writes it before any method was tried, and once a connection.
    fn invalid_user(text: &'r [u8]) -> Option<Self> {
        let subject = text
            .strip_prefix(b"Invalid user ")
            .or_else(|| text.strip_prefix(b"Illegal user "))
            .or_else(|| text.strip_prefix(b"invalid user "))?;
        let (user, from) = match subject.strip_prefix(b"from ") {
            // An empty name leaves one space where two would stand.
            Some(rest) if !reader::contains(rest, b" from ") => (&b""[..], From::ending(rest)?),
            _ => last_from(subject)?,
        };
        Some(Self::refused(Some(user), from))
    }

    /// `Connection closed by [authenticating user NAME |invalid user NAME ]ADDRESS[ port N]`, also `reset`; and
    /// `Connection from ADDRESS port N on …`.
    fn connection(text: &'r [u8], is_early: bool) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"Connection from ") {
            let mut reader = Reader::new(rest);
            let peer = reader.word();
            let port = reader.tag(b"port ").then(|| reader::port(reader.word()));
            return Some(Self {
                verdict: Verdict::Opened,
                peer: Some(peer),
                port: port.flatten(),
                ..Self::default()
            });
        }
        let rest = text
            .strip_prefix(b"Connection closed by ")
            .or_else(|| text.strip_prefix(b"Connection reset by "))?;
        Some(Self::ended(rest, is_early))
    }

    /// `Disconnected from …`, `Disconnecting …: REASON`, `Did not receive identification string from …`
    fn disconnect(text: &'r [u8], is_early: bool) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"Disconnected from ") {
            return Some(Self::ended(rest, is_early));
        }
        if let Some(rest) = text.strip_prefix(b"Did not receive identification string from ") {
            return Some(Self::refused(None, From::starting(rest)?));
        }
        if text.starts_with(b"Disconnecting: ") {
            return Some(Self {
                verdict: Verdict::ClosedEarly,
                user: reader::split(text, b"Too many authentication failures for ").map(|(_, u)| u),
                ..Self::default()
            });
        }
        let rest = text.strip_prefix(b"Disconnecting ")?;
        // The reason may repeat the name, so what stands before its first words is taken.
        let (subject, _) = [
            &b": Too many authentication failures"[..],
            b": Change of username or service not allowed",
            b": ",
        ]
        .iter()
        .find_map(|reason| reader::split(rest, reason))?;
        Some(Self {
            verdict: Verdict::ClosedEarly,
            is_last: false,
            ..Self::ended(subject, true)
        })
    }

    /// `[authenticating user NAME |invalid user NAME |user NAME ]ADDRESS[ port N]`, at the end of a line.
    fn ended(rest: &'r [u8], is_early: bool) -> Self {
        let (subject, port) = with_port(rest);
        let (name, peer) = reader::rsplit_byte(subject, b' ').unwrap_or((b"", subject));
        let user = name
            .strip_prefix(b"authenticating user")
            .or_else(|| name.strip_prefix(b"invalid user"))
            .or_else(|| name.strip_prefix(b"user"))
            .map(|user| user.strip_prefix(b" ").unwrap_or(user));
        let before_login = name.starts_with(b"authenticating") || name.starts_with(b"invalid");
        Self {
            verdict: match is_early || before_login {
                true => Verdict::ClosedEarly,
                false => Verdict::Closed,
            },
            user,
            peer: Some(peer),
            port,
            is_last: true,
            ..Self::default()
        }
    }

    /// `Received disconnect from ADDRESS[ port N]:[ ]CODE: TEXT`. The text is the client's.
    fn received(text: &'r [u8], is_early: bool) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"ROOT LOGIN REFUSED FROM ") {
            return Some(Self::refused(Some(b"root"), From::starting(rest)?));
        }
        let rest = text.strip_prefix(b"Received disconnect from ")?;
        let mut reader = Reader::new(rest);
        let peer = reader.while_(|b| b != b' ');
        let (peer, port) = match reader.tag(b" port ") {
            true => (
                peer,
                reader.digits(1, 5).and_then(|p| u16::try_from(p).ok()),
            ),
            false => (peer.strip_suffix(b":").unwrap_or(peer), None),
        };
        let is_failure = is_early || reader::contains(reader.rest(), b"Auth fail");
        Some(Self {
            verdict: match is_failure {
                true => Verdict::ClosedEarly,
                false => Verdict::Closed,
            },
            peer: Some(peer),
            port,
            ..Self::default()
        })
    }

    /// `User NAME from HOST not allowed because REASON`. The account exists.
    fn not_allowed(text: &'r [u8]) -> Option<Self> {
        let (subject, _) = reader::split(text.strip_prefix(b"User ")?, b" not allowed because ")?;
        let (user, host) = reader::rsplit(subject, b" from ")?;
        Some(Self::refused(
            Some(user),
            From {
                peer: host,
                port: None,
            },
        ))
    }

    /// `Unable to negotiate with ADDRESS port N: REASON`
    fn negotiation(text: &'r [u8]) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"Unable to negotiate with ") {
            return Some(Self::refused(None, From::starting(rest)?));
        }
        text.starts_with(b"Unable to negotiate a key exchange method")
            .then_some(Self {
                verdict: Verdict::ClosedEarly,
                ..Self::default()
            })
    }

    /// `maximum authentication attempts exceeded for [invalid user ]NAME from ADDRESS port N ssh2`
    fn maximum(text: &'r [u8]) -> Option<Self> {
        let subject = text.strip_prefix(b"maximum authentication attempts exceeded for ")?;
        let (user, _, from) = subject_from(subject)?;
        Some(Self::refused(Some(user), from))
    }

    /// `ssh_dispatch_run_fatal: Connection from [… user NAME ]ADDRESS port N: REASON`, `Starting session: …`
    fn dispatch(text: &'r [u8]) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"ssh_dispatch_run_fatal: Connection from ") {
            let (subject, reason) = reader::rsplit(rest, b": ")?;
            // A line that breaks in transit is the network's doing.
            let is_network = matches!(reason, b"Broken pipe" | b"Connection timed out");
            return Some(Self::ended(subject, !is_network));
        }
        let (subject, from) = last_from(text.strip_prefix(b"Starting session: ")?)?;
        let (_, user) = reader::rsplit(subject, b" for ")?;
        Some(Self {
            verdict: Verdict::None,
            ..Self::refused(Some(user), from)
        })
    }

    /// `SSH: Server;Ltype: Version;Remote: ADDRESS-PORT;…`, as the HPN patches have it.
    fn patched(text: &'r [u8]) -> Option<Self> {
        let kind = text.strip_prefix(b"SSH: Server;Ltype: ")?;
        let (peer, port) = reader::rsplit_byte(reader::between(kind, b"Remote: ", b';')?, b'-')?;
        Some(Self {
            verdict: match kind.starts_with(b"Version;") {
                true => Verdict::Opened,
                false => Verdict::None,
            },
            peer: Some(peer),
            port: reader::port(port),
            ..Self::default()
        })
    }

    fn seldom(text: &'r [u8], is_early: bool) -> Option<Self> {
        let closed = Self {
            verdict: Verdict::ClosedEarly,
            ..Self::default()
        };
        let from_start = |prefix: &[u8]| From::starting(text.strip_prefix(prefix)?);
        let starting = from_start(b"banner exchange: Connection from ")
            .or_else(|| from_start(b"Timeout before authentication for connection from "))
            .or_else(|| from_start(b"Timeout before authentication for "));
        if let Some(from) = starting {
            return Some(Self::refused(None, from));
        }
        if let Some(rest) = text.strip_prefix(b"Bad protocol version identification ") {
            return Some(Self::refused(None, last_from(rest)?.1));
        }
        if let Some(rest) = text.strip_prefix(b"refused connect from ") {
            return refused_connect(rest).map(|from| Self::refused(None, from));
        }
        if let Some(rest) = text.strip_prefix(b"drop connection #") {
            return dropped(rest).map(|from| Self::refused(None, from));
        }
        if text.starts_with(b"no matching ") || text.starts_with(b"kex_exchange_identification: ") {
            return Some(closed);
        }
        (is_early && text.starts_with(b"Read from socket failed")).then_some(Self {
            is_last: true,
            ..closed
        })
    }
}

/// Where a connection came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct From<'r> {
    peer: &'r [u8],
    port: Option<u16>,
}

impl<'r> From<'r> {
    /// `ADDRESS[ port N]` at the beginning of `rest`; what follows is not looked at.
    fn starting(rest: &'r [u8]) -> Option<Self> {
        let mut reader = Reader::new(rest);
        let peer = reader.word();
        // `ADDRESS: reason`, where the last colon is not the address's.
        let peer = match reader::address(peer) {
            Some(_) => peer,
            None => peer.strip_suffix(b":").unwrap_or(peer),
        };
        if peer.is_empty() {
            return None;
        }
        let port = match reader.tag(b"port ") {
            true => reader
                .digits(1, 5)
                .and_then(|port| u16::try_from(port).ok()),
            false => None,
        };
        Some(Self { peer, port })
    }

    /// `ADDRESS[ port N][ ssh2][: INFO]`, and nothing else up to the end.
    fn ending(rest: &'r [u8]) -> Option<Self> {
        let mut reader = Reader::new(rest);
        let peer = reader.while_(|b| b != b' ');
        if peer.is_empty() {
            return None;
        }
        let mut port = None;
        if reader.tag(b" port ") {
            port = reader
                .digits(1, 5)
                .and_then(|port| u16::try_from(port).ok());
            port?;
        }
        let _ = reader.tag(b" ssh2") || reader.tag(b" ssh1");
        let ends = reader.rest().trim_ascii().is_empty() || reader.tag(b": ");
        ends.then_some(Self { peer, port })
    }
}

/// Splits off ` port N` at the end.
fn with_port(text: &[u8]) -> (&[u8], Option<u16>) {
    match reader::rsplit(text, b" port ") {
        Some((before, port)) if reader::decimal(port).is_some() => (before, reader::port(port)),
        _ => (text, None),
    }
}

/// Splits `NAME from ADDRESS…` at the last ` from ` that an address and nothing foreign follows.
fn last_from(subject: &[u8]) -> Option<(&[u8], From<'_>)> {
    let mut end = subject;
    loop {
        let (name, _) = reader::rsplit(end, b" from ")?;
        let rest = subject.get(name.len() + b" from ".len()..)?;
        if let Some(from) = From::ending(rest) {
            return Some((name, from));
        }
        end = name;
    }
}

/// Takes `invalid user ` off a name; returns whether the account exists.
fn known(user: &[u8]) -> (&[u8], bool) {
    match user
        .strip_prefix(b"invalid user ")
        .or_else(|| user.strip_prefix(b"illegal user "))
    {
        Some(name) => (name, false),
        None => (
            user,
            !matches!(user, b"<invalid username>" | b"invalid user"),
        ),
    }
}

/// `[invalid user ]NAME from ADDRESS port N ssh2[: INFO]`: the name, whether it exists, and where it came from.
///
/// The name of an account that exists is not the client's to invent, so its first word decides, and what a client
/// puts into INFO (a host name, a certificate's id) does not. A name that does not exist may say anything, also
/// ` from 192.0.2.1 port 22 ssh2`: there the last address decides, which sshd wrote after it.
fn subject_from(subject: &[u8]) -> Option<(&[u8], bool, From<'_>)> {
    let (_, exists) = known(subject);
    if exists
        && let Some((user, rest)) = reader::split_byte(subject, b' ')
        && let Some(from) = rest.strip_prefix(b"from ").and_then(From::ending)
    {
        return Some((user, true, from));
    }
    let (user, from) = last_from(subject)?;
    let (user, exists) = known(user);
    Some((user, exists, from))
}

/// `NAME@ADDRESS (ADDRESS)`, as the TCP wrappers write it: the last is what they looked up.
fn refused_connect(rest: &[u8]) -> Option<From<'_>> {
    let peer = match rest.strip_suffix(b")") {
        Some(inner) => reader::rsplit_byte(inner, b'(')?.1,
        None => rest,
    };
    Some(From { peer, port: None })
}

/// `0 from [ADDRESS]:PORT on [ADDRESS]:PORT penalty: REASON`
fn dropped(rest: &[u8]) -> Option<From<'_>> {
    let (_, rest) = reader::split(rest, b" from ")?;
    let peer = Reader::new(rest).word();
    let (host, port) = reader::rsplit_byte(peer, b':')?;
    Some(From {
        peer: host,
        port: reader::port(port),
    })
}
