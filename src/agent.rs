//! The role on a host: builds source … deliver and joins them. Threads and bounded channels left of the spool,
//! tokio right of it. Does not know the centre's code: `up` joins the two in `cli`.

mod delivery;
pub mod keeper;
pub mod pipeline;
pub mod report;
pub mod secret;

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::admin::port::PortError;
use crate::admin::{Admin, Ready};
use crate::agent::delivery::{Delivery, deliver};
use crate::agent::keeper::{Keeper, KeeperError, Parts};
use crate::agent::pipeline::{CHUNKS_MAX, Chunk, Failed, Pulse, Rules, Worker};
use crate::agent::report::Reporter;
use crate::agent::secret::SecretError;
use crate::alert::HostSecret;
use crate::decode::Surroundings;
use crate::deliver::forward;
use crate::deliver::forward::SharedSpool;
use crate::deliver::spool::{Limits, Restored, Spool, SpoolError};
use crate::detect::Scene;
use crate::detect::correlate::Correlator;
use crate::detect::fold;
use crate::detect::fold::Folder;
use crate::detect::mask::Masker;
use crate::detect::rule::{Placeholders, Ruleset};
use crate::metrics::AgentMetrics;
use crate::source;
use crate::source::{Health, Inflow, Outlet, Resume, Source, Stop};

/// Chunks that wait at one worker: at 256 records a chunk a worker is never idle, and under 16 MiB wait.
const INFLOWS_MAX: usize = 16;
/// More workers than this gain nothing on a host whose work is something else.
const WORKERS_MAX: usize = 4;
/// At the end the forwarder may still send for so long.
const GRACE: Duration = Duration::from_secs(5);

/// Of the state folder: the host's key and certificate; how delivery stands.
pub const IDENTITY: &str = "identity";
pub const STATUS: &str = "status.json";

/// agent.yaml
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The agent's memory: spool, keys, identity, status.
    pub state: PathBuf,
    /// The name in alerts whose record names no machine; empty: this machine's.
    pub host: String,
    /// Time zone of logs that name none, such as Asia/Ho_Chi_Minh; empty: this machine's.
    #[serde(deserialize_with = "zone_name")]
    pub zone: String,
    /// Threads that decode and judge; 0: one a core, at most 4.
    #[serde(deserialize_with = "worker_count")]
    pub workers: usize,
    /// Files and folders of Sigma rules.
    pub rules: Vec<PathBuf>,
    /// The rules inside the binary, beside those of `rules`.
    pub builtin_rules: bool,
    /// Values of the names that rules with `expand` put between `%`.
    pub placeholders: Placeholders,
    pub sources: source::Config,
    pub fold: fold::Config,
    pub spool: Limits,
    pub centre: forward::Config,
    /// Address of /metrics, /healthz and /readyz; null: none. Port 0 picks a free one.
    pub metrics_listen: Option<SocketAddr>,
}

fn zone_name<'d, D: Deserializer<'d>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    if !name.is_empty() && TimeZone::get(&name).is_err() {
        let message =
            format!("unknown time zone `{name}`, expected a name such as Asia/Ho_Chi_Minh");
        return Err(serde::de::Error::custom(message));
    }
    Ok(name)
}

/// More threads than any machine has cores for this.
const WORKERS_WANTED_MAX: usize = 64;

