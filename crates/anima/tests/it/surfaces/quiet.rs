//! A key in a query, as Gemini's clients may send it, is in no log.
//!
//! The node runs on this thread alone, so that the subscriber of this thread sees all it logs.

use std::io::Write;
use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;
use tracing_subscriber::filter::LevelFilter;

use super::Client;
use crate::testapp::{Backend, TestApp};

/// What was logged.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_key_in_a_query_is_in_no_log() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    // With one subscriber alone, an event that another test's thread meets first would be taken for
    // one that nobody wants.
    let _another = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _guard = tracing::subscriber::set_default(subscriber);
    let place = Backend::Sqlite.place().await.unwrap();
    let app = Box::pin(TestApp::start(place, "")).await;
    let body = Client::Gemini.body("chat", false).to_string();
    let key = app.key.clone();
    for (path, status) in [
        ("chat:generateContent?key=", 200),
        ("chat:streamGenerateContent?alt=sse&key=", 200),
        ("chat:countTokens?key=", 200),
        ("none:generateContent?key=", 404),
        ("chat:nothing?key=", 404),
    ] {
        let path = format!("/v1beta/models/{path}{key}");
        let reply = app.raw(Method::POST, &path, &[], body.clone()).await;
        assert_eq!(reply.status, status, "{path}");
        assert!(!reply.text().contains(&key), "{path}");
    }
    Box::pin(app.finish()).await;
    let written = String::from_utf8(log.0.lock().clone()).unwrap();
    assert!(written.contains("generate_content"), "the call itself is in the log: {written}");
    // The test's own client logs on this thread too, under its own name.
    let ours: Vec<&str> = written.lines().filter(|line| line.contains(" anima")).collect();
    assert!(ours.iter().all(|line| !line.contains(&key)), "{ours:?}");
}
