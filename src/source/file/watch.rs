//! Wakes the reader when something happens in a directory. Only a hint: whoever relies on it also looks by itself, since
//! network file systems tell nothing and the kernel's queue overflows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

use crate::source::Stop;
use crate::source::file::Hinting;
use crate::source::file::identity::Inode;

/// Changed names that are told one by one; beyond it everything is looked at.
const NAMES_MAX: usize = 8192;
/// Directories that are watched; the kernel allows a user 8,192 or more over all programs. The rest is swept.
const DIRECTORIES_MAX: usize = 4096;
/// A writer's burst of small writes is read together.
const GATHER: Duration = Duration::from_millis(10);

/// What happened since the last look.
#[derive(Debug, Default)]
pub struct Hints {
    pub changed: HashSet<PathBuf>,
    /// A name came, went or changed: look at the patterns again.
    pub has_new_names: bool,
    /// Events were lost: look at everything.
    pub is_blind: bool,
}

impl Hints {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && !self.has_new_names && !self.is_blind
    }

    fn add(&mut self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            self.is_blind = true;
            return;
        };
        self.is_blind |= event.need_rescan();
        match event.kind {
            // Also our own opening of files; writes tell of themselves.
            EventKind::Access(_) => return,
            EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_)) => {
                self.has_new_names = true;
            }
            _ => (),
        }
        if self.changed.len() >= NAMES_MAX {
            self.is_blind = true;
        } else {
            self.changed.extend(event.paths);
        }
    }
}

#[derive(Default)]
struct Shared {
    hints: Mutex<Hints>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    directories: HashMap<PathBuf, Inode>,
    shared: Arc<Shared>,
    stop: Stop,
    limit: Option<String>,
}

impl Watch {
    pub fn new(stop: &Stop, hinting: Hinting) -> Self {
        let shared = Arc::<Shared>::default();
        let stopped = Arc::clone(&shared);
        stop.on_stop(Box::new(move || {
            let _held = stopped.lock(); // so that it can't pass between the waiter's look at the stop and its sleep
            stopped.wake.notify_all();
        }));
        let told = Arc::clone(&shared);
        let watcher = notify::recommended_watcher(move |event| {
            let mut hints = told.lock();
            hints.add(event);
            if !hints.is_empty() {
                told.wake.notify_all();
            }
        });
        let limit = watcher.as_ref().err().map(ToString::to_string);
        Self {
            watcher: watcher.ok().filter(|_| hinting == Hinting::On),
            directories: HashMap::new(),
            shared,
            stop: stop.clone(),
            limit,
        }
    }

