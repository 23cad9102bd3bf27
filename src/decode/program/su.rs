//! What su writes, in the words of util-linux, shadow, coreutils and the BSDs.

use crate::decode::program::{FAILURE, SUCCESS};
use crate::decode::reader;
use crate::event::Event;
use crate::event::field;

/// Who wanted to become whom, and whether it was granted.
struct Said<'r> {
    user: &'r [u8],
    target: &'r [u8],
    outcome: &'static str,
}

pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    event.set(field::SERVICE, "su");
    let Some(said) = parse(message.trim_ascii()) else {
        return;
    };
    if !said.user.is_empty() {
        event.set(field::USER, said.user);
    }
    if !said.target.is_empty() {
        event.set(field::TARGET_USER_NAME, said.target);
    }
    event.set(field::OUTCOME, said.outcome);
}

fn parse(message: &[u8]) -> Option<Said<'_>> {
    let (message, outcome) = match message.strip_prefix(b"FAILED SU ") {
        Some(rest) => (rest, FAILURE),
        None => (message, SUCCESS),
    };
    // util-linux: `[FAILED SU ](to root) lan on pts/0`
    if let Some(rest) = message.strip_prefix(b"(to ") {
        let (target, rest) = reader::split(rest, b") ")?;
        let (user, _) = reader::rsplit(rest, b" on ")?;
        return Some(Said {
            user,
            target,
            outcome,
        });
    }
    // shadow: `Successful su for root by lan`, `FAILED su for root by lan`
    for (start, outcome) in [
        (&b"Successful su for "[..], SUCCESS),
        (b"FAILED su for ", FAILURE),
    ] {
        if let Some(rest) = message.strip_prefix(start) {
            let (target, user) = reader::rsplit(rest, b" by ")?;
            return Some(Said {
                user,
                target,
                outcome,
            });
        }
    }
    // shadow, short: `+ /dev/pts/0 lan:root`, `- pts/0 lan:root`
    let short = match message.strip_prefix(b"+ ") {
        Some(rest) => Some((rest, SUCCESS)),
        None => message.strip_prefix(b"- ").map(|rest| (rest, FAILURE)),
    };
    if let Some((rest, outcome)) = short {
        let (_, pair) = reader::split_byte(rest, b' ')?;
        let (user, target) = reader::split_byte(pair, b':')?;
        return Some(Said {
            user,
            target,
            outcome,
        });
    }
    // Solaris: `'su root' failed for lan on /dev/pts/1`, `… succeeded for …`
    if let Some(rest) = message.strip_prefix(b"'su ") {
        let (target, rest) = reader::split(rest, b"' ")?;
        let (outcome, rest) = match rest.strip_prefix(b"failed for ") {
            Some(rest) => (FAILURE, rest),
            None => (SUCCESS, rest.strip_prefix(b"succeeded for ")?),
        };
        let (user, _) = reader::rsplit(rest, b" on ")?;
        return Some(Said {
            user,
            target,
            outcome,
        });
    }
    // BSD: `BAD SU lan to root on /dev/pts/0`, `lan to root on /dev/pts/0`
    let (message, outcome) = match message.strip_prefix(b"BAD SU ") {
        Some(rest) => (rest, FAILURE),
        None => (message, SUCCESS),
    };
    let (pair, terminal) = reader::rsplit(message, b" on ")?;
    let (user, target) = reader::split(pair, b" to ")?;
    let is_plain = terminal.starts_with(b"/dev/") && !user.contains(&b' ');
    is_plain.then_some(Said {
        user,
        target,
        outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn every_su_says_who_became_whom() {
        for (message, expected) in [
            ("(to root) lan on pts/0", "lan root success"),
            ("FAILED SU (to root) lan on pts/0", "lan root failure"),
            ("Successful su for root by lan", "lan root success"),
            ("FAILED su for root by lan", "lan root failure"),
            ("+ /dev/pts/0 lan:root", "lan root success"),
            ("- pts/0 lan:root", "lan root failure"),
            ("'su root' failed for lan on /dev/pts/1", "lan root failure"),
            (
                "'su root' succeeded for lan on /dev/pts/1",
                "lan root success",
            ),
            ("BAD SU lan to root on /dev/ttyp0", "lan root failure"),
            ("lan to root on /dev/ttyp0", "lan root success"),
        ] {
            let [user, target, outcome] =
                expected.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let expected =
                format!("Service=su User={user} TargetUserName={target} Outcome={outcome}");
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                expected,
                "{message}"
            );
        }
        for message in [
            "",
            "pam_authenticate: Authentication failure",
            "moved on to other things on Monday",
        ] {
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                "Service=su",
                "{message}"
            );
        }
    }
}
