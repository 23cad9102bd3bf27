//! The centre's memory: one SQLite file behind one writer and several readers. Only this module and its
//! children know the SQL. Does not know the wire, and judges nobody.

pub mod agents;
pub mod alerts;
pub mod counts;
pub mod packing;
pub mod received;
pub mod search;
pub mod tokens;
mod upkeep;
mod words;
pub mod work;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use thiserror::Error;
use tracing::info;

use self::packing::Packing;
use self::writer::{Write, Writer};

#[derive(Debug, Error)]
pub enum StoreError {
    #[error("cannot open the database {path}")]
    Open { path: PathBuf, source: sqlx::Error },
    #[error(
        "the database {path} cannot be brought to this version; was it written by a newer canhgac?"
    )]
    Migrate {
        path: PathBuf,
        source: sqlx::migrate::MigrateError,
    },
    #[error("the database refused to write")]
    Write(#[source] Arc<sqlx::Error>),
    #[error("the database could not be read")]
    Read(#[from] sqlx::Error),
    #[error("a stored row does not read as what it should be: {what}")]
    Row { what: &'static str },
    #[error("the store is closed")]
    Closed,
}

/// How the database is opened.
#[derive(Debug, Clone)]
pub struct Options {
    pub path: PathBuf,
    /// How long to wait for another process that writes.
    pub busy_timeout: Duration,
    /// Beyond it nothing is stored; agents keep what they have.
    pub bytes_max: u64,
}

impl Options {
    pub fn new(path: PathBuf, bytes_max: u64) -> Self {
        Self {
            path,
            bytes_max,
            // 5 s: a backup or a checkpoint of another process lasts less.
            busy_timeout: Duration::from_secs(5),
        }
    }
}

/// Readers beside the one writer; WAL lets them go on while it commits.
const READERS: u32 = 4;
/// Where a WAL that grew is cut back to after a checkpoint.
const WAL_BYTES_KEPT: &str = "67108864";
/// A page of 4 KiB each: a checkpoint every 16 MiB.
const CHECKPOINT_PAGES: &str = "4000";

/// SQLite's default, and the most pages that it can have (sqlite.org/limits.html).
const PAGE_BYTES: u64 = 4096;
const PAGES_MAX: u64 = 4_294_967_294;

/// Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    readers: SqlitePool,
    writer: Writer,
    path: Arc<Path>,
    packing: Packing,
}

impl Store {
    /// Opens or makes the database and brings it to this version.
    ///
    /// # Errors
    /// When the file can't be opened or written, or was written by a newer version.
    pub async fn open(options: &Options) -> Result<Self, StoreError> {
        let path = options.path.clone();
        let failed = |source| StoreError::Open {
            path: path.clone(),
            source,
        };
        let pages_max = (options.bytes_max / PAGE_BYTES).clamp(1, PAGES_MAX);
        let base = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(true)
            .busy_timeout(options.busy_timeout);
        let base = base.disable_statement_logging();
        let write = base
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("journal_size_limit", WAL_BYTES_KEPT)
            .pragma("max_page_count", pages_max.to_string());
        make_private(&path).map_err(|error| failed(sqlx::Error::Io(error)))?;
        let mut db = write.connect().await.map_err(failed)?;
        sqlx::migrate!("src/centre/store/migrations/sqlite")
            .run(&mut db)
            .await
            .map_err(|source| StoreError::Migrate {
                path: path.clone(),
                source,
            })?;
        let taken = upkeep::take_over(&mut db).await.map_err(failed)?;
        if taken > 0 {
            info!(
                alerts = taken,
                "alerts of an earlier version were taken over"
            );
        }
        let packing = Packing::default();
        let dictionaries: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT number, bytes FROM dictionaries")
                .fetch_all(&mut db)
                .await
                .map_err(failed)?;
        for (number, bytes) in &dictionaries {
            packing.add(*number, bytes);
        }
        let writer = Writer::start(write, db);
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(base.read_only(true))
            .await
            .map_err(failed)?;
        Ok(Self {
            readers,
            writer,
            path: path.into(),
            packing,
        })
    }

    /// What payloads are packed with.
    pub fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Finishes what is queued, then closes.
    pub async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
    }

    /// Returns why nothing can be written now, if so.
    pub fn fault(&self) -> Option<String> {
        self.writer.fault()
    }

    /// Returns the bytes of the database and its WAL.
    pub async fn bytes(&self) -> u64 {
        let mut sum = 0;
        for suffix in ["", "-wal"] {
            let mut name = self.path.as_os_str().to_owned();
            name.push(suffix);
            sum += tokio::fs::metadata(PathBuf::from(name))
                .await
                .map_or(0, |file| file.len());
        }
        sum
    }

    async fn write<W: Write>(&self, write: W) -> Result<W::Out, StoreError> {
        self.writer.write(write).await
    }
}

/// SQLite would make the file readable by all; its WAL takes the mode of the file.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop)
}

/// Microseconds: what a column holds.
fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

fn timestamp(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| StoreError::Row { what: "a time" })
}

/// Counts and numbers come from afar as u64; the databases know i64.
fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
