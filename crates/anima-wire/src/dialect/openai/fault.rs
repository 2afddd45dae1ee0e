//! Error bodies of the OpenAI family, and which failure they are.
//!
//! Vendors say the same things with many words; the words are tables here. Only codes and types
//! decide, and messages by how they *begin*: the rest of a message may echo the caller's text, and
//! a caller must not be able to make a channel look bankrupt. Invariant: the answer depends on the
//! status and the body alone. Sources: `reliability` 3.3, `b-outbound-chat` B.8, `a-inbound`
//! A.1.10.

use anima_core::failure::Failure;
use serde_json::Value;

use crate::json::{Cursor, Error};

/// Bytes of an error body that are looked at. Real ones have some hundred.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Codes and types, in lower case, and what they mean. An exact match decides.
const SIGNALS: &[(&str, Failure)] = &[
    ("insufficient_quota", Failure::AccountExhausted),
    ("insufficient_balance", Failure::AccountExhausted),
    ("insufficient_user_quota", Failure::AccountExhausted),
    ("credit_balance_exhausted", Failure::AccountExhausted),
    ("exceeded_current_quota_error", Failure::AccountExhausted),
    ("billing_not_active", Failure::AccountExhausted),
    ("billing_hard_limit_reached", Failure::AccountExhausted),
    ("billing_error", Failure::AccountExhausted),
    ("arrearage", Failure::AccountExhausted),
    ("1113", Failure::AccountExhausted),
    ("invalid_api_key", Failure::CredentialRefused),
    ("api_key_invalid", Failure::CredentialRefused),
    ("billing_disabled", Failure::AccountExhausted),
    ("account_deactivated", Failure::CredentialRefused),
    ("authentication_error", Failure::CredentialRefused),
    ("invalid_authentication_error", Failure::CredentialRefused),
    ("permission_error", Failure::CredentialRefused),
    ("unsupported_country_region_territory", Failure::CredentialRefused),
    ("context_length_exceeded", Failure::ContextTooLong),
    ("content_policy_violation", Failure::ContentRefused),
    ("content_filter", Failure::ContentRefused),
    ("moderation_blocked", Failure::ContentRefused),
    ("responsibleaipolicyviolation", Failure::ContentRefused),
    ("datainspectionfailed", Failure::ContentRefused),
    ("data_inspection_failed", Failure::ContentRefused),
    ("1301", Failure::ContentRefused),
    ("model_not_found", Failure::UpstreamModelUnknown),
    ("model_not_available", Failure::UpstreamModelUnknown),
    ("deploymentnotfound", Failure::UpstreamModelUnknown),
    ("overloaded_error", Failure::Overloaded),
    ("engine_overloaded_error", Failure::Overloaded),
    ("server_is_overloaded", Failure::Overloaded),
    ("service_unavailable_error", Failure::Overloaded),
    ("unavailable", Failure::Overloaded),
    ("rate_limit_exceeded", Failure::RateLimited),
    ("rate_limit_error", Failure::RateLimited),
    ("rate_limit_reached_error", Failure::RateLimited),
    ("resource_exhausted", Failure::RateLimited),
    ("slow_down", Failure::RateLimited),
    ("1302", Failure::RateLimited),
    ("1303", Failure::RateLimited),
    ("1305", Failure::RateLimited),
    ("1308", Failure::RateLimited),
    ("1310", Failure::RateLimited),
    ("1312", Failure::RateLimited),
];

