mod damage;
mod model;
mod quota;
mod wal;

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::alert::{AlertId, AlertLogSource, Origin, RuleRef};
use crate::record::{FileId, Mark, Range, SourceId};
use Severity::{Critical, High, Informational, Low, Medium};

#[test]
fn the_most_severe_are_sent_first_then_the_oldest() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    let levels = [Low, Critical, Informational, High, Critical, Medium, Low];
    commit_levels(&mut spool, &levels);
    for (lines, expected) in [
        (100, vec![2, 5, 4, 6, 1, 7, 3]),
        (3, vec![2, 5, 4]),
        (1, vec![2]),
        (0, vec![2]), // one row if any waits
    ] {
        assert_eq!(waiting(&spool, lines), expected, "{lines} lines");
    }
    let batch = spool.next(100, usize::MAX).unwrap();
    for row in &batch.rows {
        assert_eq!(row.id, id(&spool, row.seq.0));
        assert_eq!(row.level, levels[row.seq.0 as usize - 1]);
        let alert: Alert = serde_json::from_str(row.alert.get()).unwrap();
        assert_eq!(alert, make_alert(row.seq.0, row.level, "r", 0));
    }
    place.metrics_are(&[
        ("spool_rows{level=\"critical\"}", 2),
        ("spool_rows{level=\"low\"}", 2),
        ("spool_oldest_timestamp_seconds", 1000),
    ]);
}

#[test]
fn a_batch_holds_no_more_bytes_than_asked() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    commit_levels(&mut spool, &[High; 12]);
    let line =
        |row: &Row| format!("{{\"seq\":{},\"alert\":{}}}\n", row.seq.0, row.alert.get()).len();
    let all = spool.next(100, usize::MAX).unwrap();
    let lines: Vec<usize> = all.rows.iter().map(line).collect();
    let first_ten: usize = lines[..10].iter().sum();
    for (bytes_max, rows) in [
        (first_ten, 10),
        (first_ten - 1, 9),
        (first_ten + lines[10] - 1, 10),
        (first_ten + lines[10], 11),
        (1, 1),
    ] {
        assert_eq!(
            spool.next(100, bytes_max).unwrap().rows.len(),
            rows,
            "{bytes_max} bytes"
        );
    }
}

#[test]
fn exactly_the_rows_that_were_sent_are_removed() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    commit_levels(&mut spool, &[High; 6]);
    let rejected = [(id(&spool, 4), "shape".to_owned())];
    let accepted = [id(&spool, 2), id(&spool, 3), id(&spool, 3), id(&spool, 4)];
    spool.done(&accepted, &rejected, at(2000)).unwrap();
    assert_eq!(waiting(&spool, 100), [1, 5, 6]);
    // Again, and with rows that never were, and of another epoch: nothing more.
    let foreign = RowId {
        epoch: Epoch(spool.epoch().0.wrapping_add(1)),
        seq: Sequence(1),
    };
    let none = [id(&spool, 2), id(&spool, 99), foreign];
    spool
        .done(&none, &[(foreign, String::new())], at(2000))
        .unwrap();
    assert_eq!(waiting(&spool, 100), [1, 5, 6]);
    let ledger = spool.ledger().unwrap();
    assert_eq!(ledger.next, 7);
    assert_eq!(ledger.epoch, spool.epoch());
    assert_eq!(spans(&ledger), [(1, 1), (5, 6)]);
    let given_up: Vec<_> = ledger
        .given_up
        .iter()
        .map(|g| (g.from, g.to, g.count, &*g.why))
        .collect();
    assert_eq!(given_up, [(4, 4, 1, "rejected")]);
    drop(spool);
    let (spool, restored) = place.open();
    assert_eq!(spool.ledger().unwrap(), ledger);
    assert!(!restored.first);
}

