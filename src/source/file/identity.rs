//! Knows a file again: by device and inode, by how it begins, and by what stands before the place read up to.
//!
//! All three are needed. An inode is used again as soon as its file is gone, many files share their first line, and a
//! copy has another inode. The hash is kept in the spool: neither it nor what it covers may change between versions.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use ring::digest;

use crate::record::FileId;

/// The first line tells a file from others, in general by its time. Of a longer one these bytes do.
pub const HEAD_BYTES: usize = 256;
/// So much before an offset tells whether the file is still the one that was read.
pub const BEFORE_BYTES: usize = 64;
/// The lowest byte of [`FileId::head`] counts the lives of an inode that began alike; the rest is the hash.
const LIFE: u64 = 0xff;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Inode {
    pub device: u64,
    pub number: u64,
}

impl Inode {
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            number: meta.ino(),
        }
    }
}

impl From<FileId> for Inode {
    fn from(file: FileId) -> Self {
        Self {
            device: file.device,
            number: file.inode,
        }
    }
}

/// Returns the first eight bytes of the SHA-256, the highest first.
pub fn hash(bytes: &[u8]) -> u64 {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .take(8)
        .fold(0, |hash, &byte| hash << 8 | u64::from(byte))
}

/// Returns the hash of the at most [`BEFORE_BYTES`] bytes at the end of `bytes`.
pub fn hash_before(bytes: &[u8]) -> u64 {
    let from = bytes.len().saturating_sub(BEFORE_BYTES);
    hash(bytes.get(from..).unwrap_or_default())
}

/// How a file begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Of the first line with its end, of at most [`HEAD_BYTES`] of it.
    pub hash: u64,
    /// More bytes at the end of the file won't change it.
    pub is_final: bool,
}

impl Head {
    /// `start` begins where the file begins and holds [`HEAD_BYTES`], or the whole file.
    pub fn of(start: &[u8]) -> Self {
        let start = start.get(..HEAD_BYTES).unwrap_or(start);
        let line = memchr::memchr(b'\n', start).map(|end| end + 1);
        let head = start.get(..line.unwrap_or(start.len())).unwrap_or(start);
        Self {
            hash: hash(head) & !LIFE,
            is_final: line.is_some() || start.len() == HEAD_BYTES,
        }
    }

    pub fn is_of(self, file: FileId) -> bool {
        file.head & !LIFE == self.hash
    }

    /// Names the file. One that begins as its inode's `former` life did gets another name all the same, so that equal
    /// lines at equal offsets are two events.
    pub fn name(self, inode: Inode, former: Option<FileId>) -> FileId {
        let lives = former.filter(|former| self.is_of(*former));
        let life = lives.map_or(0, |former| former.head.wrapping_add(1) & LIFE);
        FileId {
            device: inode.device,
            inode: inode.number,
            head: self.hash | life,
        }
    }
}

/// How far a file was read, in terms of its content: a copy has the same places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub head: u64,
    pub offset: u64,
    pub before: u64,
}

impl Place {
    pub fn new(file: FileId, offset: u64, before: u64) -> Self {
        Self {
            head: file.head & !LIFE,
            offset,
            before,
        }
    }

    /// Whether `file` begins as the one this place is of, and has the same bytes before the place.
    pub fn is_in(&self, file: &File) -> io::Result<bool> {
        Ok(head_of(file)?.hash == self.head && before(file, self.offset)? == Some(self.before))
    }
}

pub fn head_of(file: &File) -> io::Result<Head> {
    let mut start = [0; HEAD_BYTES];
    let have = read_at(file, &mut start, 0)?;
    Ok(Head::of(start.get(..have).unwrap_or_default()))
}

/// Returns the hash of the bytes before `offset`, or `None` if the file is shorter.
pub fn before(file: &File, offset: u64) -> io::Result<Option<u64>> {
    let need = usize::try_from(offset).map_or(BEFORE_BYTES, |offset| offset.min(BEFORE_BYTES));
    let mut bytes = [0; BEFORE_BYTES];
    let bytes = bytes.get_mut(..need).unwrap_or_default();
    let have = read_at(file, bytes, offset - need as u64)?;
    Ok((have == need).then(|| hash(bytes)))
}

