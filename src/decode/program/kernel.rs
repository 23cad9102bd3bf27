//! What the kernel itself says: memory that ran out, programs that crashed, USB devices, modules, interfaces that listen.

use crate::decode::program::{Line, spoken};
use crate::decode::reader;
use crate::event::Event;
use crate::event::field;

/// Reads a message of the kernel, behind `[  123.456789] ` if that stands there. `action` says what happened.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    event.set(field::SERVICE, "kernel");
    let message = behind_clock(message);
    if message.starts_with(b"wireguard: ") {
        let line = Line {
            program: b"wireguard",
            module: None,
            process: None,
            host: b"",
            message,
        };
        spoken::read(&line, event);
        return;
    }
    // `Out of memory: Killed process 12 (java) …`, `Memory cgroup out of memory: Killed process …`
    if let Some((_, rest)) = reader::split(message, b"ut of memory: Kill") {
        event.set(field::ACTION, "oom-kill");
        if let Some(name) = reader::between(rest, b"(", b')') {
            event.set(field::IMAGE, name);
        }
        return;
    }
    // `php[12]: segfault at 0 ip … sp … error 4 in libc.so.6[…]`
    if let Some((head, _)) = reader::split(message, b": segfault at ") {
        event.set(field::ACTION, "segfault");
        let name = reader::rsplit_byte(head, b'[').map_or(head, |(name, _)| name);
        event.set(field::IMAGE, name);
        return;
    }
    if reader::contains(message, b": New USB device found, ") {
        event.set(field::ACTION, "usb-attached");
        return;
    }
    if message.starts_with(b"usb ") && reader::contains(message, b"USB disconnect") {
        event.set(field::ACTION, "usb-detached");
        return;
    }
    // `hide: loading out-of-tree module taints kernel.`, `hide: module verification failed: signature …`
    for words in [
        &b": loading out-of-tree module taints kernel"[..],
        b": module verification failed",
        b": module license ",
    ] {
        if let Some((name, _)) = reader::split(message, words) {
            event.set(field::ACTION, "module-tainted");
            event.set(field::FILENAME, name);
            return;
        }
    }
    // `device eth0 entered promiscuous mode`, `eth0: entered promiscuous mode`
    if let Some(head) = message.strip_suffix(b"entered promiscuous mode") {
        event.set(field::ACTION, "promiscuous");
        let head = head.trim_ascii().strip_prefix(b"device ").unwrap_or(head);
        let name = head.trim_ascii();
        event.set(field::INTERFACE, name.strip_suffix(b":").unwrap_or(name));
    }
}

fn behind_clock(message: &[u8]) -> &[u8] {
    message
        .strip_prefix(b"[")
        .and_then(|rest| reader::split(rest, b"] "))
        .filter(|(clock, _)| {
            clock
                .iter()
                .all(|b| b.is_ascii_digit() || matches!(b, b' ' | b'.'))
        })
        .map_or(message, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn events_of_the_kernel_have_an_action() {
        for (message, expected) in [
            (
                "[ 12.5] Out of memory: Killed process 12 (java) total-vm:1kB",
                "Service=kernel action=oom-kill Image=java",
            ),
            (
                "php-fpm[12]: segfault at 0 ip 00007f sp 00007f error 4 in libc.so.6[7f+1]",
                "Service=kernel action=segfault Image=php-fpm",
            ),
            (
                "[1.0] usb 1-1: New USB device found, idVendor=0781, idProduct=5567",
                "Service=kernel action=usb-attached",
            ),
            (
                "hide: loading out-of-tree module taints kernel.",
                "Service=kernel action=module-tainted Filename=hide",
            ),
            (
                "device eth0 entered promiscuous mode",
                "Service=kernel action=promiscuous Interface=eth0",
            ),
            (
                "wireguard: wg0: Invalid handshake initiation from 192.0.2.7:51820",
                "Service=kernel Service=wireguard SourceIp=192.0.2.7 SourcePort=51820 Outcome=failure",
            ),
            ("[x] y", "Service=kernel"),
        ] {
            let seen = shown(|event| read(message.as_bytes(), event));
            assert_eq!(seen, expected, "{message}");
        }
    }
}
