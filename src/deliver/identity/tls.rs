//! The settings of TLS for each end of each connection. Always 1.3, always ring, never a system's list of authorities.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError as Judgement, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, RootCertStore, ServerConfig, SignatureScheme,
};
use thiserror::Error;

use crate::deliver::identity::certificate::{Facts, KeyPin};
use crate::deliver::identity::{Ca, IdentityError, JudgedTime, Pair, ServerKeys};

/// How long after its end an agent's certificate still opens a connection, for nothing but renewal: a host that was
/// off for a month comes back without anyone's help.
pub const EXPIRED_ACCEPTED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The server is not of the centre that the token is for.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("the token is for the centre with key {expected}, this one has {found}", found = .found.map_or_else(|| "none to show".to_owned(), |pin| pin.to_string()))]
pub struct OtherCentre {
    pub expected: KeyPin,
    pub found: Option<KeyPin>,
}

/// Returns what the agents' port needs: nothing is parsed for those without a certificate of this authority.
///
/// # Errors
/// The authority's certificate can't judge others.
pub fn agents_listener(
    ca: &Ca,
    server: Arc<ServerKeys>,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let strict =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca.certificate())?), provider())
            .build()
            .map_err(IdentityError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Tls)?
        .with_client_cert_verifier(Arc::new(Lenient { strict }))
        .with_cert_resolver(server);
    config.alpn_protocols = both_protocols();
    Ok(Arc::new(config))
}

/// Returns what the port of people, tools and enrolment needs.
///
/// # Errors
/// None with the provider that is built in.
pub fn people_listener(server: Arc<ServerKeys>) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(server);
    config.alpn_protocols = both_protocols();
    Ok(Arc::new(config))
}

/// Returns what an agent needs to talk to its centre: its own pair, and the authority that it enrolled with.
///
/// # Errors
/// The key or a certificate can't be used.
pub fn mutual_client(
    ca: &CertificateDer<'static>,
    pair: &Pair,
    time: Arc<JudgedTime>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = client(time)?
        .with_root_certificates(roots(ca)?)
        .with_client_auth_cert(vec![pair.certificate().clone()], pair.key())
        .map_err(IdentityError::Tls)?;
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// Returns what people's tools need: the authority that their profile names.
///
/// # Errors
/// The certificate can't be used.
pub fn people_client(
    ca: &CertificateDer<'static>,
    time: Arc<JudgedTime>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = client(time)?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// Returns what enrolment needs: any server whose chain ends in the authority that the token names.
///
/// # Errors
/// None with the provider that is built in.
pub fn enrolling_client(
    pin: KeyPin,
    time: Arc<JudgedTime>,
) -> Result<Arc<ClientConfig>, IdentityError> {
    let mut config = client(time)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin }))
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
}

/// The one cryptography provider: named each time, because a second one in the tree would make rustls's default panic.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Cheaper than HTTP/2 where one request goes at a time: a quarter less CPU a request, measured with 200 connections.
const HTTP1: &[u8] = b"http/1.1";

fn both_protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), HTTP1.to_vec()]
}

fn roots(ca: &CertificateDer<'static>) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(IdentityError::Tls)?;
    Ok(roots)
}

fn client(
    time: Arc<JudgedTime>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, IdentityError> {
    ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(IdentityError::Tls)
}

/// Judges an agent's certificate that ended at most 30 days ago as of its own last second: all else about it must hold.
#[derive(Debug)]
struct Lenient {
    strict: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let at = Facts::read(end_entity)
            .ok()
            .and_then(|facts| u64::try_from(facts.not_after.as_second()).ok())
            .filter(|&end| now.as_secs() > end)
            .filter(|&end| now.as_secs() - end <= EXPIRED_ACCEPTED.as_secs())
            .map_or(now, |end| {
                UnixTime::since_unix_epoch(Duration::from_secs(end))
            });
        self.strict
            .verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

/// Finds the pinned authority in the chain that the server shows, then judges the chain by it alone.
#[derive(Debug)]
struct Pinned {
    pin: KeyPin,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let mut found = None;
        let mut authority = None;
        for certificate in intermediates {
            let pin = KeyPin::of(certificate).ok();
            found = found.or(pin);
            if pin == Some(self.pin) {
                authority = Some(certificate);
            }
        }
        let Some(authority) = authority else {
            let other = OtherCentre {
                expected: self.pin,
                found,
            };
            return Err(Error::InvalidCertificate(Judgement::Other(OtherError(
                Arc::new(other),
            ))));
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is spoken here".to_owned())
}
