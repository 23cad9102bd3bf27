use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::record::{Mark, Position, Progress, Range};
use crate::source::{Inflow, QUEUE_INFLOWS, SourceHealth};

mod matrix;
mod restart;
mod limits;
mod random;

/// Long enough for a loaded machine; reached only when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

const QUICK: Pace = Pace {
    sweep: Duration::from_millis(50),
    scan: Duration::from_millis(200),
    grace: Duration::from_millis(300),
    hints: Hinting::On,
};

/// A folder of logs, a source that reads them, and what it gave.
struct Rig {
    folder: TempDir,
    configs: Vec<Config>,
    pace: Pace,
    metrics: AgentMetrics,
    health: Health,
    running: Option<Running>,
    /// What a spool would hold.
    marks: BTreeMap<SourceId, Progress>,
    first: bool,
    seen: Vec<Seen>,
    told: usize,
    fences: usize,
}

struct Running {
    stop: Stop,
    inlets: Vec<Receiver<Inflow>>,
    thread: JoinHandle<Result<(), SourceError>>,
}

#[derive(Debug, Clone)]
struct Seen {
    stream: String,
    at: u64,
    file: FileId,
    bytes: Bytes,
    cut: bool,
}

fn config(path: &Path) -> Config {
    Config {
        path: path.to_str().unwrap().into(),
        decode: Format::Auto,
        from: FirstRead::End,
        exclude: Vec::new(),
    }
}

impl Rig {
    /// Follows `patterns` in a new folder, as an agent that has run before.
    fn new(patterns: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configs = patterns.iter().chain(&["fence-*.log"]);
        Self {
            configs: configs.map(|p| config(&folder.path().join(p))).collect(),
            folder,
            pace: QUICK,
            metrics: AgentMetrics::default(),
            health: Health::default(),
            running: None,
            marks: BTreeMap::new(),
            first: false,
            seen: Vec::new(),
            told: 0,
            fences: 0,
        }
    }

    fn started(patterns: &[&str]) -> Self {
        let mut rig = Self::new(patterns);
        rig.start();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, bytes: impl AsRef<[u8]>) -> File {
        let mut file = OpenOptions::new();
        let mut file = file
            .append(true)
            .create(true)
            .open(self.path(name))
            .unwrap();
        file.write_all(bytes.as_ref()).unwrap();
        file
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// As logrotate's copytruncate does.
    fn copy_truncate(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
        self.truncate(from);
    }

    fn truncate(&self, name: &str) {
        let mut file = OpenOptions::new();
        file.write(true)
            .truncate(true)
            .open(self.path(name))
            .unwrap();
    }

    fn start(&mut self) {
        self.start_with(1);
    }

    fn start_with(&mut self, workers: usize) {
        let stop = Stop::default();
        let (outlets, inlets) = (0..workers).map(|_| sync_channel(QUEUE_INFLOWS)).unzip();
        let mut files = Files::new(&self.configs, &self.metrics);
        files.pace = self.pace;
        let from = Resume {
            streams: self.marks.values().cloned().collect(),
            start: 1,
            first: self.first,
        };
        let (stopped, health) = (stop.clone(), self.health.clone());
        let thread = std::thread::spawn(move || {
            Box::new(files).run(from, &Outlet::new(outlets), &stopped, &health)
        });
        self.running = Some(Running {
            stop,
            inlets,
            thread,
        });
    }

    /// Stops the source; what it gave and was not taken is lost, as in a kill.
    fn stop(&mut self) {
        let running = self.running.take().unwrap();
        running.stop.stop();
        running.thread.join().unwrap().unwrap();
        self.first = false;
    }

    fn restart(&mut self) {
        self.stop();
        self.start();
    }

    /// Takes what was given, as a pipeline that commits at once.
    fn take(&mut self) -> usize {
        let mut taken = 0;
        let Some(running) = &self.running else {
            return 0;
        };
        let inlets = running.inlets.iter();
        let inflows: Vec<Inflow> = inlets
            .flat_map(|inlet| inlet.try_iter().take(QUEUE_INFLOWS))
            .collect();
        for inflow in inflows {
            taken += 1;
            self.commit(inflow, Vec::new());
        }
        taken
    }

    fn commit(&mut self, inflow: Inflow, held: Vec<Range>) {
        for record in inflow.records {
            let Position::Offset { file, offset } = record.position else {
                panic!("a file's record has an offset");
            };
            self.seen.push(Seen {
                stream: inflow.stream.id.to_string(),
                at: offset,
                file,
                bytes: record.bytes,
                cut: record.cut,
            });
        }
        if let Some(mark) = inflow.mark {
            let source = inflow.stream.id.clone();
            let progress = Progress {
                source: source.clone(),
                mark,
                held,
            };
            self.marks.insert(source, progress);
        }
    }

    fn wait(&mut self, what: &str, done: impl Fn(&mut Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < DEADLINE,
                "waited for {what}; got {:#?}",
                self.texts()
            );
            if self.take() == 0 {
                std::thread::yield_now();
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }

    fn texts(&self) -> Vec<String> {
        let seen = self.seen.iter().skip(self.told);
        let text = |seen: &Seen| {
            String::from_utf8_lossy(&seen.bytes)
                .chars()
                .take(80)
                .collect()
        };
        seen.map(text).collect()
    }

    /// Waits for these lines, and for no other, since the last call.
    fn expect(&mut self, lines: &[&str]) {
        let what = format!("{lines:?}");
        self.wait(&what, |rig| rig.seen.len() - rig.told >= lines.len());
        assert_eq!(self.texts(), lines);
        self.told = self.seen.len();
    }

    /// Waits until the source has looked at all files and read what there is, and that gave nothing.
    fn expect_nothing(&mut self) {
        for _ in 0..2 {
            self.fences += 1;
            let text = format!("fence {}", self.fences);
            self.append(&format!("fence-{}.log", self.fences), format!("{text}\n"));
            self.wait(&text, |rig| rig.texts().last() == Some(&text));
            assert_eq!(self.texts(), [text.as_str()]);
            self.told = self.seen.len();
        }
    }

    /// Waits until a file is no longer followed under this stream, or closed.
    fn wait_closed(&mut self, path: &Path) {
        let inode = fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
        let inode = inode.unwrap();
        self.wait("the file is closed", |_| !is_open(inode));
    }

    fn beat(&self) -> BTreeMap<String, SourceHealth> {
        let folder = format!("{}/", self.folder.path().display());
        let sources = self.health.beat().into_iter();
        let named = sources.map(|source| (source.name.replace(&folder, ""), source));
        named.collect()
    }

    fn wait_health(&mut self, what: &str, done: impl Fn(&BTreeMap<String, SourceHealth>) -> bool) {
        self.wait(what, |rig| done(&rig.beat()));
    }

    fn streams(&self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        self.seen
            .iter()
            .map(|seen| seen.stream.replace(&folder, ""))
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.stop();
            let _ = running.thread.join();
        }
    }
}

/// Whether this process has a file open.
fn is_open(inode: (u64, u64)) -> bool {
    let handles = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let mut open = handles.filter_map(|handle| fs::metadata(handle.path()).ok());
    open.any(|meta| (meta.dev(), meta.ino()) == inode)
}
