//! Counts detections in bounded windows and looks how they follow one another: a correlation rule becomes a
//! detection when enough came together.
//! Time is event time, there is no shared watermark: a window belongs to its group and is moved by the
//! group's own events only, so that a forged line of another group changes nothing here.
//!
//! A window is the time `(t - timespan, t]` that ends at one of the group's events. When the condition holds of
//! a window that has the newly arrived event in it, the correlation fires and **the events of that window are
//! consumed**: N times the threshold in equal events make at most N alerts, and folding takes those together.
//! An event that lacks a field of the group, or the field that is counted, is not counted.
//! Where rules must come together, the rules are what is counted; where they must follow one another, the window
//! ends at the last of them.
//!
//! Late events count like others, at their own time. What bounds the memory: an event is let go when it is older
//! than the newest by the timespan and five minutes (no event's clock is further ahead) *and* either lies here for
//! its timespan and an hour or was followed by four times as many arrivals as the condition needs; a group ends
//! when nothing came for its timespan and an hour; beyond the limits the group that waited longest is given up,
//! and counted.

mod kept;
mod tally;
mod window;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::SignedDuration;
use jiff::Timestamp;

use crate::alert::AlertId;
use crate::alert::CAUSES_MAX;
use crate::alert::HostSecret;
use crate::detect::Detection;
use crate::detect::GroupKey;
use crate::detect::Kept;
use crate::detect::correlate::window::Entry;
use crate::detect::correlate::window::Fired;
use crate::detect::correlate::window::LATE_MAX;
use crate::detect::correlate::window::Window;
use crate::detect::rule::Base;
use crate::detect::rule::Correlation;
use crate::detect::rule::Counted;
use crate::detect::rule::RuleIndex;
use crate::detect::rule::Ruleset;

/// What a correlator may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub groups_max: usize,
    /// Of all groups together: about 80 bytes each.
    pub events_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            groups_max: 100_000,
            events_max: 1_000_000,
        }
    }
}

/// What was given up at the limits since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    pub groups: u64,
    /// Events let go before their time, those of evicted groups included.
    pub events: u64,
}

type GroupHash = [u8; 16];

/// The windows of all correlation rules. Owned by one thread.
#[derive(Debug, Default)]
pub struct Correlator {
    limits: Limits,
    /// By number; one without groups is dropped when its end has been told.
    series: BTreeMap<u64, Series>,
    numbers: HashMap<SeriesName, u64>,
    /// Counts touches, to know which group waited longest.
    turn: u64,
    groups: usize,
    events: usize,
    dirty: BTreeSet<(u64, GroupHash)>,
    evicted: Evicted,
}

/// A window's state is that of one text of one rule: with another text it begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SeriesName {
    rule: String,
    digest: String,
}

#[derive(Debug)]
struct Series {
    name: SeriesName,
    timespan: SignedDuration,
    groups: HashMap<GroupHash, Group>,
    /// By turn, the one that waited longest first.
    recency: BTreeMap<u64, GroupHash>,
}

#[derive(Debug, Default)]
struct Group {
    turn: u64,
    /// `None`: restored, and not seen by a clock since.
    touched: Option<Timestamp>,
    window: Window,
}

impl Correlator {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Takes windows of the spool back. What can't be read is left out; returns how many those were.
    pub fn restore(&mut self, kept: Vec<Kept>) -> usize {
        let mut unreadable = 0;
        for kept in kept {
            let Some(value) = &kept.value else { continue };
            let Some(restored) = kept::read(&kept.key, value) else {
                unreadable += 1;
                continue;
            };
            let name = SeriesName {
                rule: restored.rule,
                digest: restored.digest,
            };
            let number = self.number(name, restored.timespan);
            self.update(number, restored.group, None, |window| {
                *window = restored.window;
            });
            self.dirty.remove(&(number, restored.group));
        }
        unreadable
    }

    /// Drops the windows of rules that these rules no longer have, or have with another text.
    pub fn keep_only(&mut self, rules: &Ruleset) {
        let mut gone = Vec::new();
        for (number, series) in &self.series {
            let current = rules.by_id(&series.name.rule);
            let digest = current.map(|index| &rules.rule(index).reference.digest);
            if digest != Some(&series.name.digest) {
                gone.extend(series.groups.keys().map(|group| (*number, *group)));
            }
        }
        for (number, group) in gone {
            self.remove(number, group);
        }
    }

    /// Counts a detection, and those that follow from it. Correlations that fire are added to `out`, except
    /// those that are only bases of others. Detections of silent rules belong here too.
    pub fn observe(
        &mut self,
        detection: &Detection,
        secret: &HostSecret,
        now: Timestamp,
        out: &mut Vec<Detection>,
    ) {
        let mut fired = Vec::new();
        self.observe_all(detection, secret, now, &mut fired);
        fired.retain(|fired| !fired.rule().silent);
        out.append(&mut fired);
    }