/// How messages begin, in lower case, where vendors give no code.
const OPENINGS: &[(&str, Failure)] = &[
    ("your credit balance is too low", Failure::AccountExhausted),
    ("insufficient balance", Failure::AccountExhausted),
    ("insufficient credits", Failure::AccountExhausted),
    // xAI's, next to a 403.
    ("your newly created team", Failure::AccountExhausted),
    // What the caller wants is more than is left: less may still pass, so the account is not out.
    ("this request requires more credits", Failure::RateLimited),
    ("you have reached your specified api usage limits", Failure::AccountExhausted),
    ("your prepayment credits are depleted", Failure::AccountExhausted),
    ("your project has exceeded its monthly spending cap", Failure::AccountExhausted),
    ("api key not valid", Failure::CredentialRefused),
    ("api key expired", Failure::CredentialRefused),
    ("user location is not supported", Failure::CredentialRefused),
    ("prompt is too long", Failure::ContextTooLong),
    ("this model's maximum context length", Failure::ContextTooLong),
    ("this endpoint's maximum context length", Failure::ContextTooLong),
    ("the input token count", Failure::ContextTooLong),
    ("input is too long", Failure::ContextTooLong),
    ("the model returned the following errors: input is too long", Failure::ContextTooLong),
    ("too many input tokens", Failure::ContextTooLong),
    ("400 bad request: too many input tokens", Failure::ContextTooLong),
    ("model not exist", Failure::UpstreamModelUnknown),
    // A file or a cache that the caller named: our key is as good as before.
    ("you do not have permission to access the file", Failure::RequestRefused),
    ("you do not have permission to access the cachedcontent", Failure::RequestRefused),
    ("cachedcontent not found", Failure::RequestRefused),
    // A model at Bedrock that caches nothing, for a caller who marks what is worth caching.
    ("you invoked an unsupported model or your request did not allow", Failure::RequestRefused),
];

/// The same where a name stands in them: how they begin, and how they go on behind that one word.
/// The second is xAI's, the first that of Fireworks.
const OPENINGS_WITH_NAME: &[(&str, &str, Failure)] = &[
    ("account ", "is suspended", Failure::AccountExhausted),
    ("your team ", "has either used all available credits", Failure::AccountExhausted),
];

/// How Ark's codes end for what it does not let pass: before it stands of what, and behind it may
/// stand, after a dot, why.
const SENSITIVE: &str = "sensitivecontentdetected";

/// Zhipu's codes for a key that it refuses. Next to a status that status says so; the numbers are
/// too plain to be believed of everybody, and so they count only inside a 200.
const KEY_CODES: [&str; 5] = ["1000", "1001", "1002", "1003", "1004"];

/// Characters of a message that are looked at.
const OPENING_CHARS: usize = 128;

/// `MiniMax`'s codes in `base_resp.status_code`.
const BUSINESS: &[(i64, Failure)] = &[
    (1001, Failure::ServerError),
    (1002, Failure::RateLimited),
    (1004, Failure::CredentialRefused),
    (1008, Failure::AccountExhausted),
    (1026, Failure::ContentRefused),
    (1027, Failure::ContentRefused),
    (1039, Failure::ContextTooLong),
    (2013, Failure::RequestRefused),
    (2049, Failure::CredentialRefused),
];

/// The statuses next to which words are believed over the status.
const BELIEVED: &[(Failure, &[u16])] = &[
    (Failure::ContextTooLong, &[400, 403, 413, 422]),
    (Failure::ContentRefused, &[400, 403, 413, 422]),
    (Failure::AccountExhausted, &[400, 402, 403, 412, 429]),
    (Failure::CredentialRefused, &[400, 401, 402, 403]),
    (Failure::UpstreamModelUnknown, &[400, 403, 404, 422]),
    (Failure::Overloaded, &[429, 500, 502, 503, 529]),
    (Failure::RateLimited, &[402]),
    (Failure::RequestRefused, &[403, 404]),
];

/// What an error body says, whatever its form.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The text for people. Empty when there is none.
    pub message: String,
    /// The vendor's own code, or else its type.
    pub code: Option<String>,
    kind: Option<String>,
    inner_code: Option<String>,
    business: Option<i64>,
    flagged: bool,
}

