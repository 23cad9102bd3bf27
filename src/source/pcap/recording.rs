//! The bytes of a recording: packets out of pcap and pcapng files. Trusts no length in them.

mod blocks;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use thiserror::Error;

use crate::decode::LinkType;
use crate::source::pcap::recording::blocks::Interface;

/// One packet of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Where its header begins in the file.
    pub offset: u64,
    /// Where the next one may begin.
    pub end: u64,
    /// When it was caught, if the file says so.
    pub time: Option<Timestamp>,
    pub link: LinkType,
    pub bytes: Bytes,
    /// The packet was longer than what was kept of it.
    pub cut: bool,
}

#[derive(Debug, Error)]
pub enum PcapError {
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("not a pcap or pcapng file: it begins with {beginning:02x?}")]
    Foreign { beginning: Vec<u8> },
    #[error("cut in the middle of {what}, which begins at byte {at}")]
    Cut { what: &'static str, at: u64 },
    #[error("{what} at byte {at} says {value}, which can't be (at most {most})")]
    Length {
        what: &'static str,
        at: u64,
        value: u64,
        most: u64,
    },
    #[error("malformed {what} at byte {at}")]
    Malformed { what: &'static str, at: u64 },
}

/// Reads the packets of a file. A fault is the last item: what came before it is good.
pub fn read(path: &Path) -> impl Iterator<Item = Result<Packet, PcapError>> + use<> {
    let (opened, failed) = match File::open(path) {
        Ok(file) => (Some(Packets::new(BufReader::new(file), path)), None),
        Err(error) => (
            None,
            Some(PcapError::Read {
                path: path.to_owned(),
                error,
            }),
        ),
    };
    failed
        .map(Err)
        .into_iter()
        .chain(opened.into_iter().flatten())
}

/// tcpdump's default, and the most that Wireshark takes for Ethernet.
const PACKET_BYTES_MAX: usize = 256 * 1024;
const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// The same in both byte orders.
const SECTION: u32 = 0x0a0d_0d0a;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Big,
    Little,
}

impl Order {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Big => u16::from_be_bytes(bytes),
            Self::Little => u16::from_le_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Big => u32::from_be_bytes(bytes),
            Self::Little => u32::from_le_bytes(bytes),
        }
    }

    fn u64(self, bytes: [u8; 8]) -> u64 {
        match self {
            Self::Big => u64::from_be_bytes(bytes),
            Self::Little => u64::from_le_bytes(bytes),
        }
    }
}

enum Layout {
    Unread,
    Classic {
        order: Order,
        units_per_second: u32,
        link: LinkType,
    },
    Blocks {
        order: Order,
        interfaces: Vec<Interface>,
    },
    Ended,
}

/// The packets of one recording.
pub struct Packets<R> {
    reader: R,
    path: PathBuf,
    at: u64,
    layout: Layout,
}

