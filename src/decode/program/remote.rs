//! Ways into a host or its network besides OpenSSH: Dropbear, telnet, xinetd, remote desktops, tunnels, proxies.

use crate::decode::program::phrase::{Voice, failure, silent, success};

pub const VOICES: &[Voice] = &[
    DROPBEAR,
    TELNET,
    XINETD,
    TCP_WRAPPERS,
    OPENVPN,
    SOFTETHER,
    STRONGSWAN,
    WIREGUARD,
    XRDP,
    SCREEN_SHARING,
    DANTE,
    STUNNEL,
    NRPE,
    SASL,
    FAIL2BAN,
    SSHGUARD,
    SCANLOGD,
    PORTSENTRY,
    ROUTER_OS,
];

const DROPBEAR: Voice = Voice {
    programs: &["dropbear"],
    service: "dropbear",
    phrases: &[
        failure("ad password attempt for '{user}' from {ip}"),
        failure("ad PAM password attempt for '{user}' from {ip}"),
        failure("ogin attempt for nonexistent user from {ip}"),
        failure("ogin attempt for nonexistent user '{user}' from {ip}"),
        failure("ogin attempt with wrong user {user} from {ip}"),
        failure("xit before auth (user '{user}', {any} from {ip}"),
        failure("xit before auth from <{ip}>: (user '{user}', "),
        failure("xit before auth from <{ip}>"),
        success("assword auth succeeded for '{user}' from {ip}"),
        success("ubkey auth succeeded for '{user}' with {any} from {ip}"),
    ],
};

const TELNET: Voice = Voice {
    programs: &["telnetd", "in.telnetd", "utelnetd"],
    service: "telnet",
    phrases: &[
        failure("FAILED LOGIN {any} FROM {host} FOR {user},"),
        silent("connect from {any}[{ip}]"),
        silent("connect from {host}"),
    ],
};

const XINETD: Voice = Voice {
    programs: &["xinetd"],
    service: "xinetd",
    phrases: &[
        failure("FAIL: {any} address from={ip}"),
        failure("FAIL: {any} libwrap from={ip}"),
        failure("FAIL: {any} from={ip}"),
        silent("START: {any} from={ip}"),
        silent("EXIT: {any} from={ip}"),
    ],
};

const TCP_WRAPPERS: Voice = Voice {
    programs: &[
        "tcpd",
        "rpcbind",
        "portmap",
        "in.tftpd",
        "rlogind",
        "rshd",
        "in.rlogind",
        "in.rshd",
        "rsyncd",
        "in.fingerd",
    ],
    service: "tcp-wrappers",
    phrases: &[
        failure("refused connect from {any}[{ip}]"),
        failure("refused connect from {host}"),
        failure("auth failed on module {any} from {any}({ip}"),
        failure("auth failed on module {any} from {any}[{ip}"),
        silent("connect from {any}({ip})"),
        silent("connect from {ip}"),
    ],
};

const OPENVPN: Voice = Voice {
    programs: &[
        "openvpn",
        "ovpn-server",
        "ovpn",
        "openvpn-server",
        "ovpn-openvpn",
        "ovpn-client",
    ],
    service: "openvpn",
    phrases: &[
        failure("^{ip} TLS Error: "),
        failure("^{ip} TLS Auth Error: Auth Username/Password verification failed for peer"),
        failure("^{ip} VERIFY ERROR: "),
        failure("^{ip} VERIFY KU ERROR"),
        failure("^{ip} VERIFY EKU ERROR"),
        failure("^{ip} SIGUSR1[soft,{any}] received, client-instance restarting"),
        failure("^{any}/{ip} TLS Auth Error: "),
        failure("^{any}/{ip} TLS Error: "),
        failure("^{ip} PLUGIN_CALL: {any}failed"),
        failure("^{ip} Authentication failed"),
        failure("TLS Error: incoming packet authentication failed from [AF_INET]{ip}"),
        failure("TLS Error: incoming packet authentication failed from [AF_INET6]{ip}"),
        failure("TLS Error: cannot locate HMAC in incoming packet from [AF_INET]{ip}"),
        failure("TLS Error: cannot locate HMAC in incoming packet from [AF_INET6]{ip}"),
        failure("tls-crypt unwrap error{any}[AF_INET]{ip}"),
        success("^{ip} [{user}] Peer Connection Initiated with"),
    ],
};

const SOFTETHER: Voice = Voice {
    programs: &["vpnserver", "softethervpn"],
    service: "softether",
    phrases: &[failure(
        "User authentication failed. The user name that has been provided was \"{user}\", from {ip}",
    )],
};

