//! Channels: upstream accounts.
//!
//! Special about them: the provider must be known to this binary, the base URL must be one that may
//! be called, and credentials are sealed on the way in and never read back.

use async_trait::async_trait;
use serde_json::{Map, Value};

use anima_core::config::{Channel, FAULT_AHEAD_MS, Resource};
use anima_store::config::{Actor, Row};
use anima_wire::adapter;

use super::collection::{Collection, Draft, Prepared, checked};
use super::problem::Problem;
use super::rows::{self, Creation, Place};
use super::{Admin, typed};

mod address;
mod credentials;

pub(crate) use credentials::veil;

/// The channels.
#[derive(Debug)]
pub(crate) struct Channels;

/// Creates a channel from its payload.
///
/// # Errors
/// The first bad member, a code that is taken, or the store's.
pub async fn create(admin: &Admin, actor: &Actor, body: Value) -> Result<Row, Problem> {
    let place = Place { collection: &Channels, app: None };
    let creation = Creation { place, minted: None };
    let body = typed::members(body)?;
    rows::create(admin, actor, creation, body).await.map(|created| created.row)
}

/// Changes a channel, given the members that change and its `version_no`.
///
/// # Errors
/// A stale version, the first bad member, or the store's.
pub async fn change(admin: &Admin, actor: &Actor, code: &str, body: Value) -> Result<Row, Problem> {
    let place = Place { collection: &Channels, app: None };
    let writer = rows::Writer { actor, if_match: None };
    let changed = rows::change(admin, place, writer, code, typed::members(body)?).await?;
    Ok(changed.row)
}

#[async_trait]
impl Collection for Channels {
    fn resource(&self) -> Resource {
        Resource::Channel
    }

    fn path(&self) -> &'static str {
        "channels"
    }

    fn vet(&self, given: &Map<String, Value>) -> Result<(), Problem> {
        credentials::vet(given.get("credentials"))
    }

    async fn prepare(&self, admin: &Admin, draft: Draft<'_>) -> Result<Prepared, Problem> {
        let mut channel: Channel = checked(draft.body)?;
        if adapter::lookup(&channel.provider).is_none() {
            return Err(Problem::invalid("provider", &known_providers()));
        }
        if let Some(name) = adapter::missing_setting(&channel.provider, &channel.settings) {
            return Err(Problem::invalid("settings", &format!("an object with `{name}`")));
        }
        address::check(&channel.base_url, channel.allow_private_network)?;
        let latest = admin.clock.now().plus_millis(FAULT_AHEAD_MS);
        if channel.faults.iter().any(|rule| rule.until > latest) {
            return Err(Problem::invalid("faults", "rules whose `until` is within seven days"));
        }
        // A stored secret is sent only where it was meant for: who may change an address may not
        // read secrets by it.
        let mut stored = draft.origin.map(credentials::stored).unwrap_or_default();
        let before = draft.origin.and_then(|origin| origin.get("base_url")?.as_str());
        if before.is_some_and(|before| host_of(before) != host_of(&channel.base_url)) {
            stored.clear();
            channel.credentials.iter_mut().for_each(|credential| credential.sealed = None);
        }
        credentials::seal(&admin.secrets, draft.code, &mut channel.credentials, &stored)?;
        Prepared::of(&channel)
    }

    fn veil(&self, body: &mut Map<String, Value>) {
        veil(body);
    }
}

/// Providers that a channel may name; the registry says which of them this binary speaks.
const PROVIDERS: &[&str] = &[
    "openai",
    "openai_compatible",
    "openai_responses",
    "azure_openai",
    "anthropic",
    "gemini",
    "vertex",
    "bedrock",
    "cohere",
];

/// What of an address says who is talked to: scheme, host and port.
fn host_of(base_url: &str) -> Option<(String, String)> {
    let uri: http::Uri = base_url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    Some((scheme, uri.authority()?.as_str().to_ascii_lowercase()))
}

fn known_providers() -> String {
    let known = PROVIDERS.iter().filter(|name| adapter::lookup(name).is_some());
    let names: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    format!("one of {}", names.join(", "))
}
