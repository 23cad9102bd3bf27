mod history;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;

use super::agents::{Beat, Enrol, Enrolled};
use super::alerts::{Batch, Row};
use super::packing::Packing;
use super::received::{LossTotals, RANGES_MAX, Range, ranges};
use super::search::{Filter, Page, SCAN_ROWS_MAX};
use super::tokens::EnrolmentToken;
use super::*;
use crate::alert::{Alert, AlertId, AlertLogSource, Origin, RuleRef, Severity};

#[tokio::test]
async fn an_alert_seen_again_counts_as_duplicate() {
    let (_folder, store) = open().await;
    let first = store.append(batch(&[(1, alert(1))])).await.unwrap();
    assert_eq!((first.accepted(), first.duplicate), (1, 0));
    let again = store
        .append(batch(&[(2, alert(1)), (3, alert(1)), (4, alert(2))]))
        .await
        .unwrap();
    assert_eq!((again.accepted(), again.duplicate), (1, 2));
    assert_eq!(list(&store, &Filter::default()).await.len(), 2);
}

#[tokio::test]
async fn of_a_fold_the_higher_count_stays_whichever_comes_first() {
    let (_folder, store) = open().await;
    for (count, stays) in [(1, 1), (8, 8), (4, 8), (8, 8), (16, 16)] {
        let mut fold = alert(1);
        fold.count = std::num::NonZeroU64::new(count);
        fold.last = Some(time(count.cast_signed()));
        fold.fields = Map::from_iter([("seen".to_owned(), json!(count))]);
        store.append(batch(&[(count, fold)])).await.unwrap();
        let stored = &list(&store, &Filter::default()).await[0];
        assert_eq!(stored.count(), stays);
        assert_eq!(stored.last, Some(time(stays.cast_signed())));
        assert_eq!(stored.fields["seen"], json!(stays));
    }
}

#[tokio::test]
async fn the_same_id_of_two_agents_or_times_is_two_alerts() {
    let (_folder, store) = open().await;
    let mut later = alert(1);
    later.time = time(99);
    store
        .append(batch(&[(1, alert(1)), (2, later)]))
        .await
        .unwrap();
    let mut other = batch(&[(1, alert(1))]);
    other.agent = "a2".to_owned();
    assert_eq!(store.append(other).await.unwrap().accepted(), 1);
    assert_eq!(store.alert(&id(1), None).await.unwrap().len(), 3);
    assert_eq!(store.alert(&id(1), Some("a2")).await.unwrap().len(), 1);
    assert_eq!(store.alert(&id(2), None).await.unwrap().len(), 0);
}

#[tokio::test]
async fn received_numbers_are_kept_as_ranges_by_agent_and_epoch() {
    let (_folder, store) = open().await;
    for (numbers, expected) in [
        (&[5, 6, 7][..], &[(5, 7)][..]),
        (&[1], &[(1, 1), (5, 7)]),
        (&[3, 9], &[(1, 1), (3, 3), (5, 7), (9, 9)]),
        (&[3, 4], &[(1, 1), (3, 7), (9, 9)]),
        (&[2, 8, 2], &[(1, 9)]),
        (&[4], &[(1, 9)]),
    ] {
        let mut batch = batch(&[]);
        batch.numbers = ranges(numbers.to_vec());
        store.append(batch).await.unwrap();
        let (kept, next) = store.received("a1", 7).await.unwrap();
        let kept: Vec<(u64, u64)> = kept.iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(kept, expected, "{numbers:?}");
        assert_eq!(next, expected.last().map(|(_, last)| last + 1));
    }
    assert_eq!(store.received("a1", 8).await.unwrap(), (vec![], None));
    assert_eq!(store.received("a2", 7).await.unwrap(), (vec![], None));
}

