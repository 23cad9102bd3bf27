//! Makes packets, for tests and for the recording of the demonstration. Their checksums are 0.

use std::net::{IpAddr, SocketAddr};

use crate::decode::net::packet::Flags;

pub const SYN: Flags = Flags(0x02);
pub const SYN_ACK: Flags = Flags(0x12);
pub const RST_ACK: Flags = Flags(0x14);
pub const ACK: Flags = Flags(0x10);
pub const PSH_ACK: Flags = Flags(0x18);

pub const A: u16 = 1;
pub const TXT: u16 = 16;
pub const NXDOMAIN: u16 = 3;

pub struct Segment<'p> {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub flags: Flags,
    pub sequence: u32,
    pub payload: &'p [u8],
}

/// Returns an Ethernet frame.
pub fn tcp(segment: &Segment<'_>) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(segment.from.port().to_be_bytes());
    header.extend(segment.to.port().to_be_bytes());
    header.extend(segment.sequence.to_be_bytes());
    header.extend([0, 0, 0, 0, 0x50, segment.flags.0, 0xfa, 0xf0, 0, 0, 0, 0]);
    header.extend(segment.payload);
    ethernet(&ip(segment.from.ip(), segment.to.ip(), 6, &header))
}

/// Returns an Ethernet frame.
pub fn syn(from: &str, to: &str, sequence: u32) -> Vec<u8> {
    tcp(&Segment {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        flags: SYN,
        sequence,
        payload: b"",
    })
}

/// Returns an Ethernet frame.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend((payload.len() as u16 + 8).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    ethernet(&ip(from.ip(), to.ip(), 17, &datagram))
}

pub fn ethernet(ip: &[u8]) -> Vec<u8> {
    let ethertype = if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd_u16 };
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(ip);
    frame
}

pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend((payload.len() as u16 + 20).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend((payload.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        mixed => panic!("addresses of two versions: {mixed:?}"),
    }
    packet.extend(payload);
    packet
}

/// Returns the message of a query for one name.
pub fn query(id: u16, name: &str, of: u16) -> Vec<u8> {
    let mut message = header(id, 0x0100, 0);
    message.extend(question(name, of));
    message
}

/// Returns the message of an answer; each record is its type and data, and its name points to the question's.
pub fn response(id: u16, name: &str, of: u16, code: u16, records: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut message = header(id, 0x8180 | code, records.len() as u16);
    message.extend(question(name, of));
    for (of, data) in records {
        message.extend([0xc0, 12]);
        message.extend(of.to_be_bytes());
        message.extend([0, 1, 0, 0, 0, 60]);
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    }
    message
}

pub fn name(name: &str) -> Vec<u8> {
    let mut labels = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        labels.push(label.len() as u8);
        labels.extend(label.as_bytes());
    }
    labels.push(0);
    labels
}

fn question(of_name: &str, of: u16) -> Vec<u8> {
    let mut question = name(of_name);
    question.extend(of.to_be_bytes());
    question.extend([0, 1]);
    question
}

fn header(id: u16, flags: u16, answers: u16) -> Vec<u8> {
    let mut header = Vec::new();
    for number in [id, flags, 1, answers, 0, 0] {
        header.extend(number.to_be_bytes());
    }
    header
}
