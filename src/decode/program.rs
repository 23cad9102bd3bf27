//! What single programs write behind a syslog header: who logged in, from where, and whether it was granted.
//!
//! **One attempt, one verdict.** `Outcome` stands on the line that a program writes to say how an attempt ended, so
//! that a rule that counts `Outcome: failure` counts attempts. PAM writes a line of its own for the same attempt; where
//! the program gives its own verdict in the same log (sshd, sudo, su, login) the PAM line has `Service`, `SourceIp` and
//! the names, but no `Outcome`. For programs that leave the verdict to PAM (dovecot, cockpit, pure-ftpd …) it has one;
//! for vsftpd too, whose own verdicts go to a file of its own that few hosts watch.
//!
//! Names in these lines are chosen by attackers, also names that look like the rest of a line; every reader starts
//! from the end that the program itself wrote last.

pub mod account;
pub mod anyone;
pub mod clamav;
pub mod cron;
pub mod kernel;
pub mod login;
pub mod mail;
pub mod name_server;
pub mod netfilter;
pub mod pam;
pub mod panel;
pub mod phrase;
pub mod remote;
pub mod spoken;
pub mod sshd;
pub mod slapd;
pub mod su;
pub mod sudo;
pub mod transfer;
pub mod unknown;
pub mod voip;
pub mod vsftpd;

use crate::decode::reader;
use crate::event::Event;

/// A line of one program.
#[derive(Debug, Clone, Copy)]
pub struct Line<'r> {
    pub program: &'r [u8],
    pub module: Option<&'r [u8]>,
    pub process: Option<&'r [u8]>,
    pub host: &'r [u8],
    pub message: &'r [u8],
}

/// What the readers remember of earlier lines of the stream; bounded.
#[derive(Debug, Default)]
pub struct Memory {
    sessions: sshd::Sessions,
    connections: slapd::Connections,
}

/// What a line was found to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// It speaks of a login, whatever program wrote it.
    pub is_authentication: bool,
    /// It tells of a packet that a filter saw.
    pub is_firewall: bool,
}

/// Values of `Outcome`.
const SUCCESS: &str = "success";
const FAILURE: &str = "failure";

/// Sets the fields of a line. A line that says nothing of interest sets none.
pub fn read<'r>(line: &Line<'r>, memory: &mut Memory, event: &mut Event<'r>) -> Found {
    if panel::is_own_verdict(line.program) && spoken::read(line, event) {
        return Found {
            is_authentication: true,
            ..Found::default()
        };
    }
    let of_pam = pam::read(line, event);
    if of_pam != pam::Said::Nothing {
        if of_pam == pam::Said::Other {
            spoken::read(line, event);
        }
        return Found {
            is_authentication: true,
            ..Found::default()
        };
    }
    if netfilter::read(line.message, event) {
        return Found {
            is_firewall: true,
            ..Found::default()
        };
    }
    match service(line.program) {
        b"sshd" => sshd::read(line, &mut memory.sessions, event),
        b"sudo" => sudo::read(line.message, event),
        b"su" => su::read(line.message, event),
        b"login" => login::read(line.message, event),
        b"vsftpd" => vsftpd::read(line.message, event),
        b"cron" => cron::read(line.message, event),
        b"clamav" => clamav::read(line.message, event),
        b"slapd" => slapd::read(line.message, &mut memory.connections, event),
        b"kernel" => kernel::read(line.message, event),
        name if account::writes(name) => account::read(line.message, event),
        _ => {
            spoken::read(line, event);
        }
    }
    Found::default()
}

/// Returns the service and the message of a line that has no head at all, if a program's own sentence says whose it is.
pub fn own_file(line: &[u8]) -> Option<(&'static [u8], &[u8])> {
    // PAM names the service itself.
    if line.starts_with(b"pam_") && reader::contains(line, b": authentication failure; ") {
        return Some((b"", line));
    }
    spoken::own_file(line)
}

/// Returns Sigma's name of the service that a program belongs to; programs it has no name for go by their own.
pub fn service(program: &[u8]) -> &[u8] {
    match program {
        b"sshd" | b"sshd-session" | b"sshd-auth" => b"sshd",
        b"cron" | b"CRON" | b"crond" | b"crontab" | b"CROND" | b"anacron" | b"cronie" => b"cron",
        b"clamd" | b"freshclam" | b"clamscan" | b"clamav" | b"clamonacc" => b"clamav",
        b"guacd" => b"guacamole",
        // PAM's names for `su -` and `sudo -i`.
        b"su-l" => b"su",
        b"sudo-i" => b"sudo",
        other => other,
    }
}

/// Whether everything that a service writes is a matter of authentication, whatever its facility.
pub fn is_authentication(service: &[u8]) -> bool {
    matches!(
        service,
        b"sshd"
            | b"sudo"
            | b"su"
            | b"login"
            | b"doas"
            | b"pkexec"
            | b"polkitd"
            | b"dropbear"
            | b"systemd-logind"
            | b"runuser"
            | b"sssd"
    ) || account::writes(service)
}

/// Recognises a daemon's line that stands without any tag, by how it begins; returns the program and the line.
pub fn bare(line: &[u8]) -> Option<(&'static [u8], &[u8])> {
    if sshd::begins(line) {
        return Some((b"sshd", line));
    }
    vsftpd::begins(line).then_some((&b"vsftpd"[..], line))
}
