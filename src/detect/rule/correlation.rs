//! Correlation rules: what is counted, over which rules, by which fields. The counting is in `detect::correlate`.

mod condition;

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use jiff::SignedDuration;
use rsigma_parser::CorrelationRule;
use rsigma_parser::CorrelationType;
use rsigma_parser::WindowMode;

use crate::detect::rule::Compiled;
use crate::detect::rule::Head;
use crate::detect::rule::RuleIndex;
use crate::detect::rule::Ruleset;
use crate::detect::rule::correlation::condition::Condition;
use crate::detect::rule::digest_of;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;
use crate::detect::rule::read::Body;
use crate::detect::rule::read::Document;
use crate::detect::rule::text_of;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::nearest;
use crate::event::field::FieldId;

pub use crate::detect::rule::correlation::condition::Presence;

/// The longest window: what is kept for it is bounded by number, so a longer one would only promise more.
const TIMESPAN_SECONDS_MAX: u64 = 366 * 24 * 3600;
/// The highest number that can be counted to: so many events of one group are kept at most.
pub const COUNT_MAX: u64 = 10_000;
const GROUP_FIELDS_MAX: usize = 32;
/// More rules in one order of events than an attack has steps; bounds what an event costs.
const SEQUENCE_MAX: usize = 32;

/// What a correlation counts.
#[derive(Debug)]
pub struct Correlation {
    pub counted: Counted,
    pub bases: Vec<Base>,
    /// Names of the group's parts, as they are shown.
    pub group_by: Vec<Arc<str>>,
    pub timespan: SignedDuration,
    /// All must hold of the count.
    pub predicates: Vec<(Comparison, u64)>,
    /// Stands instead of the predicates where a condition names rules.
    pub presence: Option<Presence>,
    /// Whether the bases alert for themselves as well.
    pub generate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    Events,
    /// Distinct values.
    Values,
    /// Distinct rules, in any order.
    Rules,
    /// All rules, one after the other in the order of `bases`. Events of the same time are in any order: a log
    /// that tells seconds says no more.
    Sequence,
    /// The numbers of a field: added, their mean, the one in the middle, the one that so many of a hundred don't exceed.
    Sum,
    Average,
    Median,
    Percentile(u8),
}

impl Counted {
    pub fn is_of_numbers(self) -> bool {
        matches!(
            self,
            Self::Sum | Self::Average | Self::Median | Self::Percentile(_)
        )
    }
}

/// A rule whose detections are counted.
#[derive(Debug)]
pub struct Base {
    pub rule: RuleIndex,
    /// For each part of the group the name of the field in this rule's events.
    pub group: Vec<Arc<str>>,
    /// The fields whose values are counted; several count as one value.
    pub values: Vec<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
}

impl Comparison {
    pub fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessEqual => "≤",
            Self::Greater => ">",
            Self::GreaterEqual => "≥",
            Self::Equal => "=",
            Self::NotEqual => "≠",
        }
    }

    pub fn holds(self, count: u64, bound: u64) -> bool {
        match self {
            Self::Less => count < bound,
            Self::LessEqual => count <= bound,
            Self::Greater => count > bound,
            Self::GreaterEqual => count >= bound,
            Self::Equal => count == bound,
            Self::NotEqual => count != bound,
        }
    }
}

/// Adds the correlations whose bases are there, in an order in which bases come first.
pub fn add_all(set: &mut Ruleset, mut waiting: Vec<Document<'_>>, told: &mut Vec<Diagnostic>) {
    let named: Vec<Named> = waiting.iter().filter_map(Named::of).collect();
    let mut names = Names::new();
    for (index, rule) in set.rules() {
        if !rule.name.is_empty() {
            names.entry(rule.name.clone()).or_insert(index);
        }
    }
    loop {
        let mut left = Vec::new();
        let before = waiting.len();
        for document in waiting {
            let Body::Correlation(sigma) = &document.body else {
                continue;
            };
            let bases = sigma.rules.iter();
            let bases: Option<Vec<_>> = bases.map(|rule| find(set, &names, rule)).collect();
            let Some(bases) = bases else {
                left.push(document);
                continue;
            };
            let mut warnings = Vec::new();
            match add(set, &document, sigma, &bases, &mut warnings) {
                Ok(index) => {
                    if let Some(name) = &sigma.name {
                        names.entry(name.clone()).or_insert(index);
                    }
                    told.extend(warnings.into_iter().map(|fault| document.tell(fault)));
                }
                Err(fault) => told.push(document.tell(fault)),
            }
        }
        if left.len() == before {
            tell_unresolved(set, &names, &left, told);
            break;
        }
        waiting = left;
    }
    link(set);
    silence(set, &names, &named);
}

type Names = HashMap<String, RuleIndex>;

