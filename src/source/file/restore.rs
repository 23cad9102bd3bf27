//! Finds the files again that were read before the agent ended, whatever they are called now.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tracing::debug;

use crate::record::{FileId, Mark, Progress, Range, SourceId};
use crate::source::file::Reader;
use crate::source::file::courier::KIND;
use crate::source::file::identity::{self, Inode, Place};
use crate::source::file::scan::{Listings, RACES_MAX};
use crate::source::file::table::Here;
use crate::source::file::tail::{self, Held, Presence, Tail};
use crate::source::{Resume, SourceError, Stream};

/// A mark whose file is to be found.
#[derive(Debug)]
pub struct Claim {
    stream: SourceId,
    base: PathBuf,
    entry: usize,
    file: FileId,
    place: Place,
    path: PathBuf,
    held: Vec<Range>,
}

/// What became of a claim.
enum Search {
    Found(Box<Tail>),
    /// Something that could be it can't be read now.
    Hidden,
    Nowhere,
}

impl Reader<'_> {
    /// Takes up each mark where its file is now. First the files themselves, then copies of what was truncated.
    pub fn restore(
        &mut self,
        resume: Resume,
        here: &Here<'_>,
        listings: &mut Listings,
        now: Instant,
    ) {
        let claims: Vec<Claim> = resume
            .streams
            .into_iter()
            .filter_map(|progress| self.claim(progress))
            .collect();
        self.streams
            .extend(claims.iter().map(|claim| claim.stream.clone()));
        let mut missing = Vec::new();
        for claim in claims {
            match self.find(&claim, here, listings, now) {
                Search::Found(tail) => self.insert(*tail),
                Search::Hidden => self.claims.push(claim),
                Search::Nowhere => missing.push(claim),
            }
        }
        for claim in missing {
            let mut found = None;
            for _ in 0..RACES_MAX {
                found = found.or_else(|| self.find_copied(&claim, here, listings, now));
                if found.is_none() {
                    listings.renew();
                }
            }
            if let Some(tail) = found {
                self.insert(tail);
            } else {
                let held = claim.held.len();
                debug!(stream = %claim.stream, path = ?claim.path, held, "file read before is gone");
                self.streams.remove(&claim.stream);
            }
            self.former.insert(claim.file.into(), claim.file);
        }
        self.restore_unseen(listings, now);
    }

    /// Where the newest known file of a path has another name now, more may have been rotated after it.
    fn restore_unseen(&mut self, listings: &mut Listings, now: Instant) {
        let mut newest: BTreeMap<&PathBuf, (Option<SystemTime>, Inode)> = BTreeMap::new();
        for tail in self.tails.values() {
            let known = newest.entry(&tail.base).or_insert((None, tail.inode));
            *known = (*known).max((tail.modified(), tail.inode));
        }
        let newest: Vec<_> = newest.into_values().collect();
        for (than, inode) in newest {
            let Some(tail) = self.tails.remove(&inode) else {
                continue;
            };
            if tail.path != tail.base {
                self.admit_newer(&tail, than, Some(inode), listings, now);
            }
            self.tails.insert(inode, tail);
        }
    }

    /// Reads a stored mark; one of another source, or of a file that is no longer configured, is left out.
    fn claim(&self, progress: Progress) -> Option<Claim> {
        let (kind, base) = progress.source.as_str().split_once(':')?;
        let life = kind.strip_prefix(KIND)?;
        let is_file = life.is_empty() || life.strip_prefix('.')?.parse::<u32>().is_ok();
        let Mark::File {
            file,
            offset,
            before,
            path,
        } = progress.mark
        else {
            return None;
        };
        let base = PathBuf::from(base);
        let held = progress.held.into_iter().filter(|range| range.file == file);
        let mut entries = self.entries.iter();
        let entry = entries.position(|entry| entry.matches(&base) || entry.matches(&path))?;
        is_file.then_some(Claim {
            stream: progress.source,
            base,
            entry,
            file,
            place: Place::new(file, offset, before),
            path,
            held: held.collect(),
        })
    }

    /// Finds the claimed file itself, by its inode and content.
    fn find(
        &self,
        claim: &Claim,
        here: &Here<'_>,
        listings: &mut Listings,
        now: Instant,
    ) -> Search {
        let inode = Inode::from(claim.file);
        if self.tails.contains_key(&inode) {
            return Search::Nowhere;
        }
        let matched = here.get(&inode).map(|(path, _)| path.to_path_buf());
        let opened = matched.map(|path| (tail::open_as(&path, inode), path));
        let (path, file, presence) = match opened {
            Some((Ok(file), path)) => (path, file, Presence::Here),
            _ if listings.beside(&claim.path).is_none() => return Search::Hidden,
            _ => match listings.open(&tail::names_of(&claim.path), inode) {
                Ok(Some((path, file))) => {
                    let presence = self.presence_of(&path);
                    (path, file, presence)
                }
                Ok(None) => return Search::Nowhere,
                Err(_) => return Search::Hidden,
            },
        };
        let mut tail = self.tail_of(claim, inode, path, presence, now);
        tail.file = Some(file);
        tail.id = Some(claim.file);
        match take_up(&mut tail, claim) {
            Ok(true) => Search::Found(Box::new(tail)),
            Ok(false) => Search::Nowhere,
            Err(_) => Search::Hidden,
        }
    }

    /// Finds the content of a claim in another file: a copy made before the file was truncated, or the file itself after
    /// its device got another number.
    fn find_copied(
        &mut self,
        claim: &Claim,
        here: &Here<'_>,
        listings: &mut Listings,
        now: Instant,
    ) -> Option<Tail> {
        if claim.place.offset == 0 {
            return None;
        }
        let matched = here
            .iter()
            .map(|(inode, (path, _))| (*inode, path.to_path_buf(), Presence::Here));
        let beside = listings.beside(&claim.path).unwrap_or_default().iter();
        let beside = beside.map(|(inode, path)| (*inode, path.clone(), self.presence_of(path)));
        let mut seen = HashSet::new();
        let mut best: Option<(SystemTime, Tail)> = None;
        for (inode, path, presence) in matched.chain(beside) {
            let is_candidate = path == claim.base || identity::is_named_after(&path, &claim.base);
            if !is_candidate || self.tails.contains_key(&inode) || seen.contains(&inode) {
                continue;
            }
            let mut tail = self.tail_of(claim, inode, path, presence, now);
            if tail.open().is_err() {
                continue; // may have another name by now, which comes later
            }
            seen.insert(inode);
            if !take_up(&mut tail, claim).unwrap_or(false) {
                continue;
            }
            let time = tail
                .file
                .as_ref()
                .and_then(|file| file.metadata().ok()?.modified().ok());
            let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
            if best.as_ref().is_none_or(|(other, _)| time > *other) {
                best = Some((time, tail));
            }
        }
        best.map(|(_, tail)| tail)
    }

    fn tail_of(
        &self,
        claim: &Claim,
        inode: Inode,
        path: PathBuf,
        presence: Presence,
        now: Instant,
    ) -> Tail {
        let stream = Arc::new(Stream {
            id: claim.stream.clone(),
            kind: KIND,
            format: self
                .entries
                .get(claim.entry)
                .map_or_else(Default::default, |entry| entry.format),
        });
        let mut tail = Tail::new(inode, path, claim.base.clone(), claim.entry, stream, now);
        tail.presence = presence;
        tail
    }

    /// Lets a file that could not be reached at the start go on at its mark.
    pub fn reclaim(&mut self, tail: &mut Tail) -> Result<bool, SourceError> {
        let Some(file) = &tail.file else {
            return Ok(false);
        };
        let is_it = |claim: &Claim| {
            (Inode::from(claim.file) == tail.inode || claim.path == tail.path)
                && claim.place.is_in(file).unwrap_or(false)
        };
        let Some(at) = self.claims.iter().position(is_it) else {
            return Ok(false);
        };
        let claim = self.claims.swap_remove(at);
        self.streams.remove(&tail.stream.id);
        let is_same = Inode::from(claim.file) == tail.inode;
        *tail = Tail {
            file: tail.file.take(),
            is_queued: tail.is_queued,
            id: is_same.then_some(claim.file),
            ..self.tail_of(
                &claim,
                tail.inode,
                tail.path.clone(),
                tail.presence,
                Instant::now(),
            )
        };
        take_up(tail, &claim)
    }
}

/// Sets a file to the place of a claim; false when its content is another.
fn take_up(tail: &mut Tail, claim: &Claim) -> Result<bool, SourceError> {
    let Some(file) = &tail.file else {
        return Ok(false);
    };
    let is_in = claim.place.is_in(file);
    if !is_in.map_err(|error| tail.unreadable(error))? {
        return Ok(false);
    }
    tail.begin_at(claim.place.offset)?;
    tail.before = claim.place.before; // whatever happened to the file since
    tail.owes_mark = tail.id != Some(claim.file) || tail.path != claim.path;
    tail.held = Held::new(&claim.held);
    Ok(true)
}
