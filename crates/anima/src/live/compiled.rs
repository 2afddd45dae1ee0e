//! The tables made ready to serve: snapshots of now and ahead, and channels that can be called.
//!
//! Not here: when they are read (`live`). Invariant: a credential that cannot be opened fails its
//! channel alone, not the node.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use anima_core::clock::Timestamp;
use anima_core::config::{Tables, Version};
use anima_core::snapshot::Timeline;
use anima_wire::adapter::{self, Adapter};

use crate::secrets::Secrets;

/// A channel made ready to be called.
pub struct Upstream {
    /// The provider's translator; `None` when this binary does not know the provider.
    pub adapter: Option<&'static dyn Adapter>,
    /// Scheme and authority, and the path prefix without a final slash.
    pub base: http::Uri,
    /// Credentials in clear: code and secret.
    pub credentials: Vec<(Arc<str>, Zeroizing<String>)>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("base", &self.base).finish_non_exhaustive()
    }
}

/// The compiled configuration.
#[derive(Debug, Default)]
pub(super) struct Compiled {
    pub(super) tables: Tables,
    pub(super) timeline: Timeline,
    /// Parallel to `tables.channels`.
    pub(super) upstreams: Vec<Option<Arc<Upstream>>>,
}

pub(super) fn compile(tables: Tables, secrets: &Secrets, now: Timestamp) -> Compiled {
    let timeline = Timeline::compile(&tables, now);
    let upstreams = tables
        .channels
        .iter()
        .map(|row| {
            let base: http::Uri = row.body.base_url.trim_end_matches('/').parse().ok()?;
            let credentials = open_credentials(secrets, &row.code, &row.body);
            let adapter = adapter::lookup(&row.body.provider);
            Some(Arc::new(Upstream { adapter, base, credentials }))
        })
        .collect();
    Compiled { tables, timeline, upstreams }
}

/// Opens what can be opened. A credential sealed under another master key is left out with an
/// alarm: the channel then fails alone, not the node.
fn open_credentials(
    secrets: &Secrets,
    channel: &str,
    body: &anima_core::config::Channel,
) -> Vec<(Arc<str>, Zeroizing<String>)> {
    let mut opened = BTreeMap::new();
    for credential in &body.credentials {
        let context = credential_context(channel, &credential.code);
        let sealed = credential.sealed.as_deref().unwrap_or_default();
        let text = secrets
            .open(&context, sealed)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        if let Some(text) = text {
            opened.insert(Arc::from(credential.code.as_str()), Zeroizing::new(text));
        } else {
            tracing::error!(channel, credential = credential.code, "failed to open credential");
        }
    }
    opened.into_iter().collect()
}

/// The place a credential is sealed for.
pub fn credential_context(channel: &str, credential: &str) -> String {
    format!("channel|{channel}|{credential}")
}

/// Whether two readings agree about `now`. What has ended by then is read no more.
pub(super) fn same_in_force(a: &Tables, b: &Tables, now: Timestamp) -> bool {
    fn same<B: PartialEq>(a: &[Version<B>], b: &[Version<B>], now: Timestamp) -> bool {
        let in_force = |row: &&Version<B>| row.is_effective(now);
        a.iter().filter(in_force).eq(b.iter().filter(in_force))
    }
    same(&a.channels, &b.channels, now)
        && same(&a.aliases, &b.aliases, now)
        && same(&a.prices, &b.prices, now)
        && same(&a.quotas, &b.quotas, now)
        && same(&a.token_groups, &b.token_groups, now)
        && same(&a.fx_rates, &b.fx_rates, now)
}
