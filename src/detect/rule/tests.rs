use jiff::SignedDuration;
use jiff::Timestamp;
use serde_json::Map;
use serde_json::Value as Json;
use serde_json::json;

use super::*;
use crate::diagnostic::Weight;
use crate::event::Value;
use crate::event::logsource::LogSources;

mod corpora;
mod frequencies;
mod naive;

/// Returns a flat JSON object as an event: arrays repeat the field, nested names are joined by dots, null is absent.
pub fn event<'r>(flat: &'r Map<String, Json>, raw: &'r [u8], fields: &Fields) -> Event<'r> {
    let mut event = Event::new(raw);
    for (name, value) in flat {
        set(&mut event, fields, name, value);
    }
    event
}

fn set<'r>(event: &mut Event<'r>, fields: &Fields, name: &str, value: &'r Json) {
    match value {
        Json::Array(values) => {
            for value in values {
                set(event, fields, name, value);
            }
        }
        Json::Object(inner) => {
            for (key, value) in inner {
                set(event, fields, &format!("{name}.{key}"), value);
            }
        }
        _ => {
            let Some(id) = fields.get(name) else { return };
            match value {
                Json::String(text) => event.set(id, text.as_str()),
                Json::Number(number) => match number.as_i64() {
                    Some(number) => event.set(id, number),
                    None => event.set(id, number.to_string()),
                },
                Json::Bool(truth) => event.set(id, *truth),
                _ => {}
            }
        }
    }
}

/// `{product, category (text or list), service}`.
pub fn logsources<'r>(of: &Json) -> LogSources<'r> {
    let words = |key: &str| -> Vec<std::borrow::Cow<'r, str>> {
        match &of[key] {
            Json::String(word) => vec![word.clone().into()],
            Json::Array(words) => words
                .iter()
                .filter_map(|word| Some(word.as_str()?.to_owned().into()))
                .collect(),
            _ => Vec::new(),
        }
    };
    LogSources {
        product: words("product").into_iter().next(),
        also: None,
        categories: words("category").into_iter().collect(),
        services: words("service").into_iter().collect(),
    }
}

fn compile(text: &str) -> (Ruleset, Vec<Diagnostic>) {
    Ruleset::compile(&[RuleText {
        file: "r.yml",
        text,
    }])
}

fn rule(detection: &str) -> String {
    let detection: String = detection
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    format!("title: t\nid: r\nlogsource: {{product: linux}}\nlevel: low\ndetection:\n{detection}")
}

/// Whether a rule of this detection fires; panics with the diagnostics if it is refused.
fn fires(detection: &str, flat: &Json, raw: &str) -> bool {
    let (set, told) = compile(&rule(detection));
    assert!(
        set.len() == 1,
        "{detection}\n{}",
        told.iter().map(ToString::to_string).collect::<String>()
    );
    let flat = flat.as_object().unwrap();
    let mut event = event(flat, raw.as_bytes(), set.fields());
    event.logsources = LogSources::of(Some("linux"), &[], &[]);
    let mut hits = 0;
    set.matches(&event, &mut Scratch::default(), |_, _| hits += 1);
    hits == 1
}

/// One line under `s:`.
fn line(line: &str, flat: &Json) -> bool {
    fires(&format!("s:\n  {line}\ncondition: s"), flat, "")
}

fn refusal(detection: &str) -> Diagnostic {
    let (set, mut told) = compile(&rule(detection));
    assert!(set.is_empty(), "{detection} is taken");
    assert_eq!(told.len(), 1, "{detection}");
    told.remove(0)
}

#[test]
fn text_modifiers_match_as_sigma_says() {
    for (test, value, holds) in [
        ("f: abc", "ABC", true),
        ("f: abc", "abcd", false),
        ("f: ''", "", true),
        ("f: ''", "a", false),
        ("f: '*'", "", true),
        ("f: a*c", "aXXc", true),
        ("f: a?c", "abc", true),
        ("f: a?c", "ac", false),
        (r"f: 'a\*c'", "a*c", true),
        (r"f: 'a\*c'", "abc", false),
        (r"f: 'a\\*'", r"a\xyz", true),
        (r"f: 'a\\*'", "a*", false),
        (r"f: 'a\\\*'", r"a\*", true),
        (r"f: 'C:\Windows\x'", r"c:\windows\X", true),
        ("f|contains: b", "aBc", true),
        ("f|contains: b", "ac", false),
        ("f|contains: 'b?d'", "abcde", true),
        ("f|startswith: ab", "ABC", true),
        ("f|startswith: bc", "abc", false),
        ("f|endswith: bc", "aBC", true),
        ("f|endswith: ab", "abc", false),
        ("f|endswith: '1?'", "0x10", true),
        ("f|endswith: '1?'", "0x1", false),
        ("f|contains|all: [a, c]", "abc", true),
        ("f|contains|all: [a, d]", "abc", false),
        ("f|contains: [x, b]", "abc", true),
        ("f: [x, abc]", "abc", true),
        ("f|cased: abc", "abc", true),
        ("f|cased: abc", "Abc", false),
        ("f|contains|cased: B", "aBc", true),
        ("f|contains|cased: B", "abc", false),
        ("f: ĐÀ", "đà", true),
        ("f: '4625'", "4625", true),
        ("f: 4625", "4625", true),
        ("f: true", "True", true),
        ("f: 1.5", "1.50", true),
        ("f|contains: 62", "4625", true),
    ] {
        assert_eq!(
            line(test, &json!({ "f": value })),
            holds,
            "{test} over {value:?}"
        );
    }
}

