//! Rows of the limits' scenarios: apps, quotas, keys and what their calls cost.
//!
//! Not what is done with them. Invariant: a quota is in force on every node when it is handed out,
//! since a key that names one which is not refuses its calls.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::chaos::load::Lane;
use crate::chaos::world::{World, chat, path_of};
use crate::money::{COST, SALE};
use crate::operator::{Key, member, price, text};

/// How long nodes may take to have a change in force when nothing is broken.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// What an app has: more than any run spends.
const CREDIT: &str = "100000.00";

/// A channel whose calls may take as long as a scenario holds them.
const PATIENT: &str = "patient";

/// Starts the nodes anew with more patience for Redis than a busy machine needs. A node that takes
/// one slow answer for a lost Redis goes on with its share of every limit (`docs/limits.md`), which
/// is what the storms look at; races and lines look at the counters themselves.
///
/// # Errors
/// When a node does not come back.
pub(super) async fn patient(world: &mut World) -> Result<()> {
    world.restart(&[("ANIMA_REDIS_TIMEOUT_MS", "5000")]).await
}

/// Makes an app that can pay.
///
/// # Errors
/// When the admin API refuses it.
pub(super) async fn app(world: &World, code: &str, quota: Option<&str>) -> Result<()> {
    let admin = world.admin(0)?;
    admin.create("/apps", &json!({"code": code, "name": code, "quota": quota})).await?;
    admin.create(&format!("/apps/{code}/topups"), &json!({"amount": CREDIT})).await?;
    Ok(())
}

/// Makes a quota and waits until it is in force everywhere.
///
/// # Errors
/// When the admin API refuses it, or a node does not hear of it.
pub(super) async fn quota(world: &World, code: &str, limits: &Value) -> Result<()> {
    let row = json!({"code": code, "limits": limits});
    let revision = world.admin(0)?.change(Method::POST, "/quotas", &row).await?;
    known(world, revision).await
}

/// Waits until every node has a revision in force.
///
/// # Errors
/// When one does not.
pub(super) async fn known(world: &World, revision: i64) -> Result<()> {
    let until = Instant::now() + KNOWN_WITHIN;
    for n in 0..world.plan.nodes {
        while world.revision(n).await? < revision {
            if Instant::now() > until {
                bail!("node {n} does not hear of revision {revision}");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}

/// Makes a key of an app.
///
/// # Errors
/// When the admin API refuses it.
pub(super) async fn key(world: &World, app: &str, row: &Value) -> Result<Key> {
    let key = world.admin(0)?.create(&format!("/apps/{app}/keys"), row).await?;
    Ok(Key { kid: text(&key, "kid")?, secret: text(&key, "secret")? })
}

/// Turns a key to another mode, over one node in turn whose reply waits for nobody.
///
/// # Errors
/// When the admin API refuses it.
pub(super) async fn turn(world: &World, (n, path): (usize, &str), mode: &str) -> Result<()> {
    let admin = world.admin(n)?;
    let row = admin.call(Method::GET, path, &Value::Null).await?;
    let body = json!({"version_no": member(&row, "version_no"), "queue_mode": mode});
    admin.call(Method::PATCH, &format!("{path}?wait_ms=0"), &body).await.map(drop)
}

/// How many slots of a key's first limit are taken, as one node says.
///
/// # Errors
/// When it does not say so.
pub(super) async fn used(world: &World, (n, key): (usize, &Key)) -> Result<i64> {
    let path = format!("{}/limits", path_of(key));
    let shown = world.admin(n)?.call(Method::GET, &path, &Value::Null).await?;
    let used = shown.pointer("/items/0/used").context("no `used`")?;
    let text = used.as_str().map_or_else(|| used.to_string(), str::to_owned);
    text.parse().with_context(|| format!("used: {text}"))
}

/// How calls to an alias are charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charged {
    /// By tokens, as all others.
    Tokens,
    /// A cent for each call and nothing else, so that a hold is what the call comes to.
    Cents,
}

/// Makes an alias of one model, on a channel whose timeouts are long.
///
/// # Errors
/// When the admin API refuses it.
pub(super) async fn alias(
    world: &World,
    code: &str,
    (options, charged): (&str, Charged),
) -> Result<()> {
    let admin = world.admin(0)?;
    let path = format!("/channels/{PATIENT}");
    if admin.attempt(Method::GET, &path, &Value::Null).await?.status == 404 {
        let row = json!({
            "code": PATIENT, "provider": "openai_compatible",
            "base_url": format!("http://{}/v1", world.provider.address),
            "credentials": [{"code": "only", "secret": "sk-patient"}],
            "allow_private_network": true,
            "breaker": {"consecutive_failures": 0, "minimum_calls": 100_000},
            "timeouts": {"first_byte_ms": 300_000, "idle_ms": 300_000, "total_ms": 600_000},
        });
        admin.create("/channels", &row).await?;
    }
    let model = format!("sim-{code}+answer-tokens:6{options}");
    let routes = json!([{"channel": PATIENT, "model": model}]);
    // The `Idempotency-Key` of a call whose node dies before its hold is free again a minute after
    // its deadline, and calls of tasks are short.
    let deadline_ms = if code == "later" { 30_000 } else { 600_000 };
    let row = json!({"code": code, "kind": "chat", "routes": routes,
        "retry": {"deadline_ms": deadline_ms}});
    admin.create("/aliases", &row).await?;
    let mut sale = price(
        &SALE,
        json!({"code": format!("sale-{code}"), "side": "sale",
        "alias": code}),
    );
    if charged == Charged::Cents
        && let Some(members) = sale.as_object_mut()
    {
        let token = |meter: &str| json!({"meter": meter, "per": 1_000_000, "amount": "0"});
        let call = json!({"meter": "requests", "per": 1, "amount": "0.01"});
        let meters = json!([token("input_tokens"), token("output_tokens"), call]);
        members.insert("meters".to_owned(), meters);
    }
    admin.create("/prices", &sale).await?;
    let of = json!({"code": format!("cost-{code}"), "side": "cost", "channel": PATIENT,
        "model": model});
    let revision = admin.change(Method::POST, "/prices", &price(&COST, of)).await?;
    known(world, revision).await
}

/// The model of such an alias in the truth log, without options.
pub(super) fn model_of(alias: &str) -> String {
    format!("sim-{alias}")
}

/// A call to an alias with a key.
pub(super) fn lane(alias: &str, key: &Key) -> Lane {
    chat(alias, key)
}
