//! What people did with an alert: its status, who has it, and what they found.

use jiff::Timestamp;

use crate::centre::store::StoreError;

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Status {
    #[default]
    New,
    Acknowledged,
    InProgress,
    Closed,
}

impl Status {
    pub const ALL: [Self; 4] = [
        Self::New,
        Self::Acknowledged,
        Self::InProgress,
        Self::Closed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Acknowledged => "acknowledged",
            Self::InProgress => "in-progress",
            Self::Closed => "closed",
        }
    }

    /// Reads its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    pub(super) fn from_column(number: i64) -> Result<Self, StoreError> {
        usize::try_from(number)
            .ok()
            .and_then(|number| Self::ALL.get(number).copied())
            .ok_or(StoreError::Row { what: "a status" })
    }
}

/// What the centre knows of an alert beside what the agent said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub received: Timestamp,
    pub status: Status,
    pub disposition: Option<String>,
    pub assignee: Option<String>,
    /// Raised by each act of a person.
    pub version: i64,
    /// The alert's time lay ahead of the centre's clock.
    pub clock_ahead: bool,
    pub grew_after_closing: bool,
    pub acknowledged: Option<Timestamp>,
    pub closed: Option<Timestamp>,
}
