//! A rule's tree → conditions over interned fields. Faults are told, not guessed around.

use std::collections::HashMap;
use std::sync::Arc;

use rsigma_parser::ConditionExpr;
use rsigma_parser::Detection;
use rsigma_parser::DetectionItem;
use rsigma_parser::Detections;
use rsigma_parser::FieldSpec;
use rsigma_parser::Quantifier;
use rsigma_parser::SelectorPattern;

use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;
use crate::detect::rule::matcher::Expr;
use crate::detect::rule::value;
use crate::diagnostic::nearest;
use crate::event::field::Fields;

/// How often a condition may name selections, `of` counted by what it stands for: bounds what one event costs.
const REFERENCES_MAX: usize = 10_000;

/// Compiles the detection of a rule or of a filter. Warnings go to `told`.
pub fn compile(
    detection: &Detections,
    fields: &mut Fields,
    told: &mut Vec<Fault>,
) -> Result<Expr, Fault> {
    let mut selections = HashMap::new();
    for (name, named) in &detection.named {
        let expr = selection(name, named, fields, told)?;
        selections.insert(name.as_str(), Arc::new(expr));
    }
    let mut conditions = Conditions {
        selections,
        references: 0,
    };
    if detection.timeframe.is_some() {
        told.push(
            Fault::warning("`timeframe` does nothing in a detection")
                .at(Spot::key(&["detection", "timeframe"]))
                .hint("counting within a time is a correlation rule"),
        );
    }
    // Several conditions: any of them.
    let any = detection
        .conditions
        .iter()
        .map(|condition| conditions.resolve(condition))
        .collect::<Result<Vec<_>, _>>()?;
    if any.is_empty() {
        return Err(Fault::new("missing `condition`").at(Spot::key(&["detection"])));
    }
    Ok(Expr::any(any))
}

fn selection(
    name: &str,
    detection: &Detection,
    fields: &mut Fields,
    told: &mut Vec<Fault>,
) -> Result<Expr, Fault> {
    match detection {
        Detection::AllOf(items) => {
            let parts = items
                .iter()
                .map(|item| value::compile(item, name, fields, told));
            Ok(Expr::all(parts.collect::<Result<_, _>>()?))
        }
        Detection::AnyOf(parts) => {
            let parts = parts.iter().map(|part| selection(name, part, fields, told));
            Ok(Expr::any(parts.collect::<Result<_, _>>()?))
        }
        Detection::And(parts) => {
            let parts = parts.iter().map(|part| selection(name, part, fields, told));
            Ok(Expr::all(parts.collect::<Result<_, _>>()?))
        }
        Detection::Keywords(values) => {
            let item = DetectionItem {
                field: FieldSpec::new(None, Vec::new()),
                values: values.clone(),
            };
            value::compile(&item, name, fields, told)
        }
        Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {
            Err(Fault::new("array selectors are not part of Sigma 2")
                .at(Spot::key(&["detection", name])))
        }
    }
}

struct Conditions<'r> {
    selections: HashMap<&'r str, Arc<Expr>>,
    references: usize,
}

impl Conditions<'_> {
    /// Walks a condition; its depth was bounded when it was read.
    fn resolve(&mut self, condition: &ConditionExpr) -> Result<Expr, Fault> {
        match condition {
            ConditionExpr::And(parts) => Ok(Expr::all(self.each(parts)?)),
            ConditionExpr::Or(parts) => Ok(Expr::any(self.each(parts)?)),
            ConditionExpr::Not(part) => Ok(Expr::Not(Box::new(self.resolve(part)?))),
            ConditionExpr::Identifier(name) => self.named(name),
            ConditionExpr::Selector {
                quantifier,
                pattern,
            } => self.selected(quantifier, pattern),
        }
    }

    fn each(&mut self, parts: &[ConditionExpr]) -> Result<Vec<Expr>, Fault> {
        parts.iter().map(|part| self.resolve(part)).collect()
    }

    fn named(&mut self, name: &str) -> Result<Expr, Fault> {
        let Some(selection) = self.selections.get(name) else {
            let near = nearest(name, self.selections.keys().copied());
            return Err(Fault::new(format!(
                "the condition names `{name}`, which is not defined"
            ))
            .at(in_condition(name))
            .hint(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => self.defined(),
            }));
        };
        let selection = Expr::Shared(Arc::clone(selection));
        self.count(1)?;
        Ok(selection)
    }

    fn selected(
        &mut self,
        quantifier: &Quantifier,
        pattern: &SelectorPattern,
    ) -> Result<Expr, Fault> {
        let mut names: Vec<_> = self
            .selections
            .keys()
            .copied()
            .filter(|name| match pattern {
                // A name that begins with `_` is reached by name only.
                SelectorPattern::Them => !name.starts_with('_'),
                SelectorPattern::Pattern(pattern) => fits(pattern, name),
            })
            .collect();
        names.sort_unstable();
        if names.is_empty() {
            return Err(Fault::new(format!("`{pattern}` stands for no selection"))
                .at(in_condition(&pattern.to_string()))
                .hint(self.defined()));
        }
        self.count(names.len())?;
        let parts: Vec<_> = names
            .iter()
            .filter_map(|name| self.selections.get(name))
            .map(|selection| Expr::Shared(Arc::clone(selection)))
            .collect();
        match quantifier {
            Quantifier::Any => Ok(Expr::any(parts)),
            Quantifier::All => Ok(Expr::all(parts)),
            Quantifier::Count(wanted) => match usize::try_from(*wanted) {
                Ok(wanted) if (1..=parts.len()).contains(&wanted) => {
                    Ok(Expr::AtLeast(wanted, parts.into()))
                }
                _ => Err(Fault::new(format!(
                    "`{wanted} of {pattern}`, which stands for {} selections",
                    parts.len()
                ))
                .at(in_condition(&pattern.to_string()))),
            },
        }
    }

    fn count(&mut self, references: usize) -> Result<(), Fault> {
        self.references += references;
        if self.references > REFERENCES_MAX {
            return Err(Fault::new(format!(
                "a condition that asks for more than {REFERENCES_MAX} selections"
            ))
            .at(Spot::key(&["detection", "condition"])));
        }
        Ok(())
    }

    fn defined(&self) -> String {
        let mut names: Vec<_> = self.selections.keys().copied().collect();
        names.sort_unstable();
        names.truncate(20);
        if names.is_empty() {
            "no selection is defined".to_owned()
        } else {
            format!("defined are {}", names.join(", "))
        }
    }
}

fn in_condition(word: &str) -> Spot {
    Spot::word(&["detection", "condition"], word)
}

/// Whether a name fits a pattern with any number of `*`.
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = name.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_selections() {
        for (pattern, name, expected) in [
            ("selection", "selection", true),
            ("selection", "selection_a", false),
            ("selection*", "selection", true),
            ("*_main", "selection_main", true),
            ("sel*main", "selection_main", true),
            ("s*l*n", "selection", true),
            ("s*x*n", "selection", false),
            ("a*a", "a", false),
            ("*", "anything", true),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
