//! Channels, aliases and prices for the providers whose keys are in the environment.
//!
//! What is added is a file of data (`seeds/quickstart.toml`), not code. Invariant: a row that is
//! there already is left alone, so an operator's prices survive a restart.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::{Admin, aliases, channels, prices};
use crate::settings::foreign_variable;

use super::rows::{actor, unless_there};

const SEED: &str = include_str!("../../../seeds/quickstart.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seed {
    provider: Vec<Provider>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    channel: String,
    variable: String,
    base_url_variable: String,
    base_url: String,
    models: Vec<Model>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: String,
    kind: String,
    input: String,
    cached_input: Option<String>,
    cache_write: Option<String>,
    output: Option<String>,
}

/// Adds every provider whose key is in the environment.
pub(super) async fn providers(admin: &Admin) -> Result<(), String> {
    let seed: Seed = toml::from_str(SEED).map_err(|e| e.to_string())?;
    for provider in &seed.provider {
        if let Some(secret) = foreign_variable(&provider.variable) {
            add(admin, provider, &secret).await?;
        }
    }
    Ok(())
}

async fn add(admin: &Admin, provider: &Provider, secret: &str) -> Result<(), String> {
    // A base URL of the operator's own may be a proxy in a private network.
    let own = foreign_variable(&provider.base_url_variable);
    let channel = json!({
        "code": provider.channel, "provider": "openai_compatible",
        "base_url": own.as_ref().map_or(provider.base_url.as_str(), |url| url.as_str()),
        "credentials": [{"code": "environment", "secret": secret}],
        "allow_private_network": own.is_some(),
    });
    unless_there(channels::create(admin, &actor(), channel).await)?;
    for model in &provider.models {
        let route = json!({ "channel": provider.channel, "model": model.name });
        let row = json!({ "code": model.name, "kind": model.kind, "routes": [route] });
        unless_there(aliases::create(admin, &actor(), row).await)?;
        let cost = json!({
            "code": format!("{}-{}-cost", provider.channel, model.name), "side": "cost",
            "channel": provider.channel, "model": model.name, "currency": "USD",
            "meters": meters(model),
        });
        unless_there(prices::create(admin, &actor(), cost).await)?;
        let sale = json!({
            "code": format!("{}-sale", model.name), "side": "sale", "alias": model.name,
            "currency": "USD", "meters": meters(model),
        });
        unless_there(prices::create(admin, &actor(), sale).await)?;
    }
    Ok(())
}

fn meters(model: &Model) -> Value {
    let rates = [
        ("input_tokens", Some(&model.input)),
        ("cached_input_tokens", model.cached_input.as_ref()),
        ("cache_write_tokens", model.cache_write.as_ref()),
        ("output_tokens", model.output.as_ref()),
    ];
    rates
        .into_iter()
        .filter_map(|(meter, amount)| Some((meter, amount?)))
        .map(|(meter, amount)| json!({ "meter": meter, "per": 1_000_000, "amount": amount }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_reads_and_every_chat_model_has_an_output_price() {
        let seed: Seed = toml::from_str(SEED).unwrap();
        for model in seed.provider.iter().flat_map(|p| &p.models) {
            assert_eq!(model.kind == "chat", model.output.is_some(), "{}", model.name);
        }
    }
}
