//! One connection: TCP, by a proxy where one is set, TLS, HTTP/1.1. What the peer sends is bounded and never trusted.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error as TlsError};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::deliver::forward::address::{Address, Exception, Proxy, authority};
use crate::deliver::identity::{OtherCentre, not_after};

/// What an agent without a place at a centre is told, word for word.
pub const NOT_ENROLLED: &str = "refused in the handshake: not enrolled here";

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error("cannot find the address of {host}")]
    Resolve { host: String, source: io::Error },
    #[error("{host} has no address")]
    NoAddress { host: String },
    #[error("cannot connect to {peer}")]
    Tcp { peer: SocketAddr, source: io::Error },
    #[error("no connection to {to} within {} s", .after.as_secs())]
    Slow { to: String, after: Duration },
    #[error("the proxy {proxy} asks for another user and password")]
    ProxyCredentials { proxy: String },
    #[error("the proxy {proxy} answers {status} to CONNECT {to}")]
    ProxyRefused {
        proxy: String,
        to: String,
        status: u16,
    },
    #[error("the answer of the proxy {proxy} is not HTTP")]
    ProxyAnswer { proxy: String },
    #[error("the connection to the proxy {proxy} broke")]
    ProxyBroke { proxy: String, source: io::Error },
    #[error("refused in the handshake: not enrolled here")]
    NotEnrolled,
    #[error("refused in the handshake: the certificate ended too long ago, enrol again")]
    EndedTooLongAgo,
    #[error("the server is of another centre than the one this host enrolled with")]
    OtherAuthority,
    #[error(transparent)]
    OtherCentre(OtherCentre),
    #[error("the server's certificate is not for {host}")]
    OtherName { host: String },
    #[error("the server's certificate is not valid at {now}; is this machine's clock right?")]
    Time { now: Timestamp },
    #[error("cannot agree on TLS")]
    Tls(#[source] TlsError),
    #[error("the connection broke in the handshake")]
    Broke(#[source] io::Error),
}

impl ConnectError {
    /// Whether trying again soon is of no use: a person must act.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotEnrolled | Self::EndedTooLongAgo)
    }
}

/// The way out of a site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dialer {
    pub proxy: Option<Proxy>,
    pub no_proxy: Vec<Exception>,
}

/// Whether the connection is worth a round trip to learn how the server took the client's certificate: in TLS 1.3 the
/// client is through before the server has looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settle {
    Yes,
    No,
}

/// A name may have more addresses than anyone waits for.
const ADDRESSES_MAX: usize = 8;
/// For each address. Linux would wait two minutes.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Proxy and TLS together: a round trip by satellite is 0.7 s, there are five.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// A server of ours answers the client's certificate with tickets or an alert; one that does neither is not waited for.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Proxies add a few hundred bytes; the rest is malice.
const PROXY_ANSWER_BYTES_MAX: usize = 8 * 1024;

impl Dialer {
    /// Opens a stream over which HTTP can be spoken. Nothing of the caller's is sent before the server is known.
    pub(super) async fn open(
        &self,
        to: &Address,
        tls: Arc<ClientConfig>,
        settle: Settle,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let name = to.server_name().ok_or_else(|| ConnectError::NoAddress {
            host: to.host.clone(),
        })?;
        let proxy = self
            .proxy
            .as_ref()
            .filter(|_| !self.no_proxy.iter().any(|except| except.covers(&to.host)));
        let mut tcp = match proxy {
            Some(proxy) => dial(&proxy.host, proxy.port).await?,
            None => dial(&to.host, to.port).await?,
        };
        // Requests are written whole: waiting to fill a segment only adds latency.
        let _ = tcp.set_nodelay(true);
        let handshake = async {
            if let Some(proxy) = proxy {
                tunnel(&mut tcp, proxy, to).await?;
            }
            shake(tcp, to, name, tls, settle).await
        };
        timeout(HANDSHAKE_TIMEOUT, handshake)
            .await
            .unwrap_or_else(|_| {
                Err(ConnectError::Slow {
                    to: to.to_string(),
                    after: HANDSHAKE_TIMEOUT,
                })
            })
    }
}

/// Returns when the certificate ends that the server showed.
pub(super) fn server_ends(stream: &TlsStream<TcpStream>) -> Option<Timestamp> {
    let (_, connection) = stream.get_ref();
    not_after(connection.peer_certificates()?.first()?).ok()
}