const STRONGSWAN: Voice = Voice {
    programs: &[
        "charon",
        "charon-systemd",
        "ipsec",
        "pluto",
        "pptpd",
        "xl2tpd",
        "ocserv",
    ],
    service: "ipsec",
    phrases: &[
        failure("] received AUTHENTICATION_FAILED notify error"),
        failure("no IKE config found for {any}...{ip}, sending NO_PROPOSAL_CHOSEN"),
        failure("EAP method {method} failed for peer {user}$"),
        failure("failed authentication attempt for user '{user}' from {ip}"),
        failure("worker[{user}]: {ip} failed authentication"),
        success("authentication of '{user}' with {method} successful"),
        success("IKE_SA {any} established between {any}...{ip}["),
    ],
};

const WIREGUARD: Voice = Voice {
    programs: &["wireguard"],
    service: "wireguard",
    phrases: &[
        failure("wireguard: {any}: Invalid handshake initiation from {ip}"),
        failure("wireguard: {any}: Packet has unallowed src IP ({ip})"),
        failure("wireguard: {any}: Invalid MAC of handshake, dropping packet from {ip}"),
        silent("wireguard: {any}: Receiving handshake initiation from peer {any} ({ip})"),
    ],
};

const XRDP: Voice = Voice {
    programs: &["xrdp", "xrdp-sesman"],
    service: "xrdp",
    phrases: &[
        failure("AUTHFAIL: user={user} ip={ip}"),
        failure("login failed for user: {user} from {ip}"),
        failure("login failed for user {user}$"),
        success("access granted for user {user} ip={ip}"),
    ],
};

const SCREEN_SHARING: Voice = Voice {
    programs: &["screensharingd", "Xvnc", "x11vnc", "vncserver"],
    service: "vnc",
    phrases: &[
        failure("Authentication: FAILED :: User Name: {user} :: Viewer Address: {ip}"),
        success("Authentication: SUCCEEDED :: User Name: {user} :: Viewer Address: {ip}"),
    ],
};

const DANTE: Voice = Voice {
    programs: &["danted", "sockd"],
    service: "dante",
    phrases: &[
        failure("]: {ip} {any}: could not access user \"{user}\"'s records"),
        failure("]: {ip} {any}authentication failed for user \"{user}\""),
        failure("]: {ip} {any}pam_authenticate() for user \"{user}\" failed"),
        failure("]: {ip} {any}login failed for user \"{user}\""),
    ],
};

const STUNNEL: Voice = Voice {
    programs: &["stunnel", "stunnel4"],
    service: "stunnel",
    phrases: &[
        failure("SSL_accept from {ip} : {any}peer did not return a certificate"),
        failure("SSL_accept from {ip} "),
        silent("accepted connection from {ip}"),
    ],
};

const NRPE: Voice = Voice {
    programs: &["nrpe", "nsca"],
    service: "nagios",
    phrases: &[failure("Host {ip} is not allowed to talk to us")],
};

const SASL: Voice = Voice {
    programs: &["saslauthd"],
    service: "saslauthd",
    phrases: &[
        failure("auth failure: [user={user}] [service={any}"),
        failure("do_auth : auth failure: [user={user}]"),
    ],
};

const FAIL2BAN: Voice = Voice {
    programs: &["fail2ban.actions", "fail2ban-server", "fail2ban"],
    service: "fail2ban",
    phrases: &[
        silent("[recidive] Ban "),
        silent("Restore Ban "),
        failure("] Ban {ip}"),
    ],
};

const SSHGUARD: Voice = Voice {
    programs: &["sshguard"],
    service: "sshguard",
    phrases: &[
        failure("Attack from \"{ip}\" on service"),
        failure("Blocking \"{ip}/"),
        failure("Blocking \"{ip}\" "),
    ],
};

const SCANLOGD: Voice = Voice {
    programs: &["scanlogd"],
    service: "scanlogd",
    phrases: &[failure("^{ip} to {any} ports ")],
};

const PORTSENTRY: Voice = Voice {
    programs: &["portsentry"],
    service: "portsentry",
    phrases: &[
        failure("Connect from host: {any}/{ip} to"),
        failure("scan from host: {any}/{ip} to"),
    ],
};

const ROUTER_OS: Voice = Voice {
    programs: &["system,error,critical"],
    service: "routeros",
    phrases: &[failure(
        "login failure for user {user} from {ip} via {method}",
    )],
};
