//! Odd bytes, long lines, many files, full workers.

use super::*;
use crate::source::file::read::LINE_BYTES_MAX;

#[test]
fn bytes_are_kept_as_they_are() {
    let mut rig = Rig::started(&["app.log"]);
    rig.append(
        "app.log",
        b"crlf\r\nlone\rcr\n\xff\xfe\x80\nnul\0inside\n\0\0nuls around\0\0\n\r\n\n\0\nend\n",
    );
    rig.wait("all", |rig| rig.seen.len() == 6);
    let seen: Vec<(u64, &[u8])> = rig
        .seen
        .iter()
        .map(|seen| (seen.at, seen.bytes.as_ref()))
        .collect();
    assert_eq!(
        seen,
        [
            (0, &b"crlf"[..]),
            (6, b"lone\rcr"),
            (14, b"\xff\xfe\x80"),
            (18, b"nul\0inside"),
            (31, b"nuls around"),
            (50, b"end"),
        ]
    );
}

#[test]
fn lines_without_content_move_the_mark_alone() {
    let mut rig = Rig::started(&["app.log"]);
    rig.append("app.log", "\n\n\r\n");
    rig.wait("a mark", |rig| !rig.marks.is_empty());
    assert!(rig.seen.is_empty());
    let mark = rig.marks.values().next().unwrap().mark.clone();
    assert!(matches!(mark, Mark::File { offset: 4, .. }), "{mark:?}");
}

#[test]
fn a_hole_is_skipped_and_counted() {
    let mut rig = Rig::started(&["app.log"]);
    let mut writer = File::create(rig.path("app.log")).unwrap();
    writer.write_all(b"before\n").unwrap();
    rig.expect(&["before"]);
    rig.copy_truncate("app.log", "app.log.1");
    // A writer without O_APPEND goes on where it was, here far away.
    let hole = 40 << 20;
    writer.seek(SeekFrom::Start(hole)).unwrap();
    writer.write_all(b"after\nand on\n").unwrap();
    rig.expect(&["after", "and on"]);
    assert_eq!(rig.metrics.file_nuls.get(), hole);
    assert_eq!(rig.seen.last().unwrap().at, hole + 6);
    rig.restart();
    rig.expect_nothing();
}

#[test]
fn a_long_line_gives_its_beginning_and_the_next_line_is_whole() {
    let mut rig = Rig::started(&["app.log"]);
    let long = "x".repeat(3 << 20);
    rig.append("app.log", format!("short\n{long}"));
    rig.wait("the beginning", |rig| rig.seen.len() == 2);
    rig.append("app.log", format!("{long}\nnext\n"));
    rig.wait("the next line", |rig| rig.seen.len() == 3);
    let sizes: Vec<(usize, bool)> = rig
        .seen
        .iter()
        .map(|seen| (seen.bytes.len(), seen.cut))
        .collect();
    assert_eq!(sizes, [(5, false), (LINE_BYTES_MAX, true), (4, false)]);
    assert_eq!(
        rig.metrics.records_cut.with_label_values(&["file"]).get(),
        1
    );
}

#[test]
fn a_restart_within_a_long_line_does_not_make_a_record_of_its_rest() {
    let mut rig = Rig::started(&["app.log"]);
    rig.append("app.log", "x".repeat(LINE_BYTES_MAX + 10));
    rig.wait("the beginning", |rig| rig.seen.len() == 1);
    rig.told = 1;
    rig.expect_nothing();
    rig.restart();
    rig.append("app.log", "rest\nnext\n");
    rig.expect(&["next"]);
}

#[test]
fn thousands_of_files_are_followed_with_few_open() {
    let count = 1500;
    let mut rig = Rig::new(&["many-*.log"]);
    for number in 0..count {
        rig.append(&format!("many-{number}.log"), format!("{number}\n"));
    }
    rig.start();
    rig.wait("all files", |rig| rig.seen.len() == count);
    let open = |rig: &Rig| {
        let handles = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let targets = handles.filter_map(|handle| fs::read_link(handle.path()).ok());
        targets
            .filter(|target| target.starts_with(rig.folder.path()))
            .count()
    };
    rig.wait("the surplus is closed", |rig| open(rig) <= OPEN_MAX + 1);
    rig.told = count;
    rig.append("many-0.log", "again\n");
    rig.expect(&["again"]);
    // A closed file is found again under its new name.
    for number in 0..10 {
        rig.append(&format!("many-{number}.log"), "last\n");
        rig.rename(&format!("many-{number}.log"), &format!("old-{number}"));
        rig.expect(&["last"]);
    }
}

#[test]
fn a_full_worker_holds_up_its_own_files_and_no_others() {
    let mut rig = Rig::new(&["*.log"]);
    rig.start_with(2);
    let outlet = Outlet::new(vec![sync_channel(1).0, sync_channel(1).0]);
    let worker = |rig: &Rig, name: &str| outlet.worker(&tail::name_of(&rig.path(name)));
    let mut names = (0..).map(|number| format!("{number}.log"));
    let full = names.find(|name| worker(&rig, name) == 0).unwrap();
    let free = names.find(|name| worker(&rig, name) == 1).unwrap();
    let lines = QUEUE_INFLOWS * INFLOW_MANY;
    rig.append(&full, "line\n".repeat(lines));
    let start = Instant::now();
    for turn in 0..20 {
        rig.append(&free, format!("{turn}\n"));
        let inlet = &rig.running.as_ref().unwrap().inlets[1];
        let inflow = inlet.recv_timeout(DEADLINE).unwrap();
        assert_eq!(inflow.records.len(), 1, "{turn}");
    }
    assert!(start.elapsed() < DEADLINE);
    // Nothing of the waiting file was lost, and its order is kept.
    rig.wait("the rest", |rig| rig.seen.len() == lines);
    assert!(rig.seen.windows(2).all(|two| two[0].at + 5 == two[1].at));
}

/// More records than the queue holds, each twice.
const INFLOW_MANY: usize = 2 * crate::source::INFLOW_RECORDS_MAX;

#[test]
fn a_fast_file_does_not_starve_a_slow_one() {
    let mut rig = Rig::new(&["*.log"]);
    rig.append("fast.log", "a line of the fast file\n".repeat(1_000_000));
    rig.append("slow.log", "slow\n");
    rig.start();
    rig.wait("the slow one", |rig| {
        rig.seen.iter().any(|seen| seen.bytes == "slow")
    });
    let fast = rig.seen.len();
    assert!(fast < 200_000, "{fast}");
}

#[test]
fn a_stop_is_obeyed_at_once_even_when_nobody_takes() {
    let mut rig = Rig::new(&["*.log"]);
    rig.append("a.log", "line\n".repeat(100_000));
    rig.start();
    let has_some = |rig: &Rig| match rig.running.as_ref().unwrap().inlets[0].try_recv() {
        Ok(_) => true,
        Err(TryRecvError::Empty) => false,
        Err(TryRecvError::Disconnected) => panic!("the source ended"),
    };
    let start = Instant::now();
    while !has_some(&rig) {
        assert!(start.elapsed() < DEADLINE);
    }
    let start = Instant::now();
    rig.stop();
    assert!(
        start.elapsed() < Duration::from_millis(200),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_pipeline_that_is_gone_ends_the_source() {
    let mut rig = Rig::started(&["a.log"]);
    let mut running = rig.running.take().unwrap();
    running.inlets.clear();
    rig.append("a.log", "one\n");
    let ended = running.thread.join().unwrap();
    assert!(
        matches!(ended, Err(SourceError::Closed(Closed))),
        "{ended:?}"
    );
}
