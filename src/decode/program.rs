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
pub mod sshd;
pub mod su;
pub mod sudo;
pub mod transfer;
pub mod voip;
pub mod vsftpd;

use crate::decode::program::phrase::Voice;
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
    if panel::is_own_verdict(line.program) && speak(line, event) {
        return Found {
            is_authentication: true,
            ..Found::default()
        };
    }
    if pam::read(line, event) {
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
        b"kernel" => kernel::read(line.message, event),
        name if account::writes(name) => account::read(line.message, event),
        _ => {
            speak(line, event);
        }
    }
    Found::default()
}

/// Every table of sentences.
const VOICES: [&[Voice]; 6] = [
    mail::VOICES,
    transfer::VOICES,
    remote::VOICES,
    voip::VOICES,
    name_server::VOICES,
    panel::VOICES,
];

/// Reads a line by the sentences of its program; a program that nobody knows, by those that name theirs.
fn speak<'r>(line: &Line<'r>, event: &mut Event<'r>) -> bool {
    let name = line.program;
    // `postfix/smtps/smtpd`, `cyrus/imap`
    let (family, last) = match reader::split_byte(name, b'/') {
        Some((family, rest)) => (
            family,
            reader::rsplit_byte(rest, b'/').map_or(rest, |(_, last)| last),
        ),
        None => (name, name),
    };
    let mut known = VOICES
        .iter()
        .copied()
        .flatten()
        .filter(|voice| voice.is_of(family) || voice.is_of(last))
        .peekable();
    if known.peek().is_some() && !name.is_empty() {
        return known.any(|voice| voice.read(line.message, event));
    }
    anyone::VOICES
        .iter()
        .chain(VOICES.iter().copied().flatten().filter(|v| is_own_file(v)))
        .any(|voice| voice.read(line.message, event))
}

/// Services whose own files, without a syslog head, are common.
fn is_own_file(voice: &Voice) -> bool {
    matches!(
        voice.service,
        "asterisk"
            | "freeswitch"
            | "murmur"
            | "znc"
            | "ejabberd"
            | "dovecot"
            | "exim"
            | "postfix"
            | "roundcube"
            | "horde"
            | "monit"
            | "nsd"
            | "softether"
            | "dropbear"
            | "courier"
            | "sendmail"
            | "pure-ftpd"
            | "cyrus"
            | "openvpn"
            | "gitea"
            | "fail2ban"
            | "opensmtpd"
            | "routeros"
            | "drupal"
            | "ftpd"
            | "proftpd"
            | "named"
    )
}

/// Returns the service of a line that has no head at all, if one of the sentences fits.
pub fn own_file(line: &[u8]) -> Option<(&'static [u8], &[u8])> {
    anyone::VOICES
        .iter()
        .chain(VOICES.iter().copied().flatten().filter(|v| is_own_file(v)))
        .find(|voice| voice.speaks(line))
        .map(|voice| (voice.service.as_bytes(), line))
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
