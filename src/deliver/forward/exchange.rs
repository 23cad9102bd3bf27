//! One request and its answer over one connection. Answers are capped; a large body waits until the server wants it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, SizeHint};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_LENGTH, EXPECT, HOST, RETRY_AFTER};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::ClientConfig;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::deliver::forward::address::Address;
use crate::deliver::forward::connect::{
    ConnectError, Dialer, Settle, explain, server_ends, tls_fault,
};

#[derive(Debug, Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection broke before the answer was whole")]
    Broke(#[source] hyper::Error),
    #[error("the answer is longer than {max} bytes")]
    AnswerTooLarge { max: usize },
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    #[error("the request cannot be made")]
    Request(#[source] hyper::http::Error),
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub retry_after: Option<String>,
    pub body: Bytes,
}

/// A connection that is open, as far as is known.
pub(super) struct Link {
    sender: http1::SendRequest<Outgoing>,
    authority: String,
    /// When the server's certificate ends.
    pub server_ends: Option<Timestamp>,
    /// It has carried a request: if it breaks now, the server may have closed it while it was idle.
    pub is_used: bool,
    /// Ends the task that drives the connection.
    _closes: DropGuard,
}

/// What to send.
#[derive(Debug)]
pub(super) struct Outbound {
    pub request: Request<Bytes>,
    /// The largest answer that is read.
    pub answer_max: usize,
    pub within: Duration,
    pub continue_grace: Duration,
}

/// Bodies above it wait for `100 Continue`: below, the round trip costs more than the bytes.
const EXPECT_ABOVE: usize = 16 * 1024;
/// Status line and headers of an answer; a server of ours sends 300 bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
const HEADERS_MAX: usize = 64;

impl Link {
    /// Connects and starts the task that drives the connection; it ends when the link is dropped.
    pub async fn open(
        dialer: &Dialer,
        to: &Address,
        tls: Arc<ClientConfig>,
        settle: Settle,
    ) -> Result<Self, ExchangeError> {
        let stream = dialer.open(to, tls, settle).await?;
        let server_ends = server_ends(&stream);
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broke(error, to))?;
        let closed = CancellationToken::new();
        let closes = closed.clone().drop_guard();
        // Ends by itself or with the link; a fault of the connection is seen by the request that it breaks.
        tokio::spawn(async move {
            tokio::select! {
                _ = connection => {}
                () = closed.cancelled() => {}
            }
        });
        Ok(Self {
            sender,
            authority: to.authority(),
            server_ends,
            is_used: false,
            _closes: closes,
        })
    }

    /// Sends and waits for the whole answer. After an error the link must be dropped; after an answer it may be used again
    /// as long as [`Link::is_open`] says so.
    pub async fn exchange(&mut self, to: &Address, out: Outbound) -> Result<Answer, ExchangeError> {
        let within = out.within;
        timeout(within, self.exchange_in_time(to, out))
            .await
            .unwrap_or(Err(ExchangeError::Slow(within)))
    }

    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    async fn exchange_in_time(
        &mut self,
        to: &Address,
        out: Outbound,
    ) -> Result<Answer, ExchangeError> {
        let request = self.prepare(out.request, out.continue_grace);
        let broke = |error| broke(error, to);
        self.sender.ready().await.map_err(broke)?;
        let answer = self.sender.send_request(request).await.map_err(broke)?;
        self.is_used = true;
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = Limited::new(answer.into_body(), out.answer_max)
            .collect()
            .await
            .map_err(|error| match error.downcast::<hyper::Error>() {
                Ok(error) => broke(*error),
                Err(_) => ExchangeError::AnswerTooLarge {
                    max: out.answer_max,
                },
            })?;
        Ok(Answer {
            status,
            retry_after,
            body: body.to_bytes(),
        })
    }

    fn prepare(&self, request: Request<Bytes>, grace: Duration) -> Request<Outgoing> {
        let (mut parts, body) = request.into_parts();
        let host = self.authority.parse().ok();
        parts.headers.extend(host.map(|host| (HOST, host)));
        parts.headers.insert(CONTENT_LENGTH, body.len().into());
        let waits = body.len() > EXPECT_ABOVE;
        if waits {
            let expected = hyper::header::HeaderValue::from_static("100-continue");
            parts.headers.insert(EXPECT, expected);
        }
        if !waits {
            return Request::from_parts(parts, Outgoing::at_once(body));
        }
        let wanted = Arc::new(Notify::new());
        let mut request =
            Request::from_parts(parts, Outgoing::held(body, Arc::clone(&wanted), grace));
        hyper::ext::on_informational(&mut request, move |_| wanted.notify_one());
        request
    }
}

/// A body in one piece, which may be held back for a while.
pub(super) struct Outgoing {
    bytes: Option<Bytes>,
    held: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Outgoing {
    fn at_once(bytes: Bytes) -> Self {
        Self {
            bytes: Some(bytes).filter(|bytes| !bytes.is_empty()),
            held: None,
        }
    }

    /// RFC 9110 10.1.1: until the server wants it, or for a grace: not every server answers the expectation.
    fn held(bytes: Bytes, wanted: Arc<Notify>, grace: Duration) -> Self {
        let held = async move {
            let _ = timeout(grace, wanted.notified()).await;
        };
        Self {
            held: Some(Box::pin(held)),
            ..Self::at_once(bytes)
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(held) = &mut self.held {
            if held.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.held = None;
        }
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// A refusal of the client's certificate may come as late as the first answer.
fn broke(error: hyper::Error, to: &Address) -> ExchangeError {
    match tls_fault(&error) {
        Some(fault) => explain(fault, &to.host, Timestamp::now()).into(),
        None => ExchangeError::Broke(error),
    }
}

/// Says an error with all that is behind it, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.ends_with(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = source.source();
    }
    text
}
