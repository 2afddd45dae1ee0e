//! The URL forms of `redis_url`: one server, Sentinel, Cluster, each with or without TLS.
//!
//! ```text
//! redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]
//! redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],…/MASTER[/DATABASE]
//! redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],…
//! ```
//! `rediss` encrypts; `valkey` and `valkeys` mean the same as `redis` and `rediss`; `-` may stand
//! for `+`. Options after `?`: `sslrootcert=PATH`; for Sentinel `sentinel_user`,
//! `sentinel_password`. Invariant: what parses needs no network; no error shows a password.

use redis::cluster::ClusterClient;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionInfo, IntoConnectionInfo as _, TlsCertificates, TlsMode};

/// Why a URL was not accepted, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongUrl(String);

impl WrongUrl {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Where Redis is.
#[derive(Clone)]
pub(super) enum Address {
    /// One server.
    Single(Box<Client>),
    /// The master that Sentinels name.
    Sentinel(Box<Sentinels>),
    /// A Cluster, and its first nodes one by one, for subscriptions.
    Cluster(Box<ClusterClient>, Vec<Client>),
}

/// How to ask Sentinels.
#[derive(Clone)]
pub(super) struct Sentinels {
    nodes: Vec<ConnectionInfo>,
    master: String,
    server: ConnectionInfo,
    user: Option<String>,
    password: Option<String>,
    trust: Option<TlsCertificates>,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(url: &str) -> Result<Self, WrongUrl> {
        let parts = Parts::split(url)?;
        let trust = parts.trust()?;
        match parts.kind {
            Kind::Single => {
                let [host] = parts.hosts.as_slice() else {
                    let problem = "several hosts need redis+sentinel:// or redis+cluster://";
                    return Err(WrongUrl::new(problem));
                };
                Ok(Self::Single(Box::new(client(parts.server(host, parts.path)?, trust.as_ref())?)))
            }
            Kind::Sentinel => Ok(Self::Sentinel(Box::new(parts.sentinels(trust)?))),
            Kind::Cluster => parts.cluster(trust.as_ref()),
        }
    }

    /// `single`, `sentinel` or `cluster`.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Single(_) => "single",
            Self::Sentinel(_) => "sentinel",
            Self::Cluster(..) => "cluster",
        }
    }
}