#[test]
fn encodings_match_what_is_encoded() {
    for (test, value, holds) in [
        ("f|base64: foo", "Zm9v", true),
        ("f|base64|contains: foo", "xxZm9vxx", true),
        // base64 of "xfoo bar", "xxfoo bar", "foo bar" in a longer text
        ("f|base64offset|contains: foo bar", "Zm9vIGJhcg==", true),
        ("f|base64offset|contains: foo bar", "eGZvbyBiYXI=", true),
        ("f|base64offset|contains: foo bar", "eHhmb28gYmFy", true),
        ("f|base64offset|contains: foo bar", "Zm9vIGJheg==", false),
        ("f|wide|base64offset|contains: ping", "cABpAG4AZwA=", true),
        ("f|utf16le|base64: A", "QQA=", true),
        ("f|utf16be|base64: A", "AEE=", true),
        ("f|utf16|base64: A", "//5BAA==", true),
        ("f|wide|contains: ab", "xa\0b\0", true),
        ("f|wide|contains: ab", "ab", false),
    ] {
        assert_eq!(
            line(test, &json!({ "f": value })),
            holds,
            "{test} over {value:?}"
        );
    }
}

#[test]
fn windash_takes_each_of_the_five_dashes_for_any_other() {
    let dashes = ['-', '/', '\u{2013}', '\u{2014}', '\u{2015}'];
    for written in dashes {
        for seen in dashes {
            let test = format!("f|contains|windash: ' {written}accept'");
            let value = format!("run {seen}accept it");
            assert!(line(&test, &json!({ "f": value })), "{test} over {value}");
        }
    }
    for (test, value, holds) in [
        ("f|windash: '-a-b'", "/a-b", true),
        ("f|windash: '-a-b'", "-a/b", false),
        ("f|windash|contains: '--x'", "-/x", true),
        ("f|windash|contains: '--x'", "//x", false),
        ("f|windash: '-a'", "_a", false),
        ("f|windash|contains|all: ['-a', '/b']", "x /a -b", true),
        ("f|contains|windash: ' -p *x'", "cmd /p 12X", true),
        ("f|windash|base64: '-enc'", "4oCTZW5j", true),
        ("f|windash|base64: '-enc'", "L2VuYw==", true),
        ("f|windash|base64: '-enc'", "LmVuYw==", false),
        (
            "f|windash|base64offset|contains: '-enc'",
            "eCAvZW5jeA==",
            true,
        ),
        ("f|windash|wide|base64: '/enc '", "LQBlAG4AYwAgAA==", true),
    ] {
        assert_eq!(
            line(test, &json!({ "f": value })),
            holds,
            "{test} over {value:?}"
        );
    }
}

#[test]
fn too_many_dashes_before_an_encoding_are_refused() {
    for (dashes, told) in [(4, 0), (5, 1)] {
        let value = "-a ".repeat(dashes);
        let text = rule(&format!("s: {{f|windash|wide: '{value}'}}\ncondition: s"));
        assert_eq!(compile(&text).1.len(), told, "{value}");
    }
}

#[test]
fn regular_expressions_are_case_sensitive_and_unanchored() {
    for (test, value, holds) in [
        ("f|re: b+", "abbc", true),
        ("f|re: B+", "abbc", false),
        ("f|re|i: B+", "abbc", true),
        ("f|re: ^b", "a\nb", false),
        ("f|re|m: ^b", "a\nb", true),
        ("f|re: a.b", "a\nb", false),
        ("f|re|s: a.b", "a\nb", true),
        (r"f|re: '\d{3}'", "x123", true),
        ("f|re: [x, c$]", "abc", true),
        ("f|re|all: [a, d]", "abc", false),
    ] {
        assert_eq!(
            line(test, &json!({ "f": value })),
            holds,
            "{test} over {value:?}"
        );
    }
}

