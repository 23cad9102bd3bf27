//! What tailing must find again after the agent was down.

use super::*;

/// A source that has read "one" of app.log and is down now.
fn down_after_one(pattern: &str) -> Rig {
    let mut rig = Rig::started(&[pattern]);
    rig.append("app.log", "one\n");
    rig.expect(&["one"]);
    rig.stop();
    rig
}

#[test]
fn reading_goes_on_at_the_mark() {
    let mut rig = down_after_one("app.log");
    rig.append("app.log", "two\n");
    rig.append("later.log", "not configured\n");
    rig.start();
    rig.expect(&["two"]);
    rig.restart();
    rig.expect_nothing();
}

#[test]
fn a_file_rotated_meanwhile_is_finished_before_its_successor_is_read() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = down_after_one(pattern);
        rig.append("app.log", "two\n");
        rig.rename("app.log", "app.log.1");
        rig.append("app.log", "three\n");
        rig.start();
        rig.expect(&["two", "three"]);
        let streams = rig.streams();
        assert_eq!(streams, ["file:app.log", "file:app.log", "file.2:app.log"]);
        rig.restart();
        rig.expect_nothing();
        rig.append("app.log", "four\n");
        rig.expect(&["four"]);
    }
}

#[test]
fn a_file_rotated_twice_meanwhile_is_found() {
    let mut rig = down_after_one("app.log*");
    rig.append("app.log", "two\n");
    rig.rename("app.log", "app.log.2");
    rig.append("app.log.1", "three\n");
    rig.append("app.log", "four\n");
    rig.start();
    rig.wait("all", |rig| rig.seen.len() == 4);
    let mut texts = rig.texts();
    texts.sort();
    assert_eq!(texts, ["four", "three", "two"]);
}

#[test]
fn a_file_truncated_meanwhile_is_finished_from_its_copy() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = down_after_one(pattern);
        rig.append("app.log", "two\n");
        rig.copy_truncate("app.log", "app.log.1");
        rig.append("app.log", "three\n");
        rig.start();
        rig.expect(&["two", "three"]);
        rig.restart();
        rig.expect_nothing();
        rig.rename("app.log.1", "app.log.2");
        rig.append("app.log", "four\n");
        rig.expect(&["four"]);
        rig.restart();
        rig.expect_nothing();
    }
}

#[test]
fn a_file_rewritten_meanwhile_is_read_whole() {
    for text in ["1\n", "six\n", "three\nfour\n"] {
        let mut rig = down_after_one("app.log");
        fs::write(rig.path("app.log"), text).unwrap();
        rig.start();
        rig.expect(&text.lines().collect::<Vec<_>>());
    }
}

#[test]
fn an_inode_used_again_is_another_file() {
    let mut rig = Rig::started(&["*.log"]);
    rig.append("a.log", "one\ntwo\n");
    rig.expect(&["one", "two"]);
    rig.stop();
    fs::remove_file(rig.path("a.log")).unwrap();
    rig.append("b.log", "of another\nand longer\n");
    rig.start();
    rig.expect(&["of another", "and longer"]);
    assert_eq!(rig.streams()[2], "file:b.log");
}

#[test]
fn a_deleted_file_is_no_fault_and_its_successor_is_read_whole() {
    let mut rig = down_after_one("app.log");
    fs::remove_file(rig.path("app.log")).unwrap();
    rig.start();
    rig.expect_nothing();
    assert!(rig.beat().values().all(|source| source.fault.is_none()));
    rig.append("app.log", "two\n");
    rig.expect(&["two"]);
    assert_eq!(rig.streams()[0], "file:app.log");
}

#[test]
fn a_file_whose_device_has_another_number_goes_on() {
    let mut rig = down_after_one("app.log");
    for progress in rig.marks.values_mut() {
        if let Mark::File { file, .. } = &mut progress.mark {
            file.device += 1;
        }
    }
    rig.append("app.log", "two\n");
    rig.start();
    rig.expect(&["two"]);
}

#[test]
fn a_file_that_is_no_longer_configured_is_left_alone() {
    let mut rig = down_after_one("app.log");
    rig.append("app.log", "two\n");
    rig.configs.remove(0);
    rig.start();
    rig.expect_nothing();
}

