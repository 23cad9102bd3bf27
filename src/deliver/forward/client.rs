//! A client for the port of people and tools: JSON over HTTPS with a token, the centre known by its own authority.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::sync::Mutex;

use crate::deliver::forward::address::Address;
use crate::deliver::forward::answer::detail;
use crate::deliver::forward::connect::{Dialer, Settle};
use crate::deliver::forward::exchange::{Answer, ExchangeError, Link, Outbound};
use crate::deliver::forward::pace::Timing;
use crate::deliver::identity::{
    CertificateError, IdentityError, JudgedTime, people_client, read_pem,
};

#[derive(Debug, Error)]
pub enum ClientError {
    #[error("the certificate of the centre's authority cannot be used")]
    Authority(#[source] CertificateError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot ask {url}")]
    Exchange { url: Address, source: ExchangeError },
    #[error("{url} answers {status}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    Refused {
        url: Address,
        status: u16,
        detail: String,
    },
    #[error("cannot understand the answer of {url}")]
    Answer {
        url: Address,
        source: serde_json::Error,
    },
    #[error("cannot write the request")]
    Body(#[source] serde_json::Error),
    #[error("the token holds characters that no token has")]
    Bearer,
    #[error("the request cannot be made")]
    Request(#[source] hyper::http::Error),
}

/// A token for the API. Never shown.
#[derive(Clone)]
pub struct Bearer(HeaderValue);

impl Bearer {
    /// # Errors
    /// It can't stand in a header.
    pub fn new(token: &str) -> Result<Self, ClientError> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_| ClientError::Bearer)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(..)")
    }
}

/// Keeps its connection between requests.
pub struct Client {
    url: Address,
    dialer: Dialer,
    tls: Arc<ClientConfig>,
    bearer: Option<Bearer>,
    link: Mutex<Option<Link>>,
}

/// A page of 1,000 alerts of at most 64 KiB each.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// People wait; a query over a year of alerts may take its time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

impl Client {
    /// Prepares; connects with the first request.
    ///
    /// # Errors
    /// `authority` is no certificate.
    pub fn new(
        url: Address,
        authority: &str,
        bearer: Option<Bearer>,
        dialer: Dialer,
    ) -> Result<Self, ClientError> {
        let authority = read_pem(authority).map_err(ClientError::Authority)?;
        let tls = people_client(&authority, Arc::new(JudgedTime::default()))?;
        Ok(Self::with(url, tls, bearer, dialer))
    }

    pub(super) fn with(
        url: Address,
        tls: Arc<ClientConfig>,
        bearer: Option<Bearer>,
        dialer: Dialer,
    ) -> Self {
        Self {
            url,
            dialer,
            tls,
            bearer,
            link: Mutex::new(None),
        }
    }

    pub fn url(&self) -> &Address {
        &self.url
    }

    /// Asks for `path` (with its query, see [`query`]).
    ///
    /// # Errors
    /// The centre can't be reached, says no, or answers what is not `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Sends JSON.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(ClientError::Body)?;
        self.send(Method::POST, path, body.into()).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(ACCEPT, "application/json");
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer.0.clone());
        }
        let request = request.body(body).map_err(ClientError::Request)?;
        let answer = self
            .exchange(&request)
            .await
            .map_err(|source| ClientError::Exchange {
                url: self.url.clone(),
                source,
            })?;
        if !answer.status.is_success() {
            return Err(ClientError::Refused {
                url: self.url.clone(),
                status: answer.status.as_u16(),
                detail: detail(&answer.body),
            });
        }
        // An answer without content is `null`, so that `T = ()` takes it.
        let body = if answer.body.is_empty() {
            b"null"
        } else {
            &answer.body[..]
        };
        serde_json::from_slice(body).map_err(|source| ClientError::Answer {
            url: self.url.clone(),
            source,
        })
    }

    /// One request at a time. What a connection that was idle broke is asked again only if asking changes nothing.
    async fn exchange(&self, request: &Request<Bytes>) -> Result<Answer, ExchangeError> {
        let mut kept = self.link.lock().await;
        loop {
            let mut link = match kept.take().filter(Link::is_open) {
                Some(link) => link,
                None => {
                    let tls = Arc::clone(&self.tls);
                    Link::open(&self.dialer, &self.url, tls, Settle::No).await?
                }
            };
            let may_repeat = link.is_used && request.method() == Method::GET;
            let outbound = Outbound {
                request: request.clone(),
                answer_max: ANSWER_BYTES_MAX,
                within: REQUEST_TIMEOUT,
                continue_grace: Timing::default().continue_grace,
            };
            match link.exchange(&self.url, outbound).await {
                Ok(answer) => {
                    *kept = Some(link);
                    return Ok(answer);
                }
                Err(ExchangeError::Broke(_)) if may_repeat => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// Returns `?name=value&…` with all escaped that is not unreserved (RFC 3986 2.3); nothing for no pairs.
pub fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text.push(if text.is_empty() { '?' } else { '&' });
        escape(name, &mut text);
        text.push('=');
        escape(value, &mut text);
    }
    text
}

fn escape(plain: &str, text: &mut String) {
    for byte in plain.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped() {
        for (pairs, text) in [
            (&[][..], ""),
            (&[("level", "high")], "?level=high"),
            (
                &[("field", "User=a b"), ("text", "ữ&#/?\r\n")],
                "?field=User%3Da%20b&text=%E1%BB%AF%26%23%2F%3F%0D%0A",
            ),
        ] {
            assert_eq!(query(pairs.iter().copied()), text);
        }
    }

    #[test]
    fn a_bearer_is_not_shown_and_cannot_break_a_header() {
        let bearer = Bearer::new("geheim").unwrap();
        assert!(!format!("{bearer:?} {:?}", bearer.0).contains("geheim"));
        assert!(Bearer::new("a\r\nX: y").is_err());
    }
}
