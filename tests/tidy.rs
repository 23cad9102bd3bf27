//! Holds the conventions that a tool can hold: who may import whom, what the pure rooms leave out, how long a file is.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may import what of the crate; a module may always import its own children, and its parents where named.
/// The row of the longest matching name counts. An arrow that is not listed is a failing test.
const IMPORTS: &[(&str, &[&str])] = &[
    ("diagnostic", &[]),
    ("metrics", &[]),
    ("record", &[]),
    ("event", &[]),
    ("alert", &["record", "event"]),
    ("source", &["record", "decode", "metrics"]),
    ("decode", &["record", "event"]),
    // The parent of the rooms below makes detections and alerts of what they find.
    ("detect", &["record", "event", "alert"]),
    ("detect::rule", &["event", "alert", "diagnostic"]),
    ("detect::mask", &["alert", "event"]),
    ("detect::correlate", &["alert", "detect"]),
    ("detect::fold", &["alert", "detect"]),
    ("deliver", &[]),
    // Positions are records' positions, and the ledger is what the wire says of it.
    (
        "deliver::spool",
        &["alert", "metrics", "record", "deliver::wire"],
    ),
    ("deliver::wire", &["alert"]),
    ("deliver::identity", &["diagnostic"]),
    ("deliver::forward", &["deliver", "metrics"]),
    // It makes the records' decoders and the alerts' ids, and resumes at records' positions.
    (
        "agent",
        &[
            "source", "decode", "detect", "deliver", "alert", "record", "admin", "metrics",
        ],
    ),
    // What a token's pin and a heartbeat hold is said on the wire.
    (
        "centre::store",
        &["alert", "deliver::forward", "deliver::wire"],
    ),
    ("centre::registry", &["centre::store", "metrics"]),
    // RFC 9457 bodies, for whoever answers.
    ("centre::problem", &["centre::store", "deliver::wire"]),
    // The accept loop of both doors: who is at the other end.
    (
        "centre::listen",
        &["centre::problem", "deliver::identity", "metrics"],
    ),
    // The first administrator's profile.
    ("centre::profile", &["centre::auth", "centre::store"]),
    // 401, 403 and 429 are problems.
    (
        "centre::auth",
        &["centre::store", "centre::problem", "metrics"],
    ),
    // It judges lines, and limits wrong tokens; what a peer wrote is made harmless before it is told.
    (
        "centre::ingest",
        &[
            "deliver::wire",
            "deliver::identity",
            "centre::auth",
            "centre::listen",
            "centre::problem",
            "centre::registry",
            "centre::store",
            "metrics",
            "alert",
            "diagnostic",
        ],
    ),
    (
        "centre::query",
        &[
            "centre::auth",
            "centre::listen",
            "centre::problem",
            "centre::registry",
            "centre::store",
            "deliver::identity",
            "alert",
            "metrics",
            "diagnostic",
        ],
    ),
    (
        "centre",
        &["deliver::forward", "deliver::identity", "admin", "metrics"],
    ),
    // Who holds a port is said in words that a terminal can show.
    ("admin", &["metrics", "diagnostic"]),
    ("config", &["agent", "centre", "diagnostic"]),
    ("cli", &[""]),
];

/// What the core must not do: IO, threads, clocks, logs.
const PURE: &[&str] = &[
    "record",
    "event",
    "alert",
    "diagnostic",
    "decode",
    "detect",
    "deliver::wire",
];
const IMPURE: &[&str] = &[
    "std::fs",
    "std::process",
    "std::thread",
    "TcpStream",
    "UdpSocket",
    "tokio",
    "tracing::",
    "use tracing",
    "::now()",
    "std::env",
];

/// Rooms without an async runtime.
const NO_TOKIO: &[&str] = &[
    "source",
    "deliver::spool",
    "deliver::identity",
    "metrics",
    "config",
];

const FILE_LINES_MAX: usize = 500;

const BANNED_NAMES: &[&str] = &[
    "mod", "utils", "util", "common", "helpers", "helper", "types", "manager", "misc", "prelude",
];

const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "src",
    "rules",
    "deploy",
    "dashboards",
    "tests",
];

struct Source {
    path: PathBuf,
    /// `detect::rule` for src/detect/rule/read.rs
    module: String,
    /// Without its tests.
    code: String,
}

