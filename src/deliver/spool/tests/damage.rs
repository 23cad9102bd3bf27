//! Files that are not what was written: garbled pages, cut ends, other files under the name, no file at all.

use std::collections::BTreeMap;

use super::*;

const PAGE: usize = 4096;
const EACH_WAY: usize = 30;

#[test]
fn whatever_page_is_garbled_the_rest_is_saved() {
    let place = Place::in_memory();
    let whole = filled(&place);
    let sound = std::fs::read(&place.path).unwrap();
    let pages = sound.len() / PAGE;
    let root = place.root("alerts");
    assert!(pages > 60, "{pages}");
    let mut salvaged = 0;
    for page in 0..pages {
        // Each way for the first pages, where the roots and inner nodes lie; for the leaves in turn.
        let ways = GARBLES.iter().enumerate();
        let ways = ways.filter(|(way, _)| page < EACH_WAY || page % GARBLES.len() == *way);
        for (_, (kind, garble)) in ways {
            let name = format!("page {} {kind}", page + 1);
            let mut bytes = sound.clone();
            garble(&mut bytes[page * PAGE..(page + 1) * PAGE], page);
            let place = Place::in_memory();
            std::fs::write(&place.path, &bytes).unwrap();
            let Some(saved) = drains(&place, &whole, &name) else {
                continue;
            };
            salvaged += 1;
            if page != 0 && page + 1 != root {
                assert!(
                    saved.alerts_lost.is_some_and(|lost| lost <= 20),
                    "{name}: {saved:?}"
                );
            }
        }
    }
    // The others are overflow pages, of which SQLite has no checksum, and free ones.
    assert!(salvaged > pages / 2, "{salvaged}");
}

type Garble = fn(&mut [u8], usize);

const GARBLES: [(&str, Garble); 5] = [
    ("zeroed", |page, _| page.fill(0)),
    ("filled", |page, _| page.fill(0xa5)),
    ("with another page's beginning", |page, _| {
        page[..8].copy_from_slice(&[13, 0, 0, 0, 9, 0, 200, 0])
    }),
    ("with scattered bytes", |page, number| {
        let mut at = number * 7919 + 1;
        for _ in 0..40 {
            at = at
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            page[(at >> 33) % PAGE] = (at >> 20) as u8;
        }
    }),
    ("with its second half lost", |page, _| {
        page[PAGE / 2..].fill(0)
    }),
];

#[test]
fn wherever_the_file_is_cut_the_rest_is_saved() {
    let place = Place::in_memory();
    let whole = filled(&place);
    let sound = std::fs::read(&place.path).unwrap();
    for bytes in (50..sound.len()).step_by(PAGE * 5 + 100) {
        let place = Place::in_memory();
        std::fs::write(&place.path, &sound[..bytes]).unwrap();
        drains(&place, &whole, &format!("cut at {bytes}"));
    }
}

#[test]
fn another_file_under_the_name_is_set_aside() {
    let place = Place::new();
    filled(&place);
    let old_epoch = place.query("SELECT epoch FROM meta");
    for garbage in [&b"not a database at all, though long enough to be looked at as one, surely, or nearly so, it is"[..], &[0; 9000]] {
        std::fs::write(&place.path, garbage).unwrap();
        let (spool, restored) = place.open();
        let saved = restored.salvaged.unwrap();
        assert!(!restored.first);
        assert_eq!(std::fs::read(&saved.set_aside).unwrap(), garbage);
        assert_eq!(saved.positions, Positions::Copy(at(1000)));
        assert_eq!(restored.progress, [progress("file:/a", 1, 0), progress("file:/a", 2, 0)]);
        assert_ne!(spool.epoch().0.cast_signed().to_string(), old_epoch);
        assert_eq!(spool.salvaged(), Some(saved));
        place.metrics_are(&[("spool_rows{level=\"high\"}", 0)]);
    }
    place.metrics_are(&[("spool_salvaged_total", 2)]);
}

#[test]
fn a_lost_spool_goes_on_from_the_copied_positions() {
    let place = Place::new();
    let (spool, first) = place.open();
    drop(spool);
    filled(&place);
    for lose in [
        |path: &Path| std::fs::remove_file(path).unwrap(),
        |path: &Path| std::fs::write(path, b"").unwrap(),
    ] {
        lose(&place.path);
        let (_, restored) = place.open();
        assert!(!restored.first);
        assert!(restored.start >= first.start);
        assert_eq!(restored.progress.len(), 2);
        let saved = restored.salvaged.unwrap();
        assert_eq!(saved.positions, Positions::Copy(at(1000)));
    }
}

