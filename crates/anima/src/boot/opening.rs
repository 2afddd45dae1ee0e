//! The database of a node that started while it was away: opened as soon as it answers.
//!
//! Until then the node listens, refuses what needs the database (SPEC 12) and reads from the second
//! level. Nothing writes to the database, or reads tables that may be of an older version, before
//! it has been brought up to date here. Invariant: the dependencies say "down" until everything
//! that a start does with a database has been done.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use anima_core::clock::{Clock, mint_id};
use anima_store::database::{self, Location, OpenError, Opener, Schema, Stores};
use anima_store::keys::{AdminToken, KeyStore, Role};
use anima_store::ledger::LedgerStore;

use super::FirstToken;
use crate::relay::{Relay, lease, recovery};
use crate::secrets::Secrets;

/// How long a start waits for its database. Then it listens without, and says so.
const WITHIN: Duration = Duration::from_secs(5);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// Between two lines in the log about the same.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// What admin tokens are kept in, and how.
pub(super) type Tokens = (Arc<dyn KeyStore>, Arc<Secrets>);

/// Whether the database has been opened, and what is still to be done for it.
#[derive(Debug)]
pub(super) struct Opening {
    /// Cancelled when it has been: what works with the database waits for that.
    pub(super) opened: CancellationToken,
    later: Option<Later>,
}

/// What opening needs.
#[derive(Debug)]
struct Later {
    schema: Schema,
    /// The ledger without its spool; `None` when nothing is booked.
    ledger: Option<Arc<dyn LedgerStore>>,
    admin_token: Option<Zeroizing<String>>,
    minted: oneshot::Sender<Zeroizing<String>>,
}

/// The stores of a database, whether it answers or not.
///
/// # Errors
/// What waiting would not mend.
pub(super) async fn stores(
    location: &Location,
    opener: &Opener,
) -> Result<(Stores, Opening), OpenError> {
    let opening = Opening { opened: CancellationToken::new(), later: None };
    match database::open_within(location, opener, WITHIN).await {
        Ok(stores) => {
            opening.opened.cancel();
            Ok((stores, opening))
        }
        Err(OpenError::Away(why)) => {
            tracing::error!(why, "the database does not answer; starting without it");
            let stores = database::open_unseen(location, opener).await?;
            Ok((stores, opening))
        }
        Err(error) => Err(error),
    }
}

impl Opening {
    /// Whether the database has been opened.
    pub(super) fn is_done(&self) -> bool {
        self.opened.is_cancelled()
    }

    /// Notes what is to be done later. The first admin token, if one has to be made, is sent to
    /// whoever holds the other end.
    pub(super) fn prepare(
        &mut self,
        schema: &Schema,
        ledger: Option<Arc<dyn LedgerStore>>,
        admin_token: Option<&str>,
    ) -> Option<oneshot::Receiver<Zeroizing<String>>> {
        if self.is_done() {
            return None;
        }
        let (minted, receiver) = oneshot::channel();
        let admin_token = admin_token.map(|text| Zeroizing::new(text.to_owned()));
        self.later = Some(Later { schema: schema.clone(), ledger, admin_token, minted });
        Some(receiver)
    }

    /// Does it, however long the database stays away. Returns at once when there is nothing to do.
    pub(super) async fn run(self, relay: Arc<Relay>, tokens: Tokens) {
        let Some(later) = self.later else { return };
        let (mut said, mut at) = (String::new(), Instant::now());
        let mut registered = later.ledger.is_none();
        let minted = loop {
            // A try that hangs would outlast the outage.
            if !relay.dependencies.database_answers().await {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            let opened = tokio::select! {
                opened = later.open(&relay, &tokens, &mut registered) => opened,
                () = relay.dependencies.away() => Err("it answers no more".to_owned()),
            };
            match opened {
                Ok(minted) => break minted,
                Err(why) if why != said || at.elapsed() > SAY_EVERY => {
                    tracing::error!(why, "failed to open the database; trying on");
                    (said, at) = (why, Instant::now());
                }
                Err(_said) => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        if let Some(token) = minted {
            // Nobody listens when the node is about to end.
            drop(later.minted.send(token));
        }
        relay.dependencies.opened().await;
        self.opened.cancel();
        tracing::info!("the database is open");
    }
}

impl Later {
    /// Everything that a start does with a database. Each try registers under an id of its own
    /// until one has, since a registration whose reply got lost cannot be repeated.
    async fn open(
        &self,
        relay: &Relay,
        (keys, secrets): &Tokens,
        registered: &mut bool,
    ) -> Result<FirstToken, String> {
        self.schema.migrate().await.map_err(|e| e.to_string())?;
        if let Some(ledger) = &self.ledger {
            if !*registered {
                let node = mint_id(relay.clock.now(), &*relay.rng);
                let asked = Instant::now();
                ledger.register(lease::registration(node)).await.map_err(|e| e.to_string())?;
                relay.term.replaced(node, asked);
                *registered = true;
            }
            recovery::take_over(&**ledger).await.map_err(|e| e.to_string())?;
        }
        relay.live.refresh().await.map_err(|e| e.to_string())?;
        let given = self.admin_token.as_deref().map(String::as_str);
        first_token((&**keys, secrets, &*relay.clock), given).await
    }
}

/// Stores the admin token that was given, else makes one when there is none yet.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn first_token(
    (keys, secrets, clock): (&dyn KeyStore, &Secrets, &dyn Clock),
    given: Option<&str>,
) -> Result<FirstToken, String> {
    let say = |e| format!("failed to store the admin token: {e}");
    let (text, name, minted) = match given {
        Some(text) => (Zeroizing::new(text.to_owned()), "settings", false),
        None if keys.count_admin_tokens().await.map_err(say)? > 0 => return Ok(None),
        None => (Secrets::mint_admin_token(), "first", true),
    };
    let hash = secrets.hash_admin_token(&text);
    let token = AdminToken { name: name.to_owned(), role: Role::Admin, hash };
    keys.store_admin_token(token, clock.now()).await.map_err(say)?;
    Ok(minted.then_some(text))
}
