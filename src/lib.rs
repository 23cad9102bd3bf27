//! canhgac stands guard over logs and network events.
//!
//! ```text
//! source ──▶ decode ──▶ detect ──▶ deliver ──▶ centre
//! records    events     alerts     spool, wire  store, query, metrics
//! ```
//!
//! A `Record` crosses threads, an `Event` never does, an `Alert` crosses hosts. Threads stand left of the spool,
//! tokio right of it; the spool is the queue between. `record`, `event`, `alert`, `decode` and `detect` are pure.
#![deny(unsafe_code)]

pub mod diagnostic;
pub mod metrics;
pub mod record;
pub mod event;
pub mod alert;
pub mod source;
pub mod decode;
pub mod detect;
pub mod deliver;
pub mod agent;
pub mod centre;
pub mod admin;
pub mod config;
pub mod cli;
