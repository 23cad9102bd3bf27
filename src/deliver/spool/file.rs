//! The spool's files: their names, the lock, how a connection is set, how a new file is made.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::deliver::spool::SpoolError;
use crate::deliver::wire::Epoch;

/// Grows by one when a table changes; an older agent refuses a newer file.
pub const SCHEMA: i64 = 1;

/// 1,000 pages of 4 KiB between checkpoints: 25 commits of 64 alerts. One connection and no other reader: each
/// checkpoint is complete, so the WAL holds at most these and one commit.
const CHECKPOINT_PAGES: u32 = 1000;
/// Twice the above: a commit that crosses the line does not make the WAL shrink, give up its blocks and grow again.
const WAL_KEPT_BYTES: u32 = 8 * 1024 * 1024;
/// As many as the store has statements.
const STATEMENTS_MAX: usize = 48;

/// `alert` comes last in its row: what stands before it is read without the pages behind.
/// State 0 waits, 1 is acknowledged. `acknowledged` begins as `stored`, so a row keeps its size when its state changes
/// and its payload is not written again.
const TABLES: &str = "
    CREATE TABLE meta(
        one INTEGER PRIMARY KEY CHECK (one = 1), schema INTEGER NOT NULL, epoch INTEGER NOT NULL,
        next INTEGER NOT NULL, start INTEGER NOT NULL, last_commit INTEGER, given_up TEXT NOT NULL) STRICT;
    CREATE TABLE alerts(
        seq INTEGER PRIMARY KEY, state INTEGER NOT NULL, level INTEGER NOT NULL, rule TEXT NOT NULL,
        bytes INTEGER NOT NULL, stored INTEGER NOT NULL, acknowledged INTEGER NOT NULL, alert BLOB NOT NULL) STRICT;
    CREATE INDEX waiting_order ON alerts(level, seq, bytes) WHERE state = 0;
    CREATE INDEX waiting_rule ON alerts(level, rule, seq, bytes) WHERE state = 0;
    CREATE INDEX acknowledged_order ON alerts(acknowledged, seq, bytes) WHERE state = 1;
    CREATE TABLE dead(
        id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL, level INTEGER NOT NULL,
        stored INTEGER NOT NULL, rejected INTEGER NOT NULL, bytes INTEGER NOT NULL, why TEXT NOT NULL,
        alert BLOB NOT NULL) STRICT;
    CREATE TABLE positions(
        id INTEGER PRIMARY KEY, source TEXT NOT NULL, stream TEXT NOT NULL, moved INTEGER NOT NULL,
        progress TEXT NOT NULL, UNIQUE (source, stream)) STRICT;
    CREATE INDEX positions_moved ON positions(moved);
    CREATE TABLE kept(
        id INTEGER PRIMARY KEY, room INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
        UNIQUE (room, key)) STRICT;";

/// The names beside the spool's own.
#[derive(Debug, Clone)]
pub struct Files {
    pub folder: PathBuf,
    pub spool: PathBuf,
    /// The last damaged file, kept for whoever wants to know why.
    pub damaged: PathBuf,
    /// What is being saved of a damaged file.
    pub part: PathBuf,
    /// All that was saved, complete, until it takes the damaged file's place.
    salvage: PathBuf,
    lock: PathBuf,
}

/// What a new file begins with.
#[derive(Debug, Clone, Copy)]
pub struct Beginning {
    pub epoch: Epoch,
    pub start: u64,
    pub last_commit: Option<Timestamp>,
    pub reserve_bytes: u64,
}

impl Files {
    /// Makes the folder if there is none, and names the files.
    ///
    /// # Errors
    /// The folder can't be made.
    pub fn at(path: &Path) -> Result<Self, SpoolError> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder);
        made.map_err(|source| SpoolError::Folder {
            folder: folder.clone(),
            source,
        })?;
        Ok(Self {
            folder,
            spool: path.to_owned(),
            damaged: beside(path, ".damaged"),
            part: beside(path, ".salvage.part"),
            salvage: beside(path, ".salvage"),
            lock: beside(path, ".lock"),
        })
    }

    /// Takes the folder for this process, as long as the returned file lives.
    ///
    /// # Errors
    /// Another process has it, or the folder can't be written.
    pub fn lock(&self) -> Result<File, SpoolError> {
        let folder_fault = |source| SpoolError::Folder {
            folder: self.folder.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&self.lock).map_err(folder_fault)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(SpoolError::InUse {
                folder: self.folder.clone(),
            }),
            Err(TryLockError::Error(source)) => Err(folder_fault(source)),
        }
    }

    /// Puts the salvaged file, complete and closed, in the place of the damaged one. It may be killed between any two
    /// steps: [`Files::finish_swap`] does the rest at the next start.
    ///
    /// # Errors
    /// A file can't be renamed.
    pub fn swap(&self) -> Result<(), SpoolError> {
        self.remove(&beside(&self.part, "-wal"))?;
        self.rename(&self.part, &self.salvage)?;
        self.sync_folder()?;
        self.rename(&self.spool, &self.damaged)?;
        self.finish_swap()
    }

    /// Ends a swap that was begun, or takes back one that did not begin.
    ///
    /// # Errors
    /// A file can't be renamed or removed.
    pub fn finish_swap(&self) -> Result<(), SpoolError> {
        self.remove_part()?;
        if self.spool.exists() || !self.salvage.exists() {
            return self.remove(&self.salvage);
        }
        // The old WAL must be gone before the name has a file again: SQLite would play it into the new one.
        let (wal, damaged_wal) = (beside(&self.spool, "-wal"), beside(&self.damaged, "-wal"));
        self.remove(&damaged_wal)?;
        self.rename(&wal, &damaged_wal)?;
        self.sync_folder()?;
        self.rename(&self.salvage, &self.spool)?;
        self.sync_folder()
    }

    /// Removes what a salvage that was killed left behind.
    ///
    /// # Errors
    /// A file can't be removed.
    pub fn remove_part(&self) -> Result<(), SpoolError> {
        self.remove(&self.part)?;
        self.remove(&beside(&self.part, "-wal"))
    }

    /// Makes the names durable.
    ///
    /// # Errors
    /// The folder can't be synced.
    pub fn sync_folder(&self) -> Result<(), SpoolError> {
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| self.fault(&self.folder, source))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<(), SpoolError> {
        self.unless_missing(from, std::fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> Result<(), SpoolError> {
        self.unless_missing(path, std::fs::remove_file(path))
    }

    fn unless_missing(&self, path: &Path, done: io::Result<()>) -> Result<(), SpoolError> {
        match done {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.fault(path, source))
            }
            _ => Ok(()),
        }
    }

    fn fault(&self, path: &Path, source: io::Error) -> SpoolError {
        SpoolError::File {
            path: path.to_owned(),
            source,
        }
    }
}

