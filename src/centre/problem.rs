//! An error as the other end reads it: RFC 9457, `application/problem+json`.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::error;

use crate::centre::store::StoreError;
use crate::deliver::wire;

/// What to answer instead. `title` is of a closed set; `detail` says it all, for a person who reads nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    retry_after_seconds: Option<u64>,
}

/// When a client should try again after a fault of the centre; its own jitter spreads the rest.
const RETRY_AFTER_SECONDS: u64 = 5;

impl Problem {
    pub fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            title,
            detail: detail.into(),
            retry_after_seconds: None,
        }
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "the request cannot be understood",
            detail,
        )
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    pub fn not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "another method is needed",
            "lists and single entries are read with GET, all else is sent with POST",
        )
    }

    pub fn forbidden(title: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, title, detail)
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too large", detail)
    }

    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy: nothing was stored",
            detail,
        )
        .retry_after(RETRY_AFTER_SECONDS)
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }
}

impl From<StoreError> for Problem {
    /// A fault of the centre: the details are for its own log, the peer is told to come back.
    fn from(fault: StoreError) -> Self {
        if !matches!(fault, StoreError::Write(_)) {
            // Writes are logged once, by the writer.
            let cause = std::error::Error::source(&fault).map(ToString::to_string);
            error!(error = %fault, cause, "the store failed");
        }
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the store does not answer",
            "the store does not answer; nothing was stored, try again",
        )
        .retry_after(RETRY_AFTER_SECONDS)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let body = wire::Problem {
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        (self.status, headers, body).into_response()
    }
}
