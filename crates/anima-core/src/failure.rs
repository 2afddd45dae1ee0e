//! What can go wrong with a call, and the one table about it.
//!
//! Adapters and stages only *classify*: they name a [`Failure`]. What follows from it (status,
//! code, retry, fallback class, circuit, billing) stands in [`Failure::row`] and nowhere else.
//! Invariant: the table is total, and a golden copy in the tests holds every row. Sources: SPEC 7,
//! `wire-conventions` 4.6, `reliability` 1.6 and 3.3 (normative).

use serde::Serialize;

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The caller must change something.
    Client,
    /// This gateway or its operator.
    Gateway,
    /// The provider.
    Upstream,
}

/// What another attempt may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// No attempt can change the outcome.
    Never,
    /// Another channel may answer.
    NextChannel,
}

/// Which fallback chain of an alias applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The general chain.
    Error,
    /// The provider throttled us.
    RateLimited,
    /// The prompt is too long for the model.
    ContextWindow,
    /// The provider refused the content.
    ContentPolicy,
    /// Time ran out.
    Timeout,
}

/// What the circuit makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// A failure of the channel.
    Counts,
    /// Half a failure of the channel.
    CountsHalf,
    /// Half a failure, and others go first for a moment.
    Overloads,
    /// Neither success nor failure.
    Ignores,
    /// The channel answered properly; the request was at fault.
    Succeeds,
    /// Neither; the credential rests for the model as long as was asked.
    CoolsDown,
    /// The credential is at fault.
    FaultsCredential,
    /// The credential's account is used up.
    Exhausts,
    /// The channel does not have the model.
    LacksModel,
}

/// What the failed attempt costs us (`reliability` 1.6, rows 1 to 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// The provider refused or never saw it.
    Nothing,
    /// It was sent and may be charged: the input is booked as an estimate.
    EstimatedInput,
    /// Content was delivered: what was delivered is booked.
    Delivered,
}

/// The table's row for one failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Who is at fault.
    pub source: Source,
    /// HTTP status for the caller.
    pub status: u16,
    /// `error.type` in OpenAI's form.
    pub kind: &'static str,
    /// `error.code` in OpenAI's form.
    pub code: &'static str,
    /// Another attempt?
    pub retry: Retry,
    /// Which chain.
    pub class: Class,
    /// What the circuit makes of it.
    pub circuit: Circuit,
    /// What the attempt costs us.
    pub cost: Cost,
    /// `x-should-retry` for the SDKs.
    pub should_retry: bool,
}

