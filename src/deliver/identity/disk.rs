//! Writes files that must survive a power cut whole or not at all, and that only their owner may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::deliver::identity::IdentityError;

/// Keys and certificates of ours have less than 2 KiB; a list of URLs may be longer.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Writes beside, syncs, renames, syncs the folder. Mode 0600 from the first byte on.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let fault = |source| IdentityError::Write {
        path: path.to_owned(),
        source,
    };
    let part = beside(path, "part");
    // A leftover of a power cut; `create_new` below follows no link that someone laid there.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fault(error)),
        _ => {}
    }
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        sync_folder(path)
    };
    write().map_err(fault)
}

/// Renames within a folder, durably.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), IdentityError> {
    fs::rename(from, to)
        .and_then(|()| sync_folder(to))
        .map_err(|source| IdentityError::Write {
            path: to.to_owned(),
            source,
        })
}

/// Renames, if another process of ours has not done so already.
pub(super) fn take_over(from: &Path, to: &Path) -> Result<(), IdentityError> {
    match rename(from, to) {
        Err(IdentityError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        result => result,
    }
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), IdentityError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(IdentityError::Write {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Makes a folder that only its owner may enter, and those above it.
pub(super) fn make_folder(path: &Path) -> Result<(), IdentityError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| IdentityError::Write {
            path: path.to_owned(),
            source,
        })
}

pub(super) fn read(path: &Path) -> Result<String, IdentityError> {
    let read = || {
        let mut text = String::new();
        File::open(path)?
            .take(FILE_BYTES_MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Returns nothing where there is no file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, IdentityError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(IdentityError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Returns `agent.key.new` for `agent.key`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
