//! DNS over TCP (RFC 1035 4.2.2): messages, each behind its length.

use crate::decode::DecodeError;
use crate::decode::net::dialogue::{Guess, Opening, Out, Protocol, Side, Step};
use crate::decode::net::dns::{Kind, Message};
use crate::decode::reader::Reader;

/// One connection.
#[derive(Debug, Default)]
pub struct DnsStream;

impl DnsStream {
    /// A length, and a question as resolvers ask it: one name, nothing answered.
    pub fn guess(opening: &Opening<'_>) -> Guess {
        let mut reader = Reader::new(opening.bytes);
        let head = (reader.be16(), reader.be16(), reader.be16());
        let (Some(length), Some(_), Some(flags)) = head else {
            return match opening.bytes.first() {
                // A question of more than 511 bytes is none.
                Some(0 | 1) | None => Guess::Perhaps,
                Some(_) if opening.side == Side::Server => Guess::Perhaps,
                Some(_) => Guess::No,
            };
        };
        let is_answer = flags >> 15 == 1;
        let opcode = flags >> 11 & 0x0f;
        if is_answer != (opening.side == Side::Server) || opcode != 0 || length < 17 {
            return Guess::No;
        }
        let counts = (reader.be16(), reader.be16());
        match counts {
            (None, _) | (_, None) => Guess::Perhaps,
            (Some(1), Some(answers)) if is_answer || answers == 0 && flags & 0x0040 == 0 => {
                let bytes = opening.bytes.get(2..).unwrap_or_default();
                match Message::read(bytes) {
                    Ok(Some(_)) => Guess::Yes,
                    Ok(None) => Guess::No,
                    Err(DecodeError::Truncated { .. }) if bytes.len() < length.into() => {
                        Guess::Perhaps
                    }
                    Err(_) => Guess::No,
                }
            }
            _ => Guess::No,
        }
    }
}

impl Protocol for DnsStream {
    fn service(&self) -> &'static str {
        "dns"
    }

    fn read(&mut self, _: Side, bytes: &[u8], out: &mut Out<'_, '_>) -> Result<Step, DecodeError> {
        let mut reader = Reader::new(bytes);
        loop {
            let at = reader.at();
            let Some(message) = reader.be16().and_then(|length| reader.take(length.into())) else {
                return Ok(Step::Used(at));
            };
            let Some(message) = Message::read(message)? else {
                continue;
            };
            let categories: &[&'static str] = match message.kind {
                Kind::Query => &["dns", "dns_query"],
                Kind::Response(_) => &["dns"],
            };
            let fault = message.fault;
            let mut event = out.event(categories, &["dns"]);
            message.set(&mut event);
            out.emit(&event);
            if let Some(fault) = fault {
                return Err(fault);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::decode::net::conversation::tests::played;
    use crate::decode::net::craft;
    use crate::decode::net::dialogue::Side::{Client, Server};

    fn framed(message: &[u8]) -> Vec<u8> {
        [&(message.len() as u16).to_be_bytes()[..], message].concat()
    }

    #[test]
    fn messages_are_read_however_they_are_cut() {
        let query = framed(&craft::query(5, "Big.example", craft::TXT)).repeat(2);
        let answer = framed(&craft::response(
            5,
            "big.example",
            craft::A,
            0,
            &[(1, vec![192, 0, 2, 1])],
        ));
        for piece in [1, 7, 1000] {
            let told = played(
                &[(Client, &query), (Server, &answer)],
                piece,
                &["query", "rcode", "answer"],
            );
            let expected = [
                "dns+dns_query/dns query=big.example",
                "dns+dns_query/dns query=big.example",
                "dns/dns query=big.example rcode=NOERROR answer=192.0.2.1",
            ];
            assert_eq!(told, expected, "pieces of {piece}");
        }
    }

    #[test]
    fn other_bytes_with_a_length_are_not_taken() {
        for bytes in [
            &b"\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..],
            b"\0\x05\x12\x34\x01\0\0\x01\0\0\0\0\0\0",
            b"\0\x20\x12\x34\x29\0\0\x01\0\0\0\0\0\0\0\0\x01\0\x01",
        ] {
            assert!(
                played(&[(Client, bytes)], 1000, &[]).is_empty(),
                "{bytes:?}"
            );
        }
    }
}
