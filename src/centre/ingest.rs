//! The agents' door: who asks is looked up on every request, and a 200 comes only after COMMIT.
//! Does not know people, and asks agents for nothing.

mod batch;
mod budget;
mod enrol;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router, middleware};
use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use self::batch::{BatchError, Judged, Packing, Sender};
use self::budget::{BATCHES_PER_AGENT, KIB};
pub use self::budget::{Budget, MEMORY_LEAST};
use crate::alert::Severity;
use crate::centre::auth::Auth;
use crate::centre::listen::read_body;
use crate::centre::problem::Problem;
use crate::centre::registry::{Ledger, Registry, losses};
use crate::centre::store::Store;
use crate::centre::store::agents::{Beat, Standing, State as AgentState};
use crate::centre::store::alerts::Batch;
use crate::centre::store::received::Range;
use crate::deliver::identity::{Ca, Peer};
use crate::deliver::wire::{
    self, Accepted, BATCH_BYTES_MAX, EPOCH_HEADER, Epoch, Heartbeat, HeartbeatAnswer, PATH_ALERTS,
    PATH_ENROL, PATH_HEARTBEAT, PATH_RENEW, RenewAnswer, RenewRequest, Seen,
};
use crate::metrics::CentreMetrics;

/// What the doors of agents need; cheap to clone.
#[derive(Clone)]
pub struct Doors {
    pub store: Store,
    pub registry: Arc<Registry>,
    pub auth: Arc<Auth>,
    pub ca: Arc<Ca>,
    pub metrics: CentreMetrics,
    pub places: Arc<Places>,
    pub budget: Budget,
}

/// Where agents send to: what an enrolled one is told.
#[derive(Debug)]
pub struct Places {
    /// Told as they are, if any.
    pub urls: Vec<String>,
    /// Else the one of these names that the host used, or the first.
    pub names: Vec<String>,
    pub port: u16,
}

impl Doors {
    fn urls(&self, asked: Option<&str>) -> Vec<String> {
        if !self.places.urls.is_empty() {
            return self.places.urls.clone();
        }
        let names = &self.places.names;
        let name = asked.filter(|asked| names.iter().any(|name| name == asked));
        name.or(names.first().map(String::as_str))
            .map(|name| {
                if name.contains(':') {
                    format!("https://[{name}]:{}", self.places.port)
                } else {
                    format!("https://{name}:{}", self.places.port)
                }
            })
            .into_iter()
            .collect()
    }
}

/// The routes behind the certificate of an agent.
pub fn agents_router(doors: Doors) -> Router {
    Router::new()
        .route(PATH_ALERTS, post(alerts))
        .route(PATH_HEARTBEAT, post(heartbeat))
        .route(PATH_RENEW, post(renew))
        .fallback(nothing_here)
        .method_not_allowed_fallback(async || Problem::not_allowed())
        .layer(DefaultBodyLimit::disable()) // each handler reads its body itself, within its own limit
        .layer(middleware::from_fn_with_state(doors.clone(), admit))
        .with_state(doors)
}

/// The one route for those who have no certificate yet.
pub fn enrolment_router(doors: Doors) -> Router {
    Router::new()
        .route(PATH_ENROL, post(enrol::enrol))
        .with_state(doors)
}

async fn nothing_here() -> Problem {
    Problem::not_found(
        "agents use /v1/alerts, /v1/heartbeat and /v1/renew; people use the other port",
    )
}

/// Looks the agent up, on every request: a connection may be older than a revocation.
async fn admit(
    State(doors): State<Doors>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let refused = |reason: &str, title, detail: &str| {
        doors
            .metrics
            .auth_failures
            .with_label_values(&[reason])
            .inc();
        Err(Problem::forbidden(title, detail))
    };
    let Some(peer) = request.extensions().get::<Arc<Peer>>().cloned() else {
        return refused(
            "no_certificate",
            "no certificate",
            "no certificate of an agent was shown",
        );
    };
    let Some(standing) = doors.registry.standing_of(peer.agent.as_str()).await? else {
        return refused(
            "unknown_agent",
            "this centre does not know the agent",
            "this centre does not know the agent: enrol the host again with a new token",
        );
    };
    match standing.state {
        AgentState::Active => {}
        AgentState::Quarantined => {
            return refused(
                "quarantined",
                "this agent is in quarantine",
                "this agent is in quarantine until an administrator lets it out",
            );
        }
        AgentState::Revoked => {
            return refused(
                "revoked",
                "this agent was revoked",
                "this agent was revoked: enrol the host again with a new token if it should be heard",
            );
        }
    }
    if request.uri().path() != PATH_RENEW && peer.has_expired(Timestamp::now()) {
        return refused(
            "expired",
            "the agent's certificate has expired",
            "the agent's certificate has expired: within 30 days of its end it may only renew",
        );
    }
    let route = route(request.uri().path());
    request.extensions_mut().insert(standing);
    let response = next.run(request).await;
    doors
        .metrics
        .requests
        .with_label_values(&[route, response.status().as_str()])
        .inc();
    Ok(response)
}