fn worker_count<'d, D: Deserializer<'d>>(from: D) -> Result<usize, D::Error> {
    let workers = usize::deserialize(from)?;
    if workers > WORKERS_WANTED_MAX {
        let message = format!("invalid value: {workers}, expected at most {WORKERS_WANTED_MAX}");
        return Err(serde::de::Error::custom(message));
    }
    Ok(workers)
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/canhgac"),
            host: String::new(),
            zone: String::new(),
            workers: 0,
            rules: Vec::new(),
            builtin_rules: true,
            placeholders: Placeholders::new(),
            sources: source::Config::default(),
            fold: fold::Config::default(),
            spool: Limits::default(),
            centre: forward::Config::default(),
            metrics_listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("cannot make the folder {path}", path = path.display())]
    Folder {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("unknown time zone `{0}`; expected a name such as Asia/Ho_Chi_Minh")]
    Zone(String, #[source] jiff::Error),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// What an agent is started with.
pub struct Setup {
    pub config: Config,
    pub ruleset: Ruleset,
    /// Rules that were left out because of a fault.
    pub rules_rejected: usize,
    /// What does not work as it should: `config`, `rules`.
    pub degraded: Vec<String>,
    pub metrics: AgentMetrics,
}

/// A running agent.
pub struct Agent {
    pub rules: Rules,
    pub failed: Failed,
    /// Stops beating when the pipeline hangs.
    pub pulse: Pulse,
    /// Where /metrics is, if it is anywhere.
    pub metrics_at: Option<SocketAddr>,
    metrics: AgentMetrics,
    stop: Stop,
    gone: CancellationToken,
    sources: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    keeper: JoinHandle<Result<(), KeeperError>>,
    forward_stop: CancellationToken,
    forward: tokio::task::JoinHandle<()>,
    admin: Option<tokio::task::JoinHandle<()>>,
    /// Cancelled when the agent can't go on; the caller stops it then.
    pub broken: CancellationToken,
}

impl Agent {
    /// Starts every part; returns when the spool is open and the sources are being read, whether or not a centre
    /// can be reached.
    ///
    /// # Errors
    /// When the state folder, the spool or an address can't be used.
    pub async fn start(setup: Setup) -> Result<Self, AgentError> {
        let Setup {
            config, metrics, ..
        } = setup;
        make_folder(&config.state)?;
        let zone = zone(&config.zone)?;
        let admin = config.metrics_listen.map(Admin::bind).transpose()?;
        let secret = secret::load_or_make(&config.state.join("secret"))?;
        let secret = HostSecret::new(&secret);
        let masker = Masker::new(&secret::load_or_make(&config.state.join("mask.key"))?);
        let scene = Arc::new(Scene {
            secret: secret.clone(),
            masker,
            host: host(&config),
        });
        let (spool, mut restored) = Spool::open(
            &config.state.join("spool.db"),
            config.spool.clone(),
            &metrics,
            Timestamp::now(),
        )?;
        announce(&restored);
        note_rules(
            &metrics,
            &setup.ruleset,
            setup.rules_rejected,
            &setup.degraded,
        );
        let rules = Rules::new(setup.ruleset);
        let failed = Failed::default();
        let pulse = Pulse::default();
        let health = Health::default();
        let stop = Stop::default();
        let gone = CancellationToken::new();
        let broken = CancellationToken::new();
        let wake = Arc::new(Notify::new());
        let spool = Arc::new(Mutex::new(spool));

        let resume = Resume {
            streams: std::mem::take(&mut restored.progress),
            start: restored.start,
            first: restored.first,
        };
        let reporter = Reporter::new(
            rules.clone(),
            scene.host.clone(),
            health.clone(),
            metrics.clone(),
            unheard(&config, &restored),
        );
        let keeper = Keeper::new(
            Parts {
                spool: Arc::clone(&spool),
                folder: Folder::new(config.fold.clone()),
                correlator: Correlator::default(),
                secret,
                rules: rules.clone(),
                metrics: metrics.clone(),
                pulse: pulse.clone(),
                stop: gone.clone(),
            },
            &mut restored,
        );
        let (chunks, inlet) = sync_channel(CHUNKS_MAX);
        let keeper = keep(keeper, inlet, Arc::clone(&wake), broken.clone())?;
        let workers = workers(&config);
        let (outlet, workers) = start_workers(workers, &chunks, |_| {
            Worker::new(
                rules.clone(),
                Arc::clone(&scene),
                Surroundings {
                    processes: Some(Arc::new(pipeline::running)),
                    ..Surroundings::of(zone.clone())
                },
                metrics.clone(),
                Arc::clone(&failed),
            )
        })?;
        drop(chunks);
        let sources = source::open(&config.sources, &metrics);
        let sources = start_sources(sources, &resume, &outlet, &stop, &health)?;
        drop(outlet);

        let forward_stop = CancellationToken::new();
        let forward = tokio::spawn(deliver(Delivery {
            spool: SharedSpool(spool),
            config: config.centre.clone(),
            state: config.state.clone(),
            reporter,
            wake,
            stop: forward_stop.clone(),
            metrics: metrics.clone(),
        }));
        let metrics_at = admin.as_ref().map(Admin::address);
        let admin = admin.map(|admin| {
            let exposition = metrics.exposition.clone();
            tokio::spawn(admin.serve(exposition, ready(broken.clone()), forward_stop.clone()))
        });
        Ok(Self {
            rules,
            failed,
            pulse,
            metrics_at,
            metrics,
            stop,
            gone,
            sources,
            workers,
            keeper,
            forward_stop,
            forward,
            admin,
            broken,
        })
    }

    /// Takes new rules; records read from now on are judged by them.
    pub fn reload(&self, ruleset: Ruleset, rejected: usize) {
        note_rules(&self.metrics, &ruleset, rejected, &[]);
        self.metrics.degraded.with_label_values(&["rules"]).set(0);
        self.rules.replace(ruleset);
    }

    /// Stops downstream: sources, workers, a last commit, then the forwarder with some grace.
    ///
    /// # Errors
    /// When the last commit failed: what it held is read again at the next start.
    pub async fn stop(self) -> Result<(), KeeperError> {
        self.stop.stop();
        self.gone.cancel();
        let (sources, workers, keeper) = (self.sources, self.workers, self.keeper);
        let outcome = tokio::task::spawn_blocking(move || {
            join(sources);
            join(workers);
            keeper.join()
        })
        .await;
        self.forward_stop.cancel();
        if tokio::time::timeout(GRACE * 2, self.forward).await.is_err() {
            warn!("the forwarder did not end in time; its alerts stay in the spool");
        }
        if let Some(admin) = self.admin
            && admin.await.is_err()
        {
            error!("the listener of /metrics ended by a panic");
        }
        match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                error!("the keeper ended by a panic; what it held is read again");
                Ok(())
            }
        }
    }
}

