//! What people read: help, faults, tables.