#[test]
fn numbers_networks_and_times_are_compared_as_such() {
    for (test, value, holds) in [
        ("f|gt: 10", json!(11), true),
        ("f|gt: 10", json!("11"), true),
        ("f|gt: 10", json!("9"), false),
        ("f|gt: 10", json!("x"), false),
        ("f|gte: 10", json!(10), true),
        ("f|lt: 10", json!(-1), true),
        ("f|lte: 10", json!("10.5"), false),
        (
            "f|lt: 9223372036854775807",
            json!(9_223_372_036_854_775_806_i64),
            true,
        ),
        ("f|gt: 0.5", json!(1), true),
        ("f|neq: 5", json!(6), true),
        ("f|neq: 5", json!("5"), false),
        ("f|neq: a", json!("A"), false),
        ("f|neq|all: [5, 6]", json!(6), false),
        ("f: 5", json!(5), true),
        ("f: 5", json!("05"), false),
        ("f: true", json!(true), true),
        ("f: true", json!(1), false),
        ("f|cidr: 10.0.0.0/8", json!("10.1.2.3"), true),
        ("f|cidr: 10.0.0.0/8", json!("11.1.2.3"), false),
        ("f|cidr: 10.0.0.0/8", json!("::ffff:10.1.2.3"), true),
        (
            "f|cidr: [192.168.0.0/16, 2001:db8::/32]",
            json!("2001:db8::1"),
            true,
        ),
        ("f|cidr: 10.1.2.3", json!("10.1.2.3"), true),
        ("f|cidr: 10.0.0.0/8", json!("10.1.2"), false),
        ("f|hour: 22", json!("2026-11-22T22:10:00Z"), true),
        ("f|hour|gte: 20", json!("2026-11-22 22:10:00.5"), true),
        ("f|hour|lt: 20", json!("2026-11-22 22:10:00"), false),
        ("f|minute: 10", json!("2026-11-22T22:10:00+07:00"), true),
        ("f|day: 22", json!("2026-11-22"), true),
        ("f|day: 22", json!("2026-11-2x"), false),
        ("f|day: 22", json!("2026-11-22T00:00:00"), true),
        ("f|week: 47", json!("2026-11-22T00:00:00Z"), true),
        ("f|month: 11", json!("2026-11-22T00:00:00Z"), true),
        ("f|year: 1970", json!(86_400), true),
        ("f|year: 2026", json!(1_790_000_000_000_i64), true),
    ] {
        assert_eq!(
            line(test, &json!({ "f": value })),
            holds,
            "{test} over {value}"
        );
    }
}

#[test]
fn absent_null_and_empty_are_three_things() {
    for (test, flat, holds) in [
        ("f: null", json!({}), true),
        ("f: null", json!({"f": ""}), false),
        ("f: ''", json!({}), false),
        ("f: [null, '']", json!({}), true),
        ("f: [null, '']", json!({"f": ""}), true),
        ("f: [null, '']", json!({"f": "a"}), false),
        ("f|exists: true", json!({"f": ""}), true),
        ("f|exists: true", json!({}), false),
        ("f|exists: false", json!({}), true),
        ("f|exists: false", json!({"f": "x"}), false),
        ("f|neq: 5", json!({}), false),
        ("f: '*'", json!({}), false),
    ] {
        assert_eq!(line(test, &flat), holds, "{test} over {flat}");
    }
}

#[test]
fn fields_can_be_compared_with_one_another() {
    for (test, f, g, holds) in [
        ("f|fieldref: g", json!("A"), json!("a"), true),
        ("f|fieldref: g", json!("A"), json!("b"), false),
        ("f|fieldref|cased: g", json!("A"), json!("a"), false),
        ("f|fieldref|startswith: g", json!("abc"), json!("AB"), true),
        ("f|fieldref|endswith: g", json!("abc"), json!("ab"), false),
        ("f|fieldref|contains: g", json!("abc"), json!("b"), true),
        ("f|fieldref: g", json!(["x", "y"]), json!(["z", "y"]), true),
        ("f|fieldref: g", json!("a"), json!(null), false),
    ] {
        let flat = json!({"f": f, "g": g});
        assert_eq!(line(test, &flat), holds, "{test} over {flat}");
    }
}

#[test]
fn one_matching_value_of_an_array_is_enough() {
    let flat = json!({"f": ["one", "two"], "g": {"h": ["x", 7]}});
    for (test, holds) in [
        ("f: two", true),
        ("f: three", false),
        ("f|contains|all: [on, tw]", true),
        ("f|contains|all: [on, th]", false),
        ("g.h: 7", true),
        ("g.h|gt: 6", true),
    ] {
        assert_eq!(line(test, &flat), holds, "{test}");
    }
    assert!(!fires("s:\n  f: one\ncondition: not s", &flat, ""));
}

#[test]
fn keywords_are_searched_in_the_record() {
    let flat = json!({"f": "only in a field"});
    let raw = r#"{"f":"C:\\temp \u0111\u00ea\"x\""} Failed PASSWORD for root"#;
    for (selection, holds) in [
        ("[failed password]", true),
        ("[nothing, for root]", true),
        ("[nothing]", false),
        (r"['C:\temp']", true),
        (r"['C:\\\temp']", true),
        ("['ĐÊ\"x']", true),
        ("['only in a field']", false),
        ("'failed*root'", true),
        ("'failed?root'", false),
        ("{'|all': [failed, root]}", true),
        ("{'|all': [failed, toor]}", false),
        ("{'|re': 'PASS\\w+'}", true),
        ("{'|re': 'pass\\w+'}", false),
        ("{'|cased': [PASSWORD]}", true),
        ("{'|cased': [password]}", false),
        ("[42]", false),
    ] {
        let detection = format!("s: {selection}\ncondition: s");
        assert_eq!(fires(&detection, &flat, raw), holds, "{selection}");
    }
    let keyword = "s: [f00]\ncondition: s";
    assert!(fires(keyword, &json!({}), "x F00 y"));
    assert!(!fires(keyword, &json!({}), ""));
}

