//! Four channels of one provider, each behind a wire of its own, and aliases over them.
//!
//! Not what happens on it. A channel fails by the provider's script (what it answers) or by its
//! wire (whether anything arrives). Invariant: the models' names tell the channels apart in the
//! truth log.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use anima_simulator::Call;
use anima_simulator::proxy::{Mode, Proxy};

use crate::chaos::load::Lane;
use crate::chaos::world::{World, chat};
use crate::http_client::{Ask, whole};
use crate::money::{COST, SALE};
use crate::operator::{Admin, price};

/// What a node waits for, at most: short, so that a stall is over soon.
const FIRST_BYTE_MS: u64 = 800;

/// How a channel fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The provider does this, in the words of its script.
    Does(&'static str),
    /// Its wire does this.
    Wire(Mode),
}

/// One channel.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) code: String,
    /// Its model at the provider, without options.
    pub(super) model: String,
    wire: Proxy,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) channels: Vec<Place>,
    name: &'static str,
    provider: SocketAddr,
    admin: Admin,
}

impl Stage {
    /// Makes the four channels, `<name>-a` to `<name>-d`, with these settings of their breakers.
    ///
    /// # Errors
    /// When the admin API refuses one.
    pub(super) async fn make(world: &World, name: &'static str, breaker: &Value) -> Result<Self> {
        let admin = world.admin(0)?;
        let mut channels = Vec::new();
        for letter in ["a", "b", "c", "d"] {
            let code = format!("{name}-{letter}");
            let wire = Proxy::start(world.provider.address).await?;
            let row = json!({
                "code": code, "provider": "openai_compatible",
                "base_url": format!("http://{}/v1", wire.address()),
                "credentials": [{"code": "only", "secret": format!("sk-{code}")}],
                "allow_private_network": true,
                "breaker": breaker,
                "timeouts": {"connect_ms": 500, "first_byte_ms": FIRST_BYTE_MS, "idle_ms": 800,
                    "total_ms": 4_000},
            });
            admin.create("/channels", &row).await?;
            let model = format!("sim-{code}");
            let of = json!({"code": format!("cost-{code}"), "side": "cost", "channel": code,
                "model": upstream(&model)});
            admin.create("/prices", &price(&COST, of)).await?;
            channels.push(Place { code, model, wire });
        }
        Ok(Self { channels, name, provider: world.provider.address, admin })
    }

    /// Makes an alias over some of them, first choice first; all equal when `flat`.
    ///
    /// # Errors
    /// When the admin API refuses it.
    pub(super) async fn alias(
        &self,
        suffix: &str,
        (routes, flat): (&[usize], bool),
        retry: &Value,
    ) -> Result<String> {
        let code = format!("{}{suffix}", self.name);
        let mut rows = Vec::new();
        for (n, at) in routes.iter().enumerate() {
            let place = self.at(*at)?;
            let priority = if flat { 0 } else { routes.len() - n };
            rows.push(json!({"channel": place.code, "model": upstream(&place.model),
                "priority": priority}));
        }
        let row = json!({"code": code, "kind": "chat", "routes": rows, "retry": retry});
        self.admin.create("/aliases", &row).await?;
        let sale = json!({"code": format!("sale-{code}"), "side": "sale", "alias": code});
        self.admin.create("/prices", &price(&SALE, sale)).await?;
        Ok(code)
    }

    /// One channel.
    ///
    /// # Errors
    /// When there is no such.
    pub(super) fn at(&self, n: usize) -> Result<&Place> {
        self.channels.get(n).context("there is no such channel")
    }

    /// Breaks these channels, and mends all others.
    ///
    /// # Errors
    /// When the provider does not take the script.
    pub(super) async fn set(&self, faults: &[(usize, Fault)]) -> Result<()> {
        let mut rules = Vec::new();
        for (n, place) in self.channels.iter().enumerate() {
            let of = faults.iter().find(|(at, _)| *at == n).map(|(_, fault)| *fault);
            place.wire.set(if let Some(Fault::Wire(mode)) = of { mode } else { Mode::Open });
            if let Some(Fault::Does(what)) = of {
                rules.push(json!({"match": {"model": format!("{}*", place.model)}, "do": what}));
            }
        }
        self.script(&rules).await
    }

    /// Gives the provider rules of one's own; they count from the beginning.
    ///
    /// # Errors
    /// When it does not take them.
    pub(super) async fn script(&self, rules: &[Value]) -> Result<()> {
        let ask = Ask {
            address: self.provider,
            method: Method::PUT,
            path: "/_simulator/script".to_owned(),
            token: String::new(),
            body: json!({"rules": rules}).to_string(),
            idempotency_key: None,
        };
        let answer = whole(&ask).await?;
        let said = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status < 300, "the provider does not take the script: {said}");
        Ok(())
    }

    /// Of the provider's calls those of one channel, in order of arrival.
    pub(super) fn calls<'a>(&self, truth: &'a [Call], n: usize) -> Vec<&'a Call> {
        let Some(place) = self.channels.get(n) else { return Vec::new() };
        let of = |call: &&Call| call.model.split('+').next() == Some(place.model.as_str());
        truth.iter().filter(of).collect()
    }
}

/// The model with what it does when it is well: a short answer, quickly.
pub(super) fn upstream(model: &str) -> String {
    format!("{model}+answer-tokens:6+latency:5")
}

/// A billed call, and the same as a stream.
pub(super) fn lanes(world: &World, alias: &str) -> Vec<Lane> {
    let plain = chat(alias, &world.key);
    let mut body: Value = serde_json::from_str(&plain.body).unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        members.insert("stream".to_owned(), json!(true));
    }
    let stream = Lane { body: body.to_string(), ..plain.clone() };
    vec![plain, stream]
}
