//! What PAM modules write into the log of the program that called them.

use crate::decode::program::{FAILURE, Line, SUCCESS};
use crate::decode::{program, reader, set_source};
use crate::event::Event;
use crate::event::field;

/// Programs that say themselves how an attempt ended, so that PAM's word would count it twice.
const OWN_VERDICT: [&[u8]; 4] = [b"sshd", b"sudo", b"su", b"login"];

/// How much of a line PAM accounts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is not of PAM.
    Nothing,
    /// It is of a module, in words of its own.
    Other,
    /// An attempt, a session or a password.
    All,
}

/// Reads a line of PAM's.
pub fn read<'r>(line: &Line<'r>, event: &mut Event<'r>) -> Said {
    let Some((service, text)) = parts(line) else {
        return Said::Nothing;
    };
    event.set(field::SERVICE, service);
    let text = text.trim_ascii();
    let outcome = if let Some(count) = failure(text) {
        let said = Failure::read(count);
        said.set(event);
        Some(FAILURE)
    } else if let Some(rest) = text.strip_prefix(b"password changed for ") {
        event.set(field::TARGET_USER_NAME, rest);
        Some(SUCCESS)
    } else if session(text, event) {
        None
    } else {
        return Said::Other;
    };
    if let Some(outcome) = outcome
        && !OWN_VERDICT.contains(&service)
    {
        event.set(field::OUTCOME, outcome);
    }
    Said::All
}

/// Returns the service and the text: `pam_unix(sshd:auth): TEXT`, `(pam_unix) TEXT`, `pam_unix: TEXT`, `sshd(pam_unix)[1]: TEXT`,
/// `PAM 2 more authentication failures; …`, and the bare `authentication failure; …` of relays.
fn parts<'r>(line: &Line<'r>) -> Option<(&'r [u8], &'r [u8])> {
    let own = program::service(line.program);
    let message = line.message;
    let is_module = |name: &[u8]| name.starts_with(b"pam_");
    if line.module.is_some_and(is_module) {
        return Some((own, message));
    }
    if let Some(rest) = message.strip_prefix(b"(pam_") {
        return Some((own, reader::split(rest, b") ")?.1));
    }
    if message.starts_with(b"pam_") {
        let (module, text) = reader::split(message, b": ")?;
        let Some((_, inner)) = reader::split_byte(module, b'(') else {
            return (!module.contains(&b' ')).then_some((own, text));
        };
        let inner = inner.strip_suffix(b")")?;
        // `pam_unix(auth)` names the kind and no service.
        let service = reader::split_byte(inner, b':').map_or(own, |(service, _)| service);
        return Some((program::service(service), text));
    }
    if let Some(rest) = message.strip_prefix(b"PAM ") {
        return rest.first()?.is_ascii_digit().then_some((own, rest));
    }
    message
        .starts_with(b"authentication failure; ")
        .then_some((own, message))
}

/// `authentication failure; PAIRS` and `2 more authentication failures; PAIRS`
fn failure(text: &[u8]) -> Option<&[u8]> {
    let (head, pairs) = reader::split(text, b"; ")?;
    let counted = head
        .strip_suffix(b" more authentication failures")
        .or_else(|| head.strip_suffix(b" more authentication failure"));
    let is_failure =
        head == b"authentication failure" || counted.is_some_and(|n| reader::decimal(n).is_some());
    is_failure.then_some(pairs)
}

/// `logname=… uid=0 euid=0 tty=ssh ruser=… rhost=…  user=…`
struct Failure<'r> {
    actor: &'r [u8],
    host: &'r [u8],
    user: &'r [u8],
}

impl<'r> Failure<'r> {
    /// `ruser` and `user` may be what a client sent, also ` rhost=…`. They stand on either side of the true `rhost`, so
    /// it is the last one before the first ` user=`.
    fn read(pairs: &'r [u8]) -> Self {
        let (head, user) = reader::split(pairs, b" user=").unwrap_or((pairs, b""));
        let (before, host) = match reader::rsplit(head, b"rhost=") {
            Some(parts) => parts,
            None => reader::rsplit(pairs, b"rhost=").unwrap_or((pairs, b"")),
        };
        let host = reader::split_byte(host, b' ').map_or(host, |(host, _)| host);
        let actor = reader::split(before, b"ruser=").map_or(&b""[..], |(_, actor)| actor);
        let user = user.trim_ascii();
        // `msg=…` follows the name in some programs' lines.
        let user = reader::split(user, b" msg=").map_or(user, |(user, _)| user);
        Self {
            actor: actor.trim_ascii(),
            host,
            user,
        }
    }

