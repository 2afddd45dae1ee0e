//! Hears PostgreSQL's own word of changes.
//!
//! Only configuration is announced this way: a notification takes a lock that all committing
//! transactions of the database would share. Invariant: whenever a word may have been missed, the
//! bell is rung; whoever hears it reads the truth from the tables.

use std::future::poll_fn;
use std::time::Duration;

use tokio_postgres::AsyncMessage;

use crate::database::OpenError;
use crate::postgres::{Chain, connection};

/// Until it is heard that changes will be. A login's reply that is lost would never come.
const READY: Duration = Duration::from_secs(5);

/// Before a lost connection is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// What changes are announced on.
const LISTEN: &str = "LISTEN anima_config";

/// Rings for each change, for ever.
pub(crate) async fn listen(url: &str, ring: &(dyn Fn() + Send + Sync)) {
    loop {
        if let Err(error) = hear(url, ring).await {
            tracing::debug!(%error, "failed to listen for changes; they are looked for meanwhile");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Rings until the connection ends.
async fn hear(url: &str, ring: &(dyn Fn() + Send + Sync)) -> Result<(), OpenError> {
    let (config, connector) = connection(url)?;
    let lost = |e: tokio_postgres::Error| OpenError::Unreachable(Chain(&e).to_string());
    let silent = |_late| OpenError::Unreachable(format!("no answer within {READY:?}"));
    let connecting = tokio::time::timeout(READY, config.connect(connector)).await;
    let (client, mut connection) = connecting.map_err(silent)?.map_err(lost)?;
    let mut listening = std::pin::pin!(tokio::time::timeout(READY, client.batch_execute(LISTEN)));
    let mut is_listening = false;
    loop {
        tokio::select! {
            listens = &mut listening, if !is_listening => {
                listens.map_err(silent)?.map_err(lost)?;
                is_listening = true;
                ring();
            }
            message = poll_fn(|cx| connection.poll_message(cx)) => match message {
                Some(Ok(AsyncMessage::Notification(_))) => ring(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(error)),
                None => return Ok(()),
            },
        }
    }
}
