//! Who should be heard and who is: every agent's standing, in memory for each request, and what is missing of
//! each one's numbers. Does not know the wire.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::centre::store::agents::{Standing, State};
use crate::centre::store::received::Range;
use crate::centre::store::{Store, StoreError};
use crate::metrics::CentreMetrics;

/// How long a revoked agent may still be heard, at most: the table is compared this often with the store, which
/// another process may have changed.
pub const REFRESH_EVERY: Duration = Duration::from_secs(2);
/// Losses and sizes are summed up every so many refreshes.
const MEASURE_EVERY: u32 = 5;

/// Three heartbeats of a minute and a tenth.
const SILENT_AFTER: SignedDuration = SignedDuration::from_secs(200);

/// The table of agents.
#[derive(Debug)]
pub struct Registry {
    store: Store,
    metrics: CentreMetrics,
    version: AtomicI64,
    agents: RwLock<Arc<HashMap<String, Standing>>>,
    /// One refresh at a time: an older reading must not replace a newer one.
    refreshing: tokio::sync::Mutex<()>,
}

impl Registry {
    /// # Errors
    /// When the store can't be read.
    pub async fn open(store: Store, metrics: CentreMetrics) -> Result<Self, StoreError> {
        let registry = Self {
            store,
            metrics,
            version: AtomicI64::new(0),
            agents: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
        };
        registry.refresh().await?;
        Ok(registry)
    }

    /// Returns an agent's standing as of at most two seconds ago; one that isn't known may have enrolled just now,
    /// perhaps with another process on this database.
    ///
    /// # Errors
    /// When it isn't known and the store can't be read.
    pub async fn standing_of(&self, agent: &str) -> Result<Option<Standing>, StoreError> {
        if let Some(standing) = self.standing(agent) {
            return Ok(Some(standing));
        }
        self.refresh().await?;
        Ok(self.standing(agent))
    }

    fn standing(&self, agent: &str) -> Option<Standing> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.get(agent).cloned()
    }

    /// Takes over what changed in the store.
    ///
    /// # Errors
    /// When the store can't be read; the table stays.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let _turn = self.refreshing.lock().await;
        // The version first: what changes in between is taken next time.
        let version = self.store.agents_version().await?;
        if version == self.version.load(Ordering::Relaxed) {
            return Ok(());
        }
        let agents: HashMap<String, Standing> = self.store.standings().await?.into_iter().collect();
        for state in [State::Quarantined, State::Revoked] {
            let count = agents.values().filter(|agent| agent.state == state).count();
            self.metrics
                .agents
                .with_label_values(&[state.as_str()])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        *self.agents.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(agents);
        self.version.store(version, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the table fresh until it is stopped.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH_EVERY);
        let mut round = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.refresh().await {
                warn!(%error, "the table of agents could not be refreshed");
            }
            if round.is_multiple_of(MEASURE_EVERY) {
                self.measure().await;
            }
            round = round.wrapping_add(1);
        }
    }

    async fn measure(&self) {
        let bytes = self.store.bytes().await;
        self.metrics
            .store_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
        let heard = self
            .store
            .heard_since(Timestamp::now() - SILENT_AFTER)
            .await;
        match heard {
            Ok((reporting, silent)) => {
                let state = |name| self.metrics.agents.with_label_values(&[name]);
                state("reporting").set(reporting);
                state("silent").set(silent);
            }
            Err(error) => warn!(%error, "silent agents could not be counted"),
        }
        match self.store.losses().await {
            Ok(losses) => {
                self.metrics.unexplained_loss.set(losses.unexplained);
                self.metrics.stated_loss.set(losses.stated);
            }
            Err(error) => warn!(%error, "losses could not be summed up"),
        }
    }
}

/// What an agent says of the numbers of one epoch.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The number that its next row will get.
    pub next: u64,
    pub waiting: Vec<Range>,
    /// The ranges given up, and how many numbers of each: neighbours may have been merged over numbers that arrived.
    pub given_up: Vec<(Range, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Losses {
    /// Made, but neither received nor waiting nor given up.
    pub unexplained: u64,
    /// Given up.
    pub stated: u64,
}

/// Compares what an agent says with what came.
pub fn losses(ledger: &Ledger, received: &[Range]) -> Losses {
    let Some(made) = ledger.next.checked_sub(1) else {
        return Losses::default();
    };
    let mut known: Vec<Range> = received
        .iter()
        .chain(&ledger.waiting)
        .chain(ledger.given_up.iter().map(|(range, _)| range))
        .filter(|range| range.first <= range.last)
        .copied()
        .collect();
    known.sort_unstable();
    let mut covered = 0_u64;
    let mut next = 1_u64; // numbers begin with 1
    for range in known {
        let first = range.first.max(next);
        let last = range.last.min(made);
        if first <= last {
            covered += last - first + 1;
            next = last + 1;
        }
    }
    let stated = ledger
        .given_up
        .iter()
        .map(|(range, count)| {
            let width = range.last.saturating_sub(range.first).saturating_add(1);
            *count.min(&width)
        })
        .fold(0, u64::saturating_add);
    Losses {
        unexplained: made.saturating_sub(covered),
        stated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> Vec<Range> {
        list.iter()
            .map(|&(first, last)| Range { first, last })
            .collect()
    }

    #[test]
    fn a_number_that_nothing_accounts_for_is_an_unexplained_loss() {
        const M: u64 = u64::MAX;
        for (next, received, waiting, given_up, unexplained, stated) in [
            (1, &[][..], &[][..], &[][..], 0, 0),
            (0, &[], &[], &[], 0, 0),
            (11, &[(1, 10)], &[], &[], 0, 0),
            (11, &[(1, 4), (6, 10)], &[], &[], 1, 0),
            (11, &[(1, 4)], &[(5, 10)], &[], 0, 0),
            (11, &[(1, 4)], &[(4, 8)], &[], 2, 0),
            (11, &[(1, 4)], &[], &[(5, 10, 6)], 0, 6),
            // merged over a number that arrived
            (11, &[(1, 4), (7, 7)], &[], &[(5, 10, 5)], 0, 5),
            // more arrived than the ledger knew of
            (11, &[(1, 20)], &[], &[], 0, 0),
            // nonsense from afar
            (11, &[], &[(9, 3)], &[(5, 4, 1000)], 10, 1),
            (M, &[(0, M)], &[(0, M)], &[(0, M, M), (0, M, M)], 0, M),
            (M, &[], &[], &[], M - 1, 0),
        ] {
            let ledger = Ledger {
                next,
                waiting: ranges(waiting),
                given_up: given_up
                    .iter()
                    .map(|&(first, last, count): &(u64, u64, u64)| (Range { first, last }, count))
                    .collect(),
            };
            assert_eq!(
                losses(&ledger, &ranges(received)),
                Losses {
                    unexplained,
                    stated
                },
                "{ledger:?} {received:?}"
            );
        }
    }
}
