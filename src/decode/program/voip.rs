//! Telephony and chat: Asterisk, FreeSWITCH, Murmur, ZNC, ejabberd.

use crate::decode::program::phrase::{Voice, failure, silent, success};

pub const VOICES: &[Voice] = &[ASTERISK, FREESWITCH, MURMUR, ZNC, EJABBERD];

const ASTERISK: Voice = Voice {
    programs: &["asterisk"],
    service: "asterisk",
    phrases: &[
        failure("Registration from '{user}' failed for '{ip}"),
        failure("Host {ip} failed to authenticate as '{user}'"),
        failure("No registration for peer '{user}' (from {ip})"),
        failure("Host {ip} denied access to register peer '{user}'"),
        failure("Failed to authenticate {any}@{ip}"),
        failure("Failed to authenticate {any}{user} from {ip}"),
        failure("Request '{any}' from '{user}' failed for '{ip}' ({any})"),
        failure("Request '{any}' from '{user}' failed for '{ip}"),
        failure("Request from '{user}' failed for '{ip}"),
        failure("hacking attempt detected '{ip}'"),
        failure("Call from '{user}' ({ip}) to extension"),
        failure("from '{user}' failed for '{ip}"),
        failure("SecurityEvent=\"InvalidPassword\"{any}RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidPassword\"{any}RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidAccountID\"{any}RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidAccountID\"{any}RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"ChallengeResponseFailed\"{any}RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"ChallengeResponseFailed\"{any}RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"FailedACL\"{any}RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"FailedACL\"{any}RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidTransport\"{any}RemoteAddress=\"IPV4/{any}/{ip}/"),
        success("SecurityEvent=\"SuccessfulAuth\"{any}RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("{ip}{any} - Failed to authenticate"),
        failure("Sending fake auth rejection for {any}@{ip}"),
        failure("{ip} failed MD5 authentication for '{user}'"),
    ],
};

const FREESWITCH: Voice = Voice {
    programs: &["freeswitch"],
    service: "freeswitch",
    phrases: &[
        failure("SIP auth failure ({any} for [{user}@{any}] from ip {ip}"),
        failure("SIP auth challenge ({any} for [{user}@{any}] from ip {ip}"),
        failure("Can't find user [{user}@{any}] from {ip}"),
    ],
};

const MURMUR: Voice = Voice {
    programs: &["murmurd", "mumble-server"],
    service: "murmur",
    phrases: &[
        failure("Rejected connection from {ip}: Invalid server password"),
        failure("Rejected connection from {ip}: Wrong certificate or password"),
    ],
};

const ZNC: Voice = Voice {
    programs: &["znc"],
    service: "znc",
    phrases: &[failure("[{user}] failed to login from {ip}")],
};

const EJABBERD: Voice = Voice {
    programs: &["ejabberd"],
    service: "ejabberd",
    phrases: &[
        failure("Failed authentication for {user} from IP {ip}"),
        failure("Failed authentication for {user} from {ip}"),
        failure("Failed c2s {method} authentication for {user} from {ip}"),
        success("Accepted authentication for {user} by"),
        silent("Accepted connection {any} from {ip}"),
    ],
};
