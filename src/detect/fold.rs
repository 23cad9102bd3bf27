//! Equal alerts become one with a count, and a rule that floods one host is held to a budget.
//! Nothing is dropped: every detection is counted in exactly one alert.
//!
//! A fold is one rule, host and key in a window of event time, fixed from its first event. What exceeds the budget
//! of new alerts per rule, host and window goes into one overflow fold that names the ten largest keys.

mod state;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::{NonZeroU32, NonZeroU64};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize};

use crate::alert::{Alert, Severity};
use crate::detect::fold::state::{Fold, Keys, StateKey};
use crate::detect::{Detection, Kept};

/// A fold is sent again when its count has doubled, but not sooner than this after the last time.
const RESEND_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// The clock closes a fold only when no event came for so long: a backlog is read at its own pace.
const QUIET: SignedDuration = SignedDuration::from_secs(60);
/// Open folds: at about 3 KiB each they stay under 16 MiB. At the limit the one touched longest ago is closed.
const FOLDS_MAX: usize = 4096;
/// Windows of one key that may be open at once, when a backlog and live events mix.
const WINDOWS_PER_KEY_MAX: usize = 4;

/// Folding and budgets. A window of 0 turns both off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Equal alerts within this time are one.
    #[serde(deserialize_with = "window")]
    pub window: SignedDuration,
    /// New alerts per rule, host and window; beyond it they fold into one.
    #[serde(deserialize_with = "budget")]
    pub budget: u32,
    /// The same for rules of level critical.
    #[serde(deserialize_with = "budget")]
    pub budget_critical: u32,
}

/// A window of a month would keep a month's keys in memory.
const WINDOW_MAX: SignedDuration = SignedDuration::from_hours(24);

fn window<'d, D: Deserializer<'d>>(from: D) -> Result<SignedDuration, D::Error> {
    let window = SignedDuration::deserialize(from)?;
    if window.is_negative() || window > WINDOW_MAX {
        let message = format!("invalid value: {window:#}, expected a time from 0s to 24h");
        return Err(serde::de::Error::custom(message));
    }
    Ok(window)
}

/// A budget of none would hide every alert behind one.
fn budget<'d, D: Deserializer<'d>>(from: D) -> Result<u32, D::Error> {
    let budget = u32::deserialize(from)?;
    NonZeroU32::new(budget)
        .map(NonZeroU32::get)
        .ok_or_else(|| serde::de::Error::custom("invalid value: 0, expected at least 1"))
}

impl Default for Config {
    fn default() -> Self {
        Self {
            window: SignedDuration::from_hours(1),
            budget: 20,
            budget_critical: 100,
        }
    }
}

/// How many new alerts a rule has made on one host in its window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Spent {
    start: Timestamp,
    alerts: u32,
    touched: Timestamp,
}

/// Folds detections into alerts. Its state is handed out by `changed`, to be committed with the alerts.
#[derive(Debug)]
pub struct Folder {
    config: Config,
    folds: HashMap<StateKey, Vec<Fold>>,
    spent: HashMap<StateKey, Spent>,
    open: usize,
    changed: HashSet<StateKey>,
    evicted: u64,
}

