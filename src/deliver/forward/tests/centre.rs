//! A centre that says what a test wants it to say, over real TLS; a queue in memory; an agent between them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::ServerConfig;
use serde_json::json;
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::alert::Severity;
use crate::deliver::forward::{
    Address, Config, Forward, ForwardError, Queue, QueueError, State, Status, Timing,
};
use crate::deliver::identity::{
    AgentId, Ca, Identity, NewAgent, NewKey, Peer, ServerKeys, agents_listener, people_listener,
};
use crate::deliver::spool::{Batch, Row, RowId};
use crate::deliver::wire::{
    Accepted, Epoch, Heartbeat, HeartbeatAnswer, Ledger, PATH_ALERTS, PATH_HEARTBEAT, RawLine,
    Rejected, Seen, Sequence,
};
use crate::metrics::AgentMetrics;

/// A test that waits longer has failed.
const DEADLINE: Duration = Duration::from_secs(20);

/// An authority and its server certificate, in a folder of their own.
pub struct Site {
    pub folder: TempDir,
    pub ca: Ca,
    pub server: Arc<ServerKeys>,
}

impl Site {
    pub fn new() -> Self {
        Self::at(Timestamp::now())
    }

    pub fn at(now: Timestamp) -> Self {
        let folder = TempDir::new().unwrap();
        let ca = Ca::open(&folder.path().join("ca"), now).unwrap();
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let server = Arc::new(ServerKeys::open(&ca, &names, now).unwrap());
        Self { folder, ca, server }
    }

    pub fn for_agents(&self) -> Arc<ServerConfig> {
        agents_listener(&self.ca, Arc::clone(&self.server)).unwrap()
    }

    pub fn for_people(&self) -> Arc<ServerConfig> {
        people_listener(Arc::clone(&self.server)).unwrap()
    }

    /// Signs up an agent as of a time, and says that the authority to trust is `trusted`'s.
    pub fn agent_trusting(&self, trusted: &Ca, now: Timestamp) -> Identity {
        let (key, agent) = (NewKey::random().unwrap(), AgentId::random());
        let request = key.request().unwrap();
        let new = NewAgent {
            agent: &agent,
            agency: "hcm/so-y-te",
            urls: &[],
            certificate: &self.ca.sign_agent(&request, &agent, now).unwrap(),
            authority: trusted.pem(),
        };
        let folder = self.folder.path().join(agent.as_str());
        Identity::create(&folder, &key, &new).unwrap()
    }

    pub fn agent(&self) -> Identity {
        self.agent_trusting(&self.ca, Timestamp::now())
    }
}

/// What arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub peer: Option<Peer>,
    pub at: Instant,
}

impl Received {
    /// The numbers of the lines of a batch.
    pub fn numbers(&self) -> Vec<u64> {
        assert_eq!(self.path, PATH_ALERTS);
        let lines =
            zstd::bulk::decompress(&self.body, crate::deliver::wire::BATCH_BYTES_MAX).unwrap();
        String::from_utf8(lines)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str::<RawLine>(line).unwrap().seq.0)
            .collect()
    }
}

pub type Reply = Response<Full<Bytes>>;

pub fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status.try_into().unwrap();
    reply
}

pub fn problem(status: u16, detail: &str) -> Reply {
    let body = json!({"title": "t", "status": status, "detail": detail});
    reply(status, body.to_string())
}

pub fn later(status: u16, seconds: &str) -> Reply {
    let mut reply = reply(status, "");
    let value = seconds.parse().unwrap();
    reply.headers_mut().insert("retry-after", value);
    reply
}

/// What a centre that has no objections says.
pub fn welcome(received: &Received) -> Reply {
    let time = Timestamp::now();
    let body = match received.path.as_str() {
        PATH_ALERTS => serde_json::to_string(&Accepted {
            accepted: received.numbers().len(),
            duplicate: 0,
            rejected: vec![],
            time,
        }),
        PATH_HEARTBEAT => serde_json::to_string(&HeartbeatAnswer {
            time,
            bundle: None,
            next_in: 60,
            seen: None,
        }),
        other => panic!("{other}"),
    };
    reply(200, body.unwrap())
}

