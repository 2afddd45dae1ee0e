//! Who calls, and what their role allows.
//!
//! Every route but the OpenAPI document's passes here, unknown paths too, so that nothing can be
//! learnt without a token. A token is looked up by its keyed hash: the same work whether it is
//! known or not. Invariant: "cannot check" is 503, never 401.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, Method, header};

use anima_store::config::Actor;
use anima_store::keys::Role;

use super::Admin;
use super::problem::{Code, Problem};
use crate::secrets::same_hash;

/// Longest token that is looked at; those made here have 55 characters.
const TOKEN_BYTES_MAX: usize = 512;
/// Longest reason in a header.
const REASON_BYTES_MAX: usize = 1_000;

/// An authenticated caller.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// For audit records; the reason is the header's, which a body's overrides.
    pub(crate) actor: Actor,
    /// What they may do.
    pub(crate) role: Role,
}

impl Caller {
    /// Lets pass who may do what needs `role`.
    ///
    /// # Errors
    /// [`Code::Forbidden`].
    pub(crate) fn ensure(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role {
            return Ok(());
        }
        let (has, needs) = (self.role.name(), role.name());
        let detail = format!("the token has the role `{has}`, this needs `{needs}`");
        Err(Problem::new(Code::Forbidden, detail))
    }
}

/// The least role for a method of a path. A PATCH may be a mere switch; its handler looks closer.
/// The hatches are an operator's, and tasks.
pub(crate) fn least_role(method: &Method, path: &str) -> Role {
    let of_operator = ["/circuits/", "/tasks/"].iter().any(|start| path.starts_with(start));
    let is_hatch = of_operator || path == "/cache/invalidate";
    match *method {
        Method::POST if is_hatch => Role::Operator,
        Method::GET | Method::HEAD => Role::Viewer,
        Method::PATCH => Role::Operator,
        _ => Role::Admin,
    }
}

/// The layer: authenticates, judges the method, and hands the caller on.
pub(crate) async fn authenticate(
    State(admin): State<Admin>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = (request.method(), request.uri().path());
    match judge(&admin, asked, request.headers()).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

async fn judge(
    admin: &Admin,
    (method, path): (&Method, &str),
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    let refused = || Problem::new(Code::Unauthorized, "send an admin token as Bearer");
    let token = bearer(headers).ok_or_else(refused)?;
    let hash = admin.secrets.hash_admin_token(token);
    let known = admin.stores.keys.admin_token(&hash).await?;
    let known = known.filter(|token| same_hash(&token.hash, &hash)).ok_or_else(refused)?;
    let actor = Actor { name: known.name, reason: reason(headers)? };
    let caller = Caller { actor, role: known.role };
    caller.ensure(least_role(method, path))?;
    Ok(caller)
}

/// The token, if the header has one that could be one: anything else costs no look-up.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let plausible = !token.is_empty() && token.len() <= TOKEN_BYTES_MAX;
    (scheme.eq_ignore_ascii_case("bearer") && plausible).then_some(token)
}

fn reason(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(value) = headers.get("x-anima-reason") else {
        return Ok(String::new());
    };
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) if text.len() <= REASON_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(Problem::invalid("x-anima-reason", "a UTF-8 text of up to 1000 bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plausible_bearer_token_is_looked_at() {
        let found = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(found("Bearer at-1").as_deref(), Some("at-1"));
        assert_eq!(found("bearer  at-1 ").as_deref(), Some("at-1"));
        for bad in ["", "at-1", "Basic at-1", "Bearer", "Bearer ", &format!("Bearer {:600}", "x")] {
            assert!(found(bad).is_none_or(|t| t == "x"), "{bad}");
        }
        assert_eq!(found(&format!("Bearer {}", "x".repeat(513))), None);
    }
}
