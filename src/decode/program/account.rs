//! What the tools write that make, change and remove accounts and groups: shadow's and passwd's.

use crate::decode::program::{FAILURE, SUCCESS};
use crate::decode::reader;
use crate::event::Event;
use crate::event::field;

/// Whether a program is one of these.
pub fn writes(program: &[u8]) -> bool {
    matches!(
        program,
        b"useradd"
            | b"usermod"
            | b"userdel"
            | b"adduser"
            | b"deluser"
            | b"groupadd"
            | b"groupmod"
            | b"groupdel"
            | b"addgroup"
            | b"delgroup"
            | b"gpasswd"
            | b"passwd"
            | b"chpasswd"
            | b"chage"
            | b"chfn"
            | b"chsh"
            | b"newusers"
    )
}

/// Sets `TargetUserName` and `GroupName`, and `User` where the line says who did it. A refusal has `Outcome: failure`.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    let said = Said::read(message.trim_ascii());
    for (id, value) in [
        (field::TARGET_USER_NAME, said.user),
        (field::GROUP_NAME, said.group),
        (field::USER, said.actor),
    ] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            event.set(id, value);
        }
    }
    if let Some(outcome) = said.outcome {
        event.set(field::OUTCOME, outcome);
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Said<'r> {
    user: Option<&'r [u8]>,
    group: Option<&'r [u8]>,
    actor: Option<&'r [u8]>,
    outcome: Option<&'static str>,
}

impl<'r> Said<'r> {
    fn read(text: &'r [u8]) -> Self {
        let granted = Self {
            outcome: Some(SUCCESS),
            ..Self::default()
        };
        if let Some(failed) = text.strip_prefix(b"failed ") {
            return Self {
                outcome: Some(FAILURE),
                ..Self::changed(failed).unwrap_or_default()
            };
        }
        match Self::made(text).or_else(|| Self::changed(text)) {
            Some(said) => Self {
                outcome: granted.outcome,
                ..said
            },
            None => Self::default(),
        }
    }