    /// As `observe`, with those that are only bases of others.
    pub fn observe_all(
        &mut self,
        detection: &Detection,
        secret: &HostSecret,
        now: Timestamp,
        out: &mut Vec<Detection>,
    ) {
        let mut at = out.len();
        self.count(detection, secret, now, out);
        // Ends: the rules' own check refuses correlations over themselves.
        while let Some(above) = out.get(at).cloned() {
            self.count(&above, secret, now, out);
            at += 1;
        }
    }

    /// Ends groups that nothing came to for long.
    pub fn tick(&mut self, now: Timestamp) {
        let numbers: Vec<_> = self.series.keys().copied().collect();
        for number in numbers {
            while let Some(group) = self.ended(number, now) {
                self.remove(number, group);
            }
        }
    }

    /// Returns the windows that changed since the last call, for the spool.
    pub fn changed(&mut self) -> Vec<Kept> {
        let mut changed = Vec::with_capacity(self.dirty.len());
        for (number, group) in std::mem::take(&mut self.dirty) {
            let Some(series) = self.series.get(&number) else {
                continue;
            };
            changed.push(Kept {
                key: kept::key(&series.name.rule, &series.name.digest, group),
                value: series
                    .groups
                    .get(&group)
                    .map(|group| kept::value(series.timespan, &group.window)),
            });
        }
        self.series.retain(|_, series| !series.groups.is_empty());
        self.numbers
            .retain(|_, number| self.series.contains_key(number));
        changed
    }

    /// Marks all windows as changed: what kept them has lost some.
    pub fn touch_all(&mut self) {
        for (number, series) in &self.series {
            let groups = series.groups.keys();
            self.dirty.extend(groups.map(|group| (*number, *group)));
        }
    }

    pub fn groups(&self) -> usize {
        self.groups
    }

    pub fn events(&self) -> usize {
        self.events
    }

    pub fn evicted(&self) -> Evicted {
        self.evicted
    }

    fn count(
        &mut self,
        detection: &Detection,
        secret: &HostSecret,
        now: Timestamp,
        fired: &mut Vec<Detection>,
    ) {
        let rules = &detection.ruleset;
        for &(index, at) in rules.feeds(detection.rule) {
            let rule = rules.rule(index);
            let Some(correlation) = rule.correlation() else {
                continue;
            };
            let Some(base) = correlation.bases.get(at) else {
                continue;
            };
            let Some(part) = Part::of(detection, correlation, base, secret) else {
                continue;
            };
            let name = SeriesName {
                rule: rule.id.clone(),
                digest: rule.reference.digest.clone(),
            };
            let number = self.number(name, correlation.timespan);
            let entry = Entry {
                time: detection.time,
                id: detection.id,
                repeat: detection.repeat.max(1),
                value: match correlation.counted {
                    Counted::Events | Counted::Values => part.value,
                    Counted::Rules | Counted::Sequence => window::marker(at),
                    _ => tally::of_number(part.number),
                },
                arrived: now,
                arrival: 0,
            };
            let mut outcome = None;
            let evicted = self.update(number, part.group, Some(now), |window| {
                outcome = window.add(entry, correlation, now);
                window.take_evicted()
            });
            self.evicted.events += evicted;
            if let Some(done) = outcome {
                fired.push(make(detection, index, correlation, &part, secret, done));
            }
        }
    }

    fn number(&mut self, name: SeriesName, timespan: SignedDuration) -> u64 {
        if let Some(number) = self.numbers.get(&name) {
            return *number;
        }
        let number = self.series.last_key_value().map_or(0, |(last, _)| last + 1);
        self.numbers.insert(name.clone(), number);
        self.series.insert(
            number,
            Series {
                name,
                timespan,
                groups: HashMap::new(),
                recency: BTreeMap::new(),
            },
        );
        number
    }

    /// Changes one group's window, made if it is new, and keeps the books: order, numbers, limits.
    fn update<T: Default>(
        &mut self,
        number: u64,
        hash: GroupHash,
        now: Option<Timestamp>,
        change: impl FnOnce(&mut Window) -> T,
    ) -> T {
        let Some(series) = self.series.get_mut(&number) else {
            return T::default(); // numbers come from `number`
        };
        self.turn += 1;
        let known = series.groups.len();
        let group = series.groups.entry(hash).or_default();
        let before = group.window.len();
        series.recency.remove(&group.turn);
        group.turn = self.turn;
        group.touched = now;
        let result = change(&mut group.window);
        let after = group.window.len();
        self.events = self.events.saturating_sub(before).saturating_add(after);
        series.recency.insert(self.turn, hash);
        self.groups += series.groups.len() - known;
        self.dirty.insert((number, hash));
        if after == 0 {
            self.remove(number, hash);
        }
        self.evict();
        result
    }

