//! The first administrator's profile: made with the centre, so that its commands work on this machine at once.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use jiff::Timestamp;
use thiserror::Error;

use crate::centre::auth::Auth;
use crate::centre::store::StoreError;
use crate::centre::store::tokens::{Holder, Role};

#[derive(Debug, Error)]
pub enum ProfileError {
    #[error("cannot read or write {path}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the administrator's token could not be stored")]
    Store(#[from] StoreError),
}

const FILE: &str = "profile.yaml";
const NAME: &str = "profile.yaml of the data folder";
const TOKEN_KEY: &str = "token: ";

/// Returns the address of the query API as seen from this machine.
pub fn url(listen: SocketAddr) -> String {
    let host = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("https://{}", SocketAddr::new(host, listen.port()))
}

/// Writes the profile if it is missing or says something else; its token, once made, stays.
pub async fn ensure(
    data: &Path,
    url: &str,
    ca: &str,
    auth: &Auth,
    now: Timestamp,
) -> Result<PathBuf, ProfileError> {
    let path = data.join(FILE);
    let failed = |source| ProfileError::File {
        path: path.clone(),
        source,
    };
    let present = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let kept = present.as_deref().and_then(token);
    let token = match kept {
        // Also into a database that was restored from before it.
        Some(token) => {
            auth.keep_api_token(token, administrator(), now).await?;
            token.to_owned()
        }
        None => auth.create_api_token(administrator(), now).await?,
    };
    let text = text(url, ca, &token);
    if present.as_deref() != Some(text.as_str()) {
        write(&path, &text).map_err(failed)?;
    }
    Ok(path)
}

/// The three values have no character that YAML would take for more than itself.
fn text(url: &str, ca: &str, token: &str) -> String {
    let mut text = format!(
        "# How commands reach this centre. Whoever can read this file is its administrator.\nurl: {url}\nca: |\n"
    );
    for line in ca.lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(TOKEN_KEY);
    text.push_str(token);
    text.push('\n');
    text
}

fn token(text: &str) -> Option<&str> {
    let token = text.lines().find_map(|line| line.strip_prefix(TOKEN_KEY))?;
    let token = token.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (token.len() >= 32 && token.bytes().all(plain)).then_some(token)
}

/// Whole or not at all, and never readable by others.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("yaml.part");
    let _ = fs::remove_file(&part);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}

fn administrator() -> Holder {
    Holder {
        name: NAME.to_owned(),
        role: Role::Administrator,
        scope: String::new(),
        expires: None,
    }
}
