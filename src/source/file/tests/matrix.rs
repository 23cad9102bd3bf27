//! What tailing must do while it runs, a test a case.

use super::*;

#[test]
fn a_file_that_appears_later_is_read_whole_and_on() {
    let mut rig = Rig::started(&["app.log"]);
    rig.expect_nothing();
    rig.append("app.log", "one\ntwo\n");
    rig.expect(&["one", "two"]);
    rig.append("app.log", "three\n");
    rig.expect(&["three"]);
    let offsets: Vec<u64> = rig
        .seen
        .iter()
        .filter(|s| s.stream.contains("app"))
        .map(|s| s.at)
        .collect();
    assert_eq!(offsets, [0, 4, 8]);
}

#[test]
fn at_the_very_first_start_what_is_there_is_left_out_unless_asked_for() {
    for (from, lines) in [
        (FirstRead::End, &["old two", "new"][..]),
        (FirstRead::Begin, &["old one", "old two", "new"][..]),
    ] {
        let mut rig = Rig::new(&["app.log"]);
        rig.configs[0].from = from;
        rig.first = true;
        rig.append("app.log", "old one\nold ");
        rig.start();
        rig.wait("the file is known", |rig| !rig.marks.is_empty());
        rig.append("app.log", "two\nnew\n");
        rig.expect(lines);
        rig.append("app.log.2", "not configured\n");
        rig.append("later.log", "x\n");
        rig.restart();
        rig.expect_nothing();
    }
}

#[test]
fn a_file_that_was_empty_at_the_first_start_is_read_from_its_begin() {
    let mut rig = Rig::new(&["app.log"]);
    rig.first = true;
    rig.append("app.log", "");
    rig.start();
    rig.wait_health("the file is known", |told| {
        told.contains_key("file:app.log")
    });
    rig.append("app.log", "one\n");
    rig.expect(&["one"]);
}

#[test]
fn a_renamed_file_is_read_to_its_end_while_its_successor_is_read_already() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::started(&[pattern]);
        let mut old = rig.append("app.log", "one\n");
        rig.expect(&["one"]);
        rig.rename("app.log", "app.log.1");
        old.write_all(b"two\n").unwrap();
        rig.expect(&["two"]);
        rig.append("app.log", "three\n");
        rig.expect(&["three"]);
        old.write_all(b"four\n").unwrap();
        rig.expect(&["four"]);
        rig.append("app.log", "five\n");
        rig.expect(&["five"]);
        drop(old);
        rig.wait_closed(&rig.path("app.log.1"));
        rig.expect_nothing();
        // The old file keeps its stream; the new one has its own.
        let streams = rig.streams();
        assert_eq!(streams[0], streams[1], "{pattern}");
        assert_eq!(streams[2], "file.2:app.log", "{pattern}");
        assert_eq!(streams[2], streams[4], "{pattern}");
    }
}

#[test]
fn files_rotated_many_times_give_each_line_once() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::started(&[pattern]);
        for turn in 0..6 {
            rig.append("app.log", format!("line {turn}\n"));
            rig.expect(&[&format!("line {turn}")]);
            for number in (1..5).rev() {
                if rig.path(&format!("app.log.{number}")).exists() {
                    rig.rename(
                        &format!("app.log.{number}"),
                        &format!("app.log.{}", number + 1),
                    );
                }
            }
            rig.rename("app.log", "app.log.1");
        }
        rig.expect_nothing();
        rig.restart();
        rig.expect_nothing();
    }
}

#[test]
fn a_truncated_file_is_read_anew_and_its_copy_is_not_read_again() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::started(&[pattern]);
        for turn in 0..4 {
            rig.append("app.log", format!("{turn} one\n{turn} two\n"));
            rig.expect(&[&format!("{turn} one"), &format!("{turn} two")]);
            if turn > 0 {
                rig.rename("app.log.1", &format!("app.log.{}", turn + 1));
            }
            rig.copy_truncate("app.log", "app.log.1");
            if turn == 1 {
                rig.expect_nothing();
            }
        }
        rig.expect_nothing();
        rig.restart();
        rig.expect_nothing();
        rig.append("app.log", "on\n");
        rig.expect(&["on"]);
    }
}

