//! Records to events.

pub mod net;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::event::Event;
use crate::event::field::Fields;
use crate::record::{Range, Record};

/// The link layer of packets, by the numbers of the pcap registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    #[default]
    Auto,
    Json,
    Syslog,
    Access,
    Packet(LinkType),
}

pub struct Surroundings {
    pub zone: TimeZone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("truncated {what}: need {need} bytes, have {have}")]
    Truncated {
        what: &'static str,
        need: usize,
        have: usize,
    },
    #[error("malformed {what} at byte {at}")]
    Malformed { what: &'static str, at: usize },
    #[error("not {what}")]
    Foreign { what: &'static str },
}

pub trait Decoder: Send {
    fn decode(
        &mut self,
        record: &Record,
        fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError>;
    fn flush(&mut self, _now: Timestamp, _fields: &Fields, _emit: &mut dyn FnMut(&Event<'_>)) {}
    fn held(&self) -> &[Range] {
        &[]
    }
}