#[test]
fn positions_that_cannot_be_read_come_from_the_hourly_copy() {
    for (name, has_copy) in [("with a copy", true), ("without", false)] {
        let place = Place::new();
        let whole = filled(&place);
        let root = place.root("positions");
        garble_page(&place.path, root);
        if !has_copy {
            std::fs::remove_file(place.folder.path().join("positions.json")).unwrap();
        }
        let (spool, restored) = place.open();
        let saved = restored.salvaged.unwrap();
        assert_eq!(
            (saved.alerts, saved.alerts_lost),
            (whole.len() as u64, Some(0)),
            "{name}"
        );
        assert_eq!(waiting(&spool, 1000).len(), whole.len(), "{name}");
        assert_eq!(restored.folds.len(), 20, "{name}");
        if has_copy {
            // As the first commit had them; the file's own later ones are lost.
            assert_eq!(saved.positions, Positions::Copy(at(1000)), "{name}");
            assert_eq!(
                restored.progress,
                [progress("file:/a", 1, 0), progress("file:/a", 2, 0)]
            );
        } else {
            assert_eq!(
                (saved.positions, restored.progress),
                (Positions::Lost, vec![]),
                "{name}"
            );
        }
    }
}

#[test]
fn damage_that_shows_while_it_is_open_is_mended_in_place() {
    type Call = fn(&mut Spool);
    let calls: [(&str, Call); 3] = [
        ("commit", |spool| {
            commit_levels(spool, &[Critical]);
        }),
        ("next", |spool| {
            spool.next(1000, usize::MAX).unwrap();
        }),
        ("done", |spool| {
            let rows: Vec<RowId> = (1..100).map(|seq| id(spool, seq)).collect();
            spool.done(&rows, &[], at(1)).unwrap();
        }),
    ];
    for (name, call) in calls {
        let place = Place::new();
        filled(&place);
        let root = place.root("alerts");
        let (mut spool, restored) = place.open();
        let (epoch, start) = (spool.epoch(), restored.start);
        spool
            .with(|store| {
                store.connection.execute_batch("PRAGMA cache_size = 1")?;
                file::checkpoint(&store.connection, "TRUNCATE")?;
                store.connection.execute_batch("PRAGMA shrink_memory")?;
                Ok(())
            })
            .unwrap();
        garble_page(&place.path, root);
        call(&mut spool);
        let saved = spool
            .salvaged()
            .unwrap_or_else(|| panic!("{name}: nothing was mended"));
        assert_ne!(spool.epoch(), epoch, "{name}");
        assert_eq!((saved.alerts, saved.alerts_lost), (0, Some(150)), "{name}");
        assert_eq!(saved.positions, Positions::Table, "{name}");
        commit_levels(&mut spool, &[Low]);
        let expected: &[u64] = if name == "commit" { &[1, 2] } else { &[1] };
        assert_eq!(waiting(&spool, 1000), expected, "{name}");
        drop(spool);
        let (spool, again) = place.open();
        assert_eq!((again.start, again.salvaged), (start + 1, None), "{name}");
        assert_eq!(waiting(&spool, 1000), expected, "{name}");
        assert_eq!(
            again.progress,
            [progress("file:/a", 1, 150), progress("file:/a", 2, 150)],
            "{name}"
        );
    }
}

#[test]
fn a_swap_that_was_killed_is_ended_at_the_next_start() {
    let within =
        |place: &Place, suffix: &str| place.folder.path().join(format!("spool.db{suffix}"));
    // Killed after the damaged file had left its name, its WAL not yet.
    let place = Place::new();
    let whole = filled(&place);
    std::fs::rename(&place.path, within(&place, ".salvage")).unwrap();
    let other = Place::new();
    let (mut spool, _) = other.open();
    commit_levels(&mut spool, &[Low; 3]);
    std::fs::copy(within(&other, "-wal"), within(&place, "-wal")).unwrap();
    std::fs::write(within(&place, ".salvage.part"), b"half of it").unwrap();
    let (spool, restored) = place.open();
    assert_eq!((restored.first, restored.salvaged), (false, None));
    assert_eq!(waiting(&spool, 1000).len(), whole.len());
    assert!(within(&place, ".damaged-wal").exists() && !within(&place, ".salvage.part").exists());
    drop(spool);
    // Killed before: the spool stands, and is judged anew.
    std::fs::write(within(&place, ".salvage"), b"older").unwrap();
    let (spool, _) = place.open();
    assert_eq!(waiting(&spool, 1000).len(), whole.len());
    assert!(!within(&place, ".salvage").exists());
}

