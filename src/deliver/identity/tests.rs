use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, CertificateError as Judgement, ClientConfig, ClientConnection, Error,
    ServerConfig, ServerConnection, StreamOwned,
};
use tempfile::TempDir;

use super::*;
use crate::deliver::identity::certificate::Facts;

const DAY: i64 = 24;

#[test]
fn an_agents_id_is_a_and_16_hex_digits() {
    let id = AgentId::random();
    assert_eq!(id.as_str().parse(), Ok(id.clone()));
    assert_eq!(AgentId::from_urn(&id.urn()), Ok(id));
    for bad in [
        "",
        "a",
        "a0123",
        "b0123456789abcdef",
        "a0123456789ABCDEF",
        "a0123456789abcdef0",
        "a0123456789abcde/",
    ] {
        assert_eq!(bad.parse::<AgentId>(), Err(NotAnAgentId), "{bad}");
        assert_eq!(AgentId::from_urn(bad), Err(NotAnAgentId), "{bad}");
    }
}

#[test]
fn an_authority_is_made_once_and_loaded_after() {
    let folder = TempDir::new().unwrap();
    let first = Ca::open(folder.path(), Timestamp::now()).unwrap();
    let second = Ca::open(folder.path(), Timestamp::now()).unwrap();
    assert_eq!(first.pem(), second.pem());
    assert_eq!(first.pin(), second.pin());
    assert_eq!(first.pin(), KeyPin::of(first.certificate()).unwrap());
}

#[test]
fn an_authority_interrupted_between_key_and_certificate_is_completed() {
    let folder = TempDir::new().unwrap();
    let pin = Ca::open(folder.path(), Timestamp::now()).unwrap().pin();
    fs::remove_file(folder.path().join("ca.crt")).unwrap();
    assert_eq!(
        Ca::open(folder.path(), Timestamp::now()).unwrap().pin(),
        pin
    );
}

#[test]
fn an_authority_without_its_key_or_with_anothers_is_refused() {
    let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    Ca::open(one.path(), Timestamp::now()).unwrap();
    Ca::open(two.path(), Timestamp::now()).unwrap();
    fs::copy(two.path().join("ca.key"), one.path().join("ca.key")).unwrap();
    assert!(matches!(
        Ca::open(one.path(), Timestamp::now()),
        Err(IdentityError::Pair { .. })
    ));
    fs::remove_file(one.path().join("ca.key")).unwrap();
    assert!(matches!(
        Ca::open(one.path(), Timestamp::now()),
        Err(IdentityError::KeyMissing { .. })
    ));
}

#[test]
fn every_file_of_an_identity_is_for_its_owner_only() {
    let site = Site::new();
    let agent = site.enrol(Timestamp::now());
    agent.renewal_request().unwrap();
    let mut names = Vec::new();
    for folder in [site.centre.path().to_owned(), site.host.path().join("id")] {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            names.push(entry.file_name().into_string().unwrap());
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
        }
    }
    names.sort_unstable();
    let expected = "agent.crt agent.key agent.key.new ca.crt ca.crt ca.key identity.json server.crt server.key";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn a_signed_certificate_takes_only_the_key_of_its_request() {
    let site = Site::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["centre.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let (agent, now) = (AgentId::random(), Timestamp::now());
    let pem = site.ca.sign_agent(&request, &agent, now).unwrap();
    let der = read_pem(&pem).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!parsed.is_ca());
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert_eq!(parsed.subject().to_string(), format!("CN={agent}"));
    let facts = Facts::read(&der).unwrap();
    assert_eq!(facts.names, Vec::<String>::new());
    assert_eq!(facts.agent(), Ok(agent));
    let life = facts.not_after.duration_since(facts.not_before);
    assert_eq!(life, SignedDuration::from_hours(90 * DAY + 1));
    assert_eq!(
        facts.not_before.as_second(),
        now.as_second() - 60 * 60,
        "an hour back"
    );
}

