//! Agents: enrolled, heard, revoked.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;

use crate::centre::store::received::{self, Losses};
use crate::centre::store::{Store, StoreError, Write, micros, timestamp};

/// Whether an agent may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Active,
    Quarantined,
    Revoked,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Active, Self::Quarantined, Self::Revoked];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
        }
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or(StoreError::Row {
                what: "an agent's state",
            })
    }
}

/// What every request is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub agency: String,
    pub host: String,
    pub state: State,
}

/// An agent, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    pub id: String,
    pub standing: Standing,
    pub enrolled: Timestamp,
    pub last_heard: Option<Timestamp>,
    pub version: Option<String>,
    /// What its last heartbeat said does not work as it should.
    pub degraded: Vec<String>,
    pub unexplained: i64,
    pub stated: i64,
}

/// A host that asks to be enrolled.
#[derive(Debug, Clone)]
pub struct Enrol {
    pub token: [u8; 32],
    pub peer: IpAddr,
    /// The id that it gets if it is new.
    pub agent: String,
    pub host: String,
    pub machine: String,
    /// Names its public key.
    pub key: String,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolled {
    New {
        agency: String,
    },
    /// The same key enrolled before with this token: no use is spent.
    Known {
        agent: String,
        agency: String,
    },
    Refused(Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    UnknownToken,
    Expired,
    UsedUp,
    Network,
    Revoked,
}

impl Write for Enrol {
    type Out = Enrolled;

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<Enrolled, sqlx::Error> {
        let token: Option<(String, i64, String)> =
            sqlx::query_as("SELECT agency, expires, networks FROM tokens WHERE hash = ?")
                .bind(&self.token[..])
                .fetch_optional(&mut *db)
                .await?;
        let Some((agency, expires, networks)) = token else {
            return Ok(Enrolled::Refused(Refusal::UnknownToken));
        };
        if expires <= micros(self.now) {
            return Ok(Enrolled::Refused(Refusal::Expired));
        }
        if !allows(&networks, self.peer) {
            return Ok(Enrolled::Refused(Refusal::Network));
        }
        let known: Option<(String, String)> =
            sqlx::query_as("SELECT id, state FROM agents WHERE key = ? AND token = ?")
                .bind(&self.key)
                .bind(&self.token[..])
                .fetch_optional(&mut *db)
                .await?;
        if let Some((agent, state)) = known {
            return Ok(if state == State::Active.as_str() {
                Enrolled::Known { agent, agency }
            } else {
                Enrolled::Refused(Refusal::Revoked)
            });
        }
        let spent = sqlx::query(
            "UPDATE tokens SET uses_left = uses_left - 1 WHERE hash = ? AND uses_left > 0",
        )
        .bind(&self.token[..])
        .execute(&mut *db)
        .await?;
        if spent.rows_affected() == 0 {
            return Ok(Enrolled::Refused(Refusal::UsedUp));
        }
        sqlx::query(
            "INSERT INTO agents (id, agency, host, machine, key, token, state, enrolled)
             VALUES (?, ?, ?, ?, ?, ?, 'active', ?)",
        )
        .bind(&self.agent)
        .bind(&agency)
        .bind(&self.host)
        .bind(&self.machine)
        .bind(&self.key)
        .bind(&self.token[..])
        .bind(micros(self.now))
        .execute(&mut *db)
        .await?;
        changed(db).await?;
        Ok(Enrolled::New { agency })
    }
}

/// An empty list allows every address; a list that can't be read none.
fn allows(networks: &str, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    serde_json::from_str::<Vec<String>>(networks).is_ok_and(|networks| {
        networks.is_empty()
            || networks
                .iter()
                .filter_map(|network| network.parse::<IpNet>().ok())
                .any(|network| network.contains(&peer))
    })
}

async fn changed(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE versions SET number = number + 1 WHERE name = 'agents'")
        .execute(db)
        .await?;
    Ok(())
}

/// What a heartbeat said.
#[derive(Debug, Clone)]
pub struct Beat {
    pub agent: String,
    pub received: Timestamp,
    pub clock: Timestamp,
    pub version: String,
    /// The whole, as JSON.
    pub payload: String,
    pub epoch: u64,
    pub unexplained: u64,
    pub stated: u64,
}

impl Write for Beat {
    type Out = ();

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let now = micros(self.received);
        sqlx::query(
            "INSERT INTO heartbeats (agent, received, clock, version, payload) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (agent) DO UPDATE SET received = excluded.received, clock = excluded.clock,
             version = excluded.version, payload = excluded.payload",
        )
        .bind(&self.agent)
        .bind(now)
        .bind(micros(self.clock))
        .bind(&self.version)
        .bind(&self.payload)
        .execute(&mut *db)
        .await?;
        let losses = Losses {
            unexplained: self.unexplained,
            stated: self.stated,
        };
        received::note_losses(db, &self.agent, self.epoch, &losses, now).await
    }
}

struct SetState {
    agent: String,
    state: State,
}

impl Write for SetState {
    type Out = bool;

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
        let done = sqlx::query("UPDATE agents SET state = ? WHERE id = ?")
            .bind(self.state.as_str())
            .bind(&self.agent)
            .execute(&mut *db)
            .await?;
        changed(db).await?;
        Ok(done.rows_affected() == 1)
    }
}

