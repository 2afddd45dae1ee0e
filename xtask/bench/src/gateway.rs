//! The gateway as a process, set up through its admin API as an operator would do it.
//!
//! `anima quickstart --json` on an empty data directory, then a channel to the benchmark's
//! upstream, prices for both sides, an alias named like the upstream's model, and an app with
//! credit and a key.
//! Invariant: nothing here is special to a benchmark but the amount of credit.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::process::Process;
use crate::scenario::MODEL;
use crate::target::{Kind, Target, post, split_url};
use crate::upstream::PACED;

/// Starts one of the three gateways.
///
/// # Errors
/// When it does not start, or its admin API refuses something.
pub(crate) async fn start(
    kind: Kind,
    program: &Path,
    upstream: SocketAddr,
    scratch: &Path,
    postgres: Option<&str>,
) -> Result<(Process, Target)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("failed to find a free port")?;
    let address = listener.local_addr().context("failed to read the port")?;
    drop(listener);
    let mut command = Command::new(program);
    command.args(["quickstart", "--json", "--listen", &address.to_string()]);
    command.arg("--data-dir").arg(scratch.join(kind.word()));
    for vendor in ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"] {
        command.env_remove(vendor);
    }
    match kind {
        Kind::Unbilled => command.env("ANIMA_BILLING", "off"),
        Kind::Sqlite => command.env_remove("ANIMA_DATABASE_URL"),
        Kind::Postgres => {
            let url =
                postgres.context("ANIMA_TEST_POSTGRES_URL is not set: use cargo xtask bench")?;
            command.env("ANIMA_DATABASE_URL", url)
        }
        Kind::Direct | Kind::Nginx => bail!("not a gateway"),
    };
    let log = scratch.join(format!("{}.log", kind.word()));
    let mut process = Process::start(&mut command, &log)?;
    let line = process.first_line().with_context(|| {
        format!("the gateway said: {}", std::fs::read_to_string(&log).unwrap_or_default())
    })?;
    let said: Value = serde_json::from_str(&line).context("the first line is not JSON")?;
    let key = set_up(&said, upstream).await.context("failed to set the gateway up")?;
    let (address, prefix) = split_url(text(&said, "base_url")?)?;
    let mut target = Target::new(kind, address, &prefix, &key);
    target.process = Some(process.id());
    Ok((process, target))
}

/// Gives the new key.
async fn set_up(said: &Value, upstream: SocketAddr) -> Result<String> {
    let mut admin = Admin::connect(text(said, "admin_url")?, text(said, "admin_token")?).await?;
    admin.create("/channels", &channel(upstream)).await?;
    for model in [MODEL, PACED] {
        let (cost, sale) = (format!("cost-{model}"), format!("sale-{model}"));
        let bought = json!({"channel": "bench", "model": model});
        let route = json!({"channel": "bench", "model": model, "priority": 1, "weight": 1});
        let alias = json!({"code": model, "kind": "chat", "routes": [route]});
        admin.create("/aliases", &alias).await?;
        admin.create("/prices", &price(&cost, bought)).await?;
        admin.create("/prices", &price(&sale, json!({"alias": model}))).await?;
    }
    let group = json!({"code": "bench", "aliases": ["*"], "multiplier": "1"});
    admin.create("/token-groups", &group).await?;
    let app = json!({"code": "bench", "name": "Benchmark", "currency": "USD",
        "token_group": "bench"});
    admin.create("/apps", &app).await?;
    let credit = json!({"amount": "1000000.00", "reference": "benchmark"});
    admin.create("/apps/bench/topups", &credit).await?;
    let key = admin.create("/apps/bench/keys", &json!({"name": "bench"})).await?;
    Ok(text(&key, "secret")?.to_owned())
}

fn channel(upstream: SocketAddr) -> Value {
    json!({
        "code": "bench",
        "provider": "openai_compatible",
        "base_url": format!("http://{upstream}/v1"),
        "credentials": [{"code": "only", "secret": "sk-upstream"}],
        "allow_private_network": true,
    })
}

/// The side is told by what the price is for.
fn price(code: &str, mut of: Value) -> Value {
    let side = if of.get("channel").is_some() { "cost" } else { "sale" };
    let meters = json!([
        {"meter": "input_tokens", "per": 1_000_000, "amount": "2.50"},
        {"meter": "output_tokens", "per": 1_000_000, "amount": "10.00"},
    ]);
    if let Some(members) = of.as_object_mut() {
        members.insert("code".to_owned(), code.into());
        members.insert("side".to_owned(), side.into());
        members.insert("currency".to_owned(), "USD".into());
        members.insert("meters".to_owned(), meters);
    }
    of
}

fn text<'a>(object: &'a Value, member: &str) -> Result<&'a str> {
    object.get(member).and_then(Value::as_str).with_context(|| format!("no `{member}`"))
}

/// A connection to the admin API.
struct Admin {
    connection: Connection,
    address: SocketAddr,
    prefix: String,
    token: String,
}

impl Admin {
    async fn connect(url: &str, token: &str) -> Result<Self> {
        let (address, prefix) = split_url(url)?;
        let connection = Connection::open(address).await.context("failed to connect")?;
        Ok(Self { connection, address, prefix, token: token.to_owned() })
    }

    async fn create(&mut self, path: &str, row: &Value) -> Result<Value> {
        let path = format!("{}{path}", self.prefix);
        let request = post(self.address, &path, &self.token, &row.to_string());
        // Only the top-up needs the key; the others ignore it.
        let request = with_idempotency(&request, &path);
        let mut body = Vec::new();
        let exchange = self.connection.exchange(&request, |bytes| body.extend_from_slice(bytes));
        let status = exchange.await.with_context(|| format!("POST {path} got no answer"))?;
        let said = String::from_utf8_lossy(&body);
        ensure!((200..300).contains(&status), "POST {path} was answered {status}: {said}");
        serde_json::from_slice(&body).with_context(|| format!("POST {path} did not answer JSON"))
    }
}

fn with_idempotency(request: &[u8], path: &str) -> Vec<u8> {
    let at = crate::connection::find(request, b"\r\n").unwrap_or(0);
    let (first, rest) = request.split_at(at);
    let header = format!("\r\nidempotency-key: bench{}", path.replace('/', "-"));
    [first, header.as_bytes(), rest].concat()
}