impl Folder {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            folds: HashMap::new(),
            spent: HashMap::new(),
            open: 0,
            changed: HashSet::new(),
            evicted: 0,
        }
    }

    /// Takes back what `changed` gave before a restart; what can't be read is left out and counted as evicted.
    pub fn restore(&mut self, kept: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) {
        for (key, value) in kept {
            let Some(key) = StateKey::from_bytes(&key) else {
                self.evicted += 1;
                continue;
            };
            match serde_json::from_slice::<Saved>(&value) {
                Ok(Saved::Folds(folds)) => {
                    self.open += folds.len();
                    self.folds.insert(key, folds);
                }
                Ok(Saved::Spent(spent)) => {
                    self.spent.insert(key, spent);
                }
                Err(_) => self.evicted += 1,
            }
        }
    }

    /// Counts a detection; pushes the alerts that are to be sent because of it.
    pub fn observe(&mut self, detection: Detection, now: Timestamp, out: &mut Vec<Alert>) {
        if self.config.window.is_zero() {
            out.push(fitted(detection.into_alert()));
            return;
        }
        let key = StateKey::fold(&detection);
        let host = StateKey::host(&detection);
        if self.count_into(&key, &detection, now, out) {
            return;
        }
        if self.take_from_budget(&host, &detection, now) {
            self.start(key, Fold::new(detection, self.config.window, now), now, out);
            return;
        }
        let overflow = StateKey::overflow(&detection);
        if !self.count_into(&overflow, &detection, now, out) {
            let mut fold = Fold::new(detection.clone(), self.config.window, now);
            fold.keys = Some(Keys::default());
            fold.count_key(&detection);
            self.start(overflow, fold, now, out);
        }
    }

    /// Sends what has doubled, closes what the clock ended. Call it about once a second.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Alert>) {
        let (mut closed, mut changed) = (0, Vec::new());
        self.folds.retain(|key, folds| {
            let before = folds.len();
            folds.retain_mut(|fold| {
                let is_over = now >= fold.end && now.duration_since(fold.touched) >= QUIET;
                if (is_over || fold.is_due(now)) && fold.has_grown() {
                    out.push(fold.send(now));
                    changed.push(key.clone());
                }
                !is_over
            });
            if folds.len() < before {
                closed += before - folds.len();
                changed.push(key.clone());
            }
            !folds.is_empty()
        });
        self.open -= closed;
        let window = self.config.window;
        self.spent.retain(|key, spent| {
            let is_over = now.duration_since(spent.start) >= window
                && now.duration_since(spent.touched) >= QUIET;
            if is_over {
                changed.push(key.clone());
            }
            !is_over
        });
        self.changed.extend(changed);
    }

    /// Returns what has changed since the last call, each piece once, as it is now.
    pub fn changed(&mut self) -> Vec<Kept> {
        let keys = std::mem::take(&mut self.changed);
        let saved = |key: &StateKey| {
            let saved = if let Some(folds) = self.folds.get(key) {
                Saved::Folds(folds.clone())
            } else {
                Saved::Spent(*self.spent.get(key)?)
            };
            Some(serde_json::to_vec(&saved).expect("state of strings and numbers serialises"))
        };
        keys.iter()
            .map(|key| Kept {
                key: key.as_bytes().to_vec(),
                value: saved(key),
            })
            .collect()
    }

    /// Marks all of it as changed: what kept it has lost some.
    pub fn touch_all(&mut self) {
        self.changed.extend(self.folds.keys().cloned());
        self.changed.extend(self.spent.keys().cloned());
    }

    /// Alerts that may still grow.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Folds that were closed early because there were too many, or that could not be read back.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Counts into the open fold of the key that the event's time falls in. Events up to a window before the fold's
    /// first one count too: sources are read side by side and their order is not that of time.
    fn count_into(
        &mut self,
        key: &StateKey,
        detection: &Detection,
        now: Timestamp,
        out: &mut Vec<Alert>,
    ) -> bool {
        let Some(folds) = self.folds.get_mut(key) else {
            return false;
        };
        self.changed.insert(key.clone());
        // The first event past the end closes a fold.
        folds.retain_mut(|fold| {
            let is_over = detection.time >= fold.end;
            if is_over {
                self.open -= 1;
                if fold.has_grown() {
                    out.push(fold.send(now));
                }
            }
            !is_over
        });
        let window = self.config.window;
        let found = folds
            .iter_mut()
            .find(|fold| fold.start.duration_since(detection.time) <= window);
        let is_counted = found.is_some();
        if let Some(fold) = found {
            fold.count(detection, now);
            if fold.is_due(now) {
                out.push(fold.send(now));
            }
        }
        if folds.is_empty() {
            self.folds.remove(key);
        }
        is_counted
    }

    fn start(&mut self, key: StateKey, mut fold: Fold, now: Timestamp, out: &mut Vec<Alert>) {
        if self.open >= FOLDS_MAX {
            self.evict(now, out);
        }
        out.push(fold.send(now));
        let folds = self.folds.entry(key.clone()).or_default();
        if folds.len() >= WINDOWS_PER_KEY_MAX {
            let mut oldest = folds.remove(0);
            self.open -= 1;
            self.evicted += 1;
            if oldest.has_grown() {
                out.push(oldest.send(now));
            }
        }
        folds.push(fold);
        self.open += 1;
        self.changed.insert(key);
    }

    /// Closes the quarter of the folds that was touched longest ago, so that a flood of keys does not pay for a search each time.
    fn evict(&mut self, now: Timestamp, out: &mut Vec<Alert>) {
        let mut by_age: BTreeMap<(Timestamp, StateKey), ()> = BTreeMap::new();
        for (key, folds) in &self.folds {
            let touched = folds.iter().map(|fold| fold.touched).max();
            by_age.insert((touched.unwrap_or(now), key.clone()), ());
        }
        for ((_, key), ()) in by_age.into_iter().take(FOLDS_MAX / 4) {
            for mut fold in self.folds.remove(&key).unwrap_or_default() {
                self.open -= 1;
                self.evicted += 1;
                if fold.has_grown() {
                    out.push(fold.send(now));
                }
            }
            self.changed.insert(key);
        }
    }

    fn take_from_budget(&mut self, key: &StateKey, detection: &Detection, now: Timestamp) -> bool {
        let budget = match detection.rule().reference.level {
            Severity::Critical => self.config.budget_critical,
            _ => self.config.budget,
        };
        if self.spent.len() >= FOLDS_MAX && !self.spent.contains_key(key) {
            let oldest = self
                .spent
                .iter()
                .min_by_key(|(_, spent)| spent.touched)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.spent.remove(&oldest);
                self.changed.insert(oldest);
            }
        }
        let fresh = Spent {
            start: detection.time,
            alerts: 0,
            touched: now,
        };
        let spent = self.spent.entry(key.clone()).or_insert(fresh);
        if detection.time.duration_since(spent.start) >= self.config.window {
            *spent = fresh;
        }
        spent.touched = now;
        self.changed.insert(key.clone());
        let is_left = spent.alerts < budget;
        if is_left {
            spent.alerts += 1;
        }
        is_left
    }
}

/// What is kept over a restart.
#[derive(Debug, Serialize, Deserialize)]
enum Saved {
    Folds(Vec<Fold>),
    Spent(Spent),
}

fn fitted(mut alert: Alert) -> Alert {
    alert.fit();
    alert
}

fn count_of(count: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(count).filter(|count| count.get() > 1)
}

#[cfg(test)]
mod tests;