impl<R: Read> Packets<R> {
    /// `path` is for errors only.
    pub fn new(reader: R, path: &Path) -> Self {
        Self {
            reader,
            path: path.to_owned(),
            at: 0,
            layout: Layout::Unread,
        }
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, PcapError> {
        if matches!(self.layout, Layout::Unread) {
            self.begin()?;
        }
        match &mut self.layout {
            Layout::Classic {
                order,
                units_per_second,
                link,
            } => {
                let (order, units, link) = (*order, *units_per_second, *link);
                self.classic(order, units, link)
            }
            Layout::Blocks { .. } => self.blocks(),
            Layout::Unread | Layout::Ended => Ok(None),
        }
    }

    fn begin(&mut self) -> Result<(), PcapError> {
        const WHAT: &str = "the file's header";
        let mut magic = [0; 4];
        let have = self.fill(&mut magic)?;
        let foreign = PcapError::Foreign {
            beginning: magic.iter().copied().take(have).collect(),
        };
        if have < magic.len() {
            return Err(foreign);
        }
        if u32::from_be_bytes(magic) == SECTION {
            self.layout = Layout::Blocks {
                order: Order::Little,
                interfaces: Vec::new(),
            };
            return self.section(0);
        }
        let (order, units_per_second) = [Order::Big, Order::Little]
            .into_iter()
            .find_map(|order| match order.u32(magic) {
                MAGIC_MICROSECONDS => Some((order, 1_000_000)),
                MAGIC_NANOSECONDS => Some((order, 1_000_000_000)),
                _ => None,
            })
            .ok_or(foreign)?;
        let header: [u8; 20] = self.exact(WHAT, 0)?;
        let [.., l0, l1, l2, l3] = header;
        self.layout = Layout::Classic {
            order,
            units_per_second,
            link: LinkType((order.u32([l0, l1, l2, l3]) & 0xffff) as u16), // above: length of the checksum
        };
        Ok(())
    }

    fn classic(
        &mut self,
        order: Order,
        units_per_second: u32,
        link: LinkType,
    ) -> Result<Option<Packet>, PcapError> {
        const WHAT: &str = "a packet";
        let offset = self.at;
        let mut header = [0; 16];
        match self.fill(&mut header)? {
            0 => return Ok(None),
            16 => {}
            _ => {
                return Err(PcapError::Cut {
                    what: WHAT,
                    at: offset,
                });
            }
        }
        let [second, fraction, kept, whole] = words(&header, order);
        let length = kept as usize;
        if length > PACKET_BYTES_MAX {
            return Err(PcapError::Length {
                what: "the length of the packet",
                at: offset,
                value: kept.into(),
                most: PACKET_BYTES_MAX as u64,
            });
        }
        let bytes = self.bytes(length, WHAT, offset)?;
        let units = u64::from(second) * u64::from(units_per_second) + u64::from(fraction);
        Ok(Some(Packet {
            offset,
            end: self.at,
            time: time(units, units_per_second.into(), 0),
            link,
            bytes: bytes.into(),
            cut: kept < whole,
        }))
    }

    /// Fills as much of `buffer` as the file still has.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, PcapError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..)
            && !rest.is_empty()
        {
            match self.reader.read(rest) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(PcapError::Read {
                        path: self.path.clone(),
                        error,
                    });
                }
            }
        }
        self.at += filled as u64;
        Ok(filled)
    }

    fn exact<const N: usize>(
        &mut self,
        what: &'static str,
        offset: u64,
    ) -> Result<[u8; N], PcapError> {
        let mut buffer = [0; N];
        if self.fill(&mut buffer)? < N {
            return Err(PcapError::Cut { what, at: offset });
        }
        Ok(buffer)
    }

    /// Memory grows with what the file has, not with what it says.
    fn bytes(
        &mut self,
        length: usize,
        what: &'static str,
        offset: u64,
    ) -> Result<Vec<u8>, PcapError> {
        let mut bytes = Vec::with_capacity(length.min(PACKET_BYTES_MAX));
        let read = (&mut self.reader)
            .take(length as u64)
            .read_to_end(&mut bytes)
            .map_err(|error| PcapError::Read {
                path: self.path.clone(),
                error,
            })?;
        self.at += read as u64;
        if read < length {
            return Err(PcapError::Cut { what, at: offset });
        }
        Ok(bytes)
    }
}

impl<R: Read> Iterator for Packets<R> {
    type Item = Result<Packet, PcapError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_packet().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.layout = Layout::Ended;
        }
        next
    }
}

fn words<const N: usize, const B: usize>(bytes: &[u8; B], order: Order) -> [u32; N] {
    let (words, _) = bytes.as_chunks::<4>();
    std::array::from_fn(|at| words.get(at).map_or(0, |&word| order.u32(word)))
}

fn time(units: u64, units_per_second: u64, offset: i64) -> Option<Timestamp> {
    let nanoseconds = i128::from(units) * 1_000_000_000 / i128::from(units_per_second);
    Timestamp::from_nanosecond(nanoseconds + i128::from(offset) * 1_000_000_000).ok()
}

#[cfg(test)]
mod tests;