pub fn rejecting(received: &Received, indices: &[usize]) -> Reply {
    let rejected = indices.iter().map(|&index| Rejected {
        index,
        id: None,
        why: "wrong agency".to_owned(),
    });
    let accepted = Accepted {
        accepted: received.numbers().len() - indices.len(),
        duplicate: 0,
        rejected: rejected.collect(),
        time: Timestamp::now(),
    };
    reply(200, serde_json::to_string(&accepted).unwrap())
}

/// How a request is met.
pub enum Met {
    Reply(Reply),
    /// The connection ends without an answer.
    Cut,
    /// No answer comes.
    Silence,
}

impl From<Reply> for Met {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

/// A server on loopback; ends with the test's runtime.
#[derive(Clone)]
pub struct Centre {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    changed: Arc<Notify>,
}

impl Centre {
    /// `meets` is told how many requests to the same path came before.
    pub async fn start<M: Into<Met>>(
        tls: Arc<ServerConfig>,
        meets: impl Fn(&Received, usize) -> M + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let centre = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            changed: Arc::default(),
        };
        let meets: Meets = Arc::new(move |received, before| meets(received, before).into());
        let served = centre.clone();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(tls);
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (acceptor, served, meets) = (acceptor.clone(), served.clone(), meets.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let certificates = stream.get_ref().1.peer_certificates();
                    let peer = certificates.map(|shown| Peer::read(&shown[0]).unwrap());
                    let answer = service_fn(|request| served.meet(request, &peer, &meets));
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        centre
    }

    pub fn url(&self) -> Address {
        format!("https://{}", self.address).parse().unwrap()
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Requests to a path, once there are so many.
    pub async fn requests(&self, path: &str, count: usize) -> Vec<Received> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                let mut received = self.received();
                received.retain(|received| received.path == path);
                if received.len() >= count {
                    return received;
                }
                changed.await;
            }
        };
        timeout(DEADLINE, wait)
            .await
            .unwrap_or_else(|_| panic!("{count} of {path} in {:?}", self.received()))
    }

    async fn meet(
        &self,
        request: Request<Incoming>,
        peer: &Option<Peer>,
        meets: &Meets,
    ) -> Result<Reply, Gone> {
        let (parts, body) = request.into_parts();
        let received = Received {
            path: parts.uri.path().to_owned(),
            headers: parts.headers,
            body: body.collect().await.map_err(|_| Gone)?.to_bytes(),
            peer: peer.clone(),
            at: Instant::now(),
        };
        let same_path = |other: &&Received| other.path == received.path;
        let before = self.received().iter().filter(same_path).count();
        let met = meets(&received, before);
        self.received.lock().unwrap().push(received);
        self.changed.notify_waiters();
        match met {
            Met::Reply(reply) => Ok(reply),
            Met::Cut => Err(Gone),
            Met::Silence => std::future::pending().await,
        }
    }
}

type Meets = Arc<dyn Fn(&Received, usize) -> Met + Send + Sync>;

#[derive(Debug, thiserror::Error)]
#[error("gone")]
pub struct Gone;

/// A queue in memory: rows in order, no levels.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    next: u64,
    waiting: BTreeMap<u64, String>,
    dead: Vec<(u64, String)>,
    seen: Vec<Seen>,
}

pub const EPOCH: Epoch = Epoch(0xfeed);

