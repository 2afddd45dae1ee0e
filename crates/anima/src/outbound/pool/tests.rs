//! What a pool does with its connections, seen by a server that counts them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Request;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use anima_core::failure::Failure;

use crate::outbound::{Body, Outbound, Policy, Segments};

const POLICY: Policy = Policy { private: true, connect_ms: 5_000 };

/// A server that answers each request on a connection with the next text, then closes it.
struct Server {
    address: String,
    accepted: Arc<AtomicUsize>,
    heads: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Server {
    async fn answering(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let accepted = Arc::new(AtomicUsize::new(0));
        let heads = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (count, seen) = (Arc::clone(&accepted), Arc::clone(&heads));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(stream, answers, Arc::clone(&seen)));
            }
        });
        Self { address, accepted, heads }
    }

    fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    async fn call(&self, outbound: &Outbound) -> Result<http::Response<Body>, Failure> {
        let uri = format!("http://{}/v1/x?y=1", self.address);
        let request = Request::post(uri).body(Segments::new(vec!["{}".into()])).unwrap();
        outbound.send(POLICY, request).await.map_err(|error| error.failure)
    }
}

async fn connection(
    mut stream: TcpStream,
    answers: &[&str],
    seen: Arc<parking_lot::Mutex<Vec<String>>>,
) {
    for answer in answers {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n{}") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_closed) => return,
            }
        }
        seen.lock().push(String::from_utf8(head).unwrap());
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                       3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
const UNFINISHED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok";
const LAST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";

#[tokio::test]
async fn an_answer_read_to_its_end_gives_the_connection_back() {
    let server =
        Server::answering(&[WHOLE, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", WHOLE]).await;
    let outbound = Outbound::new().unwrap();
    for expected in ["ok", "", "ok"] {
        let body = server.call(&outbound).await.unwrap().into_body();
        assert_eq!(body.collect().await.unwrap().to_bytes(), expected);
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_body_dropped_at_its_last_chunk_gives_the_connection_back() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";
    let server = Server::answering(Box::leak(Box::new([chunked, WHOLE]))).await;
    let outbound = Outbound::new().unwrap();
    let mut body = server.call(&outbound).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    drop(body);
    server.call(&outbound).await.unwrap();
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_body_dropped_in_the_middle_closes_the_connection() {
    let server = Server::answering(&[UNFINISHED, WHOLE]).await;
    let outbound = Outbound::new().unwrap();
    for n in 1..=2 {
        let mut body = server.call(&outbound).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
        drop(body);
        assert_eq!(server.accepted(), n);
    }
}

#[tokio::test]
async fn a_connection_that_the_peer_closed_is_not_used_again() {
    for answer in [WHOLE, LAST] {
        let server = Server::answering(Box::leak(Box::new([answer]))).await;
        let outbound = Outbound::new().unwrap();
        for n in 1..=20 {
            let body = server.call(&outbound).await.unwrap().into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
            assert_eq!(server.accepted(), n);
        }
    }
}

#[tokio::test]
async fn calls_at_the_same_time_have_connections_of_their_own() {
    let server = Server::answering(&[CHUNKED, CHUNKED]).await;
    let outbound = Outbound::new().unwrap();
    for _ in 0..2 {
        let (one, two) = tokio::join!(server.call(&outbound), server.call(&outbound));
        for answer in [one, two] {
            let body = answer.unwrap().into_body();
            assert_eq!(body.collect().await.unwrap().to_bytes(), "onetwo");
        }
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn the_first_line_has_the_path_and_a_header_the_host() {
    let server = Server::answering(&[WHOLE]).await;
    server.call(&Outbound::new().unwrap()).await.unwrap();
    let heads = server.heads.lock();
    assert!(heads[0].starts_with("POST /v1/x?y=1 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].contains(&format!("\r\nhost: {}\r\n", server.address)), "{heads:?}");
    assert!(heads[0].contains("\r\ncontent-length: 2\r\n"), "{heads:?}");
}

#[tokio::test]
async fn nobody_listening_is_a_failure_to_connect_and_a_hang_up_a_lost_connection() {
    let outbound = Outbound::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let nobody = Server { address, accepted: Arc::default(), heads: Arc::default() };
    assert_eq!(nobody.call(&outbound).await.unwrap_err(), Failure::ConnectFailed);
    let server = Server::answering(&[""]).await;
    assert_eq!(server.call(&outbound).await.unwrap_err(), Failure::ConnectionLost);
}
