//! What an answer means, and what else can keep a batch from being delivered.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::deliver::forward::QueueError;
use crate::deliver::forward::exchange::{Answer, ExchangeError};
use crate::deliver::forward::pace::retry_after;
use crate::deliver::forward::status::tame;
use crate::deliver::identity::IdentityError;
use crate::deliver::wire::{Accepted, Problem};

/// Why a step did not succeed.
#[derive(Debug, Error)]
pub enum Fault {
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// 401, 403.
    #[error("{0}")]
    Refused(String),
    /// 413.
    #[error("the centre finds the batch too large")]
    TooLarge,
    /// 429 or 503 with a time.
    #[error("the centre asks to wait")]
    Wait(Duration),
    #[error("the centre answers {status}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    Status { status: u16, detail: String },
    #[error("the centre's answer cannot be understood")]
    Answer(#[source] serde_json::Error),
    #[error("the centre's answer does not account for every line")]
    Unaccounted,
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the request cannot be made")]
    Request(#[source] hyper::http::Error),
    #[error("packing failed")]
    Pack(#[source] std::io::Error),
}

impl Fault {
    /// Whether the centre wants nothing of this agent until a person has acted.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            Self::Exchange(ExchangeError::Connect(error)) => error.is_refusal(),
            _ => false,
        }
    }
}

/// Sorts an answer by what is to be done about it.
pub fn judge(answer: Answer) -> Result<Bytes, Fault> {
    let status = answer.status;
    let asked = answer
        .retry_after
        .as_deref()
        .and_then(|text| retry_after(text, Timestamp::now()))
        .filter(|wait| !wait.is_zero());
    match (status, asked) {
        (StatusCode::OK, _) => Ok(answer.body),
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            let detail = detail(&answer.body);
            Err(Fault::Refused(match detail.is_empty() {
                true => format!("refused with {}", status.as_u16()),
                false => detail,
            }))
        }
        (StatusCode::PAYLOAD_TOO_LARGE, _) => Err(Fault::TooLarge),
        (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, Some(wait)) => {
            Err(Fault::Wait(wait))
        }
        _ => Err(Fault::Status {
            status: status.as_u16(),
            detail: detail(&answer.body),
        }),
    }
}

/// Returns what a problem body says, else nothing.
pub fn detail(body: &[u8]) -> String {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) if problem.detail.is_empty() => tame(&problem.title),
        Ok(problem) => tame(&problem.detail),
        Err(_) => String::new(),
    }
}

/// Reads the body of a 200.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(body).map_err(Fault::Answer)
}

/// Whether every line sent was accepted, known already or rejected by an index of its own.
pub fn accounts_for(accepted: &Accepted, sent: usize) -> bool {
    let mut indices: Vec<usize> = accepted.rejected.iter().map(|line| line.index).collect();
    indices.sort_unstable();
    indices.dedup();
    let counted = accepted
        .accepted
        .checked_add(accepted.duplicate)
        .and_then(|count| count.checked_add(indices.len()));
    counted == Some(sent)
        && indices.len() == accepted.rejected.len()
        && indices.last().is_none_or(|&last| last < sent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::wire::Rejected;

    #[test]
    fn an_answer_must_account_for_every_line() {
        for (accepted, duplicate, rejected, sent, accounts) in [
            (3, 0, &[][..], 3, true),
            (1, 2, &[], 3, true),
            (1, 1, &[2], 3, true),
            (0, 0, &[0, 1, 2], 3, true),
            (0, 0, &[], 3, false),
            (2, 0, &[], 3, false),
            (4, 0, &[], 3, false),
            (2, 0, &[3], 3, false),
            (1, 0, &[1, 1], 3, false),
            (usize::MAX, 4, &[], 3, false),
        ] {
            let answer = Accepted {
                accepted,
                duplicate,
                rejected: rejected
                    .iter()
                    .map(|&index| Rejected {
                        index,
                        id: None,
                        why: String::new(),
                    })
                    .collect(),
                time: Timestamp::UNIX_EPOCH,
            };
            assert_eq!(accounts_for(&answer, sent), accounts, "{answer:?}");
        }
    }
}
