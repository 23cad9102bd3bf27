//! Text → documents → the rule trees of the Sigma parser. What that parser would pass over in silence is
//! looked at here first, so that every fault is told. Nothing is compiled here.

use std::collections::HashMap;
use std::rc::Rc;

use rsigma_parser::CorrelationRule;
use rsigma_parser::FilterRule;
use rsigma_parser::SigmaRule;
use serde::Deserialize;
use serde_yaml::Value;

use crate::detect::rule::RuleText;
use crate::detect::rule::action::Actions;
use crate::detect::rule::check;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Locator;
use crate::detect::rule::weigh;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;

/// A file larger than this is refused: the largest public rule has 20 KB.
pub const TEXT_BYTES_MAX: usize = 10 << 20;

#[derive(Debug)]
pub enum Body {
    Rule(Box<SigmaRule>),
    Correlation(Box<CorrelationRule>),
    Filter(Box<FilterRule>),
    /// A correlation that was refused: what it names stays silent all the same.
    Faulty {
        rules: Vec<String>,
        generate: bool,
    },
}

/// One document of a file, read.
#[derive(Debug)]
pub struct Document<'a> {
    pub file: &'a str,
    /// For diagnostics; one for all documents of the file.
    locator: Rc<Locator<'a>>,
    /// Which document of the file, from 0.
    pub number: usize,
    /// What the digest is made of: the text of the document.
    pub digested: String,
    pub body: Body,
}

impl Document<'_> {
    pub fn tell(&self, fault: Fault) -> Diagnostic {
        self.locator.tell(self.number, fault)
    }
}

/// Reads every document of a file; the faulty ones become diagnostics and are left out.
pub fn read<'a>(source: &RuleText<'a>, told: &mut Vec<Diagnostic>) -> Vec<Document<'a>> {
    let RuleText { file, text } = *source;
    if text.len() > TEXT_BYTES_MAX {
        let message = format!(
            "a rule file of {} bytes; at most {TEXT_BYTES_MAX} are read",
            text.len()
        );
        told.push(Diagnostic::error(file, message).hint("split it into several files"));
        return Vec::new();
    }
    let (values, sound) = values(file, text, told);
    let locator = Rc::new(Locator::new(file, text, sound));
    let single = values.len() == 1;
    let mut actions = Actions::default();
    let mut documents = Vec::new();
    for (number, value) in values.into_iter().enumerate() {
        if value.is_null() {
            continue; // nothing between two `---`
        }
        let read = actions.apply(value).and_then(|value| match value {
            None => Ok(None),
            Some((value, merged)) => {
                let digested = if single && !merged {
                    text.to_owned()
                } else {
                    serde_yaml::to_string(&value).map_err(|error| {
                        Fault::new(format!("a document that can't be written again: {error}"))
                    })?
                };
                let body = match read_document(&value, &digested) {
                    Ok(body) => body,
                    Err(fault) => (faulty(&value).ok_or_else(|| fault.clone())?, vec![fault]),
                };
                Ok(Some((digested, body)))
            }
        });
        match read {
            Ok(None) => {}
            Ok(Some((digested, (body, warnings)))) => {
                let document = Document {
                    file,
                    locator: Rc::clone(&locator),
                    number,
                    digested,
                    body,
                };
                told.extend(warnings.into_iter().map(|fault| document.tell(fault)));
                documents.push(document);
            }
            Err(fault) => told.push(locator.tell(number, fault)),
        }
    }
    documents
}

/// Returns the documents as trees, up to the first that is no YAML, and the text of those.
fn values<'a>(file: &str, text: &'a str, told: &mut Vec<Diagnostic>) -> (Vec<Value>, &'a str) {
    if let Err(place) = weigh::check_nesting(text) {
        let message = format!("nested deeper than {} levels", weigh::NESTING_MAX);
        told.push(Diagnostic::error(file, message).at(text, place, 1));
        return (Vec::new(), "");
    }
    if let Err(error) = weigh::check_aliases(text) {
        told.push(no_yaml(file, text, &error));
        return (Vec::new(), "");
    }
    let mut values = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(value) => values.push(value),
            Err(error) => {
                // After a fault the stream can't be followed any more.
                told.push(no_yaml(file, text, &error));
                let fault = error.location().map_or(0, |at| at.index());
                let before = text.get(..fault).unwrap_or_default();
                let sound = before.rfind("\n---").unwrap_or(0);
                return (values, text.get(..sound).unwrap_or_default());
            }
        }
    }
    (values, text)
}

fn no_yaml(file: &str, text: &str, error: &serde_yaml::Error) -> Diagnostic {
    let message = error.to_string();
    // The place is shown beside the line; the parser repeats it in its text.
    let message = message.split(" at line ").next().unwrap_or_default();
    let fault = Diagnostic::error(file, format!("no valid YAML: {message}"));
    let Some(at) = error.location() else {
        return fault;
    };
    let place = Place {
        line: at.line().max(1),
        column: at.column().max(1),
    };
    fault.at(text, place, 1)
}

fn read_document(value: &Value, text: &str) -> Result<(Body, Vec<Fault>), Fault> {
    let Some(document) = value.as_mapping() else {
        return Err(Fault::new("a rule is a mapping of keys to values"));
    };
    let mut warnings = check::head(document)?;
    if document.contains_key("filter") {
        check::filter(document)?;
    } else if document.contains_key("correlation") {
        check::correlation(document)?;
    } else {
        check::rule(document)?;
    }
    let collection =
        rsigma_parser::parse_sigma_yaml(text).map_err(|error| Fault::new(error.to_string()))?;
    let rule = collection.rules.into_iter().next();
    let correlation = collection.correlations.into_iter().next();
    let filter = collection.filters.into_iter().next();
    let body = match (rule, correlation, filter) {
        (Some(rule), _, _) => Body::Rule(Box::new(rule)),
        (None, Some(correlation), _) => Body::Correlation(Box::new(correlation)),
        (None, None, Some(filter)) => Body::Filter(Box::new(filter)),
        (None, None, None) => {
            let said = collection.errors.into_iter().next();
            return Err(Fault::new(said.unwrap_or_else(|| "no rule".to_owned())));
        }
    };
    // What the parser minds without refusing, such as a malformed `related`.
    warnings.extend(collection.errors.into_iter().map(Fault::warning));
    Ok((body, warnings))
}

/// Returns what can be said of a refused correlation.
fn faulty(document: &Value) -> Option<Body> {
    let correlation = document.get("correlation")?;
    let rules = match correlation.get("rules")? {
        Value::String(rule) => vec![rule.clone()],
        Value::Sequence(rules) => rules
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => return None,
    };
    let generate = |of: &Value| of.get("generate").and_then(Value::as_bool);
    Some(Body::Faulty {
        rules,
        generate: generate(correlation)
            .or_else(|| generate(document))
            .unwrap_or(false),
    })
}

/// Returns a custom key's text; a list becomes lines.
pub fn custom_text(custom: &HashMap<String, Value>, key: &str) -> String {
    custom_list(custom, key).join("\n")
}

pub fn custom_list(custom: &HashMap<String, Value>, key: &str) -> Vec<String> {
    match custom.get(key) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Sequence(entries)) => entries.iter().map(show).collect(),
        Some(value) => vec![show(value)],
    }
}

pub fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_end().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