#[test]
fn what_was_not_read_before_a_truncation_is_read_from_the_copy() {
    for pattern in ["app.log", "app.log*"] {
        let mut rig = Rig::started(&[pattern]);
        rig.append("app.log", "one\n");
        rig.expect(&["one"]);
        // Between two looks; the source may or may not have read the second line.
        rig.append("app.log", "two\n");
        rig.copy_truncate("app.log", "app.log.1");
        rig.append("app.log", "three\n");
        rig.expect(&["two", "three"]);
        rig.expect_nothing();
    }
}

#[test]
fn a_copy_that_is_matched_before_its_original_is_truncated_is_not_read() {
    let mut rig = Rig::started(&["app.log*"]);
    rig.append("app.log", "one\ntwo\n");
    rig.expect(&["one", "two"]);
    fs::copy(rig.path("app.log"), rig.path("app.log.1")).unwrap();
    rig.expect_nothing();
    // Written and read between the copy and the truncation: only the original had it.
    rig.append("app.log", "three\n");
    rig.expect(&["three"]);
    rig.truncate("app.log");
    rig.expect_nothing();
    rig.append("app.log", "four\n");
    rig.expect(&["four"]);
    rig.restart();
    rig.expect_nothing();
}

#[test]
fn a_copy_that_is_written_to_on_its_own_is_read_from_there() {
    let mut rig = Rig::started(&["app*.log"]);
    let banner: String = (0..200)
        .map(|n| format!("a banner line that is {n}\n"))
        .collect();
    rig.append("app.log", &banner);
    rig.wait("the banner", |rig| rig.seen.len() == 200);
    rig.told = 200;
    fs::copy(rig.path("app.log"), rig.path("app-b.log")).unwrap();
    rig.expect_nothing();
    rig.append("app-b.log", "of b\n");
    rig.expect(&["of b"]);
}

#[test]
fn a_file_rewritten_beyond_the_old_offset_is_read_anew() {
    let mut rig = Rig::started(&["app.log"]);
    rig.append("app.log", "one\ntwo\n");
    rig.expect(&["one", "two"]);
    fs::write(rig.path("app.log"), "another three\nanother four\n").unwrap();
    rig.expect(&["another three", "another four"]);
    // Of the same length.
    fs::write(rig.path("app.log"), "another five!\nanother six!\n").unwrap();
    rig.expect(&["another five!", "another six!"]);
}

#[test]
fn equal_lines_at_equal_offsets_of_two_lives_have_two_positions() {
    let mut rig = Rig::started(&["app.log"]);
    rig.append("app.log", "failed\n");
    rig.expect(&["failed"]);
    rig.truncate("app.log");
    rig.expect_nothing();
    rig.append("app.log", "failed\n");
    rig.expect(&["failed"]);
    let of_app: Vec<&Seen> = rig
        .seen
        .iter()
        .filter(|seen| seen.stream.contains("app"))
        .collect();
    assert_eq!(of_app.len(), 2);
    assert_eq!(of_app[0].at, of_app[1].at);
    assert_ne!(of_app[0].file, of_app[1].file);
}

#[test]
fn files_that_share_their_first_line_are_different_files() {
    let mut rig = Rig::started(&["*.csv"]);
    rig.append("a.csv", "#Software: IIS\n");
    rig.expect(&["#Software: IIS"]);
    rig.append("b.csv", "#Software: IIS\n");
    rig.expect(&["#Software: IIS"]);
    rig.append("b.csv", "b1\n");
    rig.expect(&["b1"]);
    // A name as of a rotation, and all it has so far is what the other has.
    rig.append("a-2.csv", "#Software: IIS\n");
    rig.append("a-2.csv", "c1\n");
    rig.expect(&["#Software: IIS", "c1"]);
    rig.append("a.csv", "a1\n");
    rig.expect(&["a1"]);
}

#[test]
fn empty_and_tiny_files_are_followed_each_for_itself() {
    let mut rig = Rig::started(&["*.log"]);
    for name in ["a.log", "b.log", "c.log"] {
        rig.append(name, "");
    }
    rig.expect_nothing();
    rig.append("b.log", "b\n");
    rig.expect(&["b"]);
    rig.append("c.log", "c\n");
    rig.expect(&["c"]);
    rig.append("a.log", "a\n");
    rig.expect(&["a"]);
}