#[test]
fn imports_follow_the_table() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = IMPORTS
            .iter()
            .filter(|(name, _)| is_within(&source.module, name))
            .max_by_key(|(name, _)| name.len())
        else {
            if source.module.is_empty() {
                continue; // lib.rs and main.rs
            }
            faults.push(format!("{}: no row for this module", source.path.display()));
            continue;
        };
        let own = room(&source.module);
        for import in imports(&source.code) {
            let is_own = is_within(&import, &own) || is_within(&own, &import) && own == import;
            let is_allowed = allowed
                .iter()
                .any(|name| name.is_empty() || is_within(&import, name));
            if !is_own && !is_allowed {
                faults.push(format!(
                    "{}: imports crate::{import}",
                    source.path.display()
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let mut faults = Vec::new();
    for source in sources() {
        let is_pure = PURE.iter().any(|name| is_within(&source.module, name));
        let no_tokio = NO_TOKIO.iter().any(|name| is_within(&source.module, name));
        for (number, line) in source.code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            let found = IMPURE.iter().find(|word| line.contains(**word));
            if let Some(word) = found.filter(|word| is_pure || no_tokio && **word == "tokio") {
                faults.push(format!("{}:{}: {word}", source.path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_cli_prints_and_only_main_exits() {
    let mut faults = Vec::new();
    for source in sources() {
        let is_cli = is_within(&source.module, "cli");
        let is_main = source.path.ends_with("src/main.rs");
        for (number, line) in source.code.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let prints = ["println!", "eprintln!", "print!", "eprint!", "dbg!"]
                .iter()
                .any(|word| code.contains(word));
            let exits = code.contains("process::exit");
            if prints && !is_cli && !is_main || exits && !is_main {
                faults.push(format!("{}:{}", source.path.display(), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn only_config_and_rules_know_yaml_and_only_store_and_spool_know_sql() {
    let mut faults = Vec::new();
    for source in sources() {
        for (word, rooms) in [
            // A person's profile is a file of the command line alone.
            ("serde_yaml", ["config", "detect::rule", "cli"]),
            ("saphyr", ["config", "detect::rule", "detect::rule"]),
            (
                "rsigma_parser",
                ["detect::rule", "detect::rule", "detect::rule"],
            ),
            (
                "sqlx::",
                ["centre::store", "centre::store", "centre::store"],
            ),
            (
                "rusqlite::",
                ["deliver::spool", "deliver::spool", "deliver::spool"],
            ),
        ] {
            let is_at_home = rooms.iter().any(|room| is_within(&source.module, room));
            if source.code.contains(word) && !is_at_home {
                faults.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_are_short_and_named_by_a_noun_of_the_field() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines = source.code.lines().count();
        if lines > FILE_LINES_MAX {
            faults.push(format!("{}: {lines} lines", source.path.display()));
        }
        let name = source.path.file_stem().unwrap_or_default();
        if BANNED_NAMES.iter().any(|banned| name == *banned) {
            faults.push(format!(
                "{}: a name that says nothing",
                source.path.display()
            ));
        }
        for word in ["TODO", "FIXME", "XXX", "unimplemented!", "todo!"] {
            if source.code.contains(word) {
                faults.push(format!("{}: {word}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn unsafe_code_stands_nowhere() {
    let faults: Vec<_> = sources()
        .iter()
        .filter(|source| {
            let is_ring = source.path.ends_with("src/source/capture/ring.rs");
            !is_ring && source.code.contains("allow(unsafe_code)")
        })
        .map(|source| source.path.display().to_string())
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_visible_list_at_the_top_is_fixed() {
    let known: BTreeSet<_> = TOP.iter().map(ToString::to_string).collect();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_hidden = name.starts_with('.');
        let is_built = name == "target";
        assert!(is_hidden || is_built || known.contains(&name), "{name}");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let (mut found, mut for_tests): (Vec<Source>, Vec<String>) = Default::default();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                for name in test_modules(&text) {
                    let own = module(&path);
                    let parent = if own.is_empty() { own } else { own + "::" };
                    for_tests.push(format!("{parent}{name}"));
                }
                found.push(Source {
                    module: module(&path),
                    code: without_tests(&text),
                    path,
                });
            }
        }
    }
    found.retain(|source| !for_tests.iter().any(|name| is_within(&source.module, name)));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "sources were not found");
    found
}

fn module(path: &Path) -> String {
    let within = path.strip_prefix(root().join("src")).unwrap();
    let parts: Vec<_> = within
        .with_extension("")
        .iter()
        .map(|part| part.to_str().unwrap().to_owned())
        .filter(|part| part != "lib" && part != "main")
        .collect();
    parts.join("::")
}

/// Modules that are compiled for tests only.
fn test_modules(text: &str) -> Vec<String> {
    text.split("#[cfg(test)]\n")
        .skip(1)
        .filter_map(|rest| {
            let line = rest.lines().next()?;
            let name = line.split_once("mod ")?.1;
            Some(name.strip_suffix(';')?.to_owned())
        })
        .collect()
}

/// Tests stand at the end of a file.
fn without_tests(text: &str) -> String {
    let tests = text.match_indices("\n#[cfg(test)]\nmod ").find(|(at, _)| {
        text[*at..]
            .lines()
            .nth(2)
            .is_some_and(|line| line.ends_with('{'))
    });
    match tests {
        Some((at, _)) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// The room is the module itself for the table's rows, else the row it falls under.
fn room(module: &str) -> String {
    IMPORTS
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| is_within(module, name))
        .max_by_key(|name| name.len())
        .unwrap_or(module)
        .to_owned()
}

fn is_within(module: &str, outer: &str) -> bool {
    module == outer
        || module
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// Every `crate::a::b` of the code, by its lower-case parts.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in code.lines() {
        let line = line.split("//").next().unwrap_or_default();
        for rest in line.split("crate::").skip(1) {
            let path: String = rest
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
                .collect();
            let parts: Vec<_> = path
                .split("::")
                .take_while(|part| {
                    part.chars()
                        .next()
                        .is_some_and(|first| first.is_lowercase())
                })
                .collect();
            if !parts.is_empty() {
                found.insert(parts.join("::"));
            }
        }
    }
    found
}
