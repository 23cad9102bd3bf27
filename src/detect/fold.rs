//! Equal alerts become one with a count.
