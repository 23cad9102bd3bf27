//! Packets to events: starts of TCP connections, DNS messages, and what is said in connections of the protocols known.

pub mod certificate;
pub mod conversation;
pub mod dialogue;
pub mod dns;
pub mod flow;
pub mod ftp;
pub mod http;
pub mod imap;
pub mod packet;
pub mod pop;
pub mod smtp;
pub mod ssh;
pub mod stream;
pub mod telnet;
pub mod tls;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::decode::net::dialogue::Scene;
use crate::decode::net::dns::{Kind, Message};
use crate::decode::net::flow::Recent;
use crate::decode::net::packet::{Packet, Tcp, Transport, Udp};
use crate::decode::net::stream::{Reading, Streams, Talk};
use crate::decode::{DecodeError, Decoder, LinkType};
use crate::event::Event;
use crate::event::field::{self, Fields, network};
use crate::event::logsource::LogSources;
use crate::record::Record;

/// Where packets were seen: it tells who began a connection from where the rules stand.
#[derive(Debug, Clone, Default)]
pub enum Viewpoint {
    /// On this host, which has these addresses; those of the loopback are always its own.
    Host(Arc<[IpAddr]>),
    /// In a recording of who knows which host.
    #[default]
    Elsewhere,
}

impl Viewpoint {
    fn is_own(&self, address: IpAddr) -> bool {
        match self {
            Self::Host(addresses) => address.is_loopback() || addresses.contains(&address),
            Self::Elsewhere => false,
        }
    }
}

/// One a stream of packets of one link type.
pub struct NetDecoder {
    link: LinkType,
    viewpoint: Viewpoint,
    starts: Recent<Start>,
    /// Keyed by a secret hash: nobody can make a message that hides another.
    messages: Recent<u64>,
    hasher: RandomState,
    streams: Streams,
}

/// A second SYN with the same number is sent again, or seen again; one with another number is another connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Start {
    ends: Ends,
    sequence: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ends {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
}

/// 65,536 of about 100 bytes: a full scan of one host's ports is remembered whole.
const STARTS_MAX: usize = 65_536;
/// Linux waits 1, 2, 4 … 32 s between its SYNs (`tcp_syn_retries` 6), each counted from the last.
const START_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// Of one second; where more come, the oldest are forgotten, and what is seen twice may be told twice.
const MESSAGES_MAX: usize = 16_384;
/// On `lo`, and on a bridge and its port, a packet is seen twice within microseconds; resolvers ask again after
/// seconds (glibc 5, systemd-resolved from 0.5 with another id).
const MESSAGE_WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// Returns the decoder of a stream whose host is not known.
pub fn decoder(link: LinkType) -> Box<dyn Decoder> {
    Box::new(NetDecoder::new(link, Viewpoint::Elsewhere))
}

impl NetDecoder {
    pub fn new(link: LinkType, viewpoint: Viewpoint) -> Self {
        Self {
            link,
            viewpoint,
            starts: Recent::new(STARTS_MAX, START_WITHIN),
            messages: Recent::new(MESSAGES_MAX, MESSAGE_WITHIN),
            hasher: RandomState::new(),
            streams: Streams::default(),
        }
    }

