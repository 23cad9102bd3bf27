//! What rotation does to files: contents that end in place, and the copies that were made of them.
//!
//! A copy is never taken for one by its first line alone: the bytes before a place that was read must be the same too,
//! and its name must be one that a rotation would give.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::info;

use crate::source::SourceError;
use crate::source::file::Reader;
use crate::source::file::identity::{self, Inode, Place};
use crate::source::file::scan::{Listings, RACES_MAX};
use crate::source::file::tail::{self, Origin, Presence, Tail};

/// A copy that shows up later than this after its original ended is a file of its own.
const COPY_WITHIN: Duration = Duration::from_secs(60);
/// Endings remembered; the oldest goes first.
const ENDED_MAX: usize = 64;
/// Files that begin alike for so long may do so by chance, as with a header; they are read whole once they differ.
const ALIKE_BYTES: u64 = 4096;

/// The content of a file that was replaced, for a copy of it that is found later.
pub struct Ended {
    base: PathBuf,
    place: Place,
    trail: Vec<(u64, u64)>,
    at: Instant,
}

impl Ended {
    pub fn is_fresh(&self) -> bool {
        self.at.elapsed() < COPY_WITHIN
    }

    /// Returns where a copy is to be read from: what follows was never read of the original.
    fn unread_of(&self, copy: &File) -> io::Result<Option<u64>> {
        let length = copy.metadata()?.len();
        if length >= self.place.offset {
            return Ok(self.place.is_in(copy)?.then_some(self.place.offset));
        }
        // It ends before the last place: all of it was read, if it is one. How it begins has to do where no place is
        // remembered that early.
        let passed = self.trail.iter().rev().find(|(at, _)| *at <= length);
        let (offset, before) = *passed.unwrap_or(&(0, identity::hash(b"")));
        let place = Place {
            offset,
            before,
            ..self.place
        };
        Ok((length > 0 && place.is_in(copy)?).then_some(length))
    }
}

/// A file that was rotated before it was looked at.
struct Missed {
    time: SystemTime,
    inode: Inode,
    path: PathBuf,
    file: File,
}

/// What to do with a file that was not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Read,
    /// A copy of one that is followed, so far; or nothing to be read.
    Leave,
    /// Another has to have its turn first.
    Later,
}

/// How a file and one that begins like it compare.
enum Likeness {
    /// All of it stands in the other.
    Part(u64),
    Differs,
    /// The other is no longer what it was.
    Stale,
}

