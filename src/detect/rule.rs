//! Sigma rules, compiled into an immutable set that events are held against.
//! Reads no files and knows no decoder; what correlates is described here and counted in `correlate`.

mod read;
mod weigh;
mod action;
mod check;
mod locate;
mod compile;
mod value;
mod encode;
mod expression;
mod pattern;
mod filter;
mod correlation;
mod route;
mod layout;
mod matcher;
mod frequency;
mod need;
mod index;
mod plan;
mod placeholder;

use std::collections::HashMap;
use std::sync::Arc;

use ring::digest;

use crate::alert::RuleRef;
use crate::alert::Severity;
use crate::detect::rule::layout::Layout;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;
use crate::detect::rule::matcher::Expr;

use crate::detect::rule::need::Need;
use crate::detect::rule::plan::Candidates;
use crate::detect::rule::plan::Plans;
use crate::detect::rule::plan::Shelf;
use crate::detect::rule::read::Body;
use crate::detect::rule::read::Document;
use crate::detect::rule::route::Routes;
use crate::diagnostic::Diagnostic;
use crate::event::Event;
use crate::event::field::FieldId;
use crate::event::field::FieldSet;
use crate::event::field::Fields;
use crate::event::logsource::LogSource;

pub use crate::detect::rule::correlation::Base;
pub use crate::detect::rule::correlation::Comparison;
pub use crate::detect::rule::correlation::Correlation;
pub use crate::detect::rule::correlation::Counted;
pub use crate::detect::rule::correlation::Presence;
pub use crate::detect::rule::placeholder::Placeholders;

/// A rule's place in its set. Means nothing in another set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIndex(pub u32);