#[test]
fn a_first_start_that_was_killed_is_still_the_first() {
    for sql in ["SELECT 1", "CREATE TABLE reserve(zeroes BLOB)"] {
        let mut place = Place::new();
        place.limits.reserve_bytes = 100_000;
        file::touch(&place.path).unwrap();
        let connection = file::connect(&place.path).unwrap();
        connection.execute_batch(sql).unwrap();
        drop(connection);
        let (_, restored) = place.open();
        assert_eq!((restored.first, restored.salvaged), (true, None), "{sql}");
    }
}

/// Fills a spool with 150 alerts that wait, 30 that are acknowledged, dead letters, positions and folds, all of it in
/// the file and none in the WAL. Returns the alerts that wait, by id.
fn filled(place: &Place) -> BTreeMap<String, String> {
    let (mut spool, _) = place.open();
    for number in 0..19u64 {
        let alerts: Vec<Alert> = (number * 10..number * 10 + 10)
            .map(|n| {
                make_alert(
                    n,
                    Severity::ALL[n as usize % 5],
                    &format!("r{}", n % 4),
                    1200,
                )
            })
            .collect();
        let offset = if number == 0 { 0 } else { 150 };
        let entry = Entry {
            room: Room::Folds,
            key: vec![number as u8],
            value: Some(vec![number as u8; 200]),
        };
        let last = Entry {
            key: vec![99],
            ..entry.clone()
        };
        let commit = Commit {
            alerts: &alerts,
            progress: &[
                progress("file:/a", 1, offset),
                progress("file:/a", 2, offset),
            ],
            kept: &[entry, last],
        };
        spool.commit(&commit, at(1000)).unwrap();
    }
    let sent: Vec<RowId> = (1..=30).map(|n| id(&spool, n * 6)).collect();
    let rejected: Vec<_> = (0..10)
        .map(|n| (id(&spool, n * 12 + 5), "no".to_owned()))
        .collect();
    spool.done(&sent, &rejected, at(1000)).unwrap();
    let rows = spool.next(1000, usize::MAX).unwrap().rows;
    assert_eq!(rows.len(), 150);
    drop(spool);
    place.query("PRAGMA wal_checkpoint(TRUNCATE)");
    rows.into_iter().map(|row| by_id(row.alert.get())).collect()
}

fn by_id(json: &str) -> (String, String) {
    let alert: Alert = serde_json::from_str(json).unwrap();
    (alert.id.to_string(), json.to_owned())
}

/// Opens what may be damaged, sends all and goes on working. Returns what was salvaged.
fn drains(place: &Place, whole: &BTreeMap<String, String>, name: &str) -> Option<Salvage> {
    let (mut spool, restored) = place.open();
    for progress in &restored.progress {
        assert!(progress.source.as_str().starts_with("file:"), "{name}");
    }
    let mut known = 0;
    for round in 0.. {
        assert!(round < 100, "{name}: no end");
        let rows = spool.next(40, usize::MAX).unwrap().rows;
        for row in &rows {
            if row.alert.get() == "null" {
                continue;
            }
            // A page without a checksum may give back what it was not given; it must still be a row of JSON.
            let value: serde_json::Value = serde_json::from_str(row.alert.get()).unwrap();
            let id = value["id"].as_str().unwrap_or_default();
            known += usize::from(whole.get(id).is_some_and(|json| json == row.alert.get()));
        }
        let rows: Vec<RowId> = rows.iter().map(|row| row.id).collect();
        if rows.is_empty() {
            break;
        }
        spool.done(&rows, &[], at(1001)).unwrap();
    }
    let ledger = spool.ledger().unwrap();
    assert_eq!(ledger.waiting, [], "{name}");
    commit_levels(&mut spool, &[Low, High]);
    assert_eq!(
        waiting(&spool, 10),
        [ledger.next + 1, ledger.next],
        "{name}"
    );
    let salvaged = spool.salvaged();
    if salvaged.is_none() {
        assert!(known + 5 >= whole.len(), "{name}: {known}");
    }
    drop(spool);
    let (spool, restored) = place.open();
    assert_eq!(waiting(&spool, 10).len(), 2, "{name}");
    assert_eq!(restored.salvaged, None, "{name}");
    salvaged
}

fn garble_page(path: &Path, page: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xa5; PAGE], ((page - 1) * PAGE) as u64)
        .unwrap();
}