/// Reads until `into` is full or the file ends.
pub fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut have = 0;
    while let Some(room) = into.get_mut(have..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset.saturating_add(have as u64)) {
            Ok(0) => break,
            Ok(more) => have += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// gzip, zstd, xz, bzip2: what log rotation leaves, read before it was packed.
pub fn is_compressed(start: &[u8]) -> bool {
    let magics: [&[u8]; 4] = [
        b"\x1f\x8b",
        b"\x28\xb5\x2f\xfd",
        b"\xfd\x37\x7a\x58",
        b"BZh",
    ];
    magics.iter().any(|magic| start.starts_with(magic))
}

/// Whether `path` begins as the name that a rotation or a copy of `base` would get, and is longer: `auth.log` →
/// `auth.log.bak`. So no two files are named after each other.
pub fn is_named_after(path: &Path, base: &Path) -> bool {
    let (Some((name, _)), Some((base_name, stem))) = (name_and_stem(path), name_and_stem(base))
    else {
        return false;
    };
    let stem = base_name.get(..stem).unwrap_or_default();
    !stem.is_empty() && name.len() > base_name.len() && name.starts_with(stem)
}

/// Whether `path` has the name of `base` and besides only a number or a date: `auth.log.1`, `auth-20260101.log`.
pub fn is_rotation_of(path: &Path, base: &Path) -> bool {
    let (Some((name, _)), Some((base_name, stem))) = (name_and_stem(path), name_and_stem(base))
    else {
        return false;
    };
    let (stem, ending) = base_name.split_at_checked(stem).unwrap_or_default();
    let after = name.strip_prefix(base_name);
    let within = || name.strip_prefix(stem)?.strip_suffix(ending);
    let added = after.or_else(within).unwrap_or_default();
    let is_counted = |byte: &u8| byte.is_ascii_digit() || b".-_T".contains(byte);
    added.iter().any(u8::is_ascii_digit) && added.iter().all(is_counted)
}

/// The name of a file, and how long it is up to its first dot.
fn name_and_stem(path: &Path) -> Option<(&[u8], usize)> {
    let name = path.file_name()?.as_bytes();
    let hidden = name.iter().take_while(|&&byte| byte == b'.').count();
    let stem = name.iter().skip(hidden).position(|&byte| byte == b'.');
    Some((name, stem.map_or(name.len(), |at| hidden + at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: Inode = Inode {
        device: 1,
        number: 2,
    };

    #[test]
    fn the_hash_never_changes() {
        // The first bytes of SHA-256 of nothing and of "abc" (FIPS 180-4).
        assert_eq!(hash(b""), 0xe3b0_c442_98fc_1c14);
        assert_eq!(hash(b"abc"), 0xba78_16bf_8f01_cfea);
        assert_eq!(hash_before(&[b'x'; 200]), hash(&[b'x'; BEFORE_BYTES]));
    }

    #[test]
    fn a_head_is_the_first_line_and_of_a_long_one_its_beginning() {
        let long = [b'x'; 300];
        for (start, hashed, is_final) in [
            (&b"one\ntwo\n"[..], &b"one\n"[..], true),
            (b"one", b"one", false),
            (b"", b"", false),
            (&long, &long[..HEAD_BYTES], true),
        ] {
            let head = Head::of(start);
            let case = start.escape_ascii();
            assert_eq!(head.hash, hash(hashed) & !LIFE, "{case}");
            assert_eq!(head.is_final, is_final, "{case}");
        }
    }

    #[test]
    fn lives_that_begin_alike_have_names_of_their_own() {
        let head = Head::of(b"one\n");
        let first = head.name(INODE, None);
        let second = head.name(INODE, Some(first));
        assert_ne!(first, second);
        assert_ne!(second, head.name(INODE, Some(second)));
        assert_eq!(
            first,
            head.name(INODE, Some(Head::of(b"two\n").name(INODE, None)))
        );
        assert_eq!(Place::new(first, 4, 5), Place::new(second, 4, 5));
    }

    #[test]
    fn a_place_is_in_a_file_with_the_same_content_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(
            Head::of(b"one\ntwo\n").name(INODE, None),
            8,
            hash(b"one\ntwo\n"),
        );
        for (content, is_in) in [
            ("one\ntwo\n", true),
            ("one\ntwo\nthree\n", true),
            ("one\ntwo", false),
            ("one\nTWO\n", false),
            ("", false),
        ] {
            let path = folder.path().join("a");
            std::fs::write(&path, content).unwrap();
            let file = File::open(&path).unwrap();
            assert_eq!(place.is_in(&file).unwrap(), is_in, "{content:?}");
        }
    }

    #[test]
    fn rotations_are_known_by_their_names() {
        for (name, base, is_after, is_rotation) in [
            ("/l/auth.log.1", "/l/auth.log", true, true),
            ("/l/auth.log-20260101", "/l/auth.log", true, true),
            ("/l/auth-2026-01-01.log", "/l/auth.log", true, true),
            ("/l/auth.log.bak", "/l/auth.log", true, false),
            ("/l/authority.log", "/l/auth.log", true, false),
            ("/l/auth.log.1.gz", "/l/auth.log", true, false),
            ("/l/auth.log", "/l/auth.log", false, false),
            ("/l/auth.log", "/l/auth.log.1", false, false),
            ("/l/syslog.1", "/l/auth.log", false, false),
            ("/l/.hidden.log.1", "/l/.hidden.log", true, true),
            ("/l/messages.2", "/l/messages", true, true),
            ("/", "/l/auth.log", false, false),
        ] {
            let (path, origin) = (Path::new(name), Path::new(base));
            assert_eq!(is_named_after(path, origin), is_after, "{name} {base}");
            assert_eq!(is_rotation_of(path, origin), is_rotation, "{name} {base}");
        }
    }
}
