//! `saddr=`: a struct sockaddr in hexadecimal (include/linux/socket.h, in(7), unix(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decode::audit::line;
use crate::decode::reader::Reader;

/// Where a socket was bound or connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    Inet {
        address: IpAddr,
        port: u16,
    },
    /// Abstract names begin with `@` here, as ss(8) shows them.
    Unix {
        path: Vec<u8>,
    },
    Other {
        family: u16,
    },
}

impl Peer {
    /// The family's name as auditd writes it.
    pub fn family(&self) -> &'static str {
        match self {
            Self::Inet {
                address: IpAddr::V4(_),
                ..
            } => "inet",
            Self::Inet { .. } => "inet6",
            Self::Unix { .. } => "local",
            Self::Other { family: 16 } => "netlink",
            Self::Other { family: 17 } => "packet",
            Self::Other { family: 38 } => "alg",
            Self::Other { family: 40 } => "vsock",
            Self::Other { .. } => "unspec",
        }
    }
}

/// Reads the hexadecimal of a sockaddr. Its family is in the byte order of the machine that wrote it: the one that gives
/// a family there is. Addresses and ports are in network order.
pub fn read(saddr: &[u8]) -> Option<Peer> {
    let bytes = line::unhex(saddr)?;
    let mut input = Reader::new(&bytes);
    let (first, second) = (input.u8()?, input.u8()?);
    let family = if first == 0 { second } else { first };
    if first != 0 && second != 0 {
        return None;
    }
    match family {
        1 => Some(Peer::Unix {
            path: path(input.rest()),
        }),
        2 => {
            let port = input.be16()?;
            let address = Ipv4Addr::from(input.be32()?).into();
            Some(Peer::Inet { address, port })
        }
        10 => {
            let port = input.be16()?;
            let _flow = input.be32()?;
            let octets: [u8; 16] = input.take(16)?.try_into().ok()?;
            let address = IpAddr::V6(Ipv6Addr::from(octets)).to_canonical();
            Some(Peer::Inet { address, port })
        }
        family => Some(Peer::Other {
            family: family.into(),
        }),
    }
}

fn path(bytes: &[u8]) -> Vec<u8> {
    let end = |bytes: &[u8]| {
        let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
        bytes.get(..end).unwrap_or_default().to_vec()
    };
    match bytes.strip_prefix(b"\0") {
        None => end(bytes),
        Some(name) => {
            let mut shown = b"@".to_vec();
            shown.extend(end(name));
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_whatever_machine_wrote_them() {
        let inet = |address: &str, port| {
            Some(Peer::Inet {
                address: address.parse().unwrap(),
                port,
            })
        };
        for (saddr, peer) in [
            ("020000350808080800000000", inet("8.8.8.8", 53)),
            ("0002D90300000000", inet("0.0.0.0", 55_555)),
            (
                "0A0001BB00000000200104860000000000000000000000010000",
                inet("2001:486::1", 443),
            ),
            (
                "0A0001BB0000000000000000000000000000FFFF0A00000100000000",
                inet("10.0.0.1", 443),
            ),
            (
                "01002F72756E2F6E7363642F736F636B657400",
                Some(Peer::Unix {
                    path: b"/run/nscd/socket".to_vec(),
                }),
            ),
            (
                "010000616263",
                Some(Peer::Unix {
                    path: b"@abc".to_vec(),
                }),
            ),
            ("100000000000000000000000", Some(Peer::Other { family: 16 })),
            ("0200", None),
            ("0202", None),
            ("0A000035", None),
            ("", None),
            ("xx", None),
        ] {
            assert_eq!(read(saddr.as_bytes()), peer, "{saddr}");
        }
    }
}
