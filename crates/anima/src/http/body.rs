//! A request's body, bounded in size and time.
//!
//! Invariant: at most the allowed bytes are ever held, whatever `content-length` claims, and a body
//! that never ends is given up on.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use anima_core::failure::Failure;

use super::reply::Refusal;

/// Reads a body whole, without copying when it comes in one piece.
///
/// # Errors
/// [`Failure::BodyTooLarge`], [`Failure::BodyTimeout`], or [`Failure::ClientGone`] when it breaks
/// off.
pub async fn read(body: Body, bytes_max: usize, within: Duration) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("The request body is larger than {bytes_max} bytes. Send less.");
        Refusal::new(Failure::BodyTooLarge, message)
    };
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_large());
    }
    let announced = usize::try_from(announced).unwrap_or(0);
    match tokio::time::timeout(within, gather(body, bytes_max, announced)).await {
        Ok(Gathered::Whole(bytes)) => Ok(bytes),
        Ok(Gathered::TooLarge) => Err(too_large()),
        Ok(Gathered::Broken) => {
            Err(Refusal::new(Failure::ClientGone, "The request body broke off."))
        }
        Err(_elapsed) => {
            let message = format!("The request body did not arrive within {} s.", within.as_secs());
            Err(Refusal::new(Failure::BodyTimeout, message))
        }
    }
}

enum Gathered {
    Whole(Bytes),
    TooLarge,
    Broken,
}

async fn gather(mut body: Body, bytes_max: usize, announced: usize) -> Gathered {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Gathered::Broken;
        };
        let Ok(chunk) = frame.into_data() else {
            continue;
        };
        if first.is_empty() && joined.is_empty() {
            first = chunk;
        } else {
            if joined.is_empty() {
                // The announced size is within bounds here; it only saves growing step by step.
                joined.reserve(announced.max(first.len() + chunk.len()));
                joined.extend_from_slice(&first);
            }
            joined.extend_from_slice(&chunk);
        }
        if first.len().max(joined.len()) > bytes_max {
            return Gathered::TooLarge;
        }
    }
    Gathered::Whole(if joined.is_empty() { first } else { joined.freeze() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_large_body_is_refused_while_it_comes() {
        let pieces = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 1024]))
        });
        let endless = Body::from_stream(pieces);
        let refusal = read(endless, 10_000, Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(refusal.failure, Failure::BodyTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up_on() {
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let refusal =
            read(Body::from_stream(silent), 10_000, Duration::from_mins(1)).await.unwrap_err();
        assert_eq!(refusal.failure, Failure::BodyTimeout);
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order() {
        let pieces = futures_util::stream::iter(
            ["ab", "cd", "e"].map(|p| Ok::<_, std::io::Error>(Bytes::from(p))),
        );
        let body = read(Body::from_stream(pieces), 5, Duration::from_secs(1)).await.unwrap();
        assert_eq!(body, "abcde");
    }
}