/// Label values come from a closed set.
fn route(path: &str) -> &'static str {
    [PATH_ALERTS, PATH_HEARTBEAT, PATH_RENEW]
        .into_iter()
        .find(|route| *route == path)
        .unwrap_or("other")
}

/// What alerts pack to, measured: 1,453 bytes to 205–225 in batches.
const PACKING_RATIO: usize = 8;

/// At least so much is set aside for one batch: the first step of unpacking and a small body.
const RESERVED_BYTES_MIN: usize = 320 * KIB;

/// POST /v1/alerts
async fn alerts(
    State(doors): State<Doors>,
    Extension(peer): Extension<Arc<Peer>>,
    Extension(standing): Extension<Standing>,
    request: Request,
) -> Result<Json<Accepted>, Problem> {
    let result = take_batch(&doors, &peer, standing, request).await;
    let word = match &result {
        Ok(answer) if answer.rejected.is_empty() => "accepted",
        Ok(_) => "some_rejected",
        Err(_) => "refused",
    };
    doors.metrics.batches.with_label_values(&[word]).inc();
    result.map(Json)
}

async fn take_batch(
    doors: &Doors,
    peer: &Peer,
    standing: Standing,
    request: Request,
) -> Result<Accepted, Problem> {
    let Some(_under_way) = doors.budget.begin(&peer.agent) else {
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many batches at once",
            format!("an agent may have {BATCHES_PER_AGENT} batches under way"),
        )
        .retry_after(1));
    };
    let epoch = epoch(request.headers())?;
    let packing = packing(request.headers())?;
    // Before the body is read: with `Expect: 100-continue` a busy centre spares the line.
    let told = content_length(request.headers()).unwrap_or(BATCH_BYTES_MAX);
    if told > BATCH_BYTES_MAX {
        return Err(Problem::too_large(format!(
            "the body may have {BATCH_BYTES_MAX} bytes"
        )));
    }
    let expected = match packing {
        Packing::Plain => told.saturating_mul(2),
        Packing::Zstd => told + told.saturating_mul(PACKING_RATIO).min(BATCH_BYTES_MAX),
    };
    let Some(reserved) = doors.budget.reserve(expected.max(RESERVED_BYTES_MIN)) else {
        return Err(Problem::overloaded("too many batches are under way"));
    };
    let body = read_body(request, BATCH_BYTES_MAX).await?;
    let start = Instant::now();
    let now = Timestamp::now();
    let sender = Sender {
        agent: peer.agent.to_string(),
        agency: standing.agency,
    };
    let agent = sender.agent.clone();
    let (judged, _reserved) = judge(doors, reserved, body, packing, sender).await?;
    let stored = doors
        .store
        .append(Batch {
            agent,
            epoch: epoch.0,
            numbers: judged.numbers,
            rows: judged.rows,
            received: now,
        })
        .await?;
    for (level, count) in Severity::ALL.into_iter().zip(stored.accepted) {
        doors
            .metrics
            .alerts
            .with_label_values(&[level.as_str()])
            .inc_by(count as u64);
    }
    doors.metrics.duplicates.inc_by(stored.duplicate as u64);
    for reason in judged.reasons {
        doors.metrics.rejected.with_label_values(&[reason]).inc();
    }
    doors
        .metrics
        .ingest_seconds
        .observe(start.elapsed().as_secs_f64());
    Ok(Accepted {
        accepted: stored.accepted(),
        duplicate: stored.duplicate,
        rejected: judged.rejected,
        time: now,
    })
}