#[test]
fn a_partial_last_line_waits_for_its_end_and_is_no_progress() {
    let mut rig = Rig::started(&["app.log"]);
    rig.append("app.log", "whole\npart");
    rig.expect(&["whole"]);
    rig.expect_nothing();
    let offset = rig
        .marks
        .values()
        .find_map(|progress| match &progress.mark {
            Mark::File { offset, path, .. } if path.ends_with("app.log") => Some(*offset),
            _ => None,
        });
    assert_eq!(offset, Some(6));
    rig.append("app.log", "ial\n");
    rig.expect(&["partial"]);
}

#[test]
fn the_partial_last_line_of_a_file_that_is_over_is_its_last_record() {
    let mut rig = Rig::started(&["*.log", "kept*"]);
    for name in ["deleted.log", "renamed.log", "kept.0", "short.log"] {
        rig.append(name, format!("{name}\nend of {name}"));
        rig.expect(&[name]);
    }
    rig.expect_nothing();
    fs::remove_file(rig.path("deleted.log")).unwrap();
    rig.expect(&["end of deleted.log"]);
    rig.rename("renamed.log", "renamed.old");
    rig.expect(&["end of renamed.log"]);
    rig.rename("kept.0", "kept.1");
    rig.expect(&["end of kept.0"]);
    rig.expect_nothing();
    rig.append("only.log", "never a line end");
    rig.expect_nothing();
    fs::remove_file(rig.path("only.log")).unwrap();
    rig.expect(&["never a line end"]);
}

#[test]
fn a_deleted_file_is_read_to_its_end_and_closed() {
    let mut rig = Rig::started(&["app.log"]);
    let mut file = rig.append("app.log", "one\n");
    rig.expect(&["one"]);
    let meta = file.metadata().unwrap();
    fs::remove_file(rig.path("app.log")).unwrap();
    file.write_all(b"two\n").unwrap();
    rig.expect(&["two"]);
    drop(file);
    rig.wait("the file is closed", |_| !is_open((meta.dev(), meta.ino())));
    rig.expect_nothing();
}

