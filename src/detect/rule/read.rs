//! Text → documents → the rule trees of the Sigma parser. What that parser would pass over in silence is
//! looked at here first, so that every fault is told. Nothing is compiled here.

use std::collections::HashMap;
use std::fmt;

use rsigma_parser::CorrelationRule;
use rsigma_parser::Modifier;
use rsigma_parser::SigmaRule;
use rsigma_parser::parse_condition;
use serde::Deserialize;
use serde::de::DeserializeSeed;
use serde::de::Error as _;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_yaml::Mapping;
use serde_yaml::Value;

use crate::alert::Severity;
use crate::detect::rule::RuleText;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Locator;
use crate::detect::rule::locate::Spot;
use crate::diagnostic::Diagnostic;
use crate::diagnostic::Place;
use crate::diagnostic::nearest;

/// A file larger than this is refused: the largest public rule has 20 KB.
pub const TEXT_BYTES_MAX: usize = 10 << 20;
/// A condition nested deeper is refused: the parser and the matcher walk it by recursion.
const CONDITION_DEPTH_MAX: usize = 30;
/// A longer condition is refused; the longest public one has 600 bytes.
const CONDITION_BYTES_MAX: usize = 16 << 10;
/// What aliases may make of a text: this many times its length, plus [`EXPANDED_BYTES_FREE`].
const EXPANDED_FACTOR_MAX: usize = 4;
const EXPANDED_BYTES_FREE: usize = 64 << 10;
/// A list of more entries is refused, so that one rule can't fill the memory.
const ENTRIES_MAX: usize = 1 << 20;

const MODIFIERS: &[&str] = &[
    "contains",
    "startswith",
    "endswith",
    "all",
    "base64",
    "base64offset",
    "wide",
    "utf16le",
    "utf16be",
    "utf16",
    "windash",
    "re",
    "cidr",
    "cased",
    "exists",
    "expand",
    "fieldref",
    "gt",
    "gte",
    "lt",
    "lte",
    "neq",
    "i",
    "m",
    "s",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "year",
];

#[derive(Debug)]
pub enum Body {
    Rule(Box<SigmaRule>),
    Correlation(Box<CorrelationRule>),
}

/// One document of a file, read.
#[derive(Debug)]
pub struct Document<'a> {
    pub file: &'a str,
    /// The whole file, for diagnostics.
    pub text: &'a str,
    /// Which document of the file, from 0.
    pub number: usize,
    /// What the digest is made of: the text of the document.
    pub digested: String,
    pub body: Body,
}

impl Document<'_> {
    pub fn tell(&self, fault: Fault) -> Diagnostic {
        Locator::new(self.file, self.text).tell(self.number, fault)
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
    let values = values(file, text, told);
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
                let body = read_document(&value, &digested)?;
                Ok(Some((digested, body)))
            }
        });
        match read {
            Ok(None) => {}
            Ok(Some((digested, (body, warnings)))) => {
                let document = Document {
                    file,
                    text,
                    number,
                    digested,
                    body,
                };
                told.extend(warnings.into_iter().map(|fault| document.tell(fault)));
                documents.push(document);
            }
            Err(fault) => told.push(Locator::new(file, text).tell(number, fault)),
        }
    }
    documents
}

/// Returns the documents as trees, up to the first that is no YAML.
fn values(file: &str, text: &str, told: &mut Vec<Diagnostic>) -> Vec<Value> {
    let fault = |error: &serde_yaml::Error| {
        let message = error.to_string();
        // The place is shown beside the line; the parser repeats it in its text.
        let message = message.split(" at line ").next().unwrap_or_default();
        let fault = Diagnostic::error(file, format!("no valid YAML: {message}"));
        match error.location() {
            Some(at) => fault.at(
                text,
                Place {
                    line: at.line().max(1),
                    column: at.column().max(1),
                },
                1,
            ),
            None => fault,
        }
    };
    // Only a text with an anchor can be made larger than it is.
    if text.contains('&') {
        for document in serde_yaml::Deserializer::from_str(text) {
            let budget = text
                .len()
                .saturating_mul(EXPANDED_FACTOR_MAX)
                .saturating_add(EXPANDED_BYTES_FREE);
            if let Err(error) = (Weigh {
                left: &mut { budget },
            })
            .deserialize(document)
            {
                told.push(fault(&error));
                return Vec::new();
            }
        }
    }
    let mut values = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        match Value::deserialize(document) {
            Ok(value) => values.push(value),
            Err(error) => {
                // After a fault the stream can't be followed any more.
                told.push(fault(&error));
                break;
            }
        }
    }
    values
}

