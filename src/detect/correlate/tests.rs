use proptest::prelude::*;

use super::*;
use crate::alert::AlertLogSource;
use crate::alert::Origin;
use crate::detect::mask::MaskedFields;
use crate::detect::mask::{MaskedText, Masker};
use crate::detect::rule::RuleText;

fn secret() -> HostSecret {
    HostSecret::new(&[7; 32])
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A base rule `failed` and the correlations of the text.
fn rules(correlations: &str) -> Arc<Ruleset> {
    let text = format!(
        "title: failed\nname: failed\nid: base\nlogsource: {{product: linux}}\ndetection:\n  s: {{f: a}}\n  condition: s\n---\n{correlations}"
    );
    let (rules, told) = Ruleset::compile(&[RuleText {
        file: "r.yml",
        text: &text,
    }]);
    assert_eq!(told, []);
    Arc::new(rules)
}

fn counting(condition: &str) -> Arc<Ruleset> {
    rules(&many("event_count", condition))
}

fn many(kind: &str, condition: &str) -> String {
    format!(
        "title: many\nname: many\nid: many\ncorrelation:\n  type: {kind}\n  rules: [failed]\n  group-by: [ip]\n  timespan: 60s\n  condition: {{{condition}}}\n"
    )
}

fn key(text: &str) -> GroupKey {
    GroupKey {
        hash: secret().sign(&[text.as_bytes()]),
        shown: text.to_owned(),
    }
}

/// A detection of `failed` at a second, with `name=value` groups.
fn detection(rules: &Arc<Ruleset>, number: u64, at: i64, groups: &str) -> Detection {
    Detection {
        rule: rules.by_id("base").unwrap(),
        ..named(rules, number, at, groups)
    }
}

fn named(rules: &Arc<Ruleset>, number: u64, at: i64, groups: &str) -> Detection {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let groups: Vec<(&str, &str)> = groups
        .split_whitespace()
        .filter_map(|part| part.split_once('='))
        .collect();
    Detection {
        ruleset: Arc::clone(rules),
        rule: RuleIndex(0),
        id: AlertId::from_bytes(id),
        time: second(at),
        observed: second(at),
        host: text("host"),
        logsource: AlertLogSource::default(),
        key: key("other"),
        fields: MaskedFields::default(),
        groups: groups
            .iter()
            .map(|(name, value)| ((*name).into(), key(value)))
            .collect(),
        numbers: groups
            .iter()
            .filter_map(|(name, value)| Some(((*name).into(), value.parse().ok()?)))
            .collect(),
        raw: text("raw"),
        origin: Origin::default(),
        repeat: 1,
        causes: Vec::new(),
        causes_count: 0,
        cut: Vec::new(),
    }
}

fn number(id: &AlertId) -> u64 {
    u64::from_be_bytes(id.as_bytes()[8..].try_into().unwrap())
}

/// Feeds events of one group at these seconds; returns for each alert its causes.
fn feed(rules: &Arc<Ruleset>, correlator: &mut Correlator, seconds: &[i64]) -> Vec<Vec<u64>> {
    let mut out = Vec::new();
    for (n, at) in (0..).zip(seconds) {
        let detection = detection(rules, n, *at, "ip=1");
        correlator.observe(&detection, &secret(), second(*at), &mut out);
    }
    out.iter()
        .map(|fired| fired.causes.iter().map(number).collect())
        .collect()
}

#[test]
fn windows_fire_when_enough_came_together() {
    for (condition, seconds, expected) in [
        ("gte: 3", &[0, 10, 20][..], vec![vec![0, 1, 2]]),
        ("gte: 3", &[0, 10], vec![]),
        ("gt: 2", &[0, 10, 20], vec![vec![0, 1, 2]]),
        ("eq: 3", &[0, 10, 20], vec![vec![0, 1, 2]]),
        // The window is shorter than its timespan by an instant: the first is out at 60.
        ("gte: 3", &[0, 10, 60], vec![]),
        ("gte: 3", &[0, 10, 59], vec![vec![0, 1, 2]]),
        ("gte: 3", &[0, 10, 60, 61], vec![vec![1, 2, 3]]),
        // What fired is consumed.
        ("gte: 3", &[0, 1, 2, 3, 4], vec![vec![0, 1, 2]]),
        (
            "gte: 3",
            &[0, 1, 2, 3, 4, 5],
            vec![vec![0, 1, 2], vec![3, 4, 5]],
        ),
        // Late events, and equal times.
        ("gte: 3", &[0, 50, 20], vec![vec![0, 2, 1]]),
        ("gte: 3", &[100, 130, 20, 50, 60], vec![vec![2, 3, 4]]),
        ("gte: 3", &[5, 5, 5], vec![vec![0, 1, 2]]),
        ("gte: 3", &[100, 0, 159, 101], vec![vec![0, 3, 2]]),
        // A range.
        ("gte: 2, lte: 2", &[0, 1], vec![vec![0, 1]]),
        ("lt: 5", &[0, 1], vec![vec![0], vec![1]]),
    ] {
        let text = many("event_count", condition);
        let base = "title: failed\nname: failed\nid: base\nlogsource: {product: linux}\ndetection:\n  s: {f: a}\n  condition: s\n---\n".to_owned();
        let text = base + &text;
        let (rules, _) = Ruleset::compile(&[RuleText {
            file: "r.yml",
            text: &text,
        }]);
        let mut correlator = Correlator::default();
        let fired = feed(&Arc::new(rules), &mut correlator, seconds);
        assert_eq!(fired, expected, "{condition} over {seconds:?}");
    }
}

#[test]
fn an_alert_of_a_correlation_says_what_completed_it_and_of_whom() {
    let rules = counting("gte: 2");
    let mut correlator = Correlator::default();
    let mut out = Vec::new();
    for (n, at) in [(1, 0), (2, 5)] {
        let mut detection = detection(&rules, n, at, "ip=1.2.3.4 user=root");
        detection.repeat = 3;
        correlator.observe(&detection, &secret(), second(at), &mut out);
        if n == 1 {
            // Six were needed for more than one: three repeats already are two.
            assert_eq!(out.len(), 1);
        }
    }
    assert_eq!(out.len(), 2);
    let fired = &out[1];
    let completing = detection(&rules, 2, 5, "ip=1.2.3.4");
    assert_eq!(fired.rule, rules.by_id("many").unwrap());
    assert_eq!(
        fired.id,
        secret().correlation_id("many", &key("1.2.3.4").hash, &completing.id)
    );
    assert_eq!((fired.time, fired.repeat), (second(5), 1));
    assert_eq!(fired.key.shown, "ip=1.2.3.4");
    assert_eq!(fired.fields.as_map()["ip"], "1.2.3.4");
    assert_eq!(fired.causes, [completing.id]);
    assert_eq!(fired.causes_count, 3);
    assert_eq!(fired.groups.len(), 2);
}

#[test]
fn causes_are_counted_beyond_the_first_hundred() {
    let rules = counting("gte: 250");
    let seconds = vec![0; 250];
    let mut out = Vec::new();
    let mut correlator = Correlator::default();
    for (n, at) in (0..).zip(&seconds) {
        let detection = detection(&rules, n, *at, "ip=1");
        correlator.observe(&detection, &secret(), second(0), &mut out);
    }
    assert_eq!(out.len(), 1);
    assert_eq!(
        (out[0].causes.len(), out[0].causes_count),
        (CAUSES_MAX, 250)
    );
}

#[test]
fn groups_are_counted_apart_and_incomplete_events_not_at_all() {
    let rules = counting("gte: 2");
    let mut correlator = Correlator::default();
    let mut out = Vec::new();
    for (n, groups) in (0..).zip(["ip=1", "ip=2", "user=x", "user=x", "ip=3", "ip=2"]) {
        let detection = detection(&rules, n, 0, groups);
        correlator.observe(&detection, &secret(), second(0), &mut out);
    }
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].key.shown, "ip=2");
    assert_eq!((correlator.groups(), correlator.events()), (2, 2));
}

