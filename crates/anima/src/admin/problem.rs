//! Errors of the admin API as `application/problem+json` (RFC 9457).
//!
//! A closed list of codes; each has one status. Details are written for the caller and never echo a
//! value that was sent, since it may be a secret. Not here: the data plane's errors, which follow
//! the client's own format.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use anima_store::config::Error as ConfigError;
use anima_store::ledger::Error as LedgerError;

/// What went wrong, as a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the titles below say what each means")]
pub enum Code {
    InvalidBody,
    InvalidMember,
    UnknownMember,
    NothingToChange,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    VersionConflict,
    AlreadyExists,
    WindowOverlap,
    IdempotencyConflict,
    AmountUnavailable,
    BooksBreached,
    TaskNotCancellable,
    WebhookPending,
    BodyTooLarge,
    UnknownReference,
    VersionRequired,
    Internal,
    ServiceUnavailable,
}

impl Code {
    /// Every code.
    pub const ALL: &'static [Self] = &[
        Self::InvalidBody,
        Self::InvalidMember,
        Self::UnknownMember,
        Self::NothingToChange,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::VersionConflict,
        Self::AlreadyExists,
        Self::WindowOverlap,
        Self::IdempotencyConflict,
        Self::AmountUnavailable,
        Self::BooksBreached,
        Self::TaskNotCancellable,
        Self::WebhookPending,
        Self::BodyTooLarge,
        Self::UnknownReference,
        Self::VersionRequired,
        Self::Internal,
        Self::ServiceUnavailable,
    ];

    /// Status, word and title.
    const fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidBody => (S::BAD_REQUEST, "invalid_body", "The body is not a JSON object"),
            Self::InvalidMember => (S::BAD_REQUEST, "invalid_member", "A member is not valid"),
            Self::UnknownMember => (S::BAD_REQUEST, "unknown_member", "A member is not known"),
            Self::NothingToChange => {
                (S::BAD_REQUEST, "nothing_to_change", "The body changes nothing")
            }
            Self::Unauthorized => (S::UNAUTHORIZED, "unauthorized", "No valid admin token"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The token's role does not allow this"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is no such thing"),
            Self::MethodNotAllowed => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", "The path has no such method")
            }
            Self::VersionConflict => {
                (S::CONFLICT, "version_conflict", "The row was changed in the meantime")
            }
            Self::AlreadyExists => (S::CONFLICT, "already_exists", "The code is taken"),
            Self::WindowOverlap => (S::CONFLICT, "window_overlap", "Two versions would overlap"),
            Self::IdempotencyConflict => (
                S::CONFLICT,
                "idempotency_conflict",
                "The idempotency key was used with another body",
            ),
            Self::AmountUnavailable => {
                (S::CONFLICT, "amount_unavailable", "There is not so much to take or to give back")
            }
            Self::BooksBreached => (
                S::SERVICE_UNAVAILABLE,
                "books_breached",
                "The books do not hold an invariant that this rests on",
            ),
            Self::TaskNotCancellable => {
                (S::CONFLICT, "task_not_cancellable", "The task may have been sent, or has ended")
            }
            Self::WebhookPending => {
                (S::CONFLICT, "webhook_pending", "The webhook is waiting or being tried already")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large"),
            Self::UnknownReference => {
                (S::UNPROCESSABLE_ENTITY, "unknown_reference", "A row that is named does not exist")
            }
            Self::VersionRequired => {
                (S::PRECONDITION_REQUIRED, "version_required", "The write must state a version")
            }
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Something broke here"),
            Self::ServiceUnavailable => {
                (S::SERVICE_UNAVAILABLE, "service_unavailable", "The database does not answer")
            }
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.row().0
    }

    /// The stable word.
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// The same for every problem of this code.
    pub const fn title(self) -> &'static str {
        self.row().2
    }
}

