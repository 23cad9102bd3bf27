//! One file that is followed: where reading stands in it and how the next bytes are got.

use std::collections::VecDeque;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::record::{FileId, Mark, Range, SourceId};
use crate::source::file::identity::{self, BEFORE_BYTES, Inode, Place};
use crate::source::file::read::{LINE_BYTES_MAX, Rest, WINDOW_BYTES};
use crate::source::{SourceError, Stream};

/// Places kept of what was read last, for a copy that ends before the last of them.
const TRAIL_MAX: usize = 32;

/// How the first reading of a file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Not judged yet: may be new, a copy, or one that was read before.
    Unknown,
    /// Was there, so long, before the agent ever ran; that much is left out.
    End { size: u64 },
    /// Begins at the offset it has.
    Known,
    /// Nothing of it is its own so far: it begins as another file that is read, `same` bytes long.
    Twin { of: Inode, same: u64 },
    /// Compressed.
    Skipped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Under a name that is configured.
    Here,
    /// Renamed, deleted, or a copy beside: read to its end and then let go.
    Left,
}

/// Size and time of the last change, as the sweep saw them.
pub type Stamp = (u64, i64, i64);

pub fn stamp(meta: &Metadata) -> Stamp {
    (meta.len(), meta.mtime(), meta.mtime_nsec())
}

#[derive(Debug)]
pub struct Tail {
    pub inode: Inode,
    /// Where it is now, or was last.
    pub path: PathBuf,
    /// What changes of it are told under.
    pub names: Vec<PathBuf>,
    /// Where it was found first: what its stream is named after.
    pub base: PathBuf,
    pub entry: usize,
    pub stream: Arc<Stream>,
    /// The stream as people know it, whichever life of the path this is.
    pub name: SourceId,
    pub origin: Origin,
    pub presence: Presence,
    pub file: Option<File>,
    /// Known once the first line is whole.
    pub id: Option<FileId>,
    /// The id before the content was replaced.
    pub former: Option<FileId>,
    /// When it was last written to, as seen first in this life.
    pub since: Option<SystemTime>,
    /// The content was replaced where it stood.
    pub is_replaced: bool,
    /// Where the next unread record begins.
    pub offset: u64,
    pub before: u64,
    pub skipping: bool,
    /// Offsets and hashes before them, the newest last.
    pub trail: VecDeque<(u64, u64)>,
    pub stamp: Option<Stamp>,
    /// End of the file when it was last reached, and since when it stands there.
    pub end: u64,
    pub quiet_since: Instant,
    pub is_queued: bool,
    /// Its end was reached since another file took its place.
    pub caught_up: bool,
    /// The file whose place this one took; it is read to its end first.
    pub follows: Option<Inode>,
    /// Read again before anything else.
    pub held: Held,
    /// Where reading stands was decided and not told yet.
    pub owes_mark: bool,
    pub has_fault: bool,
}

/// Ranges that a decoder held when the agent ended.
#[derive(Debug, Default)]
pub struct Held {
    /// In order and apart.
    pub ranges: VecDeque<(u64, u64)>,
    pub skipping: bool,
}

impl Held {
    pub fn new(ranges: &[Range]) -> Self {
        let mut sorted: Vec<(u64, u64)> =
            ranges.iter().map(|range| (range.from, range.to)).collect();
        sorted.sort_unstable();
        let mut ranges: VecDeque<(u64, u64)> = VecDeque::new();
        for (from, to) in sorted {
            match ranges.back_mut() {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => ranges.push_back((from, to)),
            }
        }
        Self {
            ranges,
            skipping: false,
        }
    }
}

/// What stands at the offset.
pub enum Window<'w> {
    /// So many bytes before the offset, and all from it on.
    Same { bytes: &'w [u8], behind: usize },
    /// Other bytes stand before the offset, or none: the content was replaced.
    Replaced,
}

impl Tail {
    pub fn new(
        inode: Inode,
        path: PathBuf,
        base: PathBuf,
        entry: usize,
        stream: Arc<Stream>,
        now: Instant,
    ) -> Self {
        Self {
            inode,
            name: name_of(&base),
            names: names_of(&path),
            path,
            base,
            entry,
            stream,
            origin: Origin::Unknown,
            presence: Presence::Here,
            file: None,
            id: None,
            former: None,
            is_replaced: false,
            since: None,
            offset: 0,
            before: identity::hash(b""),
            skipping: false,
            trail: VecDeque::new(),
            stamp: None,
            end: 0,
            quiet_since: now,
            is_queued: false,
            caught_up: false,
            follows: None,
            held: Held::default(),
            owes_mark: false,
            has_fault: false,
        }
    }

