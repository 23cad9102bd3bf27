//! Reads link, network and transport headers of one packet. Reassembles nothing, checks no checksum
//! (a sending host leaves them to its card) and opens no tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decode::{DecodeError, LinkType};

/// One IP packet as far as its transport header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'p> {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Of the innermost tag.
    pub vlan: Option<u16>,
    pub transport: Transport<'p>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport<'p> {
    Tcp(Tcp<'p>),
    Udp(Udp<'p>),
    /// The number of a protocol that is not looked into.
    Other(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp<'p> {
    pub source_port: u16,
    pub destination_port: u16,
    pub sequence: u32,
    pub flags: Flags,
    pub payload: &'p [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'p> {
    pub source_port: u16,
    pub destination_port: u16,
    pub payload: &'p [u8],
}

/// The flags of a TCP header, RFC 9293 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub u8);

/// The numbers of tcpdump.org/linktypes.html.
const NULL: LinkType = LinkType(0);
const ETHERNET: LinkType = LinkType(1);
/// Raw IP in files written on BSD, on OpenBSD, and anywhere by today's rule.
const RAW_BSD: LinkType = LinkType(12);
const RAW_OPENBSD: LinkType = LinkType(14);
const RAW: LinkType = LinkType(101);
const LOOP: LinkType = LinkType(108);
const SLL: LinkType = LinkType(113);
const IPV4: LinkType = LinkType(228);
const IPV6: LinkType = LinkType(229);
const SLL2: LinkType = LinkType(276);

/// IEEE 802.1Q, 802.1ad, and the number that QinQ had before it.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Two are QinQ; the double leaves room.
const TAGS_MAX: usize = 4;

/// RFC 8200 4.1: six kinds, one of them twice, may stand before the transport, which the eighth turn finds.
const EXTENSIONS_MAX: usize = 8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;

/// The transport header was in the first one.
const LATER_FRAGMENT: DecodeError = DecodeError::Foreign {
    what: "the first fragment of an IP packet",
};

const TCP: u8 = 6;
const UDP: u8 = 17;

impl Flags {
    const NAMES: [(u8, char); 8] = [
        (0x02, 'S'),
        (0x10, 'A'),
        (0x01, 'F'),
        (0x04, 'R'),
        (0x08, 'P'),
        (0x20, 'U'),
        (0x40, 'E'),
        (0x80, 'C'),
    ];

    /// A SYN that answers nothing and ends nothing.
    pub fn starts(self) -> bool {
        const SYN: u8 = 0x02;
        const SYN_ACK_RST: u8 = 0x16;
        self.0 & SYN_ACK_RST == SYN
    }

    /// Returns `S`, `SA`, `SEC` ….
    pub fn text(self) -> String {
        Self::NAMES
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .map(|&(_, name)| name)
            .collect()
    }
}

/// Whether packets of this link type can be read.
pub fn supports(link: LinkType) -> bool {
    [
        NULL,
        ETHERNET,
        RAW_BSD,
        RAW_OPENBSD,
        RAW,
        LOOP,
        SLL,
        IPV4,
        IPV6,
        SLL2,
    ]
    .contains(&link)
}

/// Reads one packet; `None`: it is whole, and not IP.
///
/// # Errors
/// What is too short for its header, has a length that can't be, or is no packet's beginning.
pub fn read(link: LinkType, bytes: &[u8]) -> Result<Option<Packet<'_>>, DecodeError> {
    let mut part = Part { at: 0, bytes };
    match link {
        ETHERNET => {
            let [.., a, b] = part.take::<14>("Ethernet header")?;
            tagged(u16::from_be_bytes([*a, *b]), part)
        }
        SLL => {
            let [.., a, b] = part.take::<16>("Linux cooked header")?;
            tagged(u16::from_be_bytes([*a, *b]), part)
        }
        SLL2 => {
            let [a, b, ..] = part.take::<20>("Linux cooked header, version 2")?;
            tagged(u16::from_be_bytes([*a, *b]), part)
        }
        NULL | LOOP => {
            let family = *part.take::<4>("loopback header")?;
            if is_ip_family(family) {
                ip(part, None).map(Some)
            } else {
                Ok(None)
            }
        }
        RAW | RAW_BSD | RAW_OPENBSD | IPV4 | IPV6 => ip(part, None).map(Some),
        _ => Err(DecodeError::Foreign {
            what: "a packet of a known link type",
        }),
    }
}

/// A stretch of the record that has not been read, and where it begins.
#[derive(Debug, Clone, Copy)]
struct Part<'p> {
    at: usize,
    bytes: &'p [u8],
}

impl<'p> Part<'p> {
    /// Returns the first bytes without passing them.
    fn peek<const N: usize>(&self, what: &'static str) -> Result<&'p [u8; N], DecodeError> {
        self.bytes.first_chunk().ok_or(self.truncated(what, N))
    }

    fn take<const N: usize>(&mut self, what: &'static str) -> Result<&'p [u8; N], DecodeError> {
        let taken = self.peek(what)?;
        self.skip(N, what)?;
        Ok(taken)
    }

    fn skip(&mut self, count: usize, what: &'static str) -> Result<(), DecodeError> {
        let rest = self.bytes.get(count..);
        self.bytes = rest.ok_or(self.truncated(what, count))?;
        self.at += count;
        Ok(())
    }

    /// Leaves out what stands behind the length that a header gave; a packet cut by the snap length has less.
    fn limit(&mut self, length: usize) {
        self.bytes = self.bytes.get(..length).unwrap_or(self.bytes);
    }

    fn truncated(&self, what: &'static str, need: usize) -> DecodeError {
        DecodeError::Truncated {
            what,
            need,
            have: self.bytes.len(),
        }
    }

    fn malformed(&self, what: &'static str) -> DecodeError {
        DecodeError::Malformed { what, at: self.at }
    }
}

/// The family is in the byte order of the host that wrote it: AF_INET is 2 everywhere,
/// AF_INET6 is 10 on Linux, 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on Darwin.
fn is_ip_family(family: [u8; 4]) -> bool {
    let wanted = |number| matches!(number, 2 | 10 | 24 | 28 | 30);
    wanted(u32::from_le_bytes(family)) || wanted(u32::from_be_bytes(family))
}

fn tagged(mut ethertype: u16, mut part: Part<'_>) -> Result<Option<Packet<'_>>, DecodeError> {
    let mut vlan = None;
    for _ in 0..TAGS_MAX {
        if !TAGS.contains(&ethertype) {
            break;
        }
        let [a, b, c, d] = *part.take::<4>("VLAN tag")?;
        vlan = Some(u16::from_be_bytes([a, b]) & 0x0fff);
        ethertype = u16::from_be_bytes([c, d]);
    }
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => ip(part, vlan).map(Some),
        _ => Ok(None),
    }
}

/// By the version in the packet, whatever the link layer called it.
fn ip(part: Part<'_>, vlan: Option<u16>) -> Result<Packet<'_>, DecodeError> {
    let [first] = *part.peek::<1>("IP header")?;
    match first >> 4 {
        4 => ipv4(part, vlan),
        6 => ipv6(part, vlan),
        _ => Err(part.malformed("IP version")),
    }
}

fn ipv4(mut part: Part<'_>, vlan: Option<u16>) -> Result<Packet<'_>, DecodeError> {
    const WHAT: &str = "IPv4 header";
    let header = *part.peek::<20>(WHAT)?;
    let [
        first,
        _,
        t0,
        t1,
        _,
        _,
        f0,
        f1,
        _,
        protocol,
        _,
        _,
        addresses @ ..,
    ] = header;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let header_bytes = usize::from(first & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([t0, t1]));
    // 0: a packet that the card would have cut to size (TSO), caught before it did.
    if header_bytes < header.len() || (total != 0 && total < header_bytes) {
        return Err(part.malformed("IPv4 length"));
    }
    if u16::from_be_bytes([f0, f1]) & 0x1fff != 0 {
        return Err(LATER_FRAGMENT);
    }
    if total != 0 {
        part.limit(total);
    }
    part.skip(header_bytes, WHAT)?;
    Ok(Packet {
        source: Ipv4Addr::new(s0, s1, s2, s3).into(),
        destination: Ipv4Addr::new(d0, d1, d2, d3).into(),
        vlan,
        transport: transport(protocol, part)?,
    })
}

fn ipv6(mut part: Part<'_>, vlan: Option<u16>) -> Result<Packet<'_>, DecodeError> {
    const WHAT: &str = "IPv6 header";
    let [_, _, _, _, l0, l1, next, _] = *part.take::<8>(WHAT)?;
    let source = Ipv6Addr::from(*part.take::<16>(WHAT)?);
    let destination = Ipv6Addr::from(*part.take::<16>(WHAT)?);
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    // 0: a jumbogram (RFC 2675) or one caught before the card cut it.
    if length != 0 {
        part.limit(length);
    }
    let protocol = extensions(next, &mut part)?;
    Ok(Packet {
        source: source.into(),
        destination: destination.into(),
        vlan,
        transport: transport(protocol, part)?,
    })
}

/// Passes the extension headers, RFC 8200 4; returns the transport's number.
fn extensions(mut next: u8, part: &mut Part<'_>) -> Result<u8, DecodeError> {
    const WHAT: &str = "IPv6 extension header";
    for _ in 0..EXTENSIONS_MAX {
        let bytes = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY | HOST_IDENTITY | SHIM6 => {
                let [_, length] = *part.peek::<2>(WHAT)?;
                (usize::from(length) + 1) * 8
            }
            // RFC 4302 2.2: in words of 4 bytes, minus 2.
            AUTHENTICATION => {
                let [_, length] = *part.peek::<2>(WHAT)?;
                (usize::from(length) + 2) * 4
            }
            FRAGMENT => {
                let [_, _, o0, o1] = *part.peek::<4>(WHAT)?;
                if u16::from_be_bytes([o0, o1]) & 0xfff8 != 0 {
                    return Err(LATER_FRAGMENT);
                }
                8
            }
            _ => return Ok(next),
        };
        [next] = *part.peek::<1>(WHAT)?;
        part.skip(bytes, WHAT)?;
    }
    Err(part.malformed("chain of IPv6 extension headers"))
}

fn transport(protocol: u8, part: Part<'_>) -> Result<Transport<'_>, DecodeError> {
    match protocol {
        TCP => tcp(part).map(Transport::Tcp),
        UDP => udp(part).map(Transport::Udp),
        other => Ok(Transport::Other(other)),
    }
}

fn tcp(part: Part<'_>) -> Result<Tcp<'_>, DecodeError> {
    let header = *part.peek::<20>("TCP header")?;
    let [
        s0,
        s1,
        d0,
        d1,
        n0,
        n1,
        n2,
        n3,
        _,
        _,
        _,
        _,
        offset,
        flags,
        ..,
    ] = header;
    let header_bytes = usize::from(offset >> 4) * 4;
    if header_bytes < header.len() {
        return Err(part.malformed("TCP data offset"));
    }
    Ok(Tcp {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        sequence: u32::from_be_bytes([n0, n1, n2, n3]),
        flags: Flags(flags),
        payload: part.bytes.get(header_bytes..).unwrap_or_default(), // cut within the options
    })
}

fn udp(mut part: Part<'_>) -> Result<Udp<'_>, DecodeError> {
    const WHAT: &str = "UDP header";
    let header = *part.peek::<8>(WHAT)?;
    let [s0, s1, d0, d1, l0, l1, ..] = header;
    match usize::from(u16::from_be_bytes([l0, l1])) {
        0 => {} // RFC 2675 4: longer than the field can say
        short if short < header.len() => return Err(part.malformed("UDP length")),
        length => part.limit(length),
    }
    part.skip(header.len(), WHAT)?;
    Ok(Udp {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        payload: part.bytes,
    })
}

#[cfg(test)]
mod tests;
