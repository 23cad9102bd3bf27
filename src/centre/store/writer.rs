//! The one that writes: takes what waits, commits it together, then answers. Nobody is answered before COMMIT.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{error, info};

use crate::centre::store::StoreError;

/// One thing to write, whole or not at all.
pub trait Write: Send + 'static {
    type Out: Send + 'static;

    fn apply(
        &mut self,
        db: &mut SqliteConnection,
    ) -> impl Future<Output = Result<Self::Out, sqlx::Error>> + Send;

    /// How many rows it is, about.
    fn weight(&self) -> usize {
        1
    }
}

/// Things that wait for the writer; with batches of 1,000 alerts of 1.5 KB that is 96 MB at the very most, and the
/// budget of ingest binds earlier.
const QUEUE: usize = 64;
/// Rows of one commit: at 25 µs a row a tenth of a second.
const COMMIT_ROWS: usize = 4000;
/// While nothing can be written, how often it is tried without being asked.
const PROBE_EVERY: Duration = Duration::from_secs(5);

type Sender = mpsc::Sender<Box<dyn Task>>;

#[derive(Clone)]
pub struct Writer {
    /// Gone once it is closed.
    tasks: Arc<Mutex<Option<Sender>>>,
    joined: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
    fault: Arc<Mutex<Option<String>>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer(..)")
    }
}

impl Writer {
    pub fn start(options: SqliteConnectOptions, db: SqliteConnection) -> Self {
        let (sender, tasks) = mpsc::channel(QUEUE);
        let fault = Arc::new(Mutex::new(None));
        let owner = Owner {
            options,
            db: Some(db),
            fault: fault.clone(),
        };
        Self {
            tasks: Arc::new(Mutex::new(Some(sender))),
            joined: Arc::new(tokio::sync::Mutex::new(Some(tokio::spawn(
                owner.run(tasks),
            )))),
            fault,
        }
    }

    pub async fn write<W: Write>(&self, write: W) -> Result<W::Out, StoreError> {
        let sender = lock(&self.tasks).clone().ok_or(StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            write,
            out: None,
            reply,
        };
        sender
            .send(Box::new(pending))
            .await
            .map_err(|_| StoreError::Closed)?;
        drop(sender); // a waiting caller must not keep the writer from closing
        answer.await.map_err(|_| StoreError::Closed)?
    }

    pub fn fault(&self) -> Option<String> {
        lock(&self.fault).clone()
    }

    pub async fn close(&self) {
        drop(lock(&self.tasks).take());
        let mut joined = self.joined.lock().await;
        if let Some(task) = joined.take()
            && let Err(error) = task.await
        {
            error!(%error, "the writer of the store failed");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Failure = Arc<sqlx::Error>;

/// A `Write` whose result type the writer need not know.
trait Task: Send {
    fn run<'a>(&'a mut self, db: &'a mut SqliteConnection) -> Boxed<'a, Result<(), Failure>>;
    fn settle(self: Box<Self>, commit: Result<(), Failure>);
    fn weight(&self) -> usize;
}

struct Pending<W: Write> {
    write: W,
    out: Option<Result<W::Out, Failure>>,
    reply: oneshot::Sender<Result<W::Out, StoreError>>,
}

impl<W: Write> Task for Pending<W> {
    fn run<'a>(&'a mut self, db: &'a mut SqliteConnection) -> Boxed<'a, Result<(), Failure>> {
        Box::pin(async move {
            match self.write.apply(db).await {
                Ok(out) => {
                    self.out = Some(Ok(out));
                    Ok(())
                }
                Err(error) => {
                    let error = Arc::new(error);
                    self.out = Some(Err(error.clone()));
                    Err(error)
                }
            }
        })
    }

    fn settle(self: Box<Self>, commit: Result<(), Failure>) {
        let answer = match (commit, self.out) {
            (Err(error), _) | (Ok(()), Some(Err(error))) => Err(StoreError::Write(error)),
            (Ok(()), Some(Ok(out))) => Ok(out),
            (Ok(()), None) => Err(StoreError::Closed),
        };
        // Who asked may have gone away; what was committed stays.
        let _ = self.reply.send(answer);
    }

    fn weight(&self) -> usize {
        self.write.weight()
    }
}

struct Owner {
    options: SqliteConnectOptions,
    db: Option<SqliteConnection>,
    fault: Arc<Mutex<Option<String>>>,
}

impl Owner {
    async fn run(mut self, mut tasks: mpsc::Receiver<Box<dyn Task>>) {
        let mut group: Vec<Box<dyn Task>> = Vec::new();
        loop {
            let faulty = lock(&self.fault).is_some();
            let first = tokio::select! {
                task = tasks.recv() => task,
                () = tokio::time::sleep(PROBE_EVERY), if faulty => {
                    let tried = self.commit(&mut []).await;
                    self.note(tried.as_ref().err());
                    if tried.is_err() {
                        self.db = None;
                    }
                    continue;
                }
            };
            let Some(first) = first else { break };
            let mut rows = first.weight();
            group.push(first);
            while rows < COMMIT_ROWS
                && let Ok(next) = tasks.try_recv()
            {
                rows += next.weight();
                group.push(next);
            }
            let committed = self.commit(&mut group).await;
            if committed.is_err() {
                self.db = None;
            }
            let (commit, own) = match committed {
                Ok(own) => (Ok(()), own),
                Err(error) => (Err(error.clone()), Some(error)),
            };
            self.note(own.as_ref());
            for task in group.drain(..) {
                task.settle(commit.clone());
            }
        }
        if let Some(db) = self.db.take()
            && let Err(error) = db.close().await
        {
            error!(%error, "cannot close the database");
        }
    }

    /// Commits all tasks that succeed; returns the failure of the last that did not, if any.
    async fn commit(&mut self, group: &mut [Box<dyn Task>]) -> Result<Option<Failure>, Failure> {
        let mut failure = None;
        let db = match self.db.take() {
            Some(db) => db,
            None => self.options.connect().await?,
        };
        let db = self.db.insert(db);
        sql(db, "BEGIN IMMEDIATE").await?;
        // An empty group is a probe: it must write, or a full disk would go unseen.
        sql(
            db,
            "UPDATE versions SET number = number WHERE name = 'agents'",
        )
        .await?;
        for task in group {
            sql(db, "SAVEPOINT task").await?;
            match task.run(db).await {
                Ok(()) => sql(db, "RELEASE task").await?,
                Err(error) => {
                    // SQLite ends the whole transaction on some faults (a full disk): then there is no savepoint any
                    // more, and the group fails with the fault that ended it.
                    if sql(db, "ROLLBACK TO task").await.is_err() {
                        return Err(error);
                    }
                    sql(db, "RELEASE task").await?;
                    failure = Some(error);
                }
            }
        }
        sql(db, "COMMIT").await?;
        Ok(failure)
    }

    fn note(&self, failure: Option<&Failure>) {
        let mut fault = lock(&self.fault);
        match failure {
            Some(failure) => {
                let text = failure.to_string();
                if fault.as_ref() != Some(&text) {
                    error!(error = %text, "the database refused to write");
                }
                *fault = Some(text);
            }
            None => {
                if fault.take().is_some() {
                    info!("the database writes again");
                }
            }
        }
    }
}

async fn sql(db: &mut SqliteConnection, text: &'static str) -> Result<(), Failure> {
    sqlx::query(text).execute(db).await?;
    Ok(())
}
