//! Enrolment: a token and a request for a certificate become an agent. The same key again is the same agent and spends
//! no use of the token, so an answer that got lost costs nothing. Another key makes another agent, also on the same
//! machine: cloned machines share their machine id, and an id shared by two hosts would mix up their numbers.

use std::net::IpAddr;
use std::time::Instant;

use axum::Json;
use axum::extract::{Extension, Request, State};
use axum::http::{HeaderMap, Uri, header};
use jiff::Timestamp;

use crate::centre::auth::{Verdict, too_many};
use crate::centre::ingest::Doors;
use crate::centre::ingest::batch::words;
use crate::centre::listen::{PeerAddress, read_body};
use crate::centre::problem::Problem;
use crate::centre::store::agents::{Enrol, Enrolled, Refusal};
use crate::deliver::identity::{AgentId, IdentityError, KeyPin, Token, read_pem};
use crate::deliver::wire::{EnrolAnswer, EnrolRequest};

/// A request of ours has about 900 bytes.
const BODY_BYTES_MAX: usize = 32 * 1024;
const HOST_BYTES_MAX: usize = 255;
const MACHINE_BYTES_MAX: usize = 128;

/// POST /v1/enrol
pub async fn enrol(
    State(doors): State<Doors>,
    Extension(PeerAddress(address)): Extension<PeerAddress>,
    request: Request,
) -> Result<Json<EnrolAnswer>, Problem> {
    if doors.auth.failures.of(address, Instant::now()) == Verdict::TooMany {
        count(&doors, "throttled");
        return Err(too_many());
    }
    let name = asked_name(request.headers(), request.uri());
    let body = read_body(request, BODY_BYTES_MAX).await?;
    let asked: EnrolRequest = serde_json::from_slice(&body).map_err(|fault| {
        Problem::bad_request(format!(
            "expected {{token, csr, host, machine}}: {}",
            words(&fault)
        ))
    })?;
    let now = Timestamp::now();
    let (answer, result) = match judge(&doors, address, &asked, now).await? {
        Outcome::Enrolled {
            agent,
            agency,
            certificate,
            result,
        } => (
            EnrolAnswer {
                agent,
                agency,
                certificate,
                ca: doors.ca.pem().to_owned(),
                urls: doors.urls(name.as_deref()),
                time: now,
            },
            result,
        ),
        Outcome::Refused(problem, result) => {
            count(&doors, result);
            // A right answer to a wrong token takes no longer than to a right one; only how often is limited.
            return Err(match doors.auth.failures.note(address, Instant::now()) {
                Verdict::Few => problem,
                Verdict::TooMany => too_many(),
            });
        }
    };
    count(&doors, result);
    tracing::info!(agent = %answer.agent, agency = %answer.agency, "an agent enrolled");
    Ok(Json(answer))
}

enum Outcome {
    Enrolled {
        agent: String,
        agency: String,
        certificate: String,
        result: &'static str,
    },
    Refused(Problem, &'static str),
}

async fn judge(
    doors: &Doors,
    peer: IpAddr,
    asked: &EnrolRequest,
    now: Timestamp,
) -> Result<Outcome, Problem> {
    for (what, text, max) in [
        ("host", &asked.host, HOST_BYTES_MAX),
        ("machine", &asked.machine, MACHINE_BYTES_MAX),
    ] {
        if text.is_empty() || text.len() > max || text.chars().any(char::is_control) {
            return Err(Problem::bad_request(format!(
                "`{what}` must have 1 to {max} bytes and no control characters"
            )));
        }
    }
    let Ok(token) = asked.token.parse::<Token>() else {
        return Ok(refused(Refusal::UnknownToken));
    };
    let fresh = AgentId::random();
    let certificate = sign(doors, &asked.csr, &fresh, now)?;
    let key = read_pem(&certificate)
        .and_then(|certificate| KeyPin::of(&certificate))
        .map_err(|_| Problem::bad_request("the request for a certificate cannot be read"))?;
    let enrolled = doors
        .store
        .enrol(Enrol {
            token: token.secret_hash(),
            peer,
            agent: fresh.to_string(),
            host: asked.host.clone(),
            machine: asked.machine.clone(),
            key: key.to_string(),
            now,
        })
        .await?;
    Ok(match enrolled {
        Enrolled::New { agency } => {
            // Its first batch may come at once.
            doors.registry.refresh().await?;
            Outcome::Enrolled {
                agent: fresh.to_string(),
                agency,
                certificate,
                result: "new",
            }
        }
        Enrolled::Known { agent, agency } => {
            let id: AgentId = agent.parse().map_err(|_| {
                Problem::bad_request("this key belongs to an agent whose id cannot be certified")
            })?;
            Outcome::Enrolled {
                certificate: sign(doors, &asked.csr, &id, now)?,
                agent,
                agency,
                result: "known",
            }
        }
        Enrolled::Refused(refusal) => refused(refusal),
    })
}

fn refused(refusal: Refusal) -> Outcome {
    let (title, detail, result) = match refusal {
        Refusal::UnknownToken => (
            "this centre does not know the token",
            "this centre does not know the token: make one with `canhgac token create --agency A`",
            "unknown_token",
        ),
        Refusal::Expired => (
            "the token has expired",
            "the token has expired: make a new one with `canhgac token create --agency A`",
            "expired",
        ),
        Refusal::UsedUp => (
            "the token is used up",
            "the token is used up: make a new one with `canhgac token create --agency A --uses N`",
            "used_up",
        ),
        Refusal::Network => (
            "the token is not for this network",
            "the token is not for this network: `canhgac token create --from CIDR` names those that may use it",
            "network",
        ),
        Refusal::Revoked => (
            "this agent was revoked",
            "this agent was revoked: the host needs a new token",
            "revoked",
        ),
    };
    Outcome::Refused(Problem::forbidden(title, detail), result)
}

/// Signs what an agent asks for; the faults that are its own are told to it.
pub fn sign(
    doors: &Doors,
    request: &str,
    agent: &AgentId,
    now: Timestamp,
) -> Result<String, Problem> {
    doors
        .ca
        .sign_agent(request, agent, now)
        .map_err(|fault| match fault {
            IdentityError::Request(_) | IdentityError::RequestKey => {
                Problem::bad_request(fault.to_string())
            }
            fault => {
                tracing::error!(error = %fault, "cannot sign a certificate");
                Problem::overloaded("the centre cannot sign certificates now")
            }
        })
}

/// The name under which the host reached us: it goes on with it, if our certificate has it.
fn asked_name(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let authority = match host {
        Some(host) => host.parse().ok()?,
        None => uri.authority()?.clone(),
    };
    Some(
        authority
            .host()
            .trim_matches(['[', ']'])
            .to_ascii_lowercase(),
    )
}

fn count(doors: &Doors, result: &str) {
    doors.metrics.enrolments.with_label_values(&[result]).inc();
}
