//! Who is not let in, in which words, and what to type then.

use std::fs;
use std::process::Output;

use crate::delivery::{EVERY_LINE, NO_FOLD};
use crate::site::{SOON, Site, append, said, wait_for};

#[test]
fn a_token_that_does_not_serve_is_refused_with_the_reason() {
    let site = Site::new();
    let _centre = site.start_centre();
    let other = Site::new();
    let _other_centre = other.start_centre();
    let enrol = |token: &str, host: &str| {
        let url = format!("https://127.0.0.1:{}", site.people_port);
        let state = site.path(host).display().to_string();
        let out = site.run(&[
            "enrol", "--centre", &url, "--token", token, "--state", &state,
        ]);
        (out.status.code(), said(&out))
    };
    let refused = |token: &str, words: &str| {
        let (status, text) = enrol(token, "refused");
        assert_eq!(status, Some(1), "{text}");
        assert!(text.contains(words), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains(token), "the token is a secret: {text}");
        assert!(!site.path("refused/identity").exists());
    };
    let once = site.token(&["--uses", "1"]);
    let (status, text) = enrol(&once, "first");
    assert_eq!(status, Some(0), "{text}");
    refused(
        &once,
        "the token is used up: make a new one with `canhgac token create",
    );
    refused(
        &site.token(&["--from", "10.1.0.0/16"]),
        "the token is not for this network",
    );
    let foreign = other.token(&["--uses", "1"]);
    refused(
        &foreign,
        "the token is of another centre than https://127.0.0.1:",
    );
    // Nothing was sent, so the token still serves where it is from.
    assert!(other.enrol_with(&foreign).status.success());

    let brief = site.token(&["--uses", "1000", "--expires", "2s"]);
    let mut host = 0;
    let text = wait_for("the token's end", SOON, || {
        host += 1;
        let (status, text) = enrol(&brief, &format!("host{host}"));
        (status != Some(0)).then_some(text)
    });
    assert!(
        text.contains("the token has expired: make a new one"),
        "{text}"
    );
    let (status, text) = enrol("not a token", "refused");
    assert_eq!(status, Some(2), "{text}");
    let (status, text) = enrol(&once, "first");
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("this host is enrolled already"), "{text}");
}

#[test]
fn a_revoked_agent_keeps_its_alerts_and_doctor_says_what_to_type() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    let _centre = site.start_centre();
    site.agent_config(NO_FOLD);
    site.enrol();
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    append(&site.log_file("app.log"), &line(0));
    wait_for("the first alert", SOON, || {
        (site.alerts(&[]).len() == 1).then_some(())
    });
    let id = site.agent()["id"].as_str().unwrap().to_owned();
    assert!(site.run(&["agents", "revoke", &id]).status.success());
    assert_eq!(site.agent()["state"], "revoked");
    for number in 1..=20 {
        append(&site.log_file("app.log"), &line(number));
    }
    let port = site.agent_metrics_port;
    wait_for("the alerts in the spool", SOON, || {
        assert!(agent.is_running(), "{}", agent.log_text());
        (site.metric(port, "canhgac_agent_spool_rows") == 20.0).then_some(())
    });
    let text = wait_for("the doctor's word", SOON, || {
        let out = doctor(&site);
        let text = String::from_utf8(out.stdout.clone()).unwrap();
        (out.status.code() == Some(3) && text.contains("revoked")).then_some(text)
    });
    assert!(text.contains("BAD   centre: "), "{text}");
    assert!(text.contains("canhgac agents list"), "{text}");
    assert!(
        text.contains(&format!(
            "canhgac enrol --state {}",
            site.path("agent").display()
        )),
        "{text}"
    );
    assert_eq!(site.alerts(&[]).len(), 1);

    // What doctor says to type works, and nothing was lost.
    assert_eq!(agent.stop(), Some(0));
    fs::remove_dir_all(site.path("agent/identity")).unwrap();
    site.enrol();
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    wait_for("the alerts", SOON, || {
        (site.alerts(&[]).len() == 21).then_some(())
    });
}

#[test]
fn a_certificate_of_another_authority_is_refused_in_the_handshake() {
    let site = Site::new();
    let _centre = site.start_centre();
    site.agent_config("");
    site.enrol();
    let other = Site::new();
    let other_centre = other.start_centre();
    other.enrol();
    drop(other_centre);
    for file in ["agent.key", "agent.crt"] {
        let foreign = other.path("agent/identity").join(file);
        fs::copy(foreign, site.path("agent/identity").join(file)).unwrap();
    }
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    wait_for("the doctor's word", SOON, || {
        assert!(agent.is_running(), "{}", agent.log_text());
        let out = doctor(&site);
        let text = String::from_utf8(out.stdout).unwrap();
        text.contains("refused in the handshake: not enrolled here")
            .then_some(())
    });
}

#[test]
fn a_host_that_is_not_enrolled_watches_and_says_what_to_type() {
    let site = Site::new();
    site.rule("every.yml", EVERY_LINE);
    site.agent_config(NO_FOLD);
    append(&site.log_file("app.log"), &line(0));
    let mut agent = site.start_agent();
    site.wait_for_agent(&mut agent);
    let port = site.agent_metrics_port;
    wait_for("the alert in the spool", SOON, || {
        (site.metric(port, "canhgac_agent_spool_rows") == 1.0).then_some(())
    });
    assert!(
        agent.log_text().contains("not enrolled"),
        "{}",
        agent.log_text()
    );
    let out = doctor(&site);
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(3), "{text}");
    assert!(text.contains("sudo canhgac enrol --state "), "{text}");
    // An agent that waits for its identity takes it up by itself.
    let _centre = site.start_centre();
    site.enrol();
    wait_for("the alert", SOON, || {
        (site.alerts(&[]).len() == 1).then_some(())
    });
    let answers = wait_for("the doctor's good word", SOON, || {
        let out = doctor(&site);
        let text = String::from_utf8(out.stdout).unwrap();
        text.contains("ok    centre: answers")
            .then_some((out.status.code(), text))
    });
    assert_eq!(answers.0, Some(0), "{}", answers.1);
}

fn doctor(site: &Site) -> Output {
    let config = site.path("agent.yaml").display().to_string();
    site.run(&["doctor", "--config", &config])
}

fn line(number: usize) -> String {
    format!("Nov 22 10:00:00 web1 app[1]: attack number {number} of many\n")
}