fn make_folder(path: &Path) -> Result<(), AgentError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|cause| AgentError::Folder {
            path: path.to_owned(),
            cause,
        })
}

fn zone(name: &str) -> Result<TimeZone, AgentError> {
    if name.is_empty() {
        return Ok(TimeZone::system());
    }
    TimeZone::get(name).map_err(|cause| AgentError::Zone(name.to_owned(), cause))
}

fn host(config: &Config) -> String {
    if !config.host.is_empty() {
        return config.host.clone();
    }
    report::host_name()
}

fn workers(config: &Config) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match config.workers {
        0 => cores.min(WORKERS_MAX),
        wanted => wanted.min(WORKERS_WANTED_MAX),
    }
}

fn announce(restored: &Restored) {
    if let Some(salvage) = &restored.salvaged {
        warn!(
            ?salvage,
            "the spool was damaged; it was set aside and what could be read was kept"
        );
    }
    info!(
        start = restored.start,
        streams = restored.progress.len(),
        folds = restored.folds.len(),
        windows = restored.windows.len(),
        "spool open"
    );
}

/// Seconds since the last commit, for sources that can't be read again.
fn unheard(config: &Config, restored: &Restored) -> u64 {
    let since = restored
        .last_commit
        .filter(|_| !config.sources.capture.is_empty());
    since
        .map(|since| Timestamp::now().duration_since(since).as_secs())
        .and_then(|seconds| u64::try_from(seconds).ok())
        .unwrap_or(0)
}

fn note_rules(metrics: &AgentMetrics, ruleset: &Ruleset, rejected: usize, degraded: &[String]) {
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let state = |name| metrics.rules.with_label_values(&[name]);
    state("loaded").set(count(ruleset.rules().count()));
    state("rejected").set(count(rejected));
    for what in degraded {
        metrics.degraded.with_label_values(&[what]).set(1);
    }
}

fn keep(
    keeper: Keeper,
    inlet: Receiver<Chunk>,
    wake: Arc<Notify>,
    broken: CancellationToken,
) -> Result<JoinHandle<Result<(), KeeperError>>, AgentError> {
    std::thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || {
            let _guard = broken.clone().drop_guard(); // also on a panic: the agent can't go on without it
            pipeline::keep(keeper, &inlet, &wake)
        })
        .map_err(AgentError::Thread)
}

fn start_workers(
    count: usize,
    chunks: &SyncSender<Chunk>,
    make: impl Fn(usize) -> Worker,
) -> Result<(Outlet, Vec<JoinHandle<()>>), AgentError> {
    let (mut senders, mut handles) = (Vec::new(), Vec::new());
    for number in 0..count {
        let (sender, inlet): (SyncSender<Inflow>, Receiver<Inflow>) = sync_channel(INFLOWS_MAX);
        let (worker, chunks) = (make(number), chunks.clone());
        let handle = std::thread::Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || worker.run(&inlet, &chunks))
            .map_err(AgentError::Thread)?;
        senders.push(sender);
        handles.push(handle);
    }
    Ok((Outlet::new(senders), handles))
}

fn start_sources(
    sources: Vec<Box<dyn Source>>,
    resume: &Resume,
    outlet: &Outlet,
    stop: &Stop,
    health: &Health,
) -> Result<Vec<JoinHandle<()>>, AgentError> {
    sources
        .into_iter()
        .map(|source| {
            let (resume, outlet) = (resume.clone(), outlet.clone());
            let (stop, health) = (stop.clone(), health.clone());
            let name = source.name();
            std::thread::Builder::new()
                .name(name.chars().take(15).collect())
                .spawn(move || {
                    if let Err(error) = source.run(resume, &outlet, &stop, &health) {
                        error!(source = %name, %error, "a source ended");
                        health.fault(
                            &crate::record::SourceId::new(&name),
                            Some(error.to_string()),
                        );
                    }
                })
                .map_err(AgentError::Thread)
        })
        .collect()
}

fn join(handles: Vec<JoinHandle<()>>) {
    for handle in handles {
        if handle.join().is_err() {
            error!("a thread ended by a panic; its records are read again");
        }
    }
}

fn ready(broken: CancellationToken) -> Ready {
    Arc::new(move || match broken.is_cancelled() {
        true => Err(vec!["the spool can't be written".to_owned()]),
        false => Ok(()),
    })
}
