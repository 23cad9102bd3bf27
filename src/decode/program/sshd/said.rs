//! What one line of sshd says, by its wording alone.

use crate::decode::program::sshd::peer::{self, Peer};
use crate::decode::reader::{self, Reader};

/// What one line says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Said<'r> {
    pub verdict: Verdict,
    pub user: Option<&'r [u8]>,
    pub method: Option<&'r [u8]>,
    pub peer: Option<&'r [u8]>,
    pub port: Option<u16>,
    /// The process writes no more of this connection.
    pub is_last: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
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
        || is_failed_by_another_method(line)
        || line.starts_with(b"User ") && reader::contains(line, b" not allowed because ")
}

/// `Failed … for … from … port … ssh2` with a method not listed above.
fn is_failed_by_another_method(line: &[u8]) -> bool {
    line.starts_with(b"Failed ")
        && reader::contains(line, b" for ")
        && reader::contains(line, b" ssh2")
}

impl<'r> Said<'r> {
    pub fn read(message: &'r [u8]) -> Self {
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

    fn refused(user: Option<&'r [u8]>, from: Peer<'r>) -> Self {
        Self {
            verdict: Verdict::Refused,
            user,
            peer: Some(from.host),
            port: from.port,
            ..Self::default()
        }
    }

    /// `Failed password for [invalid user ]NAME from ADDRESS port N ssh2[: KEY]`
    fn failed(text: &'r [u8]) -> Option<Self> {
        let (method, subject) = reader::split(text.strip_prefix(b"Failed ")?, b" for ")?;
        let (user, is_known, from) = peer::subject_from(subject)?;
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
        let (user, _, from) = peer::subject_from(subject)?;
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
        let (user, _, from) = peer::subject_from(subject)?;
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
        let (user, _) = peer::known(user);
        Some(Self::refused(Some(user), Peer { host, port: None }))
    }

    /// `Invalid user NAME from ADDRESS[ port N]`. sshd writes it before any method was tried, and once a connection.
    fn invalid_user(text: &'r [u8]) -> Option<Self> {
        let subject = text
            .strip_prefix(b"Invalid user ")
            .or_else(|| text.strip_prefix(b"Illegal user "))
            .or_else(|| text.strip_prefix(b"invalid user "))?;
        let (user, from) = match subject.strip_prefix(b"from ") {
            // An empty name leaves one space where two would stand.
            Some(rest) if !reader::contains(rest, b" from ") => (&b""[..], Peer::ending(rest)?),
            _ => peer::last_from(subject)?,
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
            return Some(Self::refused(None, Peer::starting(rest)?));
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
        let (subject, port) = peer::with_port(rest);
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
            return Some(Self::refused(Some(b"root"), Peer::starting(rest)?));
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
        let reason = reader.rest();
        let _ = reader.tag(b":");
        reader.spaces();
        // RFC 4253 11.1: 11 is a program's own farewell, which tells nothing of a refusal; the line that closes the
        // connection counts if nothing else did.
        let verdict = match reader.digits(1, 2) {
            _ if reader::contains(reason, b"Auth fail") => Verdict::ClosedEarly,
            Some(11) if is_early => Verdict::None,
            _ if is_early => Verdict::ClosedEarly,
            _ => Verdict::Closed,
        };
        Some(Self {
            verdict,
            peer: Some(peer),
            port,
            ..Self::default()
        })
    }

    /// `User NAME from HOST not allowed because REASON`. The account exists.
    fn not_allowed(text: &'r [u8]) -> Option<Self> {
        let (subject, _) = reader::split(text.strip_prefix(b"User ")?, b" not allowed because ")?;
        let (user, host) = reader::rsplit(subject, b" from ")?;
        Some(Self::refused(Some(user), Peer { host, port: None }))
    }

    /// `Unable to negotiate with ADDRESS port N: REASON`
    fn negotiation(text: &'r [u8]) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"Unable to negotiate with ") {
            return Some(Self::refused(None, Peer::starting(rest)?));
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
        let (user, _, from) = peer::subject_from(subject)?;
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
        let (subject, from) = peer::last_from(text.strip_prefix(b"Starting session: ")?)?;
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
        let from_start = |prefix: &[u8]| Peer::starting(text.strip_prefix(prefix)?);
        let starting = from_start(b"banner exchange: Connection from ")
            .or_else(|| from_start(b"Timeout before authentication for connection from "))
            .or_else(|| from_start(b"Timeout before authentication for "));
        if let Some(from) = starting {
            return Some(Self::refused(None, from));
        }
        if let Some(rest) = text.strip_prefix(b"Bad protocol version identification ") {
            return Some(Self::refused(None, peer::last_from(rest)?.1));
        }
        if let Some(rest) = text.strip_prefix(b"refused connect from ") {
            return peer::refused_connect(rest).map(|from| Self::refused(None, from));
        }
        if let Some(rest) = text.strip_prefix(b"drop connection #") {
            return peer::dropped(rest).map(|from| Self::refused(None, from));
        }
        if let Some(peer) = misnamed(text) {
            return Some(Self {
                peer: Some(peer),
                ..Self::default()
            });
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

/// `Address ADDRESS maps to NAME, but …`, `reverse mapping checking getaddrinfo for NAME [ADDRESS] failed`
fn misnamed(text: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = text.strip_prefix(b"Address ") {
        return Some(reader::split(rest, b" maps to ")?.0);
    }
    let rest = text.strip_prefix(b"reverse mapping checking getaddrinfo for ")?;
    reader::between(rest, b" [", b']')
}
