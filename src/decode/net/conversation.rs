//! Finds out by content, on any port, which protocol a connection speaks, and has its reader read it. Reassembles
//! nothing: whoever feeds it gives each side's bytes in order, and again what was not used.

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{Guess, Opening, Out, Protocol, Scene, Side, Step};
use crate::decode::net::dns::stream::DnsStream;
use crate::decode::net::ftp::Ftp;
use crate::decode::net::http::Http;
use crate::decode::net::imap::Imap;
use crate::decode::net::pop::Pop;
use crate::decode::net::smtp::Smtp;
use crate::decode::net::ssh::Ssh;
use crate::decode::net::telnet::Telnet;
use crate::decode::net::tls::Tls;
use crate::event::Event;
use crate::event::field::network;

/// One connection over TCP.
#[derive(Default)]
pub struct Conversation {
    state: State,
    /// The first bytes of each side, while it is not known.
    openings: [Vec<u8>; 2],
}

#[derive(Default)]
enum State {
    #[default]
    Unknown,
    Known(Box<dyn Protocol>),
    Over,
}

/// A banner of 512 bytes without a word that is known is of no protocol that is read here.
const GUESS_BYTES_MAX: usize = 512;
/// Enough to tell one greeting from another.
const OPENING_BYTES_MAX: usize = 64;

type Judge = fn(&Opening<'_>) -> Guess;
type Begin = fn() -> Box<dyn Protocol>;

/// Strictest first.
const PROTOCOLS: &[(Judge, Begin)] = &[
    (Http::guess, || Box::new(Http::default())),
    (Tls::guess, || Box::new(Tls::default())),
    (Ssh::guess, || Box::new(Ssh::default())),
    (Smtp::guess, || Box::new(Smtp::default())),
    (Ftp::guess, || Box::new(Ftp::default())),
    (Pop::guess, || Box::new(Pop::default())),
    (Imap::guess, || Box::new(Imap::default())),
    (Telnet::guess, || Box::new(Telnet::default())),
    (DnsStream::guess, || Box::new(DnsStream)),
];

impl Conversation {
    /// Reads what one side sent and was not used before.
    ///
    /// # Errors
    /// When it breaks its protocol. The conversation is over then, and what was read before was told.
    pub fn read(
        &mut self,
        side: Side,
        bytes: &[u8],
        scene: &Scene<'_>,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Step, DecodeError> {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            if let State::Unknown = self.state
                && let Some(step) = self.recognise(side, rest)
            {
                return Ok(step.after(used));
            }
            let State::Known(protocol) = &mut self.state else {
                return Ok(Step::Done);
            };
            match protocol.read(side, rest, &mut Out { scene, emit }) {
                // What follows is read at once, as whatever it is.
                Ok(Step::Switch(count)) => {
                    *self = Self::default();
                    used += count;
                    if used >= bytes.len() {
                        return Ok(Step::Used(used));
                    }
                }
                Ok(Step::Done) => {
                    self.state = State::Over;
                    return Ok(Step::Done);
                }
                Ok(step) => return Ok(step.after(used)),
                Err(error) => {
                    self.finish(scene, emit);
                    anomaly(error, &mut Out { scene, emit });
                    return Err(error);
                }
            }
        }
    }

    /// Tells what waited for more, at the connection's end.
    pub fn finish(&mut self, scene: &Scene<'_>, emit: &mut dyn FnMut(&Event<'_>)) {
        if let State::Known(protocol) = &mut self.state {
            protocol.finish(&mut Out { scene, emit });
        }
        self.state = State::Over;
    }

    /// Returns Zeek's name of the protocol, once it is known.
    pub fn service(&self) -> Option<&'static str> {
        match &self.state {
            State::Unknown | State::Over => None,
            State::Known(protocol) => Some(protocol.service()),
        }
    }

    /// Takes up the protocol that the bytes begin; a step where they are none's, or too few.
    fn recognise(&mut self, side: Side, bytes: &[u8]) -> Option<Step> {
        let (own, other) = match (side, &mut self.openings) {
            (Side::Client, [own, other]) | (Side::Server, [other, own]) => (own, other),
        };
        let opening = Opening { side, bytes, other };
        let mut perhaps = false;
        for (judge, begin) in PROTOCOLS {
            match judge(&opening) {
                Guess::Yes => {
                    self.state = State::Known(begin());
                    return None;
                }
                Guess::Perhaps => perhaps = true,
                Guess::No => {}
            }
        }
        *own = bytes.get(..OPENING_BYTES_MAX).unwrap_or(bytes).to_vec();
        // What begins like nothing known may still be told by the other side.
        let is_hopeless = !perhaps && !other.is_empty();
        if is_hopeless || bytes.len() >= GUESS_BYTES_MAX {
            self.state = State::Over;
            return Some(Step::Done);
        }
        Some(Step::Used(0))
    }
}

/// Tells what broke its protocol, by words of a closed set.
pub fn anomaly(error: DecodeError, out: &mut Out<'_, '_>) {
    let (how, what) = match error {
        DecodeError::Foreign { what } => ("foreign", what),
        DecodeError::Malformed { what, .. } => ("malformed", what),
        DecodeError::Truncated { what, .. } => ("truncated", what),
        DecodeError::TooDeep { what, .. } => ("too deep", what),
    };
    let mut event = out.event(&["network_anomaly"], &["weird"]);
    event.set(network::ANOMALY, format!("{how} {what}"));
    out.emit(&event);
}

#[cfg(test)]
pub mod tests;
