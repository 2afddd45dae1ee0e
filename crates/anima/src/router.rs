//! Every route, grouped by caller.
//!
//! The handler's path is the file's path. Paths are served with and without `/v1`: some clients are
//! given a base URL without it (`ecosystem` 2.2).

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use crate::admin::{self, Admin};
use crate::api::tasks::endpoints as tasks;
use crate::api::{Plane, anthropic, gemini, openai, serve};
use crate::app::{App, actuator};

/// All of it.
pub fn router(app: &Arc<App>, plane: Arc<Plane>, admin: Admin) -> Router {
    Router::new()
        .merge(data_plane(plane))
        .merge(operations(Arc::clone(app)))
        .nest("/api/admin/v1", admin::router(admin))
}

/// For applications. Written out rather than nested: nesting rewrites the URI of every request.
fn data_plane(plane: Arc<Plane>) -> Router {
    let mut router = Router::new();
    for prefix in ["/v1", ""] {
        let path = |rest: &str| format!("{prefix}{rest}");
        router = router
            .route(&path("/chat/completions"), post(openai::chat_completions))
            .route(&path("/responses"), post(openai::responses))
            .route(&path("/messages"), post(anthropic::messages))
            .route(&path("/messages/count_tokens"), post(anthropic::count_tokens))
            .route(&path("/completions"), post(openai::completions))
            .route(&path("/embeddings"), post(openai::embeddings))
            .route(&path("/moderations"), post(openai::moderations))
            .route(&path("/images/generations"), post(openai::images))
            .route(&path("/images/edits"), post(openai::image_edits))
            .route(&path("/audio/speech"), post(openai::speech))
            .route(&path("/audio/transcriptions"), post(openai::transcriptions))
            .route(&path("/audio/translations"), post(openai::translations))
            .route(&path("/rerank"), post(openai::rerank))
            .route(&path("/tasks"), get(tasks::list))
            .route(&path("/tasks/webhook_secret"), get(tasks::secret))
            .route(&path("/tasks/{id}"), get(tasks::one).delete(tasks::cancel))
            .route(&path("/tasks/{id}/cancel"), post(tasks::cancel))
            .route(&path("/tasks/{id}/content"), get(tasks::content))
            .route(&path("/models"), get(openai::models::list))
            .route(&path("/models/{*id}"), get(openai::models::one).post(gemini::call));
    }
    router
        .route("/v2/rerank", post(openai::rerank_of_cohere))
        .route("/v1beta/models", get(gemini::models))
        .route("/v1beta/models/{*call}", get(gemini::model).post(gemini::call))
        .fallback(serve::unknown)
        .method_not_allowed_fallback(serve::wrong_method)
        .with_state(plane)
}

/// For probes, scrapers and people.
fn operations(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(actuator::root))
        .route("/actuator", get(actuator::index))
        .route("/actuator/health", get(actuator::health))
        .route("/actuator/health/liveness", get(actuator::liveness))
        .route("/actuator/health/readiness", get(actuator::readiness))
        .route("/actuator/info", get(actuator::about))
        .route("/actuator/prometheus", get(actuator::prometheus))
        .route("/metrics", get(actuator::prometheus))
        .route("/healthz", get(actuator::health))
        .route("/livez", get(actuator::liveness))
        .route("/readyz", get(actuator::readiness))
        .with_state(app)
}
