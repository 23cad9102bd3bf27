//! Which sentence of which program a line is. One pass over the line finds every sentence whose longest fixed words
//! stand in it; only those are followed, so a line of a program that nobody knows costs one pass.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};

use crate::decode::program::phrase::{Found, Phrase, Voice};
use crate::decode::program::{
    Line, anyone, mail, name_server, panel, remote, transfer, unknown, voip,
};
use crate::decode::reader;
use crate::event::Event;
use crate::event::field;

/// Every table of sentences, those of lines without a program last.
const VOICES: [&[Voice]; 8] = [
    mail::VOICES,
    transfer::VOICES,
    remote::VOICES,
    voip::VOICES,
    name_server::VOICES,
    panel::VOICES,
    anyone::VOICES,
    unknown::VOICES,
];

/// Services whose own files, without a syslog head, are common, or whose lines come under other programs' tags.
const OWN_FILES: [&str; 32] = [
    "asterisk",
    "freeswitch",
    "murmur",
    "znc",
    "ejabberd",
    "dovecot",
    "exim",
    "postfix",
    "roundcube",
    "horde",
    "monit",
    "nsd",
    "softether",
    "dropbear",
    "courier",
    "sendmail",
    "pure-ftpd",
    "cyrus",
    "openvpn",
    "gitea",
    "fail2ban",
    "opensmtpd",
    "routeros",
    "drupal",
    "ftpd",
    "proftpd",
    "named",
    "stunnel",
    "xrdp",
    "suhosin",
    "sogo",
    "phpmyadmin",
];

/// Lines hold a handful of these words; a line made of them alone ends here.
const CANDIDATES_MAX: usize = 64;

static INDEX: LazyLock<Index> = LazyLock::new(Index::new);

struct Index {
    words: AhoCorasick,
    /// In the order of the tables, which is the order in which sentences of one voice are tried.
    sentences: Vec<Sentence>,
}

struct Sentence {
    voice: &'static Voice,
    phrase: &'static Phrase,
    reach: Reach,
}

/// Of whom a sentence may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Only of the programs that its voice names.
    Named,
    /// Also of lines whose program has no voice.
    Anyone,
    /// Of those, when no other sentence fits.
    LastResort,
}

/// Sets the fields of the sentence that a line is; returns whether it is one.
pub fn read<'r>(line: &Line<'r>, event: &mut Event<'r>) -> bool {
    let Some((sentence, found)) = INDEX.find(line.program, line.message) else {
        return false;
    };
    let service = sentence.voice.service.as_bytes();
    match service {
        b"" if line.program.is_empty() => {}
        b"" => event.set(field::SERVICE, line.program),
        service => event.set(field::SERVICE, service),
    }
    found.set(event);
    true
}

/// Returns the service of a line that has no head at all, if one of the sentences fits.
pub fn own_file(line: &[u8]) -> Option<(&'static [u8], &[u8])> {
    let (sentence, found) = INDEX.find(b"", line)?;
    // A line is not taken from its true reader for words that say nothing.
    (sentence.reach == Reach::Anyone && !found.is_silent())
        .then_some((sentence.voice.service.as_bytes(), line))
}

impl Index {
    fn new() -> Self {
        let mut sentences = Vec::new();
        for table in VOICES {
            for voice in table {
                let reach = match voice {
                    Voice { service: "", .. } => Reach::LastResort,
                    Voice { programs: [], .. } => Reach::Anyone,
                    voice if OWN_FILES.contains(&voice.service) => Reach::Anyone,
                    _ => Reach::Named,
                };
                sentences.extend(voice.phrases.iter().map(|phrase| Sentence {
                    voice,
                    phrase,
                    reach,
                }));
            }
        }
        let words = AhoCorasickBuilder::new()
            .match_kind(MatchKind::Standard)
            .build(sentences.iter().map(|sentence| sentence.phrase.rarest()))
            .expect("a few hundred short words make an automaton");
        Self { words, sentences }
    }

