//! The matcher against an evaluator that is too simple to be wrong, and everything against hostile input.

use proptest::prelude::*;

use super::*;

/// One step of a pattern, read character by character.
#[derive(Debug, Clone, Copy, PartialEq)]
enum P {
    Char(char),
    One,
    Many,
    Dash,
}

fn parse(text: &str) -> Vec<P> {
    let chars: Vec<char> = text.chars().collect();
    let mut pattern = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('\\', Some(&next @ ('*' | '?' | '\\'))) => {
                pattern.push(P::Char(next));
                at += 1;
            }
            ('*', _) => pattern.push(P::Many),
            ('?', _) => pattern.push(P::One),
            (c, _) => pattern.push(P::Char(c)),
        }
        at += 1;
    }
    pattern
}

fn dashed(pattern: &[P]) -> Vec<P> {
    let is_word = |p: Option<&P>| matches!(p, Some(P::Char(c)) if c.is_alphanumeric() || *c == '_');
    let dash = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| pattern.get(at));
        matches!(
            pattern[at],
            P::Char('-' | '/' | '\u{2013}' | '\u{2014}' | '\u{2015}')
        ) && !is_word(before)
            && is_word(pattern.get(at + 1))
    };
    (0..pattern.len())
        .map(|at| if dash(at) { P::Dash } else { pattern[at] })
        .collect()
}

fn matches(pattern: &[P], text: &[char], is_cased: bool) -> bool {
    let lower = |c: char| {
        if is_cased {
            c
        } else {
            c.to_lowercase().next().unwrap()
        }
    };
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (None, Some(_)) => false,
        (Some((P::Many, rest)), None) => matches(rest, text, is_cased),
        (Some((P::Many, rest)), Some((_, after))) => {
            matches(rest, text, is_cased) || matches(pattern, after, is_cased)
        }
        (Some(_), None) => false,
        (Some((step, rest)), Some((c, after))) => {
            let fits = match step {
                P::Char(wanted) => lower(*wanted) == lower(*c),
                P::Dash => ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'].contains(c),
                _ => true,
            };
            fits && matches(rest, after, is_cased)
        }
    }
}

#[derive(Debug, Clone)]
struct Item {
    field: &'static str,
    modifiers: &'static [&'static str],
    values: Vec<Json>,
}

type Values = BTreeMap<&'static str, Vec<Json>>;

use std::collections::BTreeMap;

fn text_of(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Item {
    fn one(&self, wanted: &Json, event: &Values) -> bool {
        let Some(seen) = event.get(self.field) else {
            return wanted.is_null() || *wanted == json!(false) && self.modifiers == ["exists"];
        };
        if wanted.is_null() {
            return false;
        }
        let has = |modifier: &str| self.modifiers.contains(&modifier);
        if has("exists") {
            return *wanted == json!(true);
        }
        if has("gt") {
            let wanted = wanted.as_i64().unwrap();
            return seen.iter().any(|seen| {
                text_of(seen)
                    .trim()
                    .parse::<i64>()
                    .is_ok_and(|seen| seen > wanted)
            });
        }
        let mut pattern = parse(&text_of(wanted));
        if has("windash") {
            pattern = dashed(&pattern);
        }
        if has("contains") || has("endswith") {
            pattern.insert(0, P::Many);
        }
        if has("contains") || has("startswith") {
            pattern.push(P::Many);
        }
        seen.iter().any(|seen| {
            let text: Vec<char> = text_of(seen).chars().collect();
            matches(&pattern, &text, has("cased"))
        })
    }

    fn holds(&self, event: &Values) -> bool {
        let mut values = self.values.iter();
        if self.modifiers.contains(&"all") {
            values.all(|value| self.one(value, event))
        } else {
            values.any(|value| self.one(value, event))
        }
    }

    fn key(&self) -> String {
        let mut key = self.field.to_owned();
        for modifier in self.modifiers {
            key.push('|');
            key.push_str(modifier);
        }
        key
    }
}

#[derive(Debug, Clone)]
enum Condition {
    Name(usize),
    OneOf,
    AllOf,
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    fn text(&self) -> String {
        match self {
            Self::Name(name) => format!("s{name}"),
            Self::OneOf => "1 of s*".to_owned(),
            Self::AllOf => "all of them".to_owned(),
            Self::Not(part) => format!("not ({})", part.text()),
            Self::And(a, b) => format!("({}) and ({})", a.text(), b.text()),
            Self::Or(a, b) => format!("{} or ({})", a.text(), b.text()),
        }
    }

    fn holds(&self, selections: &[bool]) -> bool {
        match self {
            Self::Name(name) => selections[*name],
            Self::OneOf => selections.iter().any(|holds| *holds),
            Self::AllOf => selections.iter().all(|holds| *holds),
            Self::Not(part) => !part.holds(selections),
            Self::And(a, b) => a.holds(selections) && b.holds(selections),
            Self::Or(a, b) => a.holds(selections) || b.holds(selections),
        }
    }
}

const MODIFIERS: &[&[&str]] = &[
    &[],
    &["contains"],
    &["startswith"],
    &["endswith"],
    &["contains", "all"],
    &["cased"],
    &["contains", "cased"],
    &["windash", "contains"],
    &["contains", "windash", "all"],
    &["windash"],
];

fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => prop::sample::select(vec!["a", "b", "A", "B", "é", "É", "1", " "]),
        3 => prop::sample::select(vec!["*", "?", "\\", "-", "/", "\u{2013}", "\u{2015}"]),
    ];
    prop::collection::vec(part, 0..7).prop_map(|parts| parts.concat())
}