#[test]
fn the_same_detection_counts_once() {
    let rules = counting("gte: 2");
    let mut correlator = Correlator::default();
    let mut out = Vec::new();
    for _ in 0..3 {
        let detection = detection(&rules, 1, 0, "ip=1");
        correlator.observe(&detection, &secret(), second(0), &mut out);
    }
    assert!(out.is_empty());
}

#[test]
fn a_forged_future_line_each_second_changes_no_alert() {
    let rules = counting("gte: 10");
    let honest: Vec<i64> = (0..200).map(|n| n * 7 % 900 + n).collect();
    for forged_group in ["ip=2", "ip=1"] {
        let mut correlator = Correlator::default();
        let mut forged = Correlator::default();
        let (mut out, mut out_forged) = (Vec::new(), Vec::new());
        for (n, at) in (0..).zip(&honest) {
            let detection = detection(&rules, n, *at, "ip=1");
            correlator.observe(&detection, &secret(), second(*at), &mut out);
            // Five minutes ahead is the most that an event's time can be. Of the own group: so few that
            // they complete nothing themselves.
            if forged_group == "ip=2" || n % 10 == 0 {
                let ahead = self::detection(&rules, 100_000 + n, at + 300, forged_group);
                forged.observe(&ahead, &secret(), second(*at), &mut out_forged);
            }
            forged.observe(&detection, &secret(), second(*at), &mut out_forged);
        }
        let ids = |out: &[Detection]| -> Vec<AlertId> {
            out.iter()
                .filter(|fired| fired.key.shown == "ip=1")
                .map(|fired| fired.id)
                .collect()
        };
        if forged_group == "ip=2" {
            assert_eq!(ids(&out), ids(&out_forged));
        } else {
            assert!(ids(&out_forged).len() >= ids(&out).len());
        }
        assert!(!out.is_empty());
    }
}

