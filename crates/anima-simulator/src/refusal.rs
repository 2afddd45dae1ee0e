//! Error answers in the shape of each vendor.
//!
//! An error is made in OpenAI's words, `{"error": {message, type, param, code}}`, by the error
//! table of OpenAI's API reference; Anthropic's and Google's shapes are written from it, with what
//! those vendors say of an empty account and of a long prompt. It decides nothing.

use serde::Serialize;
use serde_json::{Value, json};

/// Who answers, as the caller sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// `OpenAI`, in all its dialects.
    Openai,
    /// Anthropic.
    Anthropic,
    /// Google.
    Gemini,
    /// Amazon, at Bedrock.
    Bedrock,
}

/// The content of an error body. `param` and `code` are null on the wire when `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorBody {
    #[serde(skip)]
    pub(crate) status: u16,
    pub(crate) message: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) param: Option<&'static str>,
    pub(crate) code: Option<String>,
    /// Seconds to wait, where the vendor says so in the body.
    #[serde(skip)]
    pub(crate) wait_s: Option<u32>,
    /// The tokens that are too many, and how many may be.
    #[serde(skip)]
    pub(crate) too_long: Option<Box<(u64, u64)>>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: &'a ErrorBody,
}

/// The usual type and code of a status.
fn usual(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        401 => ("invalid_request_error", Some("invalid_api_key")),
        403 => ("permission_error", None),
        404 => ("invalid_request_error", Some("model_not_found")),
        429 => ("rate_limit_error", Some("rate_limit_exceeded")),
        503 => ("service_unavailable_error", Some("server_is_overloaded")),
        500..600 => ("server_error", None),
        _ => ("invalid_request_error", None),
    }
}

impl ErrorBody {
    /// The error that a script asks for by status and perhaps by code.
    pub(crate) fn scripted(status: u16, code: Option<&str>) -> Self {
        let (kind, usual_code) = usual(status);
        // OpenAI answers this one code with a type of its own.
        let kind = if code == Some("insufficient_quota") { "insufficient_quota" } else { kind };
        Self {
            status,
            message: format!("The simulated provider answers {status}, as its script says."),
            kind,
            param: None,
            code: code.or(usual_code).map(str::to_owned),
            wait_s: None,
            too_long: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
            kind: "invalid_request_error",
            param: None,
            code: None,
            wait_s: None,
            too_long: None,
        }
    }

    pub(crate) fn wrong_key() -> Self {
        let message = "Incorrect API key provided.".to_owned();
        Self { message, ..Self::scripted(401, None) }
    }

    pub(crate) fn no_model(message: String) -> Self {
        Self { message, param: Some("model"), ..Self::scripted(404, None) }
    }

    pub(crate) fn no_path(status: u16, message: String) -> Self {
        Self { status, ..Self::invalid(message) }
    }

    pub(crate) fn context_length(maximum: u64, wanted: u64) -> Self {
        Self {
            param: Some("messages"),
            code: Some("context_length_exceeded".to_owned()),
            too_long: Some(Box::new((wanted, maximum))),
            ..Self::invalid(format!(
                "This model's maximum context length is {maximum} tokens. However, you requested \
                 {wanted} tokens. Please reduce the length of the messages or completion."
            ))
        }
    }

    /// An account without money: every vendor says it in another way.
    fn is_broke(&self) -> bool {
        self.code.as_deref() == Some("insufficient_quota")
    }

    /// The status that goes over the wire.
    pub(crate) fn status_in(&self, face: Face) -> u16 {
        match face {
            Face::Anthropic if self.is_broke() => 400,
            Face::Bedrock if self.status == 529 => 503,
            Face::Openai | Face::Anthropic | Face::Gemini | Face::Bedrock => self.status,
        }
    }

    /// The whole body.
    pub(crate) fn json(&self, face: Face) -> Vec<u8> {
        let body = match face {
            // Strings and options of strings always serialise.
            Face::Openai => {
                return serde_json::to_vec(&Envelope { error: self }).unwrap_or_default();
            }
            Face::Anthropic => self.anthropic(),
            Face::Gemini => self.gemini(),
            Face::Bedrock => self.bedrock(),
        };
        body.to_string().into_bytes()
    }

