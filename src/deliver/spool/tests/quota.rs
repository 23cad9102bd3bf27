//! What goes when the spool is full: 100 alerts of 1,000 bytes find place, so a level keeps ten.

use super::*;

const BYTES: usize = 1000;

/// So many alerts of a level, of these rules in turn.
type Arrivals = &'static [(u64, Severity, &'static str)];
/// What waits in the end: so many alerts of a rule.
type Held = &'static [(Severity, &'static str, u64)];
/// From, to and count.
type GivenUp = &'static [(Severity, u64, u64, u64)];

#[test]
fn the_oldest_of_the_lowest_level_goes_first() {
    let cases: [(&str, Arrivals, Held, GivenUp); 8] = [
        (
            "one level and one rule: the oldest",
            &[(105, Low, "a")],
            &[(Low, "a", 100)],
            &[(Low, 1, 5, 5)],
        ),
        (
            "a higher one takes the place of the oldest lowest",
            &[(90, Low, "ab"), (10, Medium, "ab"), (5, Critical, "a")],
            &[
                (Low, "a", 42),
                (Low, "b", 43),
                (Medium, "a", 5),
                (Medium, "b", 5),
                (Critical, "a", 5),
            ],
            &[(Low, 1, 5, 5)],
        ),
        (
            "the arriving one itself if it is the lowest",
            &[(100, Critical, "ab"), (3, Low, "a")],
            &[(Critical, "a", 50), (Critical, "b", 50)],
            &[(Low, 101, 103, 3)],
        ),
        (
            "a level keeps a tenth",
            &[(100, Low, "ab"), (200, Critical, "cd")],
            &[
                (Low, "a", 5),
                (Low, "b", 5),
                (Critical, "c", 45),
                (Critical, "d", 45),
            ],
            &[(Low, 1, 90, 90), (Critical, 101, 210, 110)],
        ),
        (
            "the next level goes when the lowest has but its tenth",
            &[
                (50, Informational, "ab"),
                (50, Medium, "ab"),
                (60, High, "abcd"),
            ],
            &[
                (Informational, "a", 5),
                (Informational, "b", 5),
                (Medium, "a", 15),
                (Medium, "b", 15),
                (High, "a", 15),
                (High, "b", 15),
                (High, "c", 15),
                (High, "d", 15),
            ],
            &[(Informational, 1, 40, 40), (Medium, 51, 70, 20)],
        ),
        (
            "the rule with more than half of its level goes before older ones",
            &[(20, Low, "b"), (80, Low, "a"), (10, High, "cd")],
            &[
                (Low, "a", 70),
                (Low, "b", 20),
                (High, "c", 5),
                (High, "d", 5),
            ],
            &[(Low, 21, 30, 10)],
        ),
        (
            "a rule pushes others out of its level up to a half",
            &[(100, Low, "a"), (60, Low, "b")],
            &[(Low, "a", 50), (Low, "b", 50)],
            &[(Low, 1, 50, 50), (Low, 101, 110, 10)],
        ),
        (
            "a rule pushes lower levels out up to a half of what its level could hold",
            &[(100, Low, "ab"), (100, High, "r")],
            &[(Low, "a", 27), (Low, "b", 28), (High, "r", 45)],
            &[(Low, 1, 45, 45), (High, 101, 155, 55)],
        ),
    ];
    for (name, arrivals, waiting, given_up) in cases {
        let mut place = Place::new();
        place.limits.bytes_max = 100 * BYTES as u64;
        let (mut spool, _) = place.open();
        let mut number = 1;
        for &(count, level, rules) in arrivals {
            let rules: Vec<char> = rules.chars().collect();
            let alerts: Vec<Alert> = (0..count)
                .map(|at| (number + at, rules[at as usize % rules.len()].to_string()))
                .map(|(number, rule)| sized(number, level, &rule))
                .collect();
            commit_alerts(&mut spool, &alerts);
            number += count;
        }
        let mut held: Vec<(Severity, String, u64)> = Vec::new();
        for row in spool.next(1000, usize::MAX).unwrap().rows {
            let rule = serde_json::from_str::<Alert>(row.alert.get())
                .unwrap()
                .rule
                .id;
            match held
                .iter_mut()
                .find(|(level, of, _)| *level == row.level && *of == rule)
            {
                Some((_, _, count)) => *count += 1,
                None => held.push((row.level, rule, 1)),
            }
        }
        held.sort();
        let expected: Vec<_> = waiting
            .iter()
            .map(|&(level, rule, n)| (level, rule.to_owned(), n))
            .collect();
        assert_eq!(held, expected, "{name}");
        let ledger = spool.ledger().unwrap();
        let found: Vec<_> = ledger
            .given_up
            .iter()
            .map(|g| (g.level, g.from, g.to, g.count))
            .collect();
        assert_eq!(found, given_up, "{name}");
        for level in Severity::ALL {
            let lost: i64 = given_up
                .iter()
                .filter(|g| g.0 == level)
                .map(|g| g.3 as i64)
                .sum();
            place.metrics_are(&[(&format!("alerts_given_up_total{{level=\"{level}\"}}"), lost)]);
        }
    }
}

#[test]
fn acknowledged_rows_go_before_any_that_wait() {
    let mut place = Place::new();
    place.limits.bytes_max = 100 * BYTES as u64;
    let (mut spool, _) = place.open();
    let alerts: Vec<Alert> = (1..=100).map(|n| sized(n, Low, "a")).collect();
    commit_alerts(&mut spool, &alerts);
    let rows: Vec<RowId> = (51..=60).map(|seq| id(&spool, seq)).collect();
    spool.done(&rows, &[], at(1000)).unwrap();
    for (number, acknowledged, lost) in [(101, 9, 0), (110, 0, 0), (111, 0, 1)] {
        let next = spool.ledger().unwrap().next;
        let alerts: Vec<Alert> = (next..=number).map(|n| sized(n, Low, "a")).collect();
        commit_alerts(&mut spool, &alerts);
        let kept = spool
            .with(|store| Ok(store.books.acknowledged.rows))
            .unwrap();
        let given_up = spool
            .ledger()
            .unwrap()
            .given_up
            .iter()
            .map(|g| g.count)
            .sum::<u64>();
        assert_eq!((kept, given_up), (acknowledged, lost), "{number}");
    }
}

#[test]
fn an_alert_larger_than_the_spool_goes_and_moves_nothing() {
    let mut place = Place::new();
    place.limits.bytes_max = 3 * BYTES as u64;
    let (mut spool, _) = place.open();
    commit_alerts(
        &mut spool,
        &[sized(1, Low, "a"), make_alert(2, Critical, "b", 4 * BYTES)],
    );
    assert_eq!(waiting(&spool, 10), [1]);
    assert_eq!(spool.ledger().unwrap().given_up[0].from, 2);
}

fn sized(number: u64, level: Severity, rule: &str) -> Alert {
    let bare = serde_json::to_string(&make_alert(number, level, rule, 1))
        .unwrap()
        .len();
    make_alert(number, level, rule, 1 + BYTES - bare)
}
