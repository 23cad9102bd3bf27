mod corpora;

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;
use crate::event::field::Unknown;
use crate::record::{FileId, Position};

const FILE: FileId = FileId {
    device: 1,
    inode: 1,
    head: 1,
};

/// An event as a test looks at it: its category or service, and its fields.
#[derive(Debug)]
pub struct Seen {
    pub source: String,
    pub fields: BTreeMap<String, Vec<String>>,
    pub time: Option<Timestamp>,
}

impl Seen {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.first().map(String::as_str)
    }
}

fn record(offset: u64, line: &[u8], read_at: Timestamp) -> Record {
    Record {
        position: Position::Offset { file: FILE, offset },
        read_at,
        bytes: Bytes::copy_from_slice(line),
        cut: false,
    }
}

fn look(event: &Event<'_>, fields: &Fields) -> Seen {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let known = event.iter().map(|(id, value)| (fields.name(id), value));
    for (name, value) in known.chain(event.others()) {
        found
            .entry(name.to_owned())
            .or_default()
            .push(value.lossy());
    }
    let words = event
        .logsources
        .categories
        .first()
        .or(event.logsources.services.first());
    Seen {
        source: words.map(|word| word.to_string()).unwrap_or_default(),
        fields: found,
        time: event.time,
    }
}

/// Decodes lines and what is left at the end.
pub fn seen(lines: &[&[u8]]) -> Vec<Seen> {
    let mut audit = Audit::new(&Surroundings::of(TimeZone::UTC));
    let mut fields = Fields::default();
    fields.unknown = Unknown::Keep;
    let mut events = Vec::new();
    let mut offset = 0;
    for line in lines {
        let record = record(offset, line, Timestamp::UNIX_EPOCH);
        offset += line.len() as u64 + 1;
        let _ = audit.decode(&record, &fields, &mut |event| {
            events.push(look(event, &fields))
        });
    }
    audit.flush(Timestamp::MAX, &fields, &mut |event| {
        events.push(look(event, &fields));
    });
    assert!(audit.held().is_empty(), "nothing is held after the end");
    events
}

fn of<'s>(events: &'s [Seen], source: &str) -> Vec<&'s Seen> {
    events.iter().filter(|seen| seen.source == source).collect()
}

const EXECVE: [&str; 6] = [
    r#"type=SYSCALL msg=audit(1700000000.500:10): arch=c000003e syscall=59 success=yes exit=0 a0=1 items=2 ppid=40 pid=41 auid=1000 uid=0 euid=0 tty=pts0 ses=3 comm="cat" exe=2F7573722F62696E2F636174202864656C6574656429 key="exec""#,
    r#"type=EXECVE msg=audit(1700000000.500:10): argc=3 a0="cat" a1=6120C3A9 a2="/etc/shadow""#,
    r#"type=CWD msg=audit(1700000000.500:10): cwd="/root""#,
    r#"type=PATH msg=audit(1700000000.500:10): item=0 name="/usr/bin/cat" inode=1 nametype=NORMAL"#,
    r#"type=PATH msg=audit(1700000000.500:10): item=1 name="/lib64/ld.so" inode=2 nametype=NORMAL"#,
    r#"type=PROCTITLE msg=audit(1700000000.500:10): proctitle=6361740061"#,
];

#[test]
fn a_started_program_is_one_event_and_each_record_another() {
    let lines: Vec<&[u8]> = EXECVE.iter().map(|line| line.as_bytes()).collect();
    let events = seen(&lines);
    let records = of(&events, "auditd");
    let types: Vec<_> = records.iter().filter_map(|seen| seen.get("type")).collect();
    assert_eq!(
        types,
        ["SYSCALL", "EXECVE", "CWD", "PATH", "PATH", "PROCTITLE"]
    );
    for seen in &records {
        assert_eq!(seen.get("exe"), Some("/usr/bin/cat (deleted)"), "{seen:?}");
        assert_eq!(seen.get("SYSCALL"), Some("execve"), "{seen:?}");
        assert_eq!(seen.get("key"), Some("exec"), "{seen:?}");
    }
    assert_eq!(records[1].get("a1"), Some("a é"));
    assert_eq!(
        records[0].get("a0"),
        Some("1"),
        "a system call's arguments are its own"
    );
    assert_eq!(records[5].get("proctitle"), Some("cat a"));
    let started = of(&events, "process_creation");
    assert_eq!(started.len(), 1);
    for (name, value) in [
        ("Image", "/usr/bin/cat"),
        ("CommandLine", "cat a é /etc/shadow"),
        ("CurrentDirectory", "/root"),
        ("ProcessId", "41"),
        ("ParentProcessId", "40"),
        ("User", "root"),
        ("LogonId", "3"),
    ] {
        assert_eq!(started[0].get(name), Some(value), "{name}");
    }
    assert_eq!(started[0].get("ParentImage"), None, "absent, not empty");
    assert_eq!(started[0].time, "2023-11-14T22:13:20.5Z".parse().ok());
}

