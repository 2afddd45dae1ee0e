//! Connections that misbehave, over real sockets and paused time.

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";

/// A server of one route; it ends with the test.
async fn server(router: Router, connections_max: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let graceful = GracefulShutdown::new();
        let never = std::future::pending();
        accept_all(listener, router, never, (&graceful, connections_max)).await;
    });
    address
}

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

async fn answered(stream: &mut TcpStream) -> bool {
    let mut text = [0; 1024];
    let read = stream.read(&mut text).await.unwrap();
    text[..read].starts_with(b"HTTP/1.1 200")
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_whole_request_head_is_closed() {
    let address = server(hello(), CONNECTIONS_MAX).await;
    for sent in ["", "P", "PRI * HTTP", "G", "GET / HTTP/1.1\r\nhost"] {
        let start = Instant::now();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(start.elapsed() <= HEADER_TIMEOUT * 2, "{sent:?}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_for_nothing_more_outlives_those_of_proxies_and_is_closed() {
    let address = server(hello(), CONNECTIONS_MAX).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    assert!(answered(&mut stream).await);
    let start = Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!((70..90).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_connection_more_than_allowed_waits_for_another_to_end() {
    let address = server(hello(), 1).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(REQUEST).await.unwrap();
    assert!(answered(&mut first).await);
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(REQUEST).await.unwrap();
    assert!(timeout(Duration::from_secs(1), answered(&mut second)).await.is_err());
    drop(first);
    assert!(answered(&mut second).await);
}

/// An answer without an end, and the sign that it was dropped.
struct Endless(
    #[expect(dead_code, reason = "dropped with the body")] tokio::sync::oneshot::Sender<()>,
);

impl http_body::Body for Endless {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        let chunk = bytes::Bytes::from_static(&[b'a'; 16 * 1024]);
        std::task::Poll::Ready(Some(Ok(http_body::Frame::data(chunk))))
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_dropped() {
    let (sender, dropped) = tokio::sync::oneshot::channel();
    let body = Arc::new(std::sync::Mutex::new(Some(Endless(sender))));
    let route = get(async move || axum::body::Body::new(body.lock().unwrap().take().unwrap()));
    let address = server(Router::new().route("/", route), CONNECTIONS_MAX).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let start = Instant::now();
    stream.write_all(REQUEST).await.unwrap();
    assert!(dropped.await.is_err());
    assert!((WRITE_TIMEOUT..WRITE_TIMEOUT * 2).contains(&start.elapsed()));
}
