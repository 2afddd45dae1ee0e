//! The rows of a run, made through the admin API as an operator would make them.
//!
//! Channels, an alias per scenario, prices of both sides, apps with credit, and a key per app and
//! node: the key in a hold then tells which node made it.
//! All channels but the backup can be asked what became of a call; orphans of that one are resolved
//! from checkpoints and estimates.
//! Invariant: nothing here is special to the harness but the amount of credit.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::http_client::{Answer, Ask, json as exchange, whole};
use crate::money::{COST, Rates, SALE};
use crate::scenario::{self, BACKUP, CHANNELS, HASTY_MS};

/// The first admin token of every run's nodes.
pub(crate) const ADMIN_TOKEN: &str = "crash-harness-admin";

/// The customers: calls are spread over them evenly.
pub(crate) const APPS: [&str; 3] = ["acme", "globex", "initech"];

/// What each gets, in dollars: more than any run can spend or hold.
pub(crate) const CREDIT: &str = "100000.00";

/// A key of one app for calls to one node.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) kid: String,
    pub(crate) secret: String,
}

/// Keys by node, then by app.
pub(crate) type Keys = Vec<Vec<Key>>;

/// Makes all rows.
///
/// # Errors
/// When the admin API refuses something.
pub(crate) async fn set_up(node: SocketAddr, provider: SocketAddr, nodes: usize) -> Result<Keys> {
    let admin = Admin { node };
    for channel in CHANNELS {
        let mut row = json!({
            "code": channel, "provider": "openai_compatible",
            "base_url": format!("http://{provider}/v1"),
            "credentials": [{"code": "only", "secret": format!("sk-{channel}")}],
            "allow_private_network": true,
            "settings": {"call_look_up": channel != BACKUP.0},
        });
        if channel == HASTY_MS.0
            && let Some(members) = row.as_object_mut()
        {
            members.insert("timeouts".to_owned(), json!({"first_byte_ms": HASTY_MS.1}));
        }
        admin.create("/channels", &row).await?;
    }
    aliases(&admin).await?;
    for app in APPS {
        admin.create("/apps", &json!({"code": app, "name": app})).await?;
        admin.create(&format!("/apps/{app}/topups"), &json!({"amount": CREDIT})).await?;
    }
    let mut keys = Vec::new();
    for n in 0..nodes {
        let mut of_node = Vec::new();
        for app in APPS {
            let name = json!({"name": format!("node {n}")});
            let key = admin.create(&format!("/apps/{app}/keys"), &name).await?;
            of_node.push(Key { kid: text(&key, "kid")?, secret: text(&key, "secret")? });
        }
        keys.push(of_node);
    }
    Ok(keys)
}

/// Keys that are for no node in particular, so many over all apps.
///
/// # Errors
/// When the admin API refuses one.
pub(crate) async fn pool(node: SocketAddr, count: u64) -> Result<Vec<Key>> {
    let admin = Admin { node };
    let mut pool = Vec::new();
    for (n, app) in (0..count).zip(APPS.iter().cycle()) {
        let name = json!({"name": format!("once {n}")});
        let key = admin.create(&format!("/apps/{app}/keys"), &name).await?;
        pool.push(Key { kid: text(&key, "kid")?, secret: text(&key, "secret")? });
    }
    Ok(pool)
}

async fn aliases(admin: &Admin) -> Result<()> {
    let mut priced = std::collections::BTreeSet::new();
    for scenario in scenario::ALL {
        let routes: Vec<Value> = scenario
            .routes()
            .iter()
            .zip([2, 1])
            .map(|((channel, model), n)| json!({"channel": channel, "model": model, "priority": n}))
            .collect();
        let alias = scenario.alias;
        let row = json!({"code": alias, "kind": scenario.kind(), "routes": routes});
        admin.create("/aliases", &row).await?;
        let sale = json!({"code": format!("sale-{alias}"), "side": "sale", "alias": alias});
        admin.create("/prices", &price(&SALE, sale)).await?;
        for (channel, model) in scenario.routes() {
            if priced.insert((channel, model)) {
                let code = format!("cost-{}", priced.len());
                let of = json!({"code": code, "side": "cost", "channel": channel, "model": model});
                admin.create("/prices", &price(&COST, of)).await?;
            }
        }
    }
    Ok(())
}

/// A price with the three meters of a chat.
pub(crate) fn price(rates: &Rates, mut row: Value) -> Value {
    let meter =
        |name: &str, amount: &str| json!({"meter": name, "per": 1_000_000, "amount": amount});
    let meters = json!([
        meter("input_tokens", rates.input),
        meter("cached_input_tokens", rates.cached),
        meter("output_tokens", rates.output),
    ]);
    if let Some(members) = row.as_object_mut() {
        members.insert("currency".to_owned(), json!("USD"));
        members.insert("meters".to_owned(), meters);
    }
    row
}

/// A member of an answer; null when it is not there.
pub(crate) fn member(object: &Value, name: &str) -> Value {
    object.get(name).cloned().unwrap_or_default()
}

/// A member that must be a text.
///
/// # Errors
/// When it is not.
pub(crate) fn text(object: &Value, member: &str) -> Result<String> {
    let found = object.get(member).and_then(Value::as_str);
    found.map(str::to_owned).with_context(|| format!("no `{member}`"))
}

/// The admin API of one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Admin {
    pub(crate) node: SocketAddr,
}

impl Admin {
    /// Makes a row.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) async fn create(&self, path: &str, row: &Value) -> Result<Value> {
        exchange(&self.ask(Method::POST, path, row)).await
    }

    /// A call that must succeed.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        exchange(&self.ask(method, path, body)).await
    }

    /// A call, whatever comes of it.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn attempt(&self, method: Method, path: &str, body: &Value) -> Result<Answer> {
        whole(&self.ask(method, path, body)).await
    }

    /// A change that must succeed, and its revision: the id of its propagation.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) async fn change(&self, method: Method, path: &str, body: &Value) -> Result<i64> {
        let answer = self.attempt(method, path, body).await?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!((200..300).contains(&answer.status), "{path}: {}: {said}", answer.status);
        let id = answer.header("x-anima-propagation");
        id.parse().with_context(|| format!("{path}: a change without a propagation: {id}"))
    }

    fn ask(&self, method: Method, path: &str, body: &Value) -> Ask {
        Ask {
            address: self.node,
            method,
            path: format!("/api/admin/v1{path}"),
            token: ADMIN_TOKEN.to_owned(),
            body: if body.is_null() { String::new() } else { body.to_string() },
            // Only a top-up needs it; the others ignore it.
            idempotency_key: Some(format!("crash{}", path.replace('/', "-"))),
        }
    }
}
