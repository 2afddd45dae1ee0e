//! The `prices.csv` shape: a line per model with prices per million tokens, more for units.
//!
//! Columns are found by their names, in any order. Invariant: a line that is not understood stops
//! the reading and says its number.

use anima_core::config::MeterPrice;
use anima_core::pricing::When;
use anima_core::usage::Meter;

use super::{Listed, decimal, price};

/// The columns of token prices, per million.
const TOKENS: [(&str, Meter); 4] = [
    ("input_per_mtok", Meter::InputTokens),
    ("output_per_mtok", Meter::OutputTokens),
    ("cached_input_per_mtok", Meter::CachedInputTokens),
    ("cache_write_per_mtok", Meter::CacheWriteTokens),
];

/// The units of `unit_price`, and for how many it is. Others have no meter.
const UNITS: [(&str, Meter, u64); 18] = [
    ("mtok_cache_write_1h", Meter::CacheWrite1hTokens, 1_000_000),
    ("mtok_audio_in", Meter::InputAudioTokens, 1_000_000),
    ("mtok_audio_out", Meter::OutputAudioTokens, 1_000_000),
    ("mtok_image_in", Meter::InputImageTokens, 1_000_000),
    ("mtok_image_out", Meter::OutputImageTokens, 1_000_000),
    ("mtok_image_cached_in", Meter::CachedInputImageTokens, 1_000_000),
    ("1k_chars", Meter::Characters, 1_000),
    ("image", Meter::Images, 1),
    ("image_in", Meter::InputImages, 1),
    ("second", Meter::VideoSeconds, 1),
    ("second_in", Meter::AudioSeconds, 1),
    ("song", Meter::Songs, 1),
    ("query", Meter::Queries, 1),
    ("page", Meter::Pages, 1),
    ("request", Meter::Requests, 1),
    ("web_search_call", Meter::SearchCalls, 1),
    ("file_search_call", Meter::FileSearchCalls, 1),
    ("code_session", Meter::CodeSessions, 1),
];

/// Reads a file.
///
/// # Errors
/// The line, and what is wrong with it.
pub(super) fn read(text: &str) -> Result<Vec<Listed>, String> {
    let mut lines = text.lines().enumerate();
    let (_, heading) = lines.next().ok_or("the file is empty")?;
    let columns = fields(heading).ok_or("line 1: a quote is not closed")?;
    for needed in ["provider", "model", "mode", "unit_price", "unit"] {
        if !columns.iter().any(|column| column == needed) {
            return Err(format!("line 1: there is no column `{needed}`"));
        }
    }
    let mut listed: Vec<Listed> = Vec::new();
    for (n, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let place = |fault: String| format!("line {}: {fault}", n.saturating_add(1));
        let values = fields(line).ok_or_else(|| place("a quote is not closed".to_owned()))?;
        if values.len() != columns.len() {
            let (is, expected) = (values.len(), columns.len());
            return Err(place(format!("{is} fields, expected {expected}")));
        }
        let line = Line { columns: &columns, values: &values };
        add(&line, &mut listed).map_err(place)?;
    }
    Ok(listed)
}

struct Line<'a> {
    columns: &'a [String],
    values: &'a [String],
}

impl Line<'_> {
    fn of(&self, column: &str) -> &str {
        let mut pairs = self.columns.iter().zip(self.values);
        pairs.find(|(name, _)| *name == column).map_or("", |(_, value)| value.trim())
    }

    fn amount(&self, column: &str) -> Result<Option<String>, String> {
        let text = self.of(column);
        if text.is_empty() {
            return Ok(None);
        }
        let amount = decimal::shifted(text, 0);
        amount.map(Some).ok_or_else(|| format!("`{column}`: `{text}` is not a number"))
    }
}

fn add(line: &Line<'_>, listed: &mut Vec<Listed>) -> Result<(), String> {
    let (provider, model) = (line.of("provider"), line.of("model"));
    if model.is_empty() {
        return Err("`model`: is empty".to_owned());
    }
    let is_same = |entry: &Listed| entry.provider == provider && entry.model == model;
    let mut entry = if let Some(index) = listed.iter().position(is_same) {
        listed.swap_remove(index)
    } else {
        let entry = Listed::new(provider, model, line.of("mode"));
        Listed { model: model.to_owned(), ..entry }
    };
    for (name, amount) in prices(line)? {
        match amount {
            Some(price) => entry.take(&name, price),
            None => entry.left_out.push(name),
        }
    }
    if let Some((_, remark)) = line.of("source").split_once("; ") {
        let remark = remark.to_owned();
        if !entry.remarks.contains(&remark) {
            entry.remarks.push(remark);
        }
    }
    listed.push(entry);
    Ok(())
}

/// What a line prices; `None` where there is no meter for it.
fn prices(line: &Line<'_>) -> Result<Vec<(String, Option<MeterPrice>)>, String> {
    let mut prices = Vec::new();
    for (column, meter) in TOKENS {
        if let Some(amount) = line.amount(column)? {
            let taken = price(meter, 1_000_000, amount, When::default());
            prices.push((column.to_owned(), Some(taken)));
        }
    }
    let unit = line.of("unit");
    match (line.amount("unit_price")?, unit.is_empty()) {
        (None, true) => {}
        (Some(amount), false) => {
            let known = UNITS.iter().find(|(name, ..)| *name == unit);
            let taken = known.map(|(_, meter, per)| price(*meter, *per, amount, When::default()));
            prices.push((unit.to_owned(), taken));
        }
        (Some(_), true) => return Err("`unit_price` without `unit`".to_owned()),
        (None, false) => return Err("`unit` without `unit_price`".to_owned()),
    }
    Ok(prices)
}

/// The fields of a line, quotes taken off. `None` when a quote is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars().peekable();
    let mut is_quoted = false;
    while let Some(char) = chars.next() {
        match char {
            '"' if is_quoted && chars.next_if_eq(&'"').is_some() => fields.last_mut()?.push('"'),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            char => fields.last_mut()?.push(char),
        }
    }
    (!is_quoted).then_some(fields)
}
