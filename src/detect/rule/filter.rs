//! Sigma filters: a condition that others wrote for their own site, joined to the conditions of rules. So an exception
//! needs no change in a rule's file. `condition: not selection` is the exception; the rule and the filter must hold.

use std::sync::Arc;

use rsigma_parser::FilterRule;
use rsigma_parser::FilterRuleTarget;

use crate::detect::rule::Compiled;
use crate::detect::rule::Rule;
use crate::detect::rule::Ruleset;
use crate::detect::rule::compile;
use crate::detect::rule::digest_of;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;
use crate::detect::rule::matcher::Expr;
use crate::detect::rule::read::Body;
use crate::detect::rule::read::Document;
use crate::diagnostic::Diagnostic;

/// Joins the filters to the rules that they are of. A broken one is told and left out: its rules stay as they were.
pub fn apply_all(set: &mut Ruleset, filters: &[Document<'_>], told: &mut Vec<Diagnostic>) {
    for document in filters {
        let Body::Filter(filter) = &document.body else {
            continue;
        };
        let mut warnings = Vec::new();
        match apply(set, document, filter, &mut warnings) {
            Ok(()) => told.extend(warnings.into_iter().map(|fault| document.tell(fault))),
            Err(fault) => told.push(document.tell(fault)),
        }
    }
}

fn apply(
    set: &mut Ruleset,
    document: &Document<'_>,
    filter: &FilterRule,
    warnings: &mut Vec<Fault>,
) -> Result<(), Fault> {
    let condition = compile::compile(&filter.detection, &mut set.fields, warnings);
    let condition = condition.map_err(|fault| fault.under("filter"))?;
    for warning in warnings.iter_mut() {
        *warning = warning.clone().under("filter");
    }
    condition.fields(&mut set.asked);
    let condition = Arc::new(condition);
    if let FilterRuleTarget::Specific(names) = &filter.rules {
        for name in names {
            let spot = Spot::word(&["filter", "rules"], name);
            let mut named = set.rules.iter().filter(|rule| is_of(rule, name)).peekable();
            if named.peek().is_none() {
                return Err(Fault::new(format!(
                    "a filter of `{name}`, and no such detection rule is loaded"
                ))
                .at(spot)
                .hint("name a rule by its `id` or `name`, or write `rules: any`"));
            }
            if !named.any(|rule| covers(filter, rule)) {
                warnings.push(
                    Fault::warning(format!(
                        "`{name}` has another log source: nothing is filtered"
                    ))
                    .at(spot),
                );
            }
        }
    }
    for rule in &mut set.rules {
        let is_meant = match &filter.rules {
            FilterRuleTarget::Any => true,
            FilterRuleTarget::Specific(names) => names.iter().any(|name| is_of(rule, name)),
        };
        if is_meant && covers(filter, rule) {
            join(rule, &condition, &document.digested);
        }
    }
    Ok(())
}

fn is_of(rule: &Rule, name: &str) -> bool {
    rule.id == name || rule.name == name
}

/// Whether all that a filter says of its log source is said by the rule.
fn covers(filter: &FilterRule, rule: &Rule) -> bool {
    let says = |wanted: &Option<String>, has: &Option<String>| match wanted {
        None => true,
        Some(wanted) => has.as_ref() == Some(&wanted.trim().to_lowercase()),
    };
    filter.logsource.as_ref().is_some_and(|wanted| {
        says(&wanted.product, &rule.logsource.product)
            && says(&wanted.category, &rule.logsource.category)
            && says(&wanted.service, &rule.logsource.service)
    })
}

fn join(rule: &mut Rule, filter: &Arc<Expr>, text: &str) {
    // What the rule needs, it needs with the exception too.
    let Compiled::Detection { condition, .. } = &mut rule.body else {
        return;
    };
    let own = std::mem::replace(condition, Expr::Any(Box::default()));
    *condition = Expr::all(vec![own, Expr::Shared(Arc::clone(filter))]);
    let reference = Arc::make_mut(&mut rule.reference);
    // Another condition is another rule: windows begin anew.
    reference.digest = digest_of(&[reference.digest.as_bytes(), text.as_bytes()]);
}
