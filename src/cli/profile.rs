//! How a command reaches a centre: `--profile`, else $CANHGAC_PROFILE, else ~/.config/canhgac/profile.yaml.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use anyhow::Context as _;
use serde::Deserialize;
use thiserror::Error;

use crate::deliver::forward::{Address, Bearer, Client, Dialer};

/// Which centre, shared by all commands that ask one.
#[derive(Debug, Clone, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Centre to ask: its URL, CA and a token [default: $CANHGAC_PROFILE, then ~/.config/canhgac/profile.yaml]
    #[arg(long, value_name = "FILE", global = true, display_order = 900)]
    pub profile: Option<PathBuf>,
}

/// A fault of usage or configuration: exit status 2.
#[derive(Debug, Error)]
pub enum ProfileError {
    #[error(
        "no profile of a centre: name one with --profile FILE or $CANHGAC_PROFILE; {} does not exist. \
         `canhgac up` and `canhgac centre` write one to their data folder as profile.yaml", .default.display()
    )]
    None { default: PathBuf },
    #[error("no profile of a centre: neither --profile, $CANHGAC_PROFILE nor $HOME is set")]
    NoHome,
    #[error("cannot read the profile {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the profile {} is wrong: expected `url`, `ca` (PEM) and `token`", .path.display())]
    Parse {
        path: PathBuf,
        source: serde_yaml::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    url: String,
    /// PEM.
    ca: String,
    token: String,
}

impl Args {
    /// Returns a client for the centre that is meant.
    ///
    /// # Errors
    /// There is no profile, or it can't be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        let path = self.path()?;
        let text = fs::read_to_string(&path).map_err(|source| ProfileError::Read {
            path: path.clone(),
            source,
        })?;
        let profile: Profile =
            serde_yaml::from_str(&text).map_err(|source| ProfileError::Parse {
                path: path.clone(),
                source,
            })?;
        let client = || {
            let url: Address = profile.url.parse()?;
            let bearer = Bearer::new(&profile.token)?;
            let dialer = Dialer {
                proxy: None,
                no_proxy: Vec::new(),
            };
            anyhow::Ok(Client::new(url, &profile.ca, Some(bearer), dialer)?)
        };
        client().with_context(|| format!("cannot use the profile {}", path.display()))
    }

    fn path(&self) -> Result<PathBuf, ProfileError> {
        let named = env::var_os("CANHGAC_PROFILE").filter(|path| !path.is_empty());
        choose(
            self.profile.as_deref(),
            named.map(PathBuf::from),
            default_path(),
        )
    }
}

/// Returns where the profile of this user is by default.
pub fn default_path() -> Option<PathBuf> {
    let home = env::var_os("HOME").filter(|home| !home.is_empty())?;
    Some(Path::new(&home).join(".config/canhgac/profile.yaml"))
}

fn choose(
    asked: Option<&Path>,
    named: Option<PathBuf>,
    default: Option<PathBuf>,
) -> Result<PathBuf, ProfileError> {
    if let Some(path) = asked.map(Path::to_owned).or(named) {
        return Ok(path);
    }
    match default {
        Some(default) if default.exists() => Ok(default),
        Some(default) => Err(ProfileError::None { default }),
        None => Err(ProfileError::NoHome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_asked_for_comes_first_and_a_missing_one_is_explained() {
        let there = tempfile::NamedTempFile::new().unwrap();
        let there = there.path();
        let path = |text: &str| Some(PathBuf::from(text));
        for (asked, named, default, chosen) in [
            (path("/a"), path("/b"), path("/c"), Some("/a")),
            (None, path("/b"), path("/c"), Some("/b")),
            (None, None, Some(there.to_owned()), there.to_str()),
            (None, None, path("/nowhere/c"), None),
            (None, None, None, None),
        ] {
            match choose(asked.as_deref(), named, default) {
                Ok(path) => assert_eq!(path.to_str(), chosen),
                Err(error) => {
                    assert_eq!(chosen, None);
                    assert!(error.to_string().contains("--profile"), "{error}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_profile_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profile.yaml");
        for (text, words) in [
            ("url: https://a:1\nca: x\n", "token"),
            ("urll: https://a:1\n", "urll"),
            ("url: http://a:1\nca: x\ntoken: t\n", "https://host:port"),
            ("url: https://a:1\nca: x\ntoken: t\n", "authority"),
        ] {
            fs::write(&path, text).unwrap();
            let args = Args {
                profile: Some(path.clone()),
            };
            let error = format!("{:#}", args.client().unwrap_err());
            assert!(error.contains("profile.yaml"), "{error}");
            assert!(error.contains(words), "{error}");
        }
    }
}
