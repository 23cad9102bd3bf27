//! An agent's identity on its disk: `agent.key`, `agent.crt`, `ca.crt` and `identity.json`, all 0600.
//!
//! While it is renewed a second pair stands beside (`agent.key.new`, `agent.crt.new`) and takes the place of the first
//! only after it has worked; a power cut at any step leaves a pair that works.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};

use crate::deliver::identity::ca::{read_key, write_new_key};
use crate::deliver::identity::certificate::{Facts, read_pem};
use crate::deliver::identity::{AgentId, IdentityError, disk};

/// An enrolled agent.
#[derive(Debug, Clone)]
pub struct Identity {
    pub agent: AgentId,
    pub agency: String,
    /// Where it was told to send.
    pub urls: Vec<String>,
    folder: PathBuf,
    authority: CertificateDer<'static>,
    current: Pair,
    next: Option<Pair>,
}

/// A key and its certificate.
#[derive(Clone)]
pub struct Pair {
    key: Vec<u8>,
    certificate: CertificateDer<'static>,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// A key made on this host, which asks for a certificate.
pub struct NewKey(KeyPair);

/// What a centre gave at enrolment.
#[derive(Debug, Clone)]
pub struct NewAgent<'a> {
    pub agent: &'a AgentId,
    pub agency: &'a str,
    pub urls: &'a [String],
    /// PEM.
    pub certificate: &'a str,
    /// PEM.
    pub authority: &'a str,
}

#[derive(Serialize, Deserialize)]
struct Names {
    agent: AgentId,
    agency: String,
    urls: Vec<String>,
}

const KEY: &str = "agent.key";
const CERTIFICATE: &str = "agent.crt";
const AUTHORITY: &str = "ca.crt";
const NAMES: &str = "identity.json";
const NEW: &str = "new";

impl NewKey {
    /// Makes one, in memory.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn random() -> Result<Self, IdentityError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(IdentityError::Sign)
    }

    /// Returns the request for a certificate, PEM. It names nobody: the centre does.
    ///
    /// # Errors
    /// Signing fails.
    pub fn request(&self) -> Result<String, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .serialize_request(&self.0)
            .and_then(|request| request.pem())
            .map_err(IdentityError::Sign)
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey(..)")
    }
}

