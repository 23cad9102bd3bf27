//! Where a line of sshd says a connection came from, and the name before it, which may imitate it.

use crate::decode::reader::{self, Reader};

/// Where a connection came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer<'r> {
    pub host: &'r [u8],
    pub port: Option<u16>,
}

impl<'r> Peer<'r> {
    /// `ADDRESS[ port N]` at the beginning of `rest`; what follows is not looked at.
    pub fn starting(rest: &'r [u8]) -> Option<Self> {
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
        Some(Self { host: peer, port })
    }

    /// `ADDRESS[ port N][ ssh2][: INFO]`, and nothing else up to the end.
    pub fn ending(rest: &'r [u8]) -> Option<Self> {
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
        ends.then_some(Self { host: peer, port })
    }
}

/// Splits off ` port N` at the end.
pub fn with_port(text: &[u8]) -> (&[u8], Option<u16>) {
    match reader::rsplit(text, b" port ") {
        Some((before, port)) if reader::decimal(port).is_some() => (before, reader::port(port)),
        _ => (text, None),
    }
}

/// Splits `NAME from ADDRESS…` at the last ` from ` that an address and nothing foreign follows.
pub fn last_from(subject: &[u8]) -> Option<(&[u8], Peer<'_>)> {
    let mut end = subject;
    loop {
        let (name, _) = reader::rsplit(end, b" from ")?;
        let rest = subject.get(name.len() + b" from ".len()..)?;
        if let Some(from) = Peer::ending(rest) {
            return Some((name, from));
        }
        end = name;
    }
}

/// Takes `invalid user ` off a name; returns whether the account exists.
pub fn known(user: &[u8]) -> (&[u8], bool) {
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
pub fn subject_from(subject: &[u8]) -> Option<(&[u8], bool, Peer<'_>)> {
    let (_, exists) = known(subject);
    if exists
        && let Some((user, rest)) = reader::split_byte(subject, b' ')
        && let Some(from) = rest.strip_prefix(b"from ").and_then(Peer::ending)
    {
        return Some((user, true, from));
    }
    let (user, from) = last_from(subject)?;
    let (user, exists) = known(user);
    Some((user, exists, from))
}

/// `NAME@ADDRESS (ADDRESS)`, as the TCP wrappers write it: the last is what they looked up.
pub fn refused_connect(rest: &[u8]) -> Option<Peer<'_>> {
    let peer = match rest.strip_suffix(b")") {
        Some(inner) => reader::rsplit_byte(inner, b'(')?.1,
        None => rest,
    };
    Some(Peer {
        host: peer,
        port: None,
    })
}

/// `0 from [ADDRESS]:PORT on [ADDRESS]:PORT penalty: REASON`
pub fn dropped(rest: &[u8]) -> Option<Peer<'_>> {
    let (_, rest) = reader::split(rest, b" from ")?;
    let peer = Reader::new(rest).word();
    let (host, port) = reader::rsplit_byte(peer, b':')?;
    Some(Peer {
        host,
        port: reader::port(port),
    })
}
