//! What this machine has that can be watched: log files and interfaces; what is missing, what is not readable, and the
//! line to type that mends it.

use std::fs::File;
use std::io::ErrorKind;

use crate::decode::Format;
use crate::source;
use crate::source::capture;
use crate::source::file;
use crate::source::file::FirstRead;

/// Where Debian, Ubuntu and Red Hat keep what the rules are about: files, and what they hold.
const FILES: &[(&[&str], &str)] = &[
    (
        &["/var/log/auth.log", "/var/log/secure"],
        "logins (auth log)",
    ),
    (&["/var/log/syslog", "/var/log/messages"], "system log"),
    (&["/var/log/nginx/access.log"], "nginx"),
    (
        &["/var/log/apache2/access.log", "/var/log/httpd/access_log"],
        "Apache",
    ),
];

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    Watched(String),
    Unreadable { what: String, mend: String },
    Missing(String),
}

/// What was found, and the sources that watch it.
#[derive(Debug, Default)]
pub struct Seen {
    pub looks: Vec<Look>,
    pub sources: source::Config,
}

/// Looks at the usual places.
pub fn at_this_machine() -> Seen {
    let mut seen = Seen::default();
    for (paths, what) in FILES {
        look_at_files(paths, what, &mut seen);
    }
    look_at_interfaces(&mut seen);
    seen
}

fn look_at_files(paths: &[&str], what: &str, seen: &mut Seen) {
    let mut unreadable = None;
    for path in paths {
        match File::open(path) {
            Ok(_) => {
                seen.looks.push(Look::Watched(format!("{what}: {path}")));
                seen.sources.file.push(file::Config {
                    path: (*path).to_owned(),
                    decode: Format::Auto,
                    from: FirstRead::End,
                    exclude: Vec::new(),
                });
                return;
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => unreadable = Some(path),
            Err(_) => {}
        }
    }
    seen.looks.push(match unreadable {
        Some(path) => Look::Unreadable {
            what: format!("{what}: {path}"),
            mend: "sudo usermod -aG adm,systemd-journal $USER  and log in again".to_owned(),
        },
        None => Look::Missing(format!("{what}: {}", paths.join(", "))),
    });
}

fn look_at_interfaces(seen: &mut Seen) {
    let names: Vec<_> = capture::available()
        .into_iter()
        .filter(|interface| interface.up && !interface.loopback)
        .map(|interface| interface.name)
        .collect();
    if names.is_empty() {
        seen.looks
            .push(Look::Missing("a network interface that is up".to_owned()));
        return;
    }
    let what = format!("packets: {}", names.join(", "));
    match capture::permitted() {
        Ok(()) => {
            seen.looks.push(Look::Watched(what));
            for interface in names {
                seen.sources.capture.push(capture::Config {
                    interface,
                    ..capture::Config::default()
                });
            }
        }
        Err(missing) => seen.looks.push(Look::Unreadable {
            what,
            mend: missing.remedy(),
        }),
    }
}
