//! From a queue to a centre: batches, acknowledgements, heartbeats, renewal; retries that neither hurry nor give up.
//!
//! The queue is the agent's spool, or a centre's table of what its parent is to have. Decides nothing about
//! what is kept: a row leaves the queue when the centre has answered for exactly this row.

mod address;
mod answer;
mod batch;
mod client;
mod connect;
mod enrol;
mod exchange;
mod pace;
mod status;
mod work;

pub use address::{Address, AddressError, Exception, Proxy};
pub use client::{Bearer, Client, ClientError, query};
pub use connect::{ConnectError, Dialer, NOT_ENROLLED};
pub use enrol::{EnrolError, Enrolment, enrol};
pub use exchange::{Answer, ExchangeError};
pub use pace::{RETRY_AFTER_MAX, Timing};
pub use status::{State, Status};

use std::error::Error as StdError;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::deliver::forward::work::Worker;
use crate::deliver::identity::Identity;
use crate::deliver::spool::{Batch, RowId, Spool, SpoolError};
use crate::deliver::wire::{Heartbeat, Ledger, Seen};
use crate::metrics::AgentMetrics;

/// What is forwarded from.
pub trait Queue: Send + Sync + 'static {
    /// Returns what to send next, the most severe first; without rows if nothing waits.
    fn next(
        &self,
        lines_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Batch, QueueError>> + Send;

    /// The centre has `rows`; it will never take those rejected. No row is in both.
    fn done(
        &self,
        rows: &[RowId],
        rejected: &[(RowId, String)],
    ) -> impl Future<Output = Result<(), QueueError>> + Send;

    fn ledger(&self) -> impl Future<Output = Result<Ledger, QueueError>> + Send;

    /// What the centre says it has.
    fn seen(&self, seen: Seen) -> impl Future<Output = Result<(), QueueError>> + Send;
}

/// A queue that can't be read or written now. It is tried again.
#[derive(Debug, Error)]
#[error("cannot use the queue")]
pub struct QueueError(#[source] Box<dyn StdError + Send + Sync>);

impl QueueError {
    pub fn new(source: impl StdError + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

/// The spool as a queue: its one connection is behind a mutex and blocks.
#[derive(Clone)]
pub struct SharedSpool(pub Arc<Mutex<Spool>>);

impl SharedSpool {
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Spool) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, QueueError> {
        let spool = Arc::clone(&self.0);
        // A transaction rolls back when its thread panics: the connection behind a poisoned lock is sound.
        let work = move || work(&mut spool.lock().unwrap_or_else(PoisonError::into_inner));
        match spawn_blocking(work).await {
            Ok(result) => result.map_err(QueueError::new),
            Err(panicked) => Err(QueueError::new(panicked)),
        }
    }
}

impl Queue for SharedSpool {
    async fn next(&self, lines_max: usize, bytes_max: usize) -> Result<Batch, QueueError> {
        self.with(move |spool| spool.next(lines_max, bytes_max))
            .await
    }

    async fn done(&self, rows: &[RowId], rejected: &[(RowId, String)]) -> Result<(), QueueError> {
        let (rows, rejected) = (rows.to_vec(), rejected.to_vec());
        self.with(move |spool| spool.done(&rows, &rejected, Timestamp::now()))
            .await
    }

    async fn ledger(&self) -> Result<Ledger, QueueError> {
        self.with(|spool| spool.ledger()).await
    }

    async fn seen(&self, seen: Seen) -> Result<(), QueueError> {
        self.with(move |spool| spool.seen(seen).map(drop)).await
    }
}

/// Where alerts go, and by which way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// In place of those told at enrolment.
    pub urls: Vec<Address>,
    pub proxy: Option<Proxy>,
    pub no_proxy: Vec<Exception>,
    /// How long a stop waits for what can still be sent. The spool keeps the rest.
    pub stop_grace_seconds: u16,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            proxy: None,
            no_proxy: Vec::new(),
            stop_grace_seconds: 5,
        }
    }
}

impl Config {
    pub fn dialer(&self) -> Dialer {
        Dialer {
            proxy: self.proxy.clone(),
            no_proxy: self.no_proxy.clone(),
        }
    }
}

/// All that forwarding needs.
pub struct Forward<Q, H> {
    pub queue: Q,
    pub identity: Identity,
    pub config: Config,
    pub timing: Timing,
    /// Makes what is sent each minute; only asked when a heartbeat goes.
    pub heartbeat: H,
    /// `notify_one()` after each commit that added alerts.
    pub wake: Arc<Notify>,
    pub stop: CancellationToken,
    pub metrics: AgentMetrics,
    pub status: Status,
}

#[derive(Debug, Error)]
pub enum ForwardError {
    #[error("neither the configuration nor the enrolment names a centre to send to")]
    NoUrl,
    #[error("the centre's address from the enrolment cannot be used")]
    Url(#[source] AddressError),
}

impl<Q, H> Forward<Q, H>
where
    Q: Queue,
    H: Fn(Ledger) -> Heartbeat + Send + Sync,
{
    /// Runs until `stop`, and then as long as something can be sent, at most the grace.
    ///
    /// # Errors
    /// There is nowhere to send to. All that can go wrong later is tried again.
    pub async fn run(self) -> Result<(), ForwardError> {
        let stop = self.stop.clone();
        let grace = Duration::from_secs(self.config.stop_grace_seconds.into());
        let status = self.status.clone();
        let mut worker = Worker::new(self)?;
        {
            let out_of_time = async {
                stop.cancelled().await;
                tokio::time::sleep(grace).await;
            };
            // What is cut off stays in the queue: it was not acknowledged.
            tokio::select! {
                () = worker.work() => {}
                () = out_of_time => {}
            }
        }
        status.flush().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