    /// `new user: name=an, UID=1001, …`, `new group: name=an, GID=1001`, `group added to /etc/group: name=an, GID=1001`
    fn made(text: &'r [u8]) -> Option<Self> {
        let name = |rest: &'r [u8]| {
            reader::between(rest, b"name=", b',').or_else(|| Some(reader::split(rest, b"name=")?.1))
        };
        if let Some(rest) = text.strip_prefix(b"new user: ") {
            return Some(Self {
                user: name(rest),
                ..Self::default()
            });
        }
        let rest = text
            .strip_prefix(b"new group: ")
            .or_else(|| text.strip_prefix(b"group added to "))?;
        Some(Self {
            group: name(rest),
            ..Self::default()
        })
    }

    fn changed(text: &'r [u8]) -> Option<Self> {
        Self::membership(text)
            .or_else(|| Self::by_gpasswd(text))
            .or_else(|| Self::of_one_user(text))
            .or_else(|| Self::of_one_group(text))
    }

    /// `add 'an' to group 'sudo'`, `add 'an' to shadow group 'sudo'`, `delete 'an' from group 'sudo'`
    fn membership(text: &'r [u8]) -> Option<Self> {
        let rest = text
            .strip_prefix(b"add '")
            .or_else(|| text.strip_prefix(b"delete '"))?;
        let (user, rest) = reader::split_byte(rest, b'\'')?;
        let (_, group) = reader::split(rest, b"group '")?;
        Some(Self {
            user: Some(user),
            group: Some(group.strip_suffix(b"'").unwrap_or(group)),
            ..Self::default()
        })
    }

    /// `user an added by root to group sudo`, `user an removed by root from group sudo`
    fn by_gpasswd(text: &'r [u8]) -> Option<Self> {
        let rest = text.strip_prefix(b"user ")?;
        let (user, rest) =
            reader::split(rest, b" added by ").or_else(|| reader::split(rest, b" removed by "))?;
        let (actor, group) =
            reader::split(rest, b" to group ").or_else(|| reader::split(rest, b" from group "))?;
        Some(Self {
            user: Some(user),
            group: Some(group),
            actor: Some(actor),
            ..Self::default()
        })
    }

    /// `delete user 'an'`, `change user 'an' shell from …`, `lock user 'an' password`, `changed user 'an' …`,
    /// `password for 'an' changed by 'root'`, `changed password expiry for an`
    fn of_one_user(text: &'r [u8]) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"password for '") {
            let (user, rest) = reader::split_byte(rest, b'\'')?;
            return Some(Self {
                user: Some(user),
                actor: reader::between(rest, b" by '", b'\''),
                ..Self::default()
            });
        }
        if let Some(user) = text.strip_prefix(b"changed password expiry for ") {
            return Some(Self {
                user: Some(user),
                ..Self::default()
            });
        }
        let (verb, rest) = reader::split(text, b" user '")?;
        matches!(
            verb,
            b"delete" | b"change" | b"changed" | b"lock" | b"unlock"
        )
        .then_some(())?;
        Some(Self {
            user: Some(reader::split_byte(rest, b'\'')?.0),
            ..Self::default()
        })
    }

    /// `removed group 'an' owned by 'an'`, `group 'an' removed from /etc/group`, `members of group sudo set by root to an,bao`
    fn of_one_group(text: &'r [u8]) -> Option<Self> {
        if let Some(rest) = text.strip_prefix(b"members of group ") {
            let (group, rest) = reader::split(rest, b" set by ")?;
            let (actor, members) = reader::split(rest, b" to ")?;
            return Some(Self {
                user: Some(members),
                group: Some(group),
                actor: Some(actor),
                ..Self::default()
            });
        }
        let rest = text
            .strip_prefix(b"removed group '")
            .or_else(|| text.strip_prefix(b"removed shadow group '"))
            .or_else(|| text.strip_prefix(b"group '"))
            .or_else(|| text.strip_prefix(b"delete group '"))?;
        Some(Self {
            group: Some(reader::split_byte(rest, b'\'')?.0),
            ..Self::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn accounts_and_groups_are_named() {
        for (message, expected) in [
            (
                "new user: name=an, UID=1001, GID=1001, home=/home/an, shell=/bin/bash, from=/dev/pts/0",
                "TargetUserName=an Outcome=success",
            ),
            (
                "new group: name=an, GID=1001",
                "GroupName=an Outcome=success",
            ),
            (
                "group added to /etc/group: name=an, GID=1001",
                "GroupName=an Outcome=success",
            ),
            (
                "add 'an' to group 'sudo'",
                "TargetUserName=an GroupName=sudo Outcome=success",
            ),
            (
                "add 'an' to shadow group 'sudo'",
                "TargetUserName=an GroupName=sudo Outcome=success",
            ),
            (
                "delete 'an' from group 'sudo'",
                "TargetUserName=an GroupName=sudo Outcome=success",
            ),
            (
                "user an added by root to group sudo",
                "TargetUserName=an GroupName=sudo User=root Outcome=success",
            ),
            (
                "members of group sudo set by root to an,bao",
                "TargetUserName=an,bao GroupName=sudo User=root Outcome=success",
            ),
            ("delete user 'an'", "TargetUserName=an Outcome=success"),
            (
                "change user 'an' shell from '/bin/sh' to '/bin/bash'",
                "TargetUserName=an Outcome=success",
            ),
            (
                "password for 'an' changed by 'root'",
                "TargetUserName=an User=root Outcome=success",
            ),
            (
                "removed group 'an' owned by 'an'",
                "GroupName=an Outcome=success",
            ),
            ("failed adding user 'an', data deleted", "Outcome=failure"),
            ("something else", ""),
            ("", ""),
        ] {
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                expected,
                "{message}"
            );
        }
    }
}
