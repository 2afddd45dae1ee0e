//! Access tokens for service accounts of Google's.
//!
//! An account's key signs a claim (RFC 7523), which its token endpoint exchanges for a token of an
//! hour. A token is kept per account, renewed five minutes early or when it is refused, and fetched
//! once however many calls wait for it; the first one that needs it fetches, the others wait. Not
//! here: how a token is sent (the wire's `vertex`). Invariant: no key and no token is ever shown or
//! logged. Source: developers.google.com/identity/protocols/oauth2/service-account, read November
//! 2026.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anima_core::clock::Timestamp;
use anima_core::failure::Failure;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{Collected, Outbound, Policy, Segments, SendError, collect};

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// The longest life that a claim may have.
const CLAIM_S: i64 = 3_600;
/// How early a token is renewed.
const EARLY_S: i64 = 300;
/// Bytes of an answer with a token; real ones have about 1,200.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The longest silence inside such an answer.
const IDLE: Duration = Duration::from_secs(10);

/// The members of a service account's key file that matter.
#[derive(Deserialize)]
pub(super) struct Account {
    client_email: String,
    private_key: Zeroizing<String>,
    private_key_id: Option<String>,
    #[serde(default = "token_uri")]
    token_uri: String,
}

fn token_uri() -> String {
    "https://oauth2.googleapis.com/token".to_owned()
}

/// What stands for an account for an hour.
pub struct Token {
    text: Zeroizing<String>,
    made_at_s: i64,
    renew_at_s: i64,
}

impl Token {
    /// What is sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("renew_at_s", &self.renew_at_s).finish_non_exhaustive()
    }
}

/// The place of one account's token. Whoever holds the lock fetches; who waits for it finds it.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Token>>>>;

/// Tokens by account: its name and the id of its key.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    slots: Mutex<BTreeMap<(String, Option<String>), Slot>>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: Zeroizing<String>,
    expires_in: i64,
}

fn refused(detail: impl Into<String>) -> SendError {
    SendError { failure: Failure::CredentialRefused, detail: detail.into() }
}

impl Account {
    /// Reads a secret. `None` for one that is no key file.
    pub(super) fn read(secret: &str) -> Option<Result<Self, SendError>> {
        if !Self::is_one(secret) {
            return None;
        }
        // The error would show what it could not read.
        let read = serde_json::from_str(secret);
        Some(read.map_err(|_shown| refused("the secret is not a service account's key file")))
    }

    /// Whether a secret is a key file.
    pub(super) fn is_one(secret: &str) -> bool {
        secret.trim_start().starts_with('{')
    }

    /// The claim, signed.
    fn claim(&self, now_s: i64) -> Result<String, SendError> {
        let head = json!({"alg": "RS256", "typ": "JWT", "kid": self.private_key_id});
        let body = json!({"iss": self.client_email, "scope": SCOPE, "aud": self.token_uri,
            "iat": now_s, "exp": now_s.saturating_add(CLAIM_S)});
        let coded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", coded(&head), coded(&body));
        let lines = self.private_key.lines().filter(|line| !line.starts_with("-----"));
        let base64: Zeroizing<String> = Zeroizing::new(lines.map(str::trim).collect());
        let key = STANDARD.decode(base64.as_bytes()).ok().map(Zeroizing::new);
        let pair = key.and_then(|key| RsaKeyPair::from_pkcs8(&key).ok());
        let pair = pair.ok_or_else(|| refused("the service account's private key is not RSA"))?;
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .map_err(|_unspecified| refused("the service account's private key does not sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The request for a token.
    fn request(&self, now_s: i64) -> Result<Request<Segments>, SendError> {
        let claim = self.claim(now_s)?;
        let grant = GRANT.replace(':', "%3A");
        let form = Bytes::from(format!("grant_type={grant}&assertion={claim}"));
        let mut request = Request::new(Segments::new(vec![form]));
        *request.method_mut() = Method::POST;
        let uri = self.token_uri.parse();
        *request.uri_mut() = uri.map_err(|_bad| refused("the account's token_uri is no URL"))?;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(request)
    }
}

impl Tokens {
    fn slot(&self, account: &Account) -> Slot {
        let name = (account.client_email.clone(), account.private_key_id.clone());
        Arc::clone(self.slots.lock().entry(name).or_default())
    }

    /// Drops an account's token if it was made `before`.
    pub(super) async fn forget(&self, account: &Account, before: Timestamp) -> bool {
        let slot = self.slot(account);
        let mut kept = slot.lock().await;
        let is_older = kept.as_ref().is_some_and(|token| token.made_at_s < before.seconds());
        if is_older {
            *kept = None;
        }
        is_older
    }

    /// The token of an account.
    pub(super) async fn of(
        &self,
        outbound: &Outbound,
        policy: Policy,
        account: &Account,
        now: Timestamp,
        by: Instant,
    ) -> Result<Arc<Token>, SendError> {
        let slot = self.slot(account);
        let late = |_elapsed| SendError {
            failure: Failure::FirstByteTimeout,
            detail: "the token did not come in time".to_owned(),
        };
        let now_s = now.seconds();
        let fetching = async {
            let mut kept = slot.lock().await;
            if let Some(token) = kept.as_ref().filter(|token| now_s < token.renew_at_s) {
                return Ok(Arc::clone(token));
            }
            let token = Arc::new(fetch(outbound, policy, account, now_s, by).await?);
            *kept = Some(Arc::clone(&token));
            Ok(token)
        };
        tokio::time::timeout_at(by, fetching).await.map_err(late)?
    }
}

async fn fetch(
    outbound: &Outbound,
    policy: Policy,
    account: &Account,
    now_s: i64,
    by: Instant,
) -> Result<Token, SendError> {
    let response = outbound.send(policy, account.request(now_s)?).await?;
    let status = response.status().as_u16();
    let body = collect(response.into_body(), ANSWER_BYTES_MAX, IDLE, by).await;
    let Collected::Whole(body) = body else {
        let detail = "the answer with the token broke off".to_owned();
        return Err(SendError { failure: Failure::ConnectionLost, detail });
    };
    match status {
        200 => {}
        500..600 => {
            let detail = format!("the token endpoint answered {status}");
            return Err(SendError { failure: Failure::ServerError, detail });
        }
        _ => return Err(refused(format!("the token endpoint answered {status}"))),
    }
    let granted: Granted = serde_json::from_slice(&body)
        .map_err(|_shown| refused("the token endpoint's answer has no token"))?;
    let renew_at_s = now_s.saturating_add(granted.expires_in.saturating_sub(EARLY_S));
    Ok(Token { text: granted.access_token, made_at_s: now_s, renew_at_s })
}

#[cfg(test)]
mod tests;