impl RuleIndex {
    fn at(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The text of a rule file; may hold several documents.
#[derive(Debug, Clone, Copy)]
pub struct RuleText<'a> {
    pub file: &'a str,
    pub text: &'a str,
}

/// One rule, compiled. Texts that it does not give are empty.
#[derive(Debug)]
pub struct Rule {
    /// As written, else made of the digest.
    pub id: String,
    pub reference: Arc<RuleRef>,
    pub logsource: LogSource,
    /// `x-fold`: what equal alerts have in common.
    pub fold: Vec<FieldId>,
    /// Only the base of correlations: no alert of its own.
    pub silent: bool,
    pub name: String,
    pub title_vi: String,
    pub advice: String,
    pub advice_vi: String,
    pub description: String,
    pub author: String,
    pub references: Vec<String>,
    pub false_positives: Vec<String>,
    /// `x-scope`, else `scope`.
    pub scope: Vec<String>,
    pub file: String,
    /// Fields that correlations over this rule group by or count.
    group_fields: Box<[(Arc<str>, FieldId)]>,
    /// Fields that correlations over this rule sum or average.
    number_fields: Box<[(Arc<str>, FieldId)]>,
    /// The correlations that this rule is a base of, and as which of their bases.
    feeds: Box<[(RuleIndex, usize)]>,
    body: Compiled,
}

#[derive(Debug)]
enum Compiled {
    Detection {
        condition: Expr,
        /// One of these must be met; `None`: the rule is asked of every event.
        needs: Option<Box<[Need]>>,
    },
    Correlation(Box<Correlation>),
}

impl Rule {
    /// Returns what it counts, if it is a correlation.
    pub fn correlation(&self) -> Option<&Correlation> {
        match &self.body {
            Compiled::Correlation(correlation) => Some(correlation),
            Compiled::Detection { .. } => None,
        }
    }
}

/// Rules, compiled together. Immutable, shared by all workers, replaced whole.
#[derive(Debug, Default)]
pub struct Ruleset {
    fields: Fields,
    rules: Vec<Rule>,
    ids: HashMap<String, RuleIndex>,
    routes: Routes,
    /// Fields that some condition asks for.
    asked: FieldSet,
    digest: String,
    /// Shared by all workers.
    plans: Shelf,
    /// Tells a scratch that it was used with another set.
    stamp: Arc<()>,
}

/// Memory for matching, one a worker, used for event after event.
#[derive(Debug, Default)]
pub struct Scratch {
    layout: Layout,
    plans: Plans,
    candidates: Candidates,
    stamp: Option<Arc<()>>,
}

impl Ruleset {
    /// Compiles what can be compiled. A broken rule is told and left out, the others stay.
    pub fn compile(texts: &[RuleText<'_>]) -> (Self, Vec<Diagnostic>) {
        Self::compile_with(texts, &Placeholders::new())
    }

    /// The same, with the site's lists for `expand`. With other lists a rule is another rule.
    pub fn compile_with(
        texts: &[RuleText<'_>],
        placeholders: &Placeholders,
    ) -> (Self, Vec<Diagnostic>) {
        let mut told = Vec::new();
        let mut set = Self::default();
        let mut filters = Vec::new();
        let mut correlations = Vec::new();
        for text in texts {
            for mut document in read::read(text, &mut told) {
                if let Body::Rule(rule) = &mut document.body
                    && placeholder::expand(&mut rule.detection, placeholders)
                {
                    document.digested.push_str(&format!("{placeholders:?}"));
                }
                match &document.body {
                    Body::Rule(_) => set.add_detection(&document, &mut told),
                    Body::Filter(_) => filters.push(document),
                    Body::Correlation(_) | Body::Faulty { .. } => correlations.push(document),
                }
            }
        }
        filter::apply_all(&mut set, &filters, &mut told);
        correlation::add_all(&mut set, correlations, &mut told);
        set.finish();
        (set, told)
    }

    /// Calls `on` for each detection rule that matches. Correlations are fed by `Correlator`, not here.
    pub fn matches<'s>(
        &'s self,
        event: &Event<'_>,
        scratch: &mut Scratch,
        mut on: impl FnMut(RuleIndex, &'s Rule),
    ) {
        let is_known = scratch
            .stamp
            .as_ref()
            .is_some_and(|stamp| Arc::ptr_eq(stamp, &self.stamp));
        if !is_known {
            scratch.plans.clear();
            scratch.stamp = Some(Arc::clone(&self.stamp));
        }
        let plan = scratch.plans.of(self, &event.logsources);
        if plan.is_empty() {
            return;
        }
        scratch.layout.load(event, &self.asked);
        let layout = &mut scratch.layout;
        for &index in scratch.candidates.of(&plan, event, layout) {
            let index = RuleIndex(index);
            let rule = self.rule(index);
            if let Compiled::Detection { condition, .. } = &rule.body
                && condition.holds(event, layout)
            {
                on(index, rule);
            }
        }
    }

    /// # Panics
    /// For an index of another set.
    pub fn rule(&self, index: RuleIndex) -> &Rule {
        &self.rules[index.at()]
    }

    pub fn rules(&self) -> impl Iterator<Item = (RuleIndex, &Rule)> {
        (0..).map(RuleIndex).zip(&self.rules)
    }

    pub fn len(&self) -> usize {
        self.rules.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn by_id(&self, id: &str) -> Option<RuleIndex> {
        self.ids.get(id).copied()
    }

    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// For `replay --events`: to keep fields that no rule asks for.
    pub fn fields_mut(&mut self) -> &mut Fields {
        &mut self.fields
    }

    /// Of all rules, in whatever order their files were read: two agents with the same digest judge alike.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the fields that correlations over this rule group by or count, for their HMACs.
    pub fn group_fields(&self, rule: RuleIndex) -> &[(Arc<str>, FieldId)] {
        &self.rule(rule).group_fields
    }

    /// Returns the fields that correlations over this rule sum or average.
    pub fn number_fields(&self, rule: RuleIndex) -> &[(Arc<str>, FieldId)] {
        &self.rule(rule).number_fields
    }

    /// Returns the correlations that this rule is a base of, and as which of their bases.
    pub fn feeds(&self, rule: RuleIndex) -> &[(RuleIndex, usize)] {
        &self.rule(rule).feeds
    }

    pub fn correlations(&self) -> impl Iterator<Item = (RuleIndex, &Correlation)> {
        self.rules()
            .filter_map(|(index, rule)| Some((index, rule.correlation()?)))
    }

    fn add_detection(&mut self, document: &Document<'_>, told: &mut Vec<Diagnostic>) {
        let Body::Rule(sigma) = &document.body else {
            return;
        };
        let mut warnings = Vec::new();
        let compiled = compile::compile(&sigma.detection, &mut self.fields, &mut warnings)
            .and_then(|condition| {
                let rule = self.detection(document, sigma, condition)?;
                self.add(rule, document)
            });
        match compiled {
            Ok(_) => told.extend(warnings.into_iter().map(|fault| document.tell(fault))),
            Err(fault) => told.push(document.tell(fault)),
        }
    }

    fn detection(
        &mut self,
        document: &Document<'_>,
        sigma: &rsigma_parser::SigmaRule,
        condition: Expr,
    ) -> Result<Rule, Fault> {
        let digest = digest_of(&[document.digested.as_bytes()]);
        let word = |word: &Option<String>| word.as_deref().map(|word| word.trim().to_lowercase());
        condition.fields(&mut self.asked);
        Ok(Rule {
            logsource: LogSource {
                product: word(&sigma.logsource.product),
                category: word(&sigma.logsource.category),
                service: word(&sigma.logsource.service),
            },
            name: sigma.name.clone().unwrap_or_default(),
            description: text_of(&sigma.description),
            author: text_of(&sigma.author),
            references: sigma.references.clone(),
            false_positives: sigma.falsepositives.clone(),
            body: Compiled::Detection {
                needs: need::of(&condition, &self.fields).map(|needs| needs.any.into()),
                condition,
            },
            ..self.custom(
                Head {
                    id: &sigma.id,
                    title: &sigma.title,
                    level: sigma.level,
                    tags: &sigma.tags,
                    scope: &sigma.scope,
                    custom: &sigma.custom_attributes,
                },
                digest,
                document.file,
            )?
        })
    }

    /// Returns a rule of what detection rules and correlations share; the rest is still empty.
    fn custom(&mut self, head: Head<'_>, digest: String, file: &str) -> Result<Rule, Fault> {
        let fold = read::custom_list(head.custom, "x-fold")
            .iter()
            .map(|name| self.fields.intern(name))
            .collect::<Result<_, _>>()
            .map_err(|too_many| Fault::new(too_many.to_string()).at(Spot::key(&["x-fold"])))?;
        let mut scope = read::custom_list(head.custom, "x-scope");
        if scope.is_empty() {
            scope = head.scope.to_vec();
        }
        let id = match head.id {
            Some(id) => id.trim().to_owned(),
            None => digest.clone(),
        };
        Ok(Rule {
            reference: Arc::new(RuleRef {
                id: id.clone(),
                title: head.title.trim().to_owned(),
                level: severity(head.level),
                tags: head.tags.to_vec(),
                digest,
            }),
            id,
            logsource: LogSource::default(),
            fold,
            silent: false,
            name: String::new(),
            title_vi: read::custom_text(head.custom, "x-title-vi"),
            advice: read::custom_text(head.custom, "x-advice"),
            advice_vi: read::custom_text(head.custom, "x-advice-vi"),
            description: String::new(),
            author: String::new(),
            references: Vec::new(),
            false_positives: Vec::new(),
            scope,
            file: file.to_owned(),
            group_fields: Box::default(),
            number_fields: Box::default(),
            feeds: Box::default(),
            body: Compiled::Detection {
                condition: Expr::Any(Box::default()),
                needs: None,
            },
        })
    }

    /// Takes a rule in, unless its id is taken.
    fn add(&mut self, rule: Rule, document: &Document<'_>) -> Result<RuleIndex, Fault> {
        if let Some(first) = self.by_id(&rule.id) {
            let first = &self.rule(first).file;
            return Err(Fault::new(format!(
                "the id `{}` stands in {first} already; this rule of {} is left out",
                rule.id, document.file
            ))
            .at(Spot::value(&["id"]))
            .hint("give one of them another id, or delete the copy"));
        }
        let index = u32::try_from(self.rules.len())
            .map(RuleIndex)
            .map_err(|_| Fault::new("more rules than can be numbered"))?;
        self.ids.insert(rule.id.clone(), index);
        self.rules.push(rule);
        Ok(index)
    }

    fn finish(&mut self) {
        let mut routes = Routes::default();
        let mut digests = Vec::new();
        for (index, rule) in self.rules() {
            digests.push(rule.reference.digest.as_str());
            if rule.correlation().is_none() {
                routes.add(&rule.logsource, index.0);
            }
        }
        digests.sort_unstable();
        let parts: Vec<_> = digests.iter().map(|digest| digest.as_bytes()).collect();
        let digest = digest_of(&parts);
        self.digest = digest;
        self.routes = routes;
    }
}

/// Returns the number that a value stands for.
// Beyond 2^53 a whole number is the nearest double.
#[expect(clippy::cast_precision_loss)]
pub fn number_of(text: &[u8]) -> Option<f64> {
    let number = match matcher::Number::read(text)? {
        matcher::Number::Int(number) => number as f64,
        matcher::Number::Float(number) => number,
    };
    number.is_finite().then_some(number)
}

/// What detection rules and correlations share, as written.
struct Head<'a> {
    id: &'a Option<String>,
    title: &'a str,
    level: Option<rsigma_parser::Level>,
    tags: &'a [String],
    scope: &'a [String],
    custom: &'a HashMap<String, serde_yaml::Value>,
}

/// A rule without a level is `medium`: its author wants to hear of it and does not say how loudly.
fn severity(level: Option<rsigma_parser::Level>) -> Severity {
    level
        .and_then(|level| level.as_str().parse().ok())
        .unwrap_or(Severity::Medium)
}

fn text_of(text: &Option<String>) -> String {
    text.as_deref().unwrap_or_default().trim().to_owned()
}

/// Returns the first 128 bits of SHA-256 over the parts, each behind its length, in hex.
fn digest_of(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let digest = context.finish();
    digest
        .as_ref()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests;
