//! Numbers to names: record types, architectures, system calls.

use std::collections::HashMap;
use std::sync::LazyLock;

const TYPES: &str = include_str!("types.txt");
const SYSCALLS: &str = include_str!("syscalls.txt");

/// Names by number; an empty name where there is none.
type Names = Vec<&'static str>;

static TYPE_NAMES: LazyLock<HashMap<u32, &'static str>> =
    LazyLock::new(|| numbered(TYPES).collect());
static SYSCALL_NAMES: LazyLock<HashMap<u32, (&'static str, Names)>> = LazyLock::new(syscalls);

/// Returns a record type's name; the kernel's own number where it has none that we know.
pub fn type_name(number: u32) -> Option<&'static str> {
    TYPE_NAMES.get(&number).copied()
}

/// The process connector's records are no type of the kernel's; each is an event alone.
const ALONE: u32 = 0;

/// Returns a record type's number.
pub fn type_number(name: &[u8]) -> Option<u32> {
    if name == super::PROC_EXEC.as_bytes() {
        return Some(ALONE);
    }
    if let Some(digits) = name
        .strip_prefix(b"UNKNOWN[")
        .and_then(|rest| rest.strip_suffix(b"]"))
    {
        return number(digits, 10);
    }
    static NUMBERS: LazyLock<HashMap<&'static [u8], u32>> = LazyLock::new(|| {
        TYPE_NAMES
            .iter()
            .map(|(&number, &name)| (name.as_bytes(), number))
            .collect()
    });
    NUMBERS.get(name).copied().or_else(|| number(name, 10))
}

/// Returns the name of an architecture as `arch=` gives it: ELF machine and width, hexadecimal.
pub fn arch_name(arch: u32) -> Option<&'static str> {
    SYSCALL_NAMES.get(&arch).map(|(name, _)| *name)
}

/// Returns the name of a system call of an architecture. x86_64 marks those of x32 by bit 30.
pub fn syscall_name(arch: u32, call: u32) -> Option<&'static str> {
    let (_, names) = SYSCALL_NAMES.get(&arch)?;
    let at = usize::try_from(call & !0x4000_0000).ok()?;
    names.get(at).copied().filter(|name| !name.is_empty())
}

/// Reads a number of the given base, without a prefix.
pub fn number(digits: &[u8], base: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, base).ok()
}

fn numbered(text: &'static str) -> impl Iterator<Item = (u32, &'static str)> {
    let mut next = 0;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_ascii_whitespace)
        .filter_map(move |word| {
            if let Some(at) = word.strip_prefix('@') {
                next = at.parse().ok()?;
                return None;
            }
            next += 1;
            Some((next - 1, word))
        })
}

fn syscalls() -> HashMap<u32, (&'static str, Names)> {
    let mut tables = HashMap::new();
    for section in SYSCALLS.split('[').skip(1) {
        let Some((head, body)) = section.split_once(']') else {
            continue;
        };
        let Some((code, name)) = head.split_once(' ') else {
            continue;
        };
        let mut names = Names::new();
        for (at, call) in numbered(body) {
            let at = at as usize;
            if names.len() <= at {
                names.resize(at + 1, "");
            }
            if let Some(slot) = names.get_mut(at) {
                *slot = call;
            }
        }
        if let Some(code) = number(code.as_bytes(), 16) {
            tables.insert(code, (name, names));
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_kernel_s_names() {
        assert_eq!(type_name(1300), Some("SYSCALL"));
        assert_eq!(type_name(1299), None);
        for (name, number) in [
            (&b"PROCTITLE"[..], Some(1327)),
            (b"UNKNOWN[1420]", Some(1420)),
            (b"1309", Some(1309)),
            (b"nonsense", None),
        ] {
            assert_eq!(type_number(name), number);
        }
        for (arch, call, name) in [
            (0xc000_003e, 59, Some("execve")),
            (0xc000_003e, 322, Some("execveat")),
            (0x4000_0003, 11, Some("execve")),
            (0x4000_0003, 102, Some("socketcall")),
            (0xc000_00b7, 221, Some("execve")),
            (0xc000_00b7, 56, Some("openat")),
            (0x4000_0028, 11, Some("execve")),
            (0xc000_0015, 11, Some("execve")),
            (0x8000_0016, 11, Some("execve")),
            (0xc000_00f3, 221, Some("execve")),
            (0xc000_003e, 0x4000_0000 + 39, Some("getpid")),
            (0xc000_003e, 9999, None),
            (1, 59, None),
        ] {
            assert_eq!(syscall_name(arch, call), name, "{arch:x} {call}");
        }
        assert_eq!(arch_name(0xc000_00b7), Some("aarch64"));
    }
}
