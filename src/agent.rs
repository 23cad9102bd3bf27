//! The role on a host.
