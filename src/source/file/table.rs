//! Which files are followed: those that come, those that lose their name, and how many are held open.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::{debug, warn};

use crate::record::SourceId;
use crate::source::Stream;
use crate::source::file::courier::KIND;
use crate::source::file::identity::Inode;
use crate::source::file::scan::{self, Found, Listings, Look};
use crate::source::file::tail::{self, Origin, Presence, Tail};
use crate::source::file::{FORMER_MAX, FirstRead, OPEN_MAX, Reader};

/// What a file was found as: the first of its paths.
pub type Here<'l> = BTreeMap<Inode, (&'l Path, Found)>;

impl Reader<'_> {
    /// Looks at the patterns again: files that came, went and changed their names.
    pub fn scan(&mut self, now: Instant) {
        let look = scan::look(&self.entries);
        self.tell(&look);
        let mut here = Here::new();
        for (path, found) in &look.paths {
            here.entry(found.inode).or_insert((path, *found));
        }
        let mut listings = Listings::default();
        let mut moved = Vec::new();
        let mut rotated = Vec::new();
        for tail in self.tails.values_mut() {
            let stays = look.paths.get(&tail.path);
            if stays.is_some_and(|found| found.inode == tail.inode) {
                tail.presence = Presence::Here;
                if tail.is_unread() {
                    rotated.push(tail.inode);
                }
                continue;
            }
            moved.push(tail.inode);
            if tail.path == tail.base {
                rotated.push(tail.inode);
            }
            if let Some((path, _)) = here.get(&tail.inode) {
                tail.presence = Presence::Here;
                tail.moved_to(path);
            } else if tail.presence == Presence::Here {
                tail.presence = Presence::Left;
                tail.quiet_since = now;
                tail.caught_up = false;
                if let Ok(Some((path, file))) = listings.open(&tail.names, tail.inode) {
                    tail.moved_to(&path);
                    tail.file.get_or_insert(file);
                    // Renamed since the look: a name that the next look will find.
                    if self.entries.iter().any(|entry| entry.matches(&path)) {
                        tail.presence = Presence::Here;
                    }
                }
            }
        }
        moved.into_iter().for_each(|inode| self.queue(inode));
        let resume = self.resume.take();
        let is_first = resume.as_ref().is_some_and(|resume| resume.first);
        if let Some(resume) = resume {
            self.restore(resume, &here, &mut listings, now);
        }
        for inode in rotated {
            if let Some(mut tail) = self.tails.remove(&inode) {
                let than = tail.written_at();
                // A file that lost its name comes before them, one that has it after.
                let is_here = tail.path == tail.base && tail.presence == Presence::Here;
                let after = if is_here { tail.follows } else { Some(inode) };
                let last = self.admit_newer(&tail, than, after, &mut listings, now);
                if is_here {
                    tail.follows = last;
                }
                self.tails.insert(inode, tail);
            }
        }
        for (inode, (path, found)) in here {
            if !self.tails.contains_key(&inode) {
                self.admit(path, found, is_first, &mut listings, now);
            }
        }
        self.watch_all(&look);
    }

    fn admit(
        &mut self,
        path: &Path,
        found: Found,
        is_first: bool,
        listings: &mut Listings,
        now: Instant,
    ) {
        let stream = self.stream_of(path, found.entry);
        let mut tail = Tail::new(
            found.inode,
            path.into(),
            path.into(),
            found.entry,
            stream,
            now,
        );
        tail.since = found.modified;
        let first = self.entries.get(found.entry).map(|entry| entry.first);
        if is_first && found.size > 0 {
            tail.origin = match first {
                Some(FirstRead::Begin) => Origin::Known,
                _ => Origin::End { size: found.size },
            };
        }
        if tail.stream.id != tail.name || self.last_known.contains_key(path) {
            let formers = self.tails.values().filter(|other| other.base == path);
            let newest = formers.max_by_key(|other| other.modified());
            let known = newest.and_then(Tail::modified);
            let than = known.max(self.last_known.get(path).copied());
            let after = newest.map(|newest| newest.inode);
            tail.follows = self.admit_newer(&tail, than, after, listings, now);
        }
        debug!(?path, stream = %tail.stream.id, "file found");
        self.insert(tail);
    }

    pub fn insert(&mut self, tail: Tail) {
        let inode = tail.inode;
        self.courier.health.expect(&tail.name);
        self.tails.insert(inode, tail);
        self.queue(inode);
    }

    /// Returns a stream of its own for a file first found at `base`.
    pub fn stream_of(&mut self, base: &Path, entry: usize) -> Arc<Stream> {
        let path = base.display();
        let mut id = tail::name_of(base);
        let mut life = 1_u32;
        while !self.streams.insert(id.clone()) {
            life += 1;
            id = SourceId::new(&format!("{KIND}.{life}:{path}"));
        }
        Arc::new(Stream {
            id,
            kind: KIND,
            format: self
                .entries
                .get(entry)
                .map_or_else(Default::default, |entry| entry.format),
        })
    }

    /// Whether a path is configured.
    pub fn presence_of(&self, path: &Path) -> Presence {
        match self.entries.iter().any(|entry| entry.matches(path)) {
            true => Presence::Here,
            false => Presence::Left,
        }
    }

    /// Ends following a file that was read to its end and has no configured name.
    pub fn let_go(&mut self, tail: Tail) {
        debug!(path = ?tail.path, stream = %tail.stream.id, "file done with");
        self.release_twins(&tail);
        self.streams.remove(&tail.stream.id);
        self.forget(&tail.name);
        if self.former.len() >= FORMER_MAX {
            self.former.clear();
        }
        if let Some(id) = tail.id {
            self.former.insert(tail.inode, id);
        }
        if self.left.len() >= FORMER_MAX {
            self.left.clear();
        }
        let links = tail.file.as_ref().and_then(|file| file.metadata().ok());
        // The inode of a deleted file will be another file's.
        if let Some(place) = tail.place()
            && links.is_some_and(|meta| meta.nlink() > 0)
        {
            self.left.insert(tail.inode, place);
        }
        if self.last_known.len() >= FORMER_MAX {
            self.last_known.clear();
        }
        let known = self
            .last_known
            .entry(tail.base.clone())
            .or_insert(SystemTime::UNIX_EPOCH);
        *known = tail.modified().unwrap_or(*known).max(*known);
    }

    /// Health no longer tells of a name that no file has.
    pub fn forget(&self, name: &SourceId) {
        if !self.tails.values().any(|tail| tail.name == *name) {
            self.courier.health.fault(name, None);
            self.courier.health.forget(name);
        }
    }

    /// Closes the files opened the longest ago that have nothing to read and can be found again.
    pub fn close_idle(&mut self) {
        let surplus = self.opened.len().saturating_sub(OPEN_MAX);
        for _ in 0..surplus {
            let Some(inode) = self.opened.pop_front() else {
                return;
            };
            match self.tails.get_mut(&inode) {
                Some(tail) if tail.file.is_none() => (),
                Some(tail) if tail.is_queued || tail.presence == Presence::Left => {
                    self.opened.push_back(inode);
                }
                Some(tail) => tail.file = None,
                None => (),
            }
        }
    }

    /// Tells what can't be looked at, and what matches nothing.
    fn tell(&mut self, look: &Look) {
        let health = self.courier.health;
        let mut faults = HashSet::new();
        for (path, fault) in &look.faults {
            let name = tail::name_of(path);
            if !self.faults.contains(&name) {
                warn!(?path, error = fault.told(), "cannot read file");
            }
            health.fault(&name, Some(fault.told()));
            faults.insert(name);
        }
        for name in self.faults.difference(&faults) {
            self.forget(name);
        }
        self.faults = faults;
        for (number, entry) in self.entries.iter().enumerate() {
            let name = SourceId::new(&format!("{KIND}:{}", entry.text));
            if look.empty.contains(&number) {
                health.note(&name, Some("no file matches yet".into()));
            } else {
                health.note(&name, None);
                if !self.faults.contains(&name) {
                    self.forget(&name);
                }
            }
        }
    }

    fn watch_all(&mut self, look: &Look) {
        let mut directories = look.directories.clone();
        self.names.clear();
        for tail in self.tails.values() {
            for name in &tail.names {
                self.names.insert(name.clone(), tail.inode);
                directories.extend(name.parent().map(Path::to_path_buf));
            }
        }
        if self.watch.follow(&directories) {
            self.scan_again = true;
        }
        let name = SourceId::new(KIND);
        let note = self.watch.limit().map(|limit| {
            format!("some directories are looked at every few seconds, as they can't be watched: {limit}")
        });
        if note.is_none() {
            self.courier.health.forget(&name);
        }
        self.courier.health.note(&name, note);
    }
}
