//! Which techniques of ATT&CK the rules speak of, as a layer of the Navigator (layer format 4.5).

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use crate::cli::pack::{self, RuleFile};
use crate::detect::rule::Placeholders;

/// Titles that a technique's comment names.
const TITLES_SHOWN: usize = 10;

/// Writes the layer: the score of a technique is how many rules name it. Faults go to stderr.
///
/// # Errors
/// When `out` takes no more.
pub fn coverage(
    files: &[RuleFile],
    placeholders: &Placeholders,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (ruleset, faults) = pack::compile_with(files, placeholders);
    crate::cli::tell(&faults);
    let mut techniques: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (_, rule) in ruleset.rules() {
        for technique in rule.reference.tags.iter().filter_map(|tag| technique(tag)) {
            let titles = techniques.entry(technique).or_default();
            titles.push(&rule.reference.title);
        }
    }
    let highest = techniques.values().map(Vec::len).max().unwrap_or(1);
    let entries: Vec<_> = techniques
        .iter()
        .map(|(id, titles)| {
            let named = titles.iter().take(TITLES_SHOWN).copied();
            json!({
                "techniqueID": id,
                "score": titles.len(),
                "comment": named.collect::<Vec<_>>().join("\n"),
                "showSubtechniques": true,
            })
        })
        .collect();
    let layer = json!({
        "name": "canhgac",
        "versions": {"layer": "4.5"},
        "domain": "enterprise-attack",
        "description": format!("{} rules, {} techniques", ruleset.len(), techniques.len()),
        "gradient": {"colors": ["#fff3c4", "#c0392b"], "minValue": 1, "maxValue": highest},
        "techniques": entries,
    });
    serde_json::to_writer_pretty(&mut *out, &layer)?;
    writeln!(out)?;
    Ok(())
}

/// Returns the technique that a tag names: `attack.t1059.001` is `T1059.001`.
fn technique(tag: &str) -> Option<String> {
    let id = tag.trim().to_ascii_lowercase();
    let number = id.strip_prefix("attack.t")?;
    let (technique, sub) = match number.split_once('.') {
        Some((technique, sub)) => (technique, Some(sub)),
        None => (number, None),
    };
    let is_number = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_sound = is_number(technique, 4) && sub.is_none_or(|sub| is_number(sub, 3));
    is_sound.then(|| format!("T{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_names_a_technique() {
        for (tag, expected) in [
            ("attack.t1059.001", Some("T1059.001")),
            ("attack.T1110", Some("T1110")),
            ("attack.execution", None),
            ("attack.t99", None),
            ("attack.t1059.1", None),
            ("cve.2021.4034", None),
        ] {
            assert_eq!(technique(tag).as_deref(), expected, "{tag}");
        }
    }

    #[test]
    fn the_layer_counts_rules_by_technique() {
        let mut out = Vec::new();
        coverage(&pack::embedded(), &Placeholders::new(), &mut out).unwrap();
        let layer: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let techniques = layer["techniques"].as_array().unwrap();
        let guessing = techniques
            .iter()
            .find(|entry| entry["techniqueID"] == "T1110.001")
            .unwrap();
        assert!(guessing["score"].as_u64().unwrap() >= 2, "{guessing}");
        assert_eq!(layer["versions"]["layer"], "4.5");
    }
}
