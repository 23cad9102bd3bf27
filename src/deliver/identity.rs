//! Keys, certificates and the settings of TLS: who is who between agents and centres.
//!
//! The centre is its own authority ([`Ca`]): ECDSA P-256, one level deep, no revocation lists, because the
//! centre looks an agent up on every request. Does not open connections and does not speak the wire.

mod agent_id;
mod ca;
mod certificate;
mod disk;
mod folder;
mod server;
mod time;
mod tls;
mod token;

pub use agent_id::{AgentId, NotAnAgentId};
pub use ca::Ca;
pub use certificate::{CertificateError, KeyPin, NotAKeyPin, Peer, not_after, read_pem};
pub use folder::{Identity, NewAgent, NewKey, Pair};
pub use server::ServerKeys;
pub use time::{BUILT, JudgedTime};
pub use tls::{
    EXPIRED_ACCEPTED, OtherCentre, agents_listener, enrolling_client, mutual_client, people_client,
    people_listener,
};
pub use token::{NotAToken, Token};

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("cannot read {path}", path = .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}", path = .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{path} is not empty: it holds another identity", path = .path.display())]
    FolderExists { path: PathBuf },
    #[error("{path} is missing, but the certificate that belongs to it is there", path = .path.display())]
    KeyMissing { path: PathBuf },
    #[error("{path} is no private key", path = .path.display())]
    Key { path: PathBuf, source: rcgen::Error },
    #[error("{path} is no certificate that can be used", path = .path.display())]
    Certificate {
        path: PathBuf,
        source: CertificateError,
    },
    #[error("the certificate received cannot be used")]
    Received(#[source] CertificateError),
    #[error("the certificate received is not for the key of this host")]
    ForeignKey,
    #[error("the certificate received is for agent {found}, not for {expected}")]
    ForeignAgent { found: AgentId, expected: AgentId },
    #[error("the key and the certificate in {folder} do not belong together", folder = .folder.display())]
    Pair { folder: PathBuf },
    #[error("{path} cannot be understood", path = .path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("`{name}` is neither a host name nor an address")]
    Name { name: String },
    #[error("the request for a certificate cannot be accepted")]
    Request(#[source] rcgen::Error),
    #[error(
        "the request for a certificate has a key of another kind; only ECDSA P-256 is accepted"
    )]
    RequestKey,
    #[error("cannot make a key or certificate")]
    Sign(#[source] rcgen::Error),
    #[error("the key or certificate cannot be used for TLS")]
    Tls(#[source] rustls::Error),
    #[error("the authority's certificate cannot judge others")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    #[error("no renewal is under way")]
    NoRenewal,
}

#[cfg(test)]
mod tests;
