//! What each source says of itself: how much it read, when, and what is wrong. Judges nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::record::SourceId;

/// A heartbeat names so many; the rest is told together.
pub const SOURCES_MAX: usize = 200;
/// The name of all beyond [`SOURCES_MAX`].
pub const OTHERS: &str = "others";

/// One source since the last beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceHealth {
    pub name: String,
    pub last_event: Option<Timestamp>,
    pub records: u64,
    /// Why it can't be read; absent when it works.
    pub fault: Option<String>,
    /// What is worth knowing and no fault, such as that no file is there yet.
    pub note: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    last_event: Option<Timestamp>,
    records: u64,
    fault: Option<String>,
    note: Option<String>,
    /// Ended; told once more and then no longer.
    gone: bool,
}

/// Shared by all sources and whoever reports; a clone is the same.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<SourceId, State>>>);

impl Health {
    pub fn records(&self, id: &SourceId, count: u64, at: Timestamp) {
        self.change(id, |state| {
            state.records = state.records.saturating_add(count);
            state.last_event = state.last_event.max(Some(at));
        });
    }

    /// Sets what keeps a source from being read, or says that nothing does.
    pub fn fault(&self, id: &SourceId, fault: Option<String>) {
        match fault {
            Some(fault) => self.change(id, |state| state.fault = Some(fault)),
            None => self.change_known(id, |state| state.fault = None),
        }
    }

    pub fn note(&self, id: &SourceId, note: Option<String>) {
        match note {
            Some(note) => self.change(id, |state| state.note = Some(note)),
            None => self.change_known(id, |state| state.note = None),
        }
    }

    /// Makes a source known that has nothing to tell yet.
    pub fn expect(&self, id: &SourceId) {
        self.change(id, |_| ());
    }

    /// Takes a source out after the next beat.
    pub fn forget(&self, id: &SourceId) {
        self.change_known(id, |state| state.gone = true);
    }

    /// Returns what is known of each source and counts anew.
    pub fn beat(&self) -> Vec<SourceHealth> {
        let mut states = self.lock();
        let told = states.iter_mut().map(|(id, state)| SourceHealth {
            name: id.to_string(),
            last_event: state.last_event,
            records: std::mem::take(&mut state.records),
            fault: state.fault.clone(),
            note: state.note.clone(),
        });
        let told = told.collect();
        states.retain(|_, state| !state.gone);
        // Nobody can take back a fault among the others: what lasts is said again before the next beat.
        if let Some(others) = states.get_mut(&SourceId::new(OTHERS)) {
            others.fault = None;
            others.note = None;
        }
        told
    }

    fn change(&self, id: &SourceId, change: impl FnOnce(&mut State)) {
        let mut states = self.lock();
        if !states.contains_key(id) && states.len() >= SOURCES_MAX {
            change(states.entry(SourceId::new(OTHERS)).or_default());
            return;
        }
        let state = states.entry(id.clone()).or_default();
        state.gone = false;
        change(state);
    }

    fn change_known(&self, id: &SourceId, change: impl FnOnce(&mut State)) {
        if let Some(state) = self.lock().get_mut(id) {
            change(state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SourceId, State>> {
        // A state is whole after each change, so one that a panic left behind can be used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
