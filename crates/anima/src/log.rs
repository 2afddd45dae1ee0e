//! Structured logs: one JSON object a line on standard error, written in batches.
//!
//! A line is put into a buffer; a thread writes the buffer out every [`FLUSH_EVERY`] or when it is
//! large, so a request pays no system call for its line. Invariant: the buffer is bounded; when
//! standard error stalls, lines are dropped and counted, and requests never wait. What may be
//! logged: `docs/logging.md`; never a prompt, an answer or a secret.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How long a line may wait.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// The thread is woken early at this size.
const FLUSH_BYTES: usize = 64 * 1024;
/// Lines beyond this are dropped.
const BUFFER_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Default)]
struct State {
    pending: Vec<u8>,
    dropped: u64,
    closing: bool,
}

#[derive(Debug, Default)]
struct Buffer {
    state: Mutex<State>,
    ready: Condvar,
}

/// Writes what is left when dropped. Keep it until the process ends.
#[derive(Debug)]
pub struct Guard {
    buffer: Arc<Buffer>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.buffer.state.lock().closing = true;
        self.buffer.ready.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log writer panicked");
        }
    }
}

/// Puts the subscriber in place.
///
/// # Errors
/// A wrong filter, or a second call in one process.
pub fn start(filter: &str) -> Result<Guard, String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("setting `log`: {e}"))?;
    let buffer = Arc::new(Buffer::default());
    let shared = Arc::clone(&buffer);
    let thread = std::thread::Builder::new()
        .name("anima-log".into())
        .spawn(move || drain(&shared))
        .map_err(|e| format!("failed to start the log writer: {e}"))?;
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
        .with_env_filter(filter)
        .with_writer(Writer(Arc::clone(&buffer)))
        .try_init()
        .map_err(|e| e.to_string())?;
    Ok(Guard { buffer, thread: Some(thread) })
}

fn drain(buffer: &Buffer) {
    let mut batch = Vec::new();
    loop {
        let (dropped, closing) = {
            let mut state = buffer.state.lock();
            if state.pending.len() < FLUSH_BYTES && !state.closing {
                buffer.ready.wait_for(&mut state, FLUSH_EVERY);
            }
            std::mem::swap(&mut batch, &mut state.pending);
            (std::mem::take(&mut state.dropped), state.closing)
        };
        if dropped > 0 {
            let message = r#""level":"WARN","message":"log lines dropped""#;
            batch.extend(format!("{{{message},\"count\":{dropped}}}\n").bytes());
        }
        // Nothing can be done about a broken standard error, and serving must go on without it.
        drop(io::stderr().write_all(&batch));
        let quiet = batch.is_empty();
        batch.clear();
        if closing && quiet {
            return;
        }
    }
}

#[derive(Debug, Clone)]
struct Writer(Arc<Buffer>);

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Writer {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.state.lock();
        if state.pending.len() + line.len() > BUFFER_BYTES_MAX {
            state.dropped += 1;
        } else {
            state.pending.extend_from_slice(line);
        }
        let full = state.pending.len() >= FLUSH_BYTES;
        drop(state);
        if full {
            self.0.ready.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