#[test]
fn conditions_follow_the_sigma_grammar() {
    let selections = "sel_a: {f: a}\nsel_b: {g: b}\nsel_c: {h: c}\n_hidden: {f: z}\nmaps:\n  - f: a\n    g: x\n  - g: b";
    let flat = json!({"f": "a", "g": "b"});
    for (condition, holds) in [
        ("sel_a", true),
        ("sel_c", false),
        ("sel_a and not sel_c", true),
        ("sel_a and sel_c", false),
        ("sel_c or sel_a and sel_b", true),
        ("not (sel_a and sel_b)", false),
        ("not sel_c and not _hidden", true),
        ("1 of sel_*", true),
        ("any of sel_*", true),
        ("all of sel_*", false),
        ("2 of sel_*", true),
        ("3 of sel_*", false),
        ("1 of them", true),
        ("all of them", false),
        ("all of sel_a*", true),
        ("1 of _hid*", false),
        ("maps", true),
        ("[sel_c, sel_a]", true),
        ("[sel_c, _hidden]", false),
    ] {
        let detection = format!("{selections}\ncondition: {condition}");
        assert_eq!(fires(&detection, &flat, ""), holds, "{condition}");
    }
}

#[test]
fn an_event_meets_only_rules_of_its_log_source() {
    let make = |id: &str, logsource: &str| {
        format!(
            "title: t\nid: {id}\nlogsource: {logsource}\ndetection:\n  s: {{f: a}}\n  condition: s\n"
        )
    };
    let text = [
        make("linux", "{product: linux}"),
        make("sshd", "{product: linux, service: sshd}"),
        make("web", "{category: webserver}"),
        make("windows", "{product: windows}"),
    ]
    .join("---\n");
    let (set, told) = compile(&text);
    assert_eq!(told, []);
    let mut scratch = Scratch::default();
    let flat = json!({"f": "a"});
    for (logsource, expected) in [
        (
            LogSources::of(Some("linux"), &[], &["sshd", "auth"]),
            vec!["linux", "sshd"],
        ),
        (
            LogSources::of(Some("linux"), &["webserver"], &[]),
            vec!["linux", "web"],
        ),
        (LogSources::of(None, &[], &["sshd"]), vec![]),
    ] {
        let mut event = event(flat.as_object().unwrap(), b"", set.fields());
        event.logsources = logsource;
        let mut hits = Vec::new();
        set.matches(&event, &mut scratch, |_, rule| hits.push(rule.id.as_str()));
        assert_eq!(hits, expected);
    }
    // The scratch of one set does not carry its plans into another.
    let (other, _) = compile(&make("other", "{product: linux}"));
    let mut event = event(flat.as_object().unwrap(), b"", other.fields());
    event.logsources = LogSources::of(Some("linux"), &[], &["sshd", "auth"]);
    let mut hits = 0;
    other.matches(&event, &mut scratch, |_, _| hits += 1);
    assert_eq!(hits, 1);
}

#[test]
fn a_rule_carries_what_people_and_folding_need() {
    let text = "title: ' Title '\nname: base\nlogsource: {product: Linux}\nlevel: high\ntags: [attack.t1110]\ndescription: what\nfalsepositives: [none]\nx-title-vi: Tiêu đề\nx-advice:\n  - do this\n  - then that\nx-advice-vi: làm\nx-fold: [SourceIp, TargetUserName]\nx-scope: web\ndetection:\n  s: {SourceIp: 1}\n  condition: s\n";
    let (set, told) = compile(text);
    assert_eq!(told, []);
    let rule = set.rule(RuleIndex(0));
    assert_eq!(rule.reference.title, "Title");
    assert_eq!(rule.reference.level, Severity::High);
    assert_eq!(rule.reference.tags, ["attack.t1110"]);
    assert_eq!(rule.id, rule.reference.digest, "a rule without an id");
    assert_eq!(rule.logsource.product.as_deref(), Some("linux"));
    assert_eq!(rule.title_vi, "Tiêu đề");
    assert_eq!(rule.advice, "do this\nthen that");
    assert_eq!(rule.advice_vi, "làm");
    assert_eq!(rule.scope, ["web"]);
    let fold: Vec<_> = rule.fold.iter().map(|id| set.fields().name(*id)).collect();
    assert_eq!(fold, ["SourceIp", "TargetUserName"]);
    let again = compile(text).0;
    assert_eq!(again.digest(), set.digest());
    assert_eq!(again.rule(RuleIndex(0)).id, rule.id);
    assert_ne!(
        compile(&text.replace("what", "else")).0.digest(),
        set.digest()
    );
}

