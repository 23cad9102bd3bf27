//! Finds out by content, on any port, which protocol a connection speaks, and has its reader read it. Reassembles
//! nothing: whoever feeds it gives each side's bytes in order, and again what was not used.

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{Guess, Side, Step};
use crate::decode::net::http::{Exchange, Http};
use crate::decode::net::ssh::{self, Ssh};
use crate::decode::net::tls::{self, Tls};
use crate::event::Event;
use crate::event::field;
use crate::event::field::network;

/// What events are made of besides what was read.
pub struct Scene<'s> {
    /// Gives a new event its time, its ends and the products it is of.
    pub prepare: &'s dyn Fn(&mut Event<'_>),
    /// Whether this host began: tells who is the web server's side and who the proxy's. `None`: not known.
    pub initiated: Option<bool>,
}

/// One connection over TCP.
#[derive(Debug, Default)]
pub struct Conversation {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Sides that gave bytes which are the beginning of nothing known.
    #[default]
    Unheard,
    Strange(Side),
    Http(Box<Http>),
    Tls(Box<Tls>),
    Ssh(Box<Ssh>),
    Over,
}

/// A banner of 512 bytes without a word that is known is of no protocol that is read here.
const GUESS_BYTES_MAX: usize = 512;

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
        if let State::Unheard | State::Strange(_) = self.state
            && let Some(step) = self.recognise(side, bytes)
        {
            return Ok(step);
        }
        let step = match &mut self.state {
            State::Unheard | State::Strange(_) | State::Over => Ok(Step::Done),
            State::Http(http) => http.read(side, bytes, &mut |found| scene.http(found, emit)),
            State::Tls(tls) => tls.read(side, bytes, &mut |found| scene.tls(&found, emit)),
            State::Ssh(ssh) => ssh.read(side, bytes, &mut |found| scene.ssh(found, emit)),
        };
        match step {
            Ok(Step::Switch(_)) => self.state = State::Unheard,
            Ok(Step::Done) => self.state = State::Over,
            Ok(Step::Used(_) | Step::Skip(_)) => {}
            Err(_) => {
                self.finish(scene, emit);
                self.state = State::Over;
            }
        }
        step
    }

    /// Tells what waited for more, at the connection's end.
    pub fn finish(&mut self, scene: &Scene<'_>, emit: &mut dyn FnMut(&Event<'_>)) {
        match &mut self.state {
            State::Unheard | State::Strange(_) | State::Over => {}
            State::Http(http) => http.finish(&mut |found| scene.http(found, emit)),
            State::Tls(tls) => tls.finish(&mut |found| scene.tls(&found, emit)),
            State::Ssh(ssh) => ssh.finish(&mut |found| scene.ssh(found, emit)),
        }
        self.state = State::Over;
    }

    /// Returns Zeek's name of the protocol, once it is known.
    pub fn service(&self) -> Option<&'static str> {
        match self.state {
            State::Unheard | State::Strange(_) | State::Over => None,
            State::Http(_) => Some("http"),
            State::Tls(_) => Some("ssl"),
            State::Ssh(_) => Some("ssh"),
        }
    }

    /// Takes up the protocol that the bytes begin; a step where they are none's, or too few.
    fn recognise(&mut self, side: Side, bytes: &[u8]) -> Option<Step> {
        let (mut found, mut perhaps) = (None, false);
        for (guess, begin) in PROTOCOLS {
            match guess(side, bytes) {
                Guess::Yes => {
                    found = Some(begin());
                    break;
                }
                Guess::Perhaps => perhaps = true,
                Guess::No => {}
            }
        }
        match found {
            Some(state) => {
                self.state = state;
                None
            }
            None if perhaps && bytes.len() < GUESS_BYTES_MAX => Some(Step::Used(0)),
            // The other side may say what it is.
            None => match self.state {
                State::Strange(other) if other != side => {
                    self.state = State::Over;
                    Some(Step::Done)
                }
                _ if bytes.len() >= GUESS_BYTES_MAX => {
                    self.state = State::Over;
                    Some(Step::Done)
                }
                _ => {
                    self.state = State::Strange(side);
                    Some(Step::Used(0))
                }
            },
        }
    }
}

type Judge = fn(Side, &[u8]) -> Guess;
type Begin = fn() -> State;

/// Strictest first.
const PROTOCOLS: &[(Judge, Begin)] = &[
    (Http::guess, || State::Http(Box::default())),
    (Tls::guess, || State::Tls(Box::default())),
    (Ssh::guess, || State::Ssh(Box::default())),
];

impl Scene<'_> {
    fn begin<'r>(&self, categories: &[&'static str], services: &[&'static str]) -> Event<'r> {
        // No raw: keyword rules have nothing to find in a packet, and no mask could look into its bytes.
        let mut event = Event::new(b"");
        (self.prepare)(&mut event);
        let of = &mut event.logsources;
        of.categories
            .extend(categories.iter().map(|&word| word.into()));
        of.services.extend(services.iter().map(|&word| word.into()));
        event
    }

    fn http(&self, exchange: &Exchange, emit: &mut dyn FnMut(&Event<'_>)) {
        let categories: &[&'static str] = match self.initiated {
            Some(true) => &["proxy"],
            Some(false) => &["webserver"],
            None => &["proxy", "webserver"],
        };
        let mut event = self.begin(categories, &["http"]);
        exchange.set(&mut event);
        emit(&event);
    }

    fn tls(&self, found: &tls::Found<'_>, emit: &mut dyn FnMut(&Event<'_>)) {
        let is_server = |by: Side| by == Side::Server;
        let event = match *found {
            tls::Found::Session(session) => {
                let mut event = self.begin(&["tls"], &["ssl"]);
                session.set(&mut event);
                event
            }
            tls::Found::Certificate {
                certificate,
                session,
                by,
                place,
            } => {
                let mut event = self.begin(&["certificate"], &["x509"]);
                certificate.set(&mut event);
                event.set(network::HOST_CERT, is_server(by) && place == 0);
                event.set(network::CLIENT_CERT, !is_server(by) && place == 0);
                let asked = session
                    .client
                    .as_ref()
                    .and_then(|client| client.server_name.as_ref());
                if let Some(name) = asked.filter(|_| is_server(by) && place == 0) {
                    event.set(network::SERVER_NAME, &name[..]);
                    event.set(field::DESTINATION_HOSTNAME, &name[..]);
                    let is_same =
                        std::str::from_utf8(name).is_ok_and(|name| certificate.names_host(name));
                    event.set(network::CERT_MATCHES, is_same);
                }
                event
            }
        };
        emit(&event);
    }

    fn ssh(&self, session: &ssh::Session<'_>, emit: &mut dyn FnMut(&Event<'_>)) {
        let mut event = self.begin(&["ssh"], &["ssh"]);
        session.set(&mut event);
        emit(&event);
    }
}
