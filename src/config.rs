//! Reads the configuration files of the two roles and tells every fault of one at once, each with its place.
//! A module owns its `Config`; this one only assembles and checks. Does not know what the settings mean.

use std::fmt;
use std::fs;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use saphyr::{LoadableYamlNode, MarkedYaml, YamlData};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path as FieldPath, Segment};
use serde_yaml::Value;

use crate::agent;
use crate::centre;
use crate::diagnostic::{Diagnostic, Place, nearest};

/// Faults told of one file; a file with more is some other file.
const FAULTS_MAX: usize = 50;
/// No configuration is longer; the bound keeps a wrong path (`/dev/zero`) from filling memory.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{path} has {size} bytes; a configuration has at most {FILE_BYTES_MAX}", path = path.display())]
    TooLong { path: PathBuf, size: u64 },
    #[error("cannot write {path}", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error("{0}")]
    Faults(Faults),
}

/// Every fault of a file, in the file's order.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Diagnostic>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, fault) in self.0.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

/// Reads a whole file as text.
///
/// # Errors
/// When it can't be read or is too long.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    let read = |cause| ConfigError::Read {
        path: path.to_owned(),
        cause,
    };
    let size = fs::metadata(path).map_err(read)?.len();
    if size > FILE_BYTES_MAX {
        let path = path.to_owned();
        return Err(ConfigError::TooLong { path, size });
    }
    fs::read_to_string(path).map_err(read)
}

/// An agent's settings, and what is wrong with the file if they are its last good copy.
#[derive(Debug)]
pub struct Loaded {
    pub config: agent::Config,
    pub faults: Option<Faults>,
}

/// Returns the settings of agent.yaml.
///
/// # Errors
/// When the file can't be read, with every fault of it.
pub fn agent(path: &Path) -> Result<agent::Config, ConfigError> {
    parse(&path.display().to_string(), &text(path)?)
}

/// Returns the settings of centre.yaml.
///
/// # Errors
/// When the file can't be read, with every fault of it.
pub fn centre(path: &Path) -> Result<centre::Config, ConfigError> {
    parse(&path.display().to_string(), &text(path)?)
}

/// Returns the settings of agent.yaml, or of its last good copy: a service must not go blind over its file.
///
/// # Errors
/// When the file is faulty and there never was a good one.
pub fn agent_or_last_good(path: &Path) -> Result<Loaded, ConfigError> {
    let faulty = match agent(path) {
        Ok(config) => {
            return Ok(Loaded {
                config,
                faults: None,
            });
        }
        Err(error) => error,
    };
    let file = text(path).unwrap_or_default();
    for folder in state_folders(&file) {
        let copy = folder.join(GOOD_COPY);
        if let Ok(config) = agent(&copy) {
            let faults = match faulty {
                ConfigError::Faults(faults) => faults,
                other => {
                    let told = Diagnostic::error(&path.display().to_string(), other.to_string());
                    Faults(vec![told])
                }
            };
            return Ok(Loaded {
                config,
                faults: Some(faults),
            });
        }
    }
    Err(faulty)
}

/// Keeps a copy of a file that was good, in the state folder that it names.
///
/// # Errors
/// When it can't be written.
pub fn keep_good(path: &Path, config: &agent::Config) -> Result<(), ConfigError> {
    let copy = config.state.join(GOOD_COPY);
    let good = text(path)?;
    if fs::read_to_string(&copy).is_ok_and(|kept| kept == good) {
        return Ok(());
    }
    let write = || {
        let beside = copy.with_extension("new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(good.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &copy)
    };
    write().map_err(|cause| ConfigError::Write {
        path: copy.clone(),
        cause,
    })
}

/// The last file that an agent started with, in its state folder.
const GOOD_COPY: &str = "agent.yaml.good";

/// Where the copy may be: the folder that the faulty file still names, what systemd says, the default.
fn state_folders(file: &str) -> Vec<PathBuf> {
    let named = file.lines().find_map(|line| {
        let folder = line.strip_prefix("state:")?;
        let folder = folder.split(" #").next()?.trim().trim_matches(['"', '\'']);
        (!folder.is_empty()).then(|| PathBuf::from(folder))
    });
    let of_unit = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    named
        .into_iter()
        .chain(of_unit)
        .chain([agent::Config::default().state])
        .collect()
}

/// Returns the settings that `text` gives; what it leaves out has its default.
///
/// # Errors
/// Every fault: unknown keys, wrong types, values that a type refuses, broken YAML.
pub fn parse<T: DeserializeOwned + Default>(file: &str, text: &str) -> Result<T, ConfigError> {
    let mut value: Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let fault = syntax(file, text, &error);
            return Err(ConfigError::Faults(Faults(vec![fault])));
        }
    };
    if value.is_null() {
        return Ok(T::default()); // an empty file, or comments only
    }
    let tree = MarkedYaml::load_from_str(text).unwrap_or_default();
    let mut faults = Vec::new();
    let mut taken = Taken::default();
    while faults.len() < FAULTS_MAX {
        let error = match serde_path_to_error::deserialize::<_, T>(value.clone()) {
            Ok(settings) if faults.is_empty() => return Ok(settings),
            Ok(_) => break,
            Err(error) => error,
        };
        let mut now = steps(error.path());
        let message = error.inner().to_string();
        let mut steps = taken.original(&now);
        let (fault, key) = locate(file, text, tree.first(), &mut steps, &message);
        now.extend(key);
        if !taken.makes_missing(&steps, &message) {
            faults.push(fault);
        }
        if !remove(&mut value, &now) {
            break; // nothing more to take out; what is known is told
        }
        taken.0.push(steps);
    }
    faults.sort_by_key(|fault: &Diagnostic| fault.place);
    Err(ConfigError::Faults(Faults(faults)))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Key(String),
    Item(usize),
}

