//! `anima quickstart`: everything on the embedded default, with a call that works as pasted.
//!
//! Starts the simulated provider in this process, and on the first start creates a channel,
//! aliases, prices, an app with credit and a key, through the same functions as the admin API.
//! Invariant: a second start on the same data finds all of it again and prints the same keys; it
//! never adds credit twice.

use std::net::SocketAddr;
use std::sync::Arc;

use anima_simulator::{Script, Simulator};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::boot::{self, Node};
use crate::settings::{Flags, Settings};

use super::{Exit, prepare, process, say};

mod rows; // what the first start creates
mod seed; // providers whose keys are in the environment

/// Quickstart's options.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Print one JSON object with URLs and keys as the first line, when ready to serve.
    #[arg(long)]
    json: bool,
}

/// What the first start made, kept in the data directory for the next one. Readable by its owner
/// only.
#[derive(Serialize, Deserialize)]
struct Kept {
    api_key: Zeroizing<String>,
    admin_token: Zeroizing<String>,
    simulator_port: u16,
}

/// The file in the data directory.
const KEPT_FILE: &str = "quickstart.json";

/// Serves until a signal.
pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let (settings, _log) = prepare(&args.flags)?;
    process::run(settings.worker_threads, async {
        let shutdown = process::shutdown()?;
        let node = boot::node(&settings).await.map_err(Exit::Usage)?;
        if !node.is_open() {
            let why = "setting `database_url`: the database does not answer";
            return Err(Exit::Usage(why.to_owned()));
        }
        let listener = process::listen(settings.listen).await?;
        let address = listener.local_addr().map_err(|e| Exit::Failed(e.to_string()))?;
        // The simulated provider goes last: calls that run during the shutdown still need it.
        let provider = CancellationToken::new();
        let kept = prepare_rows(&node, &settings, provider.clone()).await?;
        // Every row is in place before anybody is told the address.
        print(address, &kept, args.json)?;
        node.serve(listener, shutdown).await;
        provider.cancel();
        Ok(())
    })
}

async fn prepare_rows(
    node: &Node,
    settings: &Settings,
    shutdown: CancellationToken,
) -> Result<Kept, Exit> {
    let path = settings.data_dir.join(KEPT_FILE);
    let before: Option<Kept> = match boot::read_secret(&path) {
        Ok(text) => serde_json::from_str(&text).ok(),
        Err(_absent) => None,
    };
    let wanted = before.as_ref().map_or(0, |k| k.simulator_port);
    let port = simulator(wanted, shutdown).await?;
    rows::simulated(&node.admin, port).await.map_err(Exit::Failed)?;
    seed::providers(&node.admin).await.map_err(Exit::Failed)?;
    rows::app(&node.admin).await.map_err(Exit::Failed)?;
    let minted = boot::ensure_admin_token(node, settings).await.map_err(Exit::Failed)?;
    let given = settings.admin_token.given().map(|t| Zeroizing::new(t.to_owned()));
    let kept_token = before.as_ref().map(|k| k.admin_token.clone());
    let admin_token = match given.or(minted) {
        Some(token) => token,
        None => rows::admin_token(&node.admin, kept_token).await.map_err(Exit::Failed)?,
    };
    let kept_key = before.as_ref().map(|k| k.api_key.clone());
    let api_key = rows::key(&node.admin, kept_key).await.map_err(Exit::Failed)?;
    let kept = Kept { api_key, admin_token, simulator_port: port };
    keep(&path, &kept)?;
    Ok(kept)
}

/// Replaces the file as a whole, so that a crash leaves the old or the new one.
fn keep(path: &std::path::Path, kept: &Kept) -> Result<(), Exit> {
    let failed = |e: String| Exit::Failed(format!("{}: {e}", path.display()));
    let text = serde_json::to_string_pretty(kept).map_err(|e| failed(e.to_string()))?;
    let fresh = path.with_extension("json.new");
    if fresh.exists() {
        std::fs::remove_file(&fresh).map_err(|e| failed(e.to_string()))?;
    }
    boot::write_secret(&fresh, &text).map_err(Exit::Failed)?;
    std::fs::rename(&fresh, path).map_err(|e| failed(e.to_string()))
}

/// Starts the simulated provider, on the port of the last start if it is still free.
async fn simulator(wanted: u16, shutdown: CancellationToken) -> Result<u16, Exit> {
    let failed = |e: std::io::Error| Exit::Failed(format!("the simulated provider: {e}"));
    let listener = match TcpListener::bind(("127.0.0.1", wanted)).await {
        Ok(listener) => listener,
        Err(_taken) => TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?,
    };
    let port = listener.local_addr().map_err(failed)?.port();
    let simulator = Arc::new(Simulator::new(Script::default()));
    tokio::spawn(simulator.serve(listener, async move { shutdown.cancelled().await }));
    Ok(port)
}

fn print(address: SocketAddr, kept: &Kept, json: bool) -> Result<(), Exit> {
    let (key, token) = (kept.api_key.as_str(), kept.admin_token.as_str());
    // A wildcard address is no place to send a request to.
    let host = if address.ip().is_unspecified() {
        format!("127.0.0.1:{}", address.port())
    } else {
        address.to_string()
    };
    if json {
        return say(&serde_json::json!({
            "base_url": format!("http://{host}/v1"),
            "api_key": key,
            "admin_url": format!("http://{host}/api/admin/v1"),
            "admin_token": token,
            "console_url": format!("http://{host}/"),
        }));
    }
    let body = serde_json::json!({
        "model": rows::CHAT_ALIAS, "messages": [{"role": "user", "content": "Hello"}],
    });
    let app = rows::APP;
    say(&format_args!(
        "Anima serves on http://{host}, with the simulated provider behind it.

  base URL     http://{host}/v1
  API key      {key}
  admin API    http://{host}/api/admin/v1
  admin token  {token}
  metrics      http://{host}/actuator/prometheus

Try it:

  curl http://{host}/v1/chat/completions \\
    -H 'authorization: Bearer {key}' -H 'content-type: application/json' \\
    -d '{body}'

  curl -H 'authorization: Bearer {token}' \\
    http://{host}/api/admin/v1/apps/{app}/balance
"
    ))
}
