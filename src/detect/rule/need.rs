//! What an event must have for a rule to match: a set of texts of which one must stand in a field. A rule is asked only
//! of events that meet one of its needs. Chosen so that ordinary events meet few.

use regex_syntax::hir::{Hir, HirKind};

use crate::detect::rule::frequency;
use crate::detect::rule::matcher::{Expr, Test};
use crate::detect::rule::pattern::fold;
use crate::event::field::{FieldId, Fields};

/// Where a needed text must stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    Whole,
    Start,
    End,
    Anywhere,
    /// The field is there, whatever it says.
    Present,
}

/// One text in lower case, in one field or (`None`) in the record as captured.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Need {
    pub field: Option<FieldId>,
    pub place: Place,
    pub text: Box<[u8]>,
}

/// One of these must be met; `cost` is how many of them an ordinary event is expected to meet.
#[derive(Debug)]
pub struct Needs {
    pub cost: f64,
    pub any: Vec<Need>,
}

/// Alternatives of a regular expression beyond which it is taken to have none.
const ALTERNATIVES_MAX: usize = 256;
/// What looking for one more text costs beside being met: it keeps a few frequent texts from losing to thousands.
const LOOK_COST: f64 = 1e-5;

/// Returns what a condition needs; `None` when it must be asked of every event.
pub fn of(condition: &Expr, fields: &Fields) -> Option<Needs> {
    match condition {
        Expr::All(parts) => {
            let each = parts.iter().filter_map(|part| of(part, fields));
            each.min_by(|a, b| a.cost.total_cmp(&b.cost))
        }
        Expr::Any(parts) | Expr::AtLeast(_, parts) => {
            let mut all = Needs {
                cost: 0.0,
                any: Vec::new(),
            };
            for part in parts {
                let needs = of(part, fields)?;
                all.cost += needs.cost;
                all.any.extend(needs.any);
            }
            (!parts.is_empty()).then_some(all)
        }
        Expr::Not(_) => None,
        Expr::Shared(part) => of(part, fields),
        Expr::Test(test) => of_test(test, fields),
    }
}

fn of_test(test: &Test, fields: &Fields) -> Option<Needs> {
    let priced = |any: Vec<Need>| {
        let cost = any.iter().map(|need| rate(need, fields) + LOOK_COST).sum();
        Needs { cost, any }
    };
    let present = |field: FieldId| {
        priced(vec![Need {
            field: Some(field),
            place: Place::Present,
            text: Box::default(),
        }])
    };
    match test {
        Test::Text {
            field, patterns, ..
        } => {
            let texts = patterns.needed();
            let texts = texts.map(|texts| needs(Some(*field), texts));
            let fallback = present(*field);
            Some(match texts.map(priced) {
                Some(texts) if texts.cost < fallback.cost => texts,
                _ => fallback,
            })
        }
        Test::Keyword { patterns, .. } => Some(priced(needs(None, patterns.needed()?))),
        Test::Regex { field, regex } => {
            let fallback = present(*field);
            let texts = of_regex(regex.as_str(), Some(*field)).map(priced);
            Some(match texts {
                Some(texts) if texts.cost < fallback.cost => texts,
                _ => fallback,
            })
        }
        Test::KeywordRegex(regex) => of_regex(regex.as_str(), None).map(priced),
        Test::Number { field, .. }
        | Test::Network { field, .. }
        | Test::Moment { field, .. }
        | Test::Reference { field, .. }
        | Test::Present(field) => Some(present(*field)),
        Test::Absent(_) => None,
    }
}

fn needs(field: Option<FieldId>, texts: Vec<(Place, Vec<u8>)>) -> Vec<Need> {
    texts
        .into_iter()
        .map(|(place, text)| Need {
            field,
            place,
            text: text.into(),
        })
        .collect()
}

/// How often ordinary events meet a need, from 0 to 1.
fn rate(need: &Need, fields: &Fields) -> f64 {
    let name = need.field.map_or("", |field| fields.name(field));
    frequency::rate(name, need.place, &need.text)
}