impl Fault {
    /// Reads a body: OpenAI's form, a bare text, `detail`, Google's list, or `base_resp` of
    /// `MiniMax`. What cannot be read says nothing.
    pub fn read(body: &[u8]) -> Self {
        let body = body.get(..body.len().min(BODY_BYTES_MAX)).unwrap_or_default();
        let Ok(document) = serde_json::from_slice::<Value>(body) else {
            return Self::default();
        };
        let document = document.get(0).unwrap_or(&document);
        if let Some(business) = document.pointer("/base_resp/status_code").and_then(Value::as_i64) {
            let message = text(document.pointer("/base_resp/status_msg")).unwrap_or_default();
            let code = Some(business.to_string());
            return Self { message, code, business: Some(business), ..Self::default() };
        }
        let error = document.get("error").unwrap_or(document);
        let message = text(Some(error))
            .or_else(|| text(error.get("message")))
            .or_else(|| text(document.get("detail")))
            .or_else(|| text(document.get("message")));
        let code = text(error.get("code"));
        let kind = text(error.get("type"));
        Self {
            message: message.unwrap_or_default(),
            kind: kind.clone().or_else(|| text(error.get("status"))),
            inner_code: text(error.pointer("/innererror/code")).or_else(|| reason(error)),
            flagged: error.pointer("/metadata/flagged_input").is_some()
                || error.pointer("/metadata/reasons").is_some(),
            code: code.or(kind),
            business: None,
        }
    }

    /// What it is, by the words alone. `None` when they say nothing known.
    pub fn by_words(&self) -> Option<Failure> {
        if let Some(business) = self.business {
            return BUSINESS.iter().find(|(code, _)| *code == business).map(|(_, found)| *found);
        }
        if self.flagged {
            return Some(Failure::ContentRefused);
        }
        let words = [&self.inner_code, &self.code, &self.kind];
        let signal = words.into_iter().flatten().find_map(|word| by_word(word));
        // Google has one word for "slow down" and "no money"; only the message tells them apart.
        if signal.is_none_or(|failure| failure == Failure::RateLimited) {
            let opening = by_opening(&self.message);
            let is_spent = opening == Some(Failure::AccountExhausted);
            return if signal.is_none() || is_spent { opening } else { signal };
        }
        signal
    }

    /// What it is inside an answer that began with 200. Some vendors put a status into `code`.
    pub fn in_answer(&self) -> Failure {
        let code = self.code.as_deref();
        let status = code.and_then(|code| code.parse().ok());
        match (self.by_words(), status) {
            (Some(failure), _) => failure,
            (None, _) if code.is_some_and(|code| KEY_CODES.contains(&code)) => {
                Failure::CredentialRefused
            }
            (None, Some(status @ 400..=599)) => by_status(status),
            (None, _) => Failure::ErrorInAnswer,
        }
    }

    /// What it is, next to a status. Words refine a status; they never turn one that blames the
    /// provider into one that blames the caller.
    pub fn with_status(&self, status: u16) -> Failure {
        let plain = by_status(status);
        let Some(words) = self.by_words() else {
            return plain;
        };
        let believed =
            BELIEVED.iter().any(|(found, statuses)| *found == words && statuses.contains(&status));
        if believed { words } else { plain }
    }
}

/// What a code or a type means.
fn by_word(word: &str) -> Option<Failure> {
    let known = SIGNALS.iter().find(|(signal, _)| word.eq_ignore_ascii_case(signal));
    let what = || word.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let sensitive = || what().ends_with(SENSITIVE).then_some(Failure::ContentRefused);
    known.map(|(_, failure)| *failure).or_else(sensitive)
}

/// What a message means, by how it begins.
fn by_opening(message: &str) -> Option<Failure> {
    let message: String = message.chars().take(OPENING_CHARS).collect::<String>().to_lowercase();
    let plain = OPENINGS.iter().find(|(opening, _)| message.starts_with(opening));
    let named = || {
        OPENINGS_WITH_NAME.iter().find(|(opening, behind, _)| {
            let rest = message.strip_prefix(opening).and_then(|rest| rest.split_once(' '));
            rest.is_some_and(|(_, rest)| rest.starts_with(behind))
        })
    };
    plain.map(|(_, failure)| *failure).or_else(|| named().map(|(.., failure)| *failure))
}

/// What a status means by itself.
fn by_status(status: u16) -> Failure {
    match status {
        401 | 403 | 407 => Failure::CredentialRefused,
        402 => Failure::AccountExhausted,
        404 | 405 | 410 => Failure::UpstreamModelUnknown,
        408 => Failure::FirstByteTimeout,
        // 424 is a model at Bedrock that failed; no client of ours sends a condition (412).
        409 | 412 | 424 | 425 => Failure::ServerError,
        429 => Failure::RateLimited,
        // 498 is Groq's full capacity.
        498 | 503 | 529 => Failure::Overloaded,
        400..=499 => Failure::RequestRefused,
        500..=599 => Failure::ServerError,
        _ => Failure::AnswerMalformed,
    }
}

