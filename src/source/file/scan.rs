//! Looks at what the configured patterns match now. Decides nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use glob::{MatchOptions, Pattern};

use crate::decode::Format;
use crate::source::SourceError;
use crate::source::file::identity::Inode;
use crate::source::file::tail;
use crate::source::file::{Config, FirstRead};

/// As a shell matches.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// One entry of the configuration, its patterns read.
#[derive(Debug)]
pub struct Entry {
    pub text: String,
    pub format: Format,
    pub first: FirstRead,
    pattern: Pattern,
    exclude: Vec<Pattern>,
}

impl Entry {
    pub fn new(config: &Config) -> Result<Self, SourceError> {
        let pattern = |text: &String| {
            Pattern::new(text).map_err(|source| SourceError::Pattern {
                pattern: text.clone(),
                source,
            })
        };
        Ok(Self {
            text: config.path.clone(),
            format: config.decode,
            first: config.from,
            pattern: pattern(&config.path)?,
            exclude: config
                .exclude
                .iter()
                .map(pattern)
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn matches(&self, path: &Path) -> bool {
        self.pattern.matches_path_with(path, OPTIONS) && !self.excludes(path)
    }

    /// A pattern without a slash is held against the name alone.
    fn excludes(&self, path: &Path) -> bool {
        let name = path.file_name().map(Path::new);
        self.exclude.iter().any(|pattern| {
            let whole = pattern.as_str().contains('/');
            let against = if whole { Some(path) } else { name };
            against.is_some_and(|path| pattern.matches_path_with(path, OPTIONS))
        })
    }

    /// The directory above the first wildcard.
    fn root(&self) -> &Path {
        let wild = self.text.find(['*', '?', '[']).unwrap_or(self.text.len());
        let root = self.text.get(..wild).unwrap_or_default();
        let end = root.rfind('/').map_or(0, |slash| slash.max(1));
        Path::new(
            root.get(..end)
                .filter(|root| !root.is_empty())
                .unwrap_or("."),
        )
    }

    fn is_literal(&self) -> bool {
        !self.text.contains(['*', '?', '['])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub inode: Inode,
    pub entry: usize,
    pub size: u64,
    pub modified: Option<SystemTime>,
}

#[derive(Debug, Default)]
pub struct Look {
    pub paths: BTreeMap<PathBuf, Found>,
    /// What could not be looked at, and why.
    pub faults: Vec<(PathBuf, SourceError)>,
    /// Entries that match nothing.
    pub empty: Vec<usize>,
    /// Where a name may appear that is matched, resolved.
    pub directories: BTreeSet<PathBuf>,
}

/// Looks at all files that are configured.
pub fn look(entries: &[Entry]) -> Look {
    let mut look = Look::default();
    for (number, entry) in entries.iter().enumerate() {
        let before = look.paths.len();
        let mut matched = false;
        for path in glob::glob_with(&entry.text, OPTIONS).into_iter().flatten() {
            match path {
                Ok(path) if entry.excludes(&path) => (),
                Ok(path) => matched |= look.add(path, entry, number),
                Err(error) => {
                    let path = error.path().to_path_buf();
                    look.fault(path, error.into());
                }
            }
        }
        if !matched && look.paths.len() == before {
            look.empty.push(number);
            look.ask(entry);
        }
        look.add_directories(entry);
    }
    look
}

impl Look {
    fn add(&mut self, path: PathBuf, entry: &Entry, number: usize) -> bool {
        if self.paths.contains_key(&path) {
            return true;
        }
        let meta = match fs::metadata(&path) {
            Ok(meta) => meta,
            Err(error) => {
                self.fault(path, error);
                return false;
            }
        };
        if let Some(kind) = tail::kind_of(&meta) {
            if entry.is_literal() {
                let fault = SourceError::NotAFile {
                    path: path.clone(),
                    kind,
                };
                self.faults.push((path, fault));
            }
            return false;
        }
        let found = Found {
            inode: Inode::of(&meta),
            entry: number,
            size: meta.len(),
            modified: meta.modified().ok(),
        };
        self.paths.insert(path, found);
        true
    }

    /// Nothing there is no fault; not being let in is.
    fn ask(&mut self, entry: &Entry) {
        let path = if entry.is_literal() {
            Path::new(&entry.text)
        } else {
            entry.root()
        };
        if let Err(error) = fs::metadata(path) {
            self.fault(path.into(), error);
        }
    }

    fn fault(&mut self, path: PathBuf, source: io::Error) {
        if source.kind() != io::ErrorKind::NotFound {
            let fault = SourceError::Look {
                path: path.clone(),
                source,
            };
            self.faults.push((path, fault));
        }
    }

    fn add_directories(&mut self, entry: &Entry) {
        let root = entry.root();
        let existing = root.ancestors().find(|path| path.is_dir());
        let parent = Path::new(&entry.text).parent().and_then(Path::to_str);
        let parents = parent.filter(|parent| parent.contains(['*', '?', '[']));
        let parents = parents.and_then(|parents| glob::glob_with(parents, OPTIONS).ok());
        let parents = parents.into_iter().flatten().flatten();
        let parents = parents.filter(|path| path.is_dir());
        let all = existing.map(Path::to_path_buf).into_iter().chain(parents);
        self.directories
            .extend(all.filter_map(|path| path.canonicalize().ok()));
    }
}

/// Names may change while they are looked at; after so many times what is not found is taken for gone.
pub const RACES_MAX: usize = 4;

/// The regular files of directories, each directory read at most once.
#[derive(Debug, Default)]
pub struct Listings(HashMap<PathBuf, Option<Vec<(Inode, PathBuf)>>>);

impl Listings {
    /// Returns the files in the directory of `path`, or `None` if it can't be read.
    pub fn beside(&mut self, path: &Path) -> Option<&[(Inode, PathBuf)]> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let listing = self.0.entry(parent.into());
        listing.or_insert_with(|| list(parent)).as_deref()
    }

    /// Opens an inode beside one of `names`, whatever its name is now.
    ///
    /// # Errors
    /// When it is there and can't be opened.
    pub fn open(
        &mut self,
        names: &[PathBuf],
        inode: Inode,
    ) -> Result<Option<(PathBuf, File)>, SourceError> {
        for _ in 0..RACES_MAX {
            let path = names.iter().find_map(|name| {
                let mut files = self.beside(name)?.iter();
                let file = files.find(|(number, _)| *number == inode);
                file.map(|(_, path)| path.clone())
            });
            let Some(path) = path else {
                return Ok(None);
            };
            match tail::open_as(&path, inode) {
                Ok(file) => return Ok(Some((path, file))),
                Err(SourceError::Open { source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    self.renew(); // renamed since it was listed
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Has the directories read anew.
    pub fn renew(&mut self) {
        self.0.clear();
    }
}

/// An entry's own number is not taken for the inode: on overlay file systems the two differ.
fn list(directory: &Path) -> Option<Vec<(Inode, PathBuf)>> {
    let here = directory.as_os_str().is_empty();
    let from = if here { Path::new(".") } else { directory };
    for _ in 1..RACES_MAX {
        let changed = |path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
        let before = changed(from);
        let files = list_once(from, directory)?;
        // A name that changes during the listing may not be in it at all.
        if changed(from) == before {
            return Some(files);
        }
    }
    list_once(from, directory)
}

fn list_once(from: &Path, directory: &Path) -> Option<Vec<(Inode, PathBuf)>> {
    let names = fs::read_dir(from).ok()?;
    let files = names.flatten().filter_map(|name| {
        let meta = name.metadata().ok().filter(fs::Metadata::is_file)?;
        Some((Inode::of(&meta), directory.join(name.file_name())))
    });
    Some(files.collect())
}