#[test]
fn a_backlog_of_three_days_gives_the_alerts_of_live_reading() {
    let rules = counting("gte: 5");
    let times: Vec<i64> = (0..5000_i64).map(|n| n * 50 + n * n % 71).collect();
    let mut alerts = Vec::new();
    for is_live in [true, false] {
        let mut correlator = Correlator::default();
        let mut out = Vec::new();
        for (n, at) in (0..).zip(&times) {
            let now = if is_live {
                second(*at)
            } else {
                second(300_000)
            };
            let detection = detection(&rules, n, *at, if n % 3 == 0 { "ip=1" } else { "ip=2" });
            correlator.observe(&detection, &secret(), now, &mut out);
            correlator.tick(now);
            assert!(correlator.events() < 400, "{}", correlator.events());
        }
        alerts.push(out.iter().map(|fired| fired.id).collect::<Vec<_>>());
    }
    assert_eq!(alerts[0], alerts[1]);
}

#[test]
fn a_window_outlives_a_kill_and_not_a_change_of_its_rule() {
    let rules = counting("gte: 3");
    let other = counting("gte: 2");
    for (after, alerts) in [(&rules, 1), (&other, 0)] {
        let mut before = Correlator::default();
        feed(&rules, &mut before, &[0, 10]);
        let kept = before.changed();
        assert_eq!(kept.len(), 1);
        assert!(before.changed().is_empty());
        let mut correlator = Correlator::default();
        assert_eq!(correlator.restore(kept.clone()), 0);
        assert!(
            correlator.changed().is_empty(),
            "nothing changed by restoring"
        );
        // The clock moved on while nothing was read: that ends no window.
        correlator.tick(second(1_000_000));
        let mut out = Vec::new();
        let detection = detection(after, 7, 20, "ip=1");
        correlator.observe(&detection, &secret(), second(1_000_000), &mut out);
        assert_eq!(out.len(), alerts);
        correlator.keep_only(after);
        if alerts == 0 {
            let changed = correlator.changed();
            let gone = changed
                .iter()
                .find(|changed| changed.key == kept[0].key)
                .unwrap();
            assert_eq!(gone.value, None);
        }
    }
    let damaged = Kept {
        key: vec![1, 2],
        value: Some(vec![3]),
    };
    assert_eq!(Correlator::default().restore(vec![damaged]), 1);
}

