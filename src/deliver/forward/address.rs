//! Where to go and by which way, as people write it: `https://host:port`, `http://user:pass@proxy:port`, exceptions.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use thiserror::Error;

#[derive(Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("`{0}` is no address of a centre: expected `https://host:port`")]
    NotAddress(String),
    /// Without the text: it may hold a password.
    #[error("not the address of a proxy: expected `http://[user:password@]host:port`")]
    NotProxy,
    #[error("`{0}` is no exception: expected a host, `.domain`, an address, a network or `*`")]
    NotException(String),
}

/// A centre's listener. A port left out is 443; a path is not allowed.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Without the brackets of IPv6.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Returns `host:port`, IPv6 in brackets.
    pub fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = || AddressError::NotAddress(text.chars().take(200).collect());
        let rest = text.strip_prefix("https://").ok_or_else(fault)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = host_and_port(rest, 443).ok_or_else(fault)?;
        let address = Self { host, port };
        match address.server_name() {
            Some(_) => Ok(address),
            None => Err(fault()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// An HTTP proxy that is asked to CONNECT. Shows neither user nor password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// What follows `Proxy-Authorization: Basic `.
    credentials: Option<String>,
}

impl Proxy {
    pub(super) fn credentials(&self) -> Option<&str> {
        self.credentials.as_deref()
    }
}

impl FromStr for Proxy {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let rest = text.strip_prefix("http://")?;
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            // A password may hold an `@` that nobody escaped; a host holds none.
            let (user, rest) = match rest.rsplit_once('@') {
                Some((user, rest)) => (Some(user), rest),
                None => (None, rest),
            };
            let (host, port) = host_and_port(rest, 3128)?;
            let credentials = match user {
                Some(user) => Some(STANDARD.encode(credentials(user)?)),
                None => None,
            };
            Some(Self {
                host,
                port,
                credentials,
            })
        };
        parse().ok_or(AddressError::NotProxy)
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Proxy {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What is reached without the proxy. Names are not looked up: a network matches addresses only.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Exception {
    All,
    Network(IpNet),
    Host(String),
    /// A domain and all below it.
    Domain(String),
}

impl Exception {
    pub fn covers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        match self {
            Self::All => true,
            Self::Network(network) => host
                .parse::<IpAddr>()
                .is_ok_and(|address| network.contains(&address)),
            Self::Host(name) => host == *name,
            Self::Domain(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
        }
    }
}

impl FromStr for Exception {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Ok(Self::All);
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Network(address.into()));
        }
        let domain = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
        let name = domain.unwrap_or(&text);
        if !is_host(name) {
            return Err(AddressError::NotException(text.chars().take(200).collect()));
        }
        Ok(match domain {
            Some(domain) => Self::Domain(domain.to_owned()),
            None => Self::Host(text),
        })
    }
}

impl TryFrom<String> for Exception {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
fn host_and_port(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (host, rest) = text.split_at_checked(end)?;
            if !is_host(host) {
                return None;
            }
            (host, rest)
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|&port| port != 0)?,
        None if rest.is_empty() => default,
        None => return None,
    };
    Some((host.to_ascii_lowercase(), port))
}

/// RFC 1123 2.1, and the underscore of real networks: nothing that could end a line or begin a path.
fn is_host(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
}

/// Reads `user:password`, percent-encoded; the colon must stand.
fn credentials(text: &str) -> Option<Vec<u8>> {
    let (user, password) = text.split_once(':')?;
    let mut whole = unescape(user)?;
    if whole.contains(&b':') {
        return None; // RFC 7617 2: a user's name can't hold one
    }
    whole.push(b':');
    whole.extend(unescape(password)?);
    Some(whole)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
            plain.push(u8::try_from(value).ok()?);
        } else {
            plain.push(byte);
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_centres_address_is_https_host_and_port() {
        for (text, shown) in [
            (
                "https://centre.example:8443",
                Some("https://centre.example:8443"),
            ),
            ("https://centre.example", Some("https://centre.example:443")),
            (
                "https://Centre.Example/",
                Some("https://centre.example:443"),
            ),
            ("https://127.0.0.1:1", Some("https://127.0.0.1:1")),
            ("https://[::1]:8443", Some("https://[::1]:8443")),
            ("http://centre.example:8443", None),
            ("centre.example:8443", None),
            ("https://", None),
            ("https://:8443", None),
            ("https://a:0", None),
            ("https://a:65536", None),
            ("https://a:8443/path", None),
            ("https://user@a:8443", None),
            ("https://a b", None),
            ("https://a\r\nX: y", None),
            ("https://[::1", None),
            ("https://::1", None),
        ] {
            let read = text
                .parse::<Address>()
                .ok()
                .map(|address| address.to_string());
            assert_eq!(read.as_deref(), shown, "{text:?}");
        }
    }

    #[test]
    fn a_proxy_may_have_a_user_and_a_password_and_shows_neither() {
        for (text, host, port, credentials) in [
            ("http://proxy:8080", "proxy", 8080, None),
            ("http://proxy", "proxy", 3128, None),
            ("http://[fe80::1]:3128/", "fe80::1", 3128, None),
            ("http://u:p@proxy:1", "proxy", 1, Some("u:p")),
            ("http://u:p%40s%3a@proxy:1", "proxy", 1, Some("u:p@s:")),
            ("http://u:p@s@proxy:1", "proxy", 1, Some("u:p@s")),
            ("http://u:@proxy:1", "proxy", 1, Some("u:")),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            let expected = credentials.map(|plain| STANDARD.encode(plain));
            assert_eq!((&*proxy.host, proxy.port), (host, port), "{text}");
            assert_eq!(proxy.credentials, expected, "{text}");
            let shown = format!("{proxy} {proxy:?}");
            assert!(!shown.contains('@') && !shown.contains("p%"), "{shown}");
        }
        for bad in [
            "",
            "proxy:8080",
            "https://proxy:1",
            "http://user@proxy:1",
            "http://u:p@",
            "http://u%3a:p@proxy",
            "http://u:%zz@proxy",
            "http://u:%4@proxy",
            "http://p\r\n:1",
        ] {
            let error = bad.parse::<Proxy>().unwrap_err();
            assert_eq!(error, AddressError::NotProxy, "{bad:?}");
        }
    }

    #[test]
    fn exceptions_are_hosts_domains_addresses_and_networks() {
        for (exception, host, covered) in [
            ("*", "anything", true),
            ("centre.example", "centre.example", true),
            ("centre.example", "Centre.Example", true),
            ("centre.example", "a.centre.example", false),
            (".example", "centre.example", true),
            ("*.example", "centre.example", true),
            (".example", "example", true),
            (".example", "badexample", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/8", "10.example", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("::1", "::1", true),
            ("fd00::/8", "fd12::1", true),
        ] {
            let read: Exception = exception.parse().unwrap();
            assert_eq!(read.covers(host), covered, "{exception} {host}");
        }
        for bad in ["", ".", "a b", "http://x", "10.0.0.0/99"] {
            assert!(bad.parse::<Exception>().is_err() || bad == ".", "{bad:?}");
        }
    }
}