/// Walks a document, aliases followed, and ends with an error when it gets too large.
struct Weigh<'b> {
    left: &'b mut usize,
}

impl Weigh<'_> {
    fn take<E: serde::de::Error>(&mut self, bytes: usize) -> Result<(), E> {
        match self.left.checked_sub(bytes.saturating_add(1)) {
            Some(left) => {
                *self.left = left;
                Ok(())
            }
            None => Err(E::custom(format_args!(
                "aliases make the document more than {EXPANDED_FACTOR_MAX} times as large as its text"
            ))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Weigh<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Weigh<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_bool<E: serde::de::Error>(mut self, _: bool) -> Result<(), E> {
        self.take(1)
    }

    fn visit_i64<E: serde::de::Error>(mut self, _: i64) -> Result<(), E> {
        self.take(8)
    }

    fn visit_u64<E: serde::de::Error>(mut self, _: u64) -> Result<(), E> {
        self.take(8)
    }

    fn visit_i128<E: serde::de::Error>(mut self, _: i128) -> Result<(), E> {
        self.take(16)
    }

    fn visit_u128<E: serde::de::Error>(mut self, _: u128) -> Result<(), E> {
        self.take(16)
    }

    fn visit_f64<E: serde::de::Error>(mut self, _: f64) -> Result<(), E> {
        self.take(8)
    }

    fn visit_str<E: serde::de::Error>(mut self, text: &str) -> Result<(), E> {
        self.take(text.len())
    }

    fn visit_unit<E: serde::de::Error>(mut self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_none<E: serde::de::Error>(mut self) -> Result<(), E> {
        self.take(1)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_newtype_struct<D: serde::Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        inner.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.take(1)?;
        while entries
            .next_element_seed(Weigh { left: self.left })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.take(1)?;
        while entries.next_key_seed(Weigh { left: self.left })?.is_some() {
            entries.next_value_seed(Weigh { left: self.left })?;
        }
        Ok(())
    }

    fn visit_enum<A: serde::de::EnumAccess<'de>>(self, _: A) -> Result<(), A::Error> {
        Err(A::Error::custom("a YAML tag, which no rule needs"))
    }
}

/// `action: global|reset|repeat` of rule collections.
#[derive(Default)]
struct Actions {
    global: Option<Value>,
    previous: Option<Value>,
}

impl Actions {
    /// Returns the document to read, and whether another was merged into it.
    fn apply(&mut self, mut value: Value) -> Result<Option<(Value, bool)>, Fault> {
        let Some(mapping) = value.as_mapping_mut() else {
            return Err(Fault::new("a rule is a mapping of keys to values")
                .hint("begin with `title: …`; see the Sigma specification"));
        };
        let action = mapping.remove("action");
        let base = match action.as_ref().map(Value::as_str) {
            None => self.global.clone(),
            Some(Some("global")) => {
                self.global = Some(value);
                return Ok(None);
            }
            Some(Some("reset")) => {
                self.global = None;
                return Ok(None);
            }
            Some(Some("repeat")) => match &self.previous {
                Some(previous) => Some(previous.clone()),
                None => {
                    return Err(Fault::new("`action: repeat` without a document before it")
                        .at(Spot::key(&["action"])));
                }
            },
            Some(_) => {
                return Err(Fault::new("an unknown `action`")
                    .at(Spot::key(&["action"]))
                    .label("expected one of `global`, `reset`, `repeat`"));
            }
        };
        let is_merged = base.is_some();
        let merged = match base {
            Some(base) => merge(base, value),
            None => value,
        };
        self.previous = Some(merged.clone());
        Ok(Some((merged, is_merged)))
    }
}

/// Puts `over` on `base`, mapping by mapping. Both came from a parser that ends at a depth of 128.
fn merge(base: Value, over: Value) -> Value {
    match (base, over) {
        (Value::Mapping(mut base), Value::Mapping(over)) => {
            for (key, value) in over {
                let value = match base.remove(&key) {
                    Some(below) => merge(below, value),
                    None => value,
                };
                base.insert(key, value);
            }
            Value::Mapping(base)
        }
        (_, over) => over,
    }
}

fn read_document(value: &Value, text: &str) -> Result<(Body, Vec<Fault>), Fault> {
    let Some(document) = value.as_mapping() else {
        return Err(Fault::new("a rule is a mapping of keys to values"));
    };
    let mut warnings = check_head(document)?;
    if document.contains_key("filter") {
        return Err(Fault::new("Sigma filters are not supported yet")
            .at(Spot::key(&["filter"]))
            .hint("put the exception into the rule's own condition: `and not filter`"));
    }
    if document.contains_key("correlation") {
        check_correlation(document)?;
    } else {
        check_rule(document)?;
    }
    let collection =
        rsigma_parser::parse_sigma_yaml(text).map_err(|error| Fault::new(error.to_string()))?;
    let rule = collection.rules.into_iter().next();
    let correlation = collection.correlations.into_iter().next();
    let body = match (rule, correlation) {
        (Some(rule), _) => Body::Rule(Box::new(rule)),
        (None, Some(correlation)) => Body::Correlation(Box::new(correlation)),
        (None, None) => {
            let said = collection.errors.into_iter().next();
            return Err(Fault::new(said.unwrap_or_else(|| "no rule".to_owned())));
        }
    };
    // What the parser minds without refusing, such as a malformed `related`.
    warnings.extend(collection.errors.into_iter().map(Fault::warning));
    Ok((body, warnings))
}

/// Checks what detection rules and correlations share; returns warnings.
fn check_head(document: &Mapping) -> Result<Vec<Fault>, Fault> {
    if let Some(key) = document.keys().find(|key| !key.is_string()) {
        return Err(Fault::new("a key that is no text").at(Spot::word(&[], &show(key))));
    }
    match document.get("title").map(Value::as_str) {
        Some(Some(title)) if !title.trim().is_empty() => {}
        Some(_) => {
            return Err(Fault::new("`title` must be a text").at(Spot::key(&["title"])));
        }
        None => {
            return Err(Fault::new("missing `title`").hint("a rule begins with `title: …`"));
        }
    }
    if let Some(id) = document.get("id")
        && !id.as_str().is_some_and(is_id)
    {
        return Err(
            Fault::new("`id` must be a text of at most 128 printable characters")
                .at(Spot::key(&["id"]))
                .hint("a UUID, such as uuidgen prints"),
        );
    }
    match document.get("level").map(Value::as_str) {
        None => {}
        Some(Some(level)) if level.parse::<Severity>().is_ok() => {}
        Some(level) => {
            let known = Severity::ALL.map(Severity::as_str);
            let near = nearest(level.unwrap_or_default(), known);
            return Err(Fault::new("an unknown level")
                .at(Spot::value(&["level"]))
                .label(format!("expected one of {}", known.join(", ")))
                .hint(near.map_or_else(String::new, |near| format!("did you mean `{near}`?"))));
        }
    }
    let version = document.get("sigma-version");
    if version.is_some_and(|version| {
        !matches!(
            rsigma_parser::version::major_from_value(version),
            Some(..=2)
        )
    }) {
        return Err(Fault::new("a version of Sigma that is not known here")
            .at(Spot::key(&["sigma-version"]))
            .hint("this engine reads Sigma 2; newer constructs would be misread"));
    }
    let misspelt = document.keys().filter_map(Value::as_str).filter_map(|key| {
        let near = nearest(key, HEAD_KEYS.iter().copied())?;
        (near != key).then(|| {
            Fault::warning(format!("unknown key `{key}`"))
                .at(Spot::key(&[key]))
                .hint(format!("did you mean `{near}`?"))
        })
    });
    Ok(misspelt.collect())
}

/// Keys that have a meaning; one near to them is most likely misspelt.
const HEAD_KEYS: &[&str] = &[
    "title",
    "id",
    "related",
    "name",
    "taxonomy",
    "status",
    "description",
    "license",
    "author",
    "references",
    "date",
    "modified",
    "logsource",
    "detection",
    "correlation",
    "generate",
    "fields",
    "falsepositives",
    "level",
    "tags",
    "scope",
    "x-title-vi",
    "x-advice",
    "x-advice-vi",
    "x-fold",
    "x-scope",
];

fn is_id(id: &str) -> bool {
    !id.trim().is_empty()
        && id.len() <= 128
        && id.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

fn check_rule(document: &Mapping) -> Result<(), Fault> {
    check_logsource(document)?;
    let detection = match document.get("detection") {
        Some(Value::Mapping(detection)) => detection,
        Some(_) => {
            return Err(Fault::new("`detection` must be a mapping").at(Spot::key(&["detection"])));
        }
        None => {
            return Err(Fault::new("missing `detection`")
                .hint("add `detection:` with a selection and a `condition:`"));
        }
    };
    let mut names = Vec::new();
    for (name, value) in detection {
        let Some(name) = name.as_str() else {
            let spot = Spot::word(&["detection"], &show(name));
            return Err(Fault::new("the name of a selection must be a text")
                .at(spot)
                .hint("put it in quotes"));
        };
        if name != "condition" && name != "timeframe" {
            names.push(name);
            check_selection(name, value)?;
        }
    }
    let Some(condition) = detection.get("condition") else {
        let near = nearest("condition", names.iter().copied());
        return Err(Fault::new("missing `condition`")
            .at(Spot::key(&["detection"]))
            .hint(match near {
                Some(near) => format!("did you mean `condition` by `{near}`?"),
                None => "add a line such as `condition: selection`".to_owned(),
            }));
    };
    let conditions = match condition {
        Value::Sequence(conditions) if !conditions.is_empty() => conditions.as_slice(),
        other => std::slice::from_ref(other),
    };
    conditions.iter().try_for_each(check_condition)
}

fn check_logsource(document: &Mapping) -> Result<(), Fault> {
    let Some(logsource) = document.get("logsource") else {
        return Err(Fault::new("missing `logsource`")
            .hint("say which events the rule is for: `logsource: {product: linux}`"));
    };
    let Some(logsource) = logsource.as_mapping().filter(|words| !words.is_empty()) else {
        return Err(
            Fault::new("`logsource` must be a mapping of product, category or service")
                .at(Spot::key(&["logsource"])),
        );
    };
    let known = ["product", "category", "service", "definition"];
    for (key, value) in logsource {
        let key = key.as_str().unwrap_or_default();
        if !known.contains(&key) {
            let near = nearest(key, known);
            return Err(Fault::new(format!("unknown key `{key}` in `logsource`"))
                .at(Spot::key(&["logsource", key]))
                .label("expected one of `product`, `category`, `service`")
                .hint(near.map_or_else(String::new, |near| format!("did you mean `{near}`?"))));
        }
        if !value.is_string() {
            return Err(
                Fault::new(format!("`{key}` must be a text")).at(Spot::key(&["logsource", key]))
            );
        }
    }
    Ok(())
}

fn check_selection(name: &str, value: &Value) -> Result<(), Fault> {
    let spot = Spot::key(&["detection", name]);
    match value {
        Value::Mapping(fields) => check_fields(name, fields),
        Value::Sequence(entries) if entries.is_empty() => {
            Err(Fault::new(format!("`{name}` is empty")).at(spot))
        }
        Value::Sequence(entries) => {
            for entry in entries {
                match entry {
                    Value::Mapping(fields) => check_fields(name, fields)?,
                    Value::Sequence(_) | Value::Tagged(_) => {
                        return Err(Fault::new("a list within a list").at(spot));
                    }
                    _ => {}
                }
            }
            check_length(entries.len(), spot)
        }
        Value::Tagged(_) => Err(Fault::new("a YAML tag, which no rule needs").at(spot)),
        Value::Null => Err(Fault::new(format!("`{name}` is empty")).at(spot)),
        _ => Ok(()),
    }
}

fn check_length(length: usize, spot: Spot) -> Result<(), Fault> {
    if length <= ENTRIES_MAX {
        return Ok(());
    }
    Err(Fault::new(format!(
        "a list of {length} entries; at most {ENTRIES_MAX} are read"
    ))
    .at(spot))
}

fn check_fields(name: &str, fields: &Mapping) -> Result<(), Fault> {
    let spot = Spot::key(&["detection", name]);
    if fields.is_empty() {
        return Err(Fault::new(format!("`{name}` is empty")).at(spot));
    }
    for (key, value) in fields {
        let Some(field) = key.as_str() else {
            return Err(Fault::new("a field's name must be a text")
                .at(Spot::word(&["detection", name], &show(key)))
                .hint("put it in quotes"));
        };
        let spot = Spot::word(&["detection", name], field);
        for modifier in field.split('|').skip(1) {
            check_modifier(modifier, spot.clone())?;
        }
        match value {
            Value::Sequence(values) => {
                if values.is_empty() {
                    return Err(Fault::new(format!("`{field}` has no value")).at(spot));
                }
                let is_deep = |value: &Value| {
                    matches!(
                        value,
                        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_)
                    )
                };
                if values.iter().any(is_deep) {
                    return Err(Fault::new(format!(
                        "a value of `{field}` is no text, number, truth value or null"
                    ))
                    .at(spot)
                    .hint("a text with `: ` or a leading `[`, `{`, `*`, `&`, `!` needs quotes"));
                }
                check_length(values.len(), spot)?;
            }
            Value::Mapping(_) | Value::Tagged(_) => {
                return Err(Fault::new(format!("a mapping as the value of `{field}`"))
                    .at(spot)
                    .hint("nested fields are written with dots: `outer.inner`"));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_modifier(modifier: &str, spot: Spot) -> Result<(), Fault> {
    if modifier.parse::<Modifier>().is_ok() {
        return Ok(());
    }
    let near = nearest(modifier, MODIFIERS.iter().copied());
    let hint = match (modifier, near) {
        ("not", _) => "negation stands in the condition: `selection and not filter`".to_owned(),
        (_, Some(near)) => format!("did you mean `{near}`?"),
        (_, None) => format!("known are {}", MODIFIERS.join(", ")),
    };
    Err(Fault::new(format!("unknown modifier `{modifier}`"))
        .at(spot.then(modifier))
        .hint(hint))
}

fn check_condition(condition: &Value) -> Result<(), Fault> {
    let spot = Spot::value(&["detection", "condition"]);
    let Some(text) = condition.as_str() else {
        return Err(Fault::new("a condition must be a text").at(spot));
    };
    if text.len() > CONDITION_BYTES_MAX {
        let message = format!(
            "a condition of {} bytes; at most {CONDITION_BYTES_MAX} are read",
            text.len()
        );
        return Err(Fault::new(message).at(spot));
    }
    if depth(text) > CONDITION_DEPTH_MAX {
        let message = format!("a condition nested deeper than {CONDITION_DEPTH_MAX}");
        return Err(Fault::new(message).at(spot));
    }
    if let Err(error) = parse_condition(text) {
        let fault = Fault::new(format!("a condition that can't be read: `{text}`")).at(spot);
        return Err(if text.contains('|') {
            fault.hint("counting after `|` is from Sigma 1; write a correlation rule")
        } else if ["AND", "OR", "NOT", "OF", "THEM"]
            .iter()
            .any(|word| text.contains(word))
        {
            fault.hint("write and, or, not, of, them in lower case")
        } else {
            let place = error.location().map_or(0, |at| at.col);
            fault
                .label(if place > 0 {
                    format!("at character {place}")
                } else {
                    String::new()
                })
                .hint("a condition is made of selections, and, or, not, ( ), `1 of name*`, `all of them`")
        });
    }
    Ok(())
}

/// Returns how deep parentheses and rows of `not` nest.
fn depth(condition: &str) -> usize {
    let (mut open, mut nots, mut deepest) = (0_usize, 0_usize, 0_usize);
    for word in condition
        .replace('(', " ( ")
        .replace(')', " ) ")
        .split_ascii_whitespace()
    {
        match word {
            "(" => open += 1,
            ")" => open = open.saturating_sub(1),
            _ => {}
        }
        nots = match word {
            "not" => nots + 1,
            "(" => nots,
            _ => 0,
        };
        deepest = deepest.max(open + nots);
    }
    deepest
}

fn check_correlation(document: &Mapping) -> Result<(), Fault> {
    let Some(correlation) = document.get("correlation").and_then(Value::as_mapping) else {
        return Err(Fault::new("`correlation` must be a mapping").at(Spot::key(&["correlation"])));
    };
    if document.contains_key("detection") {
        return Err(Fault::new("a document with `correlation` and `detection`")
            .at(Spot::key(&["correlation"]))
            .hint("put the correlation into a document of its own, behind `---`"));
    }
    let known = [
        "type",
        "rules",
        "group-by",
        "timespan",
        "timeframe",
        "condition",
        "aliases",
        "generate",
    ];
    for key in correlation.keys() {
        let key = key.as_str().unwrap_or_default();
        if !known.contains(&key) {
            let near = nearest(key, known);
            return Err(Fault::new(format!("unknown key `{key}` in `correlation`"))
                .at(Spot::key(&["correlation", key]))
                .label(format!("expected one of {}", known.join(", ")))
                .hint(near.map_or_else(String::new, |near| format!("did you mean `{near}`?"))));
        }
    }
    for key in ["rules", "group-by"] {
        let is_names = match correlation.get(key) {
            None | Some(Value::String(_)) => true,
            Some(Value::Sequence(names)) => names.iter().all(Value::is_string),
            Some(_) => false,
        };
        if !is_names {
            return Err(Fault::new(format!("`{key}` must be a list of names"))
                .at(Spot::key(&["correlation", key])));
        }
    }
    if correlation.get("condition").is_some_and(Value::is_string) {
        return Err(
            Fault::new("extended conditions of correlations are not supported yet")
                .at(Spot::value(&["correlation", "condition"]))
                .hint("write a count: `condition: {gte: 10}`"),
        );
    }
    check_threshold(correlation)
}

/// The parser would take a misspelt operator for none and a negative number for a huge one.
fn check_threshold(correlation: &Mapping) -> Result<(), Fault> {
    let Some(Value::Mapping(condition)) = correlation.get("condition") else {
        return Ok(());
    };
    let known = ["lt", "lte", "gt", "gte", "eq", "neq", "field", "percentile"];
    for (key, value) in condition {
        let key = key.as_str().unwrap_or_default();
        let spot = Spot::key(&["correlation", "condition", key]);
        if !known.contains(&key) {
            return Err(Fault::new(format!("unknown key `{key}` in `condition`"))
                .at(spot)
                .label(format!("expected one of {}", known.join(", "))));
        }
        if key != "field" && value.as_u64().is_none() {
            return Err(Fault::new(format!("`{key}` must be a whole number from 0")).at(spot));
        }
    }
    Ok(())
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

fn show(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim_end().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        other => format!("{other:?}"),
    }
}
