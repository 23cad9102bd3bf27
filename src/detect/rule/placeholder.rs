//! `expand`: the `%name%` of a value becomes each value of a list that the site gives (Sigma 2.1, appendix of modifiers).

use std::collections::BTreeMap;

use rsigma_parser::{Detection, Detections, Modifier, SigmaString, SigmaValue};

/// Lists of values, by the name that rules put between `%`.
pub type Placeholders = BTreeMap<String, Vec<String>>;

/// Values that one value may become: two lists in one value are each with each.
const VALUES_MAX: usize = 10_000;

/// Puts the lists into a detection. A name without a list stays, and is a fault where it is compiled. Returns whether
/// anything was put in.
pub fn expand(detections: &mut Detections, lists: &Placeholders) -> bool {
    let mut is_changed = false;
    for detection in detections.named.values_mut() {
        is_changed |= in_detection(detection, lists);
    }
    is_changed
}

fn in_detection(detection: &mut Detection, lists: &Placeholders) -> bool {
    let mut is_changed = false;
    match detection {
        Detection::AllOf(items) => {
            for item in items {
                if item.field.has_modifier(Modifier::Expand) {
                    is_changed |= in_values(&mut item.values, lists);
                }
            }
        }
        Detection::AnyOf(parts) | Detection::And(parts) => {
            for part in parts {
                is_changed |= in_detection(part, lists);
            }
        }
        // Keywords have no modifier; the rest is not Sigma 2 and refused later.
        Detection::Keywords(_) | Detection::ArrayMatch { .. } | Detection::Conditional { .. } => {}
    }
    is_changed
}

fn in_values(values: &mut Vec<SigmaValue>, lists: &Placeholders) -> bool {
    let mut is_changed = false;
    let mut expanded = Vec::with_capacity(values.len());
    for value in values.drain(..) {
        let SigmaValue::String(text) = &value else {
            expanded.push(value);
            continue;
        };
        match texts(&text.original, lists) {
            Some(texts) => {
                is_changed = true;
                let strings = texts
                    .iter()
                    .map(|text| SigmaValue::String(SigmaString::new(text)));
                expanded.extend(strings);
            }
            None => expanded.push(value),
        }
    }
    *values = expanded;
    is_changed
}

/// Returns what a text becomes; `None` when it names no list, or more than fits.
fn texts(text: &str, lists: &Placeholders) -> Option<Vec<String>> {
    let mut made = vec![String::new()];
    let mut rest = text;
    let mut is_changed = false;
    while let Some((before, list, after)) = next(rest, lists) {
        if made.len().saturating_mul(list.len()) > VALUES_MAX {
            return None;
        }
        made = made
            .iter()
            .flat_map(|begun| {
                list.iter()
                    .map(move |value| format!("{begun}{before}{value}"))
            })
            .collect();
        rest = after;
        is_changed = true;
    }
    for text in &mut made {
        text.push_str(rest);
    }
    is_changed.then_some(made)
}

/// Returns the next `%name%` that there is a list for, with what stands before and after it.
fn next<'t, 'l>(
    text: &'t str,
    lists: &'l Placeholders,
) -> Option<(&'t str, &'l [String], &'t str)> {
    let mut from = 0;
    loop {
        let open = from + text.get(from..)?.find('%')?;
        let name = text.get(open + 1..)?;
        let close = name.find('%')?;
        let (name, after) = (name.get(..close)?, name.get(close + 1..)?);
        if let Some(list) = lists.get(name) {
            return Some((text.get(..open)?, list, after));
        }
        from = open + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_of_a_list_takes_the_place_of_its_name() {
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let lists = Placeholders::from([
            ("Admins".to_owned(), list(&["root", "lan"])),
            ("Hosts".to_owned(), list(&["a", "b"])),
            ("Empty".to_owned(), list(&[])),
        ]);
        for (text, expected) in [
            ("%Admins%", Some(&["root", "lan"][..])),
            ("x-%Admins%-y", Some(&["x-root-y", "x-lan-y"])),
            (
                "%Admins%@%Hosts%",
                Some(&["root@a", "root@b", "lan@a", "lan@b"]),
            ),
            ("100 % of %Hosts%", Some(&["100 % of a", "100 % of b"])),
            ("%Empty%", Some(&[])),
            ("%Unknown%", None),
            ("%", None),
            ("plain", None),
        ] {
            let expected = expected.map(|texts| texts.iter().map(|t| (*t).to_owned()).collect());
            assert_eq!(texts(text, &lists), expected, "{text}");
        }
    }
}
