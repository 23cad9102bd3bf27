//! A writer, a rotator and restarts at random: what was committed is what was written.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// Numbers that are the same in each run: a linear congruential generator (Knuth's constants), its high bits.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    Rename,
    CopyTruncate,
    Both,
}

/// How long each combination runs.
const RUN: Duration = Duration::from_millis(1500);
const KEEP: u32 = 40;

/// Moves app.log.1 to .2 and so on, then app.log to .1 in one of two ways.
fn rotate(folder: &Path, copies: bool) {
    let name = |number: u32| folder.join(format!("app.log.{number}"));
    for number in (1..KEEP).rev() {
        let _ = fs::rename(name(number), name(number + 1));
    }
    let log = folder.join("app.log");
    if copies {
        fs::copy(&log, name(1)).unwrap();
        OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&log)
            .unwrap();
    } else {
        fs::rename(&log, name(1)).unwrap();
        File::create(&log).unwrap();
    }
}

/// Writes numbered lines and rotates until told to stop; returns how many were written. As logrotate's users have to,
/// the writer opens the log anew some lines after a rename.
fn write_and_rotate(folder: PathBuf, rotation: Rotation, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let lock = Arc::new(Mutex::new(()));
    let rotator = {
        let (folder, lock, stop) = (folder.clone(), Arc::clone(&lock), Arc::clone(&stop));
        let mut chance = Chance(seed ^ 0x5555);
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                std::thread::park_timeout(Duration::from_millis(20 + chance.below(150)));
                let copies = match rotation {
                    Rotation::Rename => false,
                    Rotation::CopyTruncate => true,
                    Rotation::Both => chance.below(2) == 0,
                };
                let _held = lock.lock().unwrap();
                rotate(&folder, copies);
            }
        })
    };
    let mut chance = Chance(seed);
    let mut written = 1;
    let open = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(folder.join("app.log"))
            .unwrap()
    };
    let mut log = open();
    while !stop.load(Ordering::SeqCst) {
        for _ in 0..=chance.below(300) {
            let held = lock.lock().unwrap();
            // Some lines are written in two parts.
            let line = format!("line {written} {}\n", "x".repeat(chance.below(60) as usize));
            let (first, second) = line.split_at(chance.below(5) as usize);
            log.write_all(first.as_bytes()).unwrap();
            log.write_all(second.as_bytes()).unwrap();
            written += 1;
            drop(held);
        }
        std::thread::park_timeout(Duration::from_millis(chance.below(8)));
        if chance.below(3) == 0 {
            log = open();
        }
    }
    rotator.join().unwrap();
    written
}

/// Ends the source at a random instant; of what it gave last, a random part was committed.
fn kill(rig: &mut Rig, chance: &mut Chance) {
    let running = rig.running.take().unwrap();
    running.stop.stop();
    running.thread.join().unwrap().unwrap();
    for inlet in &running.inlets {
        let given: Vec<Inflow> = inlet.try_iter().collect();
        let committed = chance.below(given.len() as u64 + 1) as usize;
        for inflow in given.into_iter().take(committed) {
            rig.commit(inflow, Vec::new());
        }
    }
}

fn run(pattern: &str, rotation: Rotation, workers: usize, seed: u64) {
    let case = format!("{pattern} {rotation:?} {workers} workers, seed {seed}");
    let mut rig = Rig::new(&[pattern]);
    let stop = Arc::new(AtomicBool::new(false));
    let (folder, told) = (rig.folder.path().to_path_buf(), Arc::clone(&stop));
    // A file that was rotated before anyone looked, to a name that is not configured, is nobody's.
    rig.append("app.log", "line 0\n");
    rig.start_with(workers);
    rig.expect(&["line 0"]);
    let writer = std::thread::spawn(move || write_and_rotate(folder, rotation, seed, told));
    let mut chance = Chance(seed ^ 0xaaaa);
    let start = Instant::now();
    while start.elapsed() < RUN {
        let until = Instant::now() + Duration::from_millis(chance.below(400));
        while Instant::now() < until {
            rig.take();
            std::thread::park_timeout(Duration::from_millis(chance.below(10)));
        }
        kill(&mut rig, &mut chance);
        std::thread::park_timeout(Duration::from_millis(chance.below(120)));
        rig.start_with(workers);
    }
    stop.store(true, Ordering::SeqCst);
    let written = writer.join().unwrap();
    let end = Instant::now();
    while (rig.seen.len() as u64) < written && end.elapsed() < DEADLINE {
        rig.take();
        std::thread::park_timeout(Duration::from_millis(1));
    }
    rig.fence();
    let mut counts: BTreeMap<u64, usize> = (0..written).map(|number| (number, 0)).collect();
    for seen in rig
        .seen
        .iter()
        .filter(|seen| !seen.stream.contains("fence"))
    {
        let text = std::str::from_utf8(&seen.bytes).unwrap();
        let number = text
            .strip_prefix("line ")
            .and_then(|rest| rest.split(' ').next()?.parse().ok());
        *counts
            .entry(number.unwrap_or_else(|| panic!("{case}: torn {text:?} {seen:?}")))
            .or_default() += 1;
    }
    let wrong: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
    let some = &wrong[..wrong.len().min(10)];
    assert!(
        wrong.is_empty(),
        "{case}: {} of {written} wrong, such as {some:?}",
        wrong.len()
    );
}

impl Rig {
    /// Waits until the source has looked at all files once more.
    fn fence(&mut self) {
        self.append("fence-0.log", "fence\n");
        self.wait("the fence", |rig| {
            rig.seen.iter().any(|seen| seen.bytes == "fence")
        });
    }
}

#[test]
fn every_line_is_committed_once_whatever_rotation_and_restarts_do() {
    for (number, rotation) in [Rotation::Rename, Rotation::CopyTruncate, Rotation::Both]
        .into_iter()
        .enumerate()
    {
        run("app.log", rotation, 1, 7 + number as u64);
        run("app.log*", rotation, 2, 70 + number as u64);
    }
}
