//! What login writes on consoles.

use crate::decode::program::{FAILURE, SUCCESS};
use crate::decode::{reader, set_source};
use crate::event::Event;
use crate::event::field;

/// `FAILED LOGIN (1) on '/dev/tty1' FOR 'an', Authentication failure`, `FAILED LOGIN 1 FROM gw FOR an, …`,
/// `LOGIN ON tty1 BY an[ FROM host]`, `ROOT LOGIN ON tty1`.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    event.set(field::SERVICE, "login");
    if message.starts_with(b"FAILED LOGIN") || message.starts_with(b"TOO MANY LOGIN TRIES") {
        // The name is what was typed; the reason behind it is login's own and has no ` FOR `.
        let subject = reader::split(message, b" FOR ");
        if let Some((before, name)) = subject {
            let name = reader::rsplit(name, b", ").map_or(name, |(name, _)| name);
            event.set(field::TARGET_USER_NAME, unquoted(name));
            if let Some((_, host)) = reader::split(before, b" FROM ") {
                set_source(event, unquoted(host));
            }
        }
        event.set(field::OUTCOME, FAILURE);
        return;
    }
    let Some((start, rest)) = reader::split(message, b"LOGIN ON ") else {
        return;
    };
    let user = match start {
        b"ROOT " => Some(&b"root"[..]),
        b"" | b"DIALUP " => reader::split(rest, b" BY ").map(|(_, user)| user),
        _ => return,
    };
    let (user, host) = match user.and_then(|user| reader::split(user, b" FROM ")) {
        Some((user, host)) => (Some(user), Some(host)),
        None => (user, reader::split(rest, b" FROM ").map(|(_, host)| host)),
    };
    if let Some(user) = user {
        event.set(field::TARGET_USER_NAME, user);
    }
    if let Some(host) = host {
        set_source(event, host);
    }
    event.set(field::OUTCOME, SUCCESS);
}

fn unquoted(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"'")
        .and_then(|inner| inner.strip_suffix(b"'"))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn console_logins_are_read() {
        for (message, expected) in [
            (
                "FAILED LOGIN (1) on '/dev/tty1' FOR 'an', Authentication failure",
                "Service=login TargetUserName=an Outcome=failure",
            ),
            (
                "FAILED LOGIN 2 FROM 192.0.2.7 FOR an, Authentication failure",
                "Service=login TargetUserName=an SourceIp=192.0.2.7 Outcome=failure",
            ),
            (
                "LOGIN ON tty1 BY an",
                "Service=login TargetUserName=an Outcome=success",
            ),
            (
                "ROOT LOGIN ON tty1",
                "Service=login TargetUserName=root Outcome=success",
            ),
            ("bad tty name", "Service=login"),
        ] {
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                expected,
                "{message}"
            );
        }
    }
}
