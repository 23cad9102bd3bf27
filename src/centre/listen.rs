//! Our own accept loop: TLS with a time limit, bounded connections, who is at the other end on every request.
//! Knows neither routes nor agents.

mod idle;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::IntGauge;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;
use tracing::{debug, warn};

use crate::centre::listen::idle::Idle;
use crate::centre::problem::Problem;
use crate::deliver::identity::Peer;

/// Where a request comes from; in the extensions of each.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// What one listener allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Beyond it new connections wait in the kernel's queue.
    pub connections: usize,
    /// Handshakes at once: each costs about 0.6 ms of CPU.
    pub handshakes: usize,
    pub handshake_timeout: Duration,
    /// A connection that asks for nothing, or too slowly, is let go after this.
    pub idle_timeout: Duration,
}

/// How long a stop waits for requests under way.
const DRAIN: Duration = Duration::from_secs(10);
/// Of one HTTP/2 connection; agents use one.
const STREAMS_MAX: u32 = 16;
/// Of one HTTP/1 connection: the head and what of the body came with it.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// A body of 8 MiB over 2 Mbit/s takes 34 s.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// One listener: a socket, its TLS settings and what is behind it.
pub struct Listener {
    pub name: &'static str,
    pub socket: TcpListener,
    pub tls: Arc<ServerConfig>,
    pub router: Router,
    pub limits: Limits,
    /// Connections open now.
    pub open: Option<IntGauge>,
}

impl Listener {
    /// Serves until it is stopped, then finishes what is under way.
    pub async fn serve(self, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.limits.connections));
        let server = Arc::new(Server {
            name: self.name,
            tls: self.tls,
            router: self.router,
            handshakes: Semaphore::new(self.limits.handshakes),
            handshake_timeout: self.limits.handshake_timeout,
            idle_timeout: self.limits.idle_timeout,
            open: self.open,
            stop: stop.clone(),
        });
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.socket, &places, server.name) => accepted,
            };
            if let Some((stream, address, place)) = accepted {
                let server = server.clone();
                connections.spawn(async move {
                    server.connection(stream, address).await;
                    drop(place);
                });
            }
        }
        connections.close();
        connections.wait().await;
    }
}

async fn accept(
    socket: &TcpListener,
    places: &Arc<Semaphore>,
    name: &'static str,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, address)) => Some((stream, address, place)),
        Err(error) => {
            warn!(listener = name, %error, "cannot accept a connection");
            // Out of descriptors, most likely: the next try must not spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Counts a connection until it is dropped, however it ends.
struct Counted(IntGauge);

impl Counted {
    fn new(open: IntGauge) -> Self {
        open.inc();
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Server {
    name: &'static str,
    tls: Arc<ServerConfig>,
    router: Router,
    handshakes: Semaphore,
    handshake_timeout: Duration,
    idle_timeout: Duration,
    open: Option<IntGauge>,
    stop: CancellationToken,
}

impl Server {
    async fn connection(&self, stream: TcpStream, address: SocketAddr) {
        let shaken = tokio::select! {
            () = self.stop.cancelled() => return,
            shaken = timeout(self.handshake_timeout, self.handshake(stream)) => shaken,
        };
        let stream = match shaken {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                debug!(listener = self.name, %address, %error, "handshake refused");
                return;
            }
            Err(_) => {
                debug!(listener = self.name, %address, "handshake timed out");
                return;
            }
        };
        let _counted = self.open.clone().map(Counted::new);
        self.requests(stream, address.ip().to_canonical()).await;
    }

    async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        // Who says nothing holds no place among the handshakes.
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let _place = self
            .handshakes
            .acquire()
            .await
            .map_err(std::io::Error::other)?;
        start.into_stream(self.tls.clone()).await
    }

    async fn requests(&self, stream: TlsStream<TcpStream>, address: IpAddr) {
        let certificates = stream.get_ref().1.peer_certificates();
        let peer = match certificates.and_then(|chain| chain.first()).map(Peer::read) {
            None => None,
            Some(Ok(peer)) => Some(Arc::new(peer)),
            Some(Err(error)) => {
                debug!(%address, %error, "a certificate of our authority names no agent");
                return;
            }
        };
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            let extensions = request.extensions_mut();
            extensions.insert(PeerAddress(address));
            if let Some(peer) = &peer {
                extensions.insert(peer.clone());
            }
            router.clone().call(request)
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.idle_timeout)
            .max_buf_size(READ_BUFFER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX);
        let stream = Idle::new(stream, self.idle_timeout);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                timeout(DRAIN, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            debug!(listener = self.name, %address, error, "a connection ended");
        }
    }
}

/// Reads a body of at most `bytes_max`, within the time that a slow line needs.
///
/// # Errors
/// When it is longer, too slow, or breaks off.
pub async fn read_body(request: Request, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(format!("the body may have {bytes_max} bytes"));
    let body: Body = request.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    let read = async move {
        let mut body = body;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::bad_request("the body ended before its end"))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > bytes_max {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&data);
            }
        }
        Ok(bytes.freeze())
    };
    timeout(BODY_TIMEOUT, read).await.unwrap_or_else(|_| {
        Err(Problem::new(
            axum::http::StatusCode::REQUEST_TIMEOUT,
            "the body came too slowly",
            format!("it has {} seconds", BODY_TIMEOUT.as_secs()),
        ))
    })
}
