//! Moderations, pictures and reranks: answers of a fixed form.
//!
//! They are counted in units, not in tokens: the truth log bills none, and whoever checks a bill
//! counts what the answer holds. Tokens are told where the script wants a lie. Sources:
//! `OpenAI`'s and Jina's API references, November 2026.

use serde_json::{Value, json};

use super::{Draft, Scene};
use crate::behaviour::UsageLie;
use crate::inquiry::Units;
use crate::script::Endpoint;
use crate::usage::{Reported, Usage};

/// The plan of an answer.
pub(super) fn plan(scene: &Scene<'_>, units: &Units<'_>) -> Draft {
    let lie =
        scene.behaviour.usage.filter(|lie| matches!(lie, UsageLie::Absurd | UsageLie::Negative));
    let mut body = if matches!(units.endpoint, Endpoint::Images | Endpoint::ImageEdits) {
        let picture = |n: u64| json!({"url": format!("https://example.invalid/{n}.png")});
        let pictures: Value = (0..units.count).map(picture).collect();
        json!({"created": scene.turn.created_s, "data": pictures})
    } else if units.endpoint == Endpoint::Rerank {
        let score = |tenths: u32| f64::from(tenths) / 10.0;
        let result =
            |(n, tenths): (u64, u32)| json!({"index": n, "relevance_score": score(tenths)});
        let scored = (0..units.count).zip((1..=10).rev());
        let results: Value = scored.map(result).collect();
        json!({"id": scene.turn.id, "model": scene.model, "results": results,
            "meta": {"billed_units": {"search_units": units.count.div_ceil(100)}}})
    } else {
        json!({"id": format!("modr-{}", scene.turn.id), "model": scene.model,
            "results": [{"flagged": false, "categories": {}, "category_scores": {}}]})
    };
    let reported = lie.and_then(|lie| Reported::of(&Usage::default(), Some(lie)));
    if let (Some(told), Some(members)) = (&reported, body.as_object_mut()) {
        let usage = json!({"input_tokens": told.prompt_tokens,
            "output_tokens": told.completion_tokens, "total_tokens": told.total_tokens});
        members.insert("usage".to_owned(), usage);
    }
    scene.json(body.to_string().into_bytes(), Usage::default(), reported)
}
