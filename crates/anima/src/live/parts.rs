//! Which parts of a node's memory a change touches.
//!
//! Invariant: what is not known here touches everything, for a newer node may have written it.

use anima_core::config::Resource;
use anima_store::config::publish::Notice;

/// What a node keeps in memory and may have to read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Rows, but for keys and apps.
    Tables,
    /// All keys, with their apps.
    Keys,
    /// The escape hatches.
    Hatches,
}

/// What a change touches beside single keys.
pub(super) fn parts(notice: &Notice) -> &'static [Part] {
    match notice {
        Notice::Row { resource, .. } => match resource {
            Resource::UserApiKey => &[],
            Resource::App => &[Part::Keys],
            Resource::Channel
            | Resource::Alias
            | Resource::Price
            | Resource::Quota
            | Resource::TokenGroup
            | Resource::FxRate => &[Part::Tables],
        },
        Notice::Circuit { .. } | Notice::Gateway { .. } => &[Part::Hatches],
        Notice::Forget { scope } => match scope.as_str() {
            "config" => &[Part::Tables, Part::Hatches],
            "keys" | "apps" => &[Part::Keys],
            key if key.starts_with("key:") => &[],
            app if app.starts_with("app:") => &[Part::Keys],
            // `all`, and what a newer node may have named.
            _ => &[Part::Tables, Part::Keys, Part::Hatches],
        },
    }
}
