//! Past the store, straight at the database: it refuses what the store would never ask for.

use super::*;

/// Statements that a database with one open alias and one open price must refuse.
const REFUSED: [&str; 7] = [
    "INSERT INTO alias VALUES ('a', 2, T2, NULL, NULL, '{}', T1, 'x')",
    "INSERT INTO alias VALUES ('a', 2, T2, T2, NULL, '{}', T1, 'x')",
    "INSERT INTO price VALUES ('other', 's', 1, T2, NULL, NULL, '{}', T1, 'x')",
    "UPDATE alias SET body = '{}'",
    "UPDATE alias SET effective_from = T2",
    "UPDATE alias SET effective_to = effective_from",
    "DELETE FROM alias",
];

/// What it must accept: closing, then going on.
const ACCEPTED: [&str; 3] = [
    "UPDATE alias SET effective_to = T2",
    "INSERT INTO alias VALUES ('a', 2, T2, NULL, NULL, '{}', T1, 'x')",
    "INSERT INTO price VALUES ('other', 't', 1, T2, NULL, NULL, '{}', T1, 'x')",
];

/// And this again not: it would reach into the version that was just written.
const REFUSED_AFTER: &str = "UPDATE alias SET effective_to = NULL WHERE version_no = 1";

async fn seed(pair: Pair) {
    pair.create(draft(Resource::Alias, "a", body("m")), NOW).await.unwrap();
    let price =
        NewVersion { scope: Some("s".to_owned()), ..draft(Resource::Price, "p", json!({})) };
    pair.create(price, NOW).await.unwrap();
}

fn filled(text: &str, time: impl Fn(i64) -> String) -> String {
    let micros = |seconds| later(seconds).micros();
    text.replace("T1", &time(micros(1))).replace("T2", &time(micros(2)))
}

#[tokio::test]
async fn sqlite_itself_refuses_overlap_and_rewriting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connections = Arc::new(Connections::open(&path).unwrap());
    let config = Arc::new(SqliteConfig(Arc::clone(&connections)));
    seed(Pair { publish: config.clone(), config, keys: Arc::new(SqliteKeys(connections)) }).await;
    let raw = crate::sqlite::open(&path).unwrap();
    let run = |text: &str| raw.execute(&filled(text, |micros| micros.to_string()), []);
    for text in REFUSED {
        assert!(run(text).is_err(), "{text}");
    }
    for text in ACCEPTED {
        run(text).unwrap();
    }
    let error = run(REFUSED_AFTER).unwrap_err().to_string();
    assert!(error.contains("overlapping window"), "{error}");
}

#[tokio::test]
async fn postgres_itself_refuses_overlap_and_rewriting() {
    let Some(scratch) = crate::tests::postgres().await else {
        return;
    };
    let pool = crate::postgres::pool(&scratch.url(), 2, &crate::postgres::Link::default()).unwrap();
    crate::postgres::migrate(&pool).await.unwrap();
    let config = Arc::new(PostgresConfig(pool.clone()));
    seed(Pair { publish: config.clone(), config, keys: Arc::new(PostgresKeys(pool.clone())) })
        .await;
    let client = pool.get().await.unwrap();
    let filled = |text: &str| filled(text, |micros| format!("to_timestamp({micros} / 1000000)"));
    for text in REFUSED {
        assert!(client.batch_execute(&filled(text)).await.is_err(), "{text}");
    }
    for text in ACCEPTED {
        client.batch_execute(&filled(text)).await.unwrap();
    }
    let error = client.batch_execute(&filled(REFUSED_AFTER)).await.unwrap_err();
    assert!(matches!(Error::from(error), Error::Overlap(_)));
}

#[tokio::test]
async fn a_writer_waits_for_the_other_writer_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connections = Arc::new(Connections::open(&path).unwrap());
    let config = Arc::new(SqliteConfig(Arc::clone(&connections)));
    let pair = Pair { publish: config.clone(), config, keys: Arc::new(SqliteKeys(connections)) };
    let other = crate::sqlite::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let writer = pair.clone();
    let alias = draft(Resource::Alias, "a", body("m"));
    let writing = tokio::spawn(async move { writer.create(alias, NOW).await });
    // Readers are not in anyone's way.
    assert_eq!(pair.config.rev().await.unwrap(), 0);
    other.execute_batch("COMMIT").unwrap();
    writing.await.unwrap().unwrap();
    assert_eq!(pair.config.rev().await.unwrap(), 1);
}
