//! What is odd about rules that load: fields that their log source does not have, conditions that decide nothing, and
//! what they cost. For their authors; an agent does not ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rsigma_parser::{Detection, SigmaRule};

use crate::detect::rule::compile;
use crate::detect::rule::locate::{Fault, Spot};
use crate::detect::rule::matcher::{Expr, Test};
use crate::detect::rule::need;
use crate::detect::rule::placeholder::{self, Placeholders};
use crate::detect::rule::read::{self, Body};
use crate::detect::rule::taxonomy::{CATEGORIES, WINDOWS};
use crate::detect::rule::{RuleText, Ruleset};
use crate::diagnostic::{Diagnostic, nearest};
use crate::event::field::{FieldId, Fields};

/// Selections whose every combination is tried: beyond it a condition is taken to be in order.
const SELECTIONS_TRIED: usize = 12;

/// Returns warnings about the rules of these texts that `set` holds.
pub fn lint(set: &Ruleset, texts: &[RuleText<'_>], placeholders: &Placeholders) -> Vec<Diagnostic> {
    let mut fields = set.fields().clone();
    let mut told = Vec::new();
    for text in texts {
        // Faults were told when the rules were compiled.
        for document in read::read(text, &mut Vec::new()) {
            let Body::Rule(rule) = &document.body else {
                continue;
            };
            let mut rule = rule.clone();
            placeholder::expand(&mut rule.detection, placeholders);
            let mut faults = unknown_fields(&rule);
            if let Ok(condition) = compile::compile(&rule.detection, &mut fields, &mut Vec::new()) {
                faults.extend(decided(&condition));
                faults.extend(costly(&condition, &fields));
            }
            told.extend(faults.into_iter().map(|fault| document.tell(fault)));
        }
    }
    told
}

fn unknown_fields(rule: &SigmaRule) -> Vec<Fault> {
    let category = rule.logsource.category.as_deref().map(str::trim);
    let category = CATEGORIES
        .iter()
        .find(|(name, _)| category.is_some_and(|own| own.eq_ignore_ascii_case(name)));
    let Some((category, known)) = category else {
        return Vec::new();
    };
    let mut asked = BTreeMap::new();
    for (selection, detection) in &rule.detection.named {
        names(detection, &mut |name| {
            asked
                .entry(name.to_owned())
                .or_insert_with(|| selection.clone());
        });
    }
    let all = || known.iter().chain(WINDOWS).copied();
    let unknown = asked
        .into_iter()
        .filter(|(name, _)| !all().any(|known| known == name));
    unknown
        .map(|(name, selection)| {
            let near = nearest(&name, all());
            let fault = Fault::warning(format!("events of {category} have no field `{name}`"))
                .at(Spot::word(&["detection", &selection], &name));
            match near {
                Some(near) => fault.hint(format!("did you mean `{near}`?")),
                None => fault,
            }
        })
        .collect()
}

fn names(detection: &Detection, on: &mut impl FnMut(&str)) {
    match detection {
        Detection::AllOf(items) => {
            for name in items.iter().filter_map(|item| item.field.name.as_deref()) {
                on(&rsigma_parser::fieldpath::unescape_brackets(name));
            }
        }
        Detection::AnyOf(parts) | Detection::And(parts) => {
            parts.iter().for_each(|part| names(part, on));
        }
        _ => {}
    }
}

/// Says when a condition is the same whatever is selected: every combination of the selections is tried.
fn decided(condition: &Expr) -> Option<Fault> {
    let mut selections = Vec::new();
    gather(condition, &mut selections);
    if selections.len() > SELECTIONS_TRIED {
        return None;
    }
    let never: Vec<bool> = selections
        .iter()
        .map(|selection| contradicts(selection))
        .collect();
    let (mut can_be, mut can_fail) = (false, false);
    for combination in 0_u32..1 << selections.len() {
        let holds = |at: usize| combination >> at & 1 == 1;
        if never
            .iter()
            .enumerate()
            .any(|(at, never)| *never && holds(at))
        {
            continue;
        }
        let value = |selection: &Arc<Expr>| {
            let at = selections
                .iter()
                .position(|known| Arc::ptr_eq(known, selection));
            at.is_some_and(holds)
        };
        match truth(condition, &value) {
            Some(true) => can_be = true,
            Some(false) => can_fail = true,
            None => return None,
        }
    }
    let place = Spot::key(&["detection", "condition"]);
    match (can_be, can_fail) {
        (false, _) => {
            Some(Fault::warning("this rule can't fire: its condition contradicts itself").at(place))
        }
        (true, false) => Some(
            Fault::warning("this rule always fires: its condition holds whatever is selected")
                .at(place),
        ),
        (true, true) => None,
    }
}

fn gather(condition: &Expr, selections: &mut Vec<Arc<Expr>>) {
    match condition {
        Expr::All(parts) | Expr::Any(parts) | Expr::AtLeast(_, parts) => {
            parts.iter().for_each(|part| gather(part, selections));
        }
        Expr::Not(part) => gather(part, selections),
        Expr::Shared(selection) => {
            if !selections.iter().any(|known| Arc::ptr_eq(known, selection)) {
                selections.push(Arc::clone(selection));
            }
        }
        Expr::Test(_) => {}
    }
}

/// `None` where something other than a selection decides.
fn truth(condition: &Expr, value: &impl Fn(&Arc<Expr>) -> bool) -> Option<bool> {
    match condition {
        Expr::All(parts) => parts
            .iter()
            .map(|part| truth(part, value))
            .try_fold(true, |all, part| Some(part? && all)),
        Expr::Any(parts) => parts
            .iter()
            .map(|part| truth(part, value))
            .try_fold(false, |any, part| Some(part? || any)),
        Expr::AtLeast(wanted, parts) => {
            let mut each = parts.iter().map(|part| truth(part, value));
            let held = each.try_fold(0_usize, |held, part| Some(held + usize::from(part?)))?;
            Some(held >= *wanted)
        }
        Expr::Not(part) => Some(!truth(part, value)?),
        Expr::Shared(selection) => Some(value(selection)),
        Expr::Test(_) => None,
    }
}

/// Whether a selection asks for a field that it also wants absent, or for one of no values.
fn contradicts(selection: &Expr) -> bool {
    match selection {
        Expr::All(parts) => {
            let (mut absent, mut asked) = (BTreeSet::new(), BTreeSet::new());
            for part in parts {
                match part {
                    Expr::Test(test) => match test.as_ref() {
                        Test::Absent(field) => _ = absent.insert(*field),
                        test => asked.extend(one_field(test)),
                    },
                    Expr::Not(part) => {
                        if let Expr::Test(test) = part.as_ref()
                            && let Test::Present(field) = test.as_ref()
                        {
                            absent.insert(*field);
                        }
                    }
                    part if contradicts(part) => return true,
                    _ => {}
                }
            }
            absent.intersection(&asked).next().is_some()
        }
        Expr::Any(parts) => parts.iter().all(contradicts),
        Expr::Shared(part) => contradicts(part),
        _ => false,
    }
}

fn one_field(test: &Test) -> Option<FieldId> {
    match test {
        Test::Text { field, .. }
        | Test::Regex { field, .. }
        | Test::Number { field, .. }
        | Test::Network { field, .. }
        | Test::Moment { field, .. }
        | Test::Reference { field, .. }
        | Test::Present(field) => Some(*field),
        Test::Absent(_) | Test::Keyword { .. } | Test::KeywordRegex(_) => None,
    }
}

fn costly(condition: &Expr, fields: &Fields) -> Vec<Fault> {
    let place = || Spot::key(&["detection"]);
    let mut faults = Vec::new();
    if need::of(condition, fields).is_none() {
        faults.push(
            Fault::warning("nothing need be in an event for this rule to fire: every event of its log source is asked")
                .at(place())
                .hint("a selection that asks for a value, beside the exceptions, makes it cheap"),
        );
    }
    let mut loose = BTreeSet::new();
    loose_expressions(condition, &mut loose);
    for expression in loose {
        faults.push(
            Fault::warning(format!(
                "the regular expression `{expression}` has no text that must stand in a match: it runs over every value"
            ))
            .at(place())
            .hint("ask beside it for a text with `contains`"),
        );
    }
    faults
}

fn loose_expressions(condition: &Expr, loose: &mut BTreeSet<String>) {
    match condition {
        Expr::All(parts) | Expr::Any(parts) | Expr::AtLeast(_, parts) => {
            parts.iter().for_each(|part| loose_expressions(part, loose));
        }
        Expr::Not(part) => loose_expressions(part, loose),
        Expr::Shared(part) => loose_expressions(part, loose),
        Expr::Test(test) => match test.as_ref() {
            Test::Regex { regex, .. } | Test::KeywordRegex(regex)
                if !need::has_text(regex.as_str()) =>
            {
                loose.insert(regex.as_str().to_owned());
            }
            _ => {}
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(category: &str, detection: &str) -> Vec<String> {
        let text = format!(
            "title: t\nid: r\nlogsource: {{category: {category}}}\ndetection:\n{detection}"
        );
        let texts = [RuleText {
            file: "a.yml",
            text: &text,
        }];
        let (set, told) = Ruleset::compile(&texts);
        assert_eq!((set.len(), told), (1, vec![]), "{text}");
        lint(&set, &texts, &Placeholders::new())
            .into_iter()
            .map(|told| told.to_string())
            .collect()
    }

    #[test]
    fn what_is_odd_is_told_with_its_place() {
        for (category, detection, expected) in [
            (
                "process_creation",
                "  s: {Image: a}\n  condition: s\n",
                None,
            ),
            (
                "process_creation",
                "  s: {Imagee: a}\n  condition: s\n",
                Some("have no field `Imagee`"),
            ),
            (
                "process_creation",
                "  s: {Imagee: a}\n  condition: s\n",
                Some("did you mean `Image`?"),
            ),
            (
                "own_application",
                "  s: {Imagee: a}\n  condition: s\n",
                None,
            ),
            (
                "file_event",
                "  s: {Image: a}\n  condition: s and not s\n",
                Some("can't fire"),
            ),
            (
                "file_event",
                "  s: {Image: a}\n  t: {User: b}\n  condition: s and not 1 of them\n",
                Some("can't fire"),
            ),
            (
                "file_event",
                "  s: {Image: a, Image|exists: false}\n  condition: s\n",
                Some("can't fire"),
            ),
            (
                "file_event",
                "  s:\n    Image: null\n    Image|contains: a\n  condition: s\n",
                Some("can't fire"),
            ),
            (
                "file_event",
                "  s: {Image: a}\n  condition: s or not s\n",
                Some("always fires"),
            ),
            (
                "file_event",
                "  s: {Image: a}\n  condition: not s\n",
                Some("every event of its log source is asked"),
            ),
            (
                "file_event",
                "  s: {Image|re: '\\d+'}\n  condition: s\n",
                Some("`\\d+` has no text"),
            ),
            (
                "file_event",
                "  s: {Image|re: 'abc\\d+'}\n  condition: s\n",
                None,
            ),
        ] {
            let said = said(category, detection);
            match expected {
                None => assert!(
                    said.iter()
                        .all(|said| !said.contains("field") && !said.contains("no text")),
                    "{detection}: {said:?}"
                ),
                Some(expected) => assert!(
                    said.iter().any(|said| said.contains(expected)),
                    "{detection}: {said:?}"
                ),
            }
        }
    }
}
