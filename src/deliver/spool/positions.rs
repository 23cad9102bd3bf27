//! The hourly copy of the positions: a second place for what is small and dear. Read only when the spool's own table
//! can't be.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::record::Progress;

/// How often the copy is made: what came after it is read again, and its ids make no doubles.
pub const EVERY: SignedDuration = SignedDuration::from_hours(1);

const NAME: &str = "positions.json";
const PREVIOUS: &str = "positions.json.previous";
const NEW: &str = "positions.json.new";
/// 10,000 streams with the 1,000 ranges that each may hold would be more; they are not read then, and the agent says
/// so.
const BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    pub time: Timestamp,
    pub streams: Vec<Progress>,
}

/// Puts the copy in the place of the last one, which is kept as the previous one.
///
/// # Errors
/// The folder can't be written; the last copy stands.
pub fn write(folder: &Path, copy: &Copy) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let mut file = options.open(folder.join(NEW))?;
    serde_json::to_writer(io::BufWriter::new(&mut file), copy)?;
    file.flush()?;
    file.sync_all()?;
    match std::fs::rename(folder.join(NAME), folder.join(PREVIOUS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::rename(folder.join(NEW), folder.join(NAME))?;
    File::open(folder)?.sync_all()
}

/// Returns the newest copy that can be read.
pub fn read(folder: &Path) -> Option<Copy> {
    [NAME, PREVIOUS]
        .into_iter()
        .find_map(|name| read_file(&folder.join(name)))
}

/// Returns when the newest copy was made.
pub fn time(folder: &Path) -> Option<Timestamp> {
    read(folder).map(|copy| copy.time)
}

fn read_file(path: &Path) -> Option<Copy> {
    let size = std::fs::metadata(path).ok()?.len();
    if size > BYTES_MAX {
        tracing::warn!(path = %path.display(), size, limit = BYTES_MAX, "the copy of the positions is too large");
        return None;
    }
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Mark, SourceId};

    fn copy(second: i64) -> Copy {
        Copy {
            time: Timestamp::from_second(second).unwrap(),
            streams: vec![Progress {
                source: SourceId::new("journal"),
                mark: Mark::Cursor("c".into()),
                held: Vec::new(),
            }],
        }
    }

    #[test]
    fn the_newest_readable_copy_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), None);
        write(folder.path(), &copy(1)).unwrap();
        write(folder.path(), &copy(2)).unwrap();
        assert_eq!(read(folder.path()), Some(copy(2)));
        std::fs::write(folder.path().join(NAME), b"{").unwrap();
        assert_eq!(read(folder.path()), Some(copy(1)));
        std::fs::remove_file(folder.path().join(NAME)).unwrap();
        assert_eq!(read(folder.path()), Some(copy(1)));
    }
}