#[test]
fn records_of_two_events_may_interleave() {
    let other: Vec<String> = EXECVE
        .iter()
        .map(|line| line.replace(":10)", ":11)").replace("pid=41", "pid=51"))
        .collect();
    let mut lines: Vec<&[u8]> = Vec::new();
    for (one, two) in EXECVE.iter().zip(&other) {
        lines.extend([one.as_bytes(), two.as_bytes()]);
    }
    let events = seen(&lines);
    let started = of(&events, "process_creation");
    let pids: Vec<_> = started
        .iter()
        .filter_map(|seen| seen.get("ProcessId"))
        .collect();
    assert_eq!(pids, ["41", "51"]);
}

#[test]
fn a_parent_is_what_it_ran_when_it_started_the_child() {
    let child: Vec<String> = EXECVE
        .iter()
        .map(|line| {
            line.replace(":10)", ":12)")
                .replace("ppid=40 pid=41", "ppid=41 pid=42")
        })
        .collect();
    let lines: Vec<&[u8]> = EXECVE
        .iter()
        .map(|line| line.as_bytes())
        .chain(child.iter().map(|line| line.as_bytes()))
        .collect();
    let events = seen(&lines);
    let started = of(&events, "process_creation");
    assert_eq!(started[1].get("ParentImage"), Some("/usr/bin/cat"));
    assert_eq!(
        started[1].get("ParentCommandLine"),
        Some("cat a é /etc/shadow")
    );
}

#[test]
fn connections_files_and_logins_have_the_names_that_rules_use() {
    let call = |serial: u32, call: u32, rest: &str| {
        format!(
            "type=SYSCALL msg=audit(1700000000.500:{serial}): arch=c000003e syscall={call} {rest} ppid=1 pid=9 uid=33 UID=\"www-data\" exe=\"/usr/bin/php\" key=(null)"
        )
    };
    let lines = [
        call(1, 42, "success=no exit=-115 a0=3"),
        "type=SOCKADDR msg=audit(1700000000.500:1): saddr=020001BBC00002010000000000000000".into(),
        call(2, 43, "success=yes exit=4 a0=3"),
        "type=SOCKADDR msg=audit(1700000000.500:2): saddr=0200D903C6336401".into(),
        call(3, 42, "success=yes exit=0 a0=3"),
        "type=SOCKADDR msg=audit(1700000000.500:3): saddr=01002F72756E2F7800".into(),
        call(4, 257, "success=yes exit=3 a0=ffffff9c a2=241"),
        "type=CWD msg=audit(1700000000.500:4): cwd=\"/var/www\"".into(),
        "type=PATH msg=audit(1700000000.500:4): item=0 name=\"./\" nametype=PARENT".into(),
        "type=PATH msg=audit(1700000000.500:4): item=1 name=\"./up/../a.php\" nametype=CREATE".into(),
        call(5, 82, "success=yes exit=0"),
        "type=PATH msg=audit(1700000000.500:5): item=2 name=\"/a\" nametype=DELETE".into(),
        "type=PATH msg=audit(1700000000.500:5): item=3 name=\"/b\" nametype=CREATE".into(),
        call(6, 257, "success=no exit=-13 a0=ffffff9c a2=241"),
        "type=PATH msg=audit(1700000000.500:6): item=1 name=\"/no\" nametype=CREATE".into(),
        call(7, 257, "success=yes exit=3 a0=ffffff9c a2=80000"),
        "type=PATH msg=audit(1700000000.500:7): item=0 name=\"/read\" nametype=NORMAL".into(),
        "type=USER_AUTH msg=audit(1700000000.600:8): pid=5 uid=0 auid=4294967295 ses=4294967295 msg='op=PAM:authentication acct=\"lan\" exe=\"/usr/sbin/sshd\" hostname=198.51.100.7 addr=198.51.100.7 terminal=ssh res=failed'".into(),
    ];
    let lines: Vec<&[u8]> = lines.iter().map(|line: &String| line.as_bytes()).collect();
    let events = seen(&lines);
    let told = |source: &str, names: &[&str]| -> Vec<Vec<String>> {
        of(&events, source)
            .iter()
            .map(|seen| {
                let value = |name: &&str| seen.get(name).unwrap_or("-").to_owned();
                names.iter().map(value).collect()
            })
            .collect()
    };
    assert_eq!(
        told(
            "network_connection",
            &[
                "Initiated",
                "DestinationIp",
                "DestinationPort",
                "SourceIp",
                "SourcePort",
                "User"
            ]
        ),
        [
            ["true", "192.0.2.1", "443", "-", "-", "www-data"],
            ["false", "-", "-", "198.51.100.1", "55555", "www-data"],
        ]
    );
    assert_eq!(
        told("file_event", &["TargetFilename", "Image"]),
        [["/var/www/a.php", "/usr/bin/php"], ["/b", "/usr/bin/php"]]
    );
    assert_eq!(told("file_delete", &["TargetFilename"]), [["/a"]]);
    let login = events
        .iter()
        .find(|seen| seen.get("type") == Some("USER_AUTH"))
        .unwrap();
    for (name, value) in [
        ("Outcome", "failure"),
        ("SourceIp", "198.51.100.7"),
        ("TargetUserName", "lan"),
        ("Service", "sshd"),
        ("AuthenticationMethod", "password"),
        ("AUID", "unset"),
    ] {
        assert_eq!(login.get(name), Some(value), "{name}");
    }
}

