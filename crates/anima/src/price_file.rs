//! Files of prices that others publish: `prices.csv` and LiteLLM's JSON, read into meters.
//!
//! Pure: text in, [`Listed`] out; what of it becomes a price is chosen elsewhere. Invariants: an
//! amount is the file's own digits, moved by powers of ten and never through a float; what a file
//! says and a price cannot carry is named in `left_out`, never dropped in silence. Source:
//! `e-pricing` E.1 and E.2.

use anima_core::config::MeterPrice;
use anima_core::pricing::When;
use anima_core::usage::Meter;

pub(crate) mod bounds; // prices that look like mistakes
mod csv;
pub(crate) mod decimal;
mod litellm;

/// One model of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Who sells it, in the file's word: `openai`, `vertex_ai-language-models`.
    pub(crate) provider: String,
    /// The whole name in the file: `azure/gpt-4o`.
    pub(crate) key: String,
    /// The name without its provider.
    pub(crate) model: String,
    /// `chat`, `embedding`, ….
    pub(crate) mode: String,
    /// What it costs, in USD.
    pub(crate) meters: Vec<MeterPrice>,
    /// Prices in the file that cannot be carried, by their names there.
    pub(crate) left_out: Vec<String>,
    /// What the file says beside: `retires 2027-04-01`.
    pub(crate) remarks: Vec<String>,
}

impl Listed {
    fn new(provider: &str, key: &str, mode: &str) -> Self {
        let model = key.split_once('/').map_or(key, |(_, model)| model);
        Self {
            provider: provider.to_owned(),
            key: key.to_owned(),
            model: model.to_owned(),
            mode: mode.to_owned(),
            meters: Vec::new(),
            left_out: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Takes one price. A second, different one for the same thing is left out by its name.
    fn take(&mut self, name: &str, price: MeterPrice) {
        let same = |old: &&MeterPrice| old.meter == price.meter && old.when == price.when;
        match self.meters.iter().find(same) {
            None => self.meters.push(price),
            Some(old) if *old == price => {}
            Some(_) => self.left_out.push(name.to_owned()),
        }
    }

    /// Takes out the zeros that only say "there is none": the output of an embedding.
    fn without_unused(mut self) -> Self {
        let is_zero = |price: &MeterPrice| decimal::is_zero(&price.amount);
        let has_no_output = matches!(self.mode.as_str(), "embedding" | "rerank" | "search");
        if has_no_output && !self.meters.iter().all(is_zero) {
            self.meters.retain(|price| !is_zero(price));
        }
        self
    }
}

fn price(meter: Meter, per: u64, amount: String, when: When) -> MeterPrice {
    MeterPrice { meter, per, amount, when }
}

/// Reads a file of either kind: JSON begins with a brace.
///
/// # Errors
/// What is wrong with it, with its line or its model.
pub(crate) fn read(text: &str) -> Result<Vec<Listed>, String> {
    let text = text.trim_start_matches('\u{feff}');
    let is_json = text.trim_start().starts_with('{');
    let listed = if is_json { litellm::read(text)? } else { csv::read(text)? };
    Ok(listed.into_iter().map(Listed::without_unused).collect())
}

/// The model that a name means, among those of one provider where that is said.
///
/// # Errors
/// Nothing has that name, or several with different prices have.
pub(crate) fn find<'a>(
    listed: &'a [Listed],
    name: &str,
    provider: Option<&str>,
) -> Result<&'a Listed, Missing> {
    let of = |entry: &&Listed| provider.is_none_or(|provider| entry.provider == provider);
    let candidates: Vec<_> = listed.iter().filter(of).collect();
    if let [only] = named(&candidates, |entry| entry.key == name).as_slice() {
        return Ok(only);
    }
    let found = named(&candidates, |entry| entry.model == name || entry.key == name);
    let Some((first, others)) = found.split_first() else { return Err(Missing::Unknown) };
    if others.iter().all(|other| other.meters == first.meters) {
        return Ok(first);
    }
    let mut providers: Vec<_> = found.iter().map(|entry| entry.provider.clone()).collect();
    providers.sort();
    providers.dedup();
    Err(Missing::Several(providers))
}

fn named<'a>(entries: &[&'a Listed], is: impl Fn(&Listed) -> bool) -> Vec<&'a Listed> {
    entries.iter().copied().filter(|entry| is(entry)).collect()
}

/// Why a name means no model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The file has none of that name.
    Unknown,
    /// These providers have it, at different prices.
    Several(Vec<String>),
}

#[cfg(test)]
mod tests;