impl Reader<'_> {
    /// Decides where a new file is read from.
    pub fn judge(&mut self, tail: &mut Tail, head: u64) -> Result<Verdict, SourceError> {
        if self.reclaim(tail)? {
            return Ok(Verdict::Read);
        }
        let Some(file) = &tail.file else {
            return Ok(Verdict::Leave);
        };
        let unreadable = |error| tail.unreadable(error);
        // What has the same content under the path itself is read first; then this is known for a copy.
        for other in self.tails.values_mut() {
            let is_original = other.is_queued
                && other.id.is_none()
                && other.path == other.base
                && identity::is_named_after(&tail.path, &other.base);
            if is_original
                && other.open().is_ok()
                && let Some(original) = &other.file
                && begins(original, file).map_err(unreadable)?
            {
                other.follows = None;
                return Ok(Verdict::Later);
            }
        }
        // One that was let go and has a configured name again.
        let mut from = match self.left.remove(&tail.inode) {
            Some(place) if place.is_in(file).map_err(unreadable)? => Some(place.offset),
            _ => None,
        };
        for ended in &self.ended {
            if from.is_none()
                && ended.is_fresh()
                && identity::is_named_after(&tail.path, &ended.base)
            {
                from = ended.unread_of(file).map_err(unreadable)?;
            }
        }
        if let Some(from) = from {
            tail.begin_at(from)?;
            return Ok(Verdict::Read);
        }
        let is_alike = |other: &&Tail| {
            other.place().is_some_and(|place| place.head == head)
                && other.offset > 0
                && other.origin == Origin::Known
                && identity::is_named_after(&tail.path, &other.base)
        };
        let alike: Vec<Inode> = self
            .tails
            .values()
            .filter(is_alike)
            .map(|other| other.inode)
            .collect();
        for of in alike {
            let Some(other) = self.tails.get(&of) else {
                continue;
            };
            match likeness(file, other).map_err(unreadable)? {
                Likeness::Part(same) => {
                    tail.origin = Origin::Twin { of, same };
                    return Ok(Verdict::Leave);
                }
                Likeness::Stale => {
                    // Its turn comes first and finds what became of it, and of this one.
                    self.queue(of);
                    return Ok(Verdict::Later);
                }
                Likeness::Differs => (),
            }
        }
        // Written over after it lost its name, and no copy: not what was asked for.
        let is_foreign = tail.is_replaced && tail.presence == Presence::Left;
        tail.origin = if is_foreign {
            Origin::Skipped
        } else {
            Origin::Known
        };
        Ok(if is_foreign {
            Verdict::Leave
        } else {
            Verdict::Read
        })
    }

    /// Whether a file that began as another does now has content of its own.
    pub fn has_parted(&mut self, tail: &mut Tail) -> Result<bool, SourceError> {
        let (Origin::Twin { of, same }, Some(file)) = (tail.origin, &tail.file) else {
            return Ok(true);
        };
        let likeness = match self.tails.get(&of) {
            Some(other) => likeness(file, other).map_err(|error| tail.unreadable(error))?,
            None => Likeness::Differs,
        };
        match likeness {
            Likeness::Part(same) => tail.origin = Origin::Twin { of, same },
            Likeness::Stale => self.queue(of),
            Likeness::Differs => {
                let line = tail::last_line(file, same).map_err(|error| tail.unreadable(error))?;
                tail.begin_at(if same <= ALIKE_BYTES { 0 } else { line })?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The content of `tail` was replaced. What was not read of it may stand in a copy, which then goes on with its
    /// stream; the file itself begins anew.
    pub fn end_life(&mut self, tail: &mut Tail, now: Instant) {
        if let Some(place) = tail.place() {
            let ended = Ended {
                base: tail.base.clone(),
                place,
                trail: tail.trail.iter().copied().collect(),
                at: now,
            };
            // A second look, as names may change during the first.
            let copy = (0..2).find_map(|_| self.find_copy(tail, &ended, now));
            info!(path = ?tail.path, read = place.offset, has_copy = copy.is_some(), "file was truncated");
            match copy {
                Some(copy) => {
                    let than = copy.modified();
                    self.adopt(copy, tail, place.offset);
                    let mut listings = Listings::default();
                    tail.follows = self.admit_newer(tail, than, tail.follows, &mut listings, now);
                }
                None => {
                    self.ended.push(ended);
                    let surplus = self.ended.len().saturating_sub(ENDED_MAX);
                    self.ended.drain(..surplus);
                }
            }
        }
        tail.begin_again(now);
    }

    /// Finds the newest file that has all that was read of an ended content; settles those that have less.
    fn find_copy(&mut self, original: &Tail, ended: &Ended, now: Instant) -> Option<Tail> {
        let mut copies: Vec<(SystemTime, Inode)> = Vec::new();
        let mut consider = |file: &File, inode| {
            let from = ended.unread_of(file).ok().flatten();
            let time = file.metadata().and_then(|meta| meta.modified());
            if let (Some(from), Ok(time)) = (from, time)
                && from == ended.place.offset
            {
                copies.push((time, inode));
            }
            from
        };
        let mut settled = Vec::new();
        for tail in self.tails.values_mut() {
            let is_twin = matches!(tail.origin, Origin::Twin { of, .. } if of == original.inode);
            let is_open = is_twin || (tail.origin == Origin::Unknown && tail.id.is_none());
            if !is_open
                || !identity::is_named_after(&tail.path, &ended.base)
                || tail.open().is_err()
            {
                continue;
            }
            let from = tail
                .file
                .as_ref()
                .and_then(|file| consider(file, tail.inode));
            if let Some(from) = from.filter(|from| *from < ended.place.offset) {
                let _ = tail.begin_at(from); // stays as it is if it can't be read; its own turn tells
                settled.push(tail.inode);
            }
        }
        settled.into_iter().for_each(|inode| self.queue(inode));
        let mut listings = Listings::default();
        let mut beside = Vec::new();
        for name in &original.names {
            for (inode, path) in listings.beside(name).unwrap_or_default() {
                let is_known = self.tails.contains_key(inode) || *inode == original.inode;
                if is_known || !identity::is_named_after(path, name) {
                    continue;
                }
                if let Ok(file) = tail::open_as(path, *inode) {
                    consider(&file, *inode);
                    beside.push((*inode, path.clone(), file));
                }
            }
        }
        let (_, inode) = copies.into_iter().max()?;
        if let Some(known) = self.tails.remove(&inode) {
            return Some(known);
        }
        let (_, path, file) = beside.into_iter().find(|(number, ..)| *number == inode)?;
        let stream = Arc::clone(&original.stream);
        let base = original.base.clone();
        let mut tail = Tail::new(inode, path, base, original.entry, stream, now);
        tail.presence = self.presence_of(&tail.path);
        tail.file = Some(file);
        Some(tail)
    }

    /// Lets a copy go on with the stream of `original` at `offset`, and gives that a new one.
    fn adopt(&mut self, mut copy: Tail, original: &mut Tail, offset: u64) {
        if copy.stream.id != original.stream.id {
            self.streams.remove(&copy.stream.id);
        }
        let name = std::mem::replace(&mut copy.name, original.name.clone());
        copy.stream = Arc::clone(&original.stream);
        copy.base = original.base.clone();
        copy.entry = original.entry;
        copy.id = None;
        copy.caught_up = false;
        if copy.begin_at(offset).is_err() {
            copy.origin = Origin::Unknown; // its own turn tells why
        }
        original.stream = self.stream_of(&original.base, original.entry);
        original.follows = Some(copy.inode);
        copy.is_queued = false;
        self.insert(copy);
        self.forget(&name);
    }

    /// Admits files that have the name of a rotation of this one's path, that nobody knows, and that were written to
    /// after `than`, when this path was last known: they came and went between two looks. They are read one after the
    /// other, the first after `after`; returns the last.
    pub fn admit_newer(
        &mut self,
        tail: &Tail,
        than: Option<SystemTime>,
        after: Option<Inode>,
        listings: &mut Listings,
        now: Instant,
    ) -> Option<Inode> {
        let Some(than) = than else {
            return after;
        };
        let mut missed = Vec::new();
        for _ in 0..RACES_MAX {
            if self.find_newer(tail, than, listings, &mut missed) {
                break;
            }
            listings.renew();
        }
        missed.sort_by_key(|missed: &Missed| (missed.time, missed.inode));
        missed.dedup_by_key(|missed| missed.inode);
        let mut last = after;
        for Missed {
            inode, path, file, ..
        } in missed
        {
            let stream = self.stream_of(&tail.base, tail.entry);
            let mut tail = Tail::new(inode, path, tail.base.clone(), tail.entry, stream, now);
            tail.presence = self.presence_of(&tail.path);
            tail.file = Some(file);
            tail.follows = last.replace(inode);
            info!(path = ?tail.path, "file was rotated unseen");
            self.insert(tail);
        }
        last
    }

    /// Whether a whole life of an unread file may have passed since it was seen: then that is to be read first. Without
    /// a new name in the folder there was no rotation, which spares the look in general.
    pub fn has_missed(&mut self, tail: &mut Tail) -> bool {
        let is_here = tail.presence == Presence::Here && tail.path == tail.base;
        let changed = |name: &PathBuf| fs::metadata(name.parent()?).ok()?.modified().ok();
        let changed = tail.names.iter().filter_map(changed).max();
        if !is_here || changed < tail.since {
            return false;
        }
        let mut listings = Listings::default();
        let last = self.admit_newer(
            tail,
            tail.since,
            tail.follows,
            &mut listings,
            Instant::now(),
        );
        std::mem::replace(&mut tail.follows, last) != last
    }

    /// Returns false if a name changed meanwhile.
    fn find_newer(
        &self,
        tail: &Tail,
        than: SystemTime,
        listings: &mut Listings,
        missed: &mut Vec<Missed>,
    ) -> bool {
        let mut is_whole = true;
        for name in tail::names_of(&tail.base) {
            for (inode, path) in listings.beside(&name).unwrap_or_default() {
                let is_known = self.tails.contains_key(inode) || *inode == tail.inode;
                if is_known || !identity::is_rotation_of(path, &name) {
                    continue;
                }
                let time = fs::metadata(path).and_then(|meta| meta.modified());
                if time.as_ref().is_ok_and(|time| *time <= than) {
                    continue;
                }
                let (Ok(time), Ok(file)) = (time, tail::open_as(path, *inode)) else {
                    is_whole = false;
                    continue;
                };
                let was_read = self
                    .left
                    .get(inode)
                    .is_some_and(|place| place.is_in(&file).unwrap_or(false));
                if !was_read {
                    missed.push(Missed {
                        time,
                        inode: *inode,
                        path: path.clone(),
                        file,
                    });
                }
            }
        }
        is_whole
    }

    /// The original of some copies is gone: what they have beyond it is theirs.
    pub fn release_twins(&mut self, original: &Tail) {
        let mut released = Vec::new();
        for tail in self.tails.values_mut() {
            let Origin::Twin { of, same } = tail.origin else {
                continue;
            };
            if of != original.inode || tail.open().is_err() {
                continue;
            }
            let Some(file) = &tail.file else {
                continue;
            };
            let has_all = original
                .place()
                .is_some_and(|place| place.is_in(file).unwrap_or(false));
            let from = match has_all {
                true => original.offset,
                false => tail::last_line(file, same).unwrap_or(same),
            };
            if tail.begin_at(from).is_ok() {
                released.push(tail.inode);
            }
        }
        released.into_iter().for_each(|inode| self.queue(inode));
    }
}

/// Compares a file with the one that it may be a copy of.
fn likeness(copy: &File, other: &Tail) -> io::Result<Likeness> {
    let length = copy.metadata()?.len();
    let reopened;
    let original = match &other.file {
        Some(file) => file,
        None => match tail::open(&other.path) {
            Ok((file, meta)) if Inode::of(&meta) == other.inode => {
                reopened = file;
                &reopened
            }
            _ => return Ok(Likeness::Stale),
        },
    };
    if !other
        .place()
        .map_or(Ok(false), |place| place.is_in(original))?
    {
        return Ok(Likeness::Stale);
    }
    if length > original.metadata()?.len() {
        return Ok(Likeness::Differs);
    }
    let is_same = identity::head_of(copy)?.hash == identity::head_of(original)?.hash
        && identity::before(copy, length)? == identity::before(original, length)?;
    Ok(match is_same {
        true => Likeness::Part(length),
        false => Likeness::Differs,
    })
}

/// Whether a file begins with all that stands in `copy`, as far as its first line and its last bytes tell.
fn begins(original: &File, copy: &File) -> io::Result<bool> {
    // The length of the copy is taken first: what the other has grown by since does not matter.
    let length = copy.metadata()?.len();
    Ok(length <= original.metadata()?.len()
        && identity::head_of(copy)?.hash == identity::head_of(original)?.hash
        && identity::before(copy, length)? == identity::before(original, length)?)
}
