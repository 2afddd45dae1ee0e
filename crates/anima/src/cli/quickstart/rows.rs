//! The rows of the first start: the simulated provider with its aliases and prices, an app with
//! credit, a key.
//!
//! Made through the functions of the admin API, so that nothing here is special. Invariant: what is
//! there already is left as its owner made it, and credit is posted once.

use serde_json::{Value, json};
use zeroize::Zeroizing;

use anima_core::config::Resource;
use anima_store::config::Actor;
use anima_store::keys::{AdminToken, Role};

use crate::admin::{Admin, Problem, aliases, apps, channels, keys, prices, problem};
use crate::secrets::{self, Secrets};

/// The alias that chats with the simulated provider.
pub(super) const CHAT_ALIAS: &str = "sim-chat";
/// The alias that embeds with it.
const EMBEDDING_ALIAS: &str = "sim-embedding";
/// The app.
pub(super) const APP: &str = "quickstart";
/// The channel of the simulated provider.
const CHANNEL: &str = "simulator";
/// Credit of the app, in dollars: enough to play with for a long time at the prices below.
const CREDIT: &str = "100.00";

/// Who makes these rows, in the audit log.
pub(super) fn actor() -> Actor {
    Actor { name: "quickstart".to_owned(), reason: "first start".to_owned() }
}

/// Turns "exists already" into success.
pub(super) fn unless_there<T>(result: Result<T, Problem>) -> Result<Option<T>, String> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(problem) if problem.code == problem::Code::AlreadyExists => Ok(None),
        Err(problem) => Err(problem.detail),
    }
}

/// The channel, aliases and prices of the simulated provider at `port`.
pub(super) async fn simulated(admin: &Admin, port: u16) -> Result<(), String> {
    let by = actor();
    let base_url = format!("http://127.0.0.1:{port}/v1");
    let channel = json!({
        "code": CHANNEL, "provider": "openai_compatible", "base_url": base_url,
        "credentials": [{"code": "main", "secret": "simulated"}], "allow_private_network": true,
        "settings": { "call_look_up": true },
    });
    if unless_there(channels::create(admin, &by, channel).await)?.is_none() {
        move_channel(admin, &base_url).await?;
    }
    for (alias, kind) in [(CHAT_ALIAS, "chat"), (EMBEDDING_ALIAS, "embedding")] {
        let route = json!({ "channel": CHANNEL, "model": alias, "priority": 0, "weight": 1 });
        let row = json!({ "code": alias, "kind": kind, "routes": [route] });
        unless_there(aliases::create(admin, &by, row).await)?;
        let cost = json!({
            "code": format!("{alias}-cost"), "side": "cost", "channel": CHANNEL, "model": alias,
            "currency": "USD", "meters": meters("1.00", "4.00"),
        });
        unless_there(prices::create(admin, &by, cost).await)?;
        let sale = json!({
            "code": format!("{alias}-sale"), "side": "sale", "alias": alias,
            "currency": "USD", "meters": meters("1.50", "6.00"),
        });
        unless_there(prices::create(admin, &by, sale).await)?;
    }
    Ok(())
}

fn meters(input: &str, output: &str) -> Value {
    let per =
        |meter: &str, amount: &str| json!({ "meter": meter, "per": 1_000_000, "amount": amount });
    json!([
        per("input_tokens", input),
        per("cached_input_tokens", "0.10"),
        per("output_tokens", output),
    ])
}

/// The simulated provider may have another port than at the last start.
async fn move_channel(admin: &Admin, base_url: &str) -> Result<(), String> {
    let versions = admin.stores.config.versions(Resource::Channel, CHANNEL).await;
    let versions = versions.map_err(|e| e.to_string())?;
    let Some(latest) = versions.first() else {
        return Ok(());
    };
    if latest.body.get("base_url").and_then(Value::as_str) == Some(base_url) {
        return Ok(());
    }
    let change = json!({ "version_no": latest.version_no, "base_url": base_url });
    channels::change(admin, &actor(), CHANNEL, change).await.map(|_| ()).map_err(|p| p.detail)
}

/// The app and its credit. The credit is posted under one idempotency key: once, however often
/// this runs.
pub(super) async fn app(admin: &Admin) -> Result<(), String> {
    let row = json!({ "code": APP, "name": "Quickstart", "currency": "USD" });
    unless_there(apps::create(admin, &actor(), row).await)?;
    let credit = json!({ "amount": CREDIT, "reference": "quickstart credit" });
    let posted = apps::topup(admin, &actor(), APP, "quickstart-credit", credit).await;
    posted.map(|_| ()).map_err(|p| p.detail)
}

/// The key of the last start if it still is one, else a new key.
pub(super) async fn key(
    admin: &Admin,
    kept: Option<Zeroizing<String>>,
) -> Result<Zeroizing<String>, String> {
    if let Some(text) = kept
        && let Some(kid) = secrets::kid_of(&text)
    {
        let found = admin.stores.keys.key(kid, admin.clock.now()).await;
        let hash = admin.secrets.hash_key(&text);
        let record = found.map_err(|e| e.to_string())?;
        if record.is_some_and(|r| r.secrets.iter().any(|s| secrets::same_hash(&s.hash, &hash))) {
            return Ok(text);
        }
    }
    let made = keys::create(admin, &actor(), APP, json!({ "name": "quickstart" })).await;
    made.map(|key| key.secret).map_err(|p| p.detail)
}

/// The kept admin token if the database knows it, else a further one: the data directory was lost
/// but the database was not, or it is another database.
pub(super) async fn admin_token(
    admin: &Admin,
    kept: Option<Zeroizing<String>>,
) -> Result<Zeroizing<String>, String> {
    if let Some(text) = kept {
        let hash = admin.secrets.hash_admin_token(&text);
        let known = admin.stores.keys.admin_token(&hash).await.map_err(|e| e.to_string())?;
        if known.is_some_and(|token| secrets::same_hash(&token.hash, &hash)) {
            return Ok(text);
        }
    }
    let text = Secrets::mint_admin_token();
    let hash = admin.secrets.hash_admin_token(&text);
    let token = AdminToken { name: "quickstart".to_owned(), role: Role::Admin, hash };
    let stored = admin.stores.keys.store_admin_token(token, admin.clock.now()).await;
    stored.map(|()| text).map_err(|e| e.to_string())
}
