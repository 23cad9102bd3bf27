//! The last resort for programs that have no sentences here: the few words in which most daemons say that somebody
//! was refused, and only where an address of the peer ends them. Says nothing of successes.

use crate::decode::program::phrase::{Voice, failure};

pub const VOICES: &[Voice] = &[Voice {
    programs: &[],
    // The program's own name.
    service: "",
    phrases: &[
        failure("ailed password for {user} from {ip}"),
        failure("ailed login for {user} from {ip}"),
        failure("ailed login of {user} from {ip}"),
        failure("ailed login attempt for {user} from {ip}"),
        failure("ailed login attempt from {ip}"),
        failure("ailed login from {ip}"),
        failure("ogin failed for user {user} from {ip}"),
        failure("ogin failed for {user} from {ip}"),
        failure("ogin failed from {ip}"),
        failure("ogin failure for {user} from {ip}"),
        failure("ogin failure from {ip}"),
        failure("uthentication failed for user {user} from {ip}"),
        failure("uthentication failed for {user} from {ip}"),
        failure("uthentication failed from {ip}"),
        failure("uthentication failure for {user} from {ip}"),
        failure("uthentication failure from {ip}"),
        failure("nvalid user {user} from {ip}"),
        failure("nvalid password for {user} from {ip}"),
        failure("nvalid login from {ip}"),
        failure("nvalid credentials from {ip}"),
        failure("rong password for {user} from {ip}"),
        failure("ad password for {user} from {ip}"),
        failure(" failure from {ip}$"),
    ],
}];
