//! Keys, certificates, enrolment. (Thin stand-in, replaced by the deliver room's.)

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use ring::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme,
};

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}")]
    File {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    #[error("certificate")]
    Rcgen(#[from] rcgen::Error),
    #[error("tls")]
    Tls(#[from] rustls::Error),
    #[error("no certificate of an agent")]
    NotAnAgent,
}

pub struct Ca {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

pub struct ServerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub agent: String,
    pub not_after: Timestamp,
}

fn days(n: u64) -> Duration {
    Duration::from_secs(n * 86400)
}

impl Ca {
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let key_path = folder.join("ca.key");
        let crt_path = folder.join("ca.crt");
        if !key_path.exists() {
            let key = rcgen::KeyPair::generate()?;
            let mut params = rcgen::CertificateParams::new(Vec::new())?;
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, "canhgac");
            params.not_before = (SystemTime::now() - days(1)).into();
            params.not_after = (SystemTime::now() + days(3650)).into();
            let crt = params.self_signed(&key)?;
            for (path, text) in [(&crt_path, crt.pem()), (&key_path, key.serialize_pem())] {
                fs::OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600)
                    .open(path)
                    .and_then(|mut file| file.write_all(text.as_bytes()))
                    .map_err(|source| IdentityError::File {
                        path: path.clone(),
                        source,
                    })?;
            }
        }
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(|source| IdentityError::File {
                path: path.to_owned(),
                source,
            })
        };
        let pem = read(&crt_path)?;
        let key = rcgen::KeyPair::from_pem(&read(&key_path)?)?;
        Ok(Self {
            issuer: rcgen::Issuer::from_ca_cert_pem(&pem, key)?,
            pem,
        })
    }

    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn token(&self, secret: &str) -> String {
        let spki = rcgen::PublicKeyData::subject_public_key_info(self.issuer.key());
        let hash = digest::digest(&digest::SHA256, &spki);
        let half: String = hash.as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect();
        format!("cg1.{secret}.{half}")
    }

    pub fn issue_server(&self, names: &[String]) -> Result<ServerIdentity, IdentityError> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new(names.to_vec())?;
        params.not_before = (SystemTime::now() - days(1)).into();
        params.not_after = (SystemTime::now() + days(90)).into();
        params
            .extended_key_usages
            .push(rcgen::ExtendedKeyUsagePurpose::ServerAuth);
        let crt = params.signed_by(&key, &self.issuer)?;
        Ok(ServerIdentity {
            chain: vec![crt.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        })
    }

    pub fn sign_agent(
        &self,
        csr: &str,
        agent: &str,
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        let now = SystemTime::from(now);
        let mut csr = rcgen::CertificateSigningRequestParams::from_pem(csr)?;
        let mut name = rcgen::DistinguishedName::new();
        name.push(rcgen::DnType::CommonName, agent);
        csr.params.distinguished_name = name;
        csr.params.subject_alt_names = vec![rcgen::SanType::URI(
            format!("urn:canhgac:agent:{agent}").try_into()?,
        )];
        csr.params.not_before = (now - Duration::from_secs(3600)).into();
        csr.params.not_after = (now + days(90)).into();
        csr.params.is_ca = rcgen::IsCa::ExplicitNoCa;
        csr.params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        Ok(csr.signed_by(&self.issuer)?.pem())
    }

    fn roots(&self) -> Result<Arc<RootCertStore>, IdentityError> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(|_| IdentityError::NotAnAgent)?)?;
        Ok(Arc::new(roots))
    }

    pub fn agents_server(&self, server: ServerIdentity) -> Result<ServerConfig, IdentityError> {
        let inner = WebPkiClientVerifier::builder_with_provider(self.roots()?, provider())
            .build()
            .map_err(|_| IdentityError::NotAnAgent)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(Lenient(inner)))
            .with_single_cert(server.chain, server.key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    pub fn people_server(&self, server: ServerIdentity) -> Result<ServerConfig, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(server.chain, server.key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[derive(Debug)]
struct Lenient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lenient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.0.verify_client_cert(end, between, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                let past = now.as_secs().saturating_sub(30 * 86400);
                let past = UnixTime::since_unix_epoch(Duration::from_secs(past));
                self.0.verify_client_cert(end, between, past)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Who holds this certificate, already verified by the handshake.
pub fn peer(certificate: &CertificateDer<'_>) -> Result<Peer, IdentityError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|_| IdentityError::NotAnAgent)?;
    let agent = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .into_iter()
        .flat_map(|names| &names.value.general_names)
        .find_map(|name| match name {
            x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix("urn:canhgac:agent:"),
            _ => None,
        })
        .ok_or(IdentityError::NotAnAgent)?;
    let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp())
        .map_err(|_| IdentityError::NotAnAgent)?;
    Ok(Peer {
        agent: agent.to_owned(),
        not_after,
    })
}

/// A client that trusts one CA and shows no certificate.
pub fn people_client(ca_pem: &str) -> Result<ClientConfig, IdentityError> {
    Ok(client(ca_pem)?.with_no_client_auth())
}

pub fn agent_client(ca_pem: &str, crt: &str, key: &str) -> Result<ClientConfig, IdentityError> {
    let chain = vec![CertificateDer::from_pem_slice(crt.as_bytes()).map_err(|_| IdentityError::NotAnAgent)?];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| IdentityError::NotAnAgent)?;
    Ok(client(ca_pem)?.with_client_auth_cert(chain, key)?)
}

fn client(
    ca_pem: &str,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| IdentityError::NotAnAgent)?)?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots))
}

/// A fresh key and a request to sign it, both PEM.
pub fn key_and_csr() -> Result<(String, String), IdentityError> {
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::new(Vec::new())?.serialize_request(&key)?;
    Ok((key.serialize_pem(), csr.pem()?))
}