/// id, agency, host, state, enrolled, heard, version, degraded, unexplained, stated
type Listed = (
    String,
    String,
    String,
    String,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
    f64,
    f64,
);

impl Store {
    /// # Errors
    /// When it could not be committed; then no use of the token is spent.
    pub async fn enrol(&self, enrol: Enrol) -> Result<Enrolled, StoreError> {
        self.write(enrol).await
    }

    /// # Errors
    /// When it could not be committed.
    pub async fn heartbeat(&self, beat: Beat) -> Result<(), StoreError> {
        self.write(beat).await
    }

    /// Returns whether there is such an agent.
    ///
    /// # Errors
    /// When it could not be committed.
    pub async fn set_agent_state(&self, agent: &str, state: State) -> Result<bool, StoreError> {
        self.write(SetState {
            agent: agent.to_owned(),
            state,
        })
        .await
    }

    /// Returns a number that rises whenever the table of agents changes.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn agents_version(&self) -> Result<i64, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT number FROM versions WHERE name = 'agents'")
                .fetch_one(&self.readers)
                .await?,
        )
    }

    /// Returns every agent's standing, by id.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn standings(&self) -> Result<Vec<(String, Standing)>, StoreError> {
        let rows: Vec<(String, String, String, String)> =
            sqlx::query_as("SELECT id, agency, host, state FROM agents")
                .fetch_all(&self.readers)
                .await?;
        rows.into_iter()
            .map(|(id, agency, host, state)| {
                let state = State::read(&state)?;
                Ok((
                    id,
                    Standing {
                        agency,
                        host,
                        state,
                    },
                ))
            })
            .collect()
    }

    /// Returns agents of an agency and all below it (empty: of all) by id, those above `after`.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn agents(
        &self,
        scope: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Agent>, StoreError> {
        let rows: Vec<Listed> = sqlx::query_as(
            "SELECT a.id, a.agency, a.host, a.state, a.enrolled, h.received, h.version,
             json_extract(h.payload, '$.degraded'),
             (SELECT TOTAL(unexplained) FROM epochs e WHERE e.agent = a.id),
             (SELECT TOTAL(stated) FROM epochs e WHERE e.agent = a.id)
             FROM agents a LEFT JOIN heartbeats h ON h.agent = a.id
             WHERE a.id > ?1 AND (?2 = '' OR a.agency = ?2 OR (a.agency >= ?2 || '/' AND a.agency < ?2 || '0'))
             ORDER BY a.id LIMIT ?3",
        )
        .bind(after.unwrap_or_default())
        .bind(scope)
        .bind(super::clamp(limit as u64))
        .fetch_all(&self.readers)
        .await?;
        rows.into_iter().map(agent).collect()
    }

    /// Returns how many active agents were heard since `since`, and how many were not.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn heard_since(&self, since: Timestamp) -> Result<(i64, i64), StoreError> {
        Ok(sqlx::query_as(
            "SELECT COUNT(CASE WHEN h.received >= ?1 THEN 1 END),
             COUNT(CASE WHEN h.received >= ?1 THEN NULL ELSE 1 END)
             FROM agents a LEFT JOIN heartbeats h ON h.agent = a.id WHERE a.state = 'active'",
        )
        .bind(since.as_microsecond())
        .fetch_one(&self.readers)
        .await?)
    }

    /// Returns what an agent's last heartbeat said, as JSON.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn last_heartbeat(&self, agent: &str) -> Result<Option<String>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT payload FROM heartbeats WHERE agent = ?")
                .bind(agent)
                .fetch_optional(&self.readers)
                .await?,
        )
    }
}

fn agent(row: Listed) -> Result<Agent, StoreError> {
    let (id, agency, host, state, enrolled, heard, version, degraded, unexplained, stated) = row;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "`as` saturates, which is meant"
    )]
    Ok(Agent {
        id,
        standing: Standing {
            agency,
            host,
            state: State::read(&state)?,
        },
        enrolled: timestamp(enrolled)?,
        last_heard: heard.map(timestamp).transpose()?,
        version,
        // Absent when nothing is degraded, and in a beat of a version that said less.
        degraded: degraded
            .and_then(|list| serde_json::from_str(&list).ok())
            .unwrap_or_default(),
        unexplained: unexplained as i64,
        stated: stated as i64,
    })
}
