//! Health, info and metrics, in the manner of Spring Boot's actuator (`ecosystem` 4.1).
//!
//! Liveness never looks at a dependency: a node must not be restarted because its database is down.
//! Readiness does. Details of failures go to the log, not to whoever asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::App;

/// A node that has not known for this long whether its configuration is the present one takes no
/// calls (`reliability` 5).
const LAG_MAX: Duration = Duration::from_mins(1);

/// `GET /`: says what answers here. Some clients probe it.
pub async fn root() -> Json<Value> {
    Json(json!({ "name": "anima", "version": env!("CARGO_PKG_VERSION") }))
}

/// `GET /actuator`.
pub async fn index() -> Json<Value> {
    let link = |path: &str| json!({ "href": format!("/actuator/{path}") });
    Json(json!({ "_links": {
        "health": link("health"), "info": link("info"), "prometheus": link("prometheus"),
    }}))
}

/// `GET /actuator/health`.
pub async fn health(State(app): State<Arc<App>>) -> Response {
    let (ready, components) = components(&app);
    let body = json!({
        "status": status(ready, &app),
        "components": components,
        "degraded": app.dependencies.degraded(),
        "groups": ["liveness", "readiness"],
    });
    reply(ready, body)
}

/// `GET /actuator/health/liveness`: this process answers.
pub async fn liveness() -> Json<Value> {
    Json(json!({ "status": "UP" }))
}

/// `GET /actuator/health/readiness`: this node may be sent requests.
pub async fn readiness(State(app): State<Arc<App>>) -> Response {
    let (ready, _) = components(&app);
    reply(ready, json!({ "status": status(ready, &app) }))
}

/// `GET /actuator/info`.
pub async fn about(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({
        "build": { "name": "anima", "version": env!("CARGO_PKG_VERSION") },
        "config": { "version": app.live.rev() },
        "storage": { "database": app.database, "shared_state": app.shared.kind() },
    }))
}

/// `GET /actuator/prometheus`.
pub async fn prometheus(State(app): State<Arc<App>>) -> Response {
    app.metrics.config_version(app.live.rev());
    app.metrics.config_lag(app.live.lag());
    // Its breaker may have opened since anything was last looked at.
    app.dependencies.note_redis();
    match app.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "failed to write metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn components(app: &App) -> (bool, Value) {
    // As last seen, at most a moment ago: who may ask this must not be able to ask the database.
    app.dependencies.note_redis();
    // A ledger that still writes what an outage left behind takes no calls.
    let database = !app.dependencies.database_down() && app.stores.ledger.healthy();
    let up = |ok: bool| if ok { "UP" } else { "DOWN" };
    let config = app.live.pin(app.clock.now()).is_some() && app.live.lag() < LAG_MAX;
    let draining = app.draining.load(Ordering::Relaxed);
    let mut components = json!({
        "database": { "status": up(database), "details": { "kind": app.database } },
        "config": { "status": up(config), "details": { "version": app.live.rev() } },
        "ledger": ledger(app),
    });
    if app.shared.redis.is_some() {
        // Its loss makes a node coarser, not unfit: it does not end readiness.
        let status = up(!app.dependencies.redis_down());
        let redis = json!({ "status": status, "details": { "kind": app.shared.kind() } });
        if let Some(all) = components.as_object_mut() {
            all.insert("redis".to_owned(), redis);
        }
    }
    (database && config && !draining, components)
}

/// The books. Where they do not hold, other nodes see the same, so it does not end readiness.
fn ledger(app: &App) -> Value {
    let breaches = app.watch.breaches();
    let shown = breaches
        .iter()
        .map(|(invariant, forbids)| json!({ "invariant": invariant, "refuses_holds": forbids }));
    json!({
        "status": if breaches.is_empty() { "UP" } else { "DOWN" },
        "details": { "breaches": shown.collect::<Vec<_>>() },
    })
}

fn status(ready: bool, app: &App) -> &'static str {
    if ready {
        "UP"
    } else if app.draining.load(Ordering::Relaxed) {
        "OUT_OF_SERVICE"
    } else {
        "DOWN"
    }
}

fn reply(ready: bool, body: Value) -> Response {
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}