#[test]
fn a_group_ends_when_nothing_came_for_long() {
    let rules = counting("gte: 3");
    let mut correlator = Correlator::default();
    feed(&rules, &mut correlator, &[0, 10]);
    correlator.changed();
    correlator.tick(second(10 + 60 + 3600));
    assert_eq!(correlator.groups(), 1);
    correlator.tick(second(10 + 60 + 3601));
    assert_eq!((correlator.groups(), correlator.events()), (0, 0));
    let changed = correlator.changed();
    assert_eq!((changed.len(), &changed[0].value), (1, &None));
    assert!(correlator.series.is_empty() && correlator.numbers.is_empty());
}

#[test]
fn at_the_limits_the_group_that_waited_longest_goes() {
    let rules = counting("gte: 3");
    for limits in [
        Limits {
            groups_max: 10,
            events_max: 1000,
        },
        Limits {
            groups_max: 1000,
            events_max: 10,
        },
    ] {
        let mut correlator = Correlator::new(limits);
        let mut out = Vec::new();
        for n in 0..100_u64 {
            let detection = detection(&rules, n, 0, &format!("ip={n}"));
            correlator.observe(&detection, &secret(), second(0), &mut out);
        }
        assert_eq!((correlator.groups(), correlator.events()), (10, 10));
        assert_eq!(
            correlator.evicted(),
            Evicted {
                groups: 90,
                events: 90
            }
        );
        for n in [99, 98] {
            for m in 0..2 {
                let detection = detection(&rules, 1000 + n * 10 + m, 1, &format!("ip={n}"));
                correlator.observe(&detection, &secret(), second(1), &mut out);
            }
        }
        assert!(!out.is_empty());
    }
}

#[test]
fn a_flood_in_one_group_is_bounded() {
    let rules = rules(&many("event_count", "gte: 1000").replace("60s", "1s"));
    let mut correlator = Correlator::default();
    let mut out = Vec::new();
    for n in 0..6_000_u64 {
        let detection = detection(&rules, n, -i64::try_from(n).unwrap() * 2, "ip=1");
        correlator.observe(&detection, &secret(), second(0), &mut out);
    }
    assert_eq!(correlator.events(), 4_000);
    assert_eq!(
        correlator.evicted(),
        Evicted {
            groups: 0,
            events: 2_000
        }
    );
}

#[test]
fn distinct_values_are_counted_also_under_a_flood_of_one() {
    let rules = rules(&many("value_count", "field: port, gte: 4"));
    let mut correlator = Correlator::default();
    let mut out = Vec::new();
    let mut n = 0;
    let mut see = |port: &str, at: i64| {
        n += 1;
        let groups = if port.is_empty() {
            "ip=1".to_owned()
        } else {
            format!("ip=1 port={port}")
        };
        let detection = detection(&rules, n, at, &groups);
        correlator.observe(&detection, &secret(), second(at), &mut out);
        out.len()
    };
    for port in ["1", "2", "3", "", "3", "2"] {
        assert_eq!(see(port, 0), 0, "{port}");
    }
    for _ in 0..5000 {
        assert_eq!(see("3", 1), 0);
    }
    assert_eq!(see("4", 59), 1);
    assert_eq!(see("1", 60), 1, "the values that fired are consumed");
}

