//! What batches under way may take: memory for all, and so many at once for one agent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::deliver::identity::AgentId;
use crate::deliver::wire::BATCH_BYTES_MAX;

/// Memory for batches under way, in KiB.
#[derive(Debug, Clone)]
pub struct Budget {
    kib: Arc<Semaphore>,
    /// Unpacking and parsing at once: each may hold a window of 8 MiB besides.
    pub unpackers: Arc<Semaphore>,
    /// Batches under way by agent; no larger than there are connections.
    agents: Arc<Mutex<HashMap<AgentId, usize>>>,
}

/// Batches of one agent at once. It sends one at a time; a second may come while the first is given up on a bad line.
/// More would let one agent that sends slowly take the memory of all.
pub const BATCHES_PER_AGENT: usize = 2;

/// A batch under way, counted for its agent until it is dropped.
pub struct UnderWay {
    agent: AgentId,
    agents: Arc<Mutex<HashMap<AgentId, usize>>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = agents.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                agents.remove(&self.agent);
            }
        }
    }
}

/// The smallest that lets one whole batch pass.
pub const MEMORY_LEAST: usize = 4 * BATCH_BYTES_MAX;
pub const KIB: usize = 1024;

impl Budget {
    pub fn new(bytes: usize) -> Self {
        let kib = bytes.max(MEMORY_LEAST) / KIB;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            unpackers: Arc::new(Semaphore::new(cores * 2)),
            agents: Arc::default(),
        }
    }

    pub fn begin(&self, agent: &AgentId) -> Option<UnderWay> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        let count = agents.entry(agent.clone()).or_default();
        if *count >= BATCHES_PER_AGENT {
            return None;
        }
        *count += 1;
        Some(UnderWay {
            agent: agent.clone(),
            agents: Arc::clone(&self.agents),
        })
    }

    pub fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(KIB)).ok()?;
        self.kib.clone().try_acquire_many_owned(kib).ok()
    }
}
