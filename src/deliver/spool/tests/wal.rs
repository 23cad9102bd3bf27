//! The spool opened from every prefix of its WAL: as after a power cut at any instant.

use super::*;

/// SQLite's file format, 4.1: a header, then frames of a header and a page.
const HEADER_BYTES: usize = 32;
const FRAME_BYTES: usize = 24 + 4096;

/// What a commit of the series left on the disk.
struct Step {
    wal_bytes: usize,
    ledger: Ledger,
    waiting: Vec<u64>,
    progress: Vec<Progress>,
    folds: Vec<(Vec<u8>, Vec<u8>)>,
}

#[test]
fn every_prefix_of_the_wal_holds_exactly_what_it_committed() {
    let mut place = Place::in_memory();
    place.limits.bytes_max = 6000; // so that some commits give up and forget rows
    drop(place.open());
    // Begin with an empty WAL, so that the series is all that it holds.
    place.query("PRAGMA wal_checkpoint(TRUNCATE)");
    let base = std::fs::read(&place.path).unwrap();
    let wal_path = place.folder.path().join("spool.db-wal");

    let (mut spool, _) = place.open();
    let mut steps = vec![step(&spool, &wal_path)];
    for number in 1..=14u64 {
        change(&mut spool, number);
        steps.push(step(&spool, &wal_path));
    }
    let wal = std::fs::read(&wal_path).unwrap();
    drop(spool);

    let frames = (wal.len() - HEADER_BYTES) / FRAME_BYTES;
    assert!(frames > 60, "{frames}");
    let boundaries = (0..=frames).map(|frame| HEADER_BYTES + frame * FRAME_BYTES);
    let cuts = boundaries.flat_map(|at| [at, at + 20, at + 24 + 2000, at + FRAME_BYTES - 1]);
    for cut in [0, 16]
        .into_iter()
        .chain(cuts)
        .filter(|&cut| cut <= wal.len())
    {
        opens_with_what_was_committed(&base, &wal[..cut], &steps, place.limits.clone());
    }
}

/// A commit, a batch that was sent, or what a centre said.
fn change(spool: &mut Spool, number: u64) {
    let first = spool.ledger().unwrap().next;
    match number % 5 {
        4 => {
            let batch = spool.next(2, usize::MAX).unwrap();
            let rows: Vec<RowId> = batch.rows.iter().map(|row| row.id).collect();
            let rejected = [(rows[0], "no".to_owned())];
            spool.done(&rows, &rejected, at(1000)).unwrap();
        }
        0 if number == 10 => {
            let epoch = spool.epoch();
            spool
                .seen(Seen {
                    epoch,
                    next: first + 1,
                })
                .unwrap();
        }
        _ => {
            let levels = [Low, High, Medium, Critical];
            let alerts: Vec<Alert> = (first..first + number)
                .map(|n| make_alert(n, levels[n as usize % 4], &format!("r{}", n % 3), 300))
                .collect();
            let entry = Entry {
                room: Room::Folds,
                key: vec![(number % 3) as u8],
                value: (!number.is_multiple_of(4)).then(|| vec![0; number as usize * 100]),
            };
            let commit = Commit {
                alerts: &alerts,
                progress: &[progress("file:/a", number % 2, number)],
                kept: &[entry],
            };
            spool.commit(&commit, at(1000)).unwrap();
        }
    }
}

fn step(spool: &Spool, wal: &Path) -> Step {
    let state = |store: &mut Store| Ok((store.progress()?, store.kept(Room::Folds)?));
    let (progress, folds) = spool.with(state).unwrap();
    Step {
        wal_bytes: std::fs::metadata(wal).unwrap().len() as usize,
        ledger: spool.ledger().unwrap(),
        waiting: waiting(spool, 1000),
        progress,
        folds,
    }
}

fn opens_with_what_was_committed(base: &[u8], wal: &[u8], steps: &[Step], limits: Limits) {
    let mut place = Place::in_memory();
    place.limits = limits;
    std::fs::write(&place.path, base).unwrap();
    std::fs::write(place.folder.path().join("spool.db-wal"), wal).unwrap();
    let (spool, restored) = place.open();
    let cut = wal.len();
    assert_eq!(restored.salvaged, None, "cut at {cut}");
    let Some(expected) = steps.iter().rev().find(|step| step.wal_bytes <= cut) else {
        // Not even the count of the second start: the file as it was made.
        assert_eq!(spool.ledger().unwrap().next, 1, "cut at {cut}");
        assert_eq!(waiting(&spool, 1000), [0; 0], "cut at {cut}");
        return;
    };
    assert_eq!(spool.ledger().unwrap(), expected.ledger, "cut at {cut}");
    assert_eq!(waiting(&spool, 1000), expected.waiting, "cut at {cut}");
    assert_eq!(restored.progress, expected.progress, "cut at {cut}");
    assert_eq!(restored.folds, expected.folds, "cut at {cut}");
}
