//! Looks at a document before the Sigma parser does: at what that would pass over in silence, and at what its
//! recursion would not survive. Says what is wrong, where, and what would be right.

use rsigma_parser::Modifier;
use rsigma_parser::parse_condition;
use serde_yaml::Mapping;
use serde_yaml::Value;

use crate::alert::Severity;
use crate::detect::rule::locate::Fault;
use crate::detect::rule::locate::Spot;
use crate::detect::rule::read::show;
use crate::diagnostic::nearest;

/// A condition nested deeper is refused: the parser and the matcher walk it by recursion.
const CONDITION_DEPTH_MAX: usize = 30;
/// A longer condition is refused; the longest public one has 600 bytes.
const CONDITION_BYTES_MAX: usize = 16 << 10;
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

/// Checks what detection rules and correlations share; returns warnings.
pub fn head(document: &Mapping) -> Result<Vec<Fault>, Fault> {
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
    let keys = document.keys().filter_map(Value::as_str);
    let unknown = keys.filter(|key| !HEAD_KEYS.contains(key));
    let misspelt = unknown.filter_map(|key| {
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
    "filter",
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

pub fn rule(document: &Mapping) -> Result<(), Fault> {
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
    check_detection(detection)
}

/// A filter is a detection that other rules' are joined with.
pub fn filter(document: &Mapping) -> Result<(), Fault> {
    check_logsource(document)?;
    let spot = Spot::key(&["filter"]);
    let Some(filter) = document.get("filter").and_then(Value::as_mapping) else {
        return Err(Fault::new("`filter` must be a mapping").at(spot));
    };
    let is_names = match filter.get("rules") {
        Some(Value::String(_)) => true,
        Some(Value::Sequence(names)) => !names.is_empty() && names.iter().all(Value::is_string),
        _ => false,
    };
    if !is_names {
        // The parser would take a missing list for every rule there is.
        return Err(Fault::new("a filter must say of which rules it is")
            .at(spot)
            .hint("`rules:` with ids or names, or `rules: any`"));
    }
    let mut detection = filter.clone();
    detection.remove("rules");
    check_detection(&detection).map_err(|fault| fault.under("filter"))
}

fn check_detection(detection: &Mapping) -> Result<(), Fault> {
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
    let spot = Spot::value(&["detection", "condition"]);
    let mut conditions = conditions.iter();
    conditions.try_for_each(|condition| check_expression(condition, spot.clone()))
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

fn check_expression(condition: &Value, spot: Spot) -> Result<(), Fault> {
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

pub fn correlation(document: &Mapping) -> Result<(), Fault> {
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
    if let Some(condition) = correlation
        .get("condition")
        .filter(|condition| condition.is_string())
    {
        let is_temporal = matches!(
            correlation.get("type").and_then(Value::as_str),
            Some("temporal" | "temporal_ordered")
        );
        if is_temporal {
            return check_expression(condition, Spot::value(&["correlation", "condition"]));
        }
        return Err(
            Fault::new("a condition over rules, where something is counted")
                .at(Spot::value(&["correlation", "condition"]))
                .hint("write a count: `condition: {gte: 10}`; rules are named in `type: temporal`"),
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