#[test]
fn a_request_that_is_damaged_or_of_another_kind_is_refused() {
    let site = Site::new();
    let good = NewKey::random().unwrap().request().unwrap();
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let request = |key: &rcgen::KeyPair| {
        let params = rcgen::CertificateParams::default();
        params.serialize_request(key).unwrap().pem().unwrap()
    };
    // The last base64 character before the padding or line end belongs to the signature.
    let mut forged: Vec<char> = good.chars().collect();
    let at = forged.len() - good[good.rfind("-----END").unwrap()..].len() - 12;
    forged[at] = if forged[at] == 'A' { 'B' } else { 'A' };
    let forged: String = forged.into_iter().collect();
    for (name, bad) in [
        ("empty", String::new()),
        ("text", "hello".to_owned()),
        ("forged", forged),
        ("P-384", request(&p384)),
        ("Ed25519", request(&ed25519)),
        ("endless", good.repeat(1000)),
    ] {
        let signed = site
            .ca
            .sign_agent(&bad, &AgentId::random(), Timestamp::now());
        assert!(
            matches!(
                signed,
                Err(IdentityError::Request(_) | IdentityError::RequestKey)
            ),
            "{name}: {signed:?}"
        );
    }
}

#[test]
fn a_server_certificate_is_replaced_when_old_or_for_other_names() {
    let folder = TempDir::new().unwrap();
    let start = Timestamp::now();
    let days = |days: i64| start + SignedDuration::from_hours(days * DAY);
    let ca = Ca::open(folder.path(), start).unwrap();
    let shown = |names: &[&str], now| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let keys = ServerKeys::open(&ca, &names, now).unwrap();
        keys.certificate().unwrap()
    };
    let first = shown(&["localhost", "127.0.0.1", "::1"], start);
    for (names, now, same) in [
        (&["localhost", "127.0.0.1", "::1"][..], start, true),
        (&["::1", "127.0.0.1", "localhost"], days(300), true),
        (&["localhost", "127.0.0.1", "::1"], days(336), false),
        (&["localhost"], days(336), false),
    ] {
        let again = shown(names, now);
        assert_eq!(again == first, same, "{names:?} {now}");
    }
}

#[test]
fn a_name_that_is_none_is_refused_with_the_name() {
    let folder = TempDir::new().unwrap();
    let ca = Ca::open(folder.path(), Timestamp::now()).unwrap();
    for bad in ["", "a b", "-", "xin chào", "a..b", "10.0.0.0/8"] {
        let error = ServerKeys::open(&ca, &[bad.to_owned()], Timestamp::now()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("`{bad}` is neither a host name nor an address")
        );
    }
}

#[test]
fn an_identity_reads_back_and_is_not_overwritten() {
    let site = Site::new();
    let agent = site.enrol(Timestamp::now());
    let again = Identity::load(&site.host.path().join("id")).unwrap();
    assert_eq!(again.agent, agent.agent);
    assert_eq!(again.agency, "hcm/so-y-te");
    assert_eq!(again.urls, ["https://127.0.0.1:8443"]);
    assert_eq!(again.pair().certificate(), agent.pair().certificate());
    let error = site.try_enrol(Timestamp::now()).unwrap_err();
    assert!(matches!(error, IdentityError::FolderExists { .. }));
}

#[test]
fn a_certificate_for_another_key_or_agent_is_not_taken() {
    let site = Site::new();
    let (key, other) = (NewKey::random().unwrap(), NewKey::random().unwrap());
    let (agent, stranger) = (AgentId::random(), AgentId::random());
    let sign = |key: &NewKey| {
        let request = key.request().unwrap();
        let now = Timestamp::now();
        site.ca.sign_agent(&request, &agent, now).unwrap()
    };
    let create = |agent: &AgentId, certificate: &str| {
        let new = NewAgent {
            agent,
            agency: "a",
            urls: &[],
            certificate,
            authority: site.ca.pem(),
        };
        Identity::create(&site.host.path().join("id"), &key, &new)
    };
    let foreign_key = create(&agent, &sign(&other)).unwrap_err();
    assert!(matches!(foreign_key, IdentityError::ForeignKey));
    let foreign_agent = create(&stranger, &sign(&key)).unwrap_err();
    assert!(matches!(foreign_agent, IdentityError::ForeignAgent { .. }));
    assert!(!site.host.path().join("id").exists());
}

