//! Packets that the kernel's packet filter logs: the LOG target of iptables and nftables, ufw, firewalld, Shorewall.

use crate::decode::reader;
use crate::event::field;
use crate::event::{Event, Value};

/// Reads `[7.1] [UFW BLOCK] IN=eth0 OUT= MAC=… SRC=… DST=… … PROTO=TCP SPT=… DPT=… … SYN`, as the kernel's nf_log_ipv4.c
/// writes it; returns whether it is such a line.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) -> bool {
    let Some((prefix, rest)) = reader::split(message, b"IN=") else {
        return false;
    };
    let Some((_, packet)) = reader::split(rest, b" SRC=") else {
        return false;
    };
    if !reader::contains(rest, b"OUT=") || !reader::contains(packet, b" DST=") {
        return false;
    }
    event.set(field::SERVICE, "netfilter");
    if let Some(action) = action(prefix) {
        event.set(field::ACTION, action);
    }
    let interface = reader::split_byte(rest, b' ').map_or(rest, |(name, _)| name);
    if !interface.is_empty() {
        event.set(field::INTERFACE, interface);
    }
    let mut source_seen = false;
    // ICMP errors quote the packet that caused them in brackets; the outer one comes first.
    let outer = reader::split_byte(packet, b'[').map_or(packet, |(outer, _)| outer);
    for (at, word) in outer.split(|&b| b == b' ').enumerate() {
        if at == 0 {
            if let Some(address) = reader::address(word) {
                event.set(field::SRC_IP, Value::Ip(address));
                event.set(field::SOURCE_IP, Value::Ip(address));
                source_seen = true;
            }
            continue;
        }
        let Some((key, value)) = reader::split_byte(word, b'=') else {
            continue;
        };
        match key {
            b"DST" => {
                if let Some(address) = reader::address(value) {
                    event.set(field::DST_IP, Value::Ip(address));
                    event.set(field::DESTINATION_IP, Value::Ip(address));
                }
            }
            b"SPT" => {
                if let Some(port) = reader::port(value) {
                    event.set(field::SRC_PORT, port);
                    event.set(field::SOURCE_PORT, port);
                }
            }
            b"DPT" => {
                if let Some(port) = reader::port(value) {
                    event.set(field::DST_PORT, port);
                    event.set(field::DESTINATION_PORT, port);
                }
            }
            b"PROTO" => match value {
                b"TCP" => event.set(field::PROTOCOL, "tcp"),
                b"UDP" => event.set(field::PROTOCOL, "udp"),
                b"ICMP" => event.set(field::PROTOCOL, "icmp"),
                b"ICMPv6" => event.set(field::PROTOCOL, "icmpv6"),
                other => event.set(field::PROTOCOL, other),
            },
            _ => {}
        }
    }
    source_seen
}

/// What the prefix that an administrator chose says, if it uses a common word.
fn action(prefix: &[u8]) -> Option<&'static str> {
    let has = |words: &[&[u8]]| words.iter().any(|word| reader::contains(prefix, word));
    if has(&[
        b"BLOCK", b"DROP", b"REJECT", b"DENY", b"drop", b"reject", b"deny", b"block", b"Blocked",
    ]) {
        return Some("block");
    }
    has(&[b"ALLOW", b"ACCEPT", b"accept", b"allow"]).then_some("allow")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn a_packet_has_both_ends_and_a_verdict() {
        for (message, expected) in [
            (
                "[ 7.1] [UFW BLOCK] IN=eth0 OUT= MAC=52:54 SRC=192.0.2.7 DST=198.51.100.1 LEN=40 TTL=244 PROTO=TCP SPT=41 DPT=23 WINDOW=1 SYN URGP=0",
                "Service=netfilter action=block Interface=eth0 src_ip=192.0.2.7 SourceIp=192.0.2.7 dst_ip=198.51.100.1 DestinationIp=198.51.100.1 Protocol=tcp src_port=41 SourcePort=41 dst_port=23 DestinationPort=23",
            ),
            (
                "IN=eth0 OUT= SRC=2001:db8::7 DST=2001:db8::1 PROTO=ICMPv6 TYPE=1 [SRC=2001:db8::9 DST=2001:db8::8 PROTO=TCP SPT=1 DPT=2 ]",
                "Service=netfilter Interface=eth0 src_ip=2001:db8::7 SourceIp=2001:db8::7 dst_ip=2001:db8::1 DestinationIp=2001:db8::1 Protocol=icmpv6",
            ),
            ("mail IN=a OUT=b", ""),
            ("", ""),
        ] {
            let seen = shown(|event| {
                read(message.as_bytes(), event);
            });
            assert_eq!(seen, expected, "{message}");
        }
    }
}
