//! Counts in bounded windows.