    fn find<'r>(
        &'static self,
        program: &[u8],
        message: &'r [u8],
    ) -> Option<(&'static Sentence, Found<'r>)> {
        let mut candidates = [u32::MAX; CANDIDATES_MAX];
        let mut count = 0;
        for found in self.words.find_overlapping_iter(message) {
            let number = found.pattern().as_u32();
            let seen = candidates.get(..count).unwrap_or_default();
            if !seen.contains(&number) {
                let Some(slot) = candidates.get_mut(count) else {
                    break;
                };
                *slot = number;
                count += 1;
            }
        }
        let candidates = candidates.get_mut(..count)?;
        candidates.sort_unstable();
        let sentences = || {
            let numbers = candidates.iter();
            numbers.filter_map(|&number| self.sentences.get(number as usize))
        };
        let follow = |sentence: &'static Sentence| {
            let found = sentence.phrase.follow(message)?;
            Some((sentence, found))
        };
        sentences().next()?;
        let (family, last) = names(program);
        if !program.is_empty() && self.is_known(family, last) {
            return sentences()
                .filter(|s| s.voice.is_of(family) || s.voice.is_of(last))
                .find_map(follow);
        }
        let of = |reach| sentences().filter(move |s| s.reach == reach);
        of(Reach::Anyone)
            .find_map(follow)
            .or_else(|| of(Reach::LastResort).find_map(follow))
    }

    /// Whether a program has a voice of its own: its lines are then nobody else's.
    fn is_known(&self, family: &[u8], last: &[u8]) -> bool {
        let voices = VOICES.iter().copied().flatten();
        let mut named = voices.filter(|voice| !voice.programs.is_empty());
        named.any(|voice| voice.is_of(family) || voice.is_of(last))
    }
}

/// `postfix/smtps/smtpd`, `cyrus/imap`: the family and the program.
fn names(program: &[u8]) -> (&[u8], &[u8]) {
    match reader::split_byte(program, b'/') {
        Some((family, rest)) => {
            let last = reader::rsplit_byte(rest, b'/').map_or(rest, |(_, last)| last);
            (family, last)
        }
        None => (program, program),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn service(program: &str, message: &str) -> Option<&'static str> {
        let found = INDEX.find(program.as_bytes(), message.as_bytes());
        found.map(|(sentence, _)| sentence.voice.service)
    }

    #[test]
    fn a_program_speaks_its_own_sentences_only() {
        let webmin = "Invalid login as an from 192.0.2.7";
        for (program, message, expected) in [
            ("webmin", webmin, Some("webmin")),
            ("dovecot", webmin, None),
            (
                "postfix/smtps/smtpd",
                "lost connection after AUTH from x[192.0.2.7]",
                Some("postfix"),
            ),
            (
                "",
                "lost connection after AUTH from x[192.0.2.7]",
                Some("postfix"),
            ),
            ("app", "Failed login for an from 192.0.2.7", Some("")),
            ("app", "Failed login for an from home", None),
            ("app", "", None),
        ] {
            assert_eq!(service(program, message), expected, "{program}: {message}");
        }
    }

    #[test]
    fn every_sentence_is_found_by_words_that_are_not_everywhere() {
        let short: BTreeSet<_> = INDEX
            .sentences
            .iter()
            .filter(|sentence| sentence.phrase.rarest().len() < 5)
            .map(|sentence| sentence.phrase.words)
            .collect();
        assert!(short.len() <= 12, "{short:?}");
        for service in OWN_FILES {
            let mut services = INDEX.sentences.iter().map(|s| s.voice.service);
            assert!(services.any(|s| s == service), "no sentence of {service}");
        }
    }

    #[test]
    fn the_index_finds_what_following_each_sentence_finds() {
        for sentence in &INDEX.sentences {
            let line = sentence
                .phrase
                .words
                .trim_start_matches('^')
                .trim_end_matches('$')
                .replace("{ip}", "192.0.2.7")
                .replace("{host}", "gw.example.org")
                .replace("{user}", "an")
                .replace("{method}", "PLAIN")
                .replace("{any}", "x")
                .replace("{most}", "x");
            assert!(
                sentence.phrase.follow(line.as_bytes()).is_some(),
                "{line} is not its own sentence"
            );
            let program = sentence.voice.programs.first().copied().unwrap_or_default();
            assert!(
                INDEX.find(program.as_bytes(), line.as_bytes()).is_some(),
                "{line}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(program in "[a-z/]{0,9}", message: Vec<u8>) {
            let _ = INDEX.find(program.as_bytes(), &message);
        }
    }
}