    fn tcp(
        &mut self,
        record: &Record,
        packet: &Packet<'_>,
        tcp: &Tcp<'_>,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let ends = Ends {
            source: (packet.source, tcp.source_port),
            destination: (packet.destination, tcp.destination_port),
        };
        if tcp.flags.starts() {
            let start = Start {
                ends,
                sequence: tcp.sequence,
            };
            if self.starts.is_new(start, record.read_at) {
                let mut event = self.event(record, packet, &ends, "tcp");
                event
                    .logsources
                    .categories
                    .push("network_connection".into());
                event.set(field::TCP_FLAGS, tcp.flags.text());
                if self.viewpoint.is_own(packet.source) {
                    event.set(field::INITIATED, true);
                } else if self.viewpoint.is_own(packet.destination) {
                    event.set(field::INITIATED, false);
                }
                emit(&event);
            }
        }
        let viewpoint = &self.viewpoint;
        self.streams.segment(
            ends.source,
            ends.destination,
            tcp,
            record.read_at,
            packet.vlan,
            &mut |talk, read| viewpoint.stage(talk, read, emit),
        )
    }

    fn udp(
        &mut self,
        record: &Record,
        packet: &Packet<'_>,
        udp: &Udp<'_>,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let ends = Ends {
            source: (packet.source, udp.source_port),
            destination: (packet.destination, udp.destination_port),
        };
        if ends.has_port(dns::PORT) && !udp.payload.is_empty() {
            self.dns(record, packet, &ends, "udp", udp.payload, emit)
        } else {
            Ok(())
        }
    }

    fn dns(
        &mut self,
        record: &Record,
        packet: &Packet<'_>,
        ends: &Ends,
        protocol: &'static str,
        payload: &[u8],
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let Some(message) = Message::read(payload)? else {
            return Ok(());
        };
        let key = self.hasher.hash_one((ends, payload));
        if !self.messages.is_new(key, record.read_at) {
            return Ok(());
        }
        // Of an answer too, the source is the side that asked.
        let (ends, categories): (_, &[&'static str]) = match message.kind {
            Kind::Query => (*ends, &["dns", "dns_query"]),
            Kind::Response(_) => (ends.reversed(), &["dns"]),
        };
        let fault = message.fault;
        let mut event = self.event(record, packet, &ends, protocol);
        event
            .logsources
            .categories
            .extend(categories.iter().map(|&category| category.into()));
        message.set(&mut event);
        emit(&event);
        fault.map_or(Ok(()), Err)
    }

    fn event<'r>(
        &self,
        record: &'r Record,
        packet: &Packet<'_>,
        ends: &Ends,
        protocol: &'static str,
    ) -> Event<'r> {
        // No raw: keyword rules have nothing to find in a packet, and no mask could look into its bytes.
        let mut event = Event::new(b"");
        let talk = Talk {
            client: ends.source,
            server: ends.destination,
            at: record.read_at,
            vlan: packet.vlan,
        };
        self.viewpoint.prepare(&talk, protocol, &mut event);
        event
    }
}

impl Viewpoint {
    /// Sets what an event has of its flow.
    fn prepare(&self, talk: &Talk, protocol: &'static str, event: &mut Event<'_>) {
        event.time = Some(talk.at);
        event.logsources = match self {
            Self::Host(_) => LogSources::of(Some("linux"), &[], &[]),
            Self::Elsewhere => LogSources::default(),
        };
        event.logsources.also = Some("zeek");
        event.set(field::SOURCE_IP, talk.client.0);
        event.set(field::SOURCE_PORT, talk.client.1);
        event.set(field::DESTINATION_IP, talk.server.0);
        event.set(field::DESTINATION_PORT, talk.server.1);
        event.set(field::PROTOCOL, protocol);
        event.set(network::ORIG_H, talk.client.0);
        event.set(network::ORIG_P, talk.client.1);
        event.set(network::RESP_H, talk.server.0);
        event.set(network::RESP_P, talk.server.1);
        if let Some(vlan) = talk.vlan {
            event.set(field::VLAN_ID, vlan);
        }
    }

    /// Has a conversation read and tell.
    fn stage(&self, talk: &Talk, read: Reading<'_>, emit: &mut dyn FnMut(&Event<'_>)) {
        let initiated = match (self.is_own(talk.client.0), self.is_own(talk.server.0)) {
            (false, false) => None,
            (is_own, _) => Some(is_own),
        };
        let scene = Scene {
            prepare: &|event| self.prepare(talk, "tcp", event),
            initiated,
        };
        read(&scene, emit);
    }
}

impl Decoder for NetDecoder {
    /// Most packets give no event, and one that can't be read gives none: there is no text in it for rules to search.
    fn decode(
        &mut self,
        record: &Record,
        _fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let Some(packet) = packet::read(self.link, &record.bytes)? else {
            return Ok(());
        };
        match packet.transport {
            Transport::Tcp(tcp) => self.tcp(record, &packet, &tcp, emit),
            Transport::Udp(udp) => self.udp(record, &packet, &udp, emit),
            Transport::Other(_) => Ok(()),
        }
    }

    fn flush(&mut self, now: Timestamp, _fields: &Fields, emit: &mut dyn FnMut(&Event<'_>)) {
        let viewpoint = &self.viewpoint;
        self.streams
            .flush(now, &mut |talk, read| viewpoint.stage(talk, read, emit));
    }
}

impl Ends {
    fn has_port(&self, port: u16) -> bool {
        self.source.1 == port || self.destination.1 == port
    }

    fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
pub mod craft;
#[cfg(test)]
mod tests;
