//! What cron and crontab write.

use crate::decode::reader;
use crate::event::Event;
use crate::event::field;

/// `(NAME) CMD (COMMAND)`, `(NAME) REPLACE (NAME)` and its kin. The command is the account's own; it may hold brackets,
/// so it ends at the last one.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    event.set(field::SERVICE, "cron");
    let Some((user, rest)) = message
        .strip_prefix(b"(")
        .and_then(|rest| reader::split(rest, b") "))
    else {
        return;
    };
    event.set(field::USER, user);
    let Some((action, subject)) = reader::split(rest, b" (") else {
        return;
    };
    event.set(field::ACTION, action);
    let subject = reader::rsplit_byte(subject, b')').map_or(subject, |(inner, _)| inner);
    match action {
        b"CMD" | b"CMDEND" => event.set(field::COMMAND_LINE, subject.trim_ascii()),
        // crontab names the account whose table it is.
        b"REPLACE" | b"DELETE" | b"BEGIN EDIT" | b"END EDIT" | b"LIST" => {
            event.set(field::TARGET_USER_NAME, subject);
        }
        b"RELOAD" => event.set(field::TARGET_FILENAME, subject),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn jobs_and_changes_of_tables_are_read() {
        for (message, expected) in [
            (
                "(root) CMD (   cd / && run-parts --report /etc/cron.hourly)",
                "Service=cron User=root action=CMD CommandLine=cd / && run-parts --report /etc/cron.hourly",
            ),
            (
                "(an) CMD (sh -c '(date) >> x')",
                "Service=cron User=an action=CMD CommandLine=sh -c '(date) >> x'",
            ),
            (
                "(root) REPLACE (an)",
                "Service=cron User=root action=REPLACE TargetUserName=an",
            ),
            (
                "(an) RELOAD (crontabs/an)",
                "Service=cron User=an action=RELOAD TargetFilename=crontabs/an",
            ),
            (
                "(CRON) INFO (No MTA installed)",
                "Service=cron User=CRON action=INFO",
            ),
            ("(an", "Service=cron"),
            ("", "Service=cron"),
        ] {
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                expected,
                "{message}"
            );
        }
    }
}
