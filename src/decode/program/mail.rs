//! Mail servers: who they let send, who they let read, and whom they turned away.

use crate::decode::program::phrase::{Voice, failure, silent, success};

pub const VOICES: &[Voice] = &[
    POSTFIX, POSTGREY, OPENSMTPD, DOVECOT, COURIER, CYRUS, UW, EXIM, SENDMAIL, SOLID_POP3,
    PERDITION, QMAIL, VPOPMAIL,
];

const POSTFIX: Voice = Voice {
    programs: &["smtpd", "submission", "smtps", "postscreen", "postfix"],
    service: "postfix",
    phrases: &[
        // The server's own fault: its authentication daemon is gone.
        silent("]: SASL {method} authentication failed: Connection lost to authentication server"),
        silent("]: SASL {method} authentication failed: Invalid authentication mechanism"),
        failure(
            "warning: {any}[{ip}]: SASL {method} authentication failed:{any}, sasl_username={user}",
        ),
        failure("warning: {any}[{ip}]: SASL {method} authentication failed"),
        failure("warning: {any}[{ip}]:{any}: SASL {method} authentication failed"),
        failure("lost connection after AUTH from {any}[{ip}]"),
        failure("lost connection after CONNECT from {any}[{ip}]"),
        failure("lost connection after EHLO from {any}[{ip}]"),
        failure("lost connection after HELO from {any}[{ip}]"),
        failure("lost connection after UNKNOWN from {any}[{ip}]"),
        failure("lost connection after STARTTLS from {any}[{ip}]"),
        failure("improper command pipelining after {any} from {any}[{ip}]"),
        failure("too many errors after {any} from {any}[{ip}]"),
        failure("PREGREET {any} from {ip}"),
        failure("DNSBL rank {any} for {ip}"),
        failure("HANGUP after {any} from {ip}"),
        failure("COMMAND {any} from {ip}"),
        failure("BARE NEWLINE from {ip}"),
        // A mailbox that is full or a server that is busy refuses nobody.
        silent("reject: RCPT from {any}[{ip}]: 452 "),
        silent("reject: RCPT from {any}[{ip}]: 552 "),
        // A filter that asks to come back, as greylisting does, refuses nobody either.
        silent("milter-reject: {any} from {any}[{ip}]: 4"),
        silent("reject: {any} from {any}[{ip}]: 450 4.2."),
        failure("reject: {any} from {any}[{ip}]: 55"),
        failure("reject: {any} from {any}[{ip}]: 45"),
        failure("reject: {any} from {any}[{ip}]: 50"),
        success("client={any}[{ip}], sasl_method={method}, sasl_username={user}"),
        silent("connect from {any}[{ip}]"),
    ],
};

const POSTGREY: Voice = Voice {
    programs: &["postgrey"],
    service: "postgrey",
    phrases: &[failure("reason=early-retry{any}client_address={ip}")],
};

const OPENSMTPD: Voice = Voice {
    programs: &["opensmtpd"],
    service: "opensmtpd",
    phrases: &[failure("smtp event=failed-command address={ip}")],
};

const DOVECOT: Voice = Voice {
    programs: &[
        "dovecot",
        "imap-login",
        "pop3-login",
        "managesieve-login",
        "submission-login",
        "auth",
        "auth-worker",
        "dovecot-auth",
    ],
    service: "dovecot",
    phrases: &[
        silent("-login: Error: Temporary authentication failure"),
        // Clients that leave without a try, as monitors do, guessed nothing; not even when TLS was what failed.
        silent("(no auth attempts{any}rip={ip}"),
        failure("auth failed): user=<{user}>, method={method}, rip={ip}"),
        failure("(tls_handshake_not_finished): user=<{any}>, rip={ip}"),
        failure("(disconnected during TLS handshake){any}rip={ip}"),
        failure("(auth failed{any}user=<{user}>, method={method}, rip={ip}"),
        failure("(auth failed{any}user=<{user}>,{any}rip={ip}"),
        failure("(auth failed{any}method={method}, rip={ip}"),
        failure("(auth failed{any}rip={ip}"),
        failure("(tried to use dis{any}rip={ip}"),
        failure("(client didn't finish SASL auth{any}rip={ip}"),
        failure("(disconnected before auth was ready{any}rip={ip}"),
        failure("(auth service reported temporary failure{any}rip={ip}"),
        failure("(client sent invalid{any}rip={ip}"),
        failure("(user disabled{any}rip={ip}"),
        failure("Aborted login{any}auth failed{any}rip={ip}"),
        failure("pam({user},{ip}): pam_authenticate() failed: "),
        failure("pam({user},{ip}): Password mismatch"),
        failure("({user},{ip}): pam_authenticate() failed: "),
        failure("({user},{ip},{any}): pam_authenticate() failed: "),
        failure("({user},{ip}){any}nvalid credentials"),
        failure("({user},{ip},{any}){any}nvalid credentials"),
        failure("({user},{ip}){any}assword mismatch"),
        failure("({user},{ip},{any}){any}assword mismatch"),
        failure("({user},{ip}){any}unknown user"),
        failure("({user},{ip},{any}){any}unknown user"),
        success("-login: Login: user=<{user}>, method={method}, rip={ip}"),
        success("Login: user=<{user}>, method={method}, rip={ip}"),
    ],
};

