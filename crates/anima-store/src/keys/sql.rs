//! The statements about keys and admin tokens, and what their rows mean.
//!
//! Both engines understand each statement as it stands; `config/sql.rs` says how.

use anima_core::clock::Timestamp;
use anima_core::config::Resource;

use super::{AdminToken, KeyRecord, Role, SecretHash};
use crate::config::{Error, Row, damaged, typed};

/// Key `$1` as of `$2`, with its app and its hashes. One statement, so one state of the database.
/// Each row is one part, see [`Part`]; the head is always there when the key is.
pub(super) const KEY: &str = "
    WITH k AS (
        SELECT code, app, version_no, enabled, created_at FROM config_head
        WHERE resource = 'user_api_key' AND code = $1 AND deleted_at IS NULL)
    SELECT 1 AS part, s.kid AS code, k.app AS app, s.n AS version_no, s.created_at AS from_at,
        s.expires_at AS to_at, k.enabled AS enabled, NULL AS body, s.hash AS hash
    FROM user_api_key_secret s JOIN k ON k.code = s.kid
    WHERE s.expires_at IS NULL OR s.expires_at > $2
    UNION ALL
    SELECT 2, v.code, k.app, v.version_no, v.effective_from, v.effective_to, k.enabled, v.body, NULL
    FROM user_api_key v JOIN k ON k.code = v.code
    WHERE v.cancelled_at IS NULL AND (v.effective_to IS NULL OR v.effective_to > $2)
    UNION ALL
    SELECT 3, a.code, NULL, a.version_no, a.effective_from, a.effective_to, h.enabled, a.body, NULL
    FROM k JOIN config_head h ON h.resource = 'app' AND h.code = k.app AND h.deleted_at IS NULL
    JOIN app a ON a.code = h.code
    WHERE a.cancelled_at IS NULL AND (a.effective_to IS NULL OR a.effective_to > $2)
    UNION ALL
    SELECT 0, k.code, k.app, k.version_no, k.created_at, NULL, k.enabled, NULL, NULL FROM k
    ORDER BY part, from_at";

/// The live admin token of hash `$1`.
pub(super) const ADMIN_TOKEN: &str = "
    SELECT name, role FROM admin_token WHERE hash = $1 AND disabled_at IS NULL";

/// Lets one at a time replace admin tokens, while others go on reading: nodes start at once.
pub(super) const LOCK_ADMIN_TOKENS: &str = "LOCK TABLE admin_token IN SHARE ROW EXCLUSIVE MODE";

/// The admin tokens of name `$1` or hash `$2`.
pub(super) const DELETE_ADMIN_TOKEN: &str = "DELETE FROM admin_token WHERE name = $1 OR hash = $2";

/// An admin token: name, role, hash, created at.
pub(super) const INSERT_ADMIN_TOKEN: &str = "
    INSERT INTO admin_token (name, role, hash, created_at) VALUES ($1, $2, $3, $4)";

/// How many admin tokens are live.
pub(super) const COUNT_ADMIN_TOKENS: &str =
    "SELECT count(*) FROM admin_token WHERE disabled_at IS NULL";

/// One row of [`KEY`].
#[derive(Debug)]
pub(super) enum Part {
    /// The key exists.
    Head,
    /// A hash.
    Secret { hash: Vec<u8>, expires_at: Option<Timestamp> },
    /// A version of the key.
    Key(Row),
    /// A version of its app.
    App(Row),
}

/// Puts the parts together.
pub(super) fn record(kid: &str, parts: Vec<Part>) -> Result<Option<KeyRecord>, Error> {
    let mut record = KeyRecord { secrets: Vec::new(), key: Vec::new(), app: Vec::new() };
    if parts.is_empty() {
        return Ok(None);
    }
    for part in parts {
        match part {
            Part::Head => {}
            Part::Secret { hash, expires_at } => {
                record.secrets.push(SecretHash { hash: hash_of(kid, &hash)?, expires_at });
            }
            Part::Key(row) => record.key.push(typed(Resource::UserApiKey, row)?),
            Part::App(row) => record.app.push(typed(Resource::App, row)?),
        }
    }
    Ok(Some(record))
}

fn hash_of(kid: &str, hash: &[u8]) -> Result<[u8; 32], Error> {
    let length = |_| damaged(Resource::UserApiKey, kid, 0, &"a hash is not 32 bytes long");
    hash.try_into().map_err(length)
}

/// Says which part a row of an unknown number would be.
pub(super) fn unknown_part(kid: &str, part: i64) -> Error {
    damaged(Resource::UserApiKey, kid, 0, &format_args!("part {part}"))
}

/// An admin token from its columns.
pub(super) fn admin_token(name: String, role: &str, hash: [u8; 32]) -> Result<AdminToken, Error> {
    let Some(role) = Role::parse(role) else {
        return Err(Error::Damaged(format!("admin token `{name}` has role `{role}`")));
    };
    Ok(AdminToken { name, role, hash })
}
