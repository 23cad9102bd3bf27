//! The commands.

pub mod agents;
pub mod alerts;
pub mod enrol;
mod listing;
pub mod profile;
mod time;
pub mod token;

#[cfg(test)]
mod tests;
