//! What web servers write.

pub mod access;
