//! The monitoring centre: agents deliver at one door, people ask at another, Prometheus at a third.
//! Builds what follows, runs it, and stops it in order.

mod auth;
mod ingest;
mod listen;
mod problem;
mod profile;
pub mod query;
mod registry;
pub mod store;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use jiff::Timestamp;
use rustls::pki_types::DnsName;
use serde::{Deserialize, Deserializer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use self::auth::Auth;
use self::ingest::{Budget, Doors, Places};
use self::listen::{Limits, Listener};
use self::problem::Problem;
pub use self::profile::ProfileError;
use self::query::Desk;
use self::query::tokens::NewToken;
use self::registry::Registry;
use self::store::{Options, Store, StoreError};
use crate::admin::port::{PortError, bind};
use crate::admin::{Admin, Ready};
use crate::deliver::forward::Address;
use crate::deliver::identity::{
    Ca, IdentityError, KeyPin, ServerKeys, agents_listener, people_listener,
};
use crate::metrics::CentreMetrics;

/// The centre's part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The database, the authority's key and the first profile; made if it isn't there.
    pub data: PathBuf,
    /// Where agents deliver. Port 0 picks a free one.
    pub agents_listen: SocketAddr,
    /// Where people, tools and hosts that enrol come.
    pub people_listen: SocketAddr,
    /// /metrics, /healthz, /readyz.
    pub metrics_listen: SocketAddr,
    /// Names and addresses under which this centre is reached; the machine's own name and loopback are added.
    pub names: Vec<String>,
    /// What an enrolled host is told to send to; empty: the name that it enrolled at, with the agents' port.
    #[serde(deserialize_with = "addresses")]
    pub urls: Vec<String>,
    /// Connections of agents at once; each idle one takes about 26 KiB.
    #[serde(deserialize_with = "places")]
    pub agent_connections: usize,
    /// Connections of people and tools at once.
    #[serde(deserialize_with = "places")]
    pub people_connections: usize,
    /// Memory for batches under way; beyond it agents are told to come back.
    #[serde(deserialize_with = "batch_memory")]
    pub batch_memory_bytes: usize,
    /// The most bytes of the database; beyond it nothing is stored, /readyz says so, and agents keep their alerts.
    #[serde(deserialize_with = "database_bytes")]
    pub database_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "/var/lib/canhgac-centre".into(),
            agents_listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            people_listen: SocketAddr::from(([0, 0, 0, 0], 8444)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 9465)),
            names: Vec::new(),
            urls: Vec::new(),
            agent_connections: 20_000,
            people_connections: 1000,
            batch_memory_bytes: 64 * 1024 * 1024,
            database_bytes_max: 64 * 1024 * 1024 * 1024,
        }
    }
}

/// An empty database of ours has a third of this.
const DATABASE_BYTES_LEAST: u64 = 1024 * 1024;

fn addresses<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<String>, D::Error> {
    let urls = Vec::<Address>::deserialize(from)?;
    Ok(urls.iter().map(Address::to_string).collect())
}

fn places<'d, D: Deserializer<'d>>(from: D) -> Result<usize, D::Error> {
    at_least(usize::deserialize(from)?, 1)
}

fn batch_memory<'d, D: Deserializer<'d>>(from: D) -> Result<usize, D::Error> {
    at_least(usize::deserialize(from)?, ingest::MEMORY_LEAST)
}

fn database_bytes<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
    at_least(u64::deserialize(from)?, DATABASE_BYTES_LEAST)
}

fn at_least<T: PartialOrd + std::fmt::Display, E: serde::de::Error>(
    value: T,
    least: T,
) -> Result<T, E> {
    if value < least {
        return Err(E::custom(format_args!(
            "invalid value: {value}, expected at least {least}"
        )));
    }
    Ok(value)
}