    /// Watches these directories and no others. Paths in hints begin as they are given here.
    /// Returns whether some are new: what happened there until now was not told.
    pub fn follow(&mut self, wanted: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let mut has_new = false;
        self.limit = None;
        let inode_of = |path: &Path| fs::metadata(path).ok().map(|meta| Inode::of(&meta));
        // A directory that was replaced under its name has lost its watch.
        self.directories.retain(|path, inode| {
            let stays = wanted.contains(path) && inode_of(path) == Some(*inode);
            if !stays {
                let _ = watcher.unwatch(path); // the kernel has dropped it already if the directory is gone
            }
            stays
        });
        for path in wanted {
            let Some(inode) = inode_of(path).filter(|_| !self.directories.contains_key(path))
            else {
                continue;
            };
            if self.directories.len() >= DIRECTORIES_MAX {
                self.limit = Some(format!("more than {DIRECTORIES_MAX} directories"));
                break;
            }
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.directories.insert(path.clone(), inode);
                    has_new = true;
                }
                Err(error) => self.limit = Some(error.to_string()),
            }
        }
        has_new
    }

    /// Returns why some directories are not watched.
    pub fn limit(&self) -> Option<&str> {
        self.limit.as_deref()
    }

    /// Returns what was hinted, waiting for it until `deadline` or the stop.
    pub fn wait(&self, deadline: Instant) -> Hints {
        let mut hints = self.sleep(self.shared.lock(), deadline, Hints::is_empty);
        if !hints.is_empty() && deadline > Instant::now() {
            hints = self.sleep(hints, Instant::now() + GATHER, |_| true);
        }
        std::mem::take(&mut hints)
    }

    /// Sleeps until `deadline`, whatever is hinted.
    pub fn pause(&self, deadline: Instant) {
        drop(self.sleep(self.shared.lock(), deadline, |_| true));
    }

    fn sleep<'h>(
        &self,
        mut hints: MutexGuard<'h, Hints>,
        deadline: Instant,
        goes_on: impl Fn(&Hints) -> bool,
    ) -> MutexGuard<'h, Hints> {
        while goes_on(&hints) && !self.stop.is_set() {
            let Some(left) = deadline
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
            else {
                break;
            };
            let woken = self.shared.wake.wait_timeout(hints, left);
            hints = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        hints
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, CreateKind, DataChange, Flag, RenameMode};

    use super::*;

    #[test]
    fn events_become_hints() {
        let named = |kind| Ok(Event::new(kind).add_path("/a".into()));
        let lost = Ok(Event::new(EventKind::Other).set_flag(Flag::Rescan));
        for (event, changed, has_new_names, is_blind) in [
            (named(EventKind::Access(AccessKind::Any)), 0, false, false),
            (
                named(EventKind::Modify(ModifyKind::Data(DataChange::Any))),
                1,
                false,
                false,
            ),
            (named(EventKind::Create(CreateKind::File)), 1, true, false),
            (
                named(EventKind::Modify(ModifyKind::Name(RenameMode::To))),
                1,
                true,
                false,
            ),
            (lost, 0, false, true),
            (Err(notify::Error::generic("queue")), 0, false, true),
        ] {
            let mut hints = Hints::default();
            let case = format!("{event:?}");
            hints.add(event);
            assert_eq!(hints.changed.len(), changed, "{case}");
            assert_eq!(
                (hints.has_new_names, hints.is_blind),
                (has_new_names, is_blind),
                "{case}"
            );
        }
    }

    #[test]
    fn more_names_than_are_kept_mean_a_look_at_all() {
        let mut hints = Hints::default();
        for number in 0..=NAMES_MAX {
            let event = Event::new(EventKind::Modify(ModifyKind::Any));
            hints.add(Ok(event.add_path(number.to_string().into())));
        }
        assert_eq!((hints.changed.len(), hints.is_blind), (NAMES_MAX, true));
    }

    #[test]
    fn a_directory_that_was_replaced_is_watched_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (stop, path) = (Stop::default(), folder.path().join("logs"));
        let mut watch = Watch::new(&stop, Hinting::On);
        let wanted = BTreeSet::from([path.clone()]);
        assert!(!watch.follow(&wanted));
        fs::create_dir(&path).unwrap();
        assert!(watch.follow(&wanted));
        assert!(!watch.follow(&wanted));
        fs::rename(&path, folder.path().join("old")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(watch.follow(&wanted));
        assert_eq!(watch.limit(), None);
        let start = Instant::now();
        fs::write(path.join("a.log"), "one").unwrap();
        let mut seen = Hints::default();
        while !seen.changed.contains(&path.join("a.log"))
            && start.elapsed() < Duration::from_secs(10)
        {
            seen = watch.wait(start + Duration::from_secs(10));
        }
        assert!(seen.has_new_names, "{seen:?}");
    }

    #[test]
    fn a_stop_ends_a_wait() {
        let stop = Stop::default();
        let watch = Watch::new(&stop, Hinting::Off);
        let stopper = stop.clone();
        let waiter =
            std::thread::spawn(move || watch.wait(Instant::now() + Duration::from_secs(60)));
        stopper.stop();
        assert!(waiter.join().unwrap().is_empty());
    }
}
