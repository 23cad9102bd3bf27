//! Which rules an event meets: those whose log source accepts it, found once for each kind of event.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;

use crate::event::logsource::LogSource;
use crate::event::logsource::LogSources;

/// Kinds of events remembered; hostile input can name any log source, so the table starts anew beyond it.
const PLANS_MAX: usize = 512;

/// Rules by the log source they ask for.
#[derive(Debug, Default)]
pub struct Routes(HashMap<LogSource, Vec<u32>>);

impl Routes {
    pub fn add(&mut self, logsource: &LogSource, rule: u32) {
        self.0.entry(logsource.clone()).or_default().push(rule);
    }

    /// Returns the rules that accept an event of these log sources, each once, in order.
    fn plan(&self, event: &LogSources<'_>) -> Arc<[u32]> {
        let products = words(event.product.as_slice());
        let categories = words(&event.categories);
        let services = words(&event.services);
        let mut rules = Vec::new();
        for product in &products {
            for category in &categories {
                for service in &services {
                    let key = LogSource {
                        product: product.clone(),
                        category: category.clone(),
                        service: service.clone(),
                    };
                    rules.extend(self.0.get(&key).into_iter().flatten());
                }
            }
        }
        rules.sort_unstable();
        rules.dedup();
        rules.into()
    }
}

/// The event's words and none: a rule may ask for either.
fn words(of_event: &[Cow<'_, str>]) -> Vec<Option<String>> {
    let mut words = vec![None];
    words.extend(of_event.iter().map(|word| Some(word.to_string())));
    words
}

/// Plans already made, by log source. Belongs to one ruleset.
#[derive(Debug, Default)]
pub struct Plans(HashMap<u64, Vec<Known>>);

/// A kind of event, and the rules that it meets.
type Known = (LogSources<'static>, Arc<[u32]>);

impl Plans {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn of(&mut self, routes: &Routes, event: &LogSources<'_>) -> Arc<[u32]> {
        let mut hasher = DefaultHasher::new();
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
        let plan = routes.plan(event);
        let kept = (owned(event), Arc::clone(&plan));
        self.0.entry(key).or_default().push(kept);
        plan
    }
}

/// Equality of two lifetimes, which the derived one does not allow.
fn is_same(a: &LogSources<'_>, b: &LogSources<'_>) -> bool {
    a.product.as_deref() == b.product.as_deref()
        && a.categories.iter().eq(b.categories.iter())
        && a.services.iter().eq(b.services.iter())
}

fn owned(event: &LogSources<'_>) -> LogSources<'static> {
    let own = |word: &Cow<'_, str>| Cow::Owned(word.to_string());
    LogSources {
        product: event.product.as_ref().map(own),
        categories: event.categories.iter().map(own).collect(),
        services: event.services.iter().map(own).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(product: &str, category: &str, service: &str) -> LogSource {
        let word = |word: &str| (!word.is_empty()).then(|| word.to_owned());
        LogSource {
            product: word(product),
            category: word(category),
            service: word(service),
        }
    }

    #[test]
    fn a_plan_holds_exactly_the_rules_whose_log_source_accepts() {
        let asked = [
            wants("linux", "", ""),
            wants("linux", "", "sshd"),
            wants("linux", "process_creation", ""),
            wants("windows", "", ""),
            wants("", "webserver", ""),
            wants("", "", "auth"),
            wants("", "", ""),
            wants("linux", "process_creation", "sshd"),
        ];
        let mut routes = Routes::default();
        for (at, logsource) in asked.iter().enumerate() {
            routes.add(logsource, u32::try_from(at).unwrap());
        }
        let mut plans = Plans::default();
        for event in [
            LogSources::of(Some("linux"), &[], &["sshd", "auth"]),
            LogSources::of(Some("linux"), &["process_creation", "webserver"], &["sshd"]),
            LogSources::of(None, &["webserver"], &[]),
            LogSources::of(None, &[], &[]),
            LogSources::of(Some("windows"), &["x", "x"], &[]),
        ] {
            let accepted: Vec<_> = (0..)
                .zip(&asked)
                .filter(|(_, logsource)| logsource.accepts(&event))
                .map(|(at, _)| at)
                .collect();
            assert_eq!(*plans.of(&routes, &event), accepted, "{event:?}");
            assert_eq!(*plans.of(&routes, &event), accepted, "again: {event:?}");
        }
        assert_eq!(plans.0.len(), 5);
    }

    #[test]
    fn the_table_of_plans_is_bounded() {
        let mut plans = Plans::default();
        for n in 0..PLANS_MAX * 2 {
            let event = LogSources {
                product: Some(format!("p{n}").into()),
                ..LogSources::default()
            };
            plans.of(&Routes::default(), &event);
            assert!(plans.0.len() <= PLANS_MAX);
        }
    }
}