impl Memory {
    pub fn of(alerts: usize) -> Self {
        let memory = Self::default();
        (0..alerts).for_each(|number| memory.append(&format!(r#"{{"n":{number}}}"#)));
        memory
    }

    pub fn append(&self, alert: &str) {
        let mut rows = self.0.lock().unwrap();
        rows.next += 1;
        let number = rows.next;
        rows.waiting.insert(number, alert.to_owned());
    }

    pub fn waiting(&self) -> Vec<u64> {
        self.0.lock().unwrap().waiting.keys().copied().collect()
    }

    pub fn dead(&self) -> Vec<(u64, String)> {
        self.0.lock().unwrap().dead.clone()
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }
}

impl Queue for Memory {
    async fn next(&self, lines_max: usize, bytes_max: usize) -> Result<Batch, QueueError> {
        let rows = self.0.lock().unwrap();
        let mut bytes = 0;
        let row = |(&number, alert): (&u64, &String)| {
            bytes += alert.len();
            (bytes <= bytes_max).then(|| Row {
                id: RowId {
                    epoch: EPOCH,
                    seq: Sequence(number),
                },
                seq: Sequence(number),
                level: Severity::Low,
                alert: RawValue::from_string(alert.clone()).unwrap(),
            })
        };
        Ok(Batch {
            epoch: EPOCH,
            rows: rows.waiting.iter().take(lines_max).map_while(row).collect(),
        })
    }

    async fn done(&self, done: &[RowId], rejected: &[(RowId, String)]) -> Result<(), QueueError> {
        let mut rows = self.0.lock().unwrap();
        for row in done {
            rows.waiting.remove(&row.seq.0).unwrap();
        }
        for (row, why) in rejected {
            let number = row.seq.0;
            rows.waiting.remove(&number).unwrap();
            rows.dead.push((number, why.clone()));
        }
        Ok(())
    }

    async fn ledger(&self) -> Result<Ledger, QueueError> {
        Ok(Ledger {
            epoch: EPOCH,
            next: self.0.lock().unwrap().next + 1,
            waiting: vec![],
            given_up: vec![],
        })
    }

    async fn seen(&self, seen: Seen) -> Result<(), QueueError> {
        self.0.lock().unwrap().seen.push(seen);
        Ok(())
    }
}

/// A forwarder at work.
pub struct Agent {
    pub queue: Memory,
    pub status: Status,
    pub metrics: AgentMetrics,
    pub wake: Arc<Notify>,
    pub stop: CancellationToken,
    running: JoinHandle<Result<(), ForwardError>>,
}

/// The product's timing with the waits of a test.
pub fn quick() -> Timing {
    Timing {
        request: Duration::from_secs(5),
        continue_grace: Duration::from_millis(100),
        backoff_base: Duration::from_millis(10),
        backoff_max: Duration::from_millis(50),
        refused_min: Duration::from_millis(50),
        refused_max: Duration::from_millis(100),
        heartbeat: Duration::from_secs(60),
        renewal_retry: Duration::from_millis(50),
    }
}

impl Agent {
    pub fn start(identity: Identity, queue: Memory, urls: &[Address]) -> Self {
        let config = Config {
            urls: urls.to_vec(),
            ..Config::default()
        };
        Self::start_with(identity, queue, config, quick(), Status::default())
    }

    pub fn start_with(
        identity: Identity,
        queue: Memory,
        config: Config,
        timing: Timing,
        status: Status,
    ) -> Self {
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let metrics = AgentMetrics::default();
        let forward = Forward {
            queue: queue.clone(),
            identity,
            config,
            timing,
            heartbeat,
            wake: Arc::clone(&wake),
            stop: stop.clone(),
            metrics: metrics.clone(),
            status: status.clone(),
        };
        Self {
            queue,
            status,
            metrics,
            wake,
            stop,
            running: tokio::spawn(forward.run()),
        }
    }

    pub async fn stop(self) {
        self.stop.cancel();
        let ended = timeout(DEADLINE, self.running).await;
        ended.expect("it ends in time").unwrap().unwrap();
    }

    /// Waits until the status is as wanted.
    pub async fn status(&self, what: &str, wanted: impl Fn(&State) -> bool) -> State {
        eventually(what, || {
            let state = self.status.get();
            wanted(&state).then_some(state)
        })
        .await
    }
}

/// Waits for something to be there; looks each millisecond, and gives up at the deadline.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < DEADLINE, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn heartbeat(ledger: Ledger) -> Heartbeat {
    Heartbeat {
        version: "0".to_owned(),
        machine: "m".to_owned(),
        boot: "b".to_owned(),
        host: "h".to_owned(),
        rules: "r".to_owned(),
        ledger,
        sources: vec![],
        drops: BTreeMap::new(),
        degraded: vec![],
        clock: Timestamp::now(),
    }
}

/// A server that speaks bytes: each connection is given to `serve`.
pub async fn raw<F: Future<Output = ()> + Send>(
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let serve = Arc::new(serve);
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let serve = Arc::clone(&serve);
            tokio::spawn(async move { serve(tcp).await });
        }
    });
    address
}