#[test]
fn a_long_argument_is_put_together_from_its_pieces() {
    let lines: [&[u8]; 3] = [
        b"type=SYSCALL msg=audit(1.000:1): arch=c000003e syscall=59 success=yes pid=1 exe=\"/bin/sh\"",
        b"type=EXECVE msg=audit(1.000:1): argc=3 a0=\"sh\" a1_len=6 a1[0]=616263",
        b"type=EXECVE msg=audit(1.000:1): a1[1]=646566 a2=\"end\"",
    ];
    let events = seen(&lines);
    assert_eq!(
        of(&events, "process_creation")[0].get("CommandLine"),
        Some("sh abcdef end")
    );
    let executed = events
        .iter()
        .filter(|seen| seen.get("type") == Some("EXECVE"));
    assert_eq!(executed.count(), 1);
}

#[test]
fn what_never_ends_is_closed_by_time_and_by_count() {
    let mut audit = Audit::new(&Surroundings::of(TimeZone::UTC));
    let fields = Fields::default();
    let start = Timestamp::from_second(1_700_000_000).unwrap();
    let mut events = 0;
    let mut read = |audit: &mut Audit, at: u64, line: String| {
        let record = record(at * 1000, line.as_bytes(), start);
        let _ = audit.decode(&record, &fields, &mut |_| events += 1);
        events
    };
    let path = |second: u32, serial: u64| {
        format!("type=PATH msg=audit({second}.000:{serial}): item=0 name=\"/x\"")
    };
    assert_eq!(read(&mut audit, 0, path(100, 1)), 0);
    assert_eq!(audit.held().len(), 1);
    assert_eq!(read(&mut audit, 1, path(102, 2)), 0, "two seconds may pass");
    assert_eq!(read(&mut audit, 2, path(103, 3)), 1);
    assert_eq!(audit.held().len(), 2, "of the three one was closed");
    for serial in 4..=2000 {
        read(&mut audit, serial, path(103, serial));
        assert!(audit.held().len() <= join::RECORDS_MAX);
    }
    let mut flushed = 0;
    audit.flush(start, &fields, &mut |_| flushed += 1);
    assert_eq!(flushed, 0, "nothing is old yet");
    let later = start + std::time::Duration::from_secs(3);
    audit.flush(later, &fields, &mut |_| flushed += 1);
    assert_eq!(flushed, join::RECORDS_MAX);
    assert!(audit.held().is_empty());
}

#[test]
fn hostile_lines_cost_bounded_memory_and_never_fail() {
    let mut audit = Audit::new(&Surroundings::of(TimeZone::UTC));
    let fields = Fields::default();
    let long = "41".repeat(8 << 10);
    for serial in 0..40_u64 {
        for part in 0..20 {
            let line = format!("type=EXECVE msg=audit(5.000:{serial}): argc=9 a{part}={long}");
            let record = record(serial, line.as_bytes(), Timestamp::UNIX_EPOCH);
            let _ = audit.decode(&record, &fields, &mut |_| {});
        }
        assert!(audit.join.bytes_held() <= join::BYTES_MAX);
    }
    for line in [
        &b"type=SYSCALL msg=audit(1.000:1): arch=zz syscall=-1 a0=\xff\xfe key=\x01\x01 exe=\""[..],
        b"type=SOCKADDR msg=audit(1.000:1): saddr=0A00",
        b"type=EXECVE msg=audit(1.000:1): a99999999999999999999=1 a5=x a[=1 a=2 a0[9]=",
        b"type=EOE msg=audit(1.000:9): ",
        b"type= msg=audit(0.0:0):",
    ] {
        let _ = seen(&[line]);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(512))]
    #[test]
    fn no_bytes_make_it_fail(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), kind in 0..6_usize) {
        let kinds = ["SYSCALL", "EXECVE", "PATH", "SOCKADDR", "USER_AUTH", "PROCTITLE"];
        let mut line = format!("type={} msg=audit(1.000:1): ", kinds[kind]).into_bytes();
        line.extend(&body);
        seen(&[EXECVE[0].as_bytes(), &line, &body]);
    }
}
