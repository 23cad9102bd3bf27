//! What one kind of event is held against: its rules, and the index of their needs. Made once for all workers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::{Arc, PoisonError, RwLock};

use crate::detect::rule::index::Index;
use crate::detect::rule::layout::Layout;
use crate::detect::rule::{Compiled, RuleIndex, Ruleset};
use crate::event::Event;
use crate::event::field::Quick;
use crate::event::logsource::LogSources;

/// Kinds of events remembered; hostile input can name any log source, so the table starts anew beyond it.
const PLANS_MAX: usize = 512;

/// The rules that an event of one kind meets.
#[derive(Debug, Default)]
pub struct Plan {
    /// In order.
    rules: Box<[u32]>,
    /// Places in `rules` of those without a need.
    always: Box<[u32]>,
    index: Index,
}

impl Plan {
    fn new(set: &Ruleset, rules: Vec<u32>) -> Self {
        let (mut always, mut needs) = (Vec::new(), Vec::new());
        for (at, &rule) in (0..).zip(&rules) {
            match &set.rule(RuleIndex(rule)).body {
                Compiled::Detection {
                    needs: Some(own), ..
                } => needs.push((at, own.to_vec())),
                Compiled::Detection { needs: None, .. } => always.push(at),
                Compiled::Correlation(_) => {}
            }
        }
        Self {
            rules: rules.into(),
            always: always.into(),
            index: Index::new(&needs),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// The plans of a ruleset, by the rules that they hold.
#[derive(Debug, Default)]
pub struct Shelf(RwLock<HashMap<Vec<u32>, Arc<Plan>>>);

impl Shelf {
    fn of(&self, set: &Ruleset, rules: Vec<u32>) -> Arc<Plan> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = known.get(&rules) {
            return Arc::clone(plan);
        }
        drop(known);
        let plan = Arc::new(Plan::new(set, rules.clone()));
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= PLANS_MAX {
            known.clear();
        }
        Arc::clone(known.entry(rules).or_insert(plan))
    }
}

/// Plans that a worker has met, by log source. Belongs to one ruleset.
#[derive(Debug, Default)]
pub struct Plans(HashMap<u64, Vec<Known>>);

/// A kind of event, and the rules that it meets.
type Known = (LogSources<'static>, Arc<Plan>);

impl Plans {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn of(&mut self, set: &Ruleset, event: &LogSources<'_>) -> Arc<Plan> {
        let mut hasher = Quick::default();
        event.hash(&mut hasher);
        let key = hasher.finish();
        let known = self.0.get(&key).into_iter().flatten();
        for (logsources, plan) in known {
            if is_same(logsources, event) {
                return Arc::clone(plan);
            }
        }
        if self.0.len() >= PLANS_MAX {
            self.0.clear();
        }
        let plan = set.plans.of(set, set.routes.rules(event));
        let kept = (owned(event), Arc::clone(&plan));
        self.0.entry(key).or_default().push(kept);
        plan
    }
}

/// The rules that one event may match. Reused from event to event.
#[derive(Debug, Default)]
pub struct Candidates {
    generation: u32,
    /// The event that a rule of the plan was last a candidate of.
    seen: Vec<u32>,
    found: Vec<u32>,
}

impl Candidates {
    /// Returns them in the order of the rules.
    pub fn of(&mut self, plan: &Plan, event: &Event<'_>, layout: &mut Layout) -> &[u32] {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 || self.seen.len() < plan.rules.len() {
            self.seen.clear();
            self.seen.resize(plan.rules.len(), 0);
            self.generation = 1;
        }
        self.found.clear();
        let mut add = |at: u32| {
            let Some(seen) = self.seen.get_mut(at as usize) else {
                return;
            };
            if *seen != self.generation {
                *seen = self.generation;
                self.found.push(at);
            }
        };
        plan.always.iter().for_each(|&at| add(at));
        plan.index.candidates(event, layout, &mut add);
        self.found.sort_unstable();
        for at in &mut self.found {
            // Every place was given out by the plan.
            *at = plan.rules.get(*at as usize).copied().unwrap_or(u32::MAX);
        }
        &self.found
    }
}

/// Equality of two lifetimes, which the derived one does not allow.
fn is_same(a: &LogSources<'_>, b: &LogSources<'_>) -> bool {
    a.product.as_deref() == b.product.as_deref()
        && a.also == b.also
        && a.categories.iter().eq(b.categories.iter())
        && a.services.iter().eq(b.services.iter())
}

fn owned(event: &LogSources<'_>) -> LogSources<'static> {
    let own = |word: &Cow<'_, str>| Cow::Owned(word.to_string());
    LogSources {
        product: event.product.as_ref().map(own),
        also: event.also,
        categories: event.categories.iter().map(own).collect(),
        services: event.services.iter().map(own).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_plans_is_bounded() {
        let set = Ruleset::default();
        let mut plans = Plans::default();
        for n in 0..PLANS_MAX * 2 {
            let event = LogSources {
                product: Some(format!("p{n}").into()),
                ..LogSources::default()
            };
            plans.of(&set, &event);
            assert!(plans.0.len() <= PLANS_MAX);
        }
        assert_eq!(
            set.plans.0.read().unwrap().len(),
            1,
            "equal rules, one plan"
        );
    }
}