/// A detection, and of what it is told: the message, line and column, the hint.
type Told = (&'static str, &'static str, (usize, usize), &'static str);

const FAULTS: &[Told] = &[
    (
        "s: {f|contian: a}\ncondition: s",
        "unknown modifier `contian`",
        (6, 11),
        "did you mean `contains`?",
    ),
    (
        "s: {f|not: a}\ncondition: s",
        "unknown modifier `not`",
        (6, 11),
        "negation stands in the condition: `selection and not filter`",
    ),
    (
        "s: {f: a}",
        "missing `condition`",
        (5, 1),
        "add a line such as `condition: selection`",
    ),
    (
        "s: {f: a}\ncondtion: s",
        "missing `condition`",
        (5, 1),
        "did you mean `condition` by `condtion`?",
    ),
    (
        "sel: {f: a}\ncondition: sel and not flter\nfilter: {f: b}",
        "the condition names `flter`, which is not defined",
        (7, 28),
        "did you mean `filter`?",
    ),
    (
        "s: {f: a}\ncondition: 1 of x*",
        "`x*` stands for no selection",
        (7, 21),
        "defined are s",
    ),
    (
        "s: {f: a}\ncondition: s | count() > 5",
        "a condition that can't be read: `s | count() > 5`",
        (7, 16),
        "counting after `|` is from Sigma 1; write a correlation rule",
    ),
    (
        "s: {f: a}\ncondition: s AND s",
        "a condition that can't be read: `s AND s`",
        (7, 16),
        "write and, or, not, of, them in lower case",
    ),
    (
        "s:\n  f|re: 'a(?!b)c'\ncondition: s",
        "a regular expression with a look-ahead ((?=…) or (?!…))",
        (7, 14),
        "put it into a selection of its own: `selection and not filter`",
    ),
    (
        "s:\n  f|re: '(a)\\1'\ncondition: s",
        "a regular expression with a back-reference (\\1)",
        (7, 14),
        "compare two fields with `fieldref`, or write the repeated text out",
    ),
    (
        "s:\n  f|re: 'a{1000}{1000}'\ncondition: s",
        "a regular expression that needs more than 10485760 bytes compiled",
        (7, 14),
        r"shorten its repetitions: `\w{1,1000}` is a thousand steps",
    ),
    (
        "s:\n  f|cidr: 10.0.0/8\ncondition: s",
        "`10.0.0/8` is no network",
        (7, 15),
        "write 10.0.0.0/8 or 2001:db8::/32",
    ),
    (
        "s:\n  f|expand: '%admins%'\ncondition: s",
        "no list for the placeholder `%admins%`",
        (7, 18),
        "give its values in the configuration, `placeholders: {admins: [...]}`, or write them into the rule, without `expand`",
    ),
    ("s: []\ncondition: s", "`s` is empty", (6, 5), ""),
    ("s: {f: []}\ncondition: s", "`f` has no value", (6, 9), ""),
    (
        "s: {4624: a}\ncondition: s",
        "a field's name must be a text",
        (6, 9),
        "put it in quotes",
    ),
    ("s: {f|gt: x}\ncondition: s", "`x` is no number", (6, 9), ""),
    (
        "s: {f|exists: maybe}\ncondition: s",
        "`exists` needs true or false",
        (6, 9),
        "",
    ),
    (
        "s: {f|re|cidr: x}\ncondition: s",
        "two modifiers that exclude one another",
        (6, 9),
        "",
    ),
    (
        "s: {f|cidr|base64: x}\ncondition: s",
        "the modifier `base64` does not go with the others",
        (6, 9),
        "",
    ),
];

#[test]
fn a_fault_is_told_where_it_stands() {
    for (detection, message, place, hint) in FAULTS.iter().copied() {
        let told = refusal(detection);
        let at = told.place.map(|place| (place.line, place.column));
        assert_eq!(
            (told.message.as_str(), at, told.hint.as_str()),
            (message, Some(place), hint),
            "{detection}"
        );
        assert_eq!((told.weight, told.file.as_str()), (Weight::Error, "r.yml"));
    }
}

#[test]
fn a_fault_is_drawn_with_its_line_and_a_caret() {
    let told = refusal("s:\n  f|contian: a\ncondition: s");
    assert_eq!(
        told.to_string(),
        "error: unknown modifier `contian`\n --> r.yml:7:9\n  |\n7 |       f|contian: a\n  |         ^^^^^^^\nhint: did you mean `contains`?\n"
    );
}

#[test]
fn heads_are_checked_and_other_documents_stay() {
    let good = "title: good\nid: good\nlogsource: {product: linux}\ndetection:\n  s: {f: a}\n  condition: s\n";
    for (bad, message) in [
        ("- a list\n", "a rule is a mapping of keys to values"),
        ("title: x\nlogsource: {product: a}\n", "missing `detection`"),
        (
            "title: x\ndetection: {s: {f: a}, condition: s}\n",
            "missing `logsource`",
        ),
        (
            "title: x\nlogsource: {}\ndetection: {s: {f: a}, condition: s}\n",
            "`logsource` must be a mapping of product, category or service",
        ),
        (
            "title: x\nlogsource: {prodct: a}\ndetection: {s: {f: a}, condition: s}\n",
            "unknown key `prodct` in `logsource`",
        ),
        (
            "logsource: {product: a}\ndetection: {s: {f: a}, condition: s}\n",
            "missing `title`",
        ),
        (
            "title: x\nlevel: hihg\nlogsource: {product: a}\ndetection: {s: {f: a}, condition: s}\n",
            "an unknown level",
        ),
        (
            "title: x\nid: 7\nlogsource: {product: a}\ndetection: {s: {f: a}, condition: s}\n",
            "`id` must be a text of at most 128 printable characters",
        ),
        (
            "title: x\nsigma-version: 3\nlogsource: {product: a}\ndetection: {s: {f: a}, condition: s}\n",
            "a version of Sigma that is not known here",
        ),
        (
            "title: x\nfilter: {rules: any}\nlogsource: {product: a}\n",
            "missing `condition`",
        ),
    ] {
        let (set, told) = compile(&format!("{bad}---\n{good}"));
        let messages: Vec<_> = told.iter().map(|told| told.message.as_str()).collect();
        assert_eq!(messages, [message]);
        assert_eq!(set.by_id("good"), Some(RuleIndex(0)), "{bad}");
        assert_eq!(set.len(), 1);
    }
    let (set, told) = compile(&format!("{good}---\ntitle: [\n"));
    assert_eq!(set.len(), 1);
    assert!(
        told[0].message.starts_with("no valid YAML: "),
        "{}",
        told[0]
    );
    assert!(told[0].place.is_some());
}

#[test]
fn an_id_that_stands_twice_names_both_files() {
    let text = rule("s: {f: a}\ncondition: s");
    let (set, told) = Ruleset::compile(&[
        RuleText {
            file: "one.yml",
            text: &text,
        },
        RuleText {
            file: "two.yml",
            text: &text,
        },
    ]);
    assert_eq!(set.len(), 1);
    assert_eq!(set.rule(RuleIndex(0)).file, "one.yml");
    assert_eq!(
        told[0].message,
        "the id `r` stands in one.yml already; this rule of two.yml is left out"
    );
    assert_eq!(told[0].file, "two.yml");
}

#[test]
fn actions_merge_documents() {
    let text = "action: global\ntitle: t\nlogsource: {product: linux}\nlevel: low\ndetection:\n  condition: s\n---\nid: a\ndetection:\n  s: {f: a}\n---\nid: b\ndetection:\n  s: {f: b}\n---\naction: repeat\nid: c\nlogsource: {service: sshd}\n---\naction: reset\n---\nid: d\ntitle: no detection\n";
    let (set, told) = compile(text);
    let ids: Vec<_> = set.rules().map(|(_, rule)| rule.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(
        set.rule(RuleIndex(2)).logsource.service.as_deref(),
        Some("sshd")
    );
    assert_eq!(
        set.rule(RuleIndex(2)).logsource.product.as_deref(),
        Some("linux")
    );
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].message, "missing `logsource`");
}

