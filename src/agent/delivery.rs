//! Waits for the host's identity, then forwards what the spool holds.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
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

/// Of the state folder: the agent under whose name the spool's alerts were sent.
const SENT_AS: &str = "sent-as";
/// Between tries to note it, such as on a full disk.
const NOTE_RETRY: Duration = Duration::from_secs(2);

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
    if !begin_as(&delivery, identity.agent.as_str()).await {
        return;
    }
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

/// Begins a new epoch if this host was another agent before: the centre would take what that one sent for new.
/// Tries until it is done; false at the stop.
async fn begin_as(delivery: &Delivery, agent: &str) -> bool {
    loop {
        let (spool, path) = (delivery.spool.clone(), delivery.state.join(SENT_AS));
        let agent = agent.to_owned();
        let done = tokio::task::spawn_blocking(move || note_agent(&spool, &path, &agent)).await;
        match done {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => warn!(%error, "cannot note which agent this host is"),
            Err(error) => warn!(%error, "cannot note which agent this host is"),
        }
        tokio::select! {
            () = delivery.stop.cancelled() => return false,
            () = tokio::time::sleep(NOTE_RETRY) => {}
        }
    }
}

/// The epoch first: a kill between the two begins one more, which does no harm.
fn note_agent(spool: &SharedSpool, path: &Path, agent: &str) -> io::Result<()> {
    let before = match fs::read_to_string(path) {
        Ok(before) => before,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if before == agent {
        return Ok(());
    }
    if !before.is_empty() {
        let mut spool = spool.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = spool.begin_epoch().map_err(io::Error::other)?;
        info!(
            before,
            waiting, "this host is another agent now; what waits is numbered anew"
        );
    }
    let beside = path.with_extension("new");
    let mut file = fs::File::create(&beside)?;
    file.write_all(agent.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}