/// Says what a fault of TLS means to people.
pub(super) fn explain(error: TlsError, host: &str, now: Timestamp) -> ConnectError {
    use AlertDescription as Alert;
    match error {
        TlsError::AlertReceived(Alert::CertificateExpired) => ConnectError::EndedTooLongAgo,
        TlsError::AlertReceived(
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateRequired
            | Alert::CertificateUnknown
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::DecryptError
            | Alert::AccessDenied,
        ) => ConnectError::NotEnrolled,
        TlsError::InvalidCertificate(fault) => match fault {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ConnectError::OtherAuthority
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ConnectError::OtherName {
                    host: host.to_owned(),
                }
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => ConnectError::Time { now },
            CertificateError::Other(other) => match other.0.downcast_ref::<OtherCentre>() {
                Some(&OtherCentre { expected, found }) => {
                    ConnectError::OtherCentre(OtherCentre { expected, found })
                }
                None => ConnectError::Tls(CertificateError::Other(other).into()),
            },
            fault => ConnectError::Tls(fault.into()),
        },
        error => ConnectError::Tls(error),
    }
}

/// Finds the fault of TLS behind others, if there is one.
pub(super) fn tls_fault(error: &(dyn StdError + 'static)) -> Option<TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(fault) = error.downcast_ref::<TlsError>() {
            return Some(fault.clone());
        }
        // An io::Error does not name the error within as its source, but that one's.
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let resolved = timeout(TCP_TIMEOUT, lookup_host((host, port)))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let peers = resolved.map_err(|source| ConnectError::Resolve {
        host: host.to_owned(),
        source,
    })?;
    let mut last = ConnectError::NoAddress {
        host: host.to_owned(),
    };
    for peer in peers.take(ADDRESSES_MAX) {
        match timeout(TCP_TIMEOUT, TcpStream::connect(peer)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(source)) => last = ConnectError::Tcp { peer, source },
            Err(_) => {
                last = ConnectError::Slow {
                    to: peer.to_string(),
                    after: TCP_TIMEOUT,
                }
            }
        }
    }
    Err(last)
}

/// RFC 9110 9.3.6.
async fn tunnel(tcp: &mut TcpStream, proxy: &Proxy, to: &Address) -> Result<(), ConnectError> {
    let broke = |source| ConnectError::ProxyBroke {
        proxy: proxy.to_string(),
        source,
    };
    let not_http = || ConnectError::ProxyAnswer {
        proxy: proxy.to_string(),
    };
    let target = authority(&to.host, to.port);
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(credentials) = proxy.credentials() {
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(credentials);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    tcp.write_all(request.as_bytes()).await.map_err(broke)?;
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        // Byte by byte: what follows the empty line belongs to TLS. Once a connection this costs nothing.
        if answer.len() >= PROXY_ANSWER_BYTES_MAX {
            return Err(not_http());
        }
        answer.push(tcp.read_u8().await.map_err(broke)?);
    }
    let status = std::str::from_utf8(&answer)
        .ok()
        .and_then(|text| text.strip_prefix("HTTP/1."))
        .and_then(|text| text.split(' ').nth(1))
        .and_then(|status| status.trim().parse::<u16>().ok())
        .ok_or_else(not_http)?;
    match status {
        200..=299 => Ok(()),
        407 => Err(ConnectError::ProxyCredentials {
            proxy: proxy.to_string(),
        }),
        status => Err(ConnectError::ProxyRefused {
            proxy: proxy.to_string(),
            to: target,
            status,
        }),
    }
}

async fn shake(
    tcp: TcpStream,
    to: &Address,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    settle: Settle,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let now = tls
        .time_provider
        .current_time()
        .and_then(|now| i64::try_from(now.as_secs()).ok())
        .and_then(|now| Timestamp::from_second(now).ok())
        .unwrap_or_default();
    let fault = |error: io::Error| match tls_fault(&error) {
        Some(error) => explain(error, &to.host, now),
        None => ConnectError::Broke(error),
    };
    let mut stream = TlsConnector::from(tls)
        .connect(name, tcp)
        .await
        .map_err(fault)?;
    if settle == Settle::Yes {
        // Too slow: goes on, the first request will tell.
        if let Ok(result) = timeout(SETTLE_TIMEOUT, settled(&mut stream)).await {
            result.map_err(fault)?;
        }
    }
    Ok(stream)
}

/// Waits for the server's tickets, which it sends when it has accepted the client's certificate.
async fn settled(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    let (tcp, connection) = stream.get_mut();
    while connection.tls13_tickets_received() == 0 {
        tcp.readable().await?;
        match connection.read_tls(&mut SocketRead(tcp)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {
                connection
                    .process_new_packets()
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `TcpStream` of tokio reads without waiting by `try_read`; rustls wants `Read`.
struct SocketRead<'a>(&'a TcpStream);

impl io::Read for SocketRead<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}
