//! The loop: what is due, is done; what went wrong decides how long to wait.

mod note;

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::{Method, Request};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use crate::deliver::forward::address::Address;
use crate::deliver::forward::answer::{Fault, accounts_for, judge, read};
use crate::deliver::forward::batch::{LINE_OVERHEAD, Packed, pack};
use crate::deliver::forward::connect::Settle;
use crate::deliver::forward::exchange::{Answer, ExchangeError, Link, Outbound, chain};
use crate::deliver::forward::pace::{Pace, heartbeat_in, spread};
use crate::deliver::forward::status::tame;
use crate::deliver::forward::{Forward, ForwardError, Queue, QueueError};
use crate::deliver::identity::{Identity, IdentityError, JudgedTime, mutual_client};
use crate::deliver::spool::RowId;
use crate::deliver::wire::{
    Accepted, BATCH_BYTES_MAX, BATCH_LINES_MAX, EPOCH_HEADER, Heartbeat, HeartbeatAnswer, Ledger,
    PATH_ALERTS, PATH_HEARTBEAT, PATH_RENEW, RenewAnswer, RenewRequest, Seen,
};

/// What runs until the stop.
pub struct Worker<Q, H> {
    parts: Forward<Q, H>,
    time: Arc<JudgedTime>,
    urls: Vec<Address>,
    /// Which of them is in use.
    at: usize,
    /// How many of them failed since one worked.
    tried: usize,
    link: Option<Link>,
    pace: Pace,
    /// Shrinks when a batch was too large or too slow, grows back with each that went.
    lines_max: usize,
    beat_at: Instant,
    renew_at: Instant,
}

enum Step {
    Did,
    Idle,
}

/// 1,000 rejections, each with its index, id and a reason of 190 bytes, are the largest honest answer.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