impl Sentinels {
    /// A client that has not asked any Sentinel yet. Made anew for each connection: an old one may
    /// remember connections that are dead.
    pub(super) fn client(&self) -> redis::RedisResult<SentinelClient> {
        let addresses = self.nodes.iter().map(|node| node.addr().clone());
        let kind = SentinelServerType::Master;
        let server = self.server.redis_settings();
        let mut builder = SentinelClientBuilder::new(addresses, &self.master, kind)?
            .set_client_to_redis_db(server.db());
        if let Some(user) = server.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = server.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = &self.user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if matches!(self.server.addr(), redis::ConnectionAddr::TcpTls { .. }) {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
            if let Some(trust) = &self.trust {
                builder = builder
                    .set_client_to_redis_certificates(trust.clone())
                    .set_client_to_sentinel_certificates(trust.clone());
            }
        }
        builder.build()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

/// A URL in its parts, not decoded.
#[derive(Debug)]
struct Parts<'a> {
    kind: Kind,
    encrypted: bool,
    /// `USER:PASSWORD@`, or empty.
    login: &'a str,
    hosts: Vec<&'a str>,
    /// Without the first slash.
    path: &'a str,
    options: Vec<(&'a str, String)>,
}

impl<'a> Parts<'a> {
    fn split(url: &'a str) -> Result<Self, WrongUrl> {
        let forms = "expected redis://HOST:PORT, redis+sentinel://HOST:PORT,…/MASTER or \
                     redis+cluster://HOST:PORT,… (rediss for TLS)";
        let (scheme, rest) = url.split_once("://").ok_or_else(|| WrongUrl::new(forms))?;
        let (engine, kind) = match scheme.split_once(['+', '-']) {
            None => (scheme, Kind::Single),
            Some((engine, "sentinel")) => (engine, Kind::Sentinel),
            Some((engine, "cluster")) => (engine, Kind::Cluster),
            Some(_) => return Err(WrongUrl::new(forms)),
        };
        let encrypted = match engine {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(WrongUrl::new(forms)),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rfind('@') {
            Some(at) => authority.split_at(at + 1),
            None => ("", authority),
        };
        let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
        if hosts.iter().any(|host| host.is_empty()) {
            return Err(WrongUrl::new("a host is missing"));
        }
        let options = options(query, kind)?;
        Ok(Self { kind, encrypted, login, hosts, path: path.trim_end_matches('/'), options })
    }

    fn option(&self, name: &str) -> Option<String> {
        self.options.iter().find(|(n, _)| *n == name).map(|(_, value)| value.clone())
    }

    fn trust(&self) -> Result<Option<TlsCertificates>, WrongUrl> {
        let Some(path) = self.option("sslrootcert") else { return Ok(None) };
        if !self.encrypted {
            return Err(WrongUrl::new("sslrootcert needs rediss://"));
        }
        let pem = std::fs::read(&path)
            .map_err(|e| WrongUrl::new(format!("failed to read sslrootcert {path}: {e}")))?;
        Ok(Some(TlsCertificates { client_tls: None, root_cert: Some(pem) }))
    }

    /// One server of the URL, with the login, as the driver knows it.
    fn server(&self, host: &str, database: &str) -> Result<ConnectionInfo, WrongUrl> {
        let scheme = if self.encrypted { "rediss" } else { "redis" };
        let url = format!("{scheme}://{}{host}/{database}", self.login);
        // The driver's error may show what it read; ours may not.
        url.as_str().into_connection_info().map_err(|error| {
            let why = error.detail().map_or_else(|| error.category().to_owned(), str::to_owned);
            WrongUrl::new(format!("{host}/{database}: {why}"))
        })
    }

    fn sentinels(&self, trust: Option<TlsCertificates>) -> Result<Sentinels, WrongUrl> {
        let (master, database) = self.path.split_once('/').unwrap_or((self.path, ""));
        if master.is_empty() {
            return Err(WrongUrl::new("the name of the master is missing after the hosts"));
        }
        let nodes: Result<Vec<_>, _> =
            self.hosts.iter().map(|host| self.server(&with_port(host, 26379), "")).collect();
        let first = self.hosts.first().copied().unwrap_or_default();
        let sentinels = Sentinels {
            nodes: nodes?,
            master: decoded(master)?,
            server: self.server(first, database)?,
            user: self.option("sentinel_user"),
            password: self.option("sentinel_password"),
            trust,
        };
        sentinels.client().map_err(|error| WrongUrl::new(error.category().to_owned()))?;
        Ok(sentinels)
    }

    fn cluster(&self, trust: Option<&TlsCertificates>) -> Result<Address, WrongUrl> {
        if !matches!(self.path, "" | "0") {
            return Err(WrongUrl::new("a Cluster has no databases"));
        }
        let nodes: Result<Vec<_>, _> =
            self.hosts.iter().map(|host| self.server(host, "")).collect();
        let nodes = nodes?;
        let mut builder = ClusterClient::builder(nodes.clone());
        if let Some(trust) = trust {
            builder = builder.certs(trust.clone());
        }
        let say = |e: redis::RedisError| WrongUrl::new(e.category().to_owned());
        let cluster = builder.build().map_err(say)?;
        let each: Result<Vec<_>, _> = nodes.into_iter().map(|node| client(node, trust)).collect();
        Ok(Address::Cluster(Box::new(cluster), each?))
    }
}

fn client(server: ConnectionInfo, trust: Option<&TlsCertificates>) -> Result<Client, WrongUrl> {
    let client = match trust {
        Some(trust) => Client::build_with_tls(server, trust.clone()),
        None => Client::open(server),
    };
    client.map_err(|error| WrongUrl::new(format!("sslrootcert: {error}")))
}

/// A host with its port. An IPv6 address in brackets has colons of its own.
fn with_port(host: &str, port: u16) -> String {
    let after = host.rsplit(']').next().unwrap_or(host);
    if after.contains(':') { host.to_owned() } else { format!("{host}:{port}") }
}

fn options(query: &str, kind: Kind) -> Result<Vec<(&str, String)>, WrongUrl> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = name == "sslrootcert"
                || (kind == Kind::Sentinel
                    && ["sentinel_user", "sentinel_password"].contains(&name));
            if known && !value.is_empty() {
                Ok((name, decoded(value)?))
            } else {
                Err(WrongUrl::new(format!("unknown or empty option `{name}`")))
            }
        })
        .collect()
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, WrongUrl> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit(rest.next()), digit(rest.next()));
        let value = high.zip(low).and_then(|(h, l)| u8::try_from(h * 16 + l).ok());
        bytes.push(value.ok_or_else(|| WrongUrl::new("a % is not followed by two hex digits"))?);
    }
    String::from_utf8(bytes).map_err(|_not| WrongUrl::new("an option is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(url: &str) -> &'static str {
        match Address::parse(url) {
            Ok(address) => address.kind(),
            Err(error) => panic!("{url}: {error}"),
        }
    }

    #[test]
    fn the_scheme_chooses_the_topology() {
        for (url, expected) in [
            ("redis://h", "single"),
            ("redis://:p%40ss@h:6379/3", "single"),
            ("rediss://u:p@[::1]:6380/0", "single"),
            ("valkey://h:1", "single"),
            ("redis+sentinel://:p@a,b:26380,c/primary/2?sentinel_password=x", "sentinel"),
            ("rediss-sentinel://a/primary", "sentinel"),
            ("valkeys+cluster://u:p@a:1,b:2", "cluster"),
            ("redis-cluster://a", "cluster"),
        ] {
            assert_eq!(kind(url), expected, "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_refused_in_one_line_without_its_password() {
        for url in [
            "http://h",
            "h:6379",
            "redis://",
            "redis://:secret@",
            "redis://:secret@a,b",
            "redis://:secret@h:port",
            "redis://:secret@h/db",
            "redis://:secret@h?colour=red",
            "redis://:secret@h?sslrootcert=/nowhere.pem",
            "rediss://:secret@h?sslrootcert=/nowhere.pem",
            "redis+sentinel://:secret@h",
            "redis+cluster://:secret@h/3",
            "redis+ring://:secret@h",
        ] {
            let error = Address::parse(url).err().unwrap_or_else(|| panic!("{url}")).to_string();
            assert!(!error.contains("secret") && !error.contains('\n'), "{url}: {error}");
        }
    }
}