fn find(set: &Ruleset, names: &Names, reference: &str) -> Option<RuleIndex> {
    set.by_id(reference)
        .or_else(|| names.get(reference).copied())
}

/// The rules that a correlation stands on, be it sound or not.
struct Named {
    rules: Vec<String>,
    generate: bool,
}

impl Named {
    fn of(document: &Document<'_>) -> Option<Self> {
        match &document.body {
            Body::Rule(_) | Body::Filter(_) => None,
            Body::Correlation(sigma) => Some(Self {
                rules: sigma.rules.clone(),
                generate: sigma.generate,
            }),
            Body::Faulty { rules, generate } => Some(Self {
                rules: rules.clone(),
                generate: *generate,
            }),
        }
    }
}

/// A base is written to be counted. It stays silent also when what counts it was refused: the fault is told,
/// and every mistyped password an alert of its own would bury the others.
fn silence(set: &mut Ruleset, names: &Names, named: &[Named]) {
    let mut silent: HashMap<RuleIndex, bool> = HashMap::new();
    for correlation in named {
        for reference in &correlation.rules {
            if let Some(index) = find(set, names, reference) {
                let silent = silent.entry(index).or_insert(true);
                *silent = *silent && !correlation.generate;
            }
        }
    }
    for (index, silent) in silent {
        if let Some(rule) = set.rules.get_mut(index.at()) {
            rule.silent = silent;
        }
    }
}

fn tell_unresolved(
    set: &Ruleset,
    names: &Names,
    left: &[Document<'_>],
    told: &mut Vec<Diagnostic>,
) {
    let mut waiting = HashSet::new();
    for document in left {
        if let Body::Correlation(sigma) = &document.body {
            waiting.extend(sigma.id.iter().chain(&sigma.name).cloned());
        }
    }
    for document in left {
        let Body::Correlation(sigma) = &document.body else {
            continue;
        };
        let missing = sigma.rules.iter().find(|reference| {
            set.by_id(reference).is_none()
                && !names.contains_key(*reference)
                && !waiting.contains(*reference)
        });
        let fault = match missing {
            Some(missing) => {
                let known = names.keys().map(String::as_str);
                let near = nearest(missing, known.chain(set.ids.keys().map(String::as_str)));
                Fault::new(format!(
                    "a correlation over `{missing}`, and no such rule is loaded"
                ))
                .at(Spot::word(&["correlation", "rules"], missing))
                .hint(match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "name a rule by its `id` or `name`; it may have been refused itself"
                        .to_owned(),
                })
            }
            None => Fault::new("correlations that wait for one another, or for a refused one")
                .at(Spot::key(&["correlation", "rules"])),
        };
        told.push(document.tell(fault));
    }
}

fn add(
    set: &mut Ruleset,
    document: &Document<'_>,
    sigma: &CorrelationRule,
    bases: &[RuleIndex],
    warnings: &mut Vec<Fault>,
) -> Result<RuleIndex, Fault> {
    let correlation = compile(set, sigma, bases, warnings)?;
    // A window stands on what its bases matched: another base is another rule.
    let mut parts = vec![document.digested.as_bytes().to_vec()];
    for base in bases {
        parts.push(set.rule(*base).reference.digest.clone().into_bytes());
    }
    let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
    let rule = set.custom(
        Head {
            id: &sigma.id,
            title: &sigma.title,
            level: sigma.level,
            tags: &sigma.tags,
            scope: &sigma.scope,
            custom: &sigma.custom_attributes,
        },
        digest_of(&parts),
        document.file,
    )?;
    set.add(
        super::Rule {
            name: sigma.name.clone().unwrap_or_default(),
            description: text_of(&sigma.description),
            author: text_of(&sigma.author),
            references: sigma.references.clone(),
            false_positives: sigma.falsepositives.clone(),
            body: Compiled::Correlation(Box::new(correlation)),
            ..rule
        },
        document,
    )
}

