//! Everything that a scenario acts on: nodes, stores, provider, rows, clients.
//!
//! Not what is done to it. Invariant: after [`World::heal`] every node serves, over stores that
//! nothing stands before, with the settings that it began with.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::limits::Kept;
use super::load::{Lane, Load};
use super::plan::Plan;
use super::routing::Day;
use super::stores::Stores;
use super::table::Line;
use crate::books;
use crate::fleet::{Fleet, Kit};
use crate::http_client::{Ask, whole};
use crate::money::{COST, SALE};
use crate::operator::{ADMIN_TOKEN, Admin, Key, price, text};
use crate::provider::Provider;
use crate::run::verify;
use crate::seed::Seed;

/// How long nodes may take to serve again after anything.
const HEAL_WITHIN: Duration = Duration::from_mins(1);

/// How long holds may stay open when all is over.
const QUIET_WITHIN: Duration = Duration::from_mins(1);

/// The app that pays for everything, and what it has: more than any run spends.
pub(crate) const APP: &str = "acme";
const CREDIT: &str = "100000.00";

/// The provider's model behind the alias `chat`: quick, and not so quick that nothing ever runs.
const QUICK: &str = "sim-chat+answer-tokens:6+latency:5";

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) scratch: PathBuf,
    pub(crate) seed: Seed,
    pub(crate) stores: Stores,
    pub(crate) fleet: Fleet,
    pub(crate) provider: Provider,
    /// A key of [`APP`].
    pub(crate) key: Key,
    /// What is known of a day of failing providers.
    pub(crate) day: Day,
    /// What is known of calls under limits.
    pub(crate) kept: Kept,
}

