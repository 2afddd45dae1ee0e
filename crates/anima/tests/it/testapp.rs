//! A whole node in this process with everything it needs: database, simulated provider, rows.
//!
//! One verb per user action. Rows are made over HTTP as an operator would make them. Invariant: a
//! test that ends without a panic ends with `finish`, which checks the books.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anima::boot;
use anima::settings::{Flags, Settings};
use anima_core::breaker::{Manual, Mode};
use anima_core::clock::Timestamp;
use anima_simulator::{Call, Script, Simulator};
use anima_store::database::Location;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

mod away;
mod books;
mod client;
mod place;

pub(crate) use books::{Leg, Rates, nano, owed};
pub(crate) use client::{Client, Reply, Streamed};
pub(crate) use place::{Backend, Place, redis_behind_proxy, variable};

/// What customers pay, per million tokens. Odd on purpose, so that every amount is rounded.
pub(crate) const SALE: Rates =
    Rates { input: "1.2345678", cached: "0.1234567", output: "6.7891234" };
/// What the provider charges, per million tokens.
pub(crate) const COST: Rates =
    Rates { input: "0.9876543", cached: "0.0987654", output: "4.3210987" };

pub(crate) const ADMIN_TOKEN: &str = "integration-tests-admin";
/// The bearer keys that the simulated provider sees, by channel.
pub(crate) const MAIN_SECRET: &str = "sk-main";
pub(crate) const BACKUP_SECRET: &str = "sk-back";
/// The app's credit, in dollars.
pub(crate) const CREDIT: &str = "100.00";
/// Longer than any condition of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running node.
pub(crate) struct TestApp {
    pub(crate) address: SocketAddr,
    /// A key of the app `acme`.
    pub(crate) key: String,
    pub(crate) upstream: Arc<Simulator>,
    pub(crate) upstream_url: String,
    pub(crate) client: Client,
    pub(crate) place: Place,
    pub(crate) plane: Arc<anima::api::Plane>,
    node: Arc<anima::app::App>,
    stop: CancellationToken,
    served: JoinHandle<()>,
    dir: tempfile::TempDir,
}

/// Another node on a test's database.
pub(crate) struct Neighbour {
    pub(crate) client: Client,
    stop: CancellationToken,
    served: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Neighbour {
    /// Stops it, as a signal would.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.served).await.expect("the node stops").unwrap();
    }
}

#[expect(clippy::multiple_inherent_impl, reason = "taking the database away is a file of its own")]
impl TestApp {
    /// Starts a node with the rows that most tests need: the channel `main`, the alias `chat` with
    /// prices, the app `acme` with credit and a key.
    pub(crate) async fn start(place: Place, settings: &str) -> Self {
        let mut app = Self::bare(place, settings).await;
        app.channel("main", MAIN_SECRET, json!({})).await;
        app.alias("chat", "chat", &[("main", "sim-chat")]).await;
        app.app("acme", CREDIT, json!({})).await;
        app.key = app.mint("acme", json!({})).await.1;
        app
    }

    /// Another node on the same database, with the same master key.
    pub(crate) async fn beside(&self, settings: &str) -> Neighbour {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("anima.toml");
        let database = self.place.url().expect("a database that nodes share");
        let master = std::fs::read_to_string(self.data_dir().join("master.key")).unwrap();
        let text = format!(
            "log = \"off\"\nadmin_token = \"{ADMIN_TOKEN}\"\ndatabase_url = \"{database}\"\n\
             master_key = \"{}\"\n{settings}\n",
            master.trim()
        );
        std::fs::write(&file, text).unwrap();
        let flags = Flags {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(dir.path().join("data").display().to_string()),
            config: Some(file),
        };
        let settings = Settings::load(&flags).unwrap();
        let node = boot::node(&settings).await.unwrap();
        let listener = TcpListener::bind(settings.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(node.serve(listener, stop.clone()));
        Neighbour { client: Client::new(address), stop, served, _dir: dir }
    }

    async fn bare(place: Place, settings: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("anima.toml");
        let database = place.url().unwrap_or_default();
        let text = format!(
            "log = \"off\"\nadmin_token = \"{ADMIN_TOKEN}\"\n\
             database_url = \"{database}\"\n{settings}\n"
        );
        std::fs::write(&file, text).unwrap();
        let data_dir = dir.path().join("data").display().to_string();
        let flags = Flags {
            listen: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(data_dir),
            config: Some(file),
        };
        let settings = Settings::load(&flags).unwrap();
        let node = boot::node(&settings).await.unwrap();
        boot::ensure_admin_token(&node, &settings).await.unwrap();
        let (shared, data_plane) = (Arc::clone(&node.app), Arc::clone(&node.plane));
        let listener = TcpListener::bind(settings.listen).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let served = tokio::spawn(node.serve(listener, stop.clone()));
        let upstream = Arc::new(Simulator::new(Script::default()));
        let upstream_url = serve_upstream(&upstream, &stop).await;
        let client = Client::new(address);
        let key = String::new();
        Self {
            address,
            key,
            upstream,
            upstream_url,
            client,
            place,
            plane: data_plane,
            node: shared,
            stop,
            served,
            dir,
        }
    }

    /// Checks that no money is left behind, and stops the node.
    pub(crate) async fn finish(self) {
        self.settled().await;
        self.verify().await;
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.served).await.expect("the node stops").unwrap();
        drop(self.dir);
    }

