//! Lines without a syslog tag: the files that daemons write by themselves, and tagless relays of them. Each sentence
//! here is particular enough to name its program; ordinary prose about a failure sets nothing.

use crate::decode::program::phrase::{Voice, failure, silent, success};

pub const VOICES: &[Voice] = &[
    Voice {
        programs: &[],
        service: "sshguard",
        phrases: &[
            failure("^Attack from \"{ip}\" on service"),
            failure("^Blocking \"{ip}/"),
        ],
    },
    Voice {
        programs: &[],
        service: "directadmin",
        phrases: &[
            failure(": '{ip}' {any}failed login attempt{any}Account '{user}'"),
            failure(": '{ip}' {any}failed login attempt"),
            success(": '{ip}' successful login to '{user}'"),
        ],
    },
    Voice {
        programs: &[],
        service: "domino",
        phrases: &[
            failure("Authentication failed for user {user} ; connecting host {ip}"),
            failure("smtp: {user} [{ip}] authentication failure using internet password"),
            failure("pop3: {user} [{ip}] authentication failure using internet password"),
            failure("SMTP Server [{any}] Connection from [{ip}] rejected for policy reasons."),
        ],
    },
    Voice {
        programs: &[],
        service: "game-server",
        phrases: &[failure("Bad Rcon: {any} from \"{ip}")],
    },
    Voice {
        programs: &[],
        service: "openwebmail",
        phrases: &[
            failure("({ip}) {user} - login error - "),
            failure("({ip}) {user} - userinfo error - "),
        ],
    },
    Voice {
        programs: &[],
        service: "squirrelmail",
        phrases: &[failure("[LOGIN_ERROR] {user} ({any}) from {ip}:")],
    },
    Voice {
        programs: &[],
        service: "assp",
        phrases: &[
            failure("] {ip} SSL negotiation with client failed"),
            failure("^{any} Blocking {ip} - too much AUTH errors"),
            failure("] {ip} {any}authentication errors ({any}) exceeded"),
            failure("] {ip} [SMTP Error] 535 "),
            failure("] {ip} {any}relay attempt blocked for"),
        ],
    },
    Voice {
        programs: &[],
        service: "kerio",
        phrases: &[
            failure("Attempt to deliver to unknown recipient {any}, IP address {ip}"),
            failure("SMTP Spam attack detected from {ip},"),
            failure("IP address {ip} found in DNS blacklist"),
            failure("Relay attempt from IP address {ip}"),
            failure("Failed {any} login from {ip}"),
            failure("login into Web Administration from {ip} failed"),
            failure("Message from IP address {ip}, sender {any} rejected: "),
            failure("SMTP: User {user} doesn't exist. Attempt from IP address {ip}"),
            failure("Client with IP address {ip} has no reverse DNS entry, connection rejected"),
        ],
    },
    Voice {
        programs: &[],
        service: "monitorix",
        phrases: &[
            failure("NOTEXIST - [{ip}] "),
            failure("NOTALLOWED - [{ip}] "),
            failure("AUTHERR - [{ip}] "),
        ],
    },
    Voice {
        programs: &[],
        service: "groupoffice",
        phrases: &[
            failure("LOGIN FAILED for user: \"{user}\" from IP: {ip}"),
            success("LOGIN SUCCESS for user: \"{user}\" from IP: {ip}"),
        ],
    },
    Voice {
        programs: &[],
        service: "centreon",
        phrases: &[failure("[WEB] [{ip}] Authentication failed for '{user}'")],
    },
    Voice {
        programs: &[],
        service: "bitwarden",
        phrases: &[
            failure("Failed login attempt. {ip}"),
            failure("Failed login attempt, 2FA invalid. {ip}"),
        ],
    },
    Voice {
        programs: &[],
        service: "vaultwarden",
        phrases: &[
            failure("Username or password is incorrect. Try again. IP: {ip}. Username: {user}."),
            failure("Invalid admin token{any}IP: {ip}"),
            failure("Invalid TOTP code!{any}IP: {ip}"),
        ],
    },
    Voice {
        programs: &[],
        service: "gitlab",
        phrases: &[failure("Failed Login: username={user} ip={ip}")],
    },
    Voice {
        programs: &[],
        service: "tine20",
        phrases: &[failure("Login with username {user} from {ip} failed (")],
    },
    Voice {
        programs: &[],
        service: "guacamole",
        phrases: &[failure(
            "Authentication attempt from {ip} for user \"{user}\" failed.",
        )],
    },
    Voice {
        programs: &[],
        service: "lighttpd",
        phrases: &[
            failure("password doesn't match for {any}username: {user}, IP: {ip}"),
            failure("password doesn't match for {any}username: {user} IP: {ip}"),
            failure("digest: auth failed for {user}: wrong password, IP: {ip}"),
            failure("digest: auth failed for {user}: wrong password IP: {ip}"),
            failure("digest: auth failed: uri mismatch {any}, IP: {ip}"),
            failure("digest: auth failed: uri mismatch {any} IP: {ip}"),
            failure("get_password failed, IP: {ip}"),
            failure("get_password failed IP: {ip}"),
        ],
    },
    Voice {
        programs: &[],
        service: "mysql",
        phrases: &[
            failure("Access denied for user '{user}'@'{host}' (using password: {any})$"),
            failure("Access denied for user '{user}'@'{host}'$"),
            failure("Access denied for user '{user}'@'{host}' to database '{any}'$"),
        ],
    },
    Voice {
        programs: &[],
        service: "mssql",
        phrases: &[
            failure("Login failed for user '{user}'.{any}[CLIENT: {ip}]"),
            failure("Logon {any}[CLIENT: {ip}]"),
        ],
    },
    Voice {
        programs: &[],
        service: "cucipop",
        phrases: &[failure("^authentication failure {any} {ip}$")],
    },
    Voice {
        programs: &[],
        service: "vsftpd",
        phrases: &[failure("FAIL LOGIN: Client \"{ip}\"")],
    },
    Voice {
        programs: &[],
        service: "oracle-messaging",
        phrases: &[
            failure(" tr=\"TCP|{any}|{any}|{ip}|{any} mi=\"Bad password\" us=\"{user}\""),
            failure(" tr=\"TCP|{any}|{any}|{ip}|{any} mi=\"Bad password\""),
            success(" tr=\"TCP|{any}|{any}|{ip}|{any} mi=\"Authentication successful"),
        ],
    },
    Voice {
        programs: &[],
        service: "portsentry",
        phrases: &[failure("Host: {any}/{ip} Port: {any} Blocked")],
    },
    Voice {
        programs: &[],
        service: "3proxy",
        phrases: &[
            silent("PROXY.{any} 00000 {any} {ip} "),
            failure(" PROXY.3128 00{any} {user} {ip} 0.0.0.0:0 "),
        ],
    },
];