    pub fn moved_to(&mut self, path: &Path) {
        self.path = path.into();
        self.names = names_of(path);
        self.caught_up = false;
    }

    /// Returns when it was last written to.
    pub fn modified(&self) -> Option<SystemTime> {
        self.file.as_ref()?.metadata().ok()?.modified().ok()
    }

    /// Whether nothing of this life was read, so that its replacement would not be noticed.
    pub fn is_unread(&self) -> bool {
        self.id.is_none() && self.since.is_some()
    }

    /// Returns when what is known of it was written last; opens it to see.
    pub fn written_at(&mut self) -> Option<SystemTime> {
        if self.is_unread() {
            return self.since;
        }
        self.open().ok()?;
        self.modified()
    }

    pub fn place(&self) -> Option<Place> {
        Some(Place::new(self.id?, self.offset, self.before))
    }

    pub fn mark(&self) -> Option<Mark> {
        Some(Mark::File {
            file: self.id?,
            offset: self.offset,
            before: self.before,
            path: self.path.clone(),
        })
    }

    /// Opens the file by its path if it is closed.
    ///
    /// # Errors
    /// Also when another file stands there by now: the next scan finds where this one went.
    pub fn open(&mut self) -> Result<(), SourceError> {
        if self.file.is_none() {
            self.file = Some(open_as(&self.path, self.inode)?);
        }
        Ok(())
    }

    /// Reads on from the offset. The bytes before it come with the same call, so what is read is of the file that was
    /// read before, whatever happened to it between.
    pub fn window<'w>(&self, scratch: &'w mut [u8]) -> Result<Window<'w>, SourceError> {
        let Some(file) = &self.file else {
            return Ok(Window::Same {
                bytes: &[],
                behind: 0,
            });
        };
        let behind = usize::try_from(self.offset).map_or(BEFORE_BYTES, |at| at.min(BEFORE_BYTES));
        let scratch = scratch.get_mut(..behind + WINDOW_BYTES).unwrap_or_default();
        let have = identity::read_at(file, scratch, self.offset - behind as u64);
        let have = have.map_err(|source| self.unreadable(source))?;
        let bytes = scratch.get(..have).unwrap_or_default();
        Ok(match bytes.get(..behind) {
            Some(old) if identity::hash(old) == self.before => Window::Same { bytes, behind },
            _ => Window::Replaced,
        })
    }

    pub fn unreadable(&self, source: io::Error) -> SourceError {
        SourceError::Read {
            path: self.path.clone(),
            source,
        }
    }

    /// Moves the offset on by what was consumed; `through` are the bytes that end at the new offset.
    pub fn advance(&mut self, consumed: usize, through: &[u8]) {
        self.offset += consumed as u64;
        self.before = identity::hash_before(through);
        if self.trail.len() == TRAIL_MAX {
            self.trail.pop_front();
        }
        self.trail.push_back((self.offset, self.before));
    }

    /// Notes where the file ended.
    pub fn reached(&mut self, end: u64, now: Instant) {
        if end != self.end {
            self.end = end;
            self.quiet_since = now;
        }
        self.caught_up = true;
    }

    /// Begins the file anew, in its next life.
    pub fn begin_again(&mut self, now: Instant) {
        self.former = self.id.take().or(self.former);
        self.is_replaced = true;
        self.origin = Origin::Unknown; // a copy of another may have been put here
        self.offset = 0;
        self.before = identity::hash(b"");
        self.skipping = false;
        self.trail.clear();
        self.since = self.modified();
        self.end = 0;
        self.quiet_since = now;
    }

    /// Has the file read from `offset` on.
    ///
    /// # Errors
    /// When the bytes around it can't be read.
    pub fn begin_at(&mut self, offset: u64) -> Result<(), SourceError> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let before = identity::before(file, offset).map_err(|error| self.unreadable(error))?;
        let inside = is_inside_line(file, offset).map_err(|error| self.unreadable(error))?;
        if self.id.is_none() && offset > 0 {
            let head = identity::head_of(file).map_err(|error| self.unreadable(error))?;
            self.id = Some(head.name(self.inode, self.former));
        }
        self.origin = Origin::Known;
        self.offset = offset;
        self.before = before.unwrap_or_default();
        self.skipping = inside;
        self.trail.clear();
        self.owes_mark = offset > 0;
        Ok(())
    }

    /// Whether the writer has moved on: then a last line without an end is all there will be of it.
    pub fn is_over(&self, now: Instant, grace: Duration) -> bool {
        let is_away = self.presence == Presence::Left || self.path != self.base;
        is_away && now.saturating_duration_since(self.quiet_since) >= grace
    }

    pub fn rest(&self, now: Instant, grace: Duration) -> Rest {
        if self.is_over(now, grace) {
            Rest::Take
        } else {
            Rest::Leave
        }
    }
}

