//! /metrics, /healthz and /readyz of either role: plain HTTP, meant for loopback. Has no secrets to tell and takes no orders.

pub mod port;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use self::port::PortError;
use crate::metrics::Exposition;

/// Says why a role can't do its work now; nothing when it can.
pub type Ready = Arc<dyn Fn() -> Result<(), Vec<String>> + Send + Sync>;

/// Prometheus and a balancer need two or three.
const CONNECTIONS_MAX: usize = 32;
/// A scraper that says nothing for this long is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a stop waits for an answer under way.
const DRAIN: Duration = Duration::from_secs(2);

/// The listener of one role.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// # Errors
    /// When the port is taken or the address isn't ours.
    pub fn bind(address: SocketAddr) -> Result<Self, PortError> {
        let listener = port::bind(address)?;
        let address = listener
            .local_addr()
            .map_err(|source| PortError::Listen { address, source })?;
        Ok(Self { listener, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is stopped.
    pub async fn serve(self, exposition: Exposition, ready: Ready, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            let Some((stream, place)) = accepted else {
                continue;
            };
            let (exposition, ready, stop) = (exposition.clone(), ready.clone(), stop.clone());
            connections.spawn(async move {
                let service = service_fn(move |request| {
                    let answer = answer(&request, &exposition, &ready);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                let ended = tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        tokio::time::timeout(DRAIN, connection).await.unwrap_or(Ok(()))
                    }
                };
                if let Err(error) = ended {
                    debug!(%error, "an admin connection ended");
                }
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, Place)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            // Out of descriptors, most likely: the next try must not spin.
            debug!(%error, "cannot accept");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn answer(
    request: &Request<Incoming>,
    exposition: &Exposition,
    ready: &Ready,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        answer
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut answer = text(StatusCode::OK, exposition.text());
            answer.headers_mut().insert(
                CONTENT_TYPE,
                hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            answer
        }
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match ready() {
            Ok(()) => text(StatusCode::OK, "ready\n".to_owned()),
            Err(reasons) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                reasons.iter().fold(String::new(), |text, reason| {
                    text + &crate::diagnostic::visible(reason) + "\n"
                }),
            ),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".to_owned(),
        ),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::metrics::CentreMetrics;

    async fn get(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn it_tells_metrics_health_and_readiness_and_nothing_else() {
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = admin.address();
        let sick = Arc::new(AtomicBool::new(false));
        let seen = sick.clone();
        let ready: Ready = Arc::new(move || {
            if seen.load(Ordering::Relaxed) {
                Err(vec!["store: disk full\u{1b}[2J".to_owned()])
            } else {
                Ok(())
            }
        });
        let stop = CancellationToken::new();
        let served =
            tokio::spawn(admin.serve(CentreMetrics::default().exposition, ready, stop.clone()));
        for (request, status, part) in [
            ("GET /metrics", "200", "canhgac_centre_build_info"),
            ("GET /healthz", "200", "ok"),
            ("GET /readyz", "200", "ready"),
            ("GET /etc/passwd", "404", "there are"),
            ("POST /metrics", "405", "only GET"),
        ] {
            let answer = get(address, request).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
            assert!(answer.contains(part), "{answer}");
        }
        sick.store(true, Ordering::Relaxed);
        let answer = get(address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("store: disk full\\u{1b}[2J\n"), "{answer}");
        stop.cancel();
        served.await.unwrap();
    }
}
