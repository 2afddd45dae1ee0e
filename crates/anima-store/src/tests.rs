//! Databases for tests, thrown away with the value that stands for them.
//!
//! PostgreSQL is the server of `ANIMA_TEST_POSTGRES_URL`, whose user may create databases; each
//! test has one of its own. Without that variable its tests say so and pass, unless
//! `ANIMA_TEST_REQUIRE_POSTGRES=1`. Tests only.

use std::sync::atomic::{AtomicU32, Ordering};

use anima_simulator::proxy::Proxy;
use tokio_postgres::NoTls;
use tokio_postgres::config::Host;

pub(crate) mod redis_servers; // Sentinel and Cluster, of a test's own

/// An empty PostgreSQL database. Dropped with the value, whatever still uses it.
#[derive(Debug)]
pub(crate) struct Scratch {
    server: String,
    name: String,
}

impl Scratch {
    /// Where it is.
    pub(crate) fn url(&self) -> String {
        let (head, _) = self.server.rsplit_once('/').unwrap();
        format!("{head}/{}", self.name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            runtime.unwrap().block_on(execute(&server, &[&statement]));
        });
        if dropped.join().is_err() {
            eprintln!("the scratch database {} could not be dropped", self.name);
        }
    }
}

/// Makes an empty database. `None` when there is no server to make it on.
pub(crate) async fn postgres() -> Option<Scratch> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let Some(server) = variable("ANIMA_TEST_POSTGRES_URL") else {
        let required = variable("ANIMA_TEST_REQUIRE_POSTGRES").as_deref() == Some("1");
        assert!(!required, "ANIMA_TEST_POSTGRES_URL is not set");
        eprintln!("skipped: ANIMA_TEST_POSTGRES_URL is not set");
        return None;
    };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("anima_test_{}_{count}", std::process::id());
    let left_over = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    execute(&server, &[&left_over, &format!("CREATE DATABASE {name}")]).await;
    Some(Scratch { server, name })
}

/// A proxy in front of its server, and the URL that leads through it.
pub(crate) async fn behind_proxy(scratch: &Scratch) -> (Proxy, String) {
    let config: tokio_postgres::Config = scratch.url().parse().unwrap();
    let ([Host::Tcp(host)], [port]) = (config.get_hosts(), config.get_ports()) else {
        panic!("one server by TCP")
    };
    let server = tokio::net::lookup_host((host.as_str(), *port)).await.unwrap().next();
    let proxy = Proxy::start(server.unwrap()).await.unwrap();
    let there = scratch.url().replace(&format!("{host}:{port}"), &proxy.address().to_string());
    (proxy, there)
}

async fn execute(server: &str, statements: &[&str]) {
    let (client, connection) = tokio_postgres::connect(server, NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    for statement in statements {
        client.batch_execute(statement).await.unwrap();
    }
    drop(client);
    driver.await.unwrap().unwrap();
}

#[expect(clippy::disallowed_methods, reason = "tests take the server's address from outside")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The server of `ANIMA_TEST_REDIS_URL`, as URL and prefix of this test alone. `None` when there is
/// no server.
pub(crate) fn redis() -> Option<(String, String)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let Some(url) = variable("ANIMA_TEST_REDIS_URL") else {
        eprintln!("skipped: ANIMA_TEST_REDIS_URL is not set");
        return None;
    };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Some((url, format!("anima_test_{}_{count}", std::process::id())))
}

/// A proxy before that server, and the URL that leads through it. `None` too where it is not one
/// server: there is no way through a proxy to those that a Sentinel or a Cluster names.
pub(crate) async fn redis_proxy() -> Option<(Proxy, String, String)> {
    let (url, prefix) = redis()?;
    let (start, rest) = url.split_once("://").unwrap();
    if start.contains('+') {
        eprintln!("skipped: {start} cannot be reached through a proxy");
        return None;
    }
    let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, host) =
        host.rsplit_once('@').map_or((String::new(), host), |(l, h)| (format!("{l}@"), h));
    let server = tokio::net::lookup_host(host).await.unwrap().next().unwrap();
    let proxy = Proxy::start(server).await.unwrap();
    let through = format!("{start}://{login}{}/{database}", proxy.address());
    Some((proxy, through, prefix))
}
