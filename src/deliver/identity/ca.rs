//! A centre's certificate authority: one key, which signs the centre's own certificate and those of its agents.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::CertificateDer;

use crate::deliver::identity::agent_id::random;
use crate::deliver::identity::certificate::{Facts, KeyPin, read_pem};
use crate::deliver::identity::{AgentId, IdentityError, disk};

/// The authority in `ca.key` and `ca.crt` of a folder, both 0600.
pub struct Ca {
    folder: PathBuf,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: KeyPin,
    issuer: Issuer<'static, KeyPair>,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Enrolled hosts pin it: replacing it means to enrol every one again.
const CA_LIFE: Duration = Duration::from_secs(3653 * 24 * 60 * 60);
/// Browsers refuse more than 398 days.
const SERVER_LIFE: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const CLIENT_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The agent may have a clock that is an hour slow: a clock wrong by a zone is caught by the time that the centre tells.
const CLIENT_BACKDATED: Duration = Duration::from_secs(60 * 60);
/// A request of ours has 400 bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

impl Ca {
    /// Loads the authority, or makes it where there is none.
    ///
    /// # Errors
    /// The folder can't be read or written; what it holds is no authority.
    pub fn open(folder: &Path, now: Timestamp) -> Result<Self, IdentityError> {
        disk::make_folder(folder)?;
        let key_path = folder.join("ca.key");
        let certificate_path = folder.join("ca.crt");
        let pem = disk::read_if_there(&certificate_path)?;
        // The key is written first: one without a certificate is what a power cut left of the first start.
        let key = match disk::read_if_there(&key_path)? {
            Some(text) => read_key(&key_path, &text)?,
            None if pem.is_some() => return Err(IdentityError::KeyMissing { path: key_path }),
            None => write_new_key(&key_path)?,
        };
        let pem = match pem {
            Some(pem) => pem,
            None => {
                let pem = certify_self(&key, now)?;
                disk::write(&certificate_path, pem.as_bytes())?;
                pem
            }
        };
        Self::new(folder, pem, key)
    }

    fn new(folder: &Path, pem: String, key: KeyPair) -> Result<Self, IdentityError> {
        let fault = |source| IdentityError::Certificate {
            path: folder.join("ca.crt"),
            source,
        };
        let certificate = read_pem(&pem).map_err(fault)?;
        let facts = Facts::read(&certificate).map_err(fault)?;
        if facts.key_info != key.subject_public_key_info() {
            return Err(IdentityError::Pair {
                folder: folder.to_owned(),
            });
        }
        Ok(Self {
            pin: KeyPin::of_key(&facts.key_info),
            issuer: Issuer::from_ca_cert_der(&certificate, key).map_err(IdentityError::Sign)?,
            folder: folder.to_owned(),
            certificate,
            pem,
        })
    }

    /// Returns its certificate, for people and profiles.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Returns what tokens carry of its key.
    pub fn pin(&self) -> KeyPin {
        self.pin
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Signs the key of a request (PEM) for an agent: 90 days, from an hour ago. Of the request nothing else is taken.
    ///
    /// # Errors
    /// The request is damaged, not signed by its own key, or not ECDSA P-256.
    pub fn sign_agent(
        &self,
        request: &str,
        agent: &AgentId,
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(IdentityError::Request(
                rcgen::Error::CouldNotParseCertificationRequest,
            ));
        }
        // Verifies the signature: who asks has the key.
        let request =
            CertificateSigningRequestParams::from_pem(request).map_err(IdentityError::Request)?;
        let key = request.public_key;
        // An uncompressed point of P-256; the algorithm alone may come with another curve.
        if key.algorithm() != &PKCS_ECDSA_P256_SHA256
            || key.der_bytes().len() != 65
            || key.der_bytes().first() != Some(&4)
        {
            return Err(IdentityError::RequestKey);
        }
        let mut params = params(agent.as_str());
        set_life(&mut params, now, CLIENT_BACKDATED, CLIENT_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let urn = Ia5String::try_from(agent.urn()).map_err(IdentityError::Sign)?;
        params.subject_alt_names = vec![SanType::URI(urn)];
        let signed = params
            .signed_by(&key, &self.issuer)
            .map_err(IdentityError::Sign)?;
        Ok(signed.pem())
    }

    /// Signs a key of the centre itself for its names and addresses: a year, from a day ago.
    pub(super) fn sign_server(
        &self,
        key: &KeyPair,
        names: &[String],
        now: Timestamp,
    ) -> Result<String, IdentityError> {
        let mut params = params("canhgac centre");
        set_life(&mut params, now, DAY, SERVER_LIFE);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = names
            .iter()
            .map(|name| alternative_name(name))
            .collect::<Result<_, _>>()?;
        let signed = params
            .signed_by(key, &self.issuer)
            .map_err(IdentityError::Sign)?;
        Ok(signed.pem())
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("folder", &self.folder)
            .field("pin", &self.pin)
            .finish_non_exhaustive()
    }
}

fn certify_self(key: &KeyPair, now: Timestamp) -> Result<String, IdentityError> {
    // The key's hash is part of the name: else two centres' authorities look alike to TLS libraries, which then
    // report a bad signature in place of an unknown issuer.
    let pin = KeyPin::of_key(&key.subject_public_key_info()).to_string();
    let mut params = params(&format!("canhgac CA {}", pin.get(..8).unwrap_or_default()));
    set_life(&mut params, now, DAY, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    let certificate = params.self_signed(key).map_err(IdentityError::Sign)?;
    Ok(certificate.pem())
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // 127 random bits with the top bit clear: a positive number in DER (RFC 5280 4.1.2.2).
    let mut serial = random::<16>();
    serial[0] &= 0x7f;
    params.serial_number = Some(serial.to_vec().into());
    params.use_authority_key_identifier_extension = true;
    params
}

fn alternative_name(name: &str) -> Result<SanType, IdentityError> {
    let fault = || IdentityError::Name {
        name: name.to_owned(),
    };
    if let Ok(address) = name.parse() {
        return Ok(SanType::IpAddress(address));
    }
    // rustls judges names as RFC 1034 and CA/B rules have them; what it can't be asked for needs no certificate.
    rustls::pki_types::DnsName::try_from(name).map_err(|_| fault())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| fault())?))
}

pub(super) fn read_key(path: &Path, text: &str) -> Result<KeyPair, IdentityError> {
    KeyPair::from_pem(text).map_err(|source| IdentityError::Key {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn write_new_key(path: &Path) -> Result<KeyPair, IdentityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(IdentityError::Sign)?;
    disk::write(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

/// Times before 1970 become 1970, those after 8900 become 8900: rcgen's calendar ends with 9999.
fn set_life(params: &mut CertificateParams, now: Timestamp, backdated: Duration, life: Duration) {
    const YEAR_8900: u64 = 218_690_000_000;
    let now = u64::try_from(now.as_second()).unwrap_or(0).min(YEAR_8900);
    let now = Duration::from_secs(now);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(backdated);
    params.not_after = epoch + now.saturating_add(life);
}
