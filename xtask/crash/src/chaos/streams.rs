//! A stream as its client reads it, to its end.
//!
//! Not the load: one stream, for scenarios in which its last event matters. Invariant: `text` has
//! every byte that came.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::http_client::{Ask, send};
use crate::operator::Key;

/// A client that waits longer for the next piece gives up.
const SILENCE: Duration = Duration::from_secs(30);

/// A running stream.
#[derive(Debug)]
pub(super) struct Stream {
    body: Incoming,
    text: Vec<u8>,
}

/// How one ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) text: String,
    /// Whether its body ended as HTTP says.
    pub(super) whole: bool,
    pub(super) at: Instant,
}

impl Stream {
    /// Starts one, up to its first piece.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) async fn open(address: SocketAddr, alias: &str, key: &Key) -> Result<Self> {
        let messages = json!([{"role": "user", "content": "Say a lot, please."}]);
        let body = json!({"model": alias, "stream": true, "messages": messages});
        let ask = Ask {
            address,
            method: Method::POST,
            path: "/v1/chat/completions".to_owned(),
            token: key.secret.clone(),
            body: body.to_string(),
            idempotency_key: None,
        };
        let response = send(&ask).await?;
        ensure!(response.status() == 200, "a stream is refused: {}", response.status());
        let mut stream = Self { body: response.into_body(), text: Vec::new() };
        ensure!(stream.next().await? == Some(true), "a stream has no first piece");
        Ok(stream)
    }

    /// Whether there was another piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<bool>> {
        let frame = timeout(SILENCE, self.body.frame()).await.context("a stream is silent")?;
        let Some(frame) = frame else { return Ok(None) };
        self.text.extend_from_slice(&frame?.into_data().unwrap_or_default());
        Ok(Some(true))
    }

    /// Reads to the end.
    pub(super) async fn end(mut self) -> Ended {
        let whole = loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break true,
                Err(_broken) => break false,
            }
        };
        let text = String::from_utf8_lossy(&self.text).into_owned();
        Ended { text, whole, at: Instant::now() }
    }
}