    fn set(&self, event: &mut Event<'r>) {
        set_source(event, self.host);
        // Services without local accounts (mail, FTP) put the name they were given into `ruser`.
        let (actor, user) = match self.user.is_empty() {
            true => (&b""[..], self.actor),
            false => (self.actor, self.user),
        };
        if !user.is_empty() {
            event.set(field::TARGET_USER_NAME, user);
        }
        if !actor.is_empty() {
            event.set(field::USER, actor);
        }
    }
}

/// `session opened for user root(uid=0) by lan(uid=1000)`, `session closed for user root`
fn session<'r>(text: &'r [u8], event: &mut Event<'r>) -> bool {
    let Some(rest) = text
        .strip_prefix(b"session opened for user ")
        .or_else(|| text.strip_prefix(b"session closed for user "))
    else {
        return false;
    };
    let (target, actor) = match reader::rsplit(rest, b" by ") {
        Some((target, actor)) => (target, actor),
        None => (rest, &b""[..]),
    };
    let bare = |name: &'r [u8]| reader::rsplit(name, b"(uid=").map_or(name, |(name, _)| name);
    event.set(field::TARGET_USER_NAME, bare(target));
    let actor = bare(actor);
    if !actor.is_empty() {
        event.set(field::USER, actor);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    fn of(program: &str, message: &str) -> String {
        shown(|event| {
            let line = Line {
                program: program.as_bytes(),
                module: None,
                process: None,
                host: b"web1",
                message: message.as_bytes(),
            };
            read(&line, event);
        })
    }

    #[test]
    fn failures_name_service_source_and_account() {
        for (program, message, expected) in [
            (
                "vsftpd",
                "pam_unix(vsftpd:auth): authentication failure; logname= uid=0 euid=0 tty=ftp ruser=an rhost=192.0.2.7",
                "Service=vsftpd SourceIp=192.0.2.7 TargetUserName=an Outcome=failure",
            ),
            (
                "cockpit-session",
                "pam_unix(cockpit:auth): authentication failure; logname= uid=0 euid=0 tty= ruser= rhost=::ffff:192.0.2.7  user=an",
                "Service=cockpit SourceIp=192.0.2.7 TargetUserName=an Outcome=failure",
            ),
            (
                "sshd",
                "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root",
                "Service=sshd SourceIp=192.0.2.7 TargetUserName=root",
            ),
            (
                "sudo",
                "pam_unix(sudo:auth): authentication failure; logname=an uid=1000 euid=0 tty=/dev/pts/0 ruser=an rhost=  user=an",
                "Service=sudo TargetUserName=an User=an",
            ),
            (
                "su",
                "pam_unix(su-l:auth): authentication failure; logname=an uid=1000 euid=0 tty=pts/0 ruser=an rhost=  user=root",
                "Service=su TargetUserName=root User=an",
            ),
            (
                "sshd-session",
                "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=gw.example.org  user=root",
                "Service=sshd SourceHostname=gw.example.org TargetUserName=root",
            ),
            (
                "pure-ftpd",
                "(pam_unix) authentication failure; logname= uid=0 euid=0 tty=pure-ftpd ruser=an rhost=192.0.2.7 ",
                "Service=pure-ftpd SourceIp=192.0.2.7 TargetUserName=an Outcome=failure",
            ),
            (
                "sshd",
                "pam_unix(sshd:session): session opened for user an(uid=1000) by (uid=0)",
                "Service=sshd TargetUserName=an",
            ),
            (
                "sudo",
                "pam_unix(sudo:session): session opened for user root(uid=0) by an(uid=1000)",
                "Service=sudo TargetUserName=root User=an",
            ),
            (
                "passwd",
                "pam_unix(passwd:chauthtok): password changed for an",
                "Service=passwd TargetUserName=an Outcome=success",
            ),
            (
                "sshd",
                "pam_unix(sshd:auth): check pass; user unknown",
                "Service=sshd",
            ),
            ("cron", "pam_ is not a module of mine", ""),
        ] {
            assert_eq!(of(program, message), expected, "{program}: {message}");
        }
    }

    #[test]
    fn a_name_that_looks_like_an_address_pair_changes_no_address() {
        for pairs in [
            "ruser=an rhost=198.51.100.9 rhost=192.0.2.7",
            "ruser= rhost=192.0.2.7 user=an rhost=198.51.100.9",
            "ruser=an rhost=198.51.100.9 rhost=192.0.2.7  user=an rhost=198.51.100.9",
        ] {
            let message = format!(
                "pam_unix(x:auth): authentication failure; logname= uid=0 euid=0 tty= {pairs}"
            );
            assert!(of("x", &message).contains("SourceIp=192.0.2.7 "), "{pairs}");
        }
    }
}
