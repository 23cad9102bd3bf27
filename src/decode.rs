//! Records to events.