fn compile(
    set: &mut Ruleset,
    sigma: &CorrelationRule,
    bases: &[RuleIndex],
    warnings: &mut Vec<Fault>,
) -> Result<Correlation, Fault> {
    let at = |key: &str| Spot::key(&["correlation", key]);
    let counted = match sigma.correlation_type {
        CorrelationType::EventCount => Counted::Events,
        CorrelationType::ValueCount => Counted::Values,
        CorrelationType::Temporal => Counted::Rules,
        CorrelationType::TemporalOrdered => Counted::Sequence,
        CorrelationType::ValueSum => Counted::Sum,
        CorrelationType::ValueAvg => Counted::Average,
        CorrelationType::ValueMedian => Counted::Median,
        CorrelationType::ValuePercentile => condition::percentile(sigma)?,
    };
    if sigma.window != WindowMode::Sliding {
        return Err(Fault::new("only sliding windows are supported").at(at("window")));
    }
    if bases.is_empty() {
        return Err(Fault::new("a correlation without `rules`").at(Spot::key(&["correlation"])));
    }
    let seconds = sigma.timespan.seconds;
    if seconds == 0 || seconds > TIMESPAN_SECONDS_MAX {
        return Err(Fault::new(format!(
            "a window of {}; it must be from 1s to 366d",
            sigma.timespan.original
        ))
        .at(Spot::word(&["correlation"], &sigma.timespan.original)));
    }
    let mut listed = HashSet::new();
    // A rule named twice counts once.
    let bases: Vec<_> = bases
        .iter()
        .zip(&sigma.rules)
        .filter(|(rule, _)| listed.insert(**rule))
        .collect();
    if counted == Counted::Sequence && bases.len() > SEQUENCE_MAX {
        return Err(
            Fault::new(format!("an order of more than {SEQUENCE_MAX} rules")).at(at("rules")),
        );
    }
    let references: Vec<_> = bases.iter().map(|(_, name)| name.as_str()).collect();
    let Condition {
        predicates,
        presence,
        values,
    } = Condition::read(sigma, counted, &references, warnings)?;
    if sigma.group_by.len() + values.len() > GROUP_FIELDS_MAX {
        return Err(Fault::new(format!("more than {GROUP_FIELDS_MAX} fields")).at(at("group-by")));
    }
    let compiled = Correlation {
        counted,
        bases: bases
            .iter()
            .map(|(rule, reference)| Base {
                rule: **rule,
                group: resolve(sigma, reference, &sigma.group_by),
                values: resolve(sigma, reference, &values),
            })
            .collect(),
        group_by: sigma
            .group_by
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
        timespan: SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)),
        predicates,
        presence,
        generate: sigma.generate,
    };
    for name in compiled
        .bases
        .iter()
        .flat_map(|base| base.group.iter().chain(&base.values))
    {
        set.fields
            .intern(name)
            .map_err(|too_many| Fault::new(too_many.to_string()).at(at("group-by")))?;
    }
    Ok(compiled)
}

/// Returns what the fields are called in the events of one base.
fn resolve(sigma: &CorrelationRule, reference: &str, names: &[String]) -> Vec<Arc<str>> {
    names
        .iter()
        .map(|name| {
            let alias = sigma.aliases.iter().find(|alias| alias.alias == *name);
            let meant = alias.and_then(|alias| alias.mapping.get(reference));
            meant.unwrap_or(name).as_str().into()
        })
        .collect()
}

/// Tells each base what it feeds and which fields to keep for it.
fn link(set: &mut Ruleset) {
    let mut feeds: HashMap<RuleIndex, Vec<(RuleIndex, usize)>> = HashMap::new();
    let mut wanted: HashMap<RuleIndex, Vec<Arc<str>>> = HashMap::new();
    let mut numbers: HashMap<RuleIndex, Vec<Arc<str>>> = HashMap::new();
    let correlations: Vec<_> = set.correlations().collect();
    // Those above first: what they ask of a correlation is asked of its bases.
    for &(index, correlation) in correlations.iter().rev() {
        let from_above = wanted.get(&index).cloned().unwrap_or_default();
        let numbers_above = numbers.get(&index).cloned().unwrap_or_default();
        for (at, base) in correlation.bases.iter().enumerate() {
            feeds.entry(base.rule).or_default().push((index, at));
            let (keys, summed) = match correlation.counted.is_of_numbers() {
                true => (&[][..], &base.values[..]),
                false => (&base.values[..], &[][..]),
            };
            let wanted = wanted.entry(base.rule).or_default();
            for name in base.group.iter().chain(keys).chain(&from_above) {
                if !wanted.contains(name) {
                    wanted.push(Arc::clone(name));
                }
            }
            let numbers = numbers.entry(base.rule).or_default();
            for name in summed.iter().chain(&numbers_above) {
                if !numbers.contains(name) {
                    numbers.push(Arc::clone(name));
                }
            }
        }
    }
    for (index, names) in wanted {
        let known = |names: Vec<Arc<str>>| -> Box<[(Arc<str>, FieldId)]> {
            let names = names.into_iter();
            let known = names.filter_map(|name| set.fields.get(&name).map(|id| (name, id)));
            known.collect()
        };
        let numbers = known(numbers.remove(&index).unwrap_or_default());
        let names = known(names);
        if let Some(rule) = set.rules.get_mut(index.at()) {
            rule.group_fields = names;
            rule.number_fields = numbers;
            let mut feeds = feeds.remove(&index).unwrap_or_default();
            feeds.sort_unstable();
            rule.feeds = feeds.into();
        }
    }
}
