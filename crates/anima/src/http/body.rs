//! A request's body, bounded in size and time, alone and together with all others.
//!
//! Invariant: at most the allowed bytes are ever held, whatever `content-length` claims, and a body
//! that never ends is given up on. What a body takes of the node's [`Room`] comes back when the
//! last slice of it is dropped, whoever holds it until then: an attempt, a queue, a stored answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use anima_core::failure::Failure;

use super::reply::Refusal;

/// Bodies up to this size take no room: ten thousand connections with one each are 160 MiB.
const SMALL: usize = 16 * 1024;

/// Room is counted in these.
const UNIT: usize = 1024;

/// What the large bodies of a node may take together.
#[derive(Debug, Clone)]
pub struct Room {
    units: Arc<Semaphore>,
}

impl Room {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units)) }
    }

    /// Takes more, so that `taken` stands for `bytes`. `false` when there is no more.
    fn cover(&self, taken: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let wanted = if bytes > SMALL { bytes.div_ceil(UNIT) } else { 0 };
        let more =
            wanted.saturating_sub(taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        if more == 0 {
            return true;
        }
        let Ok(more) = u32::try_from(more) else { return false };
        let Ok(permit) = Arc::clone(&self.units).try_acquire_many_owned(more) else {
            return false;
        };
        match taken {
            Some(taken) => taken.merge(permit),
            none => *none = Some(permit),
        }
        true
    }
}

/// A body and the room that it takes.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a body whole, without copying when it comes in one piece.
///
/// # Errors
/// [`Failure::BodyTooLarge`], [`Failure::BodyTimeout`], [`Failure::ServiceUnavailable`] when the
/// bodies of other calls take all room, or [`Failure::ClientGone`] when it breaks off.
pub async fn read(
    body: Body,
    bytes_max: usize,
    within: Duration,
    room: &Room,
) -> Result<Bytes, Refusal> {
    let too_large = || {
        let message = format!("The request body is larger than {bytes_max} bytes. Send less.");
        Refusal::new(Failure::BodyTooLarge, message)
    };
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(too_large());
    }
    let announced = usize::try_from(announced).unwrap_or(0);
    match tokio::time::timeout(within, gather(body, bytes_max, announced, room)).await {
        Ok(Gathered::Whole(bytes)) => Ok(bytes),
        Ok(Gathered::TooLarge) => Err(too_large()),
        Ok(Gathered::NoRoom) => {
            let message = "Too many large requests are being served. Try again shortly.";
            Err(Refusal::new(Failure::ServiceUnavailable, message).retry_after(1_000))
        }
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
    NoRoom,
    Broken,
}

async fn gather(mut body: Body, bytes_max: usize, announced: usize, room: &Room) -> Gathered {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    let mut taken = None;
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
        let length = first.len().max(joined.len());
        if length > bytes_max {
            return Gathered::TooLarge;
        }
        if !room.cover(&mut taken, length) {
            return Gathered::NoRoom;
        }
    }
    let bytes = if joined.is_empty() { first } else { joined.freeze() };
    Gathered::Whole(match taken {
        Some(room) => Bytes::from_owner(Held { bytes, _room: room }),
        None => bytes,
    })
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
        let refusal =
            read(endless, 10_000, Duration::from_mins(1), &Room::new(0)).await.unwrap_err();
        assert_eq!(refusal.failure, Failure::BodyTooLarge);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up_on() {
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        let refusal =
            read(Body::from_stream(silent), 10_000, Duration::from_mins(1), &Room::new(0))
                .await
                .unwrap_err();
        assert_eq!(refusal.failure, Failure::BodyTimeout);
    }

    #[tokio::test]
    async fn pieces_are_joined_in_order() {
        let pieces = futures_util::stream::iter(
            ["ab", "cd", "e"].map(|p| Ok::<_, std::io::Error>(Bytes::from(p))),
        );
        let body = read(Body::from_stream(pieces), 5, Duration::from_secs(1), &Room::new(0))
            .await
            .unwrap();
        assert_eq!(body, "abcde");
    }

    #[tokio::test]
    async fn large_bodies_share_the_room_and_give_it_back_with_their_last_slice() {
        let room = Room::new(40 * UNIT);
        let large = async || {
            let pieces = (0..30).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[7; UNIT])));
            let body = Body::from_stream(futures_util::stream::iter(pieces));
            read(body, 100 * UNIT, Duration::from_secs(1), &room).await
        };
        let first = large().await.unwrap();
        assert_eq!(first.len(), 30 * UNIT);
        let refusal = large().await.unwrap_err();
        assert_eq!(refusal.failure, Failure::ServiceUnavailable);
        let small = read(Body::from("small"), 9, Duration::from_secs(1), &room).await;
        assert_eq!(small.unwrap(), "small", "what is small needs no room");
        let slice = first.slice(3..4);
        drop(first);
        assert!(large().await.is_err());
        drop(slice);
        assert!(large().await.is_ok());
        assert_eq!(room.units.available_permits(), 40);
    }
}
