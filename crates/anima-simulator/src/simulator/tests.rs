//! The server over real sockets: framing, cuts, resets, silences, leaving, control, shutdown.
//!
//! Time is either paused, so that waits pass as soon as nothing else can happen, or never waited
//! for. Ports are chosen by the system.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::script::Endpoint;

struct Running {
    simulator: Arc<Simulator>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start(script: &str) -> Running {
    let script = Script::from_json(script.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let simulator = Arc::new(Simulator::new(script));
    let (stop, stopped) = oneshot::channel();
    let server = tokio::spawn(Arc::clone(&simulator).serve(listener, async {
        stopped.await.unwrap_or_default();
    }));
    Running { simulator, address, stop, server }
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn chat(model: &str, stream: bool) -> Vec<u8> {
    let mut body = json!({"model": model, "messages": [{"content": "8 bytes."}], "stream": stream});
    if stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    let headers = "x-anima-attempt-id: att_1\r\nx-anima-request-id: req_1\r\n\
                   authorization: Bearer sk-secret-tail\r\n";
    request("POST", "/v1/chat/completions", headers, &body.to_string())
}

async fn connect(running: &Running, request: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream
}

/// Reads until the text holds `end`.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if text.contains(end) {
            return text;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "closed after {text}");
    }
}

/// Reads until the connection is closed.
async fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Waits until the only call has this outcome.
async fn outcome(simulator: &Simulator, wanted: Outcome) -> Call {
    loop {
        if let Some(call) = simulator.calls().pop().filter(|call| call.outcome == wanted) {
            return call;
        }
        tokio::task::yield_now().await;
    }
}

/// Sends one control request on a connection of its own.
async fn control(running: &Running, method: &str, path: &str, body: &str) -> (u16, Value) {
    let request = request(method, path, "connection: close\r\n", body);
    let text = read_all(connect(running, &request).await).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn content_chunks(text: &str) -> usize {
    text.matches("\"delta\":{\"content\":").count()
}

#[tokio::test]
async fn two_calls_on_one_connection_are_answered_and_logged() {
    let running = start(r#"{"defaults": {"answer_tokens": 3}}"#).await;
    let mut stream = connect(&running, &chat("sim-chat", false)).await;
    let first = read_until(&mut stream, "fp_simulator\"}").await;
    stream.write_all(&chat("gpt-4o", false)).await.unwrap();
    let second = read_until(&mut stream, "fp_simulator\"}").await;
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n") && second.starts_with("HTTP/1.1 200 OK\r\n"));
    let calls = running.simulator.calls();
    assert_eq!(calls.len(), 2);
    assert!(first.contains(&format!("x-request-id: {}\r\n", calls[0].id)));
    assert!(first.contains(&format!("\"id\":\"chatcmpl-{}\"", calls[0].id)));
    let call = &calls[0];
    assert_eq!((call.number, call.status, call.outcome), (1, Some(200), Outcome::Answered));
    assert_eq!(
        (call.endpoint, call.model.as_str(), call.stream),
        (Endpoint::Chat, "sim-chat", false)
    );
    assert_eq!(call.attempt_id.as_deref(), Some("att_1"));
    assert_eq!(call.request_id.as_deref(), Some("req_1"));
    assert_eq!(call.key_tail.as_deref(), Some("tail"));
    assert_eq!((call.billed.prompt_tokens, call.billed.completion_tokens), (6, 3));
    assert_eq!(call.reported.unwrap().total_tokens, 9);
    assert!(!call.caller_left);
}

#[tokio::test(start_paused = true)]
async fn a_paced_stream_arrives_whole_and_takes_its_time() {
    let running = start(r#"{"defaults": {"answer_tokens": 4}}"#).await;
    let begun = Instant::now();
    let mut stream = connect(&running, &chat("fault:pace:1000+latency:500", true)).await;
    let text = read_until(&mut stream, "\r\n0\r\n\r\n").await;
    assert_eq!(begun.elapsed().as_millis(), 3500);
    assert!(text.contains("transfer-encoding: chunked\r\n"));
    assert!(text.contains("content-type: text/event-stream; charset=utf-8\r\n"));
    assert!(text.contains("data: [DONE]\n\n"));
    assert_eq!(content_chunks(&text), 4);
    let call = &running.simulator.calls()[0];
    assert_eq!((call.chunks, call.billed.completion_tokens), (4, 4));
    assert_eq!(call.outcome, Outcome::Answered);
    assert_eq!(call.reported.unwrap().completion_tokens, 4);
}

#[tokio::test]
async fn a_cut_stream_is_closed_without_its_end() {
    let running = start("{}").await;
    for (fault, chunks) in [("cut-stream:3", 3), ("cut-stream:0", 0)] {
        running.simulator.clear_calls();
        let stream = connect(&running, &chat(&format!("fault:{fault}"), true)).await;
        let text = read_all(stream).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert_eq!(content_chunks(&text), chunks);
        assert!(!text.contains("[DONE]") && !text.ends_with("0\r\n\r\n"));
        let call = running.simulator.calls().remove(0);
        assert_eq!((call.outcome, call.caller_left), (Outcome::Cut, false));
        assert_eq!(call.billed.completion_tokens, chunks as u64);
        assert_eq!(call.reported, None);
    }
}

#[tokio::test]
async fn a_body_may_be_shorter_than_it_declares() {
    let running = start("{}").await;
    let text = read_all(connect(&running, &chat("fault:content-length", false)).await).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len() + 64)), "{head}");
    assert_eq!(running.simulator.calls()[0].outcome, Outcome::Cut);
}

