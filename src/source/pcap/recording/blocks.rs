//! The blocks of pcapng (draft-ietf-opsawg-pcapng): sections, interfaces, packets; other blocks are stepped over.

use std::io::Read;

use bytes::Bytes;

use crate::decode::LinkType;
use crate::source::pcap::recording::{Layout, Order, PACKET_BYTES_MAX, Packet, Packets, PcapError};
use crate::source::pcap::recording::{SECTION, time, words};

/// An interface of a pcapng section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    link: LinkType,
    snap: u32,
    units_per_second: u64,
    /// Seconds to be added.
    offset: i64,
}

/// A block may carry options beside its packet; Wireshark stops at 16 MiB too.
const BLOCK_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// A recording of `-i any` has one for all; more than this is made to fill memory.
const INTERFACES_MAX: usize = 1024;

const SECTION_ORDER: u32 = 0x1a2b_3c4d;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
const OPTION_END: u16 = 0;
const OPTION_RESOLUTION: u16 = 9;
const OPTION_TIME_OFFSET: u16 = 14;

impl<R: Read> Packets<R> {
    /// Reads blocks up to the next packet.
    pub fn blocks(&mut self) -> Result<Option<Packet>, PcapError> {
        loop {
            let offset = self.at;
            let mut kind = [0; 4];
            match self.fill(&mut kind)? {
                0 => return Ok(None),
                4 => {}
                _ => return Err(cut_block(offset)),
            }
            if u32::from_be_bytes(kind) == SECTION {
                self.section(offset)?;
                continue;
            }
            let Layout::Blocks { order, .. } = self.layout else {
                return Ok(None);
            };
            let length = order.u32(self.exact("a block", offset)?);
            let body = self.block_body(length, offset)?;
            match order.u32(kind) {
                INTERFACE => self.interface(&body, order, offset)?,
                ENHANCED_PACKET => return self.enhanced(&body, order, offset).map(Some),
                SIMPLE_PACKET => return self.simple(&body, order, offset).map(Some),
                _ => {}
            }
        }
    }

    /// Reads the rest of a block whose kind and length were read; returns what stands between its two lengths.
    fn block_body(&mut self, length: u32, offset: u64) -> Result<Vec<u8>, PcapError> {
        if !(12..=BLOCK_BYTES_MAX).contains(&length) || !length.is_multiple_of(4) {
            return Err(PcapError::Length {
                what: "the length of the block",
                at: offset,
                value: length.into(),
                most: BLOCK_BYTES_MAX.into(),
            });
        }
        let mut body = self.bytes(length as usize - 8, "a block", offset)?;
        body.truncate(length as usize - 12);
        Ok(body)
    }

    /// A section has its own byte order and its own interfaces.
    pub fn section(&mut self, offset: u64) -> Result<(), PcapError> {
        const WHAT: &str = "section header";
        let length: [u8; 4] = self.exact(WHAT, offset)?;
        let magic: [u8; 4] = self.exact(WHAT, offset)?;
        let order = [Order::Big, Order::Little]
            .into_iter()
            .find(|order| order.u32(magic) == SECTION_ORDER)
            .ok_or(PcapError::Malformed {
                what: WHAT,
                at: offset,
            })?;
        let length = order.u32(length);
        if length < 28 {
            return Err(PcapError::Malformed {
                what: WHAT,
                at: offset,
            });
        }
        self.block_body(length - 4, offset)?; // of which the order's 4 bytes were read
        self.layout = Layout::Blocks {
            order,
            interfaces: Vec::new(),
        };
        Ok(())
    }

