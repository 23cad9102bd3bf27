//! How delivery stands, for `doctor` and the heartbeat: in memory, and as `status.json` in the state folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// What is known of delivery. Absent where nothing is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// When the centre last answered with a 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Timestamp>,
    /// Why the centre wants nothing of this agent. A person must act.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What went wrong last; it is tried again. Absent after a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Where alerts are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// When the agent's certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_ends: Option<Timestamp>,
    /// What the centre last said of the time; kept for a machine whose clock starts at 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Timestamp>,
}

/// Shared by the forwarder, which writes, and all who ask.
#[derive(Debug, Clone, Default)]
pub struct Status(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    path: Option<PathBuf>,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    at: Option<Instant>,
    state: State,
}

/// While nothing but times changes the file is written no more often: batches may go by the hundred.
const TIMES_WRITTEN_EVERY: Duration = Duration::from_secs(30);
/// Ours has less than 2 KiB.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Text of a peer is cut here before it is kept or shown.
const TEXT_CHARS_MAX: usize = 300;

impl State {
    /// Reads the file of an agent.
    ///
    /// # Errors
    /// It can't be read, or is no status.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut text = String::new();
        let file = fs::File::open(path)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Without what changes with every success.
    fn lasting(&self) -> Self {
        Self {
            last_success: None,
            told: None,
            ..self.clone()
        }
    }
}

impl Status {
    /// Goes on from the file, if there is one; what can't be read is left behind.
    pub fn open(path: PathBuf) -> Self {
        let state = State::read(&path).unwrap_or_default();
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            path: Some(path),
            written: Mutex::default(),
        }))
    }

    pub fn get(&self) -> State {
        lock(&self.0.state).clone()
    }

    /// Changes the state, and the file if that is due.
    pub(super) async fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.0.state));
        self.save(Due::WhenDue).await;
    }

    /// Writes the file as it stands now.
    pub(super) async fn flush(&self) {
        self.save(Due::Now).await;
    }

    async fn save(&self, due: Due) {
        let shared = Arc::clone(&self.0);
        // Only a panic of the closure can fail here, and it has none.
        let _ = tokio::task::spawn_blocking(move || shared.save(due)).await;
    }
}

#[derive(Clone, Copy)]
enum Due {
    Now,
    WhenDue,
}

impl Shared {
    fn save(&self, due: Due) {
        let Some(path) = &self.path else { return };
        let mut written = lock(&self.written);
        let state = lock(&self.state).clone();
        let is_fresh = written.at.is_some_and(|at| {
            at.elapsed() < TIMES_WRITTEN_EVERY
                && written.state.lasting() == state.lasting()
                && is_near(written.state.last_success, state.last_success)
        });
        if is_fresh && matches!(due, Due::WhenDue) || written.state == state {
            return;
        }
        if let Err(error) = write(path, &state) {
            warn!(path = %path.display(), %error, "cannot write status");
        }
        // Also after a failure: a full disk must not cost a try, and a line in the log, with each batch.
        *written = Written {
            at: Some(Instant::now()),
            state,
        };
    }
}

/// The first success after a start, or after a silence, is news.
fn is_near(written: Option<Timestamp>, now: Option<Timestamp>) -> bool {
    match (written, now) {
        (Some(written), Some(now)) => Duration::try_from(now.duration_since(written).abs())
            .is_ok_and(|apart| apart < TIMES_WRITTEN_EVERY),
        (one, other) => one == other,
    }
}

/// Whole or not at all, but not synced: after a power cut the file of a minute ago does as well.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(serde_json::to_string(state)?.as_bytes())?;
    fs::rename(&part, path)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns text of a peer fit for a log and a terminal: one line, no control characters, bounded.
pub(super) fn tame(text: &str) -> String {
    let hostile = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars()
        .take(TEXT_CHARS_MAX)
        .map(|c| if hostile(c) { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_follows_what_changes_and_survives_a_restart() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("status.json");
        let status = Status::open(path.clone());
        status
            .update(|state| state.refused = Some("revoked".to_owned()))
            .await;
        let revoked = State::read(&path).unwrap();
        assert_eq!(revoked.refused.as_deref(), Some("revoked"));
        // The first success is news; a later time alone waits for its turn, or for the end.
        let first = Timestamp::UNIX_EPOCH;
        status
            .update(|state| state.last_success = Some(first))
            .await;
        let heard = State::read(&path).unwrap();
        assert_eq!(heard.last_success, Some(first));
        status
            .update(|state| state.last_success = Some(first + Duration::from_secs(1)))
            .await;
        assert_eq!(State::read(&path).unwrap(), heard);
        status.flush().await;
        assert_eq!(State::read(&path).unwrap(), status.get());
        assert_eq!(Status::open(path).get(), status.get());
    }

    #[test]
    fn text_of_a_peer_is_tamed() {
        assert_eq!(
            tame("revoked\x1b[2J\n\u{202e}"),
            "revoked\u{fffd}[2J\u{fffd}\u{fffd}"
        );
        assert_eq!(tame(&"x".repeat(10_000)).len(), TEXT_CHARS_MAX);
    }

    #[test]
    fn a_damaged_file_is_left_behind() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("status.json");
        for text in ["", "{", "[]", r#"{"told":"tomorrow"}"#] {
            fs::write(&path, text).unwrap();
            assert_eq!(Status::open(path.clone()).get(), State::default(), "{text}");
        }
    }
}
