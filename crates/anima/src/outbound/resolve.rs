//! Names into addresses, judged before anything connects to them.
//!
//! Invariant: what is returned may be reached under the policy; the connection goes to exactly
//! these addresses, so a name that resolves differently a moment later changes nothing
//! (`reliability` 7.2).

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::IpNet;
use tower::Service;

use super::{FORBIDDEN, is_public};

/// Which addresses may be reached.
#[derive(Debug, Clone)]
pub(super) enum Reach {
    /// All.
    Anywhere,
    /// Public ones.
    Public,
    /// Public ones, and these.
    PublicAnd(Arc<[IpNet]>),
    /// These.
    Only(Arc<[IpNet]>),
}

impl Reach {
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        let listed = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address.to_canonical()));
        match self {
            Self::Anywhere => true,
            Self::Public => is_public(address),
            Self::PublicAnd(nets) => is_public(address) || listed(nets),
            Self::Only(nets) => listed(nets),
        }
    }
}

/// Resolves a name and keeps only the addresses that may be reached.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    pub(super) reach: Reach,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.reach.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One private address among public ones is how a rebinding name looks: refuse it whole.
            if found.iter().any(|a| !reach.allows(a.ip())) {
                let text = format!("{}: {FORBIDDEN}", name.as_str());
                return Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text));
            }
            Ok(found.into_iter())
        })
    }
}
