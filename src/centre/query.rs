//! The people's door: the query API of people and tools, behind a bearer token.

pub mod agents;
pub mod alerts;
pub mod parameters;
pub mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Extension, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use jiff::Timestamp;

use crate::centre::auth::Auth;
use crate::centre::listen::PeerAddress;
use crate::centre::problem::Problem;
use crate::centre::registry::Registry;
use crate::centre::store::Store;
use crate::centre::store::tokens::Role;
use crate::deliver::identity::KeyPin;
use crate::metrics::CentreMetrics;

/// What the query API needs; cheap to clone.
#[derive(Clone)]
pub struct Desk {
    pub store: Store,
    pub registry: Arc<Registry>,
    pub auth: Arc<Auth>,
    /// What enrolment tokens carry of our authority.
    pub pin: KeyPin,
    pub metrics: CentreMetrics,
}

/// The most entries of one page.
pub const PAGE_MAX: usize = 1000;
/// Entries of a page if nothing is said.
pub const PAGE: usize = 100;
/// What a query may have of text; a link with every filter has about 500 bytes.
const QUERY_BYTES_MAX: usize = 8 * 1024;

/// The routes for people and tools; each asks for its own role.
pub fn router(desk: Desk) -> Router {
    let reading = Router::new()
        .route("/v1/alerts", get(alerts::list))
        .route("/v1/alerts/counts", get(alerts::counts))
        .route("/v1/alerts/{id}", get(alerts::show))
        .route("/v1/agents", get(agents::list))
        .layer(middleware::from_fn_with_state(desk.clone(), may_read));
    let changing = Router::new()
        .route("/v1/tokens", post(tokens::create))
        .route("/v1/agents/{id}/revoke", post(agents::revoke))
        .layer(middleware::from_fn_with_state(desk.clone(), may_change));
    reading
        .merge(changing)
        .layer(DefaultBodyLimit::disable()) // each handler reads its body itself, within its own limit
        .with_state(desk)
}

/// What stands behind no route.
pub async fn nothing_here() -> Problem {
    Problem::not_found(
        "there are /v1/alerts, /v1/alerts/counts, /v1/alerts/{id}, /v1/agents, /v1/agents/{id}/revoke, /v1/tokens and /v1/enrol",
    )
}

async fn may_read(
    State(desk): State<Desk>,
    Extension(address): Extension<PeerAddress>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    pass(desk, address, Role::Reader, request, next).await
}

async fn may_change(
    State(desk): State<Desk>,
    Extension(address): Extension<PeerAddress>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    pass(desk, address, Role::Administrator, request, next).await
}

async fn pass(
    desk: Desk,
    PeerAddress(address): PeerAddress,
    role: Role,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let now = Timestamp::now();
    let holder = desk
        .auth
        .require(request.headers(), address, role, now)
        .await?;
    request.extensions_mut().insert(holder);
    let length = request.uri().query().map_or(0, str::len);
    if length > QUERY_BYTES_MAX {
        return Err(Problem::new(
            axum::http::StatusCode::URI_TOO_LONG,
            "the query is too long",
            format!("it has {length} bytes, {QUERY_BYTES_MAX} are allowed"),
        ));
    }
    let route = route(request.uri().path());
    let response = next.run(request).await;
    desk.metrics
        .requests
        .with_label_values(&[route, response.status().as_str()])
        .inc();
    Ok(response)
}

/// Label values come from a closed set.
fn route(path: &str) -> &'static str {
    match path {
        "/v1/alerts" => "/v1/alerts",
        "/v1/agents" => "/v1/agents",
        "/v1/alerts/counts" => "/v1/alerts/counts",
        "/v1/tokens" => "/v1/tokens",
        _ if path.starts_with("/v1/alerts/") => "/v1/alerts/{id}",
        _ => "/v1/agents/{id}/revoke",
    }
}
