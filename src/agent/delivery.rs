//! Waits for the host's identity, then forwards what the spool holds.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::agent::report::Reporter;
use crate::agent::{IDENTITY, STATUS};
use crate::deliver::forward;
use crate::deliver::forward::{Forward, SharedSpool, Status, Timing};
use crate::deliver::identity::Identity;
use crate::metrics::AgentMetrics;

/// How often a host that is not enrolled looks whether it is now.
const ENROLLED_CHECK: Duration = Duration::from_secs(2);

/// What the forwarder is made of, once the host is enrolled.
pub struct Delivery {
    pub spool: SharedSpool,
    pub config: forward::Config,
    pub state: PathBuf,
    pub reporter: Reporter,
    pub wake: Arc<Notify>,
    pub stop: CancellationToken,
    pub metrics: AgentMetrics,
}

/// Waits for the host's identity, then forwards until it is stopped. The spool fills meanwhile.
pub async fn deliver(delivery: Delivery) {
    let folder = delivery.state.join(IDENTITY);
    let mut is_told = false;
    let identity = loop {
        match Identity::load(&folder) {
            Ok(identity) => break identity,
            Err(error) if is_told => debug!(%error, "not enrolled yet"),
            Err(error) => {
                warn!(%error, "not enrolled: alerts wait in the spool; type `canhgac enrol`");
                is_told = true;
            }
        }
        tokio::select! {
            () = delivery.stop.cancelled() => return,
            () = tokio::time::sleep(ENROLLED_CHECK) => {}
        }
    };
    info!(agent = %identity.agent, agency = %identity.agency, "enrolled");
    let reporter = delivery.reporter;
    let forward = Forward {
        queue: delivery.spool,
        identity,
        config: delivery.config,
        timing: Timing::default(),
        heartbeat: move |ledger| reporter.heartbeat(ledger),
        wake: delivery.wake,
        stop: delivery.stop,
        metrics: delivery.metrics,
        status: Status::open(delivery.state.join(STATUS)),
    };
    if let Err(error) = forward.run().await {
        error!(%error, "cannot forward; alerts wait in the spool");
    }
}
