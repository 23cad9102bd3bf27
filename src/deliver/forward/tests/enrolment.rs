//! Hosts that enrol, and people's tools.

use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::centre::*;
use crate::deliver::forward::{
    Address, Bearer, Client, ClientError, Dialer, EnrolError, Enrolment, enrol,
};
use crate::deliver::identity::{AgentId, Identity, IdentityError, Token};
use crate::deliver::wire::{EnrolAnswer, EnrolRequest, PATH_ENROL};

async fn enrol_at(url: Address, token: &Token, folder: &Path) -> Result<Identity, EnrolError> {
    enrol(&Enrolment {
        url,
        token,
        host: "web-1",
        machine: "m",
        folder,
        dialer: Dialer::default(),
    })
    .await
}

fn gives(site: &Site, request: &Received) -> EnrolAnswer {
    let asked: EnrolRequest = serde_json::from_slice(&request.body).unwrap();
    let (agent, now) = (AgentId::random(), Timestamp::now());
    EnrolAnswer {
        agent: agent.to_string(),
        agency: "hcm/so-y-te".to_owned(),
        certificate: site.ca.sign_agent(&asked.csr, &agent, now).unwrap(),
        ca: site.ca.pem().to_owned(),
        urls: vec!["https://centre.example:8443".to_owned()],
        time: now,
    }
}

#[tokio::test]
async fn a_host_enrols_with_a_token_and_keeps_its_key() {
    let site = std::sync::Arc::new(Site::new());
    let token = Token::random(site.ca.pin());
    let signer = std::sync::Arc::clone(&site);
    let centre = Centre::start(site.for_people(), move |request, _| {
        reply(
            200,
            serde_json::to_string(&gives(&signer, request)).unwrap(),
        )
    })
    .await;
    let host = TempDir::new().unwrap();
    let folder = host.path().join("identity");
    std::fs::create_dir(&folder).unwrap(); // a package made it: empty is as good as absent
    let identity = enrol_at(centre.url(), &token, &folder).await.unwrap();
    assert_eq!(identity.agency, "hcm/so-y-te");
    assert_eq!(identity.urls, ["https://centre.example:8443"]);
    let request = centre.requests(PATH_ENROL, 1).await.remove(0);
    let sent: EnrolRequest = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&*sent.token, &*sent.host), (&*token.text(), "web-1"));
    assert!(!String::from_utf8_lossy(&request.body).contains("PRIVATE"));
    let again = enrol_at(centre.url(), &token, &folder).await.unwrap_err();
    assert!(matches!(again, EnrolError::FolderExists { .. }));
    assert_eq!(
        centre.received().len(),
        1,
        "and the token was not used again"
    );
}

#[tokio::test]
async fn a_token_of_another_centre_sends_nothing() {
    let (site, other) = (Site::new(), Site::new());
    let centre = Centre::start(site.for_people(), |_, _| reply(200, "")).await;
    let host = TempDir::new().unwrap();
    let token = Token::random(other.ca.pin());
    let error = enrol_at(centre.url(), &token, &host.path().join("id"))
        .await
        .unwrap_err();
    assert!(matches!(error, EnrolError::OtherCentre { .. }), "{error:?}");
    let words = format!(
        "the token is of another centre than {}; nothing was sent",
        centre.url()
    );
    assert_eq!(error.to_string(), words);
    assert_eq!(centre.received().len(), 0);
    assert!(!format!("{error:?}").contains(&token.text()));
}

