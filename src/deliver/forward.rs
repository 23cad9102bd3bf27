//! The spool's rows to a centre.
