//! Packets to events. (skeleton)

use crate::decode::{DecodeError, Decoder, LinkType};
use crate::event::Event;
use crate::event::field::Fields;
use crate::record::Record;

struct Nothing;

impl Decoder for Nothing {
    fn decode(
        &mut self,
        _record: &Record,
        _fields: &Fields,
        _emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        Err(DecodeError::Foreign { what: "a packet" })
    }
}

pub fn decoder(_link: LinkType) -> Box<dyn Decoder> {
    Box::new(Nothing)
}
