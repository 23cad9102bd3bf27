use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

use super::*;
use crate::event::Value;

fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::new(vec!["Host.Example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(2025, 12, 31);
    params.serial_number = Some(vec![0x0a, 0xbc].into());
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn a_certificate_is_told_as_it_was_at_its_time() {
    let der = made(|params| {
        params.distinguished_name.push(DnType::CountryName, "VN");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "A, B");
        params
            .distinguished_name
            .push(DnType::CommonName, "host.example");
    });
    let certificate = Certificate::read(&der).unwrap();
    assert_eq!(certificate.subject, "O=A\\, B,C=VN,CN=host.example");
    for (second, expired, early) in [
        (1_700_000_000, "false", "true"),
        (1_750_000_000, "false", "false"),
        (1_800_000_000, "true", "false"),
    ] {
        let mut event = Event::new(b"");
        event.time = Some(Timestamp::from_second(second).unwrap());
        certificate.set(&mut event);
        let text = |id| event.get(id).map(Value::lossy).unwrap_or_default();
        assert_eq!(text(network::CERT_EXPIRED), expired, "{second}");
        assert_eq!(text(network::CERT_NOT_YET), early, "{second}");
        assert_eq!(text(network::CERT_SERIAL), "0ABC");
        assert_eq!(text(network::CERT_VERSION), "3");
        assert_eq!(text(network::CERT_DAYS), "364");
        assert_eq!(text(network::CERT_KEY_TYPE), "ecdsa");
        assert_eq!(text(network::CERT_KEY_ALG), "id-ecPublicKey");
        assert_eq!(text(network::CERT_SIG_ALG), "ecdsa-with-SHA256");
        assert_eq!(text(network::CERT_SELF_SIGNED), "true");
        assert_eq!(text(network::SAN_DNS), "host.example");
        assert_eq!(text(network::FINGERPRINT).len(), 64);
    }
}

#[test]
fn a_cut_or_changed_certificate_never_panics() {
    let der = made(|_| ());
    for cut in 0..der.len() {
        assert!(Certificate::read(&der[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 0xff;
        let _ = Certificate::read(&changed);
    }
}
