//! What is noted of what happened, for people and machines, and how long to wait after it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::deliver::forward::answer::Fault;
use crate::deliver::forward::exchange::chain;
use crate::deliver::forward::pace::at_least;
use crate::deliver::forward::status::tame;
use crate::deliver::forward::work::{Worker, random};

impl<Q, H> Worker<Q, H> {
    /// Writes a fault where people look, and returns how long to wait.
    pub(super) async fn note(&mut self, fault: &Fault) -> Duration {
        let timing = self.parts.timing;
        let refusal = fault.is_refusal();
        self.link = None;
        let delay = match fault {
            Fault::Wait(asked) => at_least(*asked, random()),
            _ if refusal => self.pace.refused(&timing, random()),
            _ if self.try_next_url(fault) => Duration::ZERO,
            _ => self.pace.failed(&timing, random()),
        };
        let text = tame(&chain(fault));
        let before = self.parts.status.get();
        let is_known = before.error.as_ref().or(before.refused.as_ref()) == Some(&text);
        if is_known {
            debug!(error = %text, retry_in = ?delay, "still not delivered");
        } else {
            warn!(error = %text, retry_in = ?delay, "cannot deliver; alerts wait in the spool");
        }
        let retry_at = Timestamp::now().checked_add(delay).ok();
        self.parts
            .metrics
            .degraded
            .with_label_values(&["delivery"])
            .set(1);
        self.parts
            .status
            .update(|state| {
                (state.refused, state.error) = match refusal {
                    true => (Some(text), None),
                    false => (None, Some(text)),
                };
                state.retry_at = retry_at;
            })
            .await;
        if refusal {
            // The small request finds out whether the centre has changed its mind.
            self.beat_at = Instant::now();
        }
        delay
    }

    /// Goes to the next address after a fault of the way there; says whether one is left before a wait is due.
    fn try_next_url(&mut self, fault: &Fault) -> bool {
        if !matches!(fault, Fault::Exchange(_)) {
            return false;
        }
        self.tried += 1;
        if self.tried < self.urls.len() {
            self.at = (self.at + 1) % self.urls.len();
            return true;
        }
        // All failed: the next round begins anywhere, so that not every agent of a province knocks at the same door.
        self.tried = 0;
        let count = self.urls.len() as u64;
        self.at = usize::try_from(random() % count).unwrap_or(0);
        false
    }

    pub(super) async fn note_success(&mut self) {
        self.pace.worked();
        self.tried = 0;
        let now = Timestamp::now();
        self.parts.metrics.last_acknowledged.set(now.as_second());
        self.parts
            .metrics
            .degraded
            .with_label_values(&["delivery"])
            .set(0);
        let told = self.time.told();
        let before = self.parts.status.get();
        if before.refused.is_some() || before.error.is_some() || before.last_success.is_none() {
            info!("the centre answers");
        }
        self.parts
            .status
            .update(|state| {
                state.last_success = Some(now);
                state.refused = None;
                state.error = None;
                state.retry_at = None;
                state.told = told;
            })
            .await;
    }

    pub(super) fn note_time(&self, told: Timestamp) {
        if let Some(ends) = self.link.as_ref().and_then(|link| link.server_ends) {
            self.time.tell(told, ends);
        }
    }

    pub(super) async fn note_certificate(&self) {
        let ends = self.parts.identity.pair().not_after();
        self.parts.metrics.certificate_expiry.set(ends.as_second());
        self.parts
            .status
            .update(|state| state.certificate_ends = Some(ends))
            .await;
    }

    pub(super) fn note_batch(&self, fault: &Fault) {
        self.count_batch(match fault {
            Fault::TooLarge => "too_large",
            Fault::Wait(_) => "throttled",
            fault if fault.is_refusal() => "refused",
            _ => "failed",
        });
    }

    pub(super) fn count_batch(&self, result: &str) {
        self.parts
            .metrics
            .batches
            .with_label_values(&[result])
            .inc();
    }
}
