//! Who asks: the key in any of its forms, checked, with the configuration pinned.
//!
//! Invariant: "cannot check" is never "unknown": a store that does not answer gives 503, not 401.
//! The same work is done for an unknown key as for a wrong secret. Source: SPEC 4, `wire` 4.1.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, Uri, header};
use ipnet::IpNet;

use anima_core::clock::Timestamp;
use anima_core::config::{App, Key, Version};
use anima_core::failure::Failure;
use anima_core::money::{Currency, Multiplier};
use anima_core::snapshot::TokenGroupEntry;
use anima_store::keys::KeyRecord;

use super::reply::Refusal;
use super::terms::Terms;
use crate::live::{Live, Pinned};
use crate::relay::steer::Allowed;
use crate::secrets::{self, Secrets};

/// A checked key with everything that a call needs to know about it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key's public id.
    pub kid: Arc<str>,
    /// Its app.
    pub app: Arc<str>,
    /// Of the app's wallet.
    pub currency: Currency,
    /// The lowest balance of the wallet, in units.
    pub floor: i64,
    /// The key's group, else the app's.
    pub group: Option<Arc<TokenGroupEntry>>,
    /// The limits of the key, its app and its group.
    pub terms: Arc<Terms>,
    /// The configuration that this request uses to its end.
    pub pinned: Pinned,
    /// Whether it may see how its calls were routed, if the key says so.
    pub trace: Option<bool>,
}

impl Caller {
    /// What it may ask for in headers, where the gateway allows so much to everyone.
    pub fn allowed(&self, everyone: Allowed) -> Allowed {
        Allowed { trace: self.trace.unwrap_or(everyone.trace), ..everyone }
    }

    /// Factor on sale prices.
    pub fn multiplier(&self) -> Multiplier {
        self.group.as_ref().map_or(Multiplier::ONE, |g| g.multiplier)
    }

    /// Whether the key may use an alias.
    pub fn allows(&self, alias: &str) -> bool {
        self.group.as_ref().is_none_or(|g| g.allows(alias))
    }
}

/// Checks the key of a request.
///
/// # Errors
/// A refusal that says what is wrong with the key, or that it cannot be checked now.
pub async fn identify(
    live: &Live,
    secrets: &Secrets,
    now: Timestamp,
    head: (&HeaderMap, &Uri),
    peer: Option<IpAddr>,
) -> Result<Caller, Refusal> {
    if !live.is_open() {
        let message = "This gateway is switched off by its operator. Try again later.";
        return Err(Refusal::new(Failure::ServiceSuspended, message));
    }
    let text = key_text(head.0, head.1).ok_or_else(|| {
        let how = "No API key was given. Send it as `Authorization: Bearer sk-...`.";
        Refusal::new(Failure::KeyMissing, how)
    })?;
    let pinned = live.pin(now).ok_or_else(cannot_check)?;
    let hash = secrets.hash_key(&text);
    let unknown = || {
        Refusal::new(Failure::KeyUnknown, "Incorrect API key. Check the key, or ask for a new one.")
    };
    let kid = secrets::kid_of(&text).ok_or_else(unknown)?;
    let record = live.key(kid).await.map_err(|_error| cannot_check())?.ok_or_else(unknown)?;
    let live_secret = |s: &anima_store::keys::SecretHash| {
        secrets::same_hash(&s.hash, &hash) & s.expires_at.is_none_or(|end| now < end)
    };
    if !record.secrets.iter().fold(false, |found, s| found | live_secret(s)) {
        return Err(unknown());
    }
    let (key, app) = in_force(&record, now)?;
    check(key, app, now, peer)?;
    known(pinned, kid, key, app)
}

/// A caller whose key was checked when it called, as it is now, for a call that is made later.
///
/// # Errors
/// A refusal that says why the key may not be used any more, or that it cannot be checked now.
pub async fn again(live: &Live, now: Timestamp, kid: &str) -> Result<Caller, Refusal> {
    if !live.is_open() {
        let message = "This gateway is switched off by its operator. Try again later.";
        return Err(Refusal::new(Failure::ServiceSuspended, message));
    }
    let gone = || Refusal::new(Failure::KeyDisabled, "This API key is not in force now.");
    let pinned = live.pin(now).ok_or_else(cannot_check)?;
    let record = live.key(kid).await.map_err(|_error| cannot_check())?.ok_or_else(gone)?;
    let (key, app) = in_force(&record, now)?;
    check_live(key, app, now)?;
    known(pinned, kid, key, app)
}

/// The versions of a key and its app that are in force.
fn in_force(record: &KeyRecord, now: Timestamp) -> Result<(&Version<Key>, &Version<App>), Refusal> {
    let refused = |why: &str| Refusal::new(Failure::KeyDisabled, why);
    let key = effective(&record.key, now);
    let key = key.ok_or_else(|| refused("This API key is not in force now."))?;
    let app = effective(&record.app, now);
    let app = app.ok_or_else(|| refused("The app of this API key is not in force now."))?;
    Ok((key, app))
}

/// Everything that a call needs to know about a key that may be used.
fn known(
    pinned: Pinned,
    kid: &str,
    key: &Version<Key>,
    app: &Version<App>,
) -> Result<Caller, Refusal> {
    let wanted = key.body.token_group.as_deref().or(app.body.token_group.as_deref());
    let group = wanted.map(|code| group(&pinned, code)).transpose()?;
    let (kid, code): (Arc<str>, Arc<str>) = (kid.into(), app.code.as_str().into());
    let terms = Terms::find(&pinned, (&kid, &key.body), (&code, &app.body), group.as_deref())?;
    Ok(Caller {
        kid,
        app: code,
        currency: app.body.currency,
        floor: app.body.floor_units().unwrap_or(0),
        group,
        terms: Arc::new(terms),
        pinned,
        trace: key.body.caller_trace,
    })
}

