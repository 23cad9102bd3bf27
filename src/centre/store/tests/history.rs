//! Searching, counting, packing, and the way from the first version's database.

use sqlx::Connection as _;
use sqlx::migrate::Migrator;

use super::*;
use crate::centre::store::counts::{By, Count, Counts, Group};
use crate::centre::store::work::Status;

#[tokio::test]
async fn a_filter_that_the_index_does_not_answer_goes_on_where_a_page_stopped() {
    let (_folder, store) = open().await;
    let rows = SCAN_ROWS_MAX.unsigned_abs() + 500;
    fill(&store, rows, |number, alert| {
        if number == 3 {
            "needle".clone_into(&mut alert.rule.id);
        }
    })
    .await;
    let filter = Filter {
        host: Some("web-1".to_owned()),
        rule: Some("needle".to_owned()),
        ..Filter::default()
    };
    let first = store.alerts(&filter, None, 10).await.unwrap();
    assert_eq!((first.alerts.len(), first.next.is_some()), (0, true));
    let second = store.alerts(&filter, first.next, 10).await.unwrap();
    assert_eq!(read(&second)[0].id, id(3));
    assert_eq!(second.next, None);
}

#[tokio::test]
async fn words_find_what_they_should_over_many_pages() {
    let (_folder, store) = open().await;
    fill(&store, 500, |number, alert| {
        alert.raw = match number % 3 {
            0 => format!("Sai mật khẩu cho người dùng {number}"),
            1 => format!("từ 203.0.113.{} cổng 22", number % 50),
            _ => "mật thư khẩu lệnh".to_owned(), // both words, apart
        };
    })
    .await;
    for (text, expected) in [
        ("mat khau", 166),
        ("MẬT KHẨU", 166),
        ("dung 300", 1),
        ("203.0.113.7", 4),
        ("203.0.113", 0),
        ("203.0.113*", 0), // an address is one word
        ("lenh", 167),
        ("len", 0),
        ("len*", 167),
    ] {
        let filter = Filter {
            text: Some(text.to_owned()),
            ..Filter::default()
        };
        for limit in [1000, 7] {
            let found = all(&store, &filter, limit).await;
            assert_eq!(found.len(), expected, "{text} by {limit}");
        }
    }
}

#[tokio::test]
async fn a_search_since_a_time_finds_also_whose_clock_was_ahead() {
    let (_folder, store) = open().await;
    let mut ahead = alert(1);
    ahead.time = time(40_000_000);
    "needle".clone_into(&mut ahead.raw);
    store.append(batch(&[(1, ahead)])).await.unwrap();
    let mut late = batch(&[]);
    late.received = time(20_000_000);
    let mut young = alert(2);
    young.time = time(20_000_000);
    "needle".clone_into(&mut young.raw);
    late.rows = vec![row(&young)];
    store.append(late).await.unwrap();
    for (since, expected) in [(0, 2), (19_999_999, 2), (20_000_001, 1), (40_000_001, 0)] {
        let filter = Filter {
            since: Some(time(since)),
            text: Some("needle".to_owned()),
            ..Filter::default()
        };
        let page = store.alerts(&filter, None, 10).await.unwrap();
        assert_eq!(page.alerts.len(), expected, "{since}");
        assert_eq!(page.next, None);
        let flagged = page.alerts.iter().filter(|entry| entry.work.clock_ahead);
        assert_eq!(flagged.count(), usize::from(expected > 0));
    }
}

#[tokio::test]
async fn a_tag_holds_those_below_it() {
    let (_folder, store) = open().await;
    fill(&store, 4, |number, alert| {
        let tags = [
            "attack.t1110",
            "attack.T1110.001",
            "attack.t11101",
            "attack.execution",
        ];
        alert.rule.tags = vec![tags[number as usize - 1].to_owned()];
    })
    .await;
    for (tag, expected) in [
        ("attack.t1110", &[2, 1][..]),
        ("T1110", &[2, 1]),
        ("t1110.001", &[2]),
        ("attack.execution", &[4]),
        ("attack", &[4, 3, 2, 1]),
        ("t1", &[]),
        ("\" OR x", &[]),
    ] {
        let filter = Filter {
            tag: Some(tag.to_owned()),
            ..Filter::default()
        };
        let found: Vec<AlertId> = list(&store, &filter).await.iter().map(|a| a.id).collect();
        let expected: Vec<AlertId> = expected.iter().copied().map(id).collect();
        assert_eq!(found, expected, "{tag}");
    }
}