#[test]
fn a_symbolic_link_is_followed_to_another_target() {
    let mut rig = Rig::new(&["current.log"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let (a, b) = (elsewhere.path().join("a"), elsewhere.path().join("b"));
    fs::write(&a, "a1\n").unwrap();
    fs::write(&b, "b1\n").unwrap();
    symlink(&a, rig.path("current.log")).unwrap();
    rig.start();
    rig.expect(&["a1"]);
    OpenOptions::new()
        .append(true)
        .open(&a)
        .unwrap()
        .write_all(b"a2\n")
        .unwrap();
    rig.expect(&["a2"]);
    symlink(&b, rig.path("next")).unwrap();
    rig.rename("next", "current.log");
    rig.expect(&["b1"]);
    OpenOptions::new()
        .append(true)
        .open(&b)
        .unwrap()
        .write_all(b"b2\n")
        .unwrap();
    rig.expect(&["b2"]);
    // The target rotates where it is.
    fs::rename(&b, elsewhere.path().join("b.1")).unwrap();
    fs::write(&b, "b3\n").unwrap();
    rig.expect(&["b3"]);
    rig.expect_nothing();
}

#[test]
fn a_file_of_two_names_is_read_once() {
    let mut rig = Rig::started(&["*.log"]);
    rig.append("a.log", "one\n");
    rig.expect(&["one"]);
    fs::hard_link(rig.path("a.log"), rig.path("b.log")).unwrap();
    symlink(rig.path("a.log"), rig.path("c.log")).unwrap();
    rig.expect_nothing();
    rig.append("b.log", "two\n");
    rig.expect(&["two"]);
}

#[test]
fn compressed_files_are_left_alone() {
    let mut rig = Rig::started(&["app.log*"]);
    for (name, magic) in [
        ("app.log.2.gz", &b"\x1f\x8b\x08\n"[..]),
        ("app.log.3.zst", b"\x28\xb5\x2f\xfd\n"),
        ("app.log.4.xz", b"\xfd7zXZ\n"),
        ("app.log.5.bz2", b"BZh9\n"),
    ] {
        rig.append(name, [magic, b"not a line\n".as_slice()].concat());
    }
    rig.expect_nothing();
    rig.append("app.log", "BZ is no magic\n");
    rig.expect(&["BZ is no magic"]);
}

#[test]
fn what_is_no_file_is_refused_and_told_if_it_was_named() {
    let mut rig = Rig::new(&["*.log", "pipe", "folder"]);
    for name in ["pipe", "pipe.log"] {
        let made = std::process::Command::new("mkfifo")
            .arg(rig.path(name))
            .status();
        assert!(made.unwrap().success());
    }
    fs::create_dir(rig.path("folder")).unwrap();
    fs::create_dir(rig.path("folder.log")).unwrap();
    rig.start();
    rig.append("a.log", "one\n");
    rig.expect(&["one"]);
    let told = rig.beat();
    let fault = |name: &str| {
        told.get(name)
            .and_then(|source| source.fault.clone())
            .unwrap_or_default()
    };
    assert!(
        fault("file:pipe").ends_with("is a named pipe, not a file"),
        "{told:#?}"
    );
    assert!(
        fault("file:folder").ends_with("is a directory, not a file"),
        "{told:#?}"
    );
    assert_eq!(
        told.values()
            .filter(|source| source.fault.is_some())
            .count(),
        2,
        "{told:#?}"
    );
}

#[test]
fn nothing_there_is_a_note_and_what_is_denied_a_fault_until_it_heals() {
    let mut rig = Rig::started(&["absent.log", "loop.log"]);
    rig.wait_health("the note", |told| {
        told.get("file:absent.log")
            .is_some_and(|source| source.note.as_deref() == Some("no file matches yet"))
    });
    assert!(rig.beat().values().all(|source| source.fault.is_none()));
    symlink(rig.path("loop.log"), rig.path("loop.log")).unwrap();
    rig.wait_health("the fault", |told| {
        let fault = told
            .get("file:loop.log")
            .and_then(|source| source.fault.clone());
        fault.is_some_and(|fault| fault.contains("loop.log\"") && fault.contains("symbolic links"))
    });
    fs::remove_file(rig.path("loop.log")).unwrap();
    rig.append("loop.log", "healed\n");
    rig.append("absent.log", "there\n");
    rig.wait("both lines", |rig| rig.seen.len() == 2);
    rig.wait_health("no fault and no note", |told| {
        told.values().all(|source| source.fault.is_none())
            && told
                .get("file:absent.log")
                .is_some_and(|source| source.note.is_none())
    });
}

#[test]
fn excluded_names_are_not_read() {
    let mut rig = Rig::new(&["**/*.log"]);
    rig.configs.truncate(1);
    rig.configs[0].exclude = vec!["debug-*".into(), rig.path("b/*").to_str().unwrap().into()];
    fs::create_dir(rig.path("a")).unwrap();
    fs::create_dir(rig.path("b")).unwrap();
    rig.start();
    for name in ["debug-1.log", "a/debug-2.log", "b/b.log", ".hidden.log"] {
        rig.append(name, "no\n");
    }
    rig.append("a/a.log", "yes\n");
    rig.append("top.log", "yes\n");
    rig.expect(&["yes", "yes"]);
    rig.expect_nothing();
}

#[test]
fn without_hints_the_sweep_finds_everything() {
    let mut rig = Rig::new(&["app.log"]);
    rig.pace.hints = Hinting::Off;
    rig.start();
    rig.append("app.log", "one\n");
    rig.expect(&["one"]);
    rig.append("app.log", "two\n");
    rig.expect(&["two"]);
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", "three\n");
    rig.expect(&["three"]);
    rig.copy_truncate("app.log", "app.log.1");
    rig.append("app.log", "4\n");
    rig.expect(&["4"]);
}

#[test]
fn a_line_is_out_within_a_tenth_of_a_second_by_hints_alone() {
    let mut rig = Rig::new(&["app.log"]);
    rig.pace.sweep = DEADLINE * 2;
    rig.pace.scan = DEADLINE * 2;
    rig.start();
    rig.append("app.log", "0\n");
    rig.expect(&["0"]);
    let mut waits: Vec<Duration> = (1..40)
        .map(|turn| {
            let text = turn.to_string();
            let start = Instant::now();
            rig.append("app.log", format!("{text}\n"));
            rig.expect(&[&text]);
            start.elapsed()
        })
        .collect();
    waits.sort();
    assert!(waits[20] < Duration::from_millis(100), "{waits:?}");
    rig.rename("app.log", "app.log.1");
    rig.append("app.log", "new\n");
    rig.expect(&["new"]);
}
