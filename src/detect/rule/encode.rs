//! What a value looks like where an attacker wrote it otherwise: with other dashes, or in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsigma_parser::Modifier;

use crate::detect::rule::pattern::DASHES;
use crate::detect::rule::pattern::Step;

/// Makes each dash that begins a word stand for all five. `-a-b`: the first does, the second is part of the word.
pub fn with_dashes(steps: &[Step]) -> Vec<Step> {
    let mut dashed = Vec::new();
    for step in steps {
        let Step::Text(text) = step else {
            dashed.push(step.clone());
            continue;
        };
        let text = String::from_utf8_lossy(text);
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let mut before = None;
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let begins = !before.is_some_and(is_word) && rest.as_str().starts_with(is_word);
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes);
            if begins && DASHES.contains(&&*bytes) {
                dashed.push(Step::Dash);
            } else {
                dashed.push(Step::Text(bytes.as_bytes().to_vec()));
            }
            before = Some(c);
        }
    }
    dashed
}

/// How many spellings of one text are encoded: four dashes, each of five.
const SPELLINGS_MAX: usize = 625;

/// Spells each dash out before an encoding, which has no letter for all five; nothing when they are too many.
pub fn spelled(modifier: Modifier, patterns: Vec<Vec<Step>>) -> Option<Vec<Vec<Step>>> {
    use Modifier::{Base64, Base64Offset, Utf16, Utf16be, Wide};
    if !matches!(modifier, Base64 | Base64Offset | Utf16 | Utf16be | Wide) {
        return Some(patterns);
    }
    let mut done = Vec::new();
    for steps in patterns {
        let mut spellings = vec![Vec::new()];
        for step in steps {
            let forms = match step {
                Step::Dash => DASHES.map(|dash| Step::Text(dash.into())).to_vec(),
                other => vec![other],
            };
            if spellings.len() * forms.len() > SPELLINGS_MAX {
                return None;
            }
            spellings = spellings
                .iter()
                .flat_map(|begun| {
                    forms
                        .iter()
                        .map(|form| [begun, &[form.clone()][..]].concat())
                })
                .collect();
        }
        done.append(&mut spellings);
    }
    Some(done)
}

/// Returns what stands in base64 wherever these bytes stand in the clear text, at each of the three offsets:
/// without the characters that the neighbours have a part in.
pub fn base64_offsets(bytes: &[u8]) -> Vec<Vec<Step>> {
    let mut variants = Vec::new();
    for (offset, skipped) in [(0, 0), (1, 2), (2, 3)] {
        let mut padded = vec![b' '; offset];
        padded.extend_from_slice(bytes);
        let encoded = STANDARD.encode(&padded);
        let cut = match padded.len() % 3 {
            0 => 0,
            1 => 3,
            _ => 2,
        };
        let end = encoded.len().saturating_sub(cut);
        let kept = encoded.get(skipped..end).unwrap_or_default();
        if !kept.is_empty() {
            variants.push(vec![Step::Text(kept.as_bytes().to_vec())]);
        }
    }
    variants
}
