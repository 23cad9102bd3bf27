//! OpenLDAP's slapd with `loglevel stats`: the peer stands where a connection begins, the outcome some lines later.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::decode::program::{FAILURE, SUCCESS};
use crate::decode::reader::{self, Reader};
use crate::event::field;
use crate::event::{Event, Value};

/// Connections remembered at a time, oldest forgotten first: slapd's own default of threads is 16, and who binds
/// does it at once.
const CONNECTIONS_MAX: usize = 256;

/// Peers by connection.
#[derive(Debug, Default)]
pub struct Connections(VecDeque<Connection>);

#[derive(Debug, Clone, Copy)]
struct Connection {
    number: u64,
    peer: (IpAddr, u16),
}

/// Reads `conn=1022 fd=21 ACCEPT from IP=192.0.2.7:45011 (IP=…)`, `conn=1022 op=1 BIND dn="…" method=128` and
/// `conn=1022 op=1 RESULT tag=97 err=49 text=`. Tag 97 is the answer to a bind, error 49 a wrong password (RFC 4511
/// 4.2.2 and A.1).
pub fn read<'r>(message: &'r [u8], connections: &mut Connections, event: &mut Event<'r>) {
    event.set(field::SERVICE, "slapd");
    let Some(rest) = message.strip_prefix(b"conn=") else {
        return;
    };
    let Some((number, rest)) = reader::split_byte(rest, b' ') else {
        return;
    };
    let Some(number) = reader::decimal(number) else {
        return;
    };
    let known = connections.0.iter().rposition(|c| c.number == number);
    if let Some((_, peer)) = reader::split(rest, b"ACCEPT from IP=") {
        let Some(peer) = peer_at(peer) else {
            return;
        };
        if let Some(at) = known {
            connections.0.remove(at);
        }
        if connections.0.len() == CONNECTIONS_MAX {
            connections.0.pop_front();
        }
        connections.0.push_back(Connection { number, peer });
        return set_peer(peer, event);
    }
    if let Some(connection) = known.and_then(|at| connections.0.get(at)) {
        set_peer(connection.peer, event);
    }
    if let Some(name) = reader::between(rest, b" BIND dn=\"", b'"') {
        if !name.is_empty() {
            event.set(field::TARGET_USER_NAME, name);
        }
    } else if let Some((_, code)) = reader::split(rest, b" RESULT tag=97 err=") {
        let mut code = Reader::new(code);
        match code.digits(1, 3) {
            Some(0) => event.set(field::OUTCOME, SUCCESS),
            Some(49) => event.set(field::OUTCOME, FAILURE),
            _ => {}
        }
    } else if rest.ends_with(b" closed")
        && let Some(at) = known
    {
        connections.0.remove(at);
    }
}

/// `192.0.2.7:45011 (…)`, `[2001:db8::7]:45011 (…)`
fn peer_at(text: &[u8]) -> Option<(IpAddr, u16)> {
    let peer = reader::split_byte(text, b' ').map_or(text, |(peer, _)| peer);
    let (address, port) = reader::rsplit_byte(peer, b':')?;
    let address = address.strip_prefix(b"[").unwrap_or(address);
    let address = address.strip_suffix(b"]").unwrap_or(address);
    Some((reader::address(address)?, reader::port(port)?))
}

fn set_peer((address, port): (IpAddr, u16), event: &mut Event<'_>) {
    event.set(field::SOURCE_IP, Value::Ip(address));
    event.set(field::SOURCE_PORT, port);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn a_refused_bind_is_a_failure_from_who_connected() {
        let mut connections = Connections::default();
        for (message, expected) in [
            (
                "conn=7 fd=21 ACCEPT from IP=192.0.2.7:45011 (IP=0.0.0.0:636)",
                "Service=slapd SourceIp=192.0.2.7 SourcePort=45011",
            ),
            (
                "conn=8 fd=22 ACCEPT from IP=[2001:db8::7]:45012 (IP=[::]:636)",
                "Service=slapd SourceIp=2001:db8::7 SourcePort=45012",
            ),
            (
                "conn=7 op=1 BIND dn=\"uid=an,dc=example,dc=org\" method=128",
                "Service=slapd SourceIp=192.0.2.7 SourcePort=45011 TargetUserName=uid=an,dc=example,dc=org",
            ),
            (
                "conn=7 op=1 RESULT tag=97 err=49 text=",
                "Service=slapd SourceIp=192.0.2.7 SourcePort=45011 Outcome=failure",
            ),
            (
                "conn=8 op=0 RESULT tag=97 err=0 text=",
                "Service=slapd SourceIp=2001:db8::7 SourcePort=45012 Outcome=success",
            ),
            (
                "conn=7 fd=21 closed",
                "Service=slapd SourceIp=192.0.2.7 SourcePort=45011",
            ),
            (
                "conn=7 op=1 RESULT tag=97 err=49 text=",
                "Service=slapd Outcome=failure",
            ),
            ("conn= op=1 RESULT tag=97 err=49", "Service=slapd"),
            ("slapd starting", "Service=slapd"),
        ] {
            let seen = shown(|event| read(message.as_bytes(), &mut connections, event));
            assert_eq!(seen, expected, "{message}");
        }
    }

    #[test]
    fn connections_that_never_end_are_forgotten() {
        let mut connections = Connections::default();
        for number in 0..1000 {
            let line = format!("conn={number} fd=1 ACCEPT from IP=192.0.2.7:1 (x)");
            shown(|event| read(line.clone().leak().as_bytes(), &mut connections, event));
        }
        assert_eq!(connections.0.len(), CONNECTIONS_MAX);
    }
}
