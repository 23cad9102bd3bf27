//! People and tools: who holds an API token, and how many wrong ones an address may show.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::centre::problem::Problem;
use crate::centre::store::tokens::{ApiToken, Holder, Role};
use crate::centre::store::{Store, StoreError};
use crate::metrics::CentreMetrics;

/// Judges the callers of the query API.
#[derive(Debug)]
pub struct Auth {
    store: Store,
    metrics: CentreMetrics,
    pub failures: Failures,
}

/// Marks an API token of ours, so that one that leaked is found by scanners.
const PREFIX: &str = "cga1_";
const SECRET_BYTES: usize = 32;
/// Longer ones are not ours and are not hashed.
const TOKEN_BYTES_MAX: usize = 128;

impl Auth {
    pub fn new(store: Store, metrics: CentreMetrics) -> Self {
        Self {
            store,
            metrics,
            failures: Failures::default(),
        }
    }

    /// Lets the caller pass if its bearer token has at least that role; tells who it is.
    ///
    /// # Errors
    /// 401 without a valid token, 403 with too small a role, 429 after many wrong ones.
    pub async fn require(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
        role: Role,
        now: Timestamp,
    ) -> Result<Holder, Problem> {
        let refused = |detail| Problem::new(StatusCode::UNAUTHORIZED, "no valid token", detail);
        let Some(token) = bearer(headers) else {
            self.count("no_token");
            return Err(refused(
                "no token: send `Authorization: Bearer …`; the first one stands in profile.yaml of the centre's data folder",
            ));
        };
        match self.store.holder(&hash(token)).await? {
            Some(holder) if holder.expires.is_some_and(|end| end <= now) => {
                self.count("expired_token");
                Err(refused("the token has expired"))
            }
            Some(holder) if holder.role >= role => Ok(holder),
            Some(holder) => {
                self.count("role");
                let held = holder.role.as_str();
                let needed = role.as_str();
                Err(Problem::forbidden(
                    "this token may not do that",
                    format!("the role {held} may not do that; it needs the role {needed}"),
                ))
            }
            None => {
                self.count("unknown_token");
                Err(match self.failures.note(address, Instant::now()) {
                    Verdict::Few => refused("this centre does not know the token"),
                    Verdict::TooMany => too_many(),
                })
            }
        }
    }

    /// Makes an API token; the text is told once, the store has its hash.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn create_api_token(
        &self,
        holder: Holder,
        now: Timestamp,
    ) -> Result<String, StoreError> {
        let mut secret = [0; SECRET_BYTES];
        SystemRandom::new()
            .fill(&mut secret)
            .expect("getrandom fails only on kernels older than 3.17 without /dev/urandom");
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
        self.keep_api_token(&text, holder, now).await?;
        Ok(text)
    }

    /// Stores an API token that is already handed out.
    ///
    /// # Errors
    /// When it could not be stored.
    pub async fn keep_api_token(
        &self,
        text: &str,
        holder: Holder,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let token = ApiToken {
            hash: hash(text),
            holder,
            created: now,
        };
        self.store.put_api_token(token).await
    }

    fn count(&self, reason: &str) {
        self.metrics
            .auth_failures
            .with_label_values(&[reason])
            .inc();
    }
}

/// The answer to an address that failed too often.
pub fn too_many() -> Problem {
    Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too many wrong tokens from this address",
        "too many wrong tokens from this address: wait a minute",
    )
    .retry_after(WINDOW.as_secs())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && token.len() <= TOKEN_BYTES_MAX).then_some(token)
}

fn hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

/// Wrong tokens by address: at most 20 a minute each.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<IpAddr, (Instant, u32)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Few,
    TooMany,
}

const WINDOW: Duration = Duration::from_secs(60);
/// A script with an old token on a few hosts behind one address stays below it.
const FAILURES_MAX: u32 = 20;
/// About 1 MiB; when so many fail at once, the oldest are forgotten: tokens have 256 bits, the limit only spares work.
const ADDRESSES_MAX: usize = 10_000;

impl Failures {
    /// Counts a failure.
    pub fn note(&self, address: IpAddr, now: Instant) -> Verdict {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = network(address);
        if table.len() >= ADDRESSES_MAX && !table.contains_key(&key) {
            table.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if table.len() >= ADDRESSES_MAX {
                table.clear();
            }
        }
        let (since, count) = table.entry(key).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        verdict(*count)
    }

    /// Tells how an address stands without counting.
    pub fn of(&self, address: IpAddr, now: Instant) -> Verdict {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match table.get(&network(address)) {
            Some((since, count)) if now.duration_since(*since) < WINDOW => {
                verdict(count.saturating_add(1))
            }
            _ => Verdict::Few,
        }
    }
}

fn verdict(count: u32) -> Verdict {
    if count > FAILURES_MAX {
        Verdict::TooMany
    } else {
        Verdict::Few
    }
}

/// One customer of IPv6 has a /64.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(six) => Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_fail_twenty_times_a_minute() {
        let failures = Failures::default();
        let start = Instant::now();
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        for _ in 0..FAILURES_MAX {
            assert_eq!(failures.of(address, start), Verdict::Few);
            assert_eq!(failures.note(address, start), Verdict::Few);
        }
        assert_eq!(failures.note(address, start), Verdict::TooMany);
        for (other, at, verdict) in [
            ("2001:db8::2", start, Verdict::TooMany),
            ("2001:db8:1::1", start, Verdict::Few),
            ("10.0.0.1", start, Verdict::Few),
            ("2001:db8::1", start + WINDOW, Verdict::Few),
        ] {
            let other: IpAddr = other.parse().unwrap();
            assert_eq!(failures.of(other, at), verdict, "{other}");
        }
    }

    #[test]
    fn the_table_of_failures_is_bounded() {
        let failures = Failures::default();
        let now = Instant::now();
        for number in 0..30_000_u32 {
            failures.note(std::net::Ipv4Addr::from_bits(number).into(), now);
        }
        assert!(failures.0.lock().unwrap().len() <= ADDRESSES_MAX);
    }

    #[test]
    fn only_a_short_bearer_token_is_looked_at() {
        for (value, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("abc", None),
            (&format!("Bearer {}", "a".repeat(200)), None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            assert_eq!(bearer(&headers), token, "{value}");
        }
    }
}