const COURIER: Voice = Voice {
    programs: &[
        "imapd",
        "pop3d",
        "imapd-ssl",
        "pop3d-ssl",
        "imaplogin",
        "pop3login",
        "courierpop3login",
        "courierimaplogin",
        "courier-imapd",
        "courier-pop3d",
        "courieresmtpd",
        "authdaemond",
        "courierimapd",
        "courierpop3d",
        "courierimapd-ssl",
        "courierpop3d-ssl",
        "pop3d_ssl",
    ],
    service: "courier",
    phrases: &[
        failure("LOGIN FAILED, user={user}, ip={ip}"),
        failure("LOGIN FAILED, method={method}, ip={ip}"),
        failure("LOGIN FAILED, ip={ip}"),
        success("LOGIN, user={user}, ip={ip}"),
        failure("error,relay={ip},{any}: 550 User"),
        failure("error,relay={ip},msg=\"535 Authentication failed"),
        failure("error,relay={ip},{any}535 Authentication failed"),
        failure("error,relay={ip},port={any},msg=\"535 Authentication failed"),
        failure("Login failed user={user} auth={any}[{ip}]"),
        failure("Login failed {any}[{ip}]"),
        failure("AUTHENTICATE {method} failure host={any}[{ip}]"),
        failure("Login excessive login failures {any}[{ip}]"),
        failure("Login disabled {any}[{ip}]"),
        failure("badlogin: {any}[{ip}] {any}[SASL("),
        failure("badlogin: {any}[{ip}] {any}authentication failure"),
        failure("badlogin: {any}[{ip}] {any}checkpass failed"),
        failure("badlogin: {any}[{ip}] {any}SASL("),
    ],
};

const CYRUS: Voice = Voice {
    programs: &[
        "imap",
        "imaps",
        "pop3",
        "pop3s",
        "sieve",
        "timsieved",
        "cyrus",
        "cyrus-imapd",
        "nntp",
        "lmtpunix",
        "ctl_cyrusdb",
        "tls_prune",
    ],
    service: "cyrus",
    phrases: &[
        failure("badlogin: {any}[{ip}] {method} [SASL("),
        failure("badlogin: {any}[{ip}] {method} authentication failure"),
        failure("badlogin: {any}[{ip}] {method} SASL("),
        failure("badlogin: {any}[{ip}] {method} ("),
        failure("badlogin: {any}[{ip}] plaintext {any} "),
        failure("badlogin: {any}[{ip}] "),
        success("login: {any}[{ip}] {user} plaintext"),
    ],
};

const UW: Voice = Voice {
    programs: &["ipop3d", "ipop2d"],
    service: "uw-imap",
    phrases: &[
        failure("Login failed user={user} auth={any}[{ip}]"),
        failure("Login failed {any}[{ip}]"),
        failure("AUTHENTICATE {method} failure host={any}[{ip}]"),
        failure("Login excessive login failures {any}[{ip}]"),
        failure("Login disabled {any}[{ip}]"),
    ],
};

const EXIM: Voice = Voice {
    programs: &["exim", "exim4"],
    service: "exim",
    phrases: &[
        silent("rejected RCPT {any}: greylist"),
        silent("temporarily rejected RCPT"),
        failure("authenticator failed for {any}[{ip}]:{any}(set_id={user})"),
        failure("authenticator failed for {any}[{ip}]"),
        failure("SMTP protocol error in \"AUTH{any}[{ip}]"),
        failure("SMTP protocol synchronization error {any}[{ip}]"),
        failure("SMTP call from {any}[{ip}]{any}dropped: too many"),
        failure("no MAIL in SMTP connection from {any}[{ip}]"),
        failure("no MAIL in {any}SMTP connection from {any}[{ip}]"),
        failure("H={any}[{ip}]{any}sender verify fail for"),
        failure("SMTP connection from {any}[{ip}]{any}closed by DROP in ACL"),
        failure("H={any}[{ip}]{any}rejected RCPT"),
        failure("H={any}[{ip}]{any}rejected EHLO or HELO"),
        failure("H={any}[{ip}]{any}rejected AUTH"),
        failure("H={any}[{ip}]{any}rejected after DATA"),
        failure("H={any}[{ip}]{any}rejected by local_scan"),
        failure("H={any}[{ip}]{any}dropped: too many"),
        failure("H={any}[{ip}]{any}dropping connection"),
        failure("unexpected disconnection while reading SMTP command from {any}[{ip}]"),
        failure("SMTP syntax error in {any}[{ip}]"),
    ],
};

