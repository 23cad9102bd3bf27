//! Name servers: queries, and the ones they refuse.

use crate::decode::program::phrase::{Voice, failure, silent};

pub const VOICES: &[Voice] = &[NAMED, NSD, UNBOUND];

const NAMED: Voice = Voice {
    programs: &["named", "named-sdb", "bind", "bind9"],
    service: "named",
    phrases: &[
        // An answer that a limit holds back may be meant for somebody whose address was forged.
        silent("rate limit"),
        failure("client {ip}#{any}' denied"),
        failure("client {any} {ip}#{any}' denied"),
        failure("client {ip}#{any}bad zone transfer request"),
        failure("client {any} {ip}#{any}bad zone transfer request"),
        silent("client {ip}#"),
        silent("client {any} {ip}#"),
    ],
};

const NSD: Voice = Voice {
    programs: &["nsd"],
    service: "nsd",
    phrases: &[
        failure("ratelimit block {any} query {ip} TYPE"),
        failure("axfr for {any} from client {ip} refused"),
        failure("axfr for {any} from {ip} refused"),
    ],
};

const UNBOUND: Voice = Voice {
    programs: &["unbound"],
    service: "unbound",
    phrases: &[
        failure("refused query{any}from {ip}"),
        silent("info: {ip} "),
    ],
};
