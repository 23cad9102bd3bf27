//! One mail: its envelope, and what its own headers say of it.

use crate::decode::reader;
use crate::event::Event;
use crate::event::field::network;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Mail {
    sender: Option<Vec<u8>>,
    /// At most `RECIPIENTS_MAX`.
    recipients: Vec<Vec<u8>>,
    from: Option<Vec<u8>>,
    to: Option<Vec<u8>>,
    subject: Option<Vec<u8>>,
    agent: Option<Vec<u8>>,
    /// Code and text.
    reply: Option<Vec<u8>>,
    pub has_data: bool,
    pub is_encrypted: bool,
}

/// RFC 5321 4.5.3.1.8 asks for 100; a rule that counts needs no more.
const RECIPIENTS_MAX: usize = 100;

impl Mail {
    pub fn is_begun(&self) -> bool {
        self.sender.is_some() || self.has_data
    }

    /// `FROM:<a@b> SIZE=1`.
    pub fn from(&mut self, rest: &[u8]) {
        self.sender = Some(address(rest).to_vec());
    }

    /// `TO:<a@b>`.
    pub fn to(&mut self, rest: &[u8]) {
        if self.recipients.len() < RECIPIENTS_MAX {
            self.recipients.push(address(rest).to_vec());
        }
    }

    pub fn header(&mut self, line: &[u8]) {
        let Some((name, value)) = reader::split_byte(line, b':') else {
            return;
        };
        let slot = match &name.to_ascii_lowercase()[..] {
            b"from" => &mut self.from,
            b"to" => &mut self.to,
            b"subject" => &mut self.subject,
            b"user-agent" | b"x-mailer" => &mut self.agent,
            _ => return,
        };
        slot.get_or_insert_with(|| value.trim_ascii().to_vec());
    }

    pub fn replied(&mut self, code: [u8; 3], text: &[u8]) {
        self.reply = Some([&code[..], b" ", text].concat());
    }

    pub fn set<'r>(&'r self, helo: Option<&'r [u8]>, event: &mut Event<'r>) {
        let values = [
            (network::HELO, helo),
            (network::MAIL_FROM, self.sender.as_deref()),
            (network::MAIL_HEADER_FROM, self.from.as_deref()),
            (network::MAIL_HEADER_TO, self.to.as_deref()),
            (network::SUBJECT, self.subject.as_deref()),
            (network::USER_AGENT, self.agent.as_deref()),
            (network::LAST_REPLY, self.reply.as_deref()),
        ];
        for (id, value) in values {
            if let Some(value) = value {
                event.set(id, value);
            }
        }
        for recipient in &self.recipients {
            event.set(network::RCPT_TO, &recipient[..]);
        }
        event.set(network::NET_TLS, self.is_encrypted);
    }
}

/// Between the angle brackets, else the first word behind the colon.
fn address(rest: &[u8]) -> &[u8] {
    let behind = reader::split_byte(rest, b':').map_or(rest, |(_, behind)| behind);
    reader::between(behind, b"<", b'>').unwrap_or_else(|| {
        let text = behind.trim_ascii();
        text.split(|&b| b == b' ').next().unwrap_or_default()
    })
}