/// The terms of a key as they are now, for calls of it that wait.
///
/// # Errors
/// A refusal that says why the key may not be used any more, or that it cannot be checked now.
pub async fn terms(live: &Live, now: Timestamp, kid: &Arc<str>) -> Result<Terms, Refusal> {
    let gone = || Refusal::new(Failure::KeyDisabled, "This API key is not in force now.");
    let pinned = live.pin(now).ok_or_else(cannot_check)?;
    let record = live.key(kid).await.map_err(|_error| cannot_check())?.ok_or_else(gone)?;
    let (key, app) = in_force(&record, now)?;
    check_live(key, app, now)?;
    let wanted = key.body.token_group.as_deref().or(app.body.token_group.as_deref());
    let group = wanted.map(|code| group(&pinned, code)).transpose()?;
    let code = app.code.as_str().into();
    Terms::find(&pinned, (kid, &key.body), (&code, &app.body), group.as_deref())
}

fn effective<B>(versions: &[Version<B>], now: Timestamp) -> Option<&Version<B>> {
    versions.iter().find(|v| v.is_effective(now))
}

fn cannot_check() -> Refusal {
    let message = "API keys cannot be checked at the moment. Try again shortly.";
    Refusal::new(Failure::AuthUnavailable, message).retry_after(1_000)
}

/// Whether a key may be used at all.
fn check_live(key: &Version<Key>, app: &Version<App>, now: Timestamp) -> Result<(), Refusal> {
    if !key.enabled {
        let message = "This API key is disabled. Ask whoever issued it.";
        return Err(Refusal::new(Failure::KeyDisabled, message));
    }
    if !app.enabled {
        let message = "The app of this API key is disabled. Ask whoever issued it.";
        return Err(Refusal::new(Failure::KeyDisabled, message));
    }
    if let Some(end) = key.body.expires_at
        && end <= now
    {
        let message = format!("This API key expired at {end}. Ask for a new one.");
        return Err(Refusal::new(Failure::KeyExpired, message));
    }
    Ok(())
}

fn check(
    key: &Version<Key>,
    app: &Version<App>,
    now: Timestamp,
    peer: Option<IpAddr>,
) -> Result<(), Refusal> {
    check_live(key, app, now)?;
    if key.body.allowed_ips.is_empty() {
        return Ok(());
    }
    let allowed = peer.is_some_and(|p| key.body.allowed_ips.iter().any(|b| contains(b, p)));
    if allowed {
        return Ok(());
    }
    let message = "This API key may not be used from this address.";
    Err(Refusal::new(Failure::AddressRefused, message))
}

fn contains(block: &str, peer: IpAddr) -> bool {
    let peer = peer.to_canonical();
    let net = block.parse::<IpNet>().is_ok_and(|net| net.contains(&peer));
    net || block.parse::<IpAddr>().is_ok_and(|address| address.to_canonical() == peer)
}

fn group(pinned: &Pinned, code: &str) -> Result<Arc<TokenGroupEntry>, Refusal> {
    let group = pinned.snapshot.token_group(code).ok_or_else(|| {
        Refusal::new(Failure::KeyDisabled, "The token group of this API key is not in force now.")
    })?;
    if group.enabled {
        return Ok(Arc::clone(group));
    }
    let message = "The token group of this API key is suspended.";
    Err(Refusal::new(Failure::ServiceSuspended, message))
}

/// The key's text, wherever the client's SDK puts it (SPEC 4).
fn key_text<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Option<Cow<'a, str>> {
    let of = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim);
    let bearer = of(header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    let header = bearer.or_else(|| of("x-api-key")).or_else(|| of("x-goog-api-key"));
    let found = header.or_else(|| of("api-key")).filter(|k| !k.is_empty()).map(Cow::Borrowed);
    found.or_else(|| {
        let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.into_iter().find(|(name, _)| *name == "key")?.1;
        Some(Cow::Borrowed(value)).filter(|k| !k.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &'static str, value: &str, uri: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers.insert(name, value.parse().unwrap());
        }
        key_text(&headers, &uri.parse().unwrap()).map(Cow::into_owned)
    }

    #[test]
    fn the_key_is_found_in_every_form() {
        for (name, value, uri) in [
            ("authorization", "Bearer sk-a-b", "/v1/models"),
            ("authorization", "bearer  sk-a-b ", "/v1/models"),
            ("x-api-key", "sk-a-b", "/v1/models"),
            ("x-goog-api-key", "sk-a-b", "/v1/models"),
            ("api-key", "sk-a-b", "/v1/models"),
            ("", "", "/v1/models?alt=sse&key=sk-a-b"),
        ] {
            assert_eq!(found(name, value, uri).as_deref(), Some("sk-a-b"), "{name} {uri}");
        }
        assert_eq!(found("authorization", "Basic abc", "/v1/models"), None);
        assert_eq!(found("", "", "/v1/models?monkey=1"), None);
    }

    #[test]
    fn address_blocks_take_single_addresses_and_mapped_peers() {
        let peer = "::ffff:10.1.2.3".parse().unwrap();
        assert!(contains("10.0.0.0/8", peer));
        assert!(contains("10.1.2.3", peer));
        assert!(!contains("10.1.2.4", peer));
    }
}
