//! To addresses that callers name: webhooks.
//!
//! Unlike a channel, a caller is not trusted: only public addresses are reached, and those that the
//! operator lists in `outbound_allow_private`; plain HTTP goes to the latter alone. Redirects are
//! not followed, no credential is sent, and of the answer nothing but its status is looked at.
//! Invariant: the address that was judged is the address that is connected to (SPEC 13).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};

use anima_core::failure::Failure;

use super::resolve::Reach;
use super::{Outbound, Segments, SendError, refuse_literal};

/// For name, TCP and TLS.
const CONNECT_MS: u32 = 5_000;
/// For all of it: a receiver should note the message and answer.
const WITHIN: Duration = Duration::from_secs(15);

/// Sends a request to an address that a caller named, and gives the status of the answer. Its
/// connection is not used again: it belongs to nobody whom we know.
///
/// # Errors
/// As [`Outbound::send`], and [`Failure::FirstByteTimeout`].
pub async fn deliver(
    outbound: &Outbound,
    request: Request<Bytes>,
) -> Result<StatusCode, SendError> {
    let reach = reach_of(outbound, request.uri());
    refuse_literal(request.uri(), &reach)?;
    let request = request.map(|body| Segments::new(vec![body]));
    let pool = outbound.pool_to(reach, CONNECT_MS);
    match tokio::time::timeout(WITHIN, pool.send(request)).await {
        Ok(Ok(response)) => Ok(response.status()),
        Ok(Err(error)) => Err(error.into()),
        Err(_elapsed) => {
            let detail = format!("no answer within {} s", WITHIN.as_secs());
            Err(SendError { failure: Failure::FirstByteTimeout, detail })
        }
    }
}

/// Whether a caller may name this address, as far as that shows before names are resolved.
///
/// # Errors
/// Why not, in words for the caller.
pub fn may_deliver(outbound: &Outbound, uri: &Uri) -> Result<(), &'static str> {
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if !outbound.allowed.is_empty() => {}
        _ => return Err("must begin with https://"),
    }
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') || uri.host().is_none_or(str::is_empty) {
        return Err("must name a host, and no user");
    }
    let judged = refuse_literal(uri, &reach_of(outbound, uri));
    judged.map_err(|_refused| "must lead to a public address")
}

fn reach_of(outbound: &Outbound, uri: &Uri) -> Reach {
    let allowed = Arc::clone(&outbound.allowed);
    if uri.scheme_str() == Some("https") { Reach::PublicAnd(allowed) } else { Reach::Only(allowed) }
}

#[cfg(test)]
mod tests {
    use super::super::FORBIDDEN;
    use super::*;

    fn refused(allowed: &[&str], url: &str) -> Option<&'static str> {
        let nets: Vec<_> = allowed.iter().map(|net| net.parse().unwrap()).collect();
        let outbound = Outbound::allowing(&nets).unwrap();
        may_deliver(&outbound, &url.parse().unwrap()).err()
    }

    #[test]
    fn a_caller_names_public_addresses_over_https() {
        assert_eq!(refused(&[], "https://example.com/hook?x=1"), None);
        for url in [
            "http://example.com/",
            "ftp://example.com/",
            "/hook",
            "https://user:secret@example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://10.0.0.1:8443/",
        ] {
            assert!(refused(&[], url).is_some(), "{url}");
        }
    }

    #[test]
    fn what_the_operator_lists_may_be_private_and_plain() {
        let nets = ["127.0.0.0/8"];
        assert_eq!(refused(&nets, "http://127.0.0.1:9000/"), None);
        assert_eq!(refused(&nets, "https://127.0.0.1:9000/"), None);
        assert!(refused(&nets, "http://8.8.8.8/").is_some(), "plain only where it is listed");
        assert!(refused(&nets, "https://10.0.0.1/").is_some());
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_refused_when_it_is_resolved() {
        let outbound = Outbound::new().unwrap();
        let request = Request::post("https://localhost:9/").body(Bytes::new()).unwrap();
        let error = deliver(&outbound, request).await.unwrap_err();
        assert_eq!(error.failure, Failure::AddressForbidden);
        assert!(error.detail.contains(FORBIDDEN));
    }
}
