//! GET /v1/agents, POST /v1/agents/{id}/revoke.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::centre::problem::Problem;
use crate::centre::query::parameters::{self, Pairs, unknown};
use crate::centre::query::{Desk, PAGE};
use crate::centre::store;
use crate::centre::store::tokens::Holder;

/// One page of agents, by id.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    pub agents: Vec<Agent>,
    /// Present when there may be more: `after` of the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    pub id: String,
    pub agency: String,
    pub host: String,
    /// active, quarantined or revoked
    pub state: String,
    pub enrolled: Timestamp,
    /// Its last heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heard: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What its last heartbeat said does not work as it should: config, spool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub degraded: Vec<String>,
    /// Alerts that it made and that nothing accounts for.
    pub unexplained_loss: i64,
    /// Alerts that it gave up because its spool was full.
    pub stated_loss: i64,
}

impl From<store::agents::Agent> for Agent {
    fn from(agent: store::agents::Agent) -> Self {
        Self {
            id: agent.id,
            agency: agent.standing.agency,
            host: agent.standing.host,
            state: agent.standing.state.as_str().to_owned(),
            enrolled: agent.enrolled,
            last_heard: agent.last_heard,
            version: agent.version,
            degraded: agent.degraded,
            unexplained_loss: agent.unexplained,
            stated_loss: agent.stated,
        }
    }
}

/// GET /v1/agents
pub async fn list(
    State(desk): State<Desk>,
    Extension(holder): Extension<Holder>,
    pairs: Result<Query<Pairs>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(pairs) = pairs.map_err(|_| Problem::bad_request("the query cannot be decoded"))?;
    parameters::check(&pairs, &[])?;
    let (mut limit, mut after) = (PAGE, None);
    for (name, value) in &pairs {
        match name.as_str() {
            "limit" => limit = parameters::limit(value)?,
            "after" => after = Some(value.as_str()),
            _ => return Err(unknown(name, &["limit", "after"])),
        }
    }
    let mut agents: Vec<Agent> = desk
        .store
        .agents(&holder.scope, after, limit + 1)
        .await?
        .into_iter()
        .map(Agent::from)
        .collect();
    let more = agents.len() > limit;
    agents.truncate(limit);
    let next = agents.last().filter(|_| more).map(|agent| agent.id.clone());
    Ok(Json(Page { agents, next }))
}

/// What became of an agent.
#[derive(Debug, Serialize, Deserialize)]
pub struct Changed {
    pub id: String,
    pub state: String,
}

/// POST /v1/agents/{id}/revoke: from now on its requests get 403; what it sent stays.
pub async fn revoke(
    State(desk): State<Desk>,
    Extension(holder): Extension<Holder>,
    Path(id): Path<String>,
) -> Result<Json<Changed>, Problem> {
    let state = store::agents::State::Revoked;
    let nothing = || Problem::not_found("there is no such agent here");
    let standing = desk.registry.standing_of(&id).await?;
    if !standing.is_some_and(|standing| holder.sees(&standing.agency)) {
        return Err(nothing());
    }
    if !desk.store.set_agent_state(&id, state).await? {
        return Err(nothing());
    }
    desk.registry.refresh().await?;
    tracing::info!(agent = %id, "an agent was revoked");
    Ok(Json(Changed {
        id,
        state: state.as_str().to_owned(),
    }))
}