#[test]
fn correlations_feed_correlations_and_silent_ones_stay_inside() {
    let over = "---\ntitle: over\nid: over\ncorrelation:\n  type: value_count\n  rules: [many]\n  group-by: [user]\n  timespan: 10m\n  condition: {field: ip, gte: 2}\n";
    for (generate, expected) in [
        ("", vec!["over"]),
        ("  generate: true\n", vec!["many", "many", "over"]),
    ] {
        let rules = rules(&format!(
            "{}{over}{generate}",
            many("event_count", "gte: 2")
        ));
        let mut correlator = Correlator::default();
        let mut out = Vec::new();
        for (n, ip) in (0..).zip([1, 1, 2, 2]) {
            let at = i64::try_from(n).unwrap();
            let detection = detection(&rules, n, at, &format!("ip={ip} user=u"));
            correlator.observe(&detection, &secret(), second(at), &mut out);
        }
        let ids: Vec<_> = out
            .iter()
            .map(|fired| rules.rule(fired.rule).id.as_str())
            .collect();
        assert_eq!(ids, expected);
        let last = out.last().unwrap();
        assert_eq!(last.causes_count, 2);
    }
}

/// Rules `a`, `b` and `c`, and a correlation over them within a minute.
fn together(kind: &str, lines: &str) -> Arc<Ruleset> {
    let mut text = String::new();
    for name in ["a", "b", "c"] {
        text += &format!(
            "title: {name}\nid: {name}\nlogsource: {{product: linux}}\ndetection:\n  s: {{f: a}}\n  condition: s\n---\n"
        );
    }
    text += &format!(
        "title: t\nid: t\ncorrelation:\n  type: {kind}\n  rules: [a, b, c]\n  group-by: [ip]\n  timespan: 60s\n{lines}"
    );
    let (rules, told) = Ruleset::compile(&[RuleText {
        file: "r.yml",
        text: &text,
    }]);
    let is_mild =
        |told: &crate::diagnostic::Diagnostic| told.weight == crate::diagnostic::Weight::Warning;
    assert!(told.iter().all(is_mild), "{told:?}");
    Arc::new(rules)
}

fn seen(rules: &Arc<Ruleset>, rule: &str, number: u64, at: i64) -> Detection {
    Detection {
        rule: rules.by_id(rule).unwrap(),
        ..named(rules, number, at, "ip=1")
    }
}

/// Feeds events `rule@second`; returns for each alert its causes.
fn follow(rules: &Arc<Ruleset>, correlator: &mut Correlator, events: &str) -> Vec<Vec<u64>> {
    let mut out = Vec::new();
    for (n, event) in (0..).zip(events.split_whitespace()) {
        let (rule, at) = event.split_once('@').unwrap();
        let at = at.parse().unwrap();
        let detection = seen(rules, rule, n, at);
        correlator.observe(&detection, &secret(), second(at), &mut out);
    }
    let causes = |fired: &Detection| fired.causes.iter().map(number).collect();
    out.iter().map(causes).collect()
}

#[test]
fn rules_come_together_in_any_order_or_in_theirs() {
    let any = together("temporal", "");
    let two = together("temporal", "  condition: {gte: 2}\n");
    let either = together("temporal", "  condition: a and (b or c)\n");
    let without = together("temporal", "  condition: a and b and not c\n");
    let ordered = together("temporal_ordered", "");
    for (rules, events, expected) in [
        (&any, "a@0 b@10 c@20", vec![vec![0, 1, 2]]),
        (&any, "c@0 a@10 b@20", vec![vec![0, 1, 2]]),
        (&any, "a@0 a@1 b@2 a@3", vec![]),
        (&any, "a@0 b@10 c@60", vec![]),
        (&any, "a@0 b@10 c@59 a@60 b@61", vec![vec![0, 1, 2]]),
        (&any, "a@0 c@59 b@30", vec![vec![0, 2, 1]]),
        (&two, "b@0 b@1 c@2", vec![vec![0, 1, 2]]),
        (&either, "b@0 c@1", vec![]),
        (&either, "b@0 c@1 a@2", vec![vec![0, 1, 2]]),
        (&without, "c@0 a@1 b@2 a@61 b@61", vec![vec![2, 3]]),
        (&without, "a@1 b@2 c@3", vec![vec![0, 1]]),
        (&ordered, "a@0 b@10 c@20", vec![vec![0, 1, 2]]),
        (&ordered, "a@0 c@10 b@20", vec![]),
        (&ordered, "a@0 c@10 b@20 c@30", vec![vec![0, 1, 2, 3]]),
        (&ordered, "a@0 b@10 c@60", vec![]),
        (&ordered, "a@0 a@5 b@10 c@60", vec![vec![1, 2, 3]]),
        // By the time of the events, not of their reading; a log that tells seconds does not tell order.
        (&ordered, "c@20 b@10 a@0", vec![vec![2, 1, 0]]),
        (&ordered, "c@5 b@5 a@5", vec![vec![0, 1, 2]]),
        // What fired is consumed.
        (&ordered, "a@0 b@1 c@2 c@3 b@4 c@5", vec![vec![0, 1, 2]]),
    ] {
        let mut correlator = Correlator::default();
        assert_eq!(follow(rules, &mut correlator, events), expected, "{events}");
    }
}