impl Pair {
    fn new(key: &KeyPair, certificate: CertificateDer<'static>) -> Result<Self, IdentityError> {
        let facts = Facts::read(&certificate).map_err(IdentityError::Received)?;
        if facts.key_info != key.subject_public_key_info() {
            return Err(IdentityError::ForeignKey);
        }
        Ok(Self {
            key: key.serialize_der(),
            certificate,
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    /// Two thirds of its life have passed.
    fn is_old(&self, now: Timestamp) -> bool {
        let life = self.not_after.duration_since(self.not_before);
        now.duration_since(self.not_before) >= life / 3 * 2
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Returns whether a folder holds something, so that enrolling into it would lose it.
    pub fn is_in(folder: &Path) -> bool {
        fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Writes what enrolment brought: all of it, or nothing. The folder must be absent or empty.
    ///
    /// # Errors
    /// The folder holds something; it can't be written; the certificate is not for this key or agent.
    pub fn create(folder: &Path, key: &NewKey, new: &NewAgent<'_>) -> Result<Self, IdentityError> {
        let certificate = read_pem(new.certificate).map_err(IdentityError::Received)?;
        is_for(&certificate, new.agent)?;
        Pair::new(&key.0, certificate)?;
        read_pem(new.authority).map_err(IdentityError::Received)?;
        if Self::is_in(folder) {
            return Err(IdentityError::FolderExists {
                path: folder.to_owned(),
            });
        }
        let part = disk::beside(folder, "part");
        let write = |name: &str, text: &str| disk::write(&part.join(name), text.as_bytes());
        let names = Names {
            agent: new.agent.clone(),
            agency: new.agency.to_owned(),
            urls: new.urls.to_vec(),
        };
        let names = serde_json::to_string(&names).map_err(|source| IdentityError::Json {
            path: part.join(NAMES),
            source,
        })?;
        disk::make_folder(&part)?;
        write(KEY, &key.0.serialize_pem())?;
        write(CERTIFICATE, new.certificate)?;
        write(AUTHORITY, new.authority)?;
        write(NAMES, &names)?;
        // Onto an empty folder rename(2) works too.
        disk::rename(&part, folder)?;
        Self::load(folder)
    }

    /// Loads it; finishes the swap of a renewal that was cut short.
    ///
    /// # Errors
    /// A file can't be read, or they don't belong together.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        match Self::load_once(folder) {
            // `doctor` may look in just when the agent swaps its pair.
            Err(IdentityError::Pair { .. }) => Self::load_once(folder),
            loaded => loaded,
        }
    }

    fn load_once(folder: &Path) -> Result<Self, IdentityError> {
        let at = |name: &str| folder.join(name);
        let names = disk::read(&at(NAMES))?;
        let names: Names = serde_json::from_str(&names).map_err(|source| IdentityError::Json {
            path: at(NAMES),
            source,
        })?;
        let authority = read_certificate(&at(AUTHORITY), &disk::read(&at(AUTHORITY))?)?;
        let key = read_key(&at(KEY), &disk::read(&at(KEY))?)?;
        let certificate = read_certificate(&at(CERTIFICATE), &disk::read(&at(CERTIFICATE))?)?;
        let next_certificate = disk::read_if_there(&disk::beside(&at(CERTIFICATE), NEW))?
            .and_then(|pem| read_pem(&pem).ok());
        let current = match (Pair::new(&key, certificate), &next_certificate) {
            (Ok(pair), _) => pair,
            // The key is already the new one, its certificate still beside.
            (Err(IdentityError::ForeignKey), Some(next)) => {
                let pair = Pair::new(&key, next.clone()).map_err(|_| IdentityError::Pair {
                    folder: folder.to_owned(),
                })?;
                disk::take_over(&disk::beside(&at(CERTIFICATE), NEW), &at(CERTIFICATE))?;
                pair
            }
            (Err(_), _) => {
                return Err(IdentityError::Pair {
                    folder: folder.to_owned(),
                });
            }
        };
        let next_key = disk::read_if_there(&disk::beside(&at(KEY), NEW))?
            .and_then(|text| KeyPair::from_pem(&text).ok());
        let next = match (next_key, next_certificate) {
            (Some(key), Some(certificate)) => Pair::new(&key, certificate).ok(),
            _ => None,
        };
        Ok(Self {
            agent: names.agent,
            agency: names.agency,
            urls: names.urls,
            folder: folder.to_owned(),
            authority,
            current,
            next,
        })
    }

    /// Returns the certificate of the authority that it enrolled with.
    pub fn authority(&self) -> &CertificateDer<'static> {
        &self.authority
    }

    /// Returns the pair to connect with: the new one as long as it is on trial.
    pub fn pair(&self) -> &Pair {
        self.next.as_ref().unwrap_or(&self.current)
    }

    pub fn is_on_trial(&self) -> bool {
        self.next.is_some()
    }

    /// Returns whether two thirds of the certificate's life have passed.
    pub fn renewal_is_due(&self, now: Timestamp) -> bool {
        self.next.is_none() && self.current.is_old(now)
    }

    /// Returns the request to renew with. Its key is on disk first, and is the same until the renewal is through: an
    /// answer that got lost costs nothing.
    ///
    /// # Errors
    /// The key can't be made or written.
    pub fn renewal_request(&self) -> Result<String, IdentityError> {
        let path = disk::beside(&self.folder.join(KEY), NEW);
        let kept = disk::read_if_there(&path)?.and_then(|text| KeyPair::from_pem(&text).ok());
        match kept {
            Some(key) => NewKey(key).request(),
            None => NewKey(write_new_key(&path)?).request(),
        }
    }

    /// Takes the certificate that the centre gave for the request: from now on it is on trial.
    ///
    /// # Errors
    /// It is not for the new key or not for this agent; it can't be written.
    pub fn try_renewed(&mut self, certificate: &str) -> Result<(), IdentityError> {
        let path = disk::beside(&self.folder.join(KEY), NEW);
        let text = disk::read_if_there(&path)?.ok_or(IdentityError::NoRenewal)?;
        let key = read_key(&path, &text)?;
        let der = read_pem(certificate).map_err(IdentityError::Received)?;
        is_for(&der, &self.agent)?;
        let pair = Pair::new(&key, der)?;
        let beside = disk::beside(&self.folder.join(CERTIFICATE), NEW);
        disk::write(&beside, certificate.as_bytes())?;
        self.next = Some(pair);
        Ok(())
    }

    /// The pair on trial worked: it takes the place of the old one.
    ///
    /// # Errors
    /// The files can't be renamed; both pairs stay.
    pub fn keep_renewed(&mut self) -> Result<(), IdentityError> {
        let Some(next) = self.next.clone() else {
            return Ok(());
        };
        for name in [KEY, CERTIFICATE] {
            let path = self.folder.join(name);
            disk::take_over(&disk::beside(&path, NEW), &path)?;
        }
        self.current = next;
        self.next = None;
        Ok(())
    }

    /// The pair on trial was refused: back to the old one, and a later renewal begins with a new key.
    ///
    /// # Errors
    /// The files can't be removed.
    pub fn drop_renewed(&mut self) -> Result<(), IdentityError> {
        self.next = None;
        for name in [CERTIFICATE, KEY] {
            disk::remove(&disk::beside(&self.folder.join(name), NEW))?;
        }
        Ok(())
    }
}

fn is_for(certificate: &CertificateDer<'_>, expected: &AgentId) -> Result<(), IdentityError> {
    let found = Facts::read(certificate)
        .and_then(|facts| facts.agent())
        .map_err(IdentityError::Received)?;
    if found != *expected {
        return Err(IdentityError::ForeignAgent {
            found,
            expected: expected.clone(),
        });
    }
    Ok(())
}

fn read_certificate(path: &Path, pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    read_pem(pem).map_err(|source| IdentityError::Certificate {
        path: path.to_owned(),
        source,
    })
}
