//! POST /v1/tokens: what an agency enrols its hosts with.

use axum::Json;
use axum::extract::{Extension, Request, State};
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::centre::listen::read_body;
use crate::centre::problem::Problem;
use crate::centre::query::Desk;
use crate::centre::query::parameters::{agency, wrong};
use crate::centre::store::tokens::{EnrolmentToken, Holder};
use crate::centre::store::{Store, StoreError};
use crate::deliver::identity::{KeyPin, Token};

/// What is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    pub agency: String,
    #[serde(default = "one")]
    pub uses: u32,
    /// Absent: in 24 hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// CIDR networks; empty: from anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

fn one() -> u32 {
    1
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Created {
    pub token: String,
}

const BODY_BYTES_MAX: usize = 16 * 1024;
/// One token for a whole ministry.
const USES_MAX: u32 = 100_000;
const NETWORKS_MAX: usize = 100;
const LIFE: SignedDuration = SignedDuration::from_hours(24);
/// A token that outlives its purpose is found by someone.
const LIFE_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);

/// POST /v1/tokens
pub async fn create(
    State(desk): State<Desk>,
    Extension(holder): Extension<Holder>,
    request: Request,
) -> Result<Json<Created>, Problem> {
    let body = read_body(request, BODY_BYTES_MAX).await?;
    let asked: NewToken = serde_json::from_slice(&body).map_err(|fault| {
        let words = crate::diagnostic::visible(&fault.to_string());
        Problem::bad_request(format!("expected {{agency, uses, expires, from}}: {words}"))
    })?;
    let token = check(&asked, Timestamp::now())?;
    if !holder.sees(&token.agency) {
        return Err(Problem::not_found("there is no such agency here"));
    }
    let token = store(&desk.store, desk.pin, token).await?;
    tracing::info!(agency = %asked.agency, uses = asked.uses, "an enrolment token was made");
    Ok(Json(Created { token }))
}

/// A request that was found good.
#[derive(Debug)]
pub struct Checked {
    agency: String,
    uses: u32,
    expires: Timestamp,
    from: Vec<IpNet>,
    created: Timestamp,
}

/// # Errors
/// With the first thing that is wrong.
pub fn check(asked: &NewToken, now: Timestamp) -> Result<Checked, Problem> {
    let limit = |life| now.checked_add(life).unwrap_or(Timestamp::MAX);
    let expires = asked.expires.unwrap_or_else(|| limit(LIFE));
    if expires <= now || expires > limit(LIFE_MAX) {
        return Err(wrong(
            "expires",
            &expires.to_string(),
            "a time within a year from now",
        ));
    }
    if !(1..=USES_MAX).contains(&asked.uses) {
        return Err(wrong(
            "uses",
            &asked.uses.to_string(),
            format_args!("a number from 1 to {USES_MAX}"),
        ));
    }
    if asked.from.len() > NETWORKS_MAX {
        return Err(Problem::bad_request(format!(
            "`from` may name {NETWORKS_MAX} networks"
        )));
    }
    let network = |text: &String| {
        let parsed: Result<IpNet, _> = text.parse();
        parsed
            .or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()))
            .map_err(|_| wrong("from", text, "a network such as 10.1.0.0/16"))
    };
    Ok(Checked {
        agency: agency("agency", &asked.agency)?,
        uses: asked.uses,
        expires,
        from: asked.from.iter().map(network).collect::<Result<_, _>>()?,
        created: now,
    })
}

/// Makes the token and returns its text, which is told this once.
///
/// # Errors
/// When it could not be stored.
pub async fn store(store: &Store, pin: KeyPin, checked: Checked) -> Result<String, StoreError> {
    let token = Token::random(pin);
    store
        .add_enrolment_token(EnrolmentToken {
            hash: token.secret_hash(),
            agency: checked.agency,
            uses: checked.uses,
            expires: checked.expires,
            from: checked.from,
            created: checked.created,
        })
        .await?;
    Ok(token.text())
}