fn value() -> impl Strategy<Value = Json> {
    prop_oneof![
        8 => text().prop_map(Json::from),
        1 => (-3_i64..20).prop_map(Json::from),
        1 => any::<bool>().prop_map(Json::from),
    ]
}

fn item() -> impl Strategy<Value = Item> {
    let field = prop::sample::select(vec!["f", "g", "h"]);
    let texts = (
        prop::sample::select(MODIFIERS.to_vec()),
        // Sometimes enough for the search of many at once.
        prop_oneof![4 => prop::collection::vec(value(), 1..4), 1 => prop::collection::vec(value(), 8..12)],
    );
    let nulls = prop::collection::vec(prop_oneof![Just(json!(null)), value()], 1..3);
    let kinds = prop_oneof![
        8 => texts,
        1 => nulls.prop_map(|values| (&[][..], values)),
        1 => any::<bool>().prop_map(|truth| (&["exists"][..], vec![json!(truth)])),
        1 => (-2_i64..12).prop_map(|number| (&["gt"][..], vec![json!(number)])),
    ];
    (field, kinds).prop_map(|(field, (modifiers, values))| Item {
        field,
        modifiers,
        values,
    })
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        4 => (0_usize..3).prop_map(Condition::Name),
        1 => Just(Condition::OneOf),
        1 => Just(Condition::AllOf),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|part| Condition::Not(Box::new(part))),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| Condition::And(Box::new(a), Box::new(b))),
            (inner.clone(), inner).prop_map(|(a, b)| Condition::Or(Box::new(a), Box::new(b))),
        ]
    })
}

/// A selection is a list of maps; a map is a list of items with different keys.
fn selection() -> impl Strategy<Value = Vec<Vec<Item>>> {
    let map = prop::collection::vec(item(), 1..3).prop_map(|mut items| {
        items.dedup_by_key(|item| item.key());
        items
    });
    prop::collection::vec(map, 1..3)
}