#[derive(Debug, Error)]
pub enum StartError {
    #[error("cannot make the data folder {path}", path = .path.display())]
    Folder {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Profile(#[from] ProfileError),
}

#[derive(Debug, Error)]
pub enum TokenError {
    #[error("{0}")]
    Asked(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where a running centre listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    pub agents: SocketAddr,
    pub people: SocketAddr,
    pub metrics: SocketAddr,
}

/// A centre that runs until it is shut down.
#[derive(Debug)]
pub struct Running {
    pub addresses: Addresses,
    /// URL, CA and token of the first administrator.
    pub profile: PathBuf,
    /// Where the query API is, as the profile says it.
    pub people_url: String,
    ca: Arc<Ca>,
    store: Store,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// The first start makes these beside each other in the data folder.
const CA_FOLDER: &str = "ca";
const DATABASE: &str = "centre.db";
/// 0.6 ms of CPU each: 256 are a tenth of a second on two cores.
const HANDSHAKES: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Agents speak each minute.
const AGENT_IDLE: Duration = Duration::from_secs(180);
const PEOPLE_IDLE: Duration = Duration::from_secs(30);
/// The centre's certificate is looked at this often; it is replaced 30 days before its end.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Starts a centre: makes what the first start needs, takes its ports, answers when they are open.
///
/// # Errors
/// A port is taken, the folder can't be written, or the database or the authority is damaged.
pub async fn start(config: Config, metrics: CentreMetrics) -> Result<Running, StartError> {
    let now = Timestamp::now();
    make_folder(&config.data)?;
    let ports = Ports::bind(&config)?;
    let addresses = ports.addresses;
    let names = names(&config);
    let ca = Arc::new(Ca::open(&config.data.join(CA_FOLDER), now)?);
    let keys = Arc::new(ServerKeys::open(&ca, &names, now)?);
    let database = Options::new(config.data.join(DATABASE), config.database_bytes_max);
    let store = Store::open(&database).await?;
    let registry = Arc::new(Registry::open(store.clone(), metrics.clone()).await?);
    let auth = Arc::new(Auth::new(store.clone(), metrics.clone()));
    let people_url = profile::url(addresses.people);
    let profile = profile::ensure(&config.data, &people_url, ca.pem(), &auth, now).await?;
    let doors = Doors {
        store: store.clone(),
        registry: registry.clone(),
        auth: auth.clone(),
        ca: ca.clone(),
        metrics: metrics.clone(),
        places: Arc::new(Places {
            urls: config.urls.clone(),
            names: names.clone(),
            port: addresses.agents.port(),
        }),
        budget: Budget::new(config.batch_memory_bytes),
    };
    let desk = Desk {
        store: store.clone(),
        registry: registry.clone(),
        auth,
        pin: ca.pin(),
        metrics: metrics.clone(),
    };
    let (agents, people) = listeners(&config, ports.agents, ports.people, doors, desk, &keys)?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let ready = ready(store.clone());
    tasks.spawn(agents.serve(stop.clone()));
    tasks.spawn(people.serve(stop.clone()));
    tasks.spawn(
        ports
            .admin
            .serve(metrics.exposition.clone(), ready, stop.clone()),
    );
    tasks.spawn(registry.keep(stop.clone()));
    tasks.spawn(keep_store(store.clone(), stop.clone()));
    tasks.spawn(keep_certificate(ca.clone(), keys, names, stop.clone()));
    tasks.close();
    let bytes_max = i64::try_from(config.database_bytes_max).unwrap_or(i64::MAX);
    metrics.store_bytes_max.set(bytes_max);
    info!(agents = %addresses.agents, people = %addresses.people, metrics = %addresses.metrics, "the centre runs");
    Ok(Running {
        addresses,
        profile,
        people_url,
        ca,
        store,
        stop,
        tasks,
    })
}

struct Ports {
    agents: TcpListener,
    people: TcpListener,
    admin: Admin,
    addresses: Addresses,
}

impl Ports {
    fn bind(config: &Config) -> Result<Self, PortError> {
        let agents = bind(config.agents_listen)?;
        let people = bind(config.people_listen)?;
        let admin = Admin::bind(config.metrics_listen)?;
        let local = |socket: &TcpListener, address| {
            socket
                .local_addr()
                .map_err(|source| PortError::Listen { address, source })
        };
        Ok(Self {
            addresses: Addresses {
                agents: local(&agents, config.agents_listen)?,
                people: local(&people, config.people_listen)?,
                metrics: admin.address(),
            },
            agents,
            people,
            admin,
        })
    }
}

fn listeners(
    config: &Config,
    agents: TcpListener,
    people: TcpListener,
    doors: Doors,
    desk: Desk,
    keys: &Arc<ServerKeys>,
) -> Result<(Listener, Listener), IdentityError> {
    let limits = |connections, idle_timeout| Limits {
        connections,
        handshakes: HANDSHAKES,
        handshake_timeout: HANDSHAKE_TIMEOUT,
        idle_timeout,
    };
    let agents = Listener {
        name: "agents",
        socket: agents,
        tls: agents_listener(&doors.ca, keys.clone())?,
        limits: limits(config.agent_connections, AGENT_IDLE),
        open: Some(doors.metrics.connections.clone()),
        router: ingest::agents_router(doors.clone()),
    };
    let people = Listener {
        name: "people",
        socket: people,
        tls: people_listener(keys.clone())?,
        limits: limits(config.people_connections, PEOPLE_IDLE),
        open: None,
        router: Router::new()
            .merge(ingest::enrolment_router(doors))
            .merge(query::router(desk))
            .fallback(query::nothing_here)
            .method_not_allowed_fallback(async || Problem::not_allowed()),
    };
    Ok((agents, people))
}

impl Running {
    /// Returns the certificate of this centre's authority, PEM.
    pub fn ca_pem(&self) -> &str {
        self.ca.pem()
    }

    pub fn pin(&self) -> KeyPin {
        self.ca.pin()
    }

    /// Makes an enrolment token, as POST /v1/tokens does.
    ///
    /// # Errors
    /// When what is asked for is wrong, or it could not be stored.
    pub async fn create_token(&self, asked: &NewToken) -> Result<String, TokenError> {
        let checked = query::tokens::check(asked, Timestamp::now())
            .map_err(|problem| TokenError::Asked(problem.detail().to_owned()))?;
        Ok(query::tokens::store(&self.store, self.ca.pin(), checked).await?)
    }

    /// Takes no more requests, answers those under way, writes what is queued, closes the database.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.wait().await;
        self.store.close().await;
        info!("the centre has stopped");
    }
}

fn make_folder(path: &Path) -> Result<(), StartError> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    let failed = |source| StartError::Folder {
        path: path.to_owned(),
        source,
    };
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// What the centre's certificate is for, the configured ones first: they are what enrolled hosts are told.
fn names(config: &Config) -> Vec<String> {
    let mut names = config.names.clone();
    if let Ok(host) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        let host = host.trim();
        // A machine may bear a name that no certificate can.
        if DnsName::try_from(host).is_ok() {
            names.push(host.to_owned());
        }
    }
    for listen in [config.agents_listen.ip(), config.people_listen.ip()] {
        if !listen.is_unspecified() {
            names.push(listen.to_string());
        }
    }
    names.push("localhost".to_owned());
    for loopback in [
        IpAddr::from(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::from(std::net::Ipv6Addr::LOCALHOST),
    ] {
        names.push(loopback.to_string());
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn ready(store: Store) -> Ready {
    Arc::new(move || match store.fault() {
        None => Ok(()),
        Some(fault) => Err(vec![format!("the store cannot be written: {fault}")]),
    })
}

/// What the store should do now and then is looked at this often.
const STORE_EVERY: Duration = Duration::from_secs(60);

async fn keep_store(store: Store, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(STORE_EVERY) => {}
        }
        match store.train().await {
            Ok(true) => info!("a dictionary for payloads was trained"),
            Ok(false) => {}
            Err(error) => warn!(%error, "no dictionary could be trained"),
        }
    }
}

async fn keep_certificate(
    ca: Arc<Ca>,
    keys: Arc<ServerKeys>,
    names: Vec<String>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_EVERY) => {}
        }
        let (ca, keys, names) = (ca.clone(), keys.clone(), names.clone());
        let refreshed =
            tokio::task::spawn_blocking(move || keys.refresh(&ca, &names, Timestamp::now())).await;
        if let Ok(Err(error)) = refreshed {
            warn!(%error, "the centre's certificate could not be looked at");
        }
    }
}

#[cfg(test)]
mod tests;
