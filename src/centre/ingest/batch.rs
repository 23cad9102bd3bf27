//! A batch's bytes to rows: unpacked within limits, each line judged alone. Pure; the store comes after.

use std::io::Read as _;

use thiserror::Error;

use crate::alert::{ALERT_BYTES_MAX, Alert, AlertId, CAUSES_MAX};
use crate::centre::store::alerts::{Row, RowError};
use crate::centre::store::packing::{Packer, Press};
use crate::centre::store::received::{Range, ranges};
use crate::centre::store::search::CENTRE;
use crate::deliver::wire::{BATCH_BYTES_MAX, BATCH_LINES_MAX, RawLine, Rejected};

/// Who sent it, as it is registered.
#[derive(Debug, Clone)]
pub struct Sender {
    pub agent: String,
    pub agency: String,
}

/// How the body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Zstd,
    Plain,
}

/// The batch, judged.
#[derive(Debug, Default)]
pub struct Judged {
    pub rows: Vec<Row>,
    /// The numbers of all lines, also of those refused: they are accounted for.
    pub numbers: Vec<Range>,
    pub rejected: Vec<Rejected>,
    /// Why, in words for a metric, each as often as it happened.
    pub reasons: Vec<&'static str>,
}

#[derive(Debug, Error)]
pub enum BatchError {
    #[error("the body is not zstd")]
    Packing(#[source] std::io::Error),
    #[error("the body unpacks to more than {BATCH_BYTES_MAX} bytes")]
    Bytes,
    #[error("the body has more than {BATCH_LINES_MAX} lines")]
    Lines,
    #[error("the unpacked batches that are worked on fill the memory set aside for them")]
    Memory,
}

/// A frame may ask for a window of at most 8 MiB: what a whole batch may have.
const WINDOW_LOG_MAX: u32 = 23;
/// Unpacked in steps of this; each step asks the budget.
const STEP_BYTES: usize = 256 * 1024;

/// Unpacks; `reserve` is asked for each further step of memory.
///
/// # Errors
/// When it is damaged, too large, or `reserve` says no.
pub fn unpack(
    body: &[u8],
    packing: Packing,
    mut reserve: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, BatchError> {
    if packing == Packing::Plain {
        return if body.len() > BATCH_BYTES_MAX {
            Err(BatchError::Bytes)
        } else {
            Ok(body.to_vec())
        };
    }
    let mut decoder = zstd::stream::read::Decoder::new(body).map_err(BatchError::Packing)?;
    decoder
        .window_log_max(WINDOW_LOG_MAX)
        .map_err(BatchError::Packing)?;
    let mut unpacked = Vec::new();
    loop {
        let room = (BATCH_BYTES_MAX + 1).saturating_sub(unpacked.len());
        let step = room.min(STEP_BYTES);
        if !reserve(step) {
            return Err(BatchError::Memory);
        }
        unpacked.reserve_exact(step);
        let read = (&mut decoder)
            .take(step as u64)
            .read_to_end(&mut unpacked)
            .map_err(BatchError::Packing)?;
        if unpacked.len() > BATCH_BYTES_MAX {
            return Err(BatchError::Bytes);
        }
        if read < step {
            return Ok(unpacked);
        }
    }
}

/// Judges each line by itself.
///
/// # Errors
/// When there are too many lines; no line spoils the batch otherwise.
pub fn judge(unpacked: &[u8], sender: &Sender, packer: &Packer) -> Result<Judged, BatchError> {
    let text = unpacked.strip_suffix(b"\n").unwrap_or(unpacked);
    let mut judged = Judged::default();
    if text.is_empty() {
        return Ok(judged);
    }
    if memchr::memchr_iter(b'\n', text).count() >= BATCH_LINES_MAX {
        return Err(BatchError::Lines);
    }
    let mut press = packer.press().map_err(|_| BatchError::Memory)?;
    let mut numbers = Vec::new();
    for (index, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let raw: RawLine<'_> = match serde_json::from_slice(line) {
            Ok(raw) => raw,
            Err(fault) => {
                let why = format!("not a line of a batch: {}", words(&fault));
                judged.reject(index, None, Fault::new("line", why));
                continue;
            }
        };
        let number = raw.seq.0;
        if number == 0 || i64::try_from(number).is_err() {
            let why = format!("seq {number} is not from 1 to {}", i64::MAX);
            judged.reject(index, None, Fault::new("line", why));
            continue;
        }
        numbers.push(number);
        match read(raw.alert.get(), sender, &mut press) {
            Ok(row) => judged.rows.push(row),
            Err((id, fault)) => judged.reject(index, id, fault),
        }
    }
    judged.numbers = ranges(numbers);
    Ok(judged)
}

impl Judged {
    fn reject(&mut self, index: usize, id: Option<AlertId>, fault: Fault) {
        self.reasons.push(fault.reason);
        self.rejected.push(Rejected {
            index,
            id,
            why: fault.why,
        });
    }
}

/// Why a line will never be accepted.
#[derive(Debug)]
struct Fault {
    /// From a closed set, for the metric.
    reason: &'static str,
    why: String,
}

impl Fault {
    fn new(reason: &'static str, why: impl Into<String>) -> Self {
        Self {
            reason,
            why: why.into(),
        }
    }
}

/// RFC 1035 2.3.4: a name has at most 255 octets.
const HOST_BYTES_MAX: usize = 255;
/// Rule ids are UUIDs or digests.
const RULE_ID_BYTES_MAX: usize = 256;
/// SigmaHQ's convention is 110 characters; room for four bytes each and more.
const TITLE_BYTES_MAX: usize = 1024;

fn read(
    text: &str,
    sender: &Sender,
    press: &mut Press<'_>,
) -> Result<Row, (Option<AlertId>, Fault)> {
    if text.len() > ALERT_BYTES_MAX {
        let why = format!(
            "the alert has {} bytes, {ALERT_BYTES_MAX} are allowed",
            text.len()
        );
        return Err((None, Fault::new("size", why)));
    }
    let mut alert: Alert = serde_json::from_str(text).map_err(|fault| {
        let why = format!("not an alert: {}", words(&fault));
        (None, Fault::new("shape", why))
    })?;
    let id = alert.id;
    check(&mut alert, sender).map_err(|fault| (Some(id), fault))?;
    Row::new(&alert, press).map_err(|fault| {
        let why = match fault {
            RowError::Json(fault) => format!("cannot be stored: {}", words(&fault)),
            RowError::Packing(_) => "cannot be packed".to_owned(),
        };
        (Some(id), Fault::new("shape", why))
    })
}

fn check(alert: &mut Alert, sender: &Sender) -> Result<(), Fault> {
    let within = |what: &str, text: &str, max: usize| {
        if text.is_empty() || text.len() > max {
            let why = format!("{what} has {} bytes, expected 1 to {max}", text.len());
            return Err(Fault::new("shape", why));
        }
        Ok(())
    };
    within("host", &alert.host, HOST_BYTES_MAX)?;
    within("rule.id", &alert.rule.id, RULE_ID_BYTES_MAX)?;
    within("rule.title", &alert.rule.title, TITLE_BYTES_MAX)?;
    if alert.causes.len() > CAUSES_MAX {
        let why = format!(
            "causes has {} ids, {CAUSES_MAX} are allowed; the rest is causes_count",
            alert.causes.len()
        );
        return Err(Fault::new("shape", why));
    }
    if i64::try_from(alert.count()).is_err() {
        return Err(Fault::new("shape", "count is above 2^63 - 1"));
    }
    // What a centre says of an alert stands under this name; nobody else says it.
    alert.other.remove(CENTRE);
    // What the agent leaves out is filled in from its registration; what it says must agree.
    if alert.agent.is_empty() {
        alert.agent.clone_from(&sender.agent);
    } else if alert.agent != sender.agent {
        return Err(Fault::new(
            "agent",
            format!(
                "the alert is of another agent; this one is {}",
                sender.agent
            ),
        ));
    }
    if alert.agency.is_empty() {
        alert.agency.clone_from(&sender.agency);
    } else if alert.agency != sender.agency {
        return Err(Fault::new(
            "agency",
            format!(
                "the alert is of another agency; this agent belongs to {}",
                sender.agency
            ),
        ));
    }
    Ok(())
}

/// What serde says of text from afar: harmless, short, and of one length in JSON (1,000 of them are one answer, for which
/// an agent has 256 KiB).
pub fn words(fault: &serde_json::Error) -> String {
    const WORDS_BYTES_MAX: usize = 120;
    let mut words = String::new();
    for c in crate::diagnostic::visible(&fault.to_string()).chars() {
        if words.len() + c.len_utf8() > WORDS_BYTES_MAX {
            words.push('…');
            break;
        }
        words.push(if matches!(c, '"' | '\\') { '\'' } else { c });
    }
    words
}