/// Returns texts of which one must stand in whatever a regular expression matches, in lower case.
pub fn of_regex(expression: &str, field: Option<FieldId>) -> Option<Vec<Need>> {
    let hir = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .build()
        .parse(expression)
        .ok()?;
    let texts = required(&hir)?;
    let usable = texts.iter().all(|text| !text.is_empty());
    usable.then(|| {
        let placed = texts.into_iter().map(|text| (Place::Anywhere, text));
        needs(field, placed.collect())
    })
}

/// Returns texts in lower case of which one must stand in the match.
fn required(hir: &Hir) -> Option<Vec<Vec<u8>>> {
    match hir.kind() {
        HirKind::Literal(_) | HirKind::Class(_) => Some(vec![sole(hir)?]),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repeated) if repeated.min > 0 => required(&repeated.sub),
        HirKind::Alternation(branches) => {
            let mut all = Vec::new();
            for branch in branches {
                all.extend(required(branch)?);
                if all.len() > ALTERNATIVES_MAX {
                    return None;
                }
            }
            Some(all)
        }
        HirKind::Concat(parts) => best_of(parts),
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => None,
    }
}

/// The best of what the parts need: of a run of neighbouring texts the whole run.
fn best_of(parts: &[Hir]) -> Option<Vec<Vec<u8>>> {
    let worth = |texts: &Vec<Vec<u8>>| texts.iter().map(Vec::len).min().unwrap_or(0);
    let mut best: Option<Vec<Vec<u8>>> = None;
    let mut run = Vec::new();
    let mut offer = |texts: Vec<Vec<u8>>| {
        if worth(&texts) > best.as_ref().map_or(0, worth) {
            best = Some(texts);
        }
    };
    for part in parts {
        if let Some(text) = sole(part) {
            run.extend(text);
            continue;
        }
        offer(vec![std::mem::take(&mut run)]);
        if let Some(texts) = required(part) {
            offer(texts);
        }
    }
    offer(vec![run]);
    best
}

/// Returns the one text in lower case that an expression matches, if its matches differ in case only.
fn sole(hir: &Hir) -> Option<Vec<u8>> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            // Only whole characters fold as they do within a longer text.
            let text = std::str::from_utf8(&literal.0).ok()?;
            Some(fold(text.as_bytes()))
        }
        HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
            let mut text: Option<Vec<u8>> = None;
            for range in class.ranges() {
                if u32::from(range.end()) - u32::from(range.start()) > 3 {
                    return None;
                }
                for c in range.start()..=range.end() {
                    let folded = fold(c.encode_utf8(&mut [0; 4]).as_bytes());
                    match &text {
                        Some(text) if *text != folded => return None,
                        Some(_) => {}
                        None => text = Some(folded),
                    }
                }
            }
            text
        }
        HirKind::Capture(capture) => sole(&capture.sub),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_expression_needs_its_longest_sure_text() {
        for (expression, texts) in [
            (r"powershell\.exe .*-enc", Some(&["powershell.exe "][..])),
            (r"(?i)INVOKE-\w+", Some(&["invoke-"])),
            // The long s is an s where case does not count, and no s in lower case.
            (r"(?i)sudo su", Some(&["udo "])),
            (r"(abcd|efgh)xyzzy+", Some(&["abcd", "efgh"])),
            (r"(abcd|x)?long(er)?", Some(&["long"])),
            (r"\d{4}", None),
            (r"a|b", None),
            (r"a\d|b\d", Some(&["a", "b"])),
            (r"^net(.*)user$", Some(&["user"])),
            (r"(?:curl|wget)+\s+http://", Some(&["http://"])),
            (r"[Aa][Bb][Cc][Dd]\d", Some(&["abcd"])),
        ] {
            let found = of_regex(expression, None).map(|needs| {
                let texts = needs.into_iter().map(|need| need.text.to_vec());
                texts
                    .map(|text| String::from_utf8(text).unwrap())
                    .collect::<Vec<_>>()
            });
            let wanted = texts.map(|texts| texts.iter().map(|t| (*t).to_owned()).collect());
            assert_eq!(found, wanted, "{expression}");
        }
    }
}
