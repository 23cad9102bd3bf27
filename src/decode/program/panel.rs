//! Administration panels, mailboxes in the browser and other services that log by themselves.

use crate::decode::program::phrase::{Voice, failure, silent, success};

pub const VOICES: &[Voice] = &[
    WEBMIN,
    ROUNDCUBE,
    PROXMOX,
    MONIT,
    PHP_MY_ADMIN,
    HORDE,
    SUHOSIN,
    FROXLOR,
    GITEA,
    PF_SENSE,
    SOGO,
    ZONEMINDER,
    DRUPAL,
];

/// Whether a program writes PAM's words with a meaning of its own.
pub fn is_own_verdict(program: &[u8]) -> bool {
    matches!(program, b"pvedaemon" | b"pveproxy")
}

const WEBMIN: Voice = Voice {
    programs: &["webmin", "usermin", "miniserv"],
    service: "webmin",
    phrases: &[
        failure("Invalid login as {user} from {ip}"),
        failure("Non-existent login as {user} from {ip}"),
        success("Successful login as {user} from {ip}"),
        failure("Security alert: Host {ip} blocked"),
    ],
};

const ROUNDCUBE: Voice = Voice {
    programs: &["roundcube", "roundcubemail"],
    service: "roundcube",
    phrases: &[
        failure("ogin failed for {any} from {any} against {any} from {ip}"),
        failure("ogin failed for {user} against {any} from {ip}(X-Real-IP: {any}"),
        failure("ogin failed for {user} against {any} from {ip}"),
        // Behind a proxy the name may be one that looks like the rest of the line; IMAP's answer is the server's.
        failure("ogin failed for {user} from {ip}. AUTHENTICATE"),
        failure("ogin failed for {user} from {ip}. "),
        failure("ogin failed for {user} from {ip}(X-"),
        failure("ogin failed for {user} from {ip}$"),
        failure("ogin failed for {user} from {ip}"),
        failure("ailed login for {user} from {ip} in session"),
        failure("FAILED login for {user} from {ip}"),
        success("Successful login for {user} (ID: {any}) from {ip}"),
    ],
};

const PROXMOX: Voice = Voice {
    programs: &["pvedaemon", "pveproxy"],
    service: "proxmox",
    phrases: &[
        failure("authentication failure; rhost={ip} user={user} msg="),
        success("successful auth for user '{user}'"),
    ],
};

const MONIT: Voice = Voice {
    programs: &["monit"],
    service: "monit",
    phrases: &[
        failure("access denied -- client {ip}: empty password"),
        silent("access denied -- client {ip}: missing or invalid Authorization"),
        silent("access denied -- client {ip}: invalid Authorization"),
        silent("access denied -- client {ip}: empty username"),
        silent("access denied -- client {ip}: unknown user ''"),
        failure("access denied -- client {ip}: unknown user '{user}'"),
        failure("access denied -- client {ip}: wrong password for user '{user}'"),
        failure("Client '{ip}' supplied unknown user '{user}' accessing monit httpd"),
        failure("Client '{ip}' supplied wrong password for user '{user}' accessing monit httpd"),
    ],
};

const PHP_MY_ADMIN: Voice = Voice {
    programs: &["phpMyAdmin"],
    service: "phpmyadmin",
    phrases: &[failure("user denied: {user} ({method}) from {ip}")],
};

const HORDE: Voice = Voice {
    programs: &["HORDE"],
    service: "horde",
    phrases: &[
        failure("FAILED LOGIN for {user} [{ip}] to"),
        failure("FAILED LOGIN for {user} [{ip}]"),
        success("Login success for {user} [{ip}] to"),
    ],
};

const SUHOSIN: Voice = Voice {
    programs: &["suhosin"],
    service: "suhosin",
    phrases: &[failure("ALERT - {any}(attacker '{ip}'")],
};

const FROXLOR: Voice = Voice {
    programs: &["froxlor"],
    service: "froxlor",
    phrases: &[
        failure("[Login Action {ip}]{any}Unknown user '{user}' tried to login"),
        failure("[Login Action {ip}]{any}User '{user}' tried to login with wrong password"),
        failure("[Login Action {ip}]{any}tried to login"),
    ],
};

const GITEA: Voice = Voice {
    programs: &["gitea", "forgejo", "gogs"],
    service: "gitea",
    phrases: &[
        failure("Failed authentication attempt for {user} from {ip}"),
        failure("invalid credentials from {ip}"),
    ],
};

const PF_SENSE: Voice = Voice {
    programs: &["php-fpm"],
    service: "webconfigurator",
    phrases: &[
        failure("webConfigurator authentication error for user '{user}' from: {ip}"),
        failure("webConfigurator authentication error for '{user}' from {ip}"),
        success("Successful login for user '{user}' from: {ip}"),
    ],
};

const SOGO: Voice = Voice {
    programs: &["sogod"],
    service: "sogo",
    phrases: &[failure(
        "Login from '{ip}{any}' for user '{user}' might not have worked",
    )],
};

const ZONEMINDER: Voice = Voice {
    programs: &["zm", "web_php", "zoneminder"],
    service: "zoneminder",
    phrases: &[failure("Login denied for user \"{user}\"")],
};

const DRUPAL: Voice = Voice {
    programs: &["drupal", "drupal-site", "drupal_site"],
    service: "drupal",
    phrases: &[
        // A request may hold the words of another message; the message itself ends the line.
        silent("||Session revisited for {any}.$"),
        failure("|user|{ip}|{any}|0||Login attempt failed for {user}."),
        failure("|user|{ip}|{any}|0||Login attempt failed from {any}."),
        success("|user|{ip}|{any}||Session opened for {user}."),
    ],
};