/// Unpacks and parses away from the runtime's threads; the reservation grows with what comes out.
async fn judge(
    doors: &Doors,
    mut reserved: OwnedSemaphorePermit,
    body: bytes::Bytes,
    packing: Packing,
    sender: Sender,
) -> Result<(Judged, OwnedSemaphorePermit), Problem> {
    let fault = |_| Problem::overloaded("the centre is stopping");
    let place = doors
        .budget
        .unpackers
        .clone()
        .acquire_owned()
        .await
        .map_err(fault)?;
    let budget = doors.budget.clone();
    let packer = doors.store.packing().packer();
    let work = move || {
        let _place = place;
        let mut used = body.len();
        let unpacked = batch::unpack(&body, packing, |bytes| {
            used += bytes;
            let held = reserved.num_permits() * KIB;
            if used <= held {
                return true;
            }
            match budget.reserve(used - held) {
                Some(more) => {
                    reserved.merge(more);
                    true
                }
                None => false,
            }
        })?;
        let judged = batch::judge(&unpacked, &sender, &packer)?;
        Ok((judged, reserved))
    };
    let judged = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Problem::overloaded("the batch could not be worked on"))?;
    judged.map_err(|fault: BatchError| match &fault {
        BatchError::Bytes | BatchError::Lines => Problem::too_large(fault.to_string()),
        BatchError::Memory => Problem::overloaded(fault.to_string()),
        BatchError::Packing(cause) => {
            debug!(error = %cause, "a batch cannot be unpacked");
            Problem::bad_request(fault.to_string())
        }
    })
}

fn epoch(headers: &HeaderMap) -> Result<Epoch, Problem> {
    let value = headers
        .get(EPOCH_HEADER)
        .ok_or_else(|| Problem::bad_request("the header Canhgac-Epoch is missing"))?;
    value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Problem::bad_request("the header Canhgac-Epoch must be 16 hex digits"))
}

fn packing(headers: &HeaderMap) -> Result<Packing, Problem> {
    match headers
        .get(header::CONTENT_ENCODING)
        .map(axum::http::HeaderValue::as_bytes)
    {
        None | Some(b"identity") => Ok(Packing::Plain),
        Some(b"zstd") => Ok(Packing::Zstd),
        Some(_) => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unknown packing",
            "send zstd or nothing as Content-Encoding",
        )),
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// 200 sources with a fault each, and a ledger of 200 ranges, are about 100 KiB.
const HEARTBEAT_BYTES_MAX: usize = 256 * KIB;
/// Seconds; the agent adds its own ± 10 %.
const HEARTBEAT_EVERY: u64 = 60;

/// POST /v1/heartbeat
async fn heartbeat(
    State(doors): State<Doors>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Json<HeartbeatAnswer>, Problem> {
    let body = read_body(request, HEARTBEAT_BYTES_MAX).await?;
    let beat: Heartbeat = serde_json::from_slice(&body).map_err(|fault| {
        Problem::bad_request(format!("not a heartbeat: {}", batch::words(&fault)))
    })?;
    let epoch = beat.ledger.epoch;
    let (received, next) = doors.store.received(peer.agent.as_str(), epoch.0).await?;
    let losses = losses(&ledger(&beat.ledger), &received);
    let payload = serde_json::to_string(&beat)
        .map_err(|_| Problem::bad_request("the heartbeat cannot be stored"))?;
    let now = Timestamp::now();
    doors
        .store
        .heartbeat(Beat {
            agent: peer.agent.to_string(),
            received: now,
            clock: beat.clock,
            version: beat.version,
            payload,
            epoch: epoch.0,
            unexplained: losses.unexplained,
            stated: losses.stated,
        })
        .await?;
    doors.metrics.heartbeats.inc();
    Ok(Json(HeartbeatAnswer {
        time: now,
        bundle: None,
        next_in: HEARTBEAT_EVERY,
        seen: next.map(|next| Seen { epoch, next }),
    }))
}

fn ledger(said: &wire::Ledger) -> Ledger {
    Ledger {
        next: said.next,
        waiting: said
            .waiting
            .iter()
            .map(|range| Range {
                first: range.from,
                last: range.to,
            })
            .collect(),
        given_up: said
            .given_up
            .iter()
            .map(|given| {
                let range = Range {
                    first: given.from,
                    last: given.to,
                };
                (range, given.count)
            })
            .collect(),
    }
}

/// A request for a certificate has about 400 bytes.
const RENEW_BYTES_MAX: usize = 16 * KIB;

/// POST /v1/renew
async fn renew(
    State(doors): State<Doors>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Result<Json<RenewAnswer>, Problem> {
    let body = read_body(request, RENEW_BYTES_MAX).await?;
    let asked: RenewRequest = serde_json::from_slice(&body).map_err(|fault| {
        Problem::bad_request(format!("expected {{csr}}: {}", batch::words(&fault)))
    })?;
    let certificate = enrol::sign(&doors, &asked.csr, &peer.agent, Timestamp::now())?;
    Ok(Json(RenewAnswer { certificate }))
}