/// What was taken out, by its path in the file as it was written.
#[derive(Debug, Default)]
struct Taken(Vec<Vec<Step>>);

impl Taken {
    /// Returns the path in the file of what now stands at `steps`: items behind one that was taken out moved up.
    fn original(&self, steps: &[Step]) -> Vec<Step> {
        let mut path: Vec<Step> = Vec::new();
        for step in steps {
            let mut step = step.clone();
            if let Step::Item(index) = &mut step {
                let mut gone: Vec<usize> = self
                    .0
                    .iter()
                    .filter_map(|taken| match taken.split_last() {
                        Some((Step::Item(gone), before)) if before == path => Some(*gone),
                        _ => None,
                    })
                    .collect();
                gone.sort_unstable();
                for before in gone {
                    *index += usize::from(before <= *index);
                }
            }
            path.push(step);
        }
        path
    }

    /// Whether a field is missing only because it was taken out for a fault of its own, such as a letter too few.
    fn makes_missing(&self, steps: &[Step], message: &str) -> bool {
        let name = message
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'));
        name.is_some_and(|name| {
            self.0.iter().any(|taken| match taken.split_last() {
                Some((Step::Key(key), before)) => {
                    before == steps && (key == name || nearest(key, [name]).is_some())
                }
                _ => false,
            })
        })
    }
}

fn steps(path: &FieldPath) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Item(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        })
        .collect()
}

fn syntax(file: &str, text: &str, error: &serde_yaml::Error) -> Diagnostic {
    let full = error.to_string();
    let message = full
        .rsplit_once(" at line ")
        .map_or(full.as_str(), |(before, _)| before);
    let fault = Diagnostic::error(file, format!("not valid YAML: {message}"));
    match error.location() {
        None => fault,
        Some(at) => {
            let place = Place {
                line: at.line().max(1),
                column: at.column().max(1),
            };
            fault.at(text, place, 1).hint(
                "check the indentation, the quotes and the colon of this line and the one before",
            )
        }
    }
}

/// Returns the fault with its place, and the key that the path to it lacked, which is added to it.
fn locate(
    file: &str,
    text: &str,
    root: Option<&MarkedYaml<'_>>,
    steps: &mut Vec<Step>,
    message: &str,
) -> (Diagnostic, Option<Step>) {
    let mut fault = Diagnostic::error(file, message);
    let mut lacked = None;
    let mut point_at_key = false;
    if let Some((name, expected)) = unknown_field(message) {
        // The path ends at the key or at the mapping that holds it.
        if steps.last() != Some(&Step::Key(name.to_owned())) {
            steps.push(Step::Key(name.to_owned()));
            lacked = steps.last().cloned();
        }
        fault.message = format!("unknown field `{name}`");
        fault.label = match expected.is_empty() {
            true => "no fields are known here".to_owned(),
            false => format!("expected {}", listed(&expected)),
        };
        if let Some(meant) = nearest(name, expected.iter().copied()) {
            fault.hint = format!("did you mean `{meant}`?");
        }
        point_at_key = true;
    } else if let Some((found, expected)) = message.split_once(", expected ") {
        fault.message = found.to_owned();
        fault.label = format!("expected {}", plain(expected));
        if let Some(name) = found.strip_prefix("unknown variant `") {
            let known = expected.split('`').skip(1).step_by(2);
            if let Some(meant) = nearest(name.trim_end_matches('`'), known) {
                fault.hint = format!("did you mean `{meant}`?");
            }
        }
    } else if message == "invalid socket address syntax" {
        fault.label = "expected an address and a port, such as 127.0.0.1:9464".to_owned();
    }
    if let Some((place, width)) = root.and_then(|root| place(root, steps, point_at_key)) {
        fault = fault.at(text, place, width);
    }
    (fault, lacked)
}