    // What clients do.

    /// `POST /v1/chat/completions`.
    pub(crate) async fn chat(&self, body: Value) -> Reply {
        self.post("/v1/chat/completions", &body).await
    }

    /// A chat with the alias, of which only the answer matters.
    pub(crate) async fn ask(&self, alias: &str) -> Reply {
        self.chat(prompt(alias)).await
    }

    /// The same as a stream, read to its end.
    pub(crate) async fn ask_stream(&self, alias: &str) -> Reply {
        self.stream(prompt(alias)).await.whole().await
    }

    /// `POST /v1/chat/completions` with `"stream": true`, up to the head of the answer.
    pub(crate) async fn stream(&self, mut body: Value) -> Streamed {
        body["stream"] = json!(true);
        let headers = self.bearer();
        let body = Bytes::from(body.to_string());
        self.client.open(Method::POST, "/v1/chat/completions", &headers, body).await
    }

    /// A POST with the app's key.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.raw(Method::POST, path, &self.bearer(), body.to_string()).await
    }

    /// A GET with the app's key.
    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.raw(Method::GET, path, &self.bearer(), "").await
    }

    /// Any request.
    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.client.open(method, path, headers, body.into()).await.whole().await
    }

    /// A chat with another key.
    pub(crate) async fn ask_as(&self, key: &str, alias: &str) -> Reply {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        self.raw(Method::POST, "/v1/chat/completions", &headers, prompt(alias).to_string()).await
    }

    fn bearer(&self) -> [(&'static str, &str); 1] {
        [("x-api-key", self.key.as_str())]
    }

    // What operators do.

    /// A call of the admin API, whatever comes of it.
    pub(crate) async fn admin_try(&self, method: Method, path: &str, body: &Value) -> Reply {
        let token = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", token.as_str()), ("idempotency-key", "once")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.raw(method, &format!("/api/admin/v1{path}"), &headers, body).await
    }

    /// A call of the admin API that must succeed.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: &Value) -> Value {
        let reply = self.admin_try(method.clone(), path, body).await;
        assert!((200..300).contains(&reply.status), "{method} {path}: {reply:?}");
        reply.json()
    }

    /// Creates a row.
    pub(crate) async fn create(&self, path: &str, body: &Value) -> Value {
        self.admin(Method::POST, path, body).await
    }

    /// Changes a row, stating its latest version.
    pub(crate) async fn patch(&self, path: &str, mut body: Value) -> Value {
        let row = self.admin(Method::GET, path, &Value::Null).await;
        body["version_no"] = row["version_no"].clone();
        self.admin(Method::PATCH, path, &body).await
    }

    /// Flips a live switch.
    pub(crate) async fn switch(&self, path: &str, enabled: bool) {
        self.admin(Method::PATCH, path, &json!({ "enabled": enabled })).await;
    }

    /// A channel to the simulated provider; `more` replaces members.
    pub(crate) async fn channel(&self, code: &str, secret: &str, more: Value) {
        let mut row = json!({
            "code": code, "provider": "openai_compatible", "base_url": self.upstream_url,
            "credentials": [{"code": "first", "secret": secret}], "allow_private_network": true,
            "breaker": {"consecutive_failures": 0, "minimum_calls": 100_000},
        });
        for (name, value) in more.as_object().unwrap() {
            row[name] = value.clone();
        }
        self.create("/channels", &row).await;
    }

    /// The alias `embed`.
    pub(crate) async fn embedding(&self) {
        self.alias("embed", "embedding", &[("main", "sim-embedding")]).await;
    }

    /// An alias with its routes, first choice first, and all prices that it needs.
    pub(crate) async fn alias(&self, code: &str, kind: &str, routes: &[(&str, &str)]) {
        self.unpriced_alias(code, kind, routes).await;
        let sale = price(&SALE, json!({"code": flat(code, "sale"), "side": "sale", "alias": code}));
        self.create("/prices", &sale).await;
        for (channel, model) in routes {
            let code = flat(&format!("{channel}-{model}"), "cost");
            let scope = json!({"code": code, "side": "cost", "channel": channel, "model": model});
            let made = self.admin_try(Method::POST, "/prices", &price(&COST, scope)).await;
            assert!(matches!(made.status, 201 | 409), "{made:?}");
        }
    }

    /// An alias without prices.
    pub(crate) async fn unpriced_alias(&self, code: &str, kind: &str, routes: &[(&str, &str)]) {
        // Each route once, so that what a test counts does not depend on what it waits for.
        let retry = json!({"max_attempts": routes.len().max(1)});
        let routes: Vec<Value> = routes
            .iter()
            .rev()
            .enumerate()
            .map(|(n, (channel, model))| json!({"channel": channel, "model": model, "priority": n}))
            .rev()
            .collect();
        self.create(
            "/aliases",
            &json!({"code": code, "kind": kind, "routes": routes, "retry": retry}),
        )
        .await;
    }

    /// An app with credit.
    pub(crate) async fn app(&self, code: &str, credit: &str, more: Value) {
        let mut row = json!({"code": code, "name": code});
        for (name, value) in more.as_object().unwrap() {
            row[name] = value.clone();
        }
        self.create("/apps", &row).await;
        if credit != "0" {
            self.create(&format!("/apps/{code}/topups"), &json!({"amount": credit})).await;
        }
    }

    /// A key of an app: its path below the admin API, and its text.
    pub(crate) async fn mint(&self, app: &str, body: Value) -> (String, String) {
        let key = self.create(&format!("/apps/{app}/keys"), &body).await;
        let path = format!("/apps/{app}/keys/{}", key["kid"].as_str().unwrap());
        (path, key["secret"].as_str().unwrap().to_owned())
    }

    // What the simulated provider does and did.

    /// Does this to every call from now on; the empty text heals.
    pub(crate) fn fault(&self, options: &str) {
        self.script(&json!([{ "do": options }]));
    }

    /// Calls go to a channel whatever is found out about it.
    pub(crate) fn force_closed(&self, channel: &str) {
        let manual = Manual {
            mode: Mode::ForcedClosed,
            reason: "a test of something else".into(),
            actor: "test".into(),
            since: Timestamp::default(),
            until: None,
        };
        self.node.circuits.set_manual(channel, Some(manual));
    }

    /// Replaces the provider's rules.
    pub(crate) fn script(&self, rules: &Value) {
        let script = json!({ "rules": rules }).to_string();
        self.upstream.set_script(Script::from_json(script.as_bytes()).unwrap());
        // What was found out under the rules before says nothing about the ones from now on.
        self.node.circuits.reset_all();
    }

    /// The truth log, once every call in it has ended.
    pub(crate) async fn calls(&self) -> Vec<Call> {
        tokio::time::timeout(PATIENCE, self.upstream.idle()).await.expect("calls end");
        self.upstream.calls()
    }

    /// The calls made for one request, in order, once they have ended.
    pub(crate) async fn calls_of(&self, reply: &Reply) -> Vec<Call> {
        let id = reply.request_id().trim_start_matches("req_").to_owned();
        let all = self.calls().await;
        all.into_iter().filter(|c| c.request_id.as_deref() == Some(id.as_str())).collect()
    }

    // What the books say.

    /// What is on an app's wallet: posted, held, available, in nano-dollars.
    pub(crate) async fn wallet(&self, app: &str) -> (i64, i64, i64) {
        let path = format!("/apps/{app}/balance");
        let balance = self.admin(Method::GET, &path, &Value::Null).await;
        let of = |member: &str| nano(balance[member].as_str().unwrap());
        (of("posted"), of("held"), of("available"))
    }

    /// What `acme` has left, in nano-dollars.
    pub(crate) async fn balance(&self) -> i64 {
        self.wallet("acme").await.0
    }

    /// The legs posted for a request, by its id in any form.
    pub(crate) async fn postings(&self, request_id: &str) -> Vec<Leg> {
        let path = format!("/ledger/postings?request_id={request_id}");
        let page = self.admin(Method::GET, &path, &Value::Null).await;
        page["items"].as_array().unwrap().iter().map(Leg::read).collect()
    }

    /// The legs posted for a reply's request.
    pub(crate) async fn legs(&self, reply: &Reply) -> Vec<Leg> {
        self.postings(reply.request_id()).await
    }

    /// The trial balance: debits and credits by account, in nano-dollars.
    pub(crate) async fn trial_balance(&self) -> std::collections::BTreeMap<String, (i64, i64)> {
        let page = self.admin(Method::GET, "/ledger/trial-balance", &Value::Null).await;
        let lines = page["items"].as_array().unwrap().iter();
        lines
            .map(|line| {
                let of = |side: &str| nano(line[side].as_str().unwrap());
                (line["account"].as_str().unwrap().to_owned(), (of("debits"), of("credits")))
            })
            .collect()
    }

    /// Waits until nothing is held on `acme`.
    pub(crate) async fn settled(&self) {
        eventually("every hold is closed", async || {
            (self.wallet("acme").await.1 == 0).then_some(())
        })
        .await;
    }

    /// Checks the ledger's invariants.
    pub(crate) async fn verify(&self) {
        let report = self.admin(Method::GET, "/ledger/verify", &Value::Null).await;
        assert_eq!(report["ok"], json!(true), "{report:#}");
    }

    /// The metrics' text.
    pub(crate) async fn metrics(&self) -> String {
        self.raw(Method::GET, "/actuator/prometheus", &[], "").await.text()
    }

    /// Where the node's database is.
    pub(crate) fn location(&self) -> Location {
        match self.place.url() {
            Some(url) => Location::Postgres(url),
            None => Location::Sqlite(self.data_dir().join("anima.db")),
        }
    }

    /// The node's data directory.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Settlements that could not be written, and other things no test may cause.
    pub(crate) fn settle_failures(&self) -> u64 {
        self.node.metrics.settle_failures.get()
    }
}

