//! What can be measured, and how a request reaches it.
//!
//! All targets get the same bodies: the gateway's aliases are named like the upstream's models,
//! so nginx and the gateway move the same bytes.
//! Invariant: a target names the process whose CPU and memory are its own.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};

/// A way to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// No proxy.
    Direct,
    /// nginx as a plain proxy, one worker.
    Nginx,
    /// The gateway without billing.
    Unbilled,
    /// The gateway with billing on SQLite, `synchronous=FULL`.
    Sqlite,
    /// The gateway with billing on PostgreSQL, as it comes.
    Postgres,
}

impl Kind {
    /// In the order in which tables show them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Direct, Self::Nginx, Self::Unbilled, Self::Sqlite, Self::Postgres];

    /// For the command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Unbilled => "off",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }

    /// For a reader.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Nginx => "nginx",
            Self::Unbilled => "Anima, billing off",
            Self::Sqlite => "Anima, SQLite FULL",
            Self::Postgres => "Anima, PostgreSQL",
        }
    }

    /// Reads `direct,nginx,…`; `direct` is always there, for comparison.
    ///
    /// # Errors
    /// For an unknown word.
    pub(crate) fn parse_list(list: &str) -> Result<Vec<Self>> {
        let mut kinds = vec![Self::Direct];
        for word in list.split(',') {
            match Self::ALL.into_iter().find(|kind| kind.word() == word) {
                Some(kind) => kinds.push(kind),
                None => bail!("unknown target {word}; known: direct, nginx, off, sqlite, postgres"),
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        Ok(kinds)
    }
}

/// A running target.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Which.
    pub(crate) kind: Kind,
    /// Where its HTTP port is.
    pub(crate) address: SocketAddr,
    /// What stands before `/chat/completions`.
    pub(crate) prefix: String,
    /// The same for streams, which nginx is told to treat differently.
    pub(crate) stream_prefix: String,
    /// The bearer token.
    pub(crate) key: String,
    /// The process, with its children; `None` for no proxy.
    pub(crate) process: Option<u32>,
}

impl Target {
    /// With the same prefix for streams.
    pub(crate) fn new(kind: Kind, address: SocketAddr, prefix: &str, key: &str) -> Self {
        let (prefix, key) = (prefix.to_owned(), key.to_owned());
        Self { kind, address, stream_prefix: prefix.clone(), prefix, key, process: None }
    }

    /// The bytes of a chat request with this JSON body.
    pub(crate) fn chat(&self, body: &str, streamed: bool) -> Vec<u8> {
        let prefix = if streamed { &self.stream_prefix } else { &self.prefix };
        post(self.address, &format!("{prefix}/chat/completions"), &self.key, body)
    }
}

/// The bytes of a JSON request.
pub(crate) fn post(address: SocketAddr, path: &str, key: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\naccept: */*\r\nuser-agent: anima-bench\r\n\
         content-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Takes `http://127.0.0.1:8080/v1` apart: address and path.
///
/// # Errors
/// For anything but plain HTTP on a literal address with a port.
pub(crate) fn split_url(url: &str) -> Result<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://").with_context(|| format!("not plain HTTP: {url}"))?;
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| {
        (host, format!("/{}", path.trim_end_matches('/')))
    });
    let host = host.replace("localhost", "127.0.0.1");
    Ok((host.parse().with_context(|| format!("no address in {url}"))?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_an_address_and_a_path() {
        let (address, path) = split_url("http://127.0.0.1:80/v1/").unwrap();
        assert_eq!((address.port(), path.as_str()), (80, "/v1"));
        assert!(split_url("https://127.0.0.1:80").is_err());
    }
}
