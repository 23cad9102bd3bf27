//! USER_AUTH: somebody logged in, or tried to.

use std::borrow::Cow;

use crate::decode::audit::event::Facts;
use crate::decode::reader;
use crate::event::field;
use crate::event::{Event, Value};

/// An account that logged in or tried to.
pub struct Login<'e> {
    success: bool,
    account: Option<Cow<'e, [u8]>>,
    address: Option<Cow<'e, [u8]>>,
    port: Option<Cow<'e, [u8]>>,
    service: Option<Cow<'e, [u8]>>,
    method: Option<&'static str>,
}

impl<'e> Login<'e> {
    /// USER_AUTH is one per try; USER_LOGIN says the same again, so it is told apart by its type alone.
    pub fn of(facts: &Facts<'e>) -> Option<Self> {
        if facts.kind != b"USER_AUTH" {
            return None;
        }
        let said = facts.get(b"res").or_else(|| facts.get(b"result"))?;
        let op = facts.get(b"op").unwrap_or_default();
        let method = match &*op {
            b"PAM:authentication" | b"password" | b"login" => Some("password"),
            b"pubkey_auth" | b"pubkey" | b"key" => Some("publickey"),
            b"gssapi-with-mic" | b"gssapi" => Some("gssapi-with-mic"),
            b"hostbased" => Some("hostbased"),
            _ => None,
        };
        let port = |port: &Cow<'_, [u8]>| reader::port(port).is_some();
        Some(Self {
            success: matches!(&*said, b"success" | b"1" | b"yes"),
            account: facts.get(b"acct").or_else(|| facts.get(b"id")),
            address: facts.get(b"addr").or_else(|| facts.get(b"hostname")),
            port: facts.get(b"rport").filter(port),
            service: facts.get(b"exe"),
            method,
        })
    }

    /// Sets the fields that every way to log in has.
    pub fn set(self, event: &mut Event<'e>) {
        event.set(
            field::OUTCOME,
            if self.success { "success" } else { "failure" },
        );
        if let Some(account) = self.account {
            event.set(field::TARGET_USER_NAME, account);
        }
        if let Some(text) = self.address {
            match reader::address(&text) {
                Some(address) => event.set(field::SOURCE_IP, Value::Ip(address)),
                None => event.set(field::SOURCE_HOSTNAME, text),
            }
        }
        if let Some(port) = self.port.as_deref().and_then(reader::port) {
            event.set(field::SOURCE_PORT, port);
        }
        if let Some(exe) = self.service {
            let name = reader::rsplit_byte(&exe, b'/').map_or(&*exe, |(_, name)| name);
            event.set(field::SERVICE, name.to_vec());
        }
        if let Some(method) = self.method {
            event.set(field::AUTHENTICATION_METHOD, method);
        }
    }
}
