//! What OpenSSH's sshd writes. `Outcome: failure` stands on each refused attempt, and on the line that closes a
//! connection before login if no attempt of it was counted yet: a client that only probes names or keys counts once.
//! A guessed name that does not exist counts when it is named (`Invalid user …`, all that a server without passwords
//! writes of it) and at each refused method.

mod peer;
mod said;

pub use said::begins;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use crate::decode::program::sshd::said::{Said, Verdict};
use crate::decode::program::{FAILURE, Line, SUCCESS};
use crate::decode::reader;
use crate::decode::set_source;
use crate::event::field;
use crate::event::{Event, Value};

/// Connections remembered at a time. sshd's own limit of unauthenticated ones, MaxStartups, is 100 by default.
const SESSIONS_MAX: usize = 1024;

/// What is remembered of connections whose lines are still coming, by host and process.
#[derive(Debug, Default)]
pub struct Sessions {
    known: HashMap<u64, Session, BuildHasherDefault<Ready>>,
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
    /// The beginning of the line that said so, as a hash: no connection ends in the same words twice.
    end: Option<u64>,
}

impl Sessions {
    fn of(&mut self, line: &Line<'_>) -> Option<&mut Session> {
        let process = line.process?;
        let key = connection_key(line.host, process);
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
    if said.verdict == Verdict::ClosedEarly {
        session.end(line.message);
    }
    if let Some(outcome) = session.judge(&said, event) {
        event.set(field::OUTCOME, outcome);
    }
    if said.is_last {
        *session = Session::default();
    }
}

/// FNV-1a over host and process. Who can choose both writes sshd's lines himself, and gains nothing by a collision.
fn connection_key(host: &[u8], process: &[u8]) -> u64 {
    let bytes = host.iter().chain(b" ").chain(process);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A hasher for keys that are hashes already.
#[derive(Debug, Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = connection_key(bytes, b"");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// `fatal: Unable to negotiate` and the like are told apart by this much.
const END_BYTES: usize = 24;

impl Session {
    fn end(&mut self, message: &[u8]) {
        let words = message.get(..END_BYTES).unwrap_or(message);
        let end = Some(connection_key(words, b""));
        if self.end == end {
            *self = Self {
                peer: self.peer.take(),
                ..Self::default()
            };
        }
        self.end = end;
    }

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

#[cfg(test)]
mod tests {
    use crate::decode::for_format;
    use crate::decode::tests::{around, decoded, record};
    use crate::decode::{Decoder, Format};
    use crate::event::field::Unknown;

    /// What sshd's fields are for a message of process 7, without those of the header.
    fn read(decoder: &mut dyn Decoder, message: &str) -> String {
        let line = record(format!("Mar  1 10:00:00 web1 sshd[7]: {message}"));
        let (seen, outcome) = decoded(decoder, &line, Unknown::Drop);
        assert_eq!(outcome, Ok(()));
        let own = [
            "AuthenticationMethod",
            "TargetUserName",
            "SourceIp",
            "SourceHostname",
            "SourcePort",
            "Outcome",
        ];
        let of = |name: &&str| seen[0].first(name).map(|value| format!("{value}|"));
        let shown: String = own.iter().filter_map(of).collect();
        shown.trim_end_matches('|').to_owned()
    }

    fn alone(message: &str) -> String {
        read(&mut *for_format(Format::Syslog, &around()), message)
    }

    #[test]
    fn attempts_name_method_account_and_source() {
        for (message, expected) in [
            (
                "Failed password for root from 192.0.2.7 port 51 ssh2",
                "password|root|192.0.2.7|51|failure",
            ),
            (
                "Failed password for invalid user an from 2001:db8::7 port 51 ssh2",
                "password|an|2001:db8::7|51|failure",
            ),
            (
                "Failed keyboard-interactive/pam for root from 192.0.2.7 port 51 ssh2",
                "keyboard-interactive/pam|root|192.0.2.7|51|failure",
            ),
            (
                "Failed password for root from 192.0.2.7",
                "password|root|192.0.2.7|failure",
            ),
            (
                "Failed password for an from gw.example.org port 51 ssh2",
                "password|an|gw.example.org|51|failure",
            ),
            (
                "Failed publickey for root from 192.0.2.7 port 51 ssh2: RSA SHA256:abc",
                "publickey|root|192.0.2.7|51",
            ),
            (
                "Failed publickey for invalid user an from 192.0.2.7 port 51 ssh2: RSA SHA256:abc",
                "publickey|an|192.0.2.7|51|failure",
            ),
            (
                "Failed none for root from 192.0.2.7 port 51 ssh2",
                "none|root|192.0.2.7|51",
            ),
            (
                "Accepted publickey for an from 192.0.2.7 port 51 ssh2: ED25519 SHA256:abc",
                "publickey|an|192.0.2.7|51|success",
            ),
            (
                "Accepted password for CORP\\an binh from 192.0.2.7 port 51 ssh2",
                "password|CORP\\an binh|192.0.2.7|51|success",
            ),
            (
                "Postponed publickey for an from 192.0.2.7 port 51 ssh2 [preauth]",
                "publickey|an|192.0.2.7|51",
            ),
            (
                "Invalid user an from 192.0.2.7 port 51",
                "an|192.0.2.7|51|failure",
            ),
            (
                "Invalid user  from 192.0.2.7 port 51",
                "192.0.2.7|51|failure",
            ),
            (
                "Illegal user an from ::ffff:192.0.2.7",
                "an|192.0.2.7|failure",
            ),
            (
                "Connection closed by authenticating user an 192.0.2.7 port 51 [preauth]",
                "an|192.0.2.7|51|failure",
            ),
            (
                "Connection closed by invalid user  192.0.2.7 port 51 [preauth]",
                "192.0.2.7|51|failure",
            ),
            ("Connection closed by 192.0.2.7 port 51", "192.0.2.7|51"),
            (
                "Disconnected from user an 192.0.2.7 port 51",
                "an|192.0.2.7|51",
            ),
            (
                "Received disconnect from 192.0.2.7 port 51:11: disconnected by user",
                "192.0.2.7|51",
            ),
            (
                "Received disconnect from 2001:db8::7: 11: Bye Bye [preauth]",
                "2001:db8::7",
            ),
            (
                "error: maximum authentication attempts exceeded for root from 192.0.2.7 port 51 ssh2 [preauth]",
                "root|192.0.2.7|51|failure",
            ),
            (
                "Did not receive identification string from 192.0.2.7 port 51",
                "192.0.2.7|51|failure",
            ),
            (
                "Bad protocol version identification 'GET / HTTP/1.1' from 192.0.2.7 port 51",
                "192.0.2.7|51|failure",
            ),
            (
                "fatal: Timeout before authentication for 192.0.2.7 port 51",
                "192.0.2.7|51|failure",
            ),
            (
                "Unable to negotiate with 192.0.2.7 port 51: no matching cipher found. Their offer: x [preauth]",
                "192.0.2.7|51|failure",
            ),
            (
                "banner exchange: Connection from 192.0.2.7 port 51: invalid format",
                "192.0.2.7|51|failure",
            ),
            (
                "User an from 192.0.2.7 not allowed because not listed in AllowUsers",
                "an|192.0.2.7|failure",
            ),
            (
                "ROOT LOGIN REFUSED FROM 192.0.2.7 port 51",
                "root|192.0.2.7|51|failure",
            ),
            (
                "error: PAM: Authentication failure for illegal user an from gw.example.org",
                "an|gw.example.org|failure",
            ),
            (
                "drop connection #0 from [192.0.2.7]:51 on [192.0.2.1]:22 penalty: failed authentication",
                "192.0.2.7|51|failure",
            ),
            (
                "refused connect from x@::ffff:192.0.2.7 (::ffff:192.0.2.7)",
                "192.0.2.7|failure",
            ),
            (
                "Address 192.0.2.7 maps to gw.example.org, but this does not map back to the address.",
                "192.0.2.7",
            ),
            (
                "reverse mapping checking getaddrinfo for gw.example.org [192.0.2.7] failed.",
                "192.0.2.7",
            ),
            ("Server listening on 0.0.0.0 port 22.", ""),
            ("Received signal 15; terminating.", ""),
            ("Failed", ""),
            ("", ""),
        ] {
            assert_eq!(alone(message), expected, "{message}");
        }
    }

    #[test]
    fn a_name_that_imitates_a_line_does_not_change_the_source() {
        for message in [
            "Failed password for invalid user root from 198.51.100.9 port 22 ssh2 from 192.0.2.7 port 51 ssh2",
            "Failed password for invalid user x from 198.51.100.9 port 22 ssh2: from 192.0.2.7 port 51 ssh2",
            "Failed password for root from 192.0.2.7 port 51 ssh2: ruser from 198.51.100.9",
            "Failed hostbased for root from 192.0.2.7 port 51 ssh2: RSA a:b, client user \"x from 198.51.100.9 port 22 ssh2\", client host \"y\"",
            "Invalid user x from 198.51.100.9 port 22 from 192.0.2.7 port 51",
            "Connection closed by invalid user x 198.51.100.9 port 22 192.0.2.7 port 51 [preauth]",
            "Disconnected from authenticating user x 198.51.100.9 port 22 192.0.2.7 port 51 [preauth]",
            "maximum authentication attempts exceeded for invalid user x from 198.51.100.9 port 22 ssh2 from 192.0.2.7 port 51 ssh2",
            "Bad protocol version identification 'x' from 198.51.100.9 port 22' from 192.0.2.7 port 51",
        ] {
            assert!(
                alone(message).contains("|192.0.2.7|51")
                    || alone(message).starts_with("192.0.2.7|51"),
                "{message}: {}",
                alone(message)
            );
        }
    }

    #[test]
    fn a_connection_that_failed_once_does_not_fail_again_by_closing() {
        for (lines, failures) in [
            (
                &[
                    "Failed password for root from 192.0.2.7 port 51 ssh2",
                    "Failed password for root from 192.0.2.7 port 51 ssh2",
                    "Received disconnect from 192.0.2.7 port 51:11: Bye Bye [preauth]",
                    "Disconnected from authenticating user root 192.0.2.7 port 51 [preauth]",
                ][..],
                2,
            ),
            (
                &[
                    "Failed publickey for an from 192.0.2.7 port 51 ssh2: RSA SHA256:a",
                    "Failed publickey for an from 192.0.2.7 port 51 ssh2: RSA SHA256:b",
                    "Connection closed by authenticating user an 192.0.2.7 port 51 [preauth]",
                ],
                1,
            ),
            (
                &[
                    "Failed publickey for an from 192.0.2.7 port 51 ssh2: RSA SHA256:a",
                    "Accepted publickey for an from 192.0.2.7 port 51 ssh2: RSA SHA256:b",
                    "Received disconnect from 192.0.2.7 port 51:11: disconnected by user",
                    "Disconnected from user an 192.0.2.7 port 51",
                ],
                0,
            ),
            (
                &[
                    "error: kex_exchange_identification: Connection closed by remote host",
                    "Connection closed by 192.0.2.7 port 51",
                    "Connection closed by 192.0.2.7 port 52",
                ],
                1,
            ),
            (
                &[
                    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
                    "Failed password for root from 192.0.2.7 port 51 ssh2",
                ],
                1,
            ),
            // A process id that comes back is another connection.
            (
                &[
                    "Connection closed by 192.0.2.7 port 51 [preauth]",
                    "Connection closed by 192.0.2.7 port 51 [preauth]",
                    "Failed password for root from 192.0.2.8 port 51 ssh2",
                    "Connection closed by authenticating user root 192.0.2.9 port 51 [preauth]",
                ],
                4,
            ),
        ] {
            let mut decoder = for_format(Format::Syslog, &around());
            let failed = lines
                .iter()
                .filter(|line| read(&mut *decoder, line).ends_with("failure"))
                .count();
            assert_eq!(failed, failures, "{lines:?}");
        }
    }

    #[test]
    fn a_line_without_an_address_has_that_of_its_connection() {
        let mut decoder = for_format(Format::Syslog, &around());
        read(
            &mut *decoder,
            "Connection from 192.0.2.7 port 51 on 192.0.2.1 port 22",
        );
        let found = read(
            &mut *decoder,
            "Disconnecting: Too many authentication failures for an [preauth]",
        );
        assert_eq!(found, "an|192.0.2.7|51|failure");
    }
}
