//! Whatever the bytes, a decoder returns, and emits at least one event.

use proptest::prelude::*;

use super::*;

const LINES: &str = include_str!("../../../tests/data/logs/made-here.log");

const FORMATS: [Format; 4] = [Format::Auto, Format::Json, Format::Syslog, Format::Access];

fn survives(lines: &[Vec<u8>]) {
    for format in FORMATS {
        let mut decoder = for_format(format, &around());
        for line in lines {
            let record = record(line);
            let (seen, _) = decoded(&mut *decoder, &record, Unknown::Keep);
            assert!(!seen.is_empty(), "{format:?} lost {:?}", record.bytes);
        }
    }
}

/// A real line with some bytes replaced, taken out or put in.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&str> = LINES.lines().collect();
    let edit = (any::<prop::sample::Index>(), any::<u8>(), 0..4u8);
    (
        prop::sample::select(lines),
        prop::collection::vec(edit, 0..6),
    )
        .prop_map(|(line, edits)| {
            let mut bytes = line.as_bytes().to_vec();
            for (at, byte, kind) in edits {
                let at = at.index(bytes.len().max(1)).min(bytes.len());
                match kind {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, byte),
                    2 if at < bytes.len() => bytes[at] = byte,
                    3 if at < bytes.len() => drop(bytes.remove(at)),
                    _ => {}
                }
            }
            bytes
        })
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_survived(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..4)) {
        survives(&lines);
    }

    #[test]
    fn mutated_lines_are_survived(lines in prop::collection::vec(mutated(), 1..4)) {
        survives(&lines);
    }
}

#[test]
fn every_line_made_here_is_understood() {
    for line in LINES.lines() {
        let (_, outcome) = one(Format::Auto, line);
        assert_eq!(outcome, Ok(()), "{line}");
    }
}

#[test]
fn a_line_of_the_greatest_length_is_read_in_good_time() {
    // 64 KiB of what each reader searches for, where a reader that starts over at each find would be quadratic.
    for piece in [
        " from ",
        " [",
        "\"",
        "\\",
        "%2",
        "{\"a\":",
        "[",
        " ; USER=",
        " rhost=",
        "(",
        " by ",
        ": ",
        "<1>",
        " port 1 ",
        " from 192.0.2.1 port 22 ssh2 x",
    ] {
        let tail = piece.repeat(65_536 / piece.len());
        for head in [
            "",
            "Mar  1 10:00:00 web1 sshd[1]: Failed password for invalid user ",
            "Mar  1 10:00:00 web1 sudo: an : ",
            "Mar  1 10:00:00 web1 x: pam_unix(x:auth): authentication failure; ",
            "192.0.2.7 - - [01/Mar/2026:10:00:00 +0700] \"GET ",
        ] {
            survives(&[format!("{head}{tail}").into_bytes()]);
        }
    }
    // A long name before many values, where looking each up would cost the product.
    let values = "\"b\":1,".repeat(4_000);
    let line = format!("{{\"{}\":{{{values}\"c\":1}}}}", "a".repeat(30_000));
    survives(&[line.into_bytes()]);
}