    fn remove(&mut self, number: u64, hash: GroupHash) {
        let Some(series) = self.series.get_mut(&number) else {
            return;
        };
        if let Some(group) = series.groups.remove(&hash) {
            series.recency.remove(&group.turn);
            self.groups = self.groups.saturating_sub(1);
            self.events = self.events.saturating_sub(group.window.len());
            self.dirty.insert((number, hash));
        }
    }

    /// Gives up the groups that waited longest, but never the one that was touched last.
    fn evict(&mut self) {
        while self.groups > 1
            && (self.groups > self.limits.groups_max || self.events > self.limits.events_max)
        {
            let oldest = self
                .series
                .iter()
                .filter_map(|(number, series)| {
                    let (turn, hash) = series.recency.first_key_value()?;
                    Some((*turn, *number, *hash))
                })
                .min();
            let Some((_, number, hash)) = oldest else {
                return;
            };
            let before = self.events;
            self.remove(number, hash);
            self.evicted.groups += 1;
            self.evicted.events += (before - self.events) as u64;
        }
    }

    /// Returns the group of a series that waited longest, if it waited too long.
    fn ended(&mut self, number: u64, now: Timestamp) -> Option<GroupHash> {
        let series = self.series.get_mut(&number)?;
        let idle_max = series.timespan.saturating_add(LATE_MAX);
        let (_, hash) = series.recency.first_key_value()?;
        let hash = *hash;
        match series.groups.get(&hash)?.touched {
            // After a restart the clock says nothing of what is still to be read.
            None => {
                for group in series.groups.values_mut() {
                    group.touched = group.touched.or(Some(now));
                }
                None
            }
            Some(touched) => (now.duration_since(touched) > idle_max).then_some(hash),
        }
    }
}

/// What of a detection a correlation looks at.
struct Part<'d> {
    group: GroupHash,
    /// In the order of the correlation's `group-by`.
    keys: Vec<&'d GroupKey>,
    /// Of what is counted; zero where events are.
    value: [u8; 16],
    /// Zero where none is asked for.
    number: f64,
}

impl<'d> Part<'d> {
    /// Returns nothing for a detection that lacks a field.
    fn of(
        detection: &'d Detection,
        correlation: &Correlation,
        base: &Base,
        secret: &HostSecret,
    ) -> Option<Self> {
        let find = |names: &[Arc<str>]| -> Option<Vec<&'d GroupKey>> {
            let find = |name: &Arc<str>| {
                let mut groups = detection.groups.iter();
                groups.find(|(known, _)| known == name).map(|(_, key)| key)
            };
            names.iter().map(find).collect()
        };
        let keys = find(&base.group)?;
        let (values, number) = match base.values.first() {
            Some(name) if correlation.counted.is_of_numbers() => {
                let mut numbers = detection.numbers.iter();
                (Vec::new(), numbers.find(|(known, _)| known == name)?.1)
            }
            _ => (find(&base.values)?, 0.0),
        };
        Some(Self {
            number,
            group: joined(&keys, secret),
            value: joined(&values, secret),
            keys,
        })
    }
}

/// Returns one hash for several.
fn joined(keys: &[&GroupKey], secret: &HostSecret) -> [u8; 16] {
    match keys {
        [] => [0; 16],
        [only] => only.hash,
        several => {
            let parts: Vec<&[u8]> = several.iter().map(|key| &key.hash[..]).collect();
            secret.sign(&parts)
        }
    }
}

/// Returns the detection of a correlation that fired: what the completing event showed, and what came together.
fn make(
    completing: &Detection,
    rule: RuleIndex,
    correlation: &Correlation,
    part: &Part<'_>,
    secret: &HostSecret,
    done: Fired,
) -> Detection {
    let id: AlertId = secret.correlation_id(
        &completing.ruleset.rule(rule).id,
        &part.group,
        &completing.id,
    );
    let mut fields = completing.fields.clone();
    let mut groups = completing.groups.clone();
    let mut shown = Vec::with_capacity(part.keys.len());
    for (name, key) in correlation.group_by.iter().zip(&part.keys) {
        shown.push(format!("{name}={}", key.shown));
        if !fields.as_map().contains_key(&**name) {
            fields.note(name, key.shown.clone());
        }
        if !groups.iter().any(|(known, _)| known == name) {
            groups.push((Arc::clone(name), (*key).clone()));
        }
    }
    let mut causes = done.ids;
    causes.truncate(CAUSES_MAX);
    Detection {
        ruleset: Arc::clone(&completing.ruleset),
        rule,
        id,
        time: completing.time,
        observed: completing.observed,
        host: completing.host.clone(),
        logsource: completing.logsource.clone(),
        key: GroupKey {
            hash: part.group,
            shown: shown.join(" "),
        },
        fields,
        groups,
        numbers: completing.numbers.clone(),
        raw: completing.raw.clone(),
        origin: completing.origin.clone(),
        repeat: 1,
        causes,
        causes_count: done.events,
        cut: completing.cut.clone(),
    }
}

#[cfg(test)]
mod tests;
