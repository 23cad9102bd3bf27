//! Tokens for enrolment, and people's and tools' tokens for the query API. Secrets come here hashed.

use ipnet::IpNet;
use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;

use crate::centre::store::{Store, StoreError, Write, clamp, micros};

/// A token that enrols agents into one agency.
#[derive(Debug, Clone)]
pub struct EnrolmentToken {
    pub hash: [u8; 32],
    pub agency: String,
    pub uses: u32,
    pub expires: Timestamp,
    /// Empty: from anywhere.
    pub from: Vec<IpNet>,
    pub created: Timestamp,
}

/// What the holder of an API token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Reader,
    Administrator,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Administrator => "administrator",
        }
    }
}

#[derive(Debug, Clone)]
pub struct ApiToken {
    pub hash: [u8; 32],
    pub name: String,
    pub role: Role,
    pub created: Timestamp,
}

/// A week.
const EXPIRED_KEPT_MICROS: i64 = 7 * 24 * 3600 * 1_000_000;

impl Write for EnrolmentToken {
    type Out = ();

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let networks: Vec<String> = self.from.iter().map(IpNet::to_string).collect();
        // Kept a while, so that its holder is told that it expired; agents keep the hash of theirs.
        sqlx::query("DELETE FROM tokens WHERE expires <= ?")
            .bind(micros(self.created).saturating_sub(EXPIRED_KEPT_MICROS))
            .execute(&mut *db)
            .await?;
        sqlx::query(
            "INSERT INTO tokens (hash, agency, uses_left, expires, networks, created)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(&self.hash[..])
        .bind(&self.agency)
        .bind(clamp(u64::from(self.uses)))
        .bind(micros(self.expires))
        .bind(serde_json::Value::from(networks).to_string())
        .bind(micros(self.created))
        .execute(db)
        .await?;
        Ok(())
    }
}

impl Write for ApiToken {
    type Out = ();

    async fn apply(&mut self, db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO api_tokens (hash, name, role, created) VALUES (?, ?, ?, ?)
             ON CONFLICT (hash) DO UPDATE SET name = excluded.name, role = excluded.role",
        )
        .bind(&self.hash[..])
        .bind(&self.name)
        .bind(self.role.as_str())
        .bind(micros(self.created))
        .execute(db)
        .await?;
        Ok(())
    }
}

impl Store {
    /// # Errors
    /// When it could not be committed.
    pub async fn add_enrolment_token(&self, token: EnrolmentToken) -> Result<(), StoreError> {
        self.write(token).await
    }

    /// Stores an API token, or gives the known one this name and role.
    ///
    /// # Errors
    /// When it could not be committed.
    pub async fn put_api_token(&self, token: ApiToken) -> Result<(), StoreError> {
        self.write(token).await
    }

    /// Returns the role of an API token. Looked up by its hash, so that the time taken says nothing of the secret.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn role(&self, hash: &[u8; 32]) -> Result<Option<Role>, StoreError> {
        let role: Option<String> = sqlx::query_scalar("SELECT role FROM api_tokens WHERE hash = ?")
            .bind(&hash[..])
            .fetch_optional(&self.readers)
            .await?;
        role.map(|text| {
            [Role::Reader, Role::Administrator]
                .into_iter()
                .find(|role| role.as_str() == text)
                .ok_or(StoreError::Row { what: "a role" })
        })
        .transpose()
    }
}