#[test]
fn dead_letters_go_at_their_limit_and_stay_in_the_ledger() {
    let mut place = Place::new();
    let one = serde_json::to_string(&make_alert(1, High, "r", 500))
        .unwrap()
        .len() as u64;
    place.limits.dead_bytes_max = 3 * (one + 10);
    let (mut spool, _) = place.open();
    let alerts: Vec<Alert> = (1..=9).map(|n| make_alert(n, High, "r", 500)).collect();
    commit_alerts(&mut spool, &alerts);
    let rejected: Vec<_> = (1..=5)
        .map(|n| (id(&spool, n), "too large".to_owned()))
        .collect();
    spool.done(&[], &rejected, at(1)).unwrap();
    place.metrics_are(&[("dead_letters_evicted_total", 2)]);
    let ledger = spool.ledger().unwrap();
    assert_eq!(ledger.given_up.iter().map(|g| g.count).sum::<u64>(), 5);
    drop(spool);
    let kept = place.query("SELECT group_concat(seq) FROM dead");
    assert_eq!(kept, "3,4,5");
}

#[test]
fn acknowledged_rows_are_kept_for_a_day() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    commit_levels(&mut spool, &[High; 3]);
    let rows = [id(&spool, 1), id(&spool, 2)];
    spool.done(&rows[..1], &[], at(10_000)).unwrap();
    spool.done(&rows[1..], &[], at(20_000)).unwrap();
    let day = 24 * 3600;
    for (now, kept) in [(10_000 + day, 2), (10_001 + day, 1), (20_001 + day, 0)] {
        spool.done(&[], &[], at(now)).unwrap();
        let books_kept = spool
            .with(|store| Ok(store.books.acknowledged.rows))
            .unwrap();
        assert_eq!(books_kept, kept, "at {now}");
    }
    assert_eq!(waiting(&spool, 100), [3]);
}

#[test]
fn what_the_centre_has_seen_decides_what_is_sent_again() {
    for (name, seen_next, other_epoch, outcome, expected) in [
        ("in step", 7, false, Some(SeenOutcome::InStep), vec![5, 6]),
        (
            "behind by what waits",
            5,
            false,
            Some(SeenOutcome::InStep),
            vec![5, 6],
        ),
        (
            "restored before 3",
            3,
            false,
            Some(SeenOutcome::SentAgain { rows: 1 }),
            vec![3, 5, 6],
        ),
        (
            "knows nothing",
            1,
            false,
            Some(SeenOutcome::SentAgain { rows: 3 }),
            vec![1, 2, 3, 5, 6],
        ),
        (
            "of another epoch",
            99,
            true,
            Some(SeenOutcome::InStep),
            vec![5, 6],
        ),
        ("ahead: we are a copy", 8, false, None, vec![1, 2]),
    ] {
        let place = Place::new();
        let (mut spool, _) = place.open();
        commit_levels(&mut spool, &[High; 6]);
        let old = spool.epoch();
        let acknowledged = [1, 2, 3].map(|seq| id(&spool, seq));
        let rejected = [(id(&spool, 4), "no".to_owned())];
        spool.done(&acknowledged, &rejected, at(1)).unwrap();
        let epoch = Epoch(old.0.wrapping_add(other_epoch.into()));
        let seen = Seen {
            epoch,
            next: seen_next,
        };
        let found = spool.seen(seen).unwrap();
        assert_eq!(waiting(&spool, 100), expected, "{name}");
        let ledger = spool.ledger().unwrap();
        match outcome {
            Some(outcome) => {
                assert_eq!(found, outcome, "{name}");
                assert_eq!((spool.epoch(), ledger.next), (old, 7), "{name}");
            }
            None => {
                let epoch = spool.epoch();
                assert_ne!(epoch, old, "{name}");
                assert_eq!(found, SeenOutcome::NewEpoch { epoch, waiting: 2 }, "{name}");
                assert_eq!((ledger.next, ledger.given_up.len()), (3, 0), "{name}");
                // What was in flight under the old numbers is sent again under the new ones.
                let late = RowId {
                    epoch: old,
                    seq: Sequence(1),
                };
                spool.done(&[late], &[], at(2)).unwrap();
                assert_eq!(waiting(&spool, 100), expected, "{name}");
            }
        }
        drop(spool);
        let (spool, _) = place.open();
        assert_eq!(waiting(&spool, 100), expected, "{name}, opened again");
        assert_eq!(spool.ledger().unwrap(), ledger, "{name}, opened again");
    }
}