/// Opens a regular file and nothing else; a FIFO put in its place does not block.
pub fn open(path: &Path) -> Result<(File, Metadata), SourceError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let failed = |source| SourceError::Open {
        path: path.into(),
        source,
    };
    let file = options.open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    match kind_of(&meta) {
        None => Ok((file, meta)),
        Some(kind) => Err(SourceError::NotAFile {
            path: path.into(),
            kind,
        }),
    }
}

/// Opens a file if it is still the one that is meant; not found if not.
pub fn open_as(path: &Path, inode: Inode) -> Result<File, SourceError> {
    let (file, meta) = open(path)?;
    if Inode::of(&meta) == inode {
        return Ok(file);
    }
    Err(SourceError::Open {
        path: path.into(),
        source: io::ErrorKind::NotFound.into(),
    })
}

/// Returns what it is if it is no regular file.
pub fn kind_of(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("directory")
    } else if kind.is_fifo() {
        Some("named pipe")
    } else if kind.is_socket() {
        Some("socket")
    } else {
        Some("device")
    }
}

/// Returns where the line begins that is not whole `size` bytes into the file; `size` itself if none is open there.
pub fn last_line(file: &File, size: u64) -> io::Result<u64> {
    let from = size.saturating_sub(LINE_BYTES_MAX as u64);
    let mut bytes = vec![0; usize::try_from(size - from).unwrap_or(LINE_BYTES_MAX)];
    let have = identity::read_at(file, &mut bytes, from)?;
    let end = memchr::memrchr(b'\n', bytes.get(..have).unwrap_or_default());
    Ok(match end {
        Some(end) => from + end as u64 + 1,
        None if from == 0 => 0,
        None => from + have as u64,
    })
}

/// Whether `offset` is inside of a line whose beginning was a record already: no line end within the length at which
/// lines are cut. So no mark has to say so.
fn is_inside_line(file: &File, offset: u64) -> io::Result<bool> {
    let Some(from) = offset.checked_sub(LINE_BYTES_MAX as u64) else {
        return Ok(false);
    };
    let mut last = [b'\n'];
    identity::read_at(file, &mut last, offset - 1)?;
    // What follows a NUL follows a hole and is a record of its own.
    if matches!(last, [b'\n' | 0]) {
        return Ok(false);
    }
    let mut bytes = vec![0; LINE_BYTES_MAX];
    let have = identity::read_at(file, &mut bytes, from)?;
    Ok(memchr::memchr(b'\n', bytes.get(..have).unwrap_or_default()).is_none())
}

/// Returns the path with its directory resolved, and the file that a link leads to.
pub fn names_of(path: &Path) -> Vec<PathBuf> {
    let directory = path
        .parent()
        .map(|parent| match parent.as_os_str().is_empty() {
            true => Path::new("."),
            false => parent,
        });
    let directory = directory.and_then(|directory| directory.canonicalize().ok());
    let name = path.file_name().zip(directory);
    let mut names: Vec<PathBuf> = name.map(|(name, at)| at.join(name)).into_iter().collect();
    names.extend(
        path.canonicalize()
            .ok()
            .filter(|real| !names.contains(real)),
    );
    names
}

pub fn name_of(base: &Path) -> SourceId {
    SourceId::new(&format!("file:{}", base.display()))
}
