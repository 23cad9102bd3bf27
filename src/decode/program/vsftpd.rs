//! What vsftpd writes to syslog, and to a file of its own.

use crate::decode::program::{FAILURE, SUCCESS};
use crate::decode::{reader, set_source};
use crate::event::Event;
use crate::event::field;

/// Whether a line without a tag is of vsftpd's own file: `[pid 7] [NAME] FAIL LOGIN: Client …`
pub fn begins(line: &[u8]) -> bool {
    line.starts_with(b"[pid ") && reader::contains(line, b": Client \"")
}

/// `[NAME] FAIL LOGIN: Client "ADDRESS"`, `[NAME] OK LOGIN: Client "ADDRESS", anon password "…"`, `CONNECT: Client "ADDRESS"`.
/// The name may not hold a bracket of its own in what the server lets through; the last `] ` before the word decides.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    event.set(field::SERVICE, "vsftpd");
    let (head, tail, outcome) =
        if let Some((head, tail)) = reader::rsplit(message, b"FAIL LOGIN: Client \"") {
            (head, tail, Some(FAILURE))
        } else if let Some((head, tail)) = reader::split(message, b"OK LOGIN: Client \"") {
            (head, tail, Some(SUCCESS))
        } else if let Some((head, tail)) = reader::split(message, b": Client \"") {
            (head, tail, None)
        } else {
            return;
        };
    if let Some((peer, _)) = reader::split_byte(tail, b'"') {
        set_source(event, peer);
    }
    let name = head
        .trim_ascii()
        .strip_suffix(b"]")
        .and_then(|head| reader::rsplit_byte(head, b'['));
    if let (Some((_, name)), Some(_)) = (name, outcome) {
        event.set(field::TARGET_USER_NAME, name);
    }
    if let Some(outcome) = outcome {
        event.set(field::OUTCOME, outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn logins_name_client_and_account() {
        for (message, expected) in [
            (
                "[an] FAIL LOGIN: Client \"::ffff:192.0.2.7\"",
                "Service=vsftpd SourceIp=192.0.2.7 TargetUserName=an Outcome=failure",
            ),
            (
                "[pid 2] [ftp] OK LOGIN: Client \"192.0.2.7\", anon password \"x\"",
                "Service=vsftpd SourceIp=192.0.2.7 TargetUserName=ftp Outcome=success",
            ),
            (
                "CONNECT: Client \"192.0.2.7\"",
                "Service=vsftpd SourceIp=192.0.2.7",
            ),
            ("", "Service=vsftpd"),
        ] {
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                expected,
                "{message}"
            );
        }
    }
}