#[tokio::test]
async fn a_fold_that_grows_has_its_new_words_and_counts_once() {
    let (_folder, store) = open().await;
    for (count, raw) in [(1, "first"), (4, "first"), (9, "second"), (4, "first")] {
        let mut fold = alert(1);
        fold.count = std::num::NonZeroU64::new(count);
        raw.clone_into(&mut fold.raw);
        if count == 9 {
            fold.rule.level = Severity::Critical;
        }
        store.append(batch(&[(count, fold)])).await.unwrap();
    }
    for (text, expected) in [("first", 0), ("second", 1)] {
        let filter = Filter {
            text: Some(text.to_owned()),
            ..Filter::default()
        };
        assert_eq!(list(&store, &filter).await.len(), expected, "{text}");
    }
    let counts = store.counts(&Filter::default(), By::Level).await.unwrap();
    let Counts::Hours(counts) = counts else {
        panic!("{counts:?}");
    };
    let counts: Vec<(Group, i64, i64)> = counts
        .into_iter()
        .filter(|count| count.alerts != 0)
        .map(|count| (count.group, count.alerts, count.events))
        .collect();
    assert_eq!(counts, [(Group::Level(Severity::Critical), 1, 9)]);
}

#[tokio::test]
async fn counts_by_hours_and_from_the_alerts_are_the_same() {
    let (_folder, store) = open().await;
    fill(&store, 1000, |number, alert| {
        alert.time = time(number.cast_signed() * 100);
        alert.agency = ["hcm", "hcm/a", "hcm/b", "hn"][number as usize % 4].to_owned();
        alert.rule.id = format!("r{}", number % 7);
        alert.rule.level = Severity::ALL[number as usize % 5];
        alert.count = std::num::NonZeroU64::new(number % 3 + 1);
    })
    .await;
    let any = Filter::default;
    let hour = |n: i64| Some(time(n * 3600));
    for filter in [
        any(),
        Filter {
            agency: Some("hcm".to_owned()),
            ..any()
        },
        Filter {
            agency: Some("hcm/a".to_owned()),
            level: Some(Severity::High),
            ..any()
        },
        Filter {
            rule: Some("r3".to_owned()),
            since: hour(5),
            until: hour(20),
            ..any()
        },
    ] {
        for by in [By::Hour, By::Day, By::Level] {
            let hours = store.counts(&filter, by).await.unwrap();
            // A filter that hours don't know, and that all pass.
            let slow = Filter {
                status: Status::ALL.to_vec(),
                ..filter.clone()
            };
            let exact = store.counts(&slow, by).await.unwrap();
            match (&hours, &exact) {
                (Counts::Hours(hours), Counts::Exact(exact)) => {
                    assert!(!exact.is_empty());
                    assert_eq!(hours, exact, "{filter:?} {by:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    for (by, name, alerts) in [
        (By::Host, "web-1", 1000),
        (By::Agency, "hcm", 250),
        (By::Rule, "r1", 143),
    ] {
        let (Counts::Exact(counts) | Counts::Hours(counts)) =
            store.counts(&any(), by).await.unwrap()
        else {
            panic!("too many");
        };
        let found = counts
            .iter()
            .find(|count| count.group == Group::Name(name.to_owned()));
        assert_eq!(found.unwrap().alerts, alerts);
    }
}

#[tokio::test]
async fn an_absurd_count_spoils_no_sum() {
    let (_folder, store) = open().await;
    fill(&store, 50, |_, alert| {
        alert.count = std::num::NonZeroU64::new(i64::MAX as u64);
    })
    .await;
    for filter in [
        Filter::default(),
        Filter {
            status: vec![Status::New],
            ..Filter::default()
        },
    ] {
        let (Counts::Exact(counts) | Counts::Hours(counts)) =
            store.counts(&filter, By::Day).await.unwrap()
        else {
            panic!("too many");
        };
        let [
            Count {
                alerts: 50, events, ..
            },
        ] = counts[..]
        else {
            panic!("{counts:?}");
        };
        assert!(events > 0);
    }
}

#[tokio::test]
async fn a_dictionary_is_trained_used_and_known_after_opening() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let store = Store::open(&options).await.unwrap();
    enrol(&store).await;
    fill(&store, 1999, vary).await;
    assert!(!store.train().await.unwrap());
    let packed = |store: &Store, number: u64| {
        let mut alert = alert(number);
        vary(number, &mut alert);
        let packer = store.packing().packer();
        let mut press = packer.press().unwrap();
        let json = serde_json::to_string(&alert).unwrap();
        press.pack(&json).unwrap().1.len()
    };
    let before = packed(&store, 5000);
    store.append(batch(&[(2000, alert(2000))])).await.unwrap();
    assert!(store.train().await.unwrap());
    assert!(!store.train().await.unwrap());
    let after = packed(&store, 5000);
    assert!(after * 2 < before, "{before} to {after}");
    let packer = store.packing().packer();
    let mut new = alert(5000);
    vary(5000, &mut new);
    let mut last = batch(&[]);
    last.rows = vec![Row::new(&new, &mut packer.press().unwrap()).unwrap()];
    store.append(last).await.unwrap();
    store.close().await;
    let store = Store::open(&options).await.unwrap();
    assert_eq!(list(&store, &Filter::default()).await[0], new);
    assert_eq!(all(&store, &Filter::default(), 100).await.len(), 2001);
}

/// What the first version made, as a database that it wrote.
#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over_also_after_an_interruption() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let connect = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(&options.path)
        .create_if_missing(true);
    let mut db = sqlx::SqliteConnection::connect_with(&connect)
        .await
        .unwrap();
    let mut first: Migrator = sqlx::migrate!("src/centre/store/migrations/sqlite");
    first
        .migrations
        .to_mut()
        .retain(|migration| migration.version == 1);
    first.run(&mut db).await.unwrap();
    sqlx::query("INSERT INTO agents VALUES ('a1', 'hcm', 'h', 'm', 'k', X'00', 'active', 0)")
        .execute(&mut db)
        .await
        .unwrap();
    for number in 1..=2500_u64 {
        let mut old = alert(number);
        vary(number, &mut old);
        sqlx::query(
            "INSERT INTO alerts (id, agent, time, received, level, rule, title, host, agency, count, payload)
             VALUES (?, 'a1', ?, 1, 3, 'r', 't', 'web-1', 'hcm', 2, ?)",
        )
        .bind(&old.id.as_bytes()[..])
        .bind(old.time.as_microsecond())
        .bind(serde_json::to_string(&old).unwrap())
        .execute(&mut db)
        .await
        .unwrap();
    }
    sqlx::query("INSERT INTO api_tokens VALUES (X'01', 'old', 'administrator', 5)")
        .execute(&mut db)
        .await
        .unwrap();
    // Interrupted after the schema and the first step, as a kill would.
    sqlx::migrate!("src/centre/store/migrations/sqlite")
        .run(&mut db)
        .await
        .unwrap();
    sqlx::query("CREATE TRIGGER fault BEFORE UPDATE ON alerts WHEN OLD.seq > 1500 BEGIN SELECT RAISE(ABORT, 'no'); END")
        .execute(&mut db)
        .await
        .unwrap();
    assert!(Store::open(&options).await.is_err());
    sqlx::query("DROP TRIGGER fault")
        .execute(&mut db)
        .await
        .unwrap();
    db.close().await.unwrap();
    let store = Store::open(&options).await.unwrap();
    let found = all(&store, &Filter::default(), 1000).await;
    assert_eq!(found.len(), 2500);
    let mut expected = alert(2500);
    vary(2500, &mut expected);
    assert_eq!(found[0], expected);
    let filter = Filter {
        text: Some("user-77".to_owned()),
        ..Filter::default()
    };
    assert_eq!(list(&store, &filter).await.len(), 1);
    let counts = store.counts(&Filter::default(), By::Level).await.unwrap();
    assert_eq!(
        counts,
        Counts::Hours(vec![Count {
            group: Group::Level(Severity::High),
            alerts: 2500,
            events: 5000
        }])
    );
}

#[tokio::test]
async fn the_main_questions_are_answered_by_an_index() {
    let (_folder, store) = open().await;
    let mut db = raw(&store).await;
    for (question, index) in [
        (
            "SELECT time, seq FROM alerts WHERE level = 4 ORDER BY time DESC, seq DESC LIMIT 100",
            "alerts_level",
        ),
        (
            "SELECT time, seq FROM alerts WHERE host = 'h' AND time >= 5 AND time < 9 ORDER BY time DESC, seq DESC LIMIT 100",
            "alerts_host",
        ),
        (
            "SELECT time, seq FROM alerts WHERE rule = 'r' AND (time, seq) < (5, 5) ORDER BY time DESC, seq DESC LIMIT 100",
            "alerts_rule",
        ),
        (
            "SELECT hour, SUM(alerts) FROM agency_hours WHERE agency = '' AND hour >= 5 GROUP BY hour ORDER BY 1",
            "PRIMARY KEY",
        ),
        (
            "SELECT rowid FROM words WHERE words MATCH 'x' AND rowid < 9 ORDER BY rowid DESC LIMIT 100",
            "VIRTUAL TABLE INDEX",
        ),
    ] {
        let plan: Vec<(i64, i64, i64, String)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "EXPLAIN QUERY PLAN {question}"
        )))
        .fetch_all(&mut db)
        .await
        .unwrap();
        let plan: Vec<&str> = plan.iter().map(|row| row.3.as_str()).collect();
        assert!(
            plan.iter().any(|line| line.contains(index)),
            "{question}: {plan:?}"
        );
        assert!(
            !plan.iter().any(|line| line.contains("TEMP B-TREE")),
            "{question}: {plan:?}"
        );
    }
}

fn vary(number: u64, alert: &mut Alert) {
    alert.raw = format!("sshd[{number}]: Failed password for user-{number} from 203.0.113.9");
    let fields = [
        ("User", format!("user-{number}")),
        ("src_ip", "203.0.113.9".to_owned()),
    ];
    alert.fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect();
}

async fn fill(store: &Store, rows: u64, change: impl Fn(u64, &mut Alert)) {
    for first in (1..=rows).step_by(1000) {
        let alerts: Vec<(u64, Alert)> = (first..(first + 1000).min(rows + 1))
            .map(|number| {
                let mut alert = alert(number);
                change(number, &mut alert);
                (number, alert)
            })
            .collect();
        store.append(batch(&alerts)).await.unwrap();
    }
}