#[test]
fn progress_and_kept_state_come_back() {
    let place = Place::new();
    let (mut spool, first) = place.open();
    assert!(first.first && first.progress.is_empty() && first.last_commit.is_none());
    let entry = |room, key: &[u8], value: Option<&[u8]>| Entry {
        room,
        key: key.to_vec(),
        value: value.map(<[u8]>::to_vec),
    };
    let held = vec![Range {
        file: file_id(1),
        from: 5,
        to: 9,
    }];
    let held_progress = Progress {
        held,
        ..progress("file:/a", 1, 9)
    };
    let cursor = Progress {
        source: SourceId::new("journal"),
        mark: Mark::Cursor("s=1".into()),
        held: Vec::new(),
    };
    let commits = [
        (
            vec![
                progress("file:/a", 1, 5),
                progress("file:/a", 2, 7),
                cursor.clone(),
            ],
            vec![
                entry(Room::Folds, b"k", Some(b"1")),
                entry(Room::Windows, b"k", Some(b"2")),
                entry(Room::Windows, b"gone", Some(b"3")),
            ],
        ),
        (
            vec![held_progress.clone()],
            vec![
                entry(Room::Folds, b"k", Some(b"4")),
                entry(Room::Windows, b"gone", None),
                entry(Room::Windows, b"never was", None),
            ],
        ),
    ];
    for (second, (progress, kept)) in (1..).zip(&commits) {
        let commit = Commit {
            alerts: &[],
            progress,
            kept,
        };
        spool.commit(&commit, at(second)).unwrap();
    }
    spool.commit(&Commit::default(), at(9)).unwrap();
    drop(spool);
    let (_, restored) = place.open();
    let expected = Restored {
        progress: vec![held_progress, progress("file:/a", 2, 7), cursor],
        folds: vec![(b"k".to_vec(), b"4".to_vec())],
        windows: vec![(b"k".to_vec(), b"2".to_vec())],
        start: first.start + 1,
        first: false,
        salvaged: None,
        last_commit: Some(at(2)),
    };
    assert_eq!(restored, expected);
}

#[test]
fn a_path_that_is_not_utf8_keeps_its_position() {
    use std::os::unix::ffi::OsStringExt;
    let place = Place::new();
    let (mut spool, _) = place.open();
    let path = PathBuf::from(std::ffi::OsString::from_vec(b"/a\xff".to_vec()));
    let mark = Mark::File {
        file: file_id(1),
        offset: 3,
        before: 4,
        path,
    };
    let progress = Progress {
        mark,
        ..progress("file:/a", 1, 3)
    };
    let commit = Commit {
        progress: &[progress],
        ..Commit::default()
    };
    spool.commit(&commit, at(1)).unwrap();
    drop(spool);
    let (_, restored) = place.open();
    let Mark::File { offset, path, .. } = &restored.progress[0].mark else {
        panic!("{:?}", restored.progress);
    };
    assert_eq!((*offset, path.to_str()), (3, Some("/a\u{fffd}")));
}

#[test]
fn positions_are_bounded_and_the_longest_unmoved_go() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    let max = change::POSITIONS_MAX;
    for (second, from, to) in [(1, 0, 10), (2, 10, max), (3, 0, 1), (4, max, max + 3)] {
        let progress: Vec<_> = (from..to)
            .map(|inode| progress("file:/*", inode, 1))
            .collect();
        let commit = Commit {
            progress: &progress,
            ..Commit::default()
        };
        spool.commit(&commit, at(second)).unwrap();
    }
    drop(spool);
    let count = place.query(
        "SELECT group_concat(of) FROM (SELECT moved || ':' || count(*) AS of FROM positions GROUP BY moved)",
    );
    assert_eq!(count, format!("1000:6,2000:{},3000:1,4000:3", max - 10));
}

