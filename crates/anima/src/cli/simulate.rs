//! `anima simulate`: the simulated provider as a server of its own.
//!
//! Reads no settings of the gateway, only its own options. What the provider does is
//! `anima-simulator`'s; see `docs/simulator.md`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anima_simulator::{LogSettings, Script, Simulator};

use super::{Exit, process, say};

/// The simulated provider's options.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// A JSON file of rules and defaults; see docs/simulator.md.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// Append the truth log to this file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Calls kept in memory.
    #[arg(long, value_name = "CALLS")]
    log_cap: Option<usize>,
    /// Keep no truth log, for benchmarks.
    #[arg(long)]
    no_log: bool,
    /// Threads that serve; 0 is one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

/// Serves until a signal.
pub(super) fn run(args: &Args) -> Result<(), Exit> {
    let script = match &args.script {
        Some(path) => read(path)?,
        None => Script::default(),
    };
    let mut log = LogSettings { enabled: !args.no_log, ..LogSettings::default() };
    log.file.clone_from(&args.log_file);
    if let Some(cap) = args.log_cap {
        log.cap = cap;
    }
    let simulator = Simulator::with_log(script, log)
        .map_err(|e| Exit::Usage(format!("option --log-file: {e}")))?;
    process::run(args.threads, async {
        let shutdown = process::shutdown()?;
        let listener = process::listen(args.listen).await?;
        let address = listener.local_addr().map_err(|e| Exit::Failed(e.to_string()))?;
        say(&format_args!("The simulated provider listens on http://{address}/v1"))?;
        Arc::new(simulator).serve(listener, async move { shutdown.cancelled().await }).await;
        Ok(())
    })
}

fn read(path: &PathBuf) -> Result<Script, Exit> {
    let wrong = |e: String| Exit::Usage(format!("option --script: {}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    Script::from_json(&text).map_err(|e| wrong(e.to_string()))
}