#[tokio::test]
async fn ranges_and_epochs_of_an_agent_are_bounded() {
    let (_folder, store) = open().await;
    for round in 0..12 {
        let mut batch = batch(&[]);
        batch.numbers = (0..1000)
            .map(|number| Range {
                first: (round * 1000 + number) * 2 + 1,
                last: (round * 1000 + number) * 2 + 1,
            })
            .collect();
        store.append(batch).await.unwrap();
    }
    let (kept, next) = store.received("a1", 7).await.unwrap();
    assert_eq!(kept.len() as i64, RANGES_MAX);
    assert_eq!(
        kept[0],
        Range {
            first: 1,
            last: 4001
        }
    );
    assert_eq!(next, Some(24_000));
    for epoch in 100..150 {
        let mut batch = batch(&[(1, alert(epoch))]);
        batch.epoch = epoch;
        batch.received = time(10_000 + epoch.cast_signed());
        store.append(batch).await.unwrap();
    }
    let mut db = raw(&store).await;
    let epochs: Vec<i64> = sqlx::query_scalar("SELECT epoch FROM epochs ORDER BY used")
        .fetch_all(&mut db)
        .await
        .unwrap();
    assert_eq!(epochs.len(), 16);
    assert_eq!(epochs.last(), Some(&149));
    let gone: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM received WHERE epoch = 100")
        .fetch_one(&mut db)
        .await
        .unwrap();
    assert_eq!(gone, 0);
}

#[tokio::test]
async fn pages_go_through_alerts_of_one_time_without_loss_or_repetition() {
    let (_folder, store) = open().await;
    let mut alerts = Vec::new();
    for number in 1..=25 {
        let mut alert = alert(number);
        alert.time = time(number.cast_signed() / 10);
        alerts.push((number, alert));
    }
    store.append(batch(&alerts)).await.unwrap();
    for limit in [1, 3, 10, 24, 25, 26] {
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let page = store
                .alerts(&Filter::default(), cursor, limit)
                .await
                .unwrap();
            assert!(page.alerts.len() <= limit);
            seen.extend(read(&page).iter().map(|alert| alert.id));
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<AlertId> = (1..=25).rev().map(id).collect();
        assert_eq!(seen, expected, "{limit}");
    }
}