#[test]
fn a_second_process_is_told_which_folder_is_taken() {
    let place = Place::new();
    let (spool, _) = place.open();
    let error = place.try_open().err().unwrap();
    let folder = place.path.parent().unwrap().to_owned();
    assert_eq!(
        error.to_string(),
        format!("another canhgac uses the folder {}", folder.display())
    );
    assert!(!error.is_transient() && !error.is_damage());
    drop(spool);
    place.open();
}

#[test]
fn a_newer_agents_spool_is_refused_and_left_alone() {
    let place = Place::new();
    drop(place.open());
    place.query("UPDATE meta SET schema = 2 RETURNING schema");
    let error = place.try_open().err().unwrap();
    assert!(
        matches!(error, SpoolError::Newer { found: 2, known: 1 }),
        "{error}"
    );
    assert_eq!(place.query("SELECT schema FROM meta"), "2");
}

#[test]
fn nobody_else_may_read_the_spool() {
    use std::os::unix::fs::PermissionsExt;
    let mut place = Place::new();
    place.path = place.folder.path().join("new/below/spool.db");
    let (mut spool, _) = place.open();
    let commit = Commit {
        progress: &[progress("file:/a", 1, 1)],
        ..Commit::default()
    };
    spool.commit(&commit, at(1)).unwrap();
    for (name, mode) in [
        ("new", 0o700),
        ("new/below", 0o700),
        ("new/below/spool.db", 0o600),
        ("new/below/spool.db-wal", 0o600),
        ("new/below/spool.db.lock", 0o600),
        ("new/below/positions.json", 0o600),
    ] {
        let metadata = std::fs::metadata(place.folder.path().join(name)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{name}");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_work_goes_on_after_it() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    commit_levels(&mut spool, &[High; 3]);
    let limit = |spool: &Spool, pages: &str| {
        let pragma = format!("PRAGMA max_page_count = {pages}");
        spool
            .with(|store| Ok(store.connection.query_row(&pragma, [], |_| Ok(()))?))
            .unwrap();
    };
    limit(&spool, "1"); // SQLite takes it for the present size
    let before = spool.ledger().unwrap();
    let alerts: Vec<Alert> = (4..200).map(|n| make_alert(n, High, "r", 2000)).collect();
    let commit = Commit {
        alerts: &alerts,
        progress: &[progress("file:/a", 1, 1)],
        kept: &[],
    };
    for _ in 0..3 {
        let error = spool.commit(&commit, at(5)).err().unwrap();
        assert!(matches!(error, SpoolError::Full(_)), "{error:?}");
        assert!(error.is_transient() && !error.is_damage());
        assert_eq!(spool.ledger().unwrap(), before);
    }
    // Sending goes on meanwhile.
    spool.done(&[id(&spool, 1)], &[], at(6)).unwrap();
    assert_eq!(waiting(&spool, 10), [2, 3]);
    limit(&spool, "1000000");
    spool.commit(&commit, at(7)).unwrap();
    assert_eq!(spans(&spool.ledger().unwrap()), [(2, 199)]);
    drop(spool);
    let (_, restored) = place.open();
    assert_eq!(restored.progress, [progress("file:/a", 1, 1)]);
    assert_eq!(restored.salvaged, None);
}

#[test]
fn the_reserve_takes_commits_that_the_disk_has_no_room_for() {
    let mut place = Place::new();
    place.limits.reserve_bytes = Limits::default().reserve_bytes;
    let (mut spool, _) = place.open();
    let size = |suffix: &str| {
        let name = format!("spool.db{suffix}");
        std::fs::metadata(place.folder.path().join(name))
            .unwrap()
            .len()
    };
    let reserved = (size(""), size("-wal"));
    assert!(reserved.0 > 4 << 20 && reserved.1 > 4 << 20, "{reserved:?}");
    let alerts: Vec<Alert> = (0..2000).map(|n| make_alert(n, High, "r", 1000)).collect();
    for alerts in alerts.chunks(64) {
        let commit = Commit {
            alerts,
            ..Commit::default()
        };
        spool.commit(&commit, at(1)).unwrap();
    }
    assert_eq!((size(""), size("-wal")), reserved);
    drop(spool);
    assert_eq!((size(""), size("-wal")), reserved);
    place.open();
    assert_eq!((size(""), size("-wal")), reserved);
}

#[test]
fn an_alert_that_is_no_json_any_more_ends_among_the_dead_letters() {
    for damaged in ["x'ff'", "x''", "x'7b'"] {
        let place = Place::new();
        let (mut spool, _) = place.open();
        commit_levels(&mut spool, &[Low, High]);
        drop(spool);
        place.query(&format!(
            "UPDATE alerts SET alert = {damaged} WHERE seq = 2 RETURNING seq"
        ));
        let (mut spool, _) = place.open();
        let rows = spool.next(10, usize::MAX).unwrap().rows;
        let sent: Vec<_> = rows
            .iter()
            .map(|row| (row.seq.0, row.alert.get()))
            .collect();
        assert_eq!(sent[0], (2, "null"), "{damaged}");
        assert!(sent[1].1.contains("\"id\""), "{damaged}");
        spool
            .done(&[], &[(rows[0].id, "shape".to_owned())], at(1))
            .unwrap();
        assert_eq!(waiting(&spool, 10), [1], "{damaged}");
        assert_eq!(spool.salvaged(), None, "{damaged}");
    }
}

#[test]
fn positions_are_copied_once_an_hour() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    let hour = 3600;
    for (now, copied) in [
        (1000, 1000),
        (1001, 1000),
        (999 + hour, 1000),
        (1000 + hour, 1000 + hour),
        (1001 + hour, 1000 + hour),
        (50, 50), // the clock was set back
    ] {
        let commit = Commit {
            progress: &[progress("file:/a", 1, now as u64)],
            ..Commit::default()
        };
        spool.commit(&commit, at(now)).unwrap();
        let copy = positions::read(place.folder.path()).unwrap();
        assert_eq!(copy.time, at(copied), "at {now}");
        assert_eq!(
            copy.streams,
            [progress("file:/a", 1, copied as u64)],
            "at {now}"
        );
    }
}

#[test]
fn the_wal_stays_bounded() {
    let place = Place::new();
    let (mut spool, _) = place.open();
    let alerts: Vec<Alert> = (0..64).map(|n| make_alert(n, High, "r", 4000)).collect();
    let wal = place.folder.path().join("spool.db-wal");
    for _ in 0..60 {
        commit_alerts(&mut spool, &alerts);
        let bytes = std::fs::metadata(&wal).unwrap().len();
        // 1,000 frames, and the one commit that crosses the line: 300 KiB of alerts and their pages.
        assert!(bytes < 1000 * 4120 + 800_000, "{bytes}");
    }
}

#[test]
fn the_spool_may_be_handed_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Spool>();
}