#[test]
fn the_alert_of_a_sequence_has_the_id_of_its_last_arrival() {
    let rules = together("temporal_ordered", "");
    let mut correlator = Correlator::default();
    let mut out = Vec::new();
    for (n, rule, at) in [(1, "a", 0), (2, "c", 20), (3, "b", 10)] {
        let detection = seen(&rules, rule, n, at);
        correlator.observe(&detection, &secret(), second(20), &mut out);
    }
    let completing = seen(&rules, "b", 3, 10).id;
    let id = secret().correlation_id("t", &key("1").hash, &completing);
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].id, out[0].causes_count), (id, 3));
}

#[test]
fn a_flood_of_one_step_is_bounded_and_hides_no_other() {
    for kind in ["temporal", "temporal_ordered"] {
        let rules = together(kind, "");
        let mut correlator = Correlator::default();
        let mut events = "a@0 b@1 ".to_owned();
        events += &"a@2 ".repeat(500);
        assert!(follow(&rules, &mut correlator, &events).is_empty());
        assert!(correlator.events() <= 20, "{}", correlator.events());
        let mut out = Vec::new();
        let last = seen(&rules, "c", 9999, 3);
        correlator.observe(&last, &secret(), second(3), &mut out);
        assert_eq!(out.len(), 1, "{kind}");
    }
    let rules = together("temporal_ordered", "");
    let mut correlator = Correlator::default();
    follow(&rules, &mut correlator, &"b@0 a@1 b@2 c@0 ".repeat(400));
    assert!(correlator.events() <= 1000);
}

#[test]
fn numbers_are_summed_averaged_and_ranked() {
    for (kind, condition, numbers, expected) in [
        (
            "value_sum",
            "gte: 10",
            &["4", "5", "0.5", "0.5"][..],
            Some(3),
        ),
        ("value_sum", "gt: 10", &["4", "6", "x", "-1", "2"], Some(4)),
        ("value_sum", "gte: 1000000000", &["999999999", "1"], Some(1)),
        ("value_avg", "gte: 10", &["5", "14", "11"], Some(2)),
        ("value_avg", "gte: 10", &["5", "14", "10"], None),
        ("value_median", "gte: 10", &["1", "2", "20", "30"], Some(3)),
        ("value_median", "gte: 12", &["1", "2", "20", "30"], None),
        (
            "value_percentile",
            "percentile: 75, gte: 9",
            &["1", "9", "1", "9", "9"],
            Some(1),
        ),
        (
            "value_percentile",
            "percentile: 25, gte: 9",
            &["1", "9", "9", "9", "9"],
            Some(4),
        ),
        ("value_sum", "gte: 10", &["inf", "nan", "", "9"], None),
    ] {
        let rules = rules(&many(kind, &format!("field: size, {condition}")));
        assert_eq!(
            rules.number_fields(rules.by_id("base").unwrap())[0].0,
            "size".into()
        );
        let mut correlator = Correlator::default();
        let mut fired = None;
        for (n, number) in (0..).zip(numbers.iter()) {
            // Each time from what the spool kept.
            let kept = correlator.changed();
            let mut fresh = Correlator::default();
            fresh.restore(kept);
            correlator = fresh;
            correlator.touch_all();
            let mut out = Vec::new();
            let mut detection = detection(&rules, n, 0, "ip=1");
            let read = crate::detect::rule::number_of(number.as_bytes());
            detection.numbers = read
                .map(|number| ("size".into(), number))
                .into_iter()
                .collect();
            correlator.observe(&detection, &secret(), second(0), &mut out);
            if !out.is_empty() {
                fired = fired.or(Some(n));
            }
        }
        assert_eq!(
            fired,
            expected.map(|at| at as u64),
            "{kind} {condition} {numbers:?}"
        );
    }
}

