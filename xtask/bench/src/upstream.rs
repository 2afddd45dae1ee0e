//! The upstream as a process of its own: the simulated provider with the benchmark's answer.
//!
//! Its address is the first line that it prints. It has no faults here; its CPU is not counted.
//! Invariant: an answer is about 600 bytes as JSON and exactly 50 content chunks as a stream.

use std::future;
use std::sync::Arc;

use anima_simulator::{Behaviour, Script, Simulator};
use anyhow::{Context, Result};
use tokio::net::TcpListener;

/// Content chunks of a streamed answer.
pub(crate) const CHUNKS: u32 = 50;

/// Milliseconds between the chunks of [`PACED`]: slow enough that each is a write of its own.
pub(crate) const PACE_MS: u32 = 2;

/// The model whose streams come chunk by chunk; those of all others come at once.
pub(crate) const PACED: &str = "bench-paced";

/// As many words with their spaces; with its frame, the JSON body is then about 600 bytes.
fn answer() -> String {
    format!("answer-tokens:{CHUNKS}+chunks:{CHUNKS}")
}

fn script() -> Result<Script> {
    let pace = format!("pace:{PACE_MS}");
    let rules = serde_json::json!([{"match": {"model": PACED}, "do": pace}]);
    let rules = serde_json::from_value(rules).context("failed to write the script")?;
    let defaults = Behaviour::parse(&answer())?;
    Ok(Script { defaults, rules, ..Script::default() })
}

/// Runs until it is stopped.
///
/// # Errors
/// When no port can be had.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("failed to listen")?;
    println!("{}", listener.local_addr().context("failed to read the address")?);
    Arc::new(Simulator::new(script()?)).serve(listener, future::pending()).await;
    Ok(())
}