impl World {
    /// Starts everything, with the rows that every scenario uses: the channel `main` and the alias
    /// `chat` on it, prices, the app with credit and its key.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn start(plan: &Plan, scratch: &Path) -> Result<Self> {
        let provider = Provider::start(&plan.program, scratch).await?;
        let stores = Stores::start(plan, scratch).await?;
        let kit = Kit {
            program: plan.program.clone(),
            scratch: scratch.to_path_buf(),
            database_url: stores.database.database_url(),
            environment: vec![("ANIMA_REDIS_URL", stores.redis_url())],
        };
        let mut fleet = Fleet::plan(kit, plan.nodes)?;
        for n in 0..plan.nodes {
            fleet.launch(n)?;
            fleet.ready(n).await?;
        }
        let admin = Admin { node: fleet.address(0)? };
        channel(&admin, "main", provider.address).await?;
        alias(&admin, "chat", &[("main", QUICK)]).await?;
        admin.create("/apps", &json!({"code": APP, "name": APP})).await?;
        admin.create(&format!("/apps/{APP}/topups"), &json!({"amount": CREDIT})).await?;
        let key = mint(&admin, &json!({"name": "chaos"})).await?;
        let (plan, scratch) = (plan.clone(), scratch.to_path_buf());
        let seed = Seed::fork(plan.seed, "chaos");
        let day = Day::default();
        let kept = Kept::default();
        Ok(Self { plan, scratch, seed, stores, fleet, provider, key, day, kept })
    }

    /// The admin API of one node; they are taken in turn, so that every node is asked.
    ///
    /// # Errors
    /// When there is no node.
    pub(crate) fn admin(&self, turn: usize) -> Result<Admin> {
        Ok(Admin { node: self.fleet.address(turn % self.plan.nodes)? })
    }

    /// Where each node listens.
    pub(crate) fn nodes(&self) -> Vec<SocketAddr> {
        self.fleet.addresses()
    }

    /// Clients at the plan's rate, on all nodes.
    pub(crate) fn load(&self, lanes: Vec<Lane>) -> Load {
        Load::start(self.nodes(), lanes, self.plan.calls_per_second)
    }

    /// A page of one node's actuator, whatever its status.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(crate) async fn page(&self, n: usize, path: &str) -> Result<(u16, String)> {
        let ask = Ask {
            address: self.fleet.address(n)?,
            method: Method::GET,
            path: path.to_owned(),
            token: ADMIN_TOKEN.to_owned(),
            body: String::new(),
            idempotency_key: None,
        };
        let answer = tokio::time::timeout(Duration::from_secs(10), whole(&ask)).await??;
        Ok((answer.status, String::from_utf8_lossy(&answer.body).into_owned()))
    }

    /// The revision of the configuration that a node has in force.
    ///
    /// # Errors
    /// When the node does not answer.
    pub(crate) async fn revision(&self, n: usize) -> Result<i64> {
        let (_, page) = self.page(n, "/actuator/info").await?;
        let page: Value = serde_json::from_str(&page)?;
        page.pointer("/config/version").and_then(Value::as_i64).context("no config.version")
    }

    /// Ends every node in order and starts all of them again, told this beside the usual.
    ///
    /// # Errors
    /// When one does not come back.
    pub(crate) async fn restart(&mut self, more: &[(&'static str, &str)]) -> Result<()> {
        self.fleet.end().await?;
        self.tell(more);
        for n in 0..self.plan.nodes {
            self.fleet.launch(n)?;
        }
        for n in 0..self.plan.nodes {
            self.fleet.ready(n).await?;
        }
        Ok(())
    }

    /// What nodes are told that are started from here on, beside the usual.
    pub(crate) fn tell(&mut self, more: &[(&'static str, &str)]) {
        let mut environment = vec![("ANIMA_REDIS_URL", self.stores.redis_url())];
        environment.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self.fleet.tell(environment);
    }

    /// Mends whatever a scenario broke.
    ///
    /// # Errors
    /// When a node does not serve again.
    pub(crate) async fn heal(&mut self) -> Result<()> {
        self.stores.heal().await?;
        self.tell(&[]);
        self.fleet.revive().await?;
        for n in 0..self.plan.nodes {
            self.fleet.serves(n, HEAL_WITHIN).await?;
            self.until_well(n).await?;
        }
        Ok(())
    }

    /// Waits until a node says that nothing is down.
    async fn until_well(&self, n: usize) -> Result<()> {
        let until = Instant::now() + HEAL_WITHIN;
        loop {
            let (_, page) = self.page(n, "/actuator/health").await?;
            let page: Value = serde_json::from_str(&page)?;
            if page.get("degraded").is_none_or(Value::is_null) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("node {n} stays degraded: {page}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until no hold is open, ends all nodes, and has the books verified.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub(crate) async fn end(&mut self) -> Result<Vec<Line>> {
        let open = self.settled().await?;
        let forced = self.fleet.end().await?;
        let breaches = self.verify().await?;
        Ok(vec![
            Line::check("at the end: no hold is open", open == 0, &format!("{open} open")),
            Line::check(
                "at the end: nodes end when asked",
                forced == 0,
                &format!("{forced} forced"),
            ),
            Line::check("at the end: `anima ledger verify` is clean", breaches.is_empty(), &{
                if breaches.is_empty() { "clean".to_owned() } else { breaches.join("; ") }
            }),
        ])
    }

    /// How many holds are open, after waiting for all to be closed.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub(crate) async fn settled(&self) -> Result<i64> {
        let until = Instant::now() + QUIET_WITHIN;
        loop {
            let open = books::open_holds(&self.stores.database).await?;
            if open == 0 || Instant::now() > until {
                return Ok(open);
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// What `anima ledger verify` finds.
    ///
    /// # Errors
    /// When it cannot run.
    pub(crate) async fn verify(&self) -> Result<Vec<String>> {
        let (kit, folder) = (self.fleet.kit().clone(), self.scratch.join("node-0"));
        // Elsewhere, since the proxy that it goes through lives here.
        tokio::task::spawn_blocking(move || verify(&kit, &folder)).await?
    }
}

/// A billed call, by alias.
pub(crate) fn chat(alias: &str, key: &Key) -> Lane {
    let messages = json!([{"role": "user", "content": "Say something, please."}]);
    Lane {
        method: Method::POST,
        path: "/v1/chat/completions".to_owned(),
        token: key.secret.clone(),
        body: json!({"model": alias, "max_tokens": 50, "messages": messages}).to_string(),
    }
}

/// A read: the list of models.
pub(crate) fn models(key: &Key) -> Lane {
    Lane {
        method: Method::GET,
        path: "/v1/models".to_owned(),
        token: key.secret.clone(),
        body: String::new(),
    }
}

/// Makes a channel to the simulated provider, whose breaker never acts by itself.
///
/// # Errors
/// When the admin API refuses it.
pub(crate) async fn channel(admin: &Admin, code: &str, provider: SocketAddr) -> Result<Value> {
    let row = json!({
        "code": code, "provider": "openai_compatible",
        "base_url": format!("http://{provider}/v1"),
        "credentials": [{"code": "only", "secret": format!("sk-{code}")}],
        "allow_private_network": true,
        "breaker": {"consecutive_failures": 0, "minimum_calls": 100_000},
    });
    admin.create("/channels", &row).await
}

/// Makes an alias with its routes, first choice first, and the prices that it needs.
///
/// # Errors
/// When the admin API refuses it.
pub(crate) async fn alias(admin: &Admin, code: &str, routes: &[(&str, &str)]) -> Result<()> {
    let rows: Vec<Value> = routes
        .iter()
        .zip((1..=routes.len()).rev())
        .map(|((channel, model), n)| json!({"channel": channel, "model": model, "priority": n}))
        .collect();
    admin.create("/aliases", &json!({"code": code, "kind": "chat", "routes": rows})).await?;
    let sale = json!({"code": format!("sale-{code}"), "side": "sale", "alias": code});
    admin.create("/prices", &price(&SALE, sale)).await?;
    for (n, (channel, model)) in routes.iter().enumerate() {
        let code = format!("cost-{code}-{n}");
        let of = json!({"code": code, "side": "cost", "channel": channel, "model": model});
        admin.create("/prices", &price(&COST, of)).await?;
    }
    Ok(())
}

/// Makes a key of [`APP`].
///
/// # Errors
/// When the admin API refuses it.
pub(crate) async fn mint(admin: &Admin, body: &Value) -> Result<Key> {
    let key = admin.create(&format!("/apps/{APP}/keys"), body).await?;
    Ok(Key { kid: text(&key, "kid")?, secret: text(&key, "secret")? })
}

/// Where a key of [`APP`] is in the admin API.
pub(crate) fn path_of(key: &Key) -> String {
    format!("/apps/{APP}/keys/{}", key.kid)
}
