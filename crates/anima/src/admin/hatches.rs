//! The escape hatches beside the rows' own switches: circuits by hand, the switch of the whole data
//! plane, what nodes keep in memory, and how far a change has come.
//!
//! Each is written with its reason and actor, put in force on this node, spread to the others, and
//! answered with the nodes that have it. Invariant: nothing is pulled without a reason. Sources:
//! SPEC 10; `reliability` 5.

use serde_json::{Value, json};

use anima_core::config::Resource;
use anima_store::config::Actor;
use anima_store::config::publish::Hatch;

use super::Admin;
use super::call::Call;
use super::problem::{Code, Problem};
use super::reply::Reply;
use super::rows;
use super::spread;

pub(crate) mod circuits;
pub(crate) mod gateway;
mod scheduled;

/// What can be asked of the hatches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lever {
    /// `POST /circuits/{channel}/open`.
    Open,
    /// `POST /circuits/{channel}/close`.
    Close,
    /// `POST /circuits/{channel}/reset`.
    Reset,
    /// `GET /switch`.
    Gateway,
    /// `PATCH /switch`.
    SwitchGateway,
    /// `POST /cache/invalidate`.
    Invalidate,
    /// `GET /propagation/{id}`.
    Propagation,
    /// `GET /scheduled`.
    Scheduled,
    /// `DELETE /scheduled/{id}`.
    CancelScheduled,
}

impl Lever {
    /// Every lever with its method and path.
    pub(crate) const ALL: &'static [(http::Method, &'static str, Self)] = &[
        (http::Method::POST, "/circuits/{code}/open", Self::Open),
        (http::Method::POST, "/circuits/{code}/close", Self::Close),
        (http::Method::POST, "/circuits/{code}/reset", Self::Reset),
        (http::Method::GET, "/switch", Self::Gateway),
        (http::Method::PATCH, "/switch", Self::SwitchGateway),
        (http::Method::POST, "/cache/invalidate", Self::Invalidate),
        (http::Method::GET, "/propagation/{code}", Self::Propagation),
        (http::Method::GET, "/scheduled", Self::Scheduled),
        (http::Method::DELETE, "/scheduled/{code}", Self::CancelScheduled),
    ];
}

/// Serves a call at a lever.
///
/// # Errors
/// The first bad member, no such channel or version, or the store's.
pub(crate) async fn serve(admin: &Admin, lever: Lever, call: &Call) -> Result<Reply, Problem> {
    match lever {
        Lever::Open | Lever::Close | Lever::Reset => circuits::force(admin, lever, call).await,
        Lever::Gateway => gateway::show(admin, call).await,
        Lever::SwitchGateway => gateway::switch(admin, call).await,
        Lever::Invalidate => invalidate(admin, call).await,
        Lever::Propagation => propagation(admin, call).await,
        Lever::Scheduled => scheduled::list(admin, call).await,
        Lever::CancelScheduled => scheduled::cancel(admin, call).await,
    }
}

/// Writes a pull, puts it in force here, and answers with who has it.
async fn pull(
    admin: &Admin,
    hatch: Hatch,
    actor: &Actor,
    (call, body): (&Call, Value),
) -> Result<Reply, Problem> {
    let within = spread::wait_of(call, spread::WAIT_HATCH)?;
    let rev = admin.stores.publish.pull(hatch, actor, admin.clock.now()).await?;
    let delayed = !rows::publish(admin, rev).await;
    let reply = Reply::ok(body).delayed(delayed);
    Ok(spread::told(admin, reply, rev, within).await)
}

/// The actor with the body's reason, or the header's; one of them must be there.
fn because(call: &Call, reason: Option<String>) -> Result<Actor, Problem> {
    let given = &call.caller.actor;
    let reason = reason.unwrap_or_else(|| given.reason.clone());
    if reason.trim().is_empty() {
        return Err(Problem::member(Code::InvalidMember, "reason", "is required: say why"));
    }
    if reason.chars().count() > 1_000 {
        return Err(Problem::invalid("reason", "a text of up to 1000 characters"));
    }
    Ok(Actor { name: given.name.clone(), reason })
}

/// What can be dropped from memory.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Invalidation {
    scope: String,
    #[serde(default)]
    reason: Option<String>,
}

/// Scopes without a name in them.
const SCOPES: &[&str] = &["all", "config", "keys", "apps"];

async fn invalidate(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[spread::WAIT])?;
    let asked: Invalidation = super::typed::typed(Value::Object(call.object()?))?;
    let named =
        |prefix: &str| asked.scope.strip_prefix(prefix).is_some_and(|name| !name.is_empty());
    let known = SCOPES.contains(&asked.scope.as_str()) || named("key:") || named("app:");
    if !known || asked.scope.len() > 128 {
        let expected = "`all`, `config`, `keys`, `key:<kid>`, `apps` or `app:<code>`";
        return Err(Problem::invalid("scope", expected));
    }
    let actor = because(call, asked.reason.or_else(|| Some("asked for".to_owned())))?;
    let body = json!({ "scope": asked.scope });
    pull(admin, Hatch::Forget { scope: asked.scope }, &actor, (call, body)).await
}

async fn propagation(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[spread::WAIT])?;
    let within = spread::wait_of(call, std::time::Duration::ZERO)?;
    let id = call.names.code.parse().ok().filter(|id: &i64| *id >= 1);
    let Some(id) = id else { return Err(Problem::not_found("change")) };
    if id > admin.stores.config.rev().await? {
        return Err(Problem::not_found("change"));
    }
    Ok(Reply::ok(spread::of(admin, id, within).await?.to_json()))
}

/// Whether a channel is there, now or later.
async fn ensure_channel(admin: &Admin, code: &str) -> Result<(), Problem> {
    let now = admin.clock.now();
    let versions = admin.stores.config.versions(Resource::Channel, code).await?;
    if versions.iter().any(|row| rows::is_ahead(row, now)) {
        return Ok(());
    }
    Err(Problem::not_found("channel"))
}
