//! What people did with an alert.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use crate::centre::query::alerts::Known;
use crate::cli::alerts::show::pair;
use crate::cli::time;

/// Writes what the centre knows of an alert beside what the agent said.
pub fn write(out: &mut impl Write, known: &Known, zone: &TimeZone) -> io::Result<()> {
    writeln!(out, "\nat the centre")?;
    let mut status = known.status.clone();
    if let Some(disposition) = &known.disposition {
        status = format!("{status}: {disposition}");
    }
    pair(out, "status", &status)?;
    if let Some(assignee) = &known.assignee {
        pair(out, "assigned to", assignee)?;
    }
    pair(out, "received", &time::shown(known.received, zone))?;
    if known.clock_ahead {
        pair(out, "clock", "the alert's time lay ahead of the centre's")?;
    }
    if known.grew_after_closing {
        pair(out, "look again", "it went on after it was closed")?;
    }
    Ok(())
}