const SENDMAIL: Voice = Voice {
    programs: &[
        "sendmail",
        "sm-mta",
        "sm-acceptingconnections",
        "sm-msp",
        "mta",
        "sendmail-mta",
    ],
    service: "sendmail",
    phrases: &[
        failure("[{ip}]{any}: possible SMTP attack: command="),
        failure("[{ip}]: possible SMTP attack: command="),
        failure("AUTH failure ({method}){any}user={user}, relay={any}[{ip}]"),
        failure("AUTH failure ({method}){any}relay={any}[{ip}]"),
        failure("AUTH failure ({method}){any}relay=[{ip}]"),
        success("AUTH=server, relay={any}[{ip}]{any}authid={user}, mech={method},"),
        // Full mailboxes, greylists and queues are the server's own trouble.
        silent("reject=452 "),
        silent("reject=451 4.7.1 Greylisting"),
        failure("relay={any}[{ip}]{any}reject=55"),
        failure("relay={any}[{ip}]{any}reject=45"),
        failure("relay={any}[{ip}]{any}reject=42"),
        failure("arg2={ip},{any}reject=5"),
        failure("relay={any}[{ip}]{any}Fix reverse DNS"),
        failure("rejecting commands from {any}[{ip}] due to pre-greeting traffic"),
        failure("[{ip}]{any} did not issue MAIL/EXPN/VRFY/ETRN during connection"),
        failure("Relaying denied{any}[{ip}]"),
        failure("[{ip}]{any}VRFY "),
        failure("[{ip}]{any}: EXPN "),
        failure(": [{ip}]: vrfy {any}[rejected]"),
        failure(": [{ip}]: expn {any}[rejected]"),
        failure("[{ip}]: VRFY {any}[rejected]"),
        failure("[{ip}]: EXPN {any}[rejected]"),
        failure("lost input channel from {any}[{ip}] to {any} after rcpt"),
    ],
};

const SOLID_POP3: Voice = Voice {
    programs: &["solid-pop3d"],
    service: "solid-pop3d",
    phrases: &[
        failure("authentication failed: no such user: {user} - {ip}"),
        failure("authentication failed: can't map user name: {user} - {ip}"),
        failure("authentication failed for mapped user {user} - {ip}"),
        failure("authentication failed for user {user} - {ip}"),
        failure("root login not allowed - {ip}"),
        failure("can't find APOP secret for user {user} - {ip}"),
    ],
};

const PERDITION: Voice = Voice {
    programs: &[
        "perdition.imaps",
        "perdition.imap4",
        "perdition.imap4s",
        "perdition.imap",
        "perdition.pop3",
        "perdition.pop3s",
        "perdition",
    ],
    service: "perdition",
    phrases: &[
        failure("Auth: {ip}->{any}authentication_id=\"{user}\"{any}status=\"failed"),
        failure("Fatal Error reading authentication information from client {ip}->"),
        success("Auth: {ip}->{any}authentication_id=\"{user}\"{any}status=\"ok"),
    ],
};

const QMAIL: Voice = Voice {
    programs: &["qmail", "qmail-smtpd", "qmail-pop3d", "rblsmtpd", "smtp"],
    service: "qmail",
    phrases: &[
        failure("rblsmtpd: {ip} pid"),
        failure("badiprbl: ip {ip} rbl"),
        failure("blacklist-msg: {any}[{ip}]"),
        failure("smtp event=failed-command address={ip}"),
        failure("event=failed-command address={ip}"),
    ],
};

const VPOPMAIL: Voice = Voice {
    programs: &["vpopmail", "vchkpw", "vchkpw-pop3", "vchkpw-smtp"],
    service: "vpopmail",
    phrases: &[
        failure("password fail{any} {user}:{ip}"),
        failure("vpopmail user not found {user}:{ip}"),
        success("login success {user}:{ip}"),
    ],
};
