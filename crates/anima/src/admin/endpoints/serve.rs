//! One call from HTTP to its verb and back.
//!
//! Takes the request apart once, picks the verb, and turns what comes back into a reply or a
//! problem. Not here: what a verb does. Invariant: a body is read only after its sender was
//! authenticated and their role let pass.

use std::time::Duration;

use axum::RequestExt as _;
use axum::extract::{OriginalUri, RawPathParams, Request};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use anima_store::config::Change;
use anima_store::keys::Role;

use super::{Action, Verb};
use crate::admin::aliases::Aliases;
use crate::admin::call::{self, Call, Names};
use crate::admin::caller::Caller;
use crate::admin::collection::Codes;
use crate::admin::problem::{Code, Problem};
use crate::admin::reply::Reply;
use crate::admin::rows::{self, Creation, Intent, Outcome, Place, Writer};
use crate::admin::{
    Admin, apps, audit, books, circuits, clearing, hatches, invoices, keys, limits, nodes, reports,
    requests, spread, tasks, trueup, usage,
};

/// Serves one call whose path names everything by itself.
pub(super) async fn serve(admin: &Admin, action: Action, mut request: Request) -> Response {
    let names = match names(&mut request).await {
        Ok(names) => names,
        Err(problem) => return problem.into_response(),
    };
    answer(admin, action, names, request).await
}

/// Serves one call below an alias, whose name may hold slashes.
pub(super) async fn serve_alias(admin: &Admin, mut request: Request) -> Response {
    let rest = match names(&mut request).await {
        Ok(names) => names.code,
        Err(problem) => return problem.into_response(),
    };
    let Some((verb, names)) = below_alias(request.method(), &rest) else {
        let detail = "the path has no such method";
        return Problem::new(Code::MethodNotAllowed, detail).into_response();
    };
    answer(admin, Action::Rows(verb, &Aliases), names, request).await
}

/// Tells an alias's name from what follows it. `None` when the method fits nothing.
fn below_alias(method: &Method, rest: &str) -> Option<(Verb, Names)> {
    let named = |code: &str| Names { code: code.to_owned(), ..Names::default() };
    let restore = rest.strip_suffix("/restore").and_then(|rest| rest.rsplit_once("/versions/"));
    match (method, restore, rest.strip_suffix("/versions")) {
        (&Method::POST, Some((code, n)), _) => {
            Some((Verb::Restore, Names { version: n.to_owned(), ..named(code) }))
        }
        (&Method::GET | &Method::HEAD, _, Some(code)) => Some((Verb::Versions, named(code))),
        (&Method::GET | &Method::HEAD, _, None) => Some((Verb::Read, named(rest))),
        (&Method::PATCH, _, _) => Some((Verb::Change, named(rest))),
        (&Method::DELETE, _, _) => Some((Verb::Delete, named(rest))),
        _ => None,
    }
}

async fn names(request: &mut Request) -> Result<Names, Problem> {
    let Ok(params) = request.extract_parts::<RawPathParams>().await else {
        return Err(Problem::new(Code::NotFound, "no such path"));
    };
    let mut names = Names::default();
    for (name, value) in &params {
        if value.contains('\0') {
            return Err(Problem::new(Code::NotFound, "no such path"));
        }
        match name {
            "app" => names.app = Some(value.to_owned()),
            "n" => value.clone_into(&mut names.version),
            _ => value.clone_into(&mut names.code),
        }
    }
    Ok(names)
}