#[test]
fn renewal_is_due_after_two_thirds_of_the_life() {
    let site = Site::new();
    let start = Timestamp::now();
    let agent = site.enrol(start);
    for (days, due) in [(0, false), (59, false), (61, true), (120, true)] {
        let now = start + SignedDuration::from_hours(days * DAY);
        assert_eq!(agent.renewal_is_due(now), due, "{days}");
    }
}

#[test]
fn a_renewed_pair_takes_over_only_after_it_worked() {
    let site = Site::new();
    let folder = site.host.path().join("id");
    let now = Timestamp::now();
    let mut agent = site.enrol(now);
    let old = agent.pair().certificate().clone();
    let request = agent.renewal_request().unwrap();
    let key_of = |request: &str| {
        let parsed = rcgen::CertificateSigningRequestParams::from_pem(request).unwrap();
        rcgen::PublicKeyData::der_bytes(&parsed.public_key).to_vec()
    };
    let again = Identity::load(&folder).unwrap().renewal_request().unwrap();
    assert_eq!(key_of(&request), key_of(&again), "the answer was lost");
    let renewed = site.ca.sign_agent(&request, &agent.agent, now).unwrap();
    agent.try_renewed(&renewed).unwrap();
    assert!(agent.is_on_trial());
    assert_ne!(agent.pair().certificate(), &old);
    // A restart during the trial goes on with the trial; the old pair is still there.
    let mut restarted = Identity::load(&folder).unwrap();
    assert!(restarted.is_on_trial());
    let mut refused = restarted.clone();
    restarted.keep_renewed().unwrap();
    let kept = Identity::load(&folder).unwrap();
    assert!(!kept.is_on_trial());
    assert_eq!(kept.pair().certificate(), agent.pair().certificate());
    refused.drop_renewed().unwrap();
    assert_eq!(refused.pair().certificate(), &old);
}

#[test]
fn a_swap_cut_short_by_a_power_cut_is_finished_at_load() {
    let site = Site::new();
    let folder = site.host.path().join("id");
    let now = Timestamp::now();
    let mut agent = site.enrol(now);
    let request = agent.renewal_request().unwrap();
    let renewed = site.ca.sign_agent(&request, &agent.agent, now).unwrap();
    agent.try_renewed(&renewed).unwrap();
    fs::rename(folder.join("agent.key.new"), folder.join("agent.key")).unwrap();
    let loaded = Identity::load(&folder).unwrap();
    assert_eq!(loaded.pair().certificate(), agent.pair().certificate());
    assert!(!folder.join("agent.crt.new").exists());
}

#[test]
fn nothing_secret_is_shown_by_debug() {
    let site = Site::new();
    let agent = site.enrol(Timestamp::now());
    let shown = format!("{agent:?} {:?} {:?}", site.ca, NewKey::random().unwrap());
    let der = agent.pair().key();
    let bytes = format!("{:?}", &der.secret_der()[36..44]);
    assert!(!shown.contains(bytes.trim_matches(['[', ']'])));
    assert!(!shown.contains("PRIVATE"));
}

#[test]
fn the_judged_time_never_runs_behind_what_is_known() {
    let time = JudgedTime::default();
    assert!(time.now() >= Timestamp::from_second(BUILT).unwrap());
    let year = SignedDuration::from_hours(365 * DAY);
    let later = Timestamp::now() + year;
    time.tell(later, later + year);
    assert_eq!(time.now().as_second(), later.as_second());
    // A centre that says it is the year 9000 is believed only as far as its certificate goes.
    time.tell(Timestamp::MAX, later);
    assert_eq!(time.now().as_second(), later.as_second());
    time.tell(Timestamp::now(), later);
    assert!(time.now() < later, "it told another time since");
}