#[test]
fn a_folder_that_appears_late_has_its_files_go_on() {
    let mut rig = Rig::new(&["sub/app.log"]);
    fs::create_dir(rig.path("sub")).unwrap();
    rig.start();
    rig.append("sub/app.log", "one\n");
    rig.expect(&["one"]);
    rig.stop();
    rig.rename("sub", "away");
    rig.append("away/app.log", "two\n");
    rig.start();
    rig.expect_nothing();
    rig.rename("away", "sub");
    rig.expect(&["two"]);
    assert_eq!(rig.streams().last().unwrap(), "file:sub/app.log");
}

#[test]
fn held_ranges_are_read_again_first_and_only_they() {
    let mut rig = Rig::new(&["app.log"]);
    rig.append("app.log", "one\ntwo\nthree\nfour\nfive\n");
    rig.start();
    rig.expect(&["one", "two", "three", "four", "five"]);
    rig.stop();
    let progress = rig
        .marks
        .values_mut()
        .find(|p| p.source.as_str().contains("app"))
        .unwrap();
    let Mark::File { file, .. } = progress.mark else {
        panic!()
    };
    let range = |from, to| Range { file, from, to };
    progress.held = vec![range(14, 18), range(4, 7), range(7, 8)];
    let before = progress.mark.clone();
    rig.append("app.log", "six\n");
    rig.start();
    // As it comes: no mark before the last of what is read again.
    let mut inflows = Vec::new();
    while inflows
        .iter()
        .map(|inflow: &Inflow| inflow.records.len())
        .sum::<usize>()
        < 3
    {
        let inlet = &rig.running.as_ref().unwrap().inlets[0];
        inflows.push(inlet.recv_timeout(DEADLINE).unwrap());
    }
    let held: Vec<_> = inflows
        .iter()
        .filter(|i| i.stream.id.as_str().contains("app"))
        .take(2)
        .collect();
    assert_eq!(held[0].mark, None);
    assert_eq!(held[1].mark, Some(before));
    for inflow in inflows {
        rig.commit(inflow, Vec::new());
    }
    rig.expect(&["two", "four", "six"]);
    rig.restart();
    rig.expect_nothing();
}

#[test]
fn a_held_range_of_a_rotated_file_is_found_under_its_new_name() {
    let mut rig = down_after_one("app.log");
    let progress = rig.marks.values_mut().next().unwrap();
    let Mark::File { file, .. } = progress.mark else {
        panic!()
    };
    progress.held = vec![Range {
        file,
        from: 0,
        to: 4,
    }];
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", "two\n");
    rig.start();
    rig.expect(&["one", "two"]);
}

#[test]
fn a_file_that_was_let_go_and_comes_back_goes_on_where_it_was() {
    let mut rig = Rig::started(&["app.log"]);
    rig.append("app.log", "one\n");
    rig.expect(&["one"]);
    rig.rename("app.log", "elsewhere");
    rig.wait_closed(&rig.path("elsewhere"));
    rig.expect_nothing();
    rig.append("elsewhere", "two\n");
    rig.rename("elsewhere", "app.log");
    rig.expect(&["two"]);
}

#[test]
fn files_rotated_unseen_to_names_that_are_not_configured_are_read() {
    for copies in [false, true] {
        let mut rig = down_after_one("app.log");
        let rotate = |rig: &Rig, to: &str| match copies {
            true => rig.copy_truncate("app.log", to),
            false => rig.rename("app.log", to),
        };
        rig.append("app.log", "two\n");
        rotate(&rig, "app.log.3");
        for (line, to) in [("three\n", "app.log.2"), ("four\n", "app.log.1")] {
            // A time of its own, as the order of files is that of their last writes.
            let before = fs::metadata(rig.path("app.log.3"))
                .unwrap()
                .modified()
                .unwrap();
            rig.wait("a later time", |rig| {
                rig.append("clock", "tick");
                fs::metadata(rig.path("clock")).unwrap().modified().unwrap()
                    > before + Duration::from_millis(20)
            });
            rig.append("app.log", line);
            rotate(&rig, to);
        }
        rig.append("app.log", "five\n");
        rig.start();
        rig.expect(&["two", "three", "four", "five"]);
        rig.restart();
        rig.expect_nothing();
    }
}