#[tokio::test]
async fn filters_choose_and_their_signs_mean_nothing_to_the_database() {
    let (_folder, store) = open().await;
    let mut alerts = Vec::new();
    for (number, (level, rule, title, host, agency, raw, fields)) in [
        (Severity::Low, "r1", "SSH login failed", "web-1", "hcm", "50% off", json!({})),
        (
            Severity::High,
            "r2",
            "SSH brute force",
            "web-2",
            "hcm/so-y-te",
            "a_b",
            json!({"src_ip": "203.0.113.7", "port": 22, "ok": true, "list": ["x", "y"], "deep": {"k": "Needle"}}),
        ),
        (Severity::Critical, "r3", "O'Neill", "db", "hcm0", "'--", json!({"src_ip": "203.0.113.77"})),
    ]
    .into_iter()
    .enumerate()
    {
        let number = number as u64 + 1;
        let mut alert = alert(number);
        alert.rule.level = level;
        rule.clone_into(&mut alert.rule.id);
        title.clone_into(&mut alert.rule.title);
        host.clone_into(&mut alert.host);
        agency.clone_into(&mut alert.agency);
        raw.clone_into(&mut alert.raw);
        alert.fields = fields.as_object().unwrap().clone();
        alerts.push((number, alert));
    }
    store.append(batch(&alerts)).await.unwrap();
    let any = Filter::default;
    let text = |text: &str| Some(text.to_owned());
    let field = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
    for (filter, expected) in [
        (any(), &[3, 2, 1][..]),
        (
            Filter {
                since: Some(time(2)),
                ..any()
            },
            &[3, 2],
        ),
        (
            Filter {
                until: Some(time(2)),
                ..any()
            },
            &[1],
        ),
        (
            Filter {
                received_since: Some(time(1001)),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                received_since: Some(time(1000)),
                ..any()
            },
            &[3, 2, 1],
        ),
        (
            Filter {
                level: Some(Severity::High),
                ..any()
            },
            &[3, 2],
        ),
        (
            Filter {
                level: Some(Severity::Critical),
                ..any()
            },
            &[3],
        ),
        (
            Filter {
                rule: text("r1"),
                ..any()
            },
            &[1],
        ),
        (
            Filter {
                rule: text("ssh"),
                ..any()
            },
            &[2, 1],
        ),
        (
            Filter {
                rule: text("O'Neill"),
                ..any()
            },
            &[3],
        ),
        (
            Filter {
                rule: text("%"),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                host: text("web-1"),
                ..any()
            },
            &[1],
        ),
        (
            Filter {
                host: text("web"),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                agency: text("hcm"),
                ..any()
            },
            &[2, 1],
        ),
        (
            Filter {
                agency: text("hcm/so-y-te"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                text: text("50% off"),
                ..any()
            },
            &[1],
        ),
        (
            Filter {
                text: text("5_% off"),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                text: text("a_b"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                text: text("brute"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                text: text("needle"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                text: text("'--"),
                ..any()
            },
            &[3],
        ),
        (
            Filter {
                fields: field("src_ip", "203.0.113.7"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                fields: field("port", "22"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                fields: field("ok", "true"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                fields: field("list", "y"),
                ..any()
            },
            &[2],
        ),
        (
            Filter {
                fields: field("list", "z"),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                fields: field("src_ip' OR 1=1", "x"),
                ..any()
            },
            &[],
        ),
        (
            Filter {
                level: Some(Severity::Low),
                agency: text("hcm"),
                text: text("ssh"),
                fields: field("port", "22"),
                ..any()
            },
            &[2],
        ),
    ] {
        let found: Vec<AlertId> = list(&store, &filter)
            .await
            .iter()
            .map(|alert| alert.id)
            .collect();
        let expected: Vec<AlertId> = expected.iter().copied().map(id).collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn a_batch_that_fails_leaves_nothing_and_the_others_of_its_commit_stay() {
    let (_folder, store) = open().await;
    let mut db = raw(&store).await;
    sqlx::query(
        "CREATE TRIGGER fault BEFORE INSERT ON alerts WHEN NEW.rule = 'bad'
         BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    .execute(&mut db)
    .await
    .unwrap();
    let mut bad = alert(3);
    "bad".clone_into(&mut bad.rule.id);
    let (good, bad, other) = tokio::join!(
        store.append(batch(&[(1, alert(1))])),
        store.append(batch(&[(2, alert(2)), (3, bad)])),
        store.append(batch(&[(4, alert(4))])),
    );
    assert!(good.is_ok() && other.is_ok());
    assert!(matches!(bad, Err(StoreError::Write(_))), "{bad:?}");
    let stored: Vec<AlertId> = list(&store, &Filter::default())
        .await
        .iter()
        .map(|alert| alert.id)
        .collect();
    assert_eq!(stored, [id(4), id(1)]);
    let (received, _) = store.received("a1", 7).await.unwrap();
    assert_eq!(received, ranges(vec![1, 4]));
}

#[tokio::test]
async fn a_database_that_another_holds_is_a_fault_until_it_writes_again() {
    let (_folder, store) = open().await;
    let mut db = raw(&store).await;
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut db)
        .await
        .unwrap();
    let refused = store.append(batch(&[(1, alert(1))])).await;
    assert!(matches!(refused, Err(StoreError::Write(_))), "{refused:?}");
    assert!(store.fault().unwrap().contains("locked"));
    sqlx::query("ROLLBACK").execute(&mut db).await.unwrap();
    store.append(batch(&[(1, alert(1))])).await.unwrap();
    assert_eq!(store.fault(), None);
    assert_eq!(list(&store, &Filter::default()).await.len(), 1);
}

#[tokio::test]
async fn a_full_database_refuses_whole_batches_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let small = Options {
        bytes_max: 1 << 20,
        ..options(&folder)
    };
    let store = Store::open(&small).await.unwrap();
    enrol(&store).await;
    let mut stored = 0;
    let refused = loop {
        let alerts: Vec<(u64, Alert)> = (stored + 1..=stored + 100)
            .map(|number| {
                let mut alert = alert(number);
                alert.raw = "x".repeat(500);
                (number, alert)
            })
            .collect();
        match store.append(batch(&alerts)).await {
            Ok(_) => stored += 100,
            Err(error) => break error,
        }
        assert!(stored < 10_000);
    };
    assert!(matches!(refused, StoreError::Write(_)), "{refused:?}");
    assert!(store.fault().unwrap().contains("full"));
    assert_eq!(
        all(&store, &Filter::default(), 1000).await.len() as u64,
        stored
    );
    let (received, _) = store.received("a1", 7).await.unwrap();
    assert_eq!(
        received,
        [Range {
            first: 1,
            last: stored
        }]
    );
    store.close().await;
    let store = Store::open(&options(&folder)).await.unwrap();
    store
        .append(batch(&[(stored + 1, alert(stored + 1))]))
        .await
        .unwrap();
    assert_eq!(store.fault(), None);
}

#[tokio::test]
async fn what_was_stored_is_there_after_closing_and_opening() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    for round in 1..4 {
        let store = Store::open(&options).await.unwrap();
        if round == 1 {
            enrol(&store).await;
        }
        store.append(batch(&[(round, alert(round))])).await.unwrap();
        assert_eq!(list(&store, &Filter::default()).await.len() as u64, round);
        store.close().await;
        let closed = store.append(batch(&[(9, alert(9))])).await;
        assert!(matches!(closed, Err(StoreError::Closed)));
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_with_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder);
    let store = Store::open(&options).await.unwrap();
    let mut db = raw(&store).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'later', TRUE, X'00', 0)",
    )
    .execute(&mut db)
    .await
    .unwrap();
    store.close().await;
    let error = Store::open(&options).await.unwrap_err();
    assert!(error.to_string().contains("a newer canhgac"), "{error}");
}

#[tokio::test]
async fn losses_are_summed_over_agents_without_overflow() {
    let (_folder, store) = open().await;
    assert_eq!(store.losses().await.unwrap(), LossTotals::default());
    for (agent, unexplained, stated) in [("a1", 3, 4), ("a2", u64::MAX, 1)] {
        store
            .heartbeat(Beat {
                agent: agent.to_owned(),
                received: time(5),
                clock: time(5),
                version: "0".to_owned(),
                payload: "{}".to_owned(),
                epoch: u64::MAX,
                unexplained,
                stated,
            })
            .await
            .unwrap();
    }
    let losses = store.losses().await.unwrap();
    assert_eq!((losses.unexplained, losses.stated), (i64::MAX, 5));
    let agents = store.agents("", None, 10).await.unwrap();
    assert_eq!(agents[0].unexplained, 3);
    assert_eq!(agents[1].last_heard, Some(time(5)));
    let after = store.agents("", Some("a1"), 10).await.unwrap();
    assert_eq!(after.len(), 1);
}

#[test]
fn numbers_become_the_fewest_ranges() {
    const M: u64 = u64::MAX;
    for (numbers, expected) in [
        (vec![], vec![]),
        (vec![3], vec![(3, 3)]),
        (vec![3, 1, 2], vec![(1, 3)]),
        (vec![1, 1, 1], vec![(1, 1)]),
        (vec![1, 3, M, M], vec![(1, 1), (3, 3), (M, M)]),
    ] {
        let found: Vec<(u64, u64)> = ranges(numbers.clone())
            .iter()
            .map(|range| (range.first, range.last))
            .collect();
        assert_eq!(found, expected, "{numbers:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_comes_back_the_same(alerts in prop::collection::vec(any_alert(), 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (_folder, store) = open().await;
            let numbered: Vec<(u64, Alert)> = (1..).zip(alerts.iter().cloned()).collect();
            store.append(batch(&numbered)).await.unwrap();
            for alert in &alerts {
                let found = store.alert(&alert.id, None).await.unwrap();
                let found: Vec<Alert> = found
                    .iter()
                    .map(|entry| serde_json::from_str(entry.alert.get()).unwrap())
                    .collect();
                assert!(found.contains(alert), "{alert:?} not in {found:?}");
            }
        });
    }
}

fn any_alert() -> impl Strategy<Value = Alert> {
    let value = prop_oneof![
        any::<String>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        prop::collection::vec(any::<String>(), 0..3).prop_map(Value::from),
    ];
    let fields = prop::collection::btree_map(any::<String>(), value, 0..5);
    (
        any::<[u8; 16]>(),
        -3_000_000_000_000_i64..3_000_000_000_000,
        0..5_usize,
        any::<[String; 6]>(),
        fields,
        prop::option::of(1..u64::MAX),
    )
        .prop_map(|(id, millis, level, texts, fields, causes_count)| {
            let [host, rule, title, raw, tag, cut] = texts;
            Alert {
                id: AlertId::from_bytes(id),
                time: Timestamp::from_millisecond(millis).unwrap(),
                host,
                raw,
                rule: RuleRef {
                    id: rule,
                    title,
                    level: Severity::ALL[level],
                    tags: vec![tag],
                    digest: String::new(),
                },
                fields: fields.into_iter().collect(),
                causes_count,
                cut: vec![cut],
                ..alert(1)
            }
        })
}

async fn open() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&options(&folder)).await.unwrap();
    enrol(&store).await;
    (folder, store)
}

fn options(folder: &TempDir) -> Options {
    Options {
        busy_timeout: Duration::from_millis(200),
        ..Options::new(folder.path().join("x.db"), 1 << 30)
    }
}

async fn enrol(store: &Store) {
    let token = EnrolmentToken {
        hash: [1; 32],
        agency: "hcm".to_owned(),
        uses: 2,
        expires: time(5000),
        from: Vec::new(),
        created: time(0),
    };
    store.add_enrolment_token(token).await.unwrap();
    for agent in ["a1", "a2"] {
        let enrolled = store
            .enrol(Enrol {
                token: [1; 32],
                peer: "::ffff:10.0.0.1".parse().unwrap(),
                agent: agent.to_owned(),
                host: agent.to_owned(),
                machine: "m".to_owned(),
                key: agent.to_owned(),
                now: time(1),
            })
            .await
            .unwrap();
        assert!(matches!(enrolled, Enrolled::New { .. }), "{enrolled:?}");
    }
}

async fn raw(store: &Store) -> sqlx::SqliteConnection {
    let options = SqliteConnectOptions::new().filename(&*store.path);
    sqlx::SqliteConnection::connect_with(&options)
        .await
        .unwrap()
}

async fn list(store: &Store, filter: &Filter) -> Vec<Alert> {
    read(&store.alerts(filter, None, 1000).await.unwrap())
}

async fn all(store: &Store, filter: &Filter, limit: usize) -> Vec<Alert> {
    let (mut found, mut cursor): (Vec<Alert>, Option<super::search::Cursor>) = (Vec::new(), None);
    loop {
        let page = store.alerts(filter, cursor, limit).await.unwrap();
        found.extend(read(&page));
        cursor = page.next;
        if cursor.is_none() {
            return found;
        }
    }
}

fn read(page: &Page) -> Vec<Alert> {
    page.alerts
        .iter()
        .map(|entry| serde_json::from_str(entry.alert.get()).unwrap())
        .collect()
}

fn batch(alerts: &[(u64, Alert)]) -> Batch {
    Batch {
        agent: "a1".to_owned(),
        epoch: 7,
        numbers: ranges(alerts.iter().map(|(number, _)| *number).collect()),
        rows: alerts.iter().map(|(_, alert)| row(alert)).collect(),
        received: time(1000),
    }
}

fn row(alert: &Alert) -> Row {
    let packer = Packing::default().packer();
    Row::new(alert, &mut packer.press().unwrap()).unwrap()
}

fn alert(number: u64) -> Alert {
    Alert {
        id: id(number),
        time: time(number.cast_signed()),
        observed: time(number.cast_signed()),
        agency: "hcm".to_owned(),
        host: "web-1".to_owned(),
        agent: "a1".to_owned(),
        rule: RuleRef {
            id: "r".to_owned(),
            title: "t".to_owned(),
            level: Severity::High,
            tags: Vec::new(),
            digest: String::new(),
        },
        logsource: AlertLogSource::default(),
        fields: Map::new(),
        raw: String::new(),
        origin: Origin::default(),
        count: None,
        last: None,
        causes: Vec::new(),
        causes_count: None,
        cut: Vec::new(),
        context: Vec::new(),
        via: Vec::new(),
        other: Map::new(),
    }
}

fn id(number: u64) -> AlertId {
    AlertId::from_bytes(u128::from(number).to_be_bytes())
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}