/// What serde calls by the names of Rust's types.
fn plain(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i64" => "a whole number",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "keys and values",
        other if other.starts_with("struct ") => "keys and values",
        other => other,
    }
}

/// Takes apart serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (name, rest) = rest.split_once('`')?;
    Some((name, rest.split('`').skip(1).step_by(2).collect()))
}

fn listed(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

/// Returns where the node at the end of the path stands, or its key, and how wide it is on its line.
fn place(root: &MarkedYaml<'_>, steps: &[Step], at_key: bool) -> Option<(Place, usize)> {
    let mut node = root;
    for (at, step) in steps.iter().enumerate() {
        let is_last = at + 1 == steps.len();
        match (step, &node.data) {
            (Step::Item(index), YamlData::Sequence(items)) => node = items.get(*index)?,
            (Step::Key(name), YamlData::Mapping(entries)) => {
                let (key, value) = entries
                    .iter()
                    .find(|(key, _)| key.data.as_str() == Some(name))?;
                node = if is_last && (at_key || is_empty(value)) {
                    key
                } else {
                    value
                };
            }
            _ => break, // the fault is in what stands here
        }
    }
    let (start, end) = (node.span.start, node.span.end);
    let place = Place {
        line: start.line().max(1),
        column: start.col() + 1,
    };
    let width = if end.line() == start.line() {
        end.col().saturating_sub(start.col())
    } else {
        1
    };
    Some((place, width))
}

fn is_empty(node: &MarkedYaml<'_>) -> bool {
    node.span.start == node.span.end
}

/// Takes the faulty node out, so that the next look finds the next fault.
fn remove(value: &mut Value, steps: &[Step]) -> bool {
    let Some((last, before)) = steps.split_last() else {
        return false;
    };
    let mut node = value;
    for step in before {
        let next = match step {
            Step::Key(name) => node.get_mut(name.as_str()),
            Step::Item(index) => node.get_mut(*index),
        };
        let Some(next) = next else {
            return false;
        };
        node = next;
    }
    match (last, node) {
        (Step::Key(name), Value::Mapping(entries)) => entries.remove(name.as_str()).is_some(),
        (Step::Item(index), Value::Sequence(items)) if *index < items.len() => {
            items.remove(*index);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct File {
        path: String,
        decode: String,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        workers: u16,
        wait: Option<jiff::SignedDuration>,
        sources: Vec<File>,
    }

    fn faults(text: &str) -> Vec<Diagnostic> {
        match parse::<Settings>("agent.yaml", text) {
            Err(ConfigError::Faults(Faults(faults))) => faults,
            other => panic!("no faults: {other:?}"),
        }
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_place() {
        let text = "workers: many\nwait: 1 fortnight\nsources:\n  - pth: /a\n  - path: /b\n    decode: [x]\n  - path: /c\n    dcode: y\n";
        let told: Vec<_> = faults(text)
            .iter()
            .map(|fault| {
                let place = fault.place.unwrap();
                (
                    place.line,
                    place.column,
                    fault.message.clone(),
                    fault.hint.clone(),
                )
            })
            .collect();
        assert_eq!(told.len(), 5, "{told:#?}");
        assert_eq!((told[0].0, told[0].1), (1, 10));
        assert_eq!((told[1].0, told[1].1), (2, 7));
        assert_eq!(
            told[2],
            (
                4,
                5,
                "unknown field `pth`".into(),
                "did you mean `path`?".into()
            )
        );
        assert_eq!((told[3].0, told[3].1), (6, 13));
        assert_eq!(
            told[4],
            (
                8,
                5,
                "unknown field `dcode`".into(),
                "did you mean `decode`?".into()
            )
        );
    }

    #[test]
    fn broken_yaml_is_told_with_its_line() {
        let fault = &faults("workers: 1\nsources: [\n")[0];
        assert!(fault.message.starts_with("not valid YAML"), "{fault}");
        assert!(fault.place.unwrap().line >= 2, "{fault}");
    }

    #[test]
    fn an_item_that_lacks_what_it_needs_hides_no_other_fault() {
        let text = "sources:\n  file:\n    - decode: syslog\n    - path: ''\n    - pth: /c\n      path: /c\n    - {}\nworkers: x\n";
        let Err(ConfigError::Faults(Faults(faults))) = parse::<agent::Config>("agent.yaml", text)
        else {
            panic!("no faults");
        };
        let told: Vec<_> = faults
            .iter()
            .map(|fault| (fault.place.unwrap().line, fault.message.as_str()))
            .collect();
        let mut lines: Vec<_> = told.iter().map(|(line, _)| *line).collect();
        lines.sort_unstable();
        assert_eq!(lines, [3, 4, 5, 7, 8], "{told:#?}");
    }

    #[test]
    fn an_empty_file_is_the_default() {
        for text in ["", "# nothing\n", "---\n"] {
            assert_eq!(parse::<Settings>("f", text).unwrap(), Settings::default());
        }
    }

    #[test]
    fn a_file_that_is_no_mapping_is_told() {
        assert_eq!(faults("- 1\n- 2\n").len(), 1);
    }

    const AGENT: &str = include_str!("../deploy/agent.yaml");
    const CENTRE: &str = include_str!("../deploy/centre.yaml");

    #[test]
    fn the_files_in_deploy_hold_the_defaults() {
        let agent: agent::Config = parse("agent.yaml", AGENT).unwrap();
        assert_eq!(agent, agent::Config::default());
        let centre: centre::Config = parse("centre.yaml", CENTRE).unwrap();
        assert_eq!(centre, centre::Config::default());
    }

    #[test]
    fn the_commented_examples_of_deploy_are_valid() {
        let text: String = AGENT
            .lines()
            .map(|line| match line.strip_prefix("  #  ") {
                Some(example) => format!("    {example}\n"),
                None => format!("{}\n", line.strip_suffix(" []").unwrap_or(line)),
            })
            .collect();
        let config: agent::Config = parse("agent.yaml", &text).unwrap();
        let sources = config.sources;
        assert_eq!(
            (
                sources.file.len(),
                sources.capture.len(),
                sources.pcap.len()
            ),
            (2, 1, 1)
        );
    }

    /// A wrong key is answered with the keys that are known: those are what the files must list.
    #[test]
    fn the_files_in_deploy_hold_every_key() {
        fn known<T: DeserializeOwned + Default + fmt::Debug>(within: &str) -> Vec<String> {
            let text = match within {
                "" => "zz: 1\n".to_owned(),
                name => format!("{name}: {{ zz: 1 }}\n"),
            };
            let told = parse::<T>("f", &text).unwrap_err().to_string();
            let (_, expected) = told.split_once("expected ").unwrap();
            expected
                .split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect()
        }
        let agent: Value = serde_yaml::from_str(AGENT).unwrap();
        let centre: Value = serde_yaml::from_str(CENTRE).unwrap();
        for within in ["", "sources", "fold", "spool", "centre"] {
            let there = if within.is_empty() {
                &agent
            } else {
                &agent[within]
            };
            for key in known::<agent::Config>(within) {
                assert!(there.get(&key).is_some(), "agent.yaml: {within}.{key}");
            }
        }
        for key in known::<centre::Config>("") {
            assert!(centre.get(&key).is_some(), "centre.yaml: {key}");
        }
    }

    #[test]
    fn a_value_that_a_setting_refuses_is_told_with_its_place() {
        let told = |error: ConfigError| match error {
            ConfigError::Faults(Faults(faults)) => faults
                .iter()
                .map(|fault| (fault.place.unwrap().line, fault.message.clone()))
                .collect::<Vec<_>>(),
            other => panic!("{other}"),
        };
        let agent = "spool:\n  bytes_max: 4096\nfold:\n  budget: 0\n  window: 48h\nworkers: 65\nsources:\n  file:\n    - path: '/var/[log'\n";
        let faults = told(parse::<agent::Config>("agent.yaml", agent).unwrap_err());
        let lines: Vec<_> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 4, 5, 6, 9], "{faults:?}");
        assert!(faults[0].1.contains("expected at least 1048576"));
        let centre = "agent_connections: 0\nbatch_memory_bytes: 1\ndatabase_bytes_max: 0\n";
        let faults = told(parse::<centre::Config>("centre.yaml", centre).unwrap_err());
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
