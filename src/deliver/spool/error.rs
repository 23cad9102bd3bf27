//! What can go wrong with the spool, told apart by who can do something about it.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum SpoolError {
    #[error("cannot use the folder {folder}")]
    Folder { folder: PathBuf, source: io::Error },
    #[error("another canhgac uses the folder {folder}")]
    InUse { folder: PathBuf },
    #[error("the spool is a newer canhgac's: schema {found}, this one knows {known}")]
    Newer { found: i64, known: i64 },
    #[error("cannot write {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("no space for the spool")]
    Full(#[source] rusqlite::Error),
    #[error("cannot read or write the spool now")]
    Disk(#[source] rusqlite::Error),
    #[error("the spool is damaged")]
    Damaged(#[source] rusqlite::Error),
    #[error("the system gives no random bytes")]
    Random,
}

impl SpoolError {
    /// Whether the same call may succeed later: disk full, I/O error. The spool is as it was before the call.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Disk(_) | Self::File { .. })
    }

    /// Whether the file is damaged, twice in one call: the first time the spool heals itself.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_))
    }
}

impl From<rusqlite::Error> for SpoolError {
    fn from(error: rusqlite::Error) -> Self {
        use ErrorCode as Code;
        match error.sqlite_error_code() {
            Some(Code::DiskFull) => Self::Full(error),
            Some(
                Code::SystemIoFailure
                | Code::CannotOpen
                | Code::PermissionDenied
                | Code::ReadOnly
                | Code::OutOfMemory
                | Code::DatabaseBusy
                | Code::DatabaseLocked
                | Code::FileLockingProtocolFailed,
            ) => Self::Disk(error),
            // CORRUPT and NOTADB. And what a sound file can't answer to statements that are constants: a table or
            // row that isn't there, a number that exists twice, a value that no agent writes.
            _ => Self::Damaged(error),
        }
    }
}