#[test]
fn a_sum_of_many_small_parts_loses_none() {
    let rules = rules(&many("value_sum", "field: size, gte: 1500"));
    let mut correlator = Correlator::default();
    let mut out = Vec::new();
    for n in 0..1500 {
        assert!(out.is_empty());
        let mut detection = detection(&rules, n, 0, "ip=1");
        detection.numbers = vec![("size".into(), 1.0)];
        correlator.observe(&detection, &secret(), second(0), &mut out);
    }
    assert_eq!((out.len(), correlator.events()), (1, 0));
}

/// Forgets nothing and looks at every window.
#[derive(Default)]
struct Reference(Vec<(i64, u64, u8)>);

impl Reference {
    /// Returns the causes, by time and arrival.
    fn observe(
        &mut self,
        at: i64,
        number: u64,
        value: Option<u8>,
        least: usize,
    ) -> Option<Vec<u64>> {
        self.0.push((at, number, value.unwrap_or(0)));
        let mut ends: Vec<i64> = self.0.iter().map(|(time, ..)| *time).collect();
        ends.sort_unstable();
        for end in ends {
            let mut inside: Vec<_> = self
                .0
                .iter()
                .copied()
                .filter(|(time, ..)| *time <= end && *time > end - 60)
                .collect();
            inside.sort_unstable();
            let count = match value {
                None => inside.len(),
                Some(_) => {
                    let values: std::collections::HashSet<u8> =
                        inside.iter().map(|(.., value)| *value).collect();
                    values.len()
                }
            };
            if inside.iter().any(|(_, known, _)| *known == number) && count >= least {
                self.0.retain(|entry| !inside.contains(entry));
                return Some(inside.iter().map(|(_, number, _)| *number).collect());
            }
        }
        None
    }
}