    fn anthropic(&self) -> Value {
        let kind = match self.status_in(Face::Anthropic) {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            504 => "timeout_error",
            503 | 529 => "overloaded_error",
            500..600 => "api_error",
            _ => "invalid_request_error",
        };
        let message = match self.too_long.as_deref() {
            _ if self.is_broke() => "Your credit balance is too low to access the Anthropic API. \
                Please go to Plans & Billing to upgrade or purchase credits."
                .to_owned(),
            Some((wanted, maximum)) => {
                format!("prompt is too long: {wanted} tokens > {maximum} maximum")
            }
            None => self.message.clone(),
        };
        json!({"type": "error", "error": {"type": kind, "message": message}})
    }

    fn bedrock(&self) -> Value {
        let message = match self.too_long {
            Some(_) => "Input is too long for requested model.",
            None => &self.message,
        };
        json!({ "message": message })
    }

    /// The header in which Amazon says what went wrong.
    pub(crate) fn amazon_kind(&self) -> &'static str {
        match self.status_in(Face::Bedrock) {
            400 => "ValidationException",
            401 | 403 => "AccessDeniedException",
            404 => "ResourceNotFoundException",
            429 => "ThrottlingException",
            503 => "ServiceUnavailableException",
            _ => "InternalServerException",
        }
    }

    fn gemini(&self) -> Value {
        let status = match self.status {
            401 => "UNAUTHENTICATED",
            403 => "PERMISSION_DENIED",
            404 => "NOT_FOUND",
            409 => "ABORTED",
            429 => "RESOURCE_EXHAUSTED",
            503 | 529 => "UNAVAILABLE",
            504 => "DEADLINE_EXCEEDED",
            500..600 => "INTERNAL",
            _ => "INVALID_ARGUMENT",
        };
        let message = match self.too_long.as_deref() {
            _ if self.is_broke() => "Your prepayment credits are depleted. Please go to AI Studio \
                to manage your project and billing."
                .to_owned(),
            Some((wanted, maximum)) => format!(
                "The input token count ({wanted}) exceeds the maximum number of tokens allowed \
                 ({maximum})."
            ),
            None => self.message.clone(),
        };
        let mut error = json!({"code": self.status, "message": message, "status": status});
        if let (Some(wait), Some(members)) = (self.wait_s, error.as_object_mut()) {
            let kind = "type.googleapis.com/google.rpc.RetryInfo";
            let details = json!([{"@type": kind, "retryDelay": format!("{wait}s")}]);
            members.insert("details".to_owned(), details);
        }
        json!({ "error": error })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_four_members_of_openai() {
        let body = String::from_utf8(ErrorBody::scripted(503, None).json(Face::Openai)).unwrap();
        assert_eq!(
            body,
            [
                r#"{"error":{"message":"The simulated provider answers 503, as its script says.","#,
                r#""type":"service_unavailable_error","param":null,"#,
                r#""code":"server_is_overloaded"}}"#,
            ]
            .concat()
        );
    }

    #[test]
    fn a_status_has_its_usual_type_and_code() {
        let table = [
            (400, "invalid_request_error", None),
            (401, "invalid_request_error", Some("invalid_api_key")),
            (404, "invalid_request_error", Some("model_not_found")),
            (429, "rate_limit_error", Some("rate_limit_exceeded")),
            (500, "server_error", None),
            (502, "server_error", None),
            (503, "service_unavailable_error", Some("server_is_overloaded")),
        ];
        for (status, kind, code) in table {
            let error = ErrorBody::scripted(status, None);
            assert_eq!((error.kind, error.code.as_deref()), (kind, code), "{status}");
        }
        let quota = ErrorBody::scripted(429, Some("insufficient_quota"));
        assert_eq!(
            (quota.kind, quota.code.as_deref()),
            ("insufficient_quota", Some("insufficient_quota"))
        );
    }
}