#[test]
fn bombs_are_refused_in_bounded_time_and_memory() {
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for n in 1..10 {
        let below = vec![format!("*a{}", n - 1); 9].join(", ");
        laughs.push_str(&format!("a{n}: &a{n} [{below}]\n"));
    }
    let wide = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(100_000),
        vec!["*a"; 1000].join(", ")
    );
    let parens = rule(&format!(
        "s: {{f: a}}\ncondition: {}s{}",
        "(".repeat(5000),
        ")".repeat(5000)
    ));
    let nots = rule(&format!("s: {{f: a}}\ncondition: {}s", "not ".repeat(3000)));
    let brackets = rule(&format!(
        "s: {{f|re: '{}'}}\ncondition: s",
        "(".repeat(5000)
    ));
    let many: String = (0..200).map(|n| format!("s{n}: {{f: a}}\n")).collect();
    let references = rule(&format!(
        "{many}condition: {}",
        vec!["1 of s*"; 200].join(" or ")
    ));
    for (name, text) in [
        ("billion laughs", laughs),
        ("one large anchor", wide),
        ("deep flow", "[".repeat(1_000_000)),
        ("deep entries", "- ".repeat(1_000_000)),
        (
            "deep block",
            (0..3000)
                .map(|n| format!("{}a:\n", " ".repeat(n)))
                .collect(),
        ),
        ("too large", "#".repeat(read::TEXT_BYTES_MAX + 1)),
        ("parentheses", parens),
        ("nots", nots),
        ("brackets", brackets),
        ("references", references),
    ] {
        let (set, told) = compile(&text);
        assert!(set.is_empty(), "{name}");
        assert_eq!(told.len(), 1, "{name}");
    }
}

#[test]
fn a_file_of_many_faults_is_told_in_bounded_time() {
    let text = "title: x\n---\n".repeat(2000) + "title: [\n";
    let (set, told) = compile(&text);
    assert!(set.is_empty());
    assert_eq!(told.len(), 2001);
    assert!(
        told.last()
            .is_some_and(|told| told.message == "missing `logsource`")
    );
}

#[test]
fn too_many_fields_leave_the_rule_out_not_the_set() {
    let fields: String = (0..3000).map(|n| format!("  f{n}: a\n")).collect();
    let large = rule(&format!("s:\n{fields}condition: s"));
    let (set, told) = compile(&format!(
        "{large}---\n{}",
        rule("s: {Image: a}\ncondition: s").replace("id: r", "id: q")
    ));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].message, "more than 2048 distinct field names");
    assert!(set.by_id("q").is_some());
}

#[test]
fn a_value_of_a_megabyte_and_a_thousand_fields_are_bounded() {
    let (set, _) = compile(&rule("s: {f|contains: needle}\ncondition: s"));
    let mut hits = 0;
    let mut scratch = Scratch::default();
    let large = format!("{}NEEDLE", "x".repeat(8 << 20));
    let mut event = Event::new(b"");
    event.logsources = LogSources::of(Some("linux"), &[], &[]);
    let field = set.fields().get("f").unwrap();
    event.set(field, large.as_str());
    for _ in 0..2000 {
        event.set(field, Value::Int(1));
    }
    set.matches(&event, &mut scratch, |_, _| hits += 1);
    assert_eq!(hits, 1);
}

const BASE: &str = "title: failed\nname: failed\nid: base\nlogsource: {product: linux}\ndetection:\n  s: {f: a}\n  condition: s\n";

