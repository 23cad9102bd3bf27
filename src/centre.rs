//! The monitoring centre.