/// One refused call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", .code.name())]
pub struct Problem {
    /// What went wrong.
    pub code: Code,
    /// What to do about it, for the caller.
    pub detail: String,
    /// Path of the member concerned, such as `meters[0].amount`.
    pub member: Option<String>,
    /// For a version conflict: the row as it is, and its `version_no`.
    pub current: Option<Box<(Value, i64)>>,
}

impl Problem {
    /// A problem with the call as a whole.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), member: None, current: None }
    }

    /// A problem with one member or header, and what to write there.
    pub fn member(code: Code, member: impl Into<String>, expected: impl Into<String>) -> Self {
        let member = member.into();
        Self { code, detail: expected.into(), member: Some(member), current: None }
    }

    /// A member whose value is wrong, and what it should be.
    pub fn invalid(member: impl Into<String>, expected: &str) -> Self {
        Self::member(Code::InvalidMember, member, format!("expected {expected}"))
    }

    /// There is no such row.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no such {what}"))
    }

    fn unavailable(reason: &str) -> Self {
        tracing::warn!(reason, "failed to reach the database");
        Self::new(Code::ServiceUnavailable, "the database is unavailable, try again")
    }

    fn internal(reason: &str) -> Self {
        tracing::error!(reason, "failed to serve an admin call");
        Self::new(Code::Internal, "the server's log says more")
    }

    /// The body of the reply.
    pub fn to_json(&self) -> Value {
        let name = self.code.name();
        let detail = match &self.member {
            Some(member) => format!("`{member}`: {}", self.detail),
            None => self.detail.clone(),
        };
        let mut body = json!({
            "type": format!("/docs/errors/{name}"),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": detail,
            "code": name,
        });
        if let Some(fields) = body.as_object_mut() {
            if let Some(member) = &self.member {
                let errors = json!([{ "member": member, "detail": self.detail }]);
                fields.insert("errors".to_owned(), errors);
            }
            if let Some(current) = &self.current {
                fields.insert("current".to_owned(), current.0.clone());
            }
        }
        body
    }
}

impl From<anima_core::config::Problem> for Problem {
    fn from(problem: anima_core::config::Problem) -> Self {
        let expected = problem.expected;
        let said = expected.starts_with("expected") || expected.starts_with("too ");
        let said = said || expected.starts_with("the ");
        let detail = if said { expected } else { format!("expected {expected}") };
        Self::member(Code::InvalidMember, problem.member, detail)
    }
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::NotFound(resource) => Self::not_found(resource.name()),
            ConfigError::Exists(_) => Self::new(Code::AlreadyExists, error.to_string()),
            ConfigError::VersionConflict(row) => {
                let current = Some(Box::new((Value::Null, row.version_no)));
                let detail = "read the current row and apply the change to it";
                Self { current, ..Self::new(Code::VersionConflict, detail) }
            }
            ConfigError::Overlap(_) => {
                Self::member(Code::WindowOverlap, "effective_from", error.to_string())
            }
            ConfigError::Unavailable(reason) => Self::unavailable(&reason),
            ConfigError::Damaged(reason) => Self::internal(&reason),
        }
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Conflict => Self::new(
                Code::IdempotencyConflict,
                "use a new Idempotency-Key for another amount or reference",
            ),
            LedgerError::Overloaded => {
                Self::new(Code::ServiceUnavailable, "the ledger is overloaded, try again")
            }
            LedgerError::Unavailable(reason) | LedgerError::Spooled(reason) => {
                Self::unavailable(&reason)
            }
            LedgerError::Refused(reason) => Self::internal(&reason),
            LedgerError::InsufficientFunds { .. }
            | LedgerError::HoldUnknown
            | LedgerError::Fenced => Self::internal(&error.to_string()),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = self.to_json().to_string();
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.code == Code::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer realm=\"anima admin\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if self.code == Code::ServiceUnavailable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(current) = &self.current
            && let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", current.1))
        {
            headers.insert(header::ETAG, tag);
        }
        response
    }
}
