//! The monitoring centre.

mod store;