/// A chat that every alias of the kind can answer.
pub(crate) fn prompt(alias: &str) -> Value {
    json!({"model": alias, "messages": [{"role": "user", "content": "Say something, please."}]})
}

/// Tries until there is a value. Each try does I/O, so waiting costs no luck and no fixed time.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let trying = async {
        loop {
            if let Some(value) = attempt().await {
                return value;
            }
            tokio::task::yield_now().await;
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, trying).await;
    outcome.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// A price with the three meters of a chat.
pub(crate) fn price(rates: &Rates, mut row: Value) -> Value {
    let meter =
        |name: &str, amount: &str| json!({"meter": name, "per": 1_000_000, "amount": amount});
    row["currency"] = json!("USD");
    row["meters"] = json!([
        meter("input_tokens", rates.input),
        meter("cached_input_tokens", rates.cached),
        meter("output_tokens", rates.output),
    ]);
    row
}

/// A code of letters, digits and dashes, made from any text.
fn flat(text: &str, ending: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }
    };
    let text: String = text.chars().map(plain).collect();
    format!("{}-{ending}", text.trim_matches('-'))
}

/// Serves the simulated provider, and gives the base URL.
async fn serve_upstream(upstream: &Arc<Simulator>, stop: &CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(Arc::clone(upstream).serve(listener, stopped));
    format!("http://{address}/v1")
}

/// Tests that run on both databases. Each is an `async fn(&TestApp)`; settings may follow.
macro_rules! on_both {
    ($($name:ident $(($settings:literal))?;)*) => {$(
        mod $name {
            use crate::testapp::{Backend, TestApp};

            async fn run(backend: Backend) {
                let Some(place) = backend.place().await else { return };
                let app = Box::pin(TestApp::start(place, concat!($($settings)?))).await;
                Box::pin(super::$name(&app)).await;
                Box::pin(app.finish()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                Box::pin(run(Backend::Sqlite)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                Box::pin(run(Backend::Postgres)).await;
            }
        }
    )*};
}

pub(crate) use on_both;
