//! Which rules an event meets: those whose log source accepts it, found once for each kind of event.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::event::logsource::LogSource;
use crate::event::logsource::LogSources;

/// Rules by the log source they ask for.
#[derive(Debug, Default)]
pub struct Routes(HashMap<LogSource, Vec<u32>>);

impl Routes {
    pub fn add(&mut self, logsource: &LogSource, rule: u32) {
        self.0.entry(logsource.clone()).or_default().push(rule);
    }

    /// Returns the rules that accept an event of these log sources, each once, in order.
    pub fn rules(&self, event: &LogSources<'_>) -> Vec<u32> {
        let mut products = words(event.product.as_slice());
        products.extend(event.also.map(|also| Some(also.to_owned())));
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
        rules
    }
}

/// The event's words and none: a rule may ask for either.
fn words(of_event: &[Cow<'_, str>]) -> Vec<Option<String>> {
    let mut words = vec![None];
    words.extend(of_event.iter().map(|word| Some(word.to_string())));
    words
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
        for event in [
            LogSources::of(Some("linux"), &[], &["sshd", "auth"]),
            LogSources::of(Some("linux"), &["process_creation", "webserver"], &["sshd"]),
            LogSources::of(None, &["webserver"], &[]),
            LogSources::of(None, &[], &[]),
            LogSources::of(Some("windows"), &["x", "x"], &[]),
            LogSources {
                also: Some("windows"),
                ..LogSources::of(Some("linux"), &["webserver"], &[])
            },
        ] {
            let accepted: Vec<_> = (0..)
                .zip(&asked)
                .filter(|(_, logsource)| logsource.accepts(&event))
                .map(|(at, _)| at)
                .collect();
            assert_eq!(routes.rules(&event), accepted, "{event:?}");
        }
    }
}
