//! Error answers in OpenAI's shape.
//!
//! One place writes `{"error": {message, type, param, code}}` and knows which type and code belong
//! to which status (the error table of OpenAI's API reference). It decides nothing.

use serde::Serialize;

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
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
            kind: "invalid_request_error",
            param: None,
            code: None,
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
            ..Self::invalid(format!(
                "This model's maximum context length is {maximum} tokens. However, you requested \
                 {wanted} tokens. Please reduce the length of the messages or completion."
            ))
        }
    }

    /// The whole body.
    pub(crate) fn json(&self) -> Vec<u8> {
        // Strings and options of strings always serialise.
        serde_json::to_vec(&Envelope { error: self }).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_four_members_of_openai() {
        let body = String::from_utf8(ErrorBody::scripted(503, None).json()).unwrap();
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