#[tokio::test]
async fn what_a_centre_says_to_a_token_is_passed_on() {
    let site = Site::new();
    let token = Token::random(site.ca.pin());
    let host = TempDir::new().unwrap();
    for (status, body, words) in [
        (
            401,
            r#"{"title":"t","status":401,"detail":"the token is unknown"}"#,
            "refuses the token: the token is unknown",
        ),
        (
            403,
            r#"{"title":"t","status":403,"detail":"the token has been used 3 times of 3"}"#,
            "refuses the token: the token has been used 3 times of 3",
        ),
        (403, "", "refuses the token: 403 without a reason"),
    ] {
        let centre = Centre::start(site.for_people(), move |_, _| reply(status, body)).await;
        let folder = host.path().join("id");
        let error = enrol_at(centre.url(), &token, &folder).await.unwrap_err();
        assert_eq!(error.to_string(), format!("{} {words}", centre.url()));
        assert!(!folder.exists());
    }
    let nowhere: Address = "https://127.0.0.1:1".parse().unwrap();
    let error = enrol_at(nowhere, &token, &host.path().join("id"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "cannot reach https://127.0.0.1:1");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_the_request_is_not_written() {
    let (site, other) = (
        std::sync::Arc::new(Site::new()),
        std::sync::Arc::new(Site::new()),
    );
    type Spoil = fn(&mut EnrolAnswer, &Site);
    let cases: [(&str, Spoil); 6] = [
        ("another authority", |answer, other| {
            answer.ca = other.ca.pem().to_owned()
        }),
        ("a name with a slash", |answer, _| {
            answer.agent = "../../etc".to_owned()
        }),
        ("another name", |answer, _| {
            answer.agent = AgentId::random().to_string()
        }),
        ("no address", |answer, _| answer.urls.clear()),
        ("a wrong address", |answer, _| {
            answer.urls = vec!["http://x".to_owned()]
        }),
        ("another's certificate", |answer, other| {
            let identity = other.agent();
            let der = identity.pair().certificate().clone();
            answer.agent = identity.agent.to_string();
            answer.certificate = pem_of(&der);
        }),
    ];
    let token = Token::random(site.ca.pin());
    for (name, spoil) in cases {
        let (signer, foreign) = (std::sync::Arc::clone(&site), std::sync::Arc::clone(&other));
        let centre = Centre::start(site.for_people(), move |request, _| {
            let mut answer = gives(&signer, request);
            spoil(&mut answer, &foreign);
            reply(200, serde_json::to_string(&answer).unwrap())
        })
        .await;
        let host = TempDir::new().unwrap();
        let folder = host.path().join("id");
        let error = enrol_at(centre.url(), &token, &folder).await.unwrap_err();
        let fits = matches!(
            error,
            EnrolError::OtherAuthority { .. }
                | EnrolError::Name { .. }
                | EnrolError::Urls { .. }
                | EnrolError::Identity(
                    IdentityError::ForeignAgent { .. } | IdentityError::ForeignKey
                )
        );
        assert!(fits, "{name}: {error:?}");
        assert!(!folder.exists(), "{name}");
    }
}

#[tokio::test]
async fn tools_ask_with_their_token_and_read_what_the_centre_says() {
    let site = Site::new();
    let centre = Centre::start(site.for_people(), |request, _| {
        match request.path.as_str() {
            "/v1/alerts" => reply(200, r#"{"alerts":[]}"#),
            "/v1/tokens" => reply(201, request.body.clone()),
            "/v1/agents/a/revoke" => reply(204, ""),
            _ => problem(404, "no such page"),
        }
    })
    .await;
    let bearer = Bearer::new("hemmelig").unwrap();
    let dialer = Dialer::default();
    let client = Client::new(centre.url(), site.ca.pem(), Some(bearer), dialer.clone()).unwrap();
    let listed: Value = client.get("/v1/alerts?limit=1").await.unwrap();
    assert_eq!(listed, json!({"alerts": []}));
    let made: Value = client
        .post("/v1/tokens", &json!({"uses": 3}))
        .await
        .unwrap();
    assert_eq!(made, json!({"uses": 3}));
    client
        .post::<()>("/v1/agents/a/revoke", &json!({}))
        .await
        .unwrap();
    let error = client.get::<Value>("/v1/nowhere").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} answers 404: no such page", centre.url())
    );
    let asked = &centre.received()[0];
    assert_eq!(asked.headers["authorization"], "Bearer hemmelig");
    assert_eq!(asked.headers["host"], centre.address.to_string());
    assert!(!format!("{client:?} {error:?}").contains("hemmelig"));

    let other = Client::new(centre.url(), Site::new().ca.pem(), None, dialer).unwrap();
    let error = other.get::<Value>("/v1/alerts").await.unwrap_err();
    assert!(matches!(error, ClientError::Exchange { .. }));
    assert_eq!(
        centre.received().len(),
        4,
        "another centre is asked nothing"
    );
}

fn pem_of(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}
