//! What the kernel multicasts over netlink: the audit trail, and the process connector's events. Neither can be read
//! again: what does not fit the socket's buffer is lost, and said to be.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{MsgFlags, NetlinkAddr, bind, recv, send, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use rustix::net::netlink::{AUDIT, CONNECTOR};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// What is listened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// AUDIT_NLGRP_READLOG, include/uapi/linux/audit.h; needs CAP_AUDIT_READ.
    AuditLog,
    /// CN_IDX_PROC, include/uapi/linux/connector.h; needs CAP_NET_ADMIN before Linux 6.6.
    Processes,
}

/// So long a read waits: how soon a stop is obeyed.
const WAIT_MILLIS: i64 = 100;
/// Of nlmsghdr, include/uapi/linux/netlink.h.
const HEAD: usize = 16;

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'b> {
    Message {
        kind: u16,
        body: &'b [u8],
    },
    Nothing,
    /// The buffer was full: some messages are lost, nobody knows how many.
    Lost,
}

/// A socket that listens to one group.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// `buffer`: bytes that the kernel keeps for us; taken past the system's limit where that is allowed.
    ///
    /// # Errors
    /// When the kernel refuses: mostly for want of a capability.
    pub fn open(group: Group, buffer: usize) -> io::Result<Self> {
        let protocol = match group {
            Group::AuditLog => AUDIT,
            Group::Processes => CONNECTOR,
        };
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(protocol),
        )?;
        if setsockopt(&fd, RcvBufForce, &buffer).is_err() {
            setsockopt(&fd, RcvBuf, &buffer)?;
        }
        setsockopt(&fd, ReceiveTimeout, &TimeVal::milliseconds(WAIT_MILLIS))?;
        // Both are group 1: the lowest bit.
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self(fd))
    }

    pub fn send(&self, message: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), message, MsgFlags::empty())?;
        Ok(())
    }

    /// Returns the next message. Its length is that of the datagram: audit's header does not tell it right.
    pub fn hear<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Heard<'b>> {
        match recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(length) => {
                let message = buffer.get(..length).unwrap_or_default();
                let kind = message.get(4..6).and_then(|kind| kind.try_into().ok());
                let body = message.get(HEAD..);
                Ok(match (kind, body) {
                    (Some(kind), Some(body)) => Heard::Message {
                        kind: u16::from_ne_bytes(kind),
                        body,
                    },
                    _ => Heard::Nothing,
                })
            }
            Err(Errno::ENOBUFS) => Ok(Heard::Lost),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Nothing),
            Err(error) => Err(error.into()),
        }
    }
}
