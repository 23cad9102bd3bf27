//! Taking a port, and saying who has it when it is taken.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};

#[derive(Debug, Error)]
pub enum PortError {
    #[error("port {port} is taken by {holder}")]
    Taken {
        port: u16,
        holder: Holder,
        source: io::Error,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        source: io::Error,
    },
}

/// The process that listens on a port, as far as /proc tells us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Process { pid: u32, name: String },
    Unknown,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process { pid, name } => {
                write!(
                    f,
                    "{} (process {pid})",
                    crate::diagnostic::visible(name.trim())
                )
            }
            Self::Unknown => f.write_str("a process of another user (`ss -ltnp` as root names it)"),
        }
    }
}

/// Connections that wait to be accepted: a restarted centre meets all its agents at once.
const BACKLOG: u32 = 4096;

/// Listens on an address; port 0 picks a free one.
///
/// # Errors
/// When the port is taken, then with its holder; or the address isn't ours.
pub fn bind(address: SocketAddr) -> Result<TcpListener, PortError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // Else a restart waits a minute for connections of the last run to end.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            let port = address.port();
            PortError::Taken {
                port,
                holder: holder(port),
                source,
            }
        } else {
            PortError::Listen { address, source }
        }
    })
}

/// /proc/net/tcp: the state of a socket that listens.
const LISTEN: &str = "0A";

fn holder(port: u16) -> Holder {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table
                .lines()
                .filter_map(|line| listening_inode(line, port))
                .collect::<Vec<_>>()
        })
        .find_map(process_of)
        .unwrap_or(Holder::Unknown)
}

/// proc(5): `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode`, the port in hex after a colon.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    let mut columns = line.split_ascii_whitespace();
    let (_, at) = columns.nth(1)?.rsplit_once(':')?;
    if u16::from_str_radix(at, 16).ok()? != port || columns.nth(1)? != LISTEN {
        return None;
    }
    columns.nth(5)?.parse().ok()
}

fn process_of(inode: u64) -> Option<Holder> {
    let socket = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&socket)))
            .then(|| Holder::Process {
                pid,
                name: fs::read_to_string(entry.path().join("comm")).unwrap_or_default(),
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_process_that_has_it() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        let PortError::Taken { port, holder, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(port, address.port());
        assert!(
            matches!(holder, Holder::Process { pid, .. } if pid == std::process::id()),
            "{holder}"
        );
    }

    #[test]
    fn only_the_line_of_a_listening_socket_counts() {
        let line = "   0: 0100007F:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4242 1 0 100 0 0 10 0";
        for (line, port, inode) in [
            (line, 0x20fb, Some(4242)),
            (line, 0x20fc, None),
            (&line.replace(" 0A ", " 01 "), 0x20fb, None),
            ("  sl  local_address rem_address   st", 1, None),
            ("", 1, None),
        ] {
            assert_eq!(listening_inode(line, port), inode, "{line}");
        }
    }
}
