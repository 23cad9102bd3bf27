//! The centre's own certificate: made, kept and replaced without anyone's help.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::deliver::identity::ca::{Ca, read_key, write_new_key};
use crate::deliver::identity::certificate::{Facts, read_pem};
use crate::deliver::identity::tls::provider;
use crate::deliver::identity::{IdentityError, disk};

/// What both listeners show: the centre's certificate, for its names, and its authority's behind it.
pub struct ServerKeys {
    current: RwLock<Arc<CertifiedKey>>,
}

/// Replaced this long before its end: a centre that is started at least monthly never shows an ended one.
const RENEWED_BEFORE_END: SignedDuration = SignedDuration::from_hours(30 * 24);

impl ServerKeys {
    /// Loads `server.key` and `server.crt` beside the authority, or makes them: also where the certificate has less than
    /// 30 days to go or is for other names.
    ///
    /// # Errors
    /// A name is none; the folder can't be read or written; the key is damaged.
    pub fn open(ca: &Ca, names: &[String], now: Timestamp) -> Result<Self, IdentityError> {
        Ok(Self {
            current: RwLock::new(Arc::new(load(ca, names, now)?)),
        })
    }

    /// Does the same in a running centre: once a day is enough. New connections see the new certificate.
    ///
    /// # Errors
    /// As [`ServerKeys::open`]; what was shown before stays.
    pub fn refresh(&self, ca: &Ca, names: &[String], now: Timestamp) -> Result<(), IdentityError> {
        let fresh = Arc::new(load(ca, names, now)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Returns the certificate that is shown now.
    pub fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.shown().cert.first().cloned()
    }

    fn shown(&self) -> Arc<CertifiedKey> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }
}

impl ResolvesServerCert for ServerKeys {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKeys(..)")
    }
}

fn load(ca: &Ca, names: &[String], now: Timestamp) -> Result<CertifiedKey, IdentityError> {
    let key_path = ca.folder().join("server.key");
    let certificate_path = ca.folder().join("server.crt");
    let key = match disk::read_if_there(&key_path)? {
        Some(text) => read_key(&key_path, &text)?,
        None => write_new_key(&key_path)?,
    };
    let kept = disk::read_if_there(&certificate_path)?
        .and_then(|pem| read_pem(&pem).ok())
        .filter(|certificate| serves(certificate, &key, names, now));
    let certificate = match kept {
        Some(certificate) => certificate,
        None => issue(ca, &key, names, now, &certificate_path)?,
    };
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = provider()
        .key_provider
        .load_private_key(private)
        .map_err(IdentityError::Tls)?;
    // The authority's certificate goes along: a host that enrols knows only the hash of its key.
    Ok(CertifiedKey::new(
        vec![certificate, ca.certificate().clone()],
        signing,
    ))
}

fn issue(
    ca: &Ca,
    key: &rcgen::KeyPair,
    names: &[String],
    now: Timestamp,
    path: &Path,
) -> Result<CertificateDer<'static>, IdentityError> {
    let pem = ca.sign_server(key, names, now)?;
    disk::write(path, pem.as_bytes())?;
    read_pem(&pem).map_err(IdentityError::Received)
}

fn serves(
    certificate: &CertificateDer<'_>,
    key: &rcgen::KeyPair,
    names: &[String],
    now: Timestamp,
) -> bool {
    use rcgen::PublicKeyData;
    let Ok(facts) = Facts::read(certificate) else {
        return false;
    };
    let mut wanted: Vec<String> = names.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    let mut has = facts.names;
    has.dedup();
    has == wanted
        && facts.key_info == key.subject_public_key_info()
        && facts.not_before <= now
        && facts.not_after.duration_since(now) > RENEWED_BEFORE_END
}
