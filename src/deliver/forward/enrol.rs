//! A host becomes an agent: it shows a token, its key stays with it, and it comes back with a certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio::task::{JoinError, spawn_blocking};

use crate::deliver::forward::address::Address;
use crate::deliver::forward::client::{Client, ClientError};
use crate::deliver::forward::connect::{ConnectError, Dialer};
use crate::deliver::forward::exchange::ExchangeError;
use crate::deliver::identity::{
    AgentId, Identity, IdentityError, JudgedTime, KeyPin, NewAgent, NewKey, NotAnAgentId,
    OtherCentre, Token, enrolling_client, read_pem,
};
use crate::deliver::wire::{EnrolAnswer, EnrolRequest, PATH_ENROL};

#[derive(Debug, Error)]
pub enum EnrolError {
    #[error("{path} is not empty: this host is enrolled already", path = .path.display())]
    FolderExists { path: PathBuf },
    #[error("the token is of another centre than {url}; nothing was sent")]
    OtherCentre { url: Address, source: OtherCentre },
    #[error("cannot reach {url}")]
    Unreachable { url: Address, source: ExchangeError },
    /// Used up, ended, unknown, not from this network: the centre's word.
    #[error("{url} refuses the token: {why}")]
    Refused { url: Address, why: String },
    #[error("cannot enrol")]
    Failed(#[source] ClientError),
    #[error("{url} gave a certificate of another authority than the token names")]
    OtherAuthority { url: Address },
    #[error("{url} gave a name that is none")]
    Name {
        url: Address,
        #[source]
        source: NotAnAgentId,
    },
    #[error("{url} gave an address for alerts that is none")]
    Urls { url: Address },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("writing the identity was cut short")]
    Cut(#[source] JoinError),
}

/// What enrolling needs.
#[derive(Debug)]
pub struct Enrolment<'a> {
    /// The port of people and enrolment.
    pub url: Address,
    pub token: &'a Token,
    pub host: &'a str,
    /// The machine's id, hashed.
    pub machine: &'a str,
    /// Absent or empty.
    pub folder: &'a Path,
    pub dialer: Dialer,
}

/// Enrols this host. The centre is judged by the token before the first byte of a request leaves.
///
/// # Errors
/// Says what to do about it: another centre, a token that is used up, a centre out of reach, a host that has its identity.
pub async fn enrol(enrolment: &Enrolment<'_>) -> Result<Identity, EnrolError> {
    let url = &enrolment.url;
    if Identity::is_in(enrolment.folder) {
        return Err(EnrolError::FolderExists {
            path: enrolment.folder.to_owned(),
        });
    }
    let key = NewKey::random()?;
    let request = EnrolRequest {
        token: enrolment.token.text(),
        csr: key.request()?,
        host: enrolment.host.to_owned(),
        machine: enrolment.machine.to_owned(),
    };
    let tls = enrolling_client(enrolment.token.pin(), Arc::new(JudgedTime::default()))?;
    let client = Client::with(url.clone(), tls, None, enrolment.dialer.clone());
    let answer = client
        .post(PATH_ENROL, &request)
        .await
        .map_err(|error| explain(error, url))?;
    let agent = check(&answer, enrolment)?;
    let folder = enrolment.folder.to_owned();
    let write = move || {
        let new = NewAgent {
            agent: &agent,
            agency: &answer.agency,
            urls: &answer.urls,
            certificate: &answer.certificate,
            authority: &answer.ca,
        };
        Identity::create(&folder, &key, &new)
    };
    let identity = spawn_blocking(write).await.map_err(EnrolError::Cut)??;
    Ok(identity)
}

fn check(answer: &EnrolAnswer, enrolment: &Enrolment<'_>) -> Result<AgentId, EnrolError> {
    let url = &enrolment.url;
    let pin = read_pem(&answer.ca).and_then(|authority| KeyPin::of(&authority));
    if pin != Ok(enrolment.token.pin()) {
        return Err(EnrolError::OtherAuthority { url: url.clone() });
    }
    if answer.urls.is_empty() || answer.urls.iter().any(|to| to.parse::<Address>().is_err()) {
        return Err(EnrolError::Urls { url: url.clone() });
    }
    answer.agent.parse().map_err(|source| EnrolError::Name {
        url: url.clone(),
        source,
    })
}

fn explain(error: ClientError, url: &Address) -> EnrolError {
    let url = url.clone();
    match error {
        ClientError::Exchange { source, .. } => match source {
            ExchangeError::Connect(ConnectError::OtherCentre(source)) => {
                EnrolError::OtherCentre { url, source }
            }
            source => EnrolError::Unreachable { url, source },
        },
        ClientError::Refused {
            status: status @ (401 | 403),
            detail,
            ..
        } => EnrolError::Refused {
            url,
            why: if detail.is_empty() {
                format!("{status} without a reason")
            } else {
                detail
            },
        },
        source => EnrolError::Failed(source),
    }
}
