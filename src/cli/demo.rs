//! The recorded attack of `up --demo`: packets and log lines, moved to the present. Addresses are those set aside for
//! documentation (RFC 5737), people and hosts are invented.

use jiff::{SignedDuration, Timestamp};

/// Made by the generator in this module's tests, which compares it byte by byte.
const ATTACK: &[u8] = include_bytes!("../../tests/data/demo/attack.pcap");

/// One line each: seconds before the end, a space, the line. `{time}` and `{host}` are put in.
const SCRIPTS: [Script; 3] = [
    Script {
        file: "auth.log",
        text: include_str!("../../tests/data/demo/auth.log"),
        time: TIME_OF_RSYSLOG,
    },
    Script {
        file: "syslog",
        text: include_str!("../../tests/data/demo/syslog"),
        time: TIME_OF_RSYSLOG,
    },
    Script {
        file: "access.log",
        text: include_str!("../../tests/data/demo/access.log"),
        time: "%d/%b/%Y:%H:%M:%S +0000",
    },
];

struct Script {
    file: &'static str,
    text: &'static str,
    time: &'static str,
}

/// As rsyslog writes it since Debian 12.
const TIME_OF_RSYSLOG: &str = "%Y-%m-%dT%H:%M:%S%.6f+00:00";

const FILE_HEADER_BYTES: usize = 24;
const PACKET_HEADER_BYTES: usize = 16;

/// Returns the recording as if its last packet had been caught at `now`: a pcap file.
pub fn pcap(now: Timestamp) -> Vec<u8> {
    let mut file = ATTACK.to_vec();
    let last = headers(&mut file).map(|header| time_of(header)).max();
    let moved = last.map_or(SignedDuration::ZERO, |last| now.duration_since(last));
    for header in headers(&mut file) {
        let time = time_of(header) + moved;
        // Both fit until the year 2106, when pcap itself ends.
        let second = u32::try_from(time.as_second()).unwrap_or(u32::MAX);
        let microsecond = u32::try_from(time.subsec_microsecond()).unwrap_or(0);
        let (seconds, fractions) = header.split_at_mut(4);
        seconds.copy_from_slice(&second.to_le_bytes());
        fractions.copy_from_slice(&microsecond.to_le_bytes());
    }
    file
}

/// Returns the lines of each log, by file name, as if the last had been written at `now` on `host`.
pub fn lines(now: Timestamp, host: &str) -> Vec<(&'static str, String)> {
    SCRIPTS
        .iter()
        .map(|script| (script.file, script.play(now, host)))
        .collect()
}

impl Script {
    fn play(&self, now: Timestamp, host: &str) -> String {
        let mut log = String::new();
        for line in self.text.lines() {
            let (seconds, text) = line
                .split_once(' ')
                .expect("each line has its time, checked by a test");
            let before: f64 = seconds
                .parse()
                .expect("the time is a number, checked by a test");
            let time = now - SignedDuration::from_secs_f64(before);
            let time = time.strftime(self.time).to_string();
            log.push_str(&text.replace("{time}", &time).replace("{host}", host));
            log.push('\n');
        }
        log
    }
}

/// Walks the times in the packets' headers; the recording is our own, little endian, in microseconds.
fn headers(file: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    let mut rest = file.get_mut(FILE_HEADER_BYTES..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (header, behind) =
            std::mem::take(&mut rest).split_at_mut_checked(PACKET_HEADER_BYTES)?;
        let (time, lengths) = header.split_at_mut(8);
        let kept = u32::from_le_bytes(*lengths.first_chunk()?);
        rest = behind.get_mut(kept as usize..)?;
        Some(time)
    })
}

fn time_of(header: &[u8]) -> Timestamp {
    let word = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk);
    let number = |at| word(at).map_or(0, |&word| u32::from_le_bytes(word));
    let time = SignedDuration::from_secs(number(0).into());
    Timestamp::UNIX_EPOCH + time + SignedDuration::from_micros(number(4).into())
}

#[cfg(test)]
mod tests;
