//! Logins by SASL as mail protocols carry it: base64 in lines. Keeps the user and the method; of the rest nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::decode::net::dialogue::Login;
use crate::decode::reader;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Auth {
    method: Method,
    user: Option<Vec<u8>>,
    /// The server asked for a name, not for a password.
    asks_name: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Method {
    #[default]
    Other,
    Plain,
    Login,
    CramMd5,
    DigestMd5,
    Scram,
    Ntlm,
    Gssapi,
    Bearer,
}

impl Auth {
    /// What follows the command: a mechanism, and perhaps the first answer.
    pub fn begin(rest: &[u8]) -> Self {
        let (mechanism, answer) = reader::split_byte(rest, b' ').unwrap_or((rest, b""));
        let method = match &mechanism.to_ascii_uppercase()[..] {
            b"PLAIN" => Method::Plain,
            b"LOGIN" => Method::Login,
            b"CRAM-MD5" => Method::CramMd5,
            b"DIGEST-MD5" => Method::DigestMd5,
            b"NTLM" => Method::Ntlm,
            b"GSSAPI" => Method::Gssapi,
            b"XOAUTH2" | b"OAUTHBEARER" => Method::Bearer,
            name if name.starts_with(b"SCRAM-") => Method::Scram,
            _ => Method::Other,
        };
        let mut auth = Self {
            method,
            asks_name: true,
            ..Self::default()
        };
        if !answer.trim_ascii().is_empty() {
            auth.line(answer);
        }
        auth
    }

    /// What the server asks for, in base64.
    pub fn asked(&mut self, text: &[u8]) {
        if self.method == Method::Login {
            let plain = STANDARD.decode(text.trim_ascii()).unwrap_or_default();
            self.asks_name = !plain.to_ascii_lowercase().starts_with(b"pass");
        }
    }

    /// What the client answers.
    pub fn line(&mut self, line: &[u8]) {
        let plain = STANDARD.decode(line.trim_ascii()).unwrap_or_default();
        let user = match self.method {
            // RFC 4616: for whom, who, password, with zeros between.
            Method::Plain => plain.split(|&b| b == 0).nth(1).map(<[u8]>::to_vec),
            Method::Login if self.asks_name => {
                self.asks_name = false;
                Some(plain)
            }
            // RFC 2195: the user and a digest.
            Method::CramMd5 => reader::rsplit_byte(&plain, b' ').map(|(user, _)| user.to_vec()),
            Method::DigestMd5 => reader::between(&plain, b"username=\"", b'"').map(<[u8]>::to_vec),
            // RFC 5802 7.
            Method::Scram => reader::between(&plain, b"n=", b',').map(<[u8]>::to_vec),
            // RFC 7628 and what was before it.
            Method::Bearer => plain
                .strip_prefix(b"user=")
                .map(|rest| rest.split(|&b| b == 1).next().unwrap_or_default().to_vec())
                .or_else(|| reader::between(&plain, b"a=", b',').map(<[u8]>::to_vec)),
            _ => None,
        };
        if self.user.is_none() {
            self.user = user.filter(|user| !user.is_empty());
        }
    }

    pub fn login(&self, service: &'static str, success: bool) -> Login<'_> {
        let (method, is_clear) = match self.method {
            Method::Plain => ("plain", true),
            Method::Login => ("login", true),
            Method::CramMd5 => ("cram-md5", false),
            Method::DigestMd5 => ("digest-md5", false),
            Method::Scram => ("scram", false),
            Method::Ntlm => ("ntlm", false),
            Method::Gssapi => ("gssapi", false),
            Method::Bearer => ("bearer", true),
            Method::Other => ("other", false),
        };
        Login {
            service,
            user: self.user.as_deref(),
            method,
            success: Some(success),
            is_clear,
            ..Login::default()
        }
    }
}