/// What each end of a handshake says of it.
struct Shake {
    client: Result<(), Error>,
    server: Result<Option<Peer>, Error>,
}

#[test]
fn agents_are_let_in_by_certificate_only() {
    let (site, other) = (Site::new(), Site::new());
    let now = Timestamp::now();
    let ago = |days: i64| now - SignedDuration::from_hours(days * DAY);
    let config = |site_of_agent: &Site, signed_at| {
        let agent = site_of_agent.enrol_beside(signed_at);
        mutual_client(
            site.ca.certificate(),
            agent.pair(),
            Arc::new(JudgedTime::default()),
        )
        .unwrap()
    };
    let nobody = people_client(site.ca.certificate(), Arc::new(JudgedTime::default())).unwrap();
    let unknown = Err(AlertDescription::UnknownCA);
    let ended = Err(AlertDescription::CertificateExpired);
    for (name, client, outcome) in [
        ("fresh", config(&site, now), Ok(false)),
        ("ended 5 days ago", config(&site, ago(95)), Ok(true)),
        ("ended 29 days ago", config(&site, ago(119)), Ok(true)),
        ("ended 31 days ago", config(&site, ago(121)), ended),
        ("of another authority", config(&other, now), unknown),
        ("none", nobody, Err(AlertDescription::CertificateRequired)),
        (
            "to begin next month",
            config(&site, now + SignedDuration::from_hours(30 * DAY)),
            Err(AlertDescription::CertificateExpired),
        ),
    ] {
        let shake = shake(site.agents_listener(), client);
        match outcome {
            Ok(expired) => {
                assert_eq!(shake.client, Ok(()), "{name}");
                let peer = shake.server.unwrap().unwrap();
                assert_eq!(peer.has_expired(now), expired, "{name}");
            }
            Err(alert) => {
                assert_eq!(shake.client, Err(Error::AlertReceived(alert)), "{name}");
                assert!(shake.server.is_err(), "{name}");
            }
        }
    }
}

#[test]
fn an_agent_takes_no_server_of_another_authority() {
    let (site, other) = (Site::new(), Site::new());
    let agent = site.enrol(Timestamp::now());
    let client = mutual_client(
        other.ca.certificate(),
        agent.pair(),
        Arc::new(JudgedTime::default()),
    )
    .unwrap();
    let shake = shake(site.agents_listener(), client);
    let unknown = Error::InvalidCertificate(Judgement::UnknownIssuer);
    assert_eq!(shake.client, Err(unknown));
}

#[test]
fn a_server_whose_time_has_come_only_by_the_centres_clock_is_taken() {
    let now = Timestamp::now();
    let later = now + SignedDuration::from_hours(300 * DAY);
    let site = Site::with_server_from(later);
    let agent = site.enrol(later);
    let early = Arc::new(JudgedTime::default());
    let told = Arc::new(JudgedTime::new(Some(later)));
    for (name, time, taken) in [("own clock", early, false), ("told", told, true)] {
        let client = mutual_client(site.ca.certificate(), agent.pair(), time).unwrap();
        let result = shake(people_listener(Arc::clone(&site.server)).unwrap(), client).client;
        assert_eq!(result.is_ok(), taken, "{name}: {result:?}");
    }
}

#[test]
fn enrolment_goes_on_only_with_the_centre_that_the_token_names() {
    let (site, other) = (Site::new(), Site::new());
    let client = |pin| enrolling_client(pin, Arc::new(JudgedTime::default())).unwrap();
    let listener = || people_listener(Arc::clone(&site.server)).unwrap();
    assert_eq!(shake(listener(), client(site.ca.pin())).client, Ok(()));
    let refused = shake(listener(), client(other.ca.pin()))
        .client
        .unwrap_err();
    let Error::InvalidCertificate(Judgement::Other(why)) = refused else {
        panic!("{refused:?}");
    };
    let expected = OtherCentre {
        expected: other.ca.pin(),
        found: Some(site.ca.pin()),
    };
    assert_eq!(why.0.downcast_ref(), Some(&expected));
}

