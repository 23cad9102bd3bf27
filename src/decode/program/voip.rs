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
        failure("Request '{any}' from '{user}' failed for '{ip}"),
        failure("Request from '{user}' failed for '{ip}"),
        failure("hacking attempt detected '{ip}'"),
        failure("Call from '{user}' ({ip}) to extension"),
        failure("Call from '{user}' ({any}:{ip}) to extension"),
        failure("Call ({any}:{ip}) to extension"),
        failure("Rejecting unknown SIP connection from {ip}"),
        failure(" {ip} failed to authenticate as '{user}'"),
        failure(" {ip} tried to authenticate with nonexistent user '{user}'"),
        failure("from '{user}' failed for '{ip}"),
        // The account is the client's word and may hold a whole address of its own: the last one is true.
        failure("SecurityEvent=\"InvalidPassword\"{most},RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidPassword\"{most},RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidAccountID\"{most},RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidAccountID\"{most},RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"ChallengeResponseFailed\"{most},RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"ChallengeResponseFailed\"{most},RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"FailedACL\"{most},RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"FailedACL\"{most},RemoteAddress=\"IPV6/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidTransport\"{most},RemoteAddress=\"IPV4/{any}/{ip}/"),
        failure("SecurityEvent=\"InvalidTransport\"{most},RemoteAddress=\"IPV6/{any}/{ip}/"),
        success("SecurityEvent=\"SuccessfulAuth\"{most},RemoteAddress=\"IPV4/{any}/{ip}/"),
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