/// Whether the newest event completes a window; if so, consumes it.
fn together_by_brute_force(
    events: &mut Vec<(i64, u64, usize)>,
    newest: u64,
    ordered: bool,
) -> bool {
    let mut ends: Vec<i64> = events.iter().map(|(time, ..)| *time).collect();
    ends.sort_unstable();
    for end in ends {
        let inside: Vec<_> = events
            .iter()
            .copied()
            .filter(|(time, ..)| *time <= end && *time > end - 60)
            .collect();
        let of = |wanted: usize| inside.iter().filter(move |(.., rule)| *rule == wanted);
        let is_whole =
            of(0).any(|a| of(1).any(|b| of(2).any(|c| !ordered || a.0 <= b.0 && b.0 <= c.0)));
        if is_whole && inside.iter().any(|(_, known, _)| *known == newest) {
            events.retain(|entry| !inside.contains(entry));
            return true;
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counting_equals_a_model_that_forgets_nothing(
        events in prop::collection::vec((0_i64..400, 0_u8..3, any::<bool>()), 1..60),
        least in 2_usize..6,
    ) {
        let rules = rules(&many("event_count", &format!("gte: {least}")));
        let mut correlator = Correlator::default();
        let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut references: HashMap<u8, Reference> = HashMap::new();
        for (n, (at, group, is_killed)) in (0..).zip(events) {
            if is_killed {
                for changed in correlator.changed() {
                    match changed.value {
                        Some(value) => kept.insert(changed.key, value),
                        None => kept.remove(&changed.key),
                    };
                }
                correlator = Correlator::default();
                let restored = kept.iter().map(|(key, value)| Kept { key: key.clone(), value: Some(value.clone()) });
                correlator.restore(restored.collect());
            }
            let mut out = Vec::new();
            let detection = detection(&rules, n, at, &format!("ip={group}"));
            correlator.observe(&detection, &secret(), second(at), &mut out);
            let expected = references.entry(group).or_default().observe(at, n, None, least);
            let ours = out.first().map(|fired| fired.causes.iter().map(number).collect::<Vec<_>>());
            prop_assert_eq!(ours, expected);
        }
    }

    #[test]
    fn distinct_values_in_order_equal_the_model(
        events in prop::collection::vec((0_i64..300, 0_u8..6), 1..80),
        least in 2_usize..5,
    ) {
        let rules = rules(&many("value_count", &format!("field: port, gte: {least}")));
        let mut times: Vec<i64> = events.iter().map(|(at, _)| *at).collect();
        times.sort_unstable();
        let mut correlator = Correlator::default();
        let mut reference = Reference::default();
        for ((n, at), (_, port)) in (0..).zip(times).zip(events) {
            let mut out = Vec::new();
            let detection = detection(&rules, n, at, &format!("ip=1 port={port}"));
            correlator.observe(&detection, &secret(), second(at), &mut out);
            let expected = reference.observe(at, n, Some(port), least).is_some();
            prop_assert_eq!(!out.is_empty(), expected);
        }
    }

    #[test]
    fn sequences_equal_a_model_that_forgets_nothing(
        events in prop::collection::vec((0_i64..200, 0_usize..3, any::<bool>()), 1..40),
        is_ordered in any::<bool>(),
    ) {
        let rules = together(if is_ordered { "temporal_ordered" } else { "temporal" }, "");
        let mut correlator = Correlator::default();
        let mut kept: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut reference: Vec<(i64, u64, usize)> = Vec::new();
        for (n, (at, rule, is_killed)) in (0..).zip(events) {
            if is_killed {
                for changed in correlator.changed() {
                    match changed.value {
                        Some(value) => kept.insert(changed.key, value),
                        None => kept.remove(&changed.key),
                    };
                }
                correlator = Correlator::default();
                let restored = kept.iter().map(|(key, value)| Kept { key: key.clone(), value: Some(value.clone()) });
                correlator.restore(restored.collect());
            }
            let mut out = Vec::new();
            let detection = seen(&rules, ["a", "b", "c"][rule], n, at);
            correlator.observe(&detection, &secret(), second(at), &mut out);
            reference.push((at, n, rule));
            let expected = together_by_brute_force(&mut reference, n, is_ordered);
            prop_assert_eq!(!out.is_empty(), expected);
        }
    }

    #[test]
    fn restoring_never_panics_and_gives_back_what_was_kept(
        key in prop::collection::vec(any::<u8>(), 0..80),
        value in prop::collection::vec(any::<u8>(), 0..200),
        times in prop::collection::vec(0_i64..100, 1..20),
    ) {
        let mut correlator = Correlator::default();
        correlator.restore(vec![Kept { key, value: Some(value) }]);
        let rules = counting("gte: 100");
        let mut correlator = Correlator::default();
        feed(&rules, &mut correlator, &times);
        let kept = correlator.changed();
        let read = kept::read(&kept[0].key, kept[0].value.as_ref().unwrap()).unwrap();
        prop_assert_eq!(read.window.len(), times.len());
        prop_assert_eq!(kept::value(read.timespan, &read.window), kept[0].value.clone().unwrap());
    }
}

fn text(clear: &str) -> MaskedText {
    Masker::new(&[0; 32]).text(clear.as_bytes(), 64).0
}
