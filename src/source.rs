//! Where records come from.

pub mod capture;
pub mod pcap;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex};

use jiff::Timestamp;

use crate::decode;
use crate::record::{Mark, Progress, Record, SourceId};

pub struct Stream {
    pub id: SourceId,
    pub kind: &'static str,
    pub format: decode::Format,
}

pub struct Inflow {
    pub stream: Arc<Stream>,
    pub records: Vec<Record>,
    pub mark: Option<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    Wait,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    Taken,
    Dropped(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("closed")]
pub struct Closed;

pub const INFLOW_RECORDS_MAX: usize = 256;
pub const INFLOW_BYTES_MAX: usize = 256 << 10;

#[derive(Clone)]
pub struct Outlet {
    senders: Vec<SyncSender<Inflow>>,
}

impl Outlet {
    pub fn new(senders: Vec<SyncSender<Inflow>>) -> Self {
        Self { senders }
    }

    pub fn send(&self, inflow: Inflow, overflow: Overflow) -> Result<Sent, Closed> {
        let sender = self.senders.first().ok_or(Closed)?;
        match overflow {
            Overflow::Wait => sender
                .send(inflow)
                .map(|()| Sent::Taken)
                .map_err(|_| Closed),
            Overflow::Drop => match sender.try_send(inflow) {
                Ok(()) => Ok(Sent::Taken),
                Err(TrySendError::Full(inflow)) => Ok(Sent::Dropped(inflow.records.len())),
                Err(TrySendError::Disconnected(_)) => Err(Closed),
            },
        }
    }
}

type Waker = Box<dyn Fn() + Send + Sync>;

#[derive(Clone, Default)]
pub struct Stop(Arc<(AtomicBool, Mutex<Vec<Waker>>)>);

impl Stop {
    pub fn stop(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        for waker in self.0.1.lock().expect("no panic").iter() {
            waker();
        }
    }

    pub fn is_set(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn on_stop(&self, waker: Waker) {
        self.0.1.lock().expect("no panic").push(waker);
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceHealth {
    pub name: String,
    pub last_event: Option<Timestamp>,
    pub records: u64,
    pub fault: Option<String>,
}

#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<SourceId, SourceHealth>>>);

impl Health {
    pub fn records(&self, id: &SourceId, count: u64, at: Timestamp) {
        let mut all = self.0.lock().expect("no panic");
        let state = all.entry(id.clone()).or_default();
        state.records += count;
        state.last_event = Some(at);
    }

    pub fn fault(&self, id: &SourceId, fault: Option<String>) {
        self.0
            .lock()
            .expect("no panic")
            .entry(id.clone())
            .or_default()
            .fault = fault;
    }

    pub fn beat(&self) -> Vec<SourceHealth> {
        let mut all = self.0.lock().expect("no panic");
        all.iter_mut()
            .map(|(id, state)| SourceHealth {
                name: id.to_string(),
                records: std::mem::take(&mut state.records),
                ..state.clone()
            })
            .collect()
    }
}

pub struct Resume {
    pub streams: Vec<Progress>,
    pub start: u64,
    pub first: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("outlet closed")]
    Closed(#[from] Closed),
}

pub trait Source: Send {
    fn name(&self) -> String;
    fn run(
        self: Box<Self>,
        from: Resume,
        out: &Outlet,
        stop: &Stop,
        health: &Health,
    ) -> Result<(), SourceError>;
}
