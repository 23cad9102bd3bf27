//! The two keys that an agent makes at its first start and never sends: one for alert ids, one for masking.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

/// A key file's length.
const KEY_BYTES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read the key {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("the key {path} has {size} bytes instead of {KEY_BYTES}; if no copy of it exists, remove it: a new one is made, and alerts already sent may be sent once more", path = path.display())]
    Length { path: PathBuf, size: usize },
    #[error("cannot make the key {path}", path = path.display())]
    Make {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// Returns the key in `path`; makes one, readable by its owner only, if there is none.
///
/// # Errors
/// When the file can't be read or made, or is no key.
pub fn load_or_make(path: &Path) -> Result<[u8; KEY_BYTES], SecretError> {
    match fs::read(path) {
        Ok(bytes) => {
            let size = bytes.len();
            bytes.try_into().map_err(|_| SecretError::Length {
                path: path.to_owned(),
                size,
            })
        }
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|cause| SecretError::Make {
                path: path.to_owned(),
                cause,
            })
        }
        Err(cause) => Err(SecretError::Read {
            path: path.to_owned(),
            cause,
        }),
    }
}

/// Written beside and renamed: a kill leaves no half key.
fn make(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut key)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_made_once_and_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let key = load_or_make(&path).unwrap();
        assert_ne!(key, [0; 32]);
        assert_eq!(load_or_make(&path).unwrap(), key);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn half_a_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, b"short").unwrap();
        let refused = load_or_make(&path);
        assert!(matches!(refused, Err(SecretError::Length { size: 5, .. })));
    }
}