async fn answer(admin: &Admin, action: Action, names: Names, request: Request) -> Response {
    let answered = match take(names, request).await {
        Ok(call) => perform(admin, action, &call).await,
        Err(problem) => Err(problem),
    };
    match answered {
        Ok(reply) => reply.into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn take(names: Names, request: Request) -> Result<Call, Problem> {
    let (parts, body) = request.into_parts();
    let Some(caller) = parts.extensions.get::<Caller>().cloned() else {
        return Err(Problem::new(Code::Unauthorized, "send an admin token as Bearer"));
    };
    let original = parts.extensions.get::<OriginalUri>().map(|uri| uri.0.path());
    let path = original.unwrap_or_else(|| parts.uri.path()).to_owned();
    let query = call::query(&parts.uri)?;
    let body = call::read(body).await?;
    Ok(Call { caller, path, names, query, headers: parts.headers, body })
}

async fn perform(admin: &Admin, action: Action, call: &Call) -> Result<Reply, Problem> {
    match action {
        Action::Rows(verb, collection) => {
            let place = Place { collection, app: call.names.app.as_deref() };
            Box::pin(perform_rows(admin, verb, place, call)).await
        }
        Action::TopUp | Action::Refund | Action::Adjust | Action::Grant | Action::TrueUp => {
            Box::pin(move_money(admin, action, call)).await
        }
        Action::Grants => {
            call.query_only(&[])?;
            Ok(Reply::page(apps::grants(admin, &call.names.code).await?, Value::Null))
        }
        Action::Statement => statement(admin, call).await,
        Action::Balance => {
            call.query_only(&[])?;
            Ok(Reply::ok(apps::balance(admin, &call.names.code).await?))
        }
        Action::Request => requests::read(admin, call).await,
        Action::Postings => books::postings(admin, call).await,
        Action::TrialBalance => books::trial_balance(admin, call).await,
        Action::Payables => reports::payables(admin, call).await,
        Action::Estimates => reports::estimates(admin, call).await,
        Action::Clear => Box::pin(clearing::clear(admin, call)).await,
        Action::Invoice => Box::pin(invoices::note_invoice(admin, call)).await,
        Action::Invoices => invoices::invoices(admin, call).await,
        Action::Margin => reports::margin(admin, call).await,
        Action::Verify => books::verify(admin, call).await,
        Action::Usage => usage::list(admin, call).await,
        Action::Audit => audit::list(admin, call).await,
        Action::Circuits => circuits::list(admin, call),
        Action::Nodes => nodes::list(admin, call),
        Action::Queues => limits::queues(admin, call).await,
        Action::LimitsOfKey => limits::of_key(admin, call).await,
        Action::Tasks(wish) => Box::pin(tasks::serve(admin, wish, call)).await,
        Action::Hatch(lever) => Box::pin(hatches::serve(admin, lever, call)).await,
    }
}

async fn perform_rows(
    admin: &Admin,
    verb: Verb,
    place: Place<'_>,
    call: &Call,
) -> Result<Reply, Problem> {
    let code = call.names.code.as_str();
    let writer = Writer { actor: &call.caller.actor, if_match: call.if_match()? };
    match verb {
        Verb::List => return list(admin, place, call).await,
        Verb::Read | Verb::Versions => call.query_only(&[])?,
        Verb::Create | Verb::Change | Verb::Delete | Verb::Restore => {
            call.query_only(&[spread::DRY_RUN, spread::WAIT])?;
        }
    }
    match verb {
        Verb::List | Verb::Create => create(admin, place, call).await,
        Verb::Read => {
            let outcome = rows::read(admin, place, code).await?;
            let reply = Reply::row(place, &outcome);
            Ok(match keys::pause(admin, place, &outcome.row).await? {
                Some(pause) => reply.with_member("pause", pause),
                None => reply,
            })
        }
        Verb::Change => change(admin, place, writer, call).await,
        Verb::Delete => {
            let body = call.optional_object()?;
            let intent = rows::delete_intent(admin, place, writer, code, body).await?;
            written(admin, place, call, intent).await
        }
        Verb::Versions => {
            let versions = place.history(admin, code).await?;
            let items = versions.iter().map(|row| place.show(row)).collect();
            Ok(Reply::page(items, Value::Null))
        }
        Verb::Restore => {
            let body = call.optional_object()?;
            let which = (code, call.version()?);
            let intent = rows::restore_intent(admin, place, writer, which, body).await?;
            written(admin, place, call, intent).await
        }
    }
}

/// Writes what was judged, or shows what would be written.
async fn written(
    admin: &Admin,
    place: Place<'_>,
    call: &Call,
    intent: Intent,
) -> Result<Reply, Problem> {
    if spread::is_dry_run(call)? {
        return Ok(Reply::ok(place.rehearse(admin, intent).await?));
    }
    let within = spread::wait_of(call, Duration::ZERO)?;
    let is_gone = intent.changes.iter().any(|change| matches!(change, Change::Delete { .. }));
    let outcome = place.apply(admin, intent).await?;
    let reply = if is_gone { Reply::gone(&outcome) } else { Reply::row(place, &outcome) };
    Ok(told(admin, reply, &outcome, within).await)
}

async fn told(admin: &Admin, reply: Reply, outcome: &Outcome, within: Duration) -> Reply {
    match outcome.rev {
        Some(rev) => spread::told(admin, reply, rev, within).await,
        None => reply,
    }
}

async fn change(
    admin: &Admin,
    place: Place<'_>,
    writer: Writer<'_>,
    call: &Call,
) -> Result<Reply, Problem> {
    let (code, body) = (call.names.code.as_str(), call.object()?);
    let is_switch = is_switch(&body);
    if !is_switch {
        call.caller.ensure(Role::Admin)?;
    }
    if spread::is_dry_run(call)? {
        let intent = rows::change_intent(admin, place, writer, code, body).await?;
        return Ok(Reply::ok(place.rehearse(admin, intent).await?));
    }
    // A switch is a hatch: its reply says who has it.
    let usual = if is_switch { spread::WAIT_HATCH } else { Duration::ZERO };
    let within = spread::wait_of(call, usual)?;
    let outcome = rows::change(admin, place, writer, code, body).await?;
    let reply = Reply::row(place, &outcome);
    Ok(told(admin, reply, &outcome, within).await)
}

/// Whether a change is a mere switch, which an operator may flip.
fn is_switch(body: &Map<String, Value>) -> bool {
    let beside = ["enabled", "running", "reason", "version_no"];
    body.contains_key("enabled") && body.keys().all(|name| beside.contains(&name.as_str()))
}

async fn list(admin: &Admin, place: Place<'_>, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["limit", "after"])?;
    if let Some(app) = place.app {
        apps::live_app(admin, app).await?;
    }
    let after = call.query.get("after").map(String::as_str);
    let (rows, next) = rows::list(admin, place, after, call.limit()?).await?;
    Ok(Reply::page(rows.iter().map(|row| place.show(row)).collect(), json!(next)))
}

async fn create(admin: &Admin, place: Place<'_>, call: &Call) -> Result<Reply, Problem> {
    let (actor, body) = (&call.caller.actor, call.object()?);
    let within = spread::wait_of(call, Duration::ZERO)?;
    if spread::is_dry_run(call)? {
        let intent = match (place.collection.codes(), place.app) {
            (Codes::Minted, Some(app)) => keys::intent(admin, actor, app, body).await?.0,
            _ => rows::create_intent(admin, actor, Creation { place, minted: None }, body).await?,
        };
        return Ok(Reply::ok(place.rehearse(admin, intent).await?));
    }
    let (created, secret) = match (place.collection.codes(), place.app) {
        (Codes::Minted, Some(app)) => {
            let (created, secret) = keys::mint(admin, actor, app, body).await?;
            (created, Some(secret))
        }
        _ => (rows::create(admin, actor, Creation { place, minted: None }, body).await?, None),
    };
    let location = format!("{}/{}", call.path.trim_end_matches('/'), created.row.code);
    let reply = Reply::row(place, &created).created(location);
    let reply = told(admin, reply, &created, within).await;
    Ok(match secret {
        Some(secret) => reply.with_member("secret", json!(secret.as_str())),
        None => reply,
    })
}

async fn statement(admin: &Admin, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&["month", "format"])?;
    let Some(month) = call.query.get("month") else {
        return Err(Problem::member(Code::InvalidMember, "month", "is required"));
    };
    let is_csv = match call.query.get("format").map(String::as_str) {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(Problem::invalid("format", "json or csv")),
    };
    let asked = apps::Asked { app: &call.names.code, month, is_csv };
    apps::statement(admin, asked).await
}

/// What moves an app's money, once per idempotency key.
async fn move_money(admin: &Admin, action: Action, call: &Call) -> Result<Reply, Problem> {
    call.query_only(&[])?;
    let Some(key) = call.headers.get("idempotency-key") else {
        return Err(Problem::member(Code::InvalidMember, "Idempotency-Key", "is required"));
    };
    let key = key.to_str().unwrap_or_default();
    let (actor, body) = (&call.caller.actor, Value::Object(call.object()?));
    let app = call.names.code.as_str();
    let moved = match action {
        Action::Refund => apps::refund(admin, actor, app, key, body).await?,
        Action::Adjust => apps::adjust(admin, actor, app, key, body).await?,
        Action::Grant => apps::grant(admin, actor, app, key, body).await?,
        Action::TrueUp => trueup::true_up(admin, actor, app, key, body).await?,
        Action::TopUp
        | Action::Rows(..)
        | Action::Grants
        | Action::Balance
        | Action::Statement
        | Action::Request
        | Action::Postings
        | Action::TrialBalance
        | Action::Payables
        | Action::Estimates
        | Action::Clear
        | Action::Invoice
        | Action::Invoices
        | Action::Margin
        | Action::Verify
        | Action::Usage
        | Action::Audit
        | Action::Circuits
        | Action::Nodes
        | Action::Queues
        | Action::LimitsOfKey
        | Action::Tasks(_)
        | Action::Hatch(_) => {
            let topup = apps::topup(admin, actor, app, key, body).await?;
            apps::Moved { body: topup.to_json(), replayed: topup.replayed }
        }
    };
    let status = if moved.replayed { StatusCode::OK } else { StatusCode::CREATED };
    Ok(Reply::ok(moved.body).with_status(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_told_from_what_follows_it() {
        let told = |method: Method, rest: &str| {
            below_alias(&method, rest).map(|(verb, names)| (verb, names.code, names.version))
        };
        let some = |verb, code: &str, n: &str| Some((verb, code.to_owned(), n.to_owned()));
        assert_eq!(told(Method::GET, "a/b"), some(Verb::Read, "a/b", ""));
        assert_eq!(told(Method::GET, "a/b/versions"), some(Verb::Versions, "a/b", ""));
        assert_eq!(told(Method::POST, "a/b/versions/3/restore"), some(Verb::Restore, "a/b", "3"));
        assert_eq!(told(Method::PATCH, "a/b"), some(Verb::Change, "a/b", ""));
        assert_eq!(told(Method::DELETE, "a"), some(Verb::Delete, "a", ""));
        assert_eq!(told(Method::POST, "a/b"), None);
        assert_eq!(told(Method::PUT, "a"), None);
    }

    #[test]
    fn only_a_lone_switch_is_an_operators() {
        let is = |value: Value| is_switch(value.as_object().unwrap());
        assert!(is(json!({"enabled": false, "reason": "r", "version_no": 1})));
        assert!(!is(json!({"enabled": false, "name": "x"})));
        assert!(!is(json!({"reason": "r"})));
    }
}