impl<Q, H> Worker<Q, H>
where
    Q: Queue,
    H: Fn(Ledger) -> Heartbeat + Send + Sync,
{
    pub fn new(parts: Forward<Q, H>) -> Result<Self, ForwardError> {
        let told = parts.identity.urls.iter().map(|url| url.parse());
        let urls = match parts.config.urls.as_slice() {
            [] => told
                .collect::<Result<Vec<_>, _>>()
                .map_err(ForwardError::Url)?,
            urls => urls.to_vec(),
        };
        if urls.is_empty() {
            return Err(ForwardError::NoUrl);
        }
        let now = Instant::now();
        Ok(Self {
            time: Arc::new(JudgedTime::new(parts.status.get().told)),
            parts,
            urls,
            at: 0,
            tried: 0,
            link: None,
            pace: Pace::default(),
            lines_max: BATCH_LINES_MAX,
            beat_at: now,
            renew_at: now,
        })
    }

    /// Returns after a stop, when nothing waits or the centre can't be had.
    pub async fn work(&mut self) {
        self.note_certificate().await;
        let stop = self.parts.stop.clone();
        let wake = Arc::clone(&self.parts.wake);
        loop {
            match self.step().await {
                Ok(Step::Did) => {}
                Ok(Step::Idle) if stop.is_cancelled() => return,
                Ok(Step::Idle) => {
                    let due = self.beat_at;
                    tokio::select! {
                        () = wake.notified() => {}
                        () = sleep_until(due) => {}
                        () = stop.cancelled() => {}
                    }
                }
                Err(_) if stop.is_cancelled() => return,
                Err(fault) => {
                    let delay = self.note(&fault).await;
                    tokio::select! {
                        () = sleep(delay) => {}
                        () = stop.cancelled() => {
                            // Once more before the end, unless the centre said no.
                            if fault.is_refusal() || matches!(fault, Fault::Wait(_)) {
                                return;
                            }
                        }
                    }
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Step, Fault> {
        let now = Instant::now();
        let is_due = self.parts.identity.renewal_is_due(self.time.now());
        if is_due && now >= self.renew_at {
            self.renew().await?;
        }
        // First on each new connection too: a centre that was restored from a copy must be found before the next
        // numbers reach it, which would hide that it lacks older ones.
        if now >= self.beat_at || !self.link.as_ref().is_some_and(Link::is_open) {
            self.beat().await?;
        }
        self.send_batch().await
    }

    async fn beat(&mut self) -> Result<(), Fault> {
        let ledger = self.parts.queue.ledger().await?;
        let epoch = ledger.epoch;
        let heartbeat = (self.parts.heartbeat)(ledger);
        let sent = match self.post_json(PATH_HEARTBEAT, &heartbeat).await {
            Ok(body) => read::<HeartbeatAnswer>(&body),
            Err(fault) => Err(fault),
        };
        let answer = match sent {
            Ok(answer) => answer,
            // A centre that chokes on what an agent says of itself still takes alerts.
            Err(fault @ (Fault::Status { .. } | Fault::Answer(_) | Fault::TooLarge)) => {
                warn!(error = %chain(&fault), "heartbeat not taken");
                self.beat_at = Instant::now() + spread(self.parts.timing.heartbeat, random());
                return Ok(());
            }
            Err(fault) => return Err(fault),
        };
        self.beat_at = Instant::now() + heartbeat_in(answer.next_in, random());
        self.note_time(answer.time);
        // A centre that knows nothing of this epoch was restored to before it: all that it acknowledged goes again.
        let seen = answer.seen.unwrap_or(Seen { epoch, next: 1 });
        self.parts.queue.seen(seen).await?;
        self.note_success().await;
        Ok(())
    }

    async fn send_batch(&mut self) -> Result<Step, Fault> {
        // The queue counts alerts; the lines around them must fit too.
        let bytes_max = BATCH_BYTES_MAX - BATCH_LINES_MAX * LINE_OVERHEAD;
        let batch = self.parts.queue.next(self.lines_max, bytes_max).await?;
        if batch.rows.is_empty() {
            return Ok(Step::Idle);
        }
        let packed = spawn_blocking(move || pack(&batch))
            .await
            .unwrap_or_else(|error| Err(error.into()))
            .map_err(Fault::Pack)?;
        match self.post_batch(&packed).await {
            Ok(accepted) => {
                self.acknowledge(&packed.rows, accepted).await?;
                self.lines_max = self.lines_max.saturating_mul(2).min(BATCH_LINES_MAX);
                Ok(Step::Did)
            }
            Err(fault) => {
                self.note_batch(&fault);
                self.shrink(&packed.rows, fault).await
            }
        }
    }

    async fn post_batch(&mut self, packed: &Packed) -> Result<Accepted, Fault> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH_ALERTS)
            .header(CONTENT_TYPE, "application/x-ndjson")
            .header(CONTENT_ENCODING, "zstd")
            .header(EPOCH_HEADER, packed.epoch.to_string())
            .body(packed.body.clone())
            .map_err(Fault::Request)?;
        let body = self.post(request).await?;
        let accepted: Accepted = read(&body)?;
        accounts_for(&accepted, packed.rows.len())
            .then_some(accepted)
            .ok_or(Fault::Unaccounted)
    }

    /// Takes exactly the rows of this request from the queue.
    async fn acknowledge(&mut self, sent: &[RowId], accepted: Accepted) -> Result<(), Fault> {
        let mut taken: Vec<Option<RowId>> = sent.iter().copied().map(Some).collect();
        let mut rejected = Vec::with_capacity(accepted.rejected.len());
        for rejection in accepted.rejected {
            let row = taken.get_mut(rejection.index).and_then(Option::take);
            rejected.extend(row.map(|row| (row, tame(&rejection.why))));
        }
        let taken: Vec<RowId> = taken.into_iter().flatten().collect();
        let (sent, dead) = (taken.len() as u64, rejected.len() as u64);
        if let Some((_, why)) = rejected.first() {
            warn!(count = dead, %why, "the centre will never take these alerts");
        }
        self.parts.queue.done(&taken, &rejected).await?;
        self.parts.metrics.alerts_sent.inc_by(sent);
        self.parts.metrics.dead_letters.inc_by(dead);
        self.count_batch("accepted");
        self.note_time(accepted.time);
        self.note_success().await;
        Ok(())
    }

    /// Halves what is sent next if the last was too large: for the centre, for the line, or by its answer.
    async fn shrink(&mut self, sent: &[RowId], fault: Fault) -> Result<Step, Fault> {
        match (&fault, sent) {
            (Fault::TooLarge, [row]) => {
                let why = "too large for the centre, alone".to_owned();
                self.parts.queue.done(&[], &[(*row, why)]).await?;
                self.parts.metrics.dead_letters.inc();
                Ok(Step::Did)
            }
            (Fault::TooLarge, _) => {
                self.lines_max = (sent.len() / 2).max(1);
                Ok(Step::Did)
            }
            (Fault::Exchange(ExchangeError::Slow(_) | ExchangeError::AnswerTooLarge { .. }), _) => {
                self.lines_max = (sent.len() / 2).max(1);
                Err(fault)
            }
            _ => Err(fault),
        }
    }

    /// Asks for a certificate for a new key. If that fails while the old one holds, the rest goes on.
    async fn renew(&mut self) -> Result<(), Fault> {
        self.renew_at = Instant::now() + spread(self.parts.timing.renewal_retry, random());
        let renewed = self.try_renew().await;
        let Err(fault) = renewed else { return Ok(()) };
        if self.time.now() > self.parts.identity.pair().not_after() {
            // Nothing else will be answered: the next try must not wait an hour.
            self.renew_at = Instant::now();
            return Err(fault);
        }
        warn!(error = %chain(&fault), "cannot renew the certificate yet");
        Ok(())
    }

    async fn try_renew(&mut self) -> Result<(), Fault> {
        let csr = self
            .with_identity(|identity| identity.renewal_request())
            .await?;
        let body = self.post_json(PATH_RENEW, &RenewRequest { csr }).await?;
        let answer: RenewAnswer = read(&body)?;
        self.with_identity(move |identity| identity.try_renewed(&answer.certificate))
            .await?;
        // The next request connects with the new pair.
        self.link = None;
        Ok(())
    }

    async fn post_json(
        &mut self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<Bytes, Fault> {
        let body = serde_json::to_vec(body).map_err(Fault::Answer)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(CONTENT_TYPE, "application/json")
            .body(body.into())
            .map_err(Fault::Request)?;
        self.post(request).await
    }

    /// Sends a request and judges the answer; a pair on trial is kept or dropped by it.
    async fn post(&mut self, request: Request<Bytes>) -> Result<Bytes, Fault> {
        let result = match self.exchange(&request).await {
            Ok(answer) => judge(answer),
            Err(error) => Err(error),
        };
        if self.parts.identity.is_on_trial() {
            match &result {
                Ok(_) => self.keep_renewed().await,
                Err(fault) if fault.is_refusal() => {
                    self.drop_renewed().await?;
                    let again = self.exchange(&request).await?;
                    return judge(again);
                }
                Err(_) => {}
            }
        }
        result
    }

    async fn exchange(&mut self, request: &Request<Bytes>) -> Result<Answer, Fault> {
        loop {
            let mut link = match self.link.take().filter(Link::is_open) {
                Some(link) => link,
                None => self.connect().await?,
            };
            let was_used = link.is_used;
            let outbound = Outbound {
                request: request.clone(),
                answer_max: ANSWER_BYTES_MAX,
                within: self.parts.timing.request,
                continue_grace: self.parts.timing.continue_grace,
            };
            let url = self.url().clone();
            match link.exchange(&url, outbound).await {
                Ok(answer) => {
                    // A refused batch may have left half a body behind.
                    self.link = Some(link).filter(|_| answer.status.is_success());
                    return Ok(answer);
                }
                // The server closed the connection while it was idle. All requests may be sent twice.
                Err(ExchangeError::Broke(_)) if was_used => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn connect(&mut self) -> Result<Link, Fault> {
        let identity = &self.parts.identity;
        let tls = mutual_client(
            identity.authority(),
            identity.pair(),
            Arc::clone(&self.time),
        )?;
        let dialer = self.parts.config.dialer();
        let link = Link::open(&dialer, self.url(), tls, Settle::Yes).await?;
        let url = self.url().to_string();
        debug!(%url, "connected");
        self.parts
            .status
            .update(|state| state.url = Some(url))
            .await;
        Ok(link)
    }

    fn url(&self) -> &Address {
        &self.urls[self.at]
    }
}

/// The identity, while it is renewed.
impl<Q, H> Worker<Q, H> {
    async fn keep_renewed(&mut self) {
        match self.with_identity(Identity::keep_renewed).await {
            Ok(()) => {
                info!("the certificate is renewed");
                self.note_certificate().await;
            }
            // Both pairs stand; the next success tries again.
            Err(fault) => warn!(error = %chain(&fault), "cannot keep the renewed certificate yet"),
        }
    }

    async fn drop_renewed(&mut self) -> Result<(), Fault> {
        warn!("the renewed certificate was refused; going on with the old one");
        self.link = None;
        self.with_identity(Identity::drop_renewed).await
    }

    /// Works on the identity's files off the runtime's threads.
    async fn with_identity<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Identity) -> Result<T, IdentityError> + Send + 'static,
    ) -> Result<T, Fault> {
        let mut identity = self.parts.identity.clone();
        let worked = spawn_blocking(move || (work(&mut identity), identity)).await;
        match worked {
            Ok((result, identity)) => {
                self.parts.identity = identity;
                Ok(result?)
            }
            Err(panicked) => Err(QueueError::new(panicked).into()),
        }
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without chance the middle of each span is taken.
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => u64::MAX / 2,
    }
}
