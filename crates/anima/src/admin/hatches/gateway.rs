//! The switch of the whole data plane.
//!
//! Off refuses every call with 503 `service_suspended` in the caller's format, on every node. The
//! admin API and the actuator go on. Streams finish, unless the switch says `cut`.

use serde::Deserialize;
use serde_json::{Value, json};

use anima_store::config::publish::{GatewaySwitch, Hatch};

use super::{because, pull};
use crate::admin::Admin;
use crate::admin::call::Call;
use crate::admin::problem::{Code, Problem};
use crate::admin::reply::Reply;
use crate::admin::{spread, typed};

/// What a switch may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    enabled: Option<bool>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    running: Option<Running>,
}

/// What becomes of what streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Running {
    Finish,
    Cut,
}

pub(super) async fn show(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    Ok(Reply::ok(shown(&admin.stores.publish.hatches().await?.gateway)))
}

fn shown(switch: &GatewaySwitch) -> Value {
    json!({
        "enabled": switch.enabled,
        "reason": switch.reason,
        "actor": switch.actor,
        "changed_at": switch.changed_at,
    })
}

pub(super) async fn switch(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[spread::WAIT])?;
    let wish: Wish = typed::typed(Value::Object(call.object()?))?;
    let Some(enabled) = wish.enabled else {
        return Err(Problem::member(Code::InvalidMember, "enabled", "is required"));
    };
    if enabled && wish.running.is_some() {
        return Err(Problem::invalid("running", "it only beside `\"enabled\": false`"));
    }
    let actor = because(call, wish.reason)?;
    let cut = wish.running == Some(Running::Cut);
    let body = shown(&GatewaySwitch {
        enabled,
        reason: actor.reason.clone(),
        actor: actor.name.clone(),
        changed_at: Some(admin.clock.now()),
    });
    pull(admin, Hatch::Gateway { enabled, cut }, &actor, (call, body)).await
}
