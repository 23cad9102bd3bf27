//! What the scanners of ClamAV write.

use crate::decode::reader;
use crate::event::Event;
use crate::event::field;

/// `PATH: SIGNATURE FOUND`. A path may hold `: `, a signature doesn't.
pub fn read<'r>(message: &'r [u8], event: &mut Event<'r>) {
    event.set(field::SERVICE, "clamav");
    let Some((path, signature)) = message
        .strip_suffix(b" FOUND")
        .and_then(|found| reader::rsplit(found, b": "))
    else {
        return;
    };
    // `Win.Test.EICAR_HDB-1(44d88612fea8a8f36de82e1278abb02f:68)`
    let name = reader::split_byte(signature, b'(').map_or(signature, |(name, _)| name);
    event.set(field::SIGNATURE, name);
    event.set(field::FILENAME, path);
    event.set(field::TARGET_FILENAME, path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::tests::shown;

    #[test]
    fn a_finding_has_a_file_and_a_signature() {
        for (message, expected) in [
            (
                "/srv/up: load/a.exe: Win.Test.EICAR_HDB-1(44d88612:68) FOUND",
                "Service=clamav Signature=Win.Test.EICAR_HDB-1 Filename=/srv/up: load/a.exe TargetFilename=/srv/up: load/a.exe",
            ),
            ("SelfCheck: Database status OK.", "Service=clamav"),
        ] {
            assert_eq!(
                shown(|event| read(message.as_bytes(), event)),
                expected,
                "{message}"
            );
        }
    }
}