#[tokio::test]
async fn a_reset_comes_before_any_byte() {
    let running = start("{}").await;
    let mut stream = connect(&running, &chat("fault:reset", false)).await;
    let error = stream.read(&mut [0; 16]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let call = &running.simulator.calls()[0];
    assert_eq!((call.outcome, call.status), (Outcome::Reset, None));
}

#[tokio::test(start_paused = true)]
async fn a_silent_provider_waits_for_the_caller_to_leave() {
    let running = start("{}").await;
    let mut stream = connect(&running, &chat("fault:silent", false)).await;
    let call = outcome(&running.simulator, Outcome::Silent).await;
    assert_eq!((call.caller_left, call.status), (false, None));
    let nothing = timeout(Duration::from_hours(1), stream.read(&mut [0; 16])).await;
    assert!(nothing.is_err());
    drop(stream);
    running.simulator.idle().await;
    let call = &running.simulator.calls()[0];
    assert_eq!((call.outcome, call.caller_left), (Outcome::Silent, true));
    assert_eq!(call.billed.prompt_tokens, 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_at_the_gate_until_it_is_opened_after_it_came() {
    let running = start("{}").await;
    running.simulator.open_gate();
    for stream in [false, true] {
        let mut waiting = connect(&running, &chat("fault:gate", stream)).await;
        let mut bytes = Vec::new();
        let read = timeout(Duration::from_hours(1), waiting.read_to_end(&mut bytes)).await;
        assert!(read.is_err());
        assert_eq!(content_chunks(&String::from_utf8(bytes).unwrap()), if stream { 16 } else { 0 });
        running.simulator.open_gate();
        let answered = outcome(&running.simulator, Outcome::Answered).await;
        assert_eq!(answered.stream, stream);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_stops_after_its_chunks_and_stays_open() {
    let running = start("{}").await;
    let mut stream = connect(&running, &chat("fault:silent-stream:2", true)).await;
    outcome(&running.simulator, Outcome::Silent).await;
    let mut bytes = Vec::new();
    let read = timeout(Duration::from_hours(1), stream.read_to_end(&mut bytes)).await;
    assert!(read.is_err());
    assert_eq!(content_chunks(&String::from_utf8(bytes).unwrap()), 2);
    drop(stream);
    running.simulator.idle().await;
    let call = &running.simulator.calls()[0];
    assert_eq!((call.outcome, call.caller_left, call.chunks), (Outcome::Silent, true, 2));
    assert_eq!((call.billed.prompt_tokens, call.billed.completion_tokens), (6, 2));
}

#[tokio::test]
async fn a_caller_that_leaves_is_noticed_and_billed_for_what_it_got() {
    let running = start("{}").await;
    let mut stream = connect(&running, &chat("fault:pace:3600000", true)).await;
    let text = read_until(&mut stream, "\"delta\":{\"content\":").await;
    assert_eq!(content_chunks(&text), 1);
    drop(stream);
    running.simulator.idle().await;
    let call = &running.simulator.calls()[0];
    assert_eq!((call.outcome, call.caller_left, call.chunks), (Outcome::Left, true, 1));
    assert_eq!((call.billed.prompt_tokens, call.billed.completion_tokens), (6, 1));
}

#[tokio::test]
async fn a_caller_that_leaves_before_a_json_answer_still_pays() {
    let running = start(r#"{"defaults": {"answer_tokens": 5}}"#).await;
    let stream = connect(&running, &chat("fault:latency:3600000", false)).await;
    outcome(&running.simulator, Outcome::Open).await;
    drop(stream);
    running.simulator.idle().await;
    let call = &running.simulator.calls()[0];
    assert_eq!((call.outcome, call.billed.completion_tokens), (Outcome::Left, 5));
    assert_eq!(call.reported, None);
}

#[tokio::test]
async fn a_shutdown_stops_open_calls_and_returns() {
    let running = start("{}").await;
    let stream = connect(&running, &chat("fault:latency:3600000", true)).await;
    outcome(&running.simulator, Outcome::Open).await;
    running.stop.send(()).unwrap();
    running.server.await.unwrap();
    let call = &running.simulator.calls()[0];
    assert_eq!((call.outcome, call.caller_left), (Outcome::Stopped, false));
    assert_eq!(read_all(stream).await, "");
}

#[tokio::test]
async fn the_script_and_the_log_are_steered_over_http() {
    let running = start("{}").await;
    let health = json!({"status": "ok", "calls": 0, "lost_entries": 0});
    assert_eq!(control(&running, "GET", "/_simulator/health", "").await, (200, health));
    let script = r#"{"seed": 5, "rules": [{"match": {"times": 1}, "do": {"status": 503}}]}"#;
    let (status, shown) = control(&running, "PUT", "/_simulator/script", script).await;
    assert_eq!((status, &shown["rules"][0]["do"]), (200, &json!("status:503")));
    assert_eq!(control(&running, "GET", "/_simulator/script", "").await, (200, shown));
    let mut stream = connect(&running, &chat("any", false)).await;
    read_until(&mut stream, "server_is_overloaded").await;
    stream.write_all(&chat("any", false)).await.unwrap();
    read_until(&mut stream, "fp_simulator\"}").await;

    let (_, calls) = control(&running, "GET", "/_simulator/calls", "").await;
    assert_eq!(calls.as_array().unwrap().len(), 2);
    assert_eq!((&calls[0]["status"], &calls[0]["rule"]), (&json!(503), &json!(0)));
    assert_eq!(
        (&calls[0]["outcome"], &calls[1]["outcome"]),
        (&json!("refused"), &json!("answered"))
    );
    let (_, later) = control(&running, "GET", "/_simulator/calls?after=1&limit=9", "").await;
    assert_eq!(later.as_array().unwrap()[..], calls.as_array().unwrap()[1..]);
    assert_eq!(control(&running, "DELETE", "/_simulator/calls", "").await, (204, Value::Null));
    assert_eq!(control(&running, "GET", "/_simulator/calls", "").await, (200, json!([])));
}

#[tokio::test]
async fn wrong_control_requests_are_refused_and_change_nothing() {
    let running = start(r#"{"seed": 3}"#).await;
    for (method, path, body, status, message) in [
        ("PUT", "/_simulator/script", r#"{"sed": 1}"#, 400, "unknown field `sed`"),
        ("POST", "/_simulator/script", "", 405, "Not allowed to POST on script."),
        ("GET", "/_simulator/calls?since=1", "", 400, "Only after=N and limit=N"),
        ("GET", "/_simulator/other", "", 404, "The simulator has no other."),
    ] {
        let (found, error) = control(&running, method, path, body).await;
        assert_eq!(found, status);
        assert!(error["error"]["message"].as_str().unwrap().contains(message), "{error}");
    }
    assert_eq!(running.simulator.script().seed, 3);
    assert_eq!(running.simulator.calls(), []);
}

#[tokio::test]
async fn a_caller_learns_what_became_of_its_call() {
    let running = start("{}").await;
    let look_up = async |id: &str| control(&running, "GET", &format!("/v1/calls/{id}"), "").await;
    assert_eq!(look_up("att_1").await.1["state"], "unknown");
    let mut stream = connect(&running, &chat("sim-chat+chunks:4+latency:50", true)).await;
    let open = outcome(&running.simulator, Outcome::Open).await;
    assert_eq!(look_up("att_1").await.1["state"], "running");
    read_until(&mut stream, "[DONE]").await;
    let ended = outcome(&running.simulator, Outcome::Answered).await;
    for id in ["att_1", "req_1", open.id.as_str()] {
        let (status, found) = look_up(id).await;
        assert_eq!((status, &found["state"], &found["id"]), (200, &json!("finished"), &json!(id)));
        let call = &found["calls"][0];
        assert_eq!((&call["attempt_id"], &call["status"]), (&json!("att_1"), &json!(200)));
        let used = &call["usage"];
        assert_eq!(used["prompt_tokens"], ended.billed.prompt_tokens);
        assert_eq!(used["completion_tokens"], ended.billed.completion_tokens);
    }
    assert_eq!(running.simulator.calls().len(), 1, "a look-up is no call");
}

#[tokio::test]
async fn unknown_is_never_said_of_what_was_forgotten() {
    let running = start(r#"{"api_keys": ["sk-secret-tail"]}"#).await;
    let mut stream = connect(&running, &chat("sim-chat", false)).await;
    read_until(&mut stream, "fp_simulator\"}").await;
    let (status, _) = control(&running, "GET", "/v1/calls/att_1", "").await;
    assert_eq!(status, 401);
    running.simulator.clear_calls();
    let look_up = request("GET", "/v1/calls/att_1", "authorization: Bearer sk-secret-tail\r\n", "");
    let mut stream = connect(&running, &look_up).await;
    assert!(read_until(&mut stream, "}}").await.starts_with("HTTP/1.1 410"));
}

#[tokio::test]
async fn simulators_live_side_by_side() {
    let (one, two) = (start(r#"{"seed": 1}"#).await, start(r#"{"seed": 2}"#).await);
    for running in [&one, &two] {
        let mut stream = connect(running, &chat("sim-chat", false)).await;
        read_until(&mut stream, "fp_simulator\"}").await;
    }
    assert_ne!(one.simulator.calls()[0].id, two.simulator.calls()[0].id);
    assert_eq!((one.simulator.calls().len(), two.simulator.calls().len()), (1, 1));
}

#[tokio::test]
async fn http_2_is_spoken_when_the_caller_knows() {
    let running = start("{}").await;
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let body = r#"{"model": "sim-chat", "messages": [{"content": "x"}], "stream": true}"#;
    let request = Request::post(format!("http://{}/v1/chat/completions", running.address))
        .body(http_body_util::Full::new(Bytes::from(body)))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    assert!(bytes.ends_with(b"data: [DONE]\n\n"));
    drop(sender);
    connection.await.unwrap().unwrap();
}