/// Opens a file that is there, or an empty one, for its only connection.
///
/// # Errors
/// SQLite can't use the file.
pub fn connect(path: &Path) -> Result<Connection, SpoolError> {
    let connection = open(path)?;
    // FULL: the WAL is synced before a commit returns. The page size is SQLite's own default, stated because the
    // numbers above rest on it.
    let setup = format!(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = {WAL_KEPT_BYTES};"
    );
    connection.execute_batch(&setup)?;
    Ok(connection)
}

/// Opens a file as it is and changes nothing of it; what is damaged shows when it is read.
///
/// # Errors
/// There is no such file, or SQLite can't use it.
pub fn open(path: &Path) -> Result<Connection, SpoolError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // The WAL outlives the process: its blocks are there when the disk is full at the next start.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // EXCLUSIVE: the WAL's index lies in memory, not in a mapped file whose growth a full disk answers with SIGBUS.
    connection.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;",
    )?;
    Ok(connection)
}

/// Makes an empty file for its owner alone, if there is none.
///
/// # Errors
/// The file can't be made.
pub fn touch(path: &Path) -> Result<(), SpoolError> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path).map_err(|source| SpoolError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(())
}

/// Whether nothing was ever written: no table but the reserve of an agent that was killed while it made the file.
///
/// # Errors
/// The file can't be read.
pub fn is_blank(connection: &Connection) -> Result<bool, SpoolError> {
    let names: Option<String> =
        connection.query_row("SELECT group_concat(name) FROM sqlite_schema", [], |row| {
            row.get(0)
        })?;
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    Ok(match names.as_deref() {
        None => pages <= 1,
        Some(names) => names == "reserve",
    })
}

/// Makes the tables, and with them a reserve of free pages in the file and of blocks in the WAL: a disk that fills
/// up later doesn't stop the first commits.
///
/// # Errors
/// The file can't be written.
pub fn create(connection: &mut Connection, beginning: &Beginning) -> Result<(), SpoolError> {
    if beginning.reserve_bytes > 0 {
        // The zeroes go through the WAL into the file; dropping the table leaves both at their size.
        let transaction = connection.transaction()?;
        transaction.execute_batch(
            "DROP TABLE IF EXISTS reserve; CREATE TABLE reserve(zeroes BLOB) STRICT",
        )?;
        let zeroes = i64::try_from(beginning.reserve_bytes).unwrap_or(i64::MAX);
        transaction.execute("INSERT INTO reserve VALUES (zeroblob(?1))", [zeroes])?;
        transaction.commit()?;
        checkpoint(connection, "RESTART")?;
    }
    let transaction = connection.transaction()?;
    transaction.execute_batch("DROP TABLE IF EXISTS reserve")?;
    transaction.execute_batch(TABLES)?;
    transaction.execute(
        "INSERT INTO meta VALUES (1, ?1, ?2, 1, ?3, ?4, '[]')",
        (
            SCHEMA,
            beginning.epoch.0.cast_signed(),
            beginning.start.cast_signed(),
            beginning.last_commit.map(Timestamp::as_millisecond),
        ),
    )?;
    transaction.commit()?;
    checkpoint(connection, "PASSIVE")
}

/// Copies the whole WAL into the file.
///
/// # Errors
/// The file can't be written, or somebody reads it.
pub fn checkpoint(connection: &Connection, mode: &str) -> Result<(), SpoolError> {
    let pragma = format!("PRAGMA wal_checkpoint({mode})");
    let is_busy: bool = connection.query_row(&pragma, [], |row| row.get(0))?;
    if is_busy {
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        return Err(rusqlite::Error::SqliteFailure(busy, None).into());
    }
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
