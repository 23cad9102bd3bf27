//! The agent's memory.
