//! Structured logs: one JSON object a line on standard error, written in batches.
//!
//! A line is put into a buffer; a thread writes the buffer out every [`FLUSH_EVERY`] or when it is
//! large, so a request pays no system call for its line. Invariant: the buffer is bounded; when
//! standard error stalls, lines are dropped and counted, and requests never wait. What may be
//! logged: `docs/logging.md`; never a prompt, an answer or a secret.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer as Text;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// How long a line may wait.
const FLUSH_EVERY: Duration = Duration::from_millis(50);
/// The thread is woken early at this size.
const FLUSH_BYTES: usize = 64 * 1024;
/// What the line of a request has room in.
const LINE_BYTES: usize = 768;
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
        .event_format(Line)
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

/// An event as a line of JSON. The subscriber's own formatter costs a request four times as much.
#[derive(Debug)]
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut text: Text<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        text.write_str("{\"timestamp\":\"")?;
        SystemTime.format_time(&mut text)?;
        text.write_str("\",\"level\":\"")?;
        text.write_str(event.metadata().level().as_str())?;
        text.write_char('"')?;
        let mut members = Members(Vec::with_capacity(LINE_BYTES));
        event.record(&mut members);
        members.0.extend_from_slice(b"}\n");
        text.write_str(str::from_utf8(&members.0).map_err(|_not_text| fmt::Error)?)
    }
}

/// The fields of an event, each after a comma.
struct Members(Vec<u8>);

impl Members {
    /// The value is one that can be written.
    fn add(&mut self, field: &Field, value: impl serde::Serialize) {
        self.0.extend_from_slice(b",\"");
        // Names are identifiers, raw ones too: nothing in them is to be escaped.
        let name = field.name();
        self.0.extend_from_slice(name.strip_prefix("r#").unwrap_or(name).as_bytes());
        self.0.extend_from_slice(b"\":");
        if serde_json::to_writer(&mut self.0, &value).is_err() {
            self.0.extend_from_slice(b"null");
        }
    }
}

impl Visit for Members {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lines(say: impl FnOnce()) -> Vec<Value> {
        let buffer = Arc::new(Buffer::default());
        let subscriber = tracing_subscriber::fmt()
            .event_format(Line)
            .with_writer(Writer(Arc::clone(&buffer)))
            .finish();
        tracing::subscriber::with_default(subscriber, say);
        let written = std::mem::take(&mut buffer.state.lock().pending);
        let text = String::from_utf8(written).unwrap();
        assert!(text.ends_with('\n'), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn an_event_is_a_line_of_json_with_its_fields() {
        let said = lines(|| {
            let (limit, absent) = (Some(7_u64), None::<u64>);
            let error = io::Error::other("no \"way\"\n");
            let id = "req_1";
            tracing::warn!(
                id, %error, r#type = "t\u{1}", count = -3_i64, ratio = 0.5, is = true, limit,
                absent, debug = ?Some("x"), "said {}", "\u{e9}"
            );
        });
        let [line] = &said[..] else { panic!("{said:?}") };
        let at = line["timestamp"].as_str().unwrap();
        assert!(at.ends_with('Z') && at.len() == "2026-01-01T00:00:00.000000Z".len(), "{at}");
        let mut expected = json!({
            "level": "WARN", "message": "said \u{e9}", "id": "req_1", "error": "no \"way\"\n",
            "type": "t\u{1}", "count": -3, "ratio": 0.5, "is": true, "limit": 7,
            "debug": "Some(\"x\")",
        });
        expected["timestamp"] = line["timestamp"].clone();
        assert_eq!(*line, expected);
    }

    #[test]
    fn what_cannot_be_a_number_is_null() {
        let said = lines(|| tracing::info!(ratio = f64::NAN, "m"));
        assert_eq!(said[0]["ratio"], Value::Null);
    }
}