fn correlation(lines: &str) -> String {
    format!(
        "{BASE}---\ntitle: many\nid: many\nlevel: high\ncorrelation:\n  type: event_count\n  rules: [failed]\n  group-by: [SourceIp]\n  timespan: 5m\n  condition: {{gte: 10}}\n{lines}"
    )
}

#[test]
fn a_correlation_knows_its_bases_and_silences_them() {
    let (set, told) = compile(&correlation(""));
    assert_eq!(told, []);
    let base = set.by_id("base").unwrap();
    let many = set.by_id("many").unwrap();
    assert!(set.rule(base).silent);
    assert!(!set.rule(many).silent);
    assert_eq!(set.feeds(base), [(many, 0)]);
    let names: Vec<_> = set
        .group_fields(base)
        .iter()
        .map(|(name, _)| &**name)
        .collect();
    assert_eq!(names, ["SourceIp"]);
    let (index, correlation) = set.correlations().next().unwrap();
    assert_eq!(index, many);
    assert_eq!(correlation.timespan, SignedDuration::from_mins(5));
    assert_eq!(correlation.predicates, [(Comparison::GreaterEqual, 10)]);
    let loud = compile(&super::tests::correlation("generate: true\n")).0;
    assert!(!loud.rule(loud.by_id("base").unwrap()).silent);
    let other = compile(&super::tests::correlation("").replace("{f: a}", "{f: b}")).0;
    assert_ne!(
        other.rule(other.by_id("many").unwrap()).reference.digest,
        set.rule(many).reference.digest,
        "another base is another correlation"
    );
}

#[test]
fn aliases_and_correlations_over_correlations_pass_fields_down() {
    let text = format!(
        "{}---\ntitle: over\nid: over\ncorrelation:\n  type: value_count\n  rules: many\n  group-by: [ip]\n  timespan: 1h\n  aliases:\n    ip: {{many: SourceIp}}\n  condition: {{gt: 2, field: User}}\n",
        correlation("")
    );
    let (set, told) = compile(&text);
    assert_eq!(told, []);
    let names: Vec<_> = set
        .group_fields(set.by_id("base").unwrap())
        .iter()
        .map(|(name, _)| &**name)
        .collect();
    assert_eq!(names, ["SourceIp", "User"]);
    assert!(set.rule(set.by_id("many").unwrap()).silent);
    let (_, over) = set.correlations().last().unwrap();
    assert_eq!(over.bases[0].group, ["SourceIp".into()]);
    assert_eq!(over.bases[0].values, ["User".into()]);
}

#[test]
fn broken_correlations_are_told_and_what_they_name_stays_silent() {
    let text = correlation("");
    for (from, to, message) in [
        (
            "event_count",
            "temporal_ordered",
            "an order of rules with a count",
        ),
        (
            "[failed]",
            "[faild]",
            "a correlation over `faild`, and no such rule is loaded",
        ),
        (
            "[failed]",
            "[many]",
            "correlations that wait for one another, or for a refused one",
        ),
        ("[failed]", "[]", "a correlation without `rules`"),
        ("gte: 10", "gte: -1", "`gte` must be a whole number from 0"),
        ("gte: 10", "get: 1", "unknown key `get` in `condition`"),
        (
            "gte: 10",
            "gte: 10, lt: 5",
            "a condition that no count fulfils",
        ),
        (
            "gte: 10",
            "gte: 20000",
            "a count to 20000; at most 10000 events are kept",
        ),
        (
            "{gte: 10}",
            "a and b",
            "a condition over rules, where something is counted",
        ),
        (
            "event_count",
            "value_count",
            "`value_count` needs the field to count",
        ),
        ("5m", "0s", "a window of 0s; it must be from 1s to 366d"),
        (
            "group-by",
            "groupby",
            "unknown key `groupby` in `correlation`",
        ),
    ] {
        let (set, told) = compile(&text.replace(from, to));
        assert_eq!(told.len(), 1, "{to}");
        assert_eq!(told[0].message, message);
        assert!(told[0].place.is_some(), "{to}: {}", told[0]);
        assert_eq!(set.len(), 1, "{to}");
        let names_base = !["[faild]", "[many]", "[]"].contains(&to);
        assert_eq!(
            set.rule(set.by_id("base").unwrap()).silent,
            names_base,
            "{to}"
        );
        let (set, _) = compile(&text.replace(from, &format!("{to}\n  generate: true")));
        assert!(!set.rule(set.by_id("base").unwrap()).silent, "{to}");
    }
    let (set, told) = compile(&text.replace("gte: 10", "lt: 10"));
    assert_eq!(set.len(), 2);
    assert_eq!(told[0].weight, Weight::Warning);
}

fn together(kind: &str, condition: &str) -> (Ruleset, Vec<Diagnostic>) {
    let other = BASE.replace("failed", "entered").replace("base", "other");
    compile(&format!(
        "{BASE}---\n{other}---\ntitle: both\nid: both\ncorrelation:\n  type: {kind}\n  rules: [failed, entered]\n  group-by: [ip]\n  timespan: 5m\n  aliases:\n    ip: {{failed: SourceIp, entered: ClientIp}}\n{condition}"
    ))
}