/// Reads `MiniMax`'s `base_resp`: whether it tells of an error inside a 200.
///
/// # Errors
/// When the JSON is malformed.
pub(super) fn is_business_fault(cursor: &mut Cursor<'_>) -> Result<bool, Error> {
    let mut fault = false;
    cursor.members(|cursor, name| {
        let value = cursor.value()?;
        if name.raw() == b"status_code" {
            fault = value.raw != b"0";
        }
        Ok::<(), Error>(())
    })?;
    Ok(fault)
}

/// The reason that Google puts among the details.
fn reason(error: &Value) -> Option<String> {
    let details = error.get("details")?.as_array()?;
    details.iter().find_map(|detail| text(detail.get("reason")))
}

/// A string, or a number as one.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, failure: Failure) {
        assert_eq!(Fault::read(body.as_bytes()).with_status(status), failure, "{status} {body}");
    }

    #[test]
    fn a_status_without_words_decides_alone() {
        let cases = [
            (302, Failure::AnswerMalformed),
            (400, Failure::RequestRefused),
            (401, Failure::CredentialRefused),
            (402, Failure::AccountExhausted),
            (403, Failure::CredentialRefused),
            (404, Failure::UpstreamModelUnknown),
            (408, Failure::FirstByteTimeout),
            (412, Failure::ServerError),
            (424, Failure::ServerError),
            (413, Failure::RequestRefused),
            (422, Failure::RequestRefused),
            (429, Failure::RateLimited),
            (500, Failure::ServerError),
            (502, Failure::ServerError),
            (503, Failure::Overloaded),
            (504, Failure::ServerError),
            (524, Failure::ServerError),
            (529, Failure::Overloaded),
        ];
        for (status, failure) in cases {
            for body in ["", "<html>Bad</html>", "{}", "[]", "null", "7"] {
                check(status, body, failure);
            }
        }
    }

    #[test]
    fn words_refine_a_status() {
        let cases = [
            (
                429,
                r#"{"error":{"message":"x","type":"x","code":"insufficient_quota"}}"#,
                Failure::AccountExhausted,
            ),
            (
                429,
                r#"{"error":{"type":"tokens","code":"rate_limit_exceeded"}}"#,
                Failure::RateLimited,
            ),
            (429, r#"{"error":{"type":"engine_overloaded_error"}}"#, Failure::Overloaded),
            (
                429,
                r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED",
                "message":"You exceeded your current quota"}}]"#,
                Failure::RateLimited,
            ),
            (429, r#"{"error":{"code":"1113","message":"x"}}"#, Failure::AccountExhausted),
            (
                400,
                r#"{"error":{"type":"invalid_request_error",
                "message":"Your credit balance is too low to access the API"}}"#,
                Failure::AccountExhausted,
            ),
            (400, r#"{"error":{"code":"context_length_exceeded"}}"#, Failure::ContextTooLong),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8192 tokens."}}"#,
                Failure::ContextTooLong,
            ),
            (
                400,
                r#"{"error":{"code":"x","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#,
                Failure::ContentRefused,
            ),
            (
                400,
                r#"{"error":{"message":"Model Not Exist","type":"invalid_request_error"}}"#,
                Failure::UpstreamModelUnknown,
            ),
            (
                400,
                r#"[{"error":{"code":400,"message":"API key not valid. Please pass a key."}}]"#,
                Failure::CredentialRefused,
            ),
            (
                403,
                r#"{"error":{"code":403,"message":"flagged",
                "metadata":{"reasons":["violence"],"flagged_input":"…"}}}"#,
                Failure::ContentRefused,
            ),
        ];
        for (status, body, failure) in cases {
            check(status, body, failure);
        }
    }

    #[test]
    fn an_account_without_money_is_told_whatever_its_name() {
        let fireworks = "Account acme-prod is suspended, possibly due to reaching the monthly \
                         spending limit or failure to pay past invoices.";
        let team = "Your team 16f2151a-40f4-4a80-8ad0-cae00c27e8dd has either used all available \
                    credits or reached its monthly spending limit.";
        let new = "Your newly created team doesn't have any credits or licenses yet.";
        for (status, message) in [(412, fireworks), (429, team), (403, team), (403, new)] {
            check(status, &format!(r#"{{"error":"{message}"}}"#), Failure::AccountExhausted);
        }
        let coded = r#"{"error":{"code":"PRECONDITION_FAILED","type":"error","message":"x"}}"#;
        // Fireworks' word for a model that did not load, too.
        check(412, coded, Failure::ServerError);
        // Only a message that begins so, and only one word for the name.
        for echoed in [format!("bad value: {team}"), team.replace("16f2151a", "of ours")] {
            check(429, &format!(r#"{{"error":"{echoed}"}}"#), Failure::RateLimited);
        }
    }

    #[test]
    fn ark_refuses_content_with_many_codes() {
        for what in ["", "InputText", "InputAudio", "OutputImage", "OutputVideo"] {
            for why in ["", ".PolicyViolation"] {
                let code = format!("{what}SensitiveContentDetected{why}");
                let body = format!(r#"{{"error":{{"code":"{code}","type":"BadRequest"}}}}"#);
                check(400, &body, Failure::ContentRefused);
            }
        }
        check(400, r#"{"error":{"code":"x.SensitiveContentDetected"}}"#, Failure::RequestRefused);
    }

    #[test]
    fn zhipus_plain_codes_are_of_the_key_inside_a_200_and_nobodys_next_to_a_400() {
        for code in KEY_CODES {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"x"}}}}"#);
            assert_eq!(Fault::read(body.as_bytes()).in_answer(), Failure::CredentialRefused);
            check(400, &body, Failure::RequestRefused);
            check(401, &body, Failure::CredentialRefused);
        }
    }

    #[test]
    fn a_caller_cannot_make_a_channel_look_bankrupt_or_locked_out() {
        check(
            400,
            r#"{"error":{
            "message":"Invalid value: 'your credit balance is too low, api key not valid'",
            "type":"invalid_request_error","code":"invalid_value"}}"#,
            Failure::RequestRefused,
        );
    }

    #[test]
    fn words_never_shift_the_blame_from_the_provider_to_the_caller() {
        check(500, r#"{"error":{"code":"context_length_exceeded"}}"#, Failure::ServerError);
        check(503, r#"{"error":{"code":"content_filter"}}"#, Failure::Overloaded);
    }

    #[test]
    fn an_error_inside_an_answer_is_classified_by_its_words_or_its_number() {
        let cases = [
            (
                r#"{"error":{"type":"overloaded_error","message":"Overloaded"}}"#,
                Failure::Overloaded,
            ),
            (r#"{"error":{"code":"rate_limit_exceeded"}}"#, Failure::RateLimited),
            (r#"{"error":{"code":502,"message":"Provider returned error"}}"#, Failure::ServerError),
            (r#"{"error":{"code":429}}"#, Failure::RateLimited),
            (r#"{"error":"boom"}"#, Failure::ErrorInAnswer),
            (r#"{"error":{"type":"server_error"}}"#, Failure::ErrorInAnswer),
            (
                r#"{"base_resp":{"status_code":1008,"status_msg":"insufficient balance"}}"#,
                Failure::AccountExhausted,
            ),
            (r#"{"base_resp":{"status_code":9999}}"#, Failure::ErrorInAnswer),
        ];
        for (body, failure) in cases {
            assert_eq!(Fault::read(body.as_bytes()).in_answer(), failure, "{body}");
        }
    }

    #[test]
    fn messages_are_found_in_every_form() {
        for body in [
            r#"{"error":{"message":"m"}}"#,
            r#"{"error":"m"}"#,
            r#"{"detail":"m"}"#,
            r#"{"message":"m","object":"error"}"#,
            r#"[{"error":{"message":"m"}}]"#,
            r#"{"base_resp":{"status_code":1,"status_msg":"m"}}"#,
        ] {
            assert_eq!(Fault::read(body.as_bytes()).message, "m", "{body}");
        }
    }
}