/// Declares the failures and their rows in one place.
macro_rules! failures {
    ($($(#[$doc:meta])* $name:ident: $source:ident $status:literal $kind:literal $code:literal
        $retry:ident $class:ident $circuit:ident $cost:ident $should:literal;)*) => {
        /// A closed list of what can go wrong between admission and the last byte.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Failure { $($(#[$doc])* $name),* }

        impl Failure {
            /// Every failure, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The table.
            pub const fn row(self) -> Row {
                match self { $(Self::$name => Row {
                    source: Source::$source, status: $status, kind: $kind, code: $code,
                    retry: Retry::$retry, class: Class::$class, circuit: Circuit::$circuit,
                    cost: Cost::$cost, should_retry: $should,
                }),* }
            }
        }
    };
}

failures! {
    /// No key was given.
    KeyMissing: Client 401 "invalid_request_error" "invalid_api_key" Never Error Ignores Nothing false;
    /// The key does not exist, or its secret is wrong.
    KeyUnknown: Client 401 "invalid_request_error" "invalid_api_key" Never Error Ignores Nothing false;
    /// The key or its app was disabled.
    KeyDisabled: Client 401 "invalid_request_error" "invalid_api_key" Never Error Ignores Nothing false;
    /// The key's own expiry has passed.
    KeyExpired: Client 401 "invalid_request_error" "invalid_api_key" Never Error Ignores Nothing false;
    /// The key may not be used from this address.
    AddressRefused: Client 403 "invalid_request_error" "ip_not_allowed" Never Error Ignores Nothing false;
    /// Keys cannot be checked now.
    AuthUnavailable: Gateway 503 "server_error" "auth_unavailable" Never Error Ignores Nothing true;
    /// No such path or method.
    RouteUnknown: Client 404 "invalid_request_error" "unknown_url" Never Error Ignores Nothing false;
    /// The path exists, the method does not.
    MethodRefused: Client 405 "invalid_request_error" "method_not_allowed" Never Error Ignores Nothing false;
    /// The body is not what the endpoint takes.
    BodyInvalid: Client 400 "invalid_request_error" "invalid_request" Never Error Ignores Nothing false;
    /// The body is larger than allowed.
    BodyTooLarge: Client 413 "invalid_request_error" "request_too_large" Never Error Ignores Nothing false;
    /// The body did not arrive in time.
    BodyTimeout: Client 408 "invalid_request_error" "request_timeout" Never Error Ignores Nothing false;
    /// The idempotency key was used for another request.
    IdempotencyConflict: Client 409 "invalid_request_error" "idempotency_conflict" Never Error Ignores Nothing false;
    /// The request of this idempotency key is still running.
    IdempotencyInProgress: Client 409 "invalid_request_error" "idempotency_in_progress" Never Error Ignores Nothing true;
    /// The request of this idempotency key was served and charged, and its answer is not here any more.
    IdempotencyAnswerGone: Gateway 409 "invalid_request_error" "idempotency_answer_gone" Never Error Ignores Nothing false;
    /// There is no such task of this key.
    TaskUnknown: Client 404 "invalid_request_error" "task_not_found" Never Error Ignores Nothing false;
    /// What the task ended with is not kept any more, or it ended before it was run.
    TaskGone: Client 410 "invalid_request_error" "task_gone" Never Error Ignores Nothing false;
    /// The task has not ended.
    TaskUnfinished: Client 409 "invalid_request_error" "task_not_finished" Never Error Ignores Nothing true;
    /// The task may have been sent, or has ended: it cannot be cancelled.
    TaskStarted: Client 409 "invalid_request_error" "task_not_cancellable" Never Error Ignores Nothing false;
    /// The task failed and there is no answer of a provider about it.
    TaskFailed: Gateway 502 "server_error" "task_failed" Never Error Ignores Nothing false;
    /// The model is unknown, or the key may not use it.
    ModelUnknown: Client 404 "invalid_request_error" "model_not_found" Never Error Ignores Nothing false;
    /// The alias is not of a kind that this endpoint serves.
    ModelMismatch: Client 400 "invalid_request_error" "model_kind_mismatch" Never Error Ignores Nothing false;
    /// A price is missing and the policy is deny.
    ModelUnpriced: Client 402 "invalid_request_error" "model_not_priced" Never Error Ignores Nothing false;
    /// The wallet cannot cover the hold.
    InsufficientFunds: Client 429 "insufficient_quota" "insufficient_quota" Never Error Ignores Nothing false;
    /// As many calls run as may at a time.
    ConcurrencyLimited: Client 429 "requests" "rate_limit_exceeded" Never Error Ignores Nothing true;
    /// More requests came than the limit lets through.
    RequestsLimited: Client 429 "requests" "rate_limit_exceeded" Never Error Ignores Nothing true;
    /// More tokens were asked for than the limit lets through.
    TokensLimited: Client 429 "tokens" "rate_limit_exceeded" Never Error Ignores Nothing true;
    /// The budget of this hour, day or month, or the total one, is used up.
    BudgetExceeded: Client 429 "insufficient_quota" "insufficient_quota" Never Error Ignores Nothing false;
    /// The call waited for its turn until its time was over.
    QueueTimeout: Client 429 "requests" "queue_timeout" Never Error Ignores Nothing false;
    /// As many calls wait as may.
    QueueFull: Client 429 "requests" "queue_full" Never Error Ignores Nothing false;
    /// The call's turn would come after its time is over.
    DeadlineUnreachable: Client 429 "requests" "deadline_unreachable" Never Error Ignores Nothing false;
    /// A kill switch is on.
    ServiceSuspended: Gateway 503 "server_error" "service_suspended" Never Error Ignores Nothing false;
    /// The ledger or another store does not answer.
    ServiceUnavailable: Gateway 503 "server_error" "service_unavailable" Never Error Ignores Nothing true;
    /// This node is being stopped and the call did not end in time.
    ShuttingDown: Gateway 503 "server_error" "service_unavailable" Never Error Ignores Delivered true;
    /// An operator's switch ended the call while it streamed.
    CutOff: Gateway 503 "server_error" "service_suspended" Never Error Ignores Delivered false;
    /// An answer was made and may be charged, but could not be booked, so it is withheld.
    Unbooked: Gateway 503 "server_error" "service_unavailable" Never Error Ignores Delivered false;
    /// No channel is left to try.
    NoHealthyChannel: Gateway 503 "server_error" "no_healthy_channel" Never Error Ignores Nothing true;
    /// The caller left before the answer.
    ClientGone: Client 499 "invalid_request_error" "client_closed_request" Never Error Ignores EstimatedInput false;
    /// DNS, TCP or TLS failed; nothing was sent.
    ConnectFailed: Upstream 502 "server_error" "upstream_unreachable" NextChannel Error Counts Nothing true;
    /// The channel's address is not one that it may reach.
    AddressForbidden: Gateway 502 "server_error" "upstream_address_forbidden" NextChannel Error Ignores Nothing false;
    /// The connection broke after the request was sent and before any answer.
    ConnectionLost: Upstream 502 "server_error" "upstream_connection_lost" NextChannel Error Counts EstimatedInput true;
    /// 500, 502 or 504 from the provider.
    ServerError: Upstream 502 "server_error" "upstream_error" NextChannel Error Counts EstimatedInput true;
    /// 503 or 529 from the provider.
    Overloaded: Upstream 503 "server_error" "upstream_overloaded" NextChannel Error Overloads Nothing true;
    /// 429 from the provider.
    RateLimited: Upstream 429 "requests" "rate_limit_exceeded" NextChannel RateLimited CoolsDown Nothing true;
    /// The provider says that our account has no money or quota left.
    AccountExhausted: Upstream 502 "server_error" "upstream_account_exhausted" NextChannel Error Exhausts Nothing true;
    /// 401 or 403: the provider refuses our credential.
    CredentialRefused: Upstream 502 "server_error" "upstream_auth" NextChannel Error FaultsCredential Nothing true;
    /// The provider does not know the upstream model.
    UpstreamModelUnknown: Upstream 502 "server_error" "upstream_model_not_found" NextChannel Error LacksModel Nothing false;
    /// 400, 413 or 422 from the provider: the caller's content is at fault.
    RequestRefused: Client 400 "invalid_request_error" "invalid_request" Never Error Succeeds Nothing false;
    /// The prompt does not fit the model.
    ContextTooLong: Client 400 "invalid_request_error" "context_length_exceeded" Never ContextWindow Succeeds Nothing false;
    /// The provider refused the content.
    ContentRefused: Client 400 "invalid_request_error" "content_policy_violation" Never ContentPolicy Succeeds Nothing false;
    /// No response byte in time.
    FirstByteTimeout: Upstream 504 "server_error" "upstream_timeout" NextChannel Timeout Counts EstimatedInput false;
    /// Silence in the middle of an answer.
    IdleTimeout: Upstream 504 "server_error" "upstream_timeout" NextChannel Timeout CountsHalf Delivered false;
    /// The attempt took longer than its channel allows.
    TotalTimeout: Upstream 504 "server_error" "upstream_timeout" NextChannel Timeout CountsHalf Delivered false;
    /// The deadline of the whole request has passed.
    DeadlineExceeded: Gateway 504 "server_error" "upstream_timeout" Never Timeout Ignores Delivered false;
    /// The answer broke off.
    StreamCut: Upstream 502 "server_error" "upstream_stream_cut" NextChannel Error Counts Delivered true;
    /// The answer is not in the format that it claims.
    AnswerMalformed: Upstream 502 "server_error" "upstream_malformed" NextChannel Error Counts EstimatedInput true;
    /// A 200 with neither content nor a report of usage.
    AnswerEmpty: Upstream 502 "server_error" "upstream_empty" NextChannel Error CountsHalf EstimatedInput true;
    /// An error object inside a 200.
    ErrorInAnswer: Upstream 502 "server_error" "upstream_error" NextChannel Error Counts Delivered true;
    /// The answer is larger than allowed.
    AnswerTooLarge: Upstream 502 "server_error" "upstream_answer_too_large" Never Error Ignores Delivered false;
    /// A defect in this gateway.
    Internal: Gateway 500 "server_error" "internal_error" Never Error Ignores Nothing true;
}

impl Failure {
    /// The stable word for this failure alone: the metric label, the outcome of an attempt, and
    /// `anima.reason` beside the wire's own `code`, which several failures may share.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is named by its code")]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::KeyMissing => "missing_api_key",
            Self::KeyDisabled => "disabled_api_key",
            Self::KeyExpired => "expired_api_key",
            Self::ConcurrencyLimited => "concurrency_limited",
            Self::RequestsLimited => "requests_limited",
            Self::TokensLimited => "tokens_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::Unbooked => "unbooked",
            Self::ShuttingDown => "shutting_down",
            Self::CutOff => "cut_by_switch",
            Self::RequestRefused => "upstream_refused_request",
            Self::RateLimited => "upstream_rate_limited",
            Self::FirstByteTimeout => "first_byte_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::TotalTimeout => "total_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ErrorInAnswer => "error_in_answer",
            _ => self.row().code,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The golden copy of the table. A change here is a change of the contract with callers.
    const GOLDEN: &str = include_str!("failure/table.txt");

    #[test]
    fn the_table_is_the_golden_one() {
        let mut table = String::new();
        for failure in Failure::ALL {
            let row = serde_json::to_string(&failure.row()).unwrap();
            writeln!(table, "{failure:?} {row}").unwrap();
        }
        assert_eq!(table, GOLDEN, "if this is meant, write the left side to failure/table.txt");
    }

    #[test]
    fn a_failure_of_the_caller_is_never_retried_and_never_counted() {
        for failure in Failure::ALL {
            let row = failure.row();
            if row.source == Source::Client {
                assert_eq!(row.retry, Retry::Never, "{failure:?}");
                assert_ne!(row.circuit, Circuit::Counts, "{failure:?}");
            }
        }
    }

    #[test]
    fn every_failure_has_a_reason_of_its_own() {
        let reasons: std::collections::BTreeSet<_> =
            Failure::ALL.iter().map(|f| f.reason()).collect();
        assert_eq!(reasons.len(), Failure::ALL.len());
    }

    #[test]
    fn our_credential_never_becomes_the_callers_401() {
        assert_eq!(Failure::CredentialRefused.row().status, 502);
    }
}
