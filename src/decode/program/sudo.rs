//! What sudo writes: who ran what as whom, or was not let.

use crate::decode::program::{FAILURE, SUCCESS};
use crate::decode::reader;
use crate::event::Event;
use crate::event::field;

/// `NAME : [REASON ; ]TTY=… ; PWD=… ; USER=… ; COMMAND=…`
///
/// The directory and the command are the user's to name, also ` ; USER=root ; COMMAND=…`. sudo writes them in this
/// order, so the command is all behind the first ` ; COMMAND=`, and of two values of one key before it the last is sudo's.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    event.set(field::SERVICE, "sudo");
    let Some((user, rest)) = reader::split(message.trim_ascii_start(), b" : ") else {
        return;
    };
    let user = user.trim_ascii();
    // Accounts of a directory service may have spaces; so have sudo's own errors, which name no command.
    if user.is_empty() || user.contains(&b' ') && !reader::contains(rest, b"COMMAND=") {
        return;
    }
    event.set(field::USER, user);
    let (head, command) = match reader::split(rest, b" ; COMMAND=") {
        Some((head, command)) => (head, Some(command)),
        None => match rest.strip_prefix(b"COMMAND=") {
            Some(command) => (&b""[..], Some(command)),
            None => (rest, None),
        },
    };
    let is_continued = head.starts_with(b"(command continued)");
    if is_continued {
        return;
    }
    let mut reason = head;
    for (key, fields) in [
        (&b"TTY="[..], &[field::SUDO_TTY][..]),
        (b"PWD=", &[field::SUDO_PWD, field::CURRENT_DIRECTORY]),
        (b"USER=", &[field::SUDO_USER, field::TARGET_USER_NAME]),
    ] {
        let Some(value) = value(head, key) else {
            continue;
        };
        for &id in fields {
            event.set(id, value.text);
        }
        if value.before.len() < reason.len() {
            reason = value.before;
        }
    }
    if let Some(command) = command {
        event.set(field::SUDO_COMMAND, command);
        event.set(field::COMMAND_LINE, command);
        let image = reader::split_byte(command, b' ').map_or(command, |(image, _)| image);
        event.set(field::IMAGE, image);
    }
    let reason = reason.trim_ascii();
    let is_about_a_command = command.is_some() || reason.len() < head.len();
    if is_about_a_command {
        let outcome = if reason.is_empty() { SUCCESS } else { FAILURE };
        event.set(field::OUTCOME, outcome);
    }
}

struct Found<'r> {
    /// What stands before the key, without the separator.
    before: &'r [u8],
    text: &'r [u8],
}

/// Returns the last value of `key` that stands at the beginning or behind a separator.
fn value<'r>(head: &'r [u8], key: &[u8]) -> Option<Found<'r>> {
    const SEPARATOR: &[u8] = b" ; ";
    let mut end = head;
    loop {
        let (before, _) = reader::rsplit(end, key)?;
        let is_key = before.is_empty() || before.ends_with(SEPARATOR);
        if is_key {
            let after = head.get(before.len() + key.len()..)?;
            return Some(Found {
                before: before.strip_suffix(SEPARATOR).unwrap_or(before),
                text: next_key(after),
            });
        }
        end = before;
    }
}

/// Cuts a value where the next of sudo's keys begins.
fn next_key(text: &[u8]) -> &[u8] {
    [
        &b" ; TTY="[..],
        b" ; PWD=",
        b" ; USER=",
        b" ; GROUP=",
        b" ; TSID=",
        b" ; ENV=",
        b" ; CHROOT=",
        b" ; CWD=",
    ]
    .iter()
    .filter_map(|key| reader::rsplit(text, key))
    .map(|(value, _)| value)
    .min_by_key(|value| value.len())
    .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn commands_and_refusals_are_told_apart() {
        for (message, expected) in [
            (
                "  lan : TTY=pts/0 ; PWD=/home/lan ; USER=root ; COMMAND=/usr/bin/id -u",
                "Service=sudo User=lan TTY=pts/0 PWD=/home/lan CurrentDirectory=/home/lan USER=root TargetUserName=root \
                 COMMAND=/usr/bin/id -u CommandLine=/usr/bin/id -u Image=/usr/bin/id Outcome=success",
            ),
            (
                "lan : user NOT in sudoers ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
                "Service=sudo User=lan TTY=pts/0 PWD=/ CurrentDirectory=/ USER=root TargetUserName=root \
                 COMMAND=/bin/sh CommandLine=/bin/sh Image=/bin/sh Outcome=failure",
            ),
            (
                "lan : 3 incorrect password attempts ; TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=/bin/sh",
                "Service=sudo User=lan TTY=pts/0 PWD=/ CurrentDirectory=/ USER=root TargetUserName=root \
                 COMMAND=/bin/sh CommandLine=/bin/sh Image=/bin/sh Outcome=failure",
            ),
            (
                "lan : TTY=pts/0 ; PWD=/ ; USER=#-1 ; GROUP=wheel ; ENV=A=1 ; COMMAND=/bin/sh -c x ; USER=lan ; COMMAND=y",
                "Service=sudo User=lan TTY=pts/0 PWD=/ CurrentDirectory=/ USER=#-1 TargetUserName=#-1 \
                 COMMAND=/bin/sh -c x ; USER=lan ; COMMAND=y CommandLine=/bin/sh -c x ; USER=lan ; COMMAND=y \
                 Image=/bin/sh Outcome=success",
            ),
            (
                "corp\\an binh : TTY=pts/0 ; PWD=/ ; USER=root ; COMMAND=list",
                "Service=sudo User=corp\\an binh TTY=pts/0 PWD=/ CurrentDirectory=/ USER=root TargetUserName=root \
                 COMMAND=list CommandLine=list Image=list Outcome=success",
            ),
            ("lan : (command continued) more", "Service=sudo User=lan"),
            ("unable to resolve host web1", "Service=sudo"),
            ("", "Service=sudo"),
        ] {
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                expected,
                "{message}"
            );
        }
    }

    #[test]
    fn a_directory_named_like_a_line_does_not_change_the_account() {
        let message = b"lan : TTY=pts/0 ; PWD=/tmp/x ; USER=lan ; y ; USER=root ; COMMAND=/bin/sh";
        let mut event = Event::new(message);
        read(message, &mut event);
        assert_eq!(event.get(field::SUDO_USER).unwrap().lossy(), "root");
    }
}