#[test]
fn limits_are_read_as_people_write_them() {
    let text = "bytes_max: 2000000\nacknowledged_keep: 12h";
    let limits: Limits = serde_yaml::from_str(text).unwrap();
    let expected = Limits {
        bytes_max: 2_000_000,
        acknowledged_keep: Duration::from_hours(12),
        ..Limits::default()
    };
    assert_eq!(limits, expected);
    assert!(serde_yaml::from_str::<Limits>("acknowledged_keep: -12h").is_err());
    assert!(serde_yaml::from_str::<Limits>("bytes: 1").is_err());
}

/// A folder with a spool, small enough to be opened hundreds of times.
struct Place {
    folder: TempDir,
    path: PathBuf,
    limits: Limits,
    metrics: AgentMetrics,
}

impl Place {
    fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// Where a sync costs nothing, if there is such a place: for tests that open hundreds of spools.
    fn in_memory() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::within(folder.unwrap())
    }

    fn within(folder: TempDir) -> Self {
        Self {
            path: folder.path().join("spool.db"),
            folder,
            limits: Limits {
                reserve_bytes: 0,
                ..Limits::default()
            },
            metrics: AgentMetrics::default(),
        }
    }

    fn try_open(&self) -> Result<(Spool, Restored), SpoolError> {
        Spool::open(&self.path, self.limits.clone(), &self.metrics, at(1000))
    }

    fn open(&self) -> (Spool, Restored) {
        self.try_open().unwrap()
    }

    /// Asks the closed file.
    fn query(&self, sql: &str) -> String {
        let connection = file::open(&self.path).unwrap();
        let text = connection.query_row(sql, [], |row| {
            let value: rusqlite::types::Value = row.get(0)?;
            Ok(match value {
                rusqlite::types::Value::Text(text) => text,
                rusqlite::types::Value::Integer(number) => number.to_string(),
                other => format!("{other:?}"),
            })
        });
        text.unwrap()
    }

    fn root(&self, table: &str) -> usize {
        let select = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'");
        self.query(&select).parse().unwrap()
    }

    fn metrics_are(&self, expected: &[(&str, i64)]) {
        let text = self.metrics.exposition.text();
        for (name, value) in expected {
            let line = format!("canhgac_agent_{name} {value}\n");
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn id(spool: &Spool, seq: u64) -> RowId {
    RowId {
        epoch: spool.epoch(),
        seq: Sequence(seq),
    }
}

fn waiting(spool: &Spool, lines: usize) -> Vec<u64> {
    let batch = spool.next(lines, usize::MAX).unwrap();
    assert_eq!(batch.epoch, spool.epoch());
    batch.rows.iter().map(|row| row.seq.0).collect()
}

fn spans(ledger: &Ledger) -> Vec<(u64, u64)> {
    ledger
        .waiting
        .iter()
        .map(|range| (range.from, range.to))
        .collect()
}

fn commit_levels(spool: &mut Spool, levels: &[Severity]) {
    let next = spool.ledger().unwrap().next;
    let alerts: Vec<Alert> = (next..)
        .zip(levels)
        .map(|(number, &level)| make_alert(number, level, "r", 0))
        .collect();
    commit_alerts(spool, &alerts);
}

fn commit_alerts(spool: &mut Spool, alerts: &[Alert]) {
    let commit = Commit {
        alerts,
        ..Commit::default()
    };
    spool.commit(&commit, at(1000)).unwrap();
}

fn make_alert(number: u64, level: Severity, rule: &str, raw_bytes: usize) -> Alert {
    Alert {
        id: AlertId::from_bytes(u128::from(number).to_be_bytes()),
        time: at(1000),
        observed: at(1000),
        agency: String::new(),
        host: "h".into(),
        agent: String::new(),
        rule: RuleRef {
            id: rule.into(),
            title: String::new(),
            level,
            tags: Vec::new(),
            digest: String::new(),
        },
        logsource: AlertLogSource::default(),
        fields: serde_json::Map::new(),
        raw: "x".repeat(raw_bytes),
        origin: Origin::default(),
        count: None,
        last: None,
        causes: Vec::new(),
        causes_count: None,
        cut: Vec::new(),
        context: Vec::new(),
        via: Vec::new(),
        other: serde_json::Map::new(),
    }
}

fn file_id(inode: u64) -> FileId {
    FileId {
        device: 1,
        inode,
        head: 3,
    }
}

fn progress(source: &str, inode: u64, offset: u64) -> Progress {
    Progress {
        source: SourceId::new(source),
        mark: Mark::File {
            file: file_id(inode),
            offset,
            before: offset,
            path: "/a".into(),
        },
        held: Vec::new(),
    }
}