fn seen() -> impl Strategy<Value = Values> {
    let values = prop::collection::vec(value(), 1..3);
    prop::collection::btree_map(prop::sample::select(vec!["f", "g", "h"]), values, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_matcher_equals_the_naive_one(
        selections in prop::collection::vec(selection(), 3),
        condition in condition(),
        events in prop::collection::vec(seen(), 1..5),
    ) {
        let mut detection = Map::new();
        for (n, maps) in selections.iter().enumerate() {
            let maps: Vec<Json> = maps
                .iter()
                .map(|items| {
                    let items = items.iter().map(|item| (item.key(), Json::from(item.values.clone())));
                    Json::Object(items.collect())
                })
                .collect();
            detection.insert(format!("s{n}"), Json::from(maps));
        }
        detection.insert("condition".to_owned(), Json::from(condition.text()));
        let rule = json!({"title": "t", "id": "r", "logsource": {"product": "p"}, "detection": detection});
        let (set, told) = compile(&rule.to_string());
        prop_assert!(told.is_empty(), "{}", told[0]);
        let mut scratch = Scratch::default();
        for seen in &events {
            let flat: Map<String, Json> =
                seen.iter().map(|(name, values)| ((*name).to_owned(), Json::from(values.clone()))).collect();
            let mut event = event(&flat, b"", set.fields());
            event.logsources = LogSources::of(Some("p"), &[], &[]);
            let mut hits = 0;
            set.matches(&event, &mut scratch, |_, _| hits += 1);
            let holding: Vec<bool> = selections
                .iter()
                .map(|maps| maps.iter().any(|items| items.iter().all(|item| item.holds(seen))))
                .collect();
            prop_assert_eq!(hits == 1, condition.holds(&holding), "{} over {:?}", rule, seen);
        }
    }
}

/// Pieces of which rules, and what is nearly a rule, are made.
const PIECES: &[&str] = &[
    "title: x\n",
    "id: r\n",
    "logsource:\n",
    "  product: linux\n",
    "detection:\n",
    "  condition: ",
    "  s:\n",
    "    f|contains: ",
    "    f|re: ",
    "    f|cidr: ",
    "    f|base64offset|windash: ",
    "    - ",
    "correlation:\n",
    "  type: event_count\n",
    "  rules: [r]\n",
    "  timespan: 5m\n",
    "  condition: {gte: 3}\n",
    "---\n",
    "...\n",
    "&a ",
    "*a",
    "!!str ",
    "!x ",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "[",
    "]",
    "{",
    "}",
    ": ",
    ", ",
    "\n",
    " ",
    "\t",
    "# c\n",
    "not ",
    "and ",
    "1 of ",
    "them",
    "s",
    "(",
    ")",
    "(?!a)",
    "\\1",
    "\\",
    "x{9999}",
    "%p%",
    "\u{0}",
    "\u{feff}",
    "é",
    "\u{2028}",
    "\r\n",
    "null",
    "~",
    "-1",
    "1e999",
    "0x",
    "2026-01-01",
    "<<: *a\n",
    "action: repeat\n",
    "action: global\n",
    "? ",
    "level: high\n",
];

const VALID: &str = "title: t\nid: r\nlevel: low\nlogsource: {product: linux}\ndetection:\n  s:\n    f|contains|all: [a, 'b*']\n    g|re: '^a+$'\n  k: [word, 7]\n  condition: s or 1 of k*\n---\ntitle: c\nid: c\ncorrelation:\n  type: value_count\n  rules: [r]\n  group-by: [f]\n  timespan: 1h\n  aliases: {x: {r: f}}\n  condition: {field: g, gte: 3}\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_compiler_panic(
        pieces in prop::collection::vec(prop::sample::select(PIECES.to_vec()), 0..40),
        cut in 0_usize..VALID.len(),
        kept in 0_usize..VALID.len(),
    ) {
        let inserted = pieces.concat();
        let (before, _) = VALID.split_at(cut);
        let (_, after) = VALID.split_at(kept);
        for text in [inserted.clone(), format!("{before}{inserted}{after}")] {
            let (set, told) = compile(&text);
            for told in told {
                prop_assert!(!told.to_string().is_empty());
            }
            let mut event = Event::new(b"a word");
            event.logsources = LogSources::of(Some("linux"), &[], &[]);
            set.matches(&event, &mut Scratch::default(), |_, _| {});
        }
    }

    #[test]
    fn no_event_makes_the_matcher_panic(
        raw in prop::collection::vec(any::<u8>(), 0..200),
        values in prop::collection::vec((0_usize..4, prop::collection::vec(any::<u8>(), 0..40), any::<i64>()), 0..10),
    ) {
        let text = rule("t:\n  f|contains: ['a?b*c', '\\*', é]\n  g|windash|endswith: '-x'\nn:\n  f|gt: 5\n  g|lt: 1.5\nr:\n  f|re: '\\w+$'\nc:\n  f|cidr: 10.0.0.0/8\nw:\n  f|week: 3\nx:\n  f|fieldref|contains: g\nk: ['\\u*', 'b?']\nu:\n  f|utf16|contains: 'a*b'\ncondition: all of them or not 1 of them");
        let (set, told) = compile(&text);
        prop_assert!(told.is_empty(), "{}", told[0]);
        let mut event = Event::new(&raw);
        event.logsources = LogSources::of(Some("linux"), &[], &[]);
        for (field, text, number) in &values {
            let field = set.fields().get(["f", "g", "h", "Image"][*field]);
            if let Some(field) = field {
                event.set(field, text.as_slice());
                event.set(field, *number);
            }
        }
        set.matches(&event, &mut Scratch::default(), |_, _| {});
    }
}