/// A centre that shows another centre's authority behind its own certificate.
#[test]
fn a_borrowed_authority_does_not_pass_for_the_pinned_one() {
    let (site, other) = (Site::new(), Site::new());
    let chain = vec![
        other.server.certificate().unwrap(),
        site.ca.certificate().clone(),
    ];
    let key = fs::read_to_string(other.centre.path().join("server.key")).unwrap();
    let key = rustls::pki_types::pem::PemObject::from_pem_slice(key.as_bytes()).unwrap();
    let listener = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let client = enrolling_client(site.ca.pin(), Arc::new(JudgedTime::default())).unwrap();
    let refused = shake(Arc::new(listener), client).client;
    let unknown = Error::InvalidCertificate(Judgement::UnknownIssuer);
    assert_eq!(refused, Err(unknown));
}

/// An authority, its server, and a host.
struct Site {
    centre: TempDir,
    host: TempDir,
    ca: Ca,
    server: Arc<ServerKeys>,
}

impl Site {
    fn new() -> Self {
        Self::with_server_from(Timestamp::now())
    }

    fn with_server_from(now: Timestamp) -> Self {
        let centre = TempDir::new().unwrap();
        let ca = Ca::open(centre.path(), now).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        Self {
            server: Arc::new(ServerKeys::open(&ca, &names, now).unwrap()),
            host: TempDir::new().unwrap(),
            centre,
            ca,
        }
    }

    fn agents_listener(&self) -> Arc<ServerConfig> {
        agents_listener(&self.ca, Arc::clone(&self.server)).unwrap()
    }

    fn enrol(&self, now: Timestamp) -> Identity {
        self.try_enrol(now).unwrap()
    }

    fn try_enrol(&self, now: Timestamp) -> Result<Identity, IdentityError> {
        self.enrol_into(&self.host.path().join("id"), now)
    }

    fn enrol_beside(&self, now: Timestamp) -> Identity {
        let folder = TempDir::new_in(self.host.path()).unwrap().keep();
        self.enrol_into(&folder, now).unwrap()
    }

    fn enrol_into(&self, folder: &Path, now: Timestamp) -> Result<Identity, IdentityError> {
        let key = NewKey::random()?;
        let agent = AgentId::random();
        let certificate = self.ca.sign_agent(&key.request()?, &agent, now)?;
        let new = NewAgent {
            agent: &agent,
            agency: "hcm/so-y-te",
            urls: &["https://127.0.0.1:8443".to_owned()],
            certificate: &certificate,
            authority: self.ca.pem(),
        };
        Identity::create(folder, &key, &new)
    }
}

/// Shakes hands over loopback and sends a byte each way, so that a refusal in TLS 1.3 reaches the client.
fn shake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Shake {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(server).unwrap(), socket);
        let result = exchange(&mut stream, Turn::Writes);
        let peer = |certificates: &[CertificateDer<'_>]| Peer::read(&certificates[0]).unwrap();
        result.map(|()| stream.conn.peer_certificates().map(peer))
    });
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let socket = TcpStream::connect(address).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(client, name).unwrap(), socket);
    let client = exchange(&mut stream, Turn::Reads);
    drop(stream);
    Shake {
        client,
        server: serving.join().unwrap(),
    }
}

enum Turn {
    Writes,
    Reads,
}

fn exchange(stream: &mut (impl Read + Write), turn: Turn) -> Result<(), Error> {
    let result = match turn {
        Turn::Writes => stream.write_all(b"x").and_then(|()| stream.flush()),
        Turn::Reads => stream.read_exact(&mut [0]),
    };
    result.map_err(|error: io::Error| {
        let inner = error.into_inner().expect("a fault of TLS");
        inner.downcast_ref::<Error>().expect("of rustls").clone()
    })
}