#[test]
fn a_temporal_correlation_names_its_rules_and_asks_for_all() {
    for kind in ["temporal", "temporal_ordered"] {
        let (set, told) = together(kind, "");
        assert_eq!(told, [], "{kind}");
        let (_, both) = set.correlations().next().unwrap();
        assert_eq!(both.predicates, [(Comparison::GreaterEqual, 2)]);
        assert_eq!(both.bases[1].group, ["ClientIp".into()]);
        for base in ["base", "other"] {
            assert!(set.rule(set.by_id(base).unwrap()).silent);
        }
    }
    use Presence::{All, AtLeast, Not, Seen};
    for (condition, presence) in [
        ("failed and entered", All(vec![Seen(0), Seen(1)])),
        ("all of them", AtLeast(2, vec![Seen(0), Seen(1)])),
        (
            "entered and not failed",
            All(vec![Seen(1), Not(Box::new(Seen(0)))]),
        ),
        ("1 of fail*", AtLeast(1, vec![Seen(0)])),
    ] {
        let (set, told) = together("temporal", &format!("  condition: {condition}\n"));
        assert!(told.iter().all(|told| told.weight == Weight::Warning));
        let (_, both) = set.correlations().next().unwrap();
        assert_eq!(both.presence.as_ref(), Some(&presence), "{condition}");
    }
    for (kind, condition, message) in [
        (
            "temporal",
            "entred and failed",
            "the condition names `entred`, which `rules` does not",
        ),
        ("temporal", "{gte: 3}", "a condition that no count fulfils"),
        (
            "temporal",
            "{gte: 2, field: User}",
            "a temporal correlation is over rules, not values of a field",
        ),
        (
            "temporal",
            "1 of none*",
            "`of none*`, which stands for 0 rules",
        ),
        (
            "temporal_ordered",
            "failed and entered",
            "an order of rules with a condition over them",
        ),
        (
            "temporal",
            "failed and and",
            "a condition that can't be read: `failed and and`",
        ),
    ] {
        let (set, told) = together(kind, &format!("  condition: {condition}\n"));
        assert_eq!(told.len(), 1, "{condition}: {told:?}");
        assert_eq!(told[0].message, message);
        assert!(told[0].place.is_some(), "{condition}");
        assert_eq!(set.len(), 2);
    }
}

#[test]
fn a_filter_is_joined_to_the_rules_that_it_names() {
    let filter = |logsource: &str, lines: &str| {
        format!(
            "{BASE}---\ntitle: not ours\nlogsource: {{{logsource}}}\nfilter:\n  selection: {{User: backup}}\n  condition: not selection\n{lines}"
        )
    };
    // As one of several documents.
    let plain = compile(&format!("{BASE}---\n")).0;
    for (text, holds) in [
        (filter("product: linux", "  rules: [base]\n"), false),
        (filter("product: linux", "  rules: failed\n"), false),
        (filter("product: Linux", "  rules: any\n"), false),
        (filter("product: windows", "  rules: any\n"), true),
        (
            filter("product: linux, service: sshd", "  rules: any\n"),
            true,
        ),
    ] {
        let (set, told) = compile(&text);
        assert_eq!(told, [], "{text}");
        let hits = |user: &str| {
            let mut event = Event::new(b"");
            event.logsources = LogSources::of(Some("linux"), &[], &[]);
            event.set(set.fields().get("f").unwrap(), "a");
            if !user.is_empty() {
                event.set(set.fields().get("User").unwrap(), user);
            }
            let mut hits = 0;
            set.matches(&event, &mut Scratch::default(), |_, _| hits += 1);
            hits == 1
        };
        assert_eq!(hits("backup"), holds, "{text}");
        assert!(hits("lan") && hits(""), "{text}");
        assert_eq!(set.digest() == plain.digest(), holds, "{text}");
    }
}

#[test]
fn broken_filters_are_told_and_filter_nothing() {
    for (lines, message) in [
        ("", "a filter must say of which rules it is"),
        ("  rules: []\n", "a filter must say of which rules it is"),
        (
            "  rules: [bse]\n",
            "a filter of `bse`, and no such detection rule is loaded",
        ),
        (
            "  rules: any\n  s2: {a|contain: b}\n",
            "unknown modifier `contain`",
        ),
        ("  rules: any\n  s2: {a|re: '('}\n", ""),
    ] {
        let (set, told) = compile(&format!(
            "{BASE}---\ntitle: t\nlogsource: {{product: linux}}\nfilter:\n  s: {{User: x}}\n  condition: not s\n{lines}"
        ));
        assert_eq!(told.len(), 1, "{lines}");
        assert!(told[0].message.starts_with(message), "{}", told[0]);
        assert!(
            told[0].place.is_some_and(|place| place.line > 8),
            "{}",
            told[0]
        );
        let plain = compile(&format!("{BASE}---\n")).0;
        assert_eq!(set.digest(), plain.digest());
    }
    let (_, told) = compile(&format!(
        "{BASE}---\ntitle: t\nlogsource: {{product: windows}}\nfilter:\n  rules: base\n  s: {{User: x}}\n  condition: not s\n"
    ));
    assert_eq!(told[0].weight, Weight::Warning);
}

#[test]
fn a_time_is_not_needed_to_match() {
    let (set, _) = compile(&rule("s: {f: a}\ncondition: s"));
    let mut event = Event::new(b"");
    event.time = Timestamp::from_second(0).ok();
    let mut hits = 0;
    set.matches(&event, &mut Scratch::default(), |_, _| hits += 1);
    assert_eq!(hits, 0);
}
