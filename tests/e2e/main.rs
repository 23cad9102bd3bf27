//! The real binary, real sockets, a temporary folder: what the promises of the README say, tried.

mod site;

mod delivery;
mod kill;
mod sync;
mod cli;
mod faults;
mod refusals;
mod service;
mod demo;
mod dashboards;
mod corpora;
mod replay;
mod audit;
