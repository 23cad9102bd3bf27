//! Tokens for enrolment, and people's and tools' tokens for the query API. Secrets come here hashed.

use ipnet::IpNet;
use jiff::Timestamp;
use sqlx::sqlite::SqliteConnection;

use crate::centre::store::{Store, StoreError, Write, clamp, micros, timestamp};

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

/// What the holder of an API token may do; each may also do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Reader,
    Analyst,
    Manager,
    Administrator,
}

impl Role {
    pub const ALL: [Self; 4] = [
        Self::Reader,
        Self::Analyst,
        Self::Manager,
        Self::Administrator,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Analyst => "analyst",
            Self::Manager => "manager",
            Self::Administrator => "administrator",
        }
    }

    /// Reads its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Who asks: a name for the log of acts, what they may do, and in which part of the tree of agencies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    pub role: Role,
    /// An agency and all below it; empty: all.
    pub scope: String,
    pub expires: Option<Timestamp>,
}

impl Holder {
    /// Tells whether an agency lies in the holder's part of the tree.
    pub fn sees(&self, agency: &str) -> bool {
        is_within(agency, &self.scope)
    }
}

/// Tells whether an agency is the other or below it; the empty one is above all.
pub fn is_within(agency: &str, above: &str) -> bool {
    above.is_empty()
        || agency
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[derive(Debug, Clone)]
pub struct ApiToken {
    pub hash: [u8; 32],
    pub holder: Holder,
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
            "INSERT INTO api_tokens (hash, name, role, scope, created, expires) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (hash) DO UPDATE SET name = excluded.name, role = excluded.role,
                 scope = excluded.scope, expires = excluded.expires",
        )
        .bind(&self.hash[..])
        .bind(&self.holder.name)
        .bind(self.holder.role.as_str())
        .bind(&self.holder.scope)
        .bind(micros(self.created))
        .bind(self.holder.expires.map(micros))
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

    /// Returns the holder of an API token. Looked up by its hash, so that the time taken says nothing of the secret.
    ///
    /// # Errors
    /// When the database can't be read.
    pub async fn holder(&self, hash: &[u8; 32]) -> Result<Option<Holder>, StoreError> {
        let row: Option<(String, String, String, Option<i64>)> =
            sqlx::query_as("SELECT name, role, scope, expires FROM api_tokens WHERE hash = ?")
                .bind(&hash[..])
                .fetch_optional(&self.readers)
                .await?;
        let Some((name, role, scope, expires)) = row else {
            return Ok(None);
        };
        Ok(Some(Holder {
            name,
            role: Role::named(&role).ok_or(StoreError::Row { what: "a role" })?,
            scope,
            expires: expires.map(timestamp).transpose()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_an_agency_and_all_below_it() {
        for (agency, above, is) in [
            ("hcm", "hcm", true),
            ("hcm/a", "hcm", true),
            ("hcm-2", "hcm", false),
            ("hcm", "hcm/a", false),
            ("hn", "", true),
        ] {
            assert_eq!(is_within(agency, above), is, "{agency} {above}");
        }
    }
}
