//! Circuits by hand: `open`, `close` and `reset`.
//!
//! A manual state wins over the automatic one until it is reset or has expired. Not here: what a
//! circuit does by itself (`anima_core::breaker`).

use serde::Deserialize;
use serde_json::{Value, json};

use anima_core::clock::Timestamp;
use anima_store::config::publish::{Forced, Hatch};

use super::{Lever, because, ensure_channel, pull};
use crate::admin::Admin;
use crate::admin::call::Call;
use crate::admin::problem::Problem;
use crate::admin::reply::Reply;
use crate::admin::{spread, typed};

/// Longest name of a model.
const MODEL_CHARS_MAX: usize = 256;

/// What a pull may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wish {
    model: Option<String>,
    reason: Option<String>,
    expires_at: Option<Timestamp>,
    expires_in_ms: Option<u32>,
}

pub(super) async fn force(admin: &Admin, lever: Lever, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[spread::WAIT])?;
    let wish: Wish = typed::typed(Value::Object(call.optional_object()?))?;
    let channel = call.names.code.clone();
    ensure_channel(admin, &channel).await?;
    let now = admin.clock.now();
    let expires_at = expiry(&wish, now, lever)?;
    if wish.model.as_deref().is_some_and(|m| m.is_empty() || m.len() > MODEL_CHARS_MAX) {
        return Err(Problem::invalid("model", "a model's name at the provider"));
    }
    let actor = because(call, wish.reason)?;
    let state = match lever {
        Lever::Open => Some(Forced::Open),
        Lever::Close => Some(Forced::Closed),
        Lever::Reset
        | Lever::Gateway
        | Lever::SwitchGateway
        | Lever::Invalidate
        | Lever::Propagation
        | Lever::Scheduled
        | Lever::CancelScheduled => None,
    };
    let body = json!({
        "channel": channel,
        "model": wish.model,
        "manual": state.map(|state| json!({
            "state": state.name(), "reason": actor.reason, "actor": actor.name,
            "set_at": now, "expires_at": expires_at,
        })),
    });
    let model = wish.model.clone();
    let hatch = Hatch::Circuit { channel, model: wish.model, state, expires_at };
    let pulled = pull(admin, hatch, &actor, (call, body)).await?;
    if lever == Lever::Reset {
        // Back to automatic, and from a clean sheet; other nodes follow by what circuits share.
        admin.circuits.reset(&call.names.code, model.as_deref());
    }
    Ok(pulled)
}

/// Until when a manual state shall last.
fn expiry(wish: &Wish, now: Timestamp, lever: Lever) -> Result<Option<Timestamp>, Problem> {
    let (member, at) = match (wish.expires_at, wish.expires_in_ms) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("expires_in_ms", "either this or `expires_at`"));
        }
        (Some(at), None) => ("expires_at", at),
        (None, Some(millis)) => ("expires_in_ms", now.plus_millis(millis.into())),
    };
    if lever == Lever::Reset {
        return Err(Problem::invalid(member, "no expiry: a reset does not end"));
    }
    if at <= now {
        return Err(Problem::invalid(member, "a time that lies ahead"));
    }
    Ok(Some(at))
}
