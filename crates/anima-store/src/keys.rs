//! Hashes of keys and admin tokens. No secret in clear is ever stored.
//!
//! Contract: a look-up returns every version of the key and of its app that is in force now or
//! later, with the live switches, in one consistent read; the caller picks by time, so that a
//! cached answer stays right across scheduled changes. Both backends implement [`KeyStore`].

use std::fmt;

use async_trait::async_trait;

use anima_core::clock::Timestamp;
use anima_core::config::{App, Key, Version};

use crate::config::Error;

pub(crate) mod postgres;
mod sql;
pub(crate) mod sqlite;

/// A stored hash of a key's secret; several live at once while a key is rotated.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    /// HMAC-SHA-256 of the whole key under the server's pepper.
    pub hash: [u8; 32],
    /// The secret is dead from here on.
    pub expires_at: Option<Timestamp>,
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretHash").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// What is known about a key.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    /// Live hashes.
    pub secrets: Vec<SecretHash>,
    /// Versions of the key in force now or later, oldest first.
    pub key: Vec<Version<Key>>,
    /// Versions of its app in force now or later, oldest first.
    pub app: Vec<Version<App>>,
}

/// What an admin token may do. Each role may do what the ones before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read.
    Viewer,
    /// Read, and flip switches and circuits.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// The word in the database and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reads the word.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|r| r.name() == name)
    }
}

/// An admin token as it is stored.
#[derive(Clone)]
pub struct AdminToken {
    /// Its name, the actor of audit records.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// HMAC-SHA-256 of the token under the server's pepper.
    pub hash: [u8; 32],
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Keeps the hashes.
#[async_trait]
pub trait KeyStore: Send + Sync + fmt::Debug {
    /// A key with its app, by the key's public id. `None` when there is no such key, or it was
    /// deleted. Of a deleted app there are no versions.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: "cannot check", never "unknown".
    async fn key(&self, kid: &str, now: Timestamp) -> Result<Option<KeyRecord>, Error>;

    /// The admin token with that hash, if it is live.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn admin_token(&self, hash: &[u8; 32]) -> Result<Option<AdminToken>, Error>;

    /// Stores an admin token; one of the same name or hash is replaced.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn store_admin_token(&self, token: AdminToken, now: Timestamp) -> Result<(), Error>;

    /// How many admin tokens are live.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn count_admin_tokens(&self) -> Result<u64, Error>;
}

#[cfg(test)]
mod tests;