    fn interface(&mut self, body: &[u8], order: Order, offset: u64) -> Result<(), PcapError> {
        let malformed = || PcapError::Malformed {
            what: "interface description",
            at: offset,
        };
        let Layout::Blocks { interfaces, .. } = &mut self.layout else {
            return Ok(());
        };
        let ([l0, l1, _, _, s0, s1, s2, s3], mut options) =
            body.split_first_chunk::<8>().ok_or_else(malformed)?;
        let mut interface = Interface {
            link: LinkType(order.u16([*l0, *l1])),
            snap: order.u32([*s0, *s1, *s2, *s3]),
            units_per_second: 1_000_000,
            offset: 0,
        };
        while let Some(([c0, c1, n0, n1], rest)) = options.split_first_chunk::<4>() {
            let length = usize::from(order.u16([*n0, *n1]));
            let value = rest.get(..length).ok_or_else(malformed)?;
            match order.u16([*c0, *c1]) {
                OPTION_END => break,
                OPTION_RESOLUTION => {
                    let [exponent] = *value.first_chunk().ok_or_else(malformed)?;
                    interface.units_per_second = resolution(exponent).ok_or_else(malformed)?;
                }
                OPTION_TIME_OFFSET => {
                    let seconds = *value.first_chunk().ok_or_else(malformed)?;
                    interface.offset = order.u64(seconds).cast_signed();
                }
                _ => {}
            }
            options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        if interfaces.len() == INTERFACES_MAX {
            return Err(PcapError::Length {
                what: "the number of interfaces",
                at: offset,
                value: INTERFACES_MAX as u64 + 1,
                most: INTERFACES_MAX as u64,
            });
        }
        interfaces.push(interface);
        Ok(())
    }

    fn enhanced(&self, body: &[u8], order: Order, offset: u64) -> Result<Packet, PcapError> {
        let malformed = PcapError::Malformed {
            what: "packet block",
            at: offset,
        };
        let Some((header, _)) = body.split_first_chunk::<20>() else {
            return Err(malformed);
        };
        let [index, high, low, kept, whole] = words(header, order);
        let Some(interface) = self.interface_at(index) else {
            return Err(malformed);
        };
        let end = (kept as usize).checked_add(20);
        if end.is_none_or(|end| end > body.len()) {
            return Err(malformed);
        }
        let kept_here = (kept as usize).min(PACKET_BYTES_MAX);
        let units = u64::from(high) << 32 | u64::from(low);
        Ok(Packet {
            offset,
            end: self.at,
            time: time(units, interface.units_per_second, interface.offset),
            link: interface.link,
            bytes: copied(body, 20, kept_here),
            cut: kept_here < whole as usize,
        })
    }

    /// It has no time, and belongs to the first interface, whose snap length tells how much was kept.
    fn simple(&self, body: &[u8], order: Order, offset: u64) -> Result<Packet, PcapError> {
        let malformed = PcapError::Malformed {
            what: "simple packet block",
            at: offset,
        };
        let (Some((whole, rest)), Some(interface)) =
            (body.split_first_chunk::<4>(), self.interface_at(0))
        else {
            return Err(malformed);
        };
        let whole = order.u32(*whole) as usize;
        let snap = match interface.snap {
            0 => PACKET_BYTES_MAX,
            snap => (snap as usize).min(PACKET_BYTES_MAX),
        };
        let kept = whole.min(snap).min(rest.len());
        Ok(Packet {
            offset,
            end: self.at,
            time: None,
            link: interface.link,
            bytes: copied(body, 4, kept),
            cut: kept < whole,
        })
    }

    fn interface_at(&self, index: u32) -> Option<Interface> {
        match &self.layout {
            Layout::Blocks { interfaces, .. } => interfaces.get(index as usize).copied(),
            _ => None,
        }
    }
}

/// A copy: a block of 16 MiB may hold a packet of 60 bytes, and would live as long as it.
fn copied(body: &[u8], at: usize, count: usize) -> Bytes {
    let packet = body.get(at..).and_then(|rest| rest.get(..count));
    Bytes::copy_from_slice(packet.unwrap_or_default())
}

fn cut_block(at: u64) -> PcapError {
    PcapError::Cut {
        what: "a block",
        at,
    }
}

/// pcapng 4.2: a power of ten, or of two with the highest bit set.
fn resolution(exponent: u8) -> Option<u64> {
    match exponent & 0x80 {
        0 => 10_u64.checked_pow(exponent.into()),
        _ => 2_u64.checked_pow((exponent & 0x7f).into()),
    }
}
