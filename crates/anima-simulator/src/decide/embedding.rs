//! Vectors: deterministic, of unit length, equal for equal inputs.
//!
//! They mean nothing; only sameness is kept. The base64 form is the same numbers as little-endian
//! IEEE 754 singles, as OpenAI's SDKs unpack them. The invariant: the same seed, model, input and
//! dimensions give the same vector in both forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Draft, Scene};
use crate::behaviour::{AnswerLength, UsageLie};
use crate::inquiry::{Embedding, Input, Vectors};
use crate::prose;
use crate::usage::{Reported, Usage};

/// The plan of an embeddings answer.
pub(super) fn plan(scene: &Scene<'_>, embedding: &Embedding<'_>) -> Draft {
    let dimensions = embedding.dimensions.unwrap_or(scene.script.embedding_dimensions).get();
    let seed = prose::hash(scene.script.seed, scene.model.as_bytes());
    let prompt_tokens = embedding.inputs.iter().map(|input| input.tokens).sum();
    let usage = Usage { prompt_tokens, ..Usage::default() };
    let reported = Reported::of(&usage, scene.behaviour.usage).map(Reported::without_completion);
    let empty = scene.behaviour.answer == Some(AnswerLength::Tokens(0));
    let vectors: Vec<Vec<f32>> = embedding
        .inputs
        .iter()
        .filter(|_| !empty)
        .map(|input| vector(seed, *input, dimensions))
        .collect();
    let times = if scene.behaviour.usage == Some(UsageLie::Twice) { 2 } else { 1 };
    let told = (reported.as_ref(), times);
    let body = match embedding.form {
        Vectors::Numbers => openai(scene, &vectors, false, told),
        Vectors::Packed => openai(scene, &vectors, true, told),
        Vectors::One => gemini(&vectors, false, told),
        Vectors::Many => gemini(&vectors, true, told),
        Vectors::Predict => predict(embedding, &vectors, told),
        Vectors::Titan => titan(&vectors, told),
        Vectors::Floats => {
            format!("{{\"embeddings\":{},\"response_type\":\"embeddings_floats\"}}", all(&vectors))
                .into_bytes()
        }
        Vectors::ByType => cohere(&vectors, told),
    };
    scene.json(body, usage, reported)
}

/// `OpenAI`'s answer, with its usage so many times.
fn openai(
    scene: &Scene<'_>,
    vectors: &[Vec<f32>],
    packed: bool,
    (reported, times): (Option<&Reported>, usize),
) -> Vec<u8> {
    let mut body = b"{\"object\":\"list\",\"data\":[".to_vec();
    for (index, vector) in vectors.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        push_item(&mut body, index, vector, packed);
    }
    body.extend_from_slice(b"],\"model\":");
    body.extend_from_slice(scene.model_json().as_bytes());
    for reported in std::iter::repeat_n(reported, times).flatten() {
        body.extend_from_slice(b",\"usage\":");
        body.extend_from_slice(reported.embedding_json().as_bytes());
    }
    body.push(b'}');
    body
}

/// Gemini's answer, likewise.
fn gemini(
    vectors: &[Vec<f32>],
    is_list: bool,
    (reported, times): (Option<&Reported>, usize),
) -> Vec<u8> {
    // Finite floats always serialise.
    let values = |vector: &Vec<f32>| {
        format!("{{\"values\":{}}}", serde_json::to_string(vector).unwrap_or_default())
    };
    let all: Vec<String> = vectors.iter().map(values).collect();
    let mut body = if is_list {
        format!("{{\"embeddings\":[{}]", all.join(","))
    } else {
        format!("{{\"embedding\":{}", all.first().map_or("{}", String::as_str))
    };
    for reported in std::iter::repeat_n(reported, times).flatten() {
        body.push_str(",\"usageMetadata\":{\"promptTokenCount\":");
        body.push_str(&reported.prompt_tokens.to_string());
        body.push('}');
    }
    body.push('}');
    body.into_bytes()
}

/// A list of vectors. Finite floats always serialise.
fn all(vectors: &[Vec<f32>]) -> String {
    serde_json::to_string(vectors).unwrap_or_default()
}

/// Vertex's answer: tokens are told of each text. A lie about usage is told of the first.
fn predict(
    asked: &Embedding<'_>,
    vectors: &[Vec<f32>],
    (reported, _): (Option<&Reported>, usize),
) -> Vec<u8> {
    let truth: u64 = asked.inputs.iter().map(|input| input.tokens).sum();
    let mut told = reported.map(|told| told.prompt_tokens);
    let is_true = told == i64::try_from(truth).ok();
    let items = vectors.iter().zip(&asked.inputs).map(|(vector, input)| {
        let tokens = if is_true { i64::try_from(input.tokens).ok() } else { told.take() };
        let statistics = tokens.map(|tokens| {
            format!(",\"statistics\":{{\"token_count\":{tokens},\"truncated\":false}}")
        });
        let values = serde_json::to_string(vector).unwrap_or_default();
        let statistics = statistics.unwrap_or_default();
        format!("{{\"embeddings\":{{\"values\":{values}{statistics}}}}}")
    });
    format!("{{\"predictions\":[{}]}}", items.collect::<Vec<_>>().join(",")).into_bytes()
}

/// Titan's answer to its one text.
fn titan(vectors: &[Vec<f32>], (reported, times): (Option<&Reported>, usize)) -> Vec<u8> {
    let first = vectors.first().map(serde_json::to_string).and_then(Result::ok);
    let mut body = format!("{{\"embedding\":{}", first.unwrap_or_else(|| "null".to_owned()));
    for reported in std::iter::repeat_n(reported, times).flatten() {
        body.push_str(",\"inputTextTokenCount\":");
        body.push_str(&reported.prompt_tokens.to_string());
    }
    body.push('}');
    body.into_bytes()
}

/// Cohere's answer, with what it bills.
fn cohere(vectors: &[Vec<f32>], (reported, times): (Option<&Reported>, usize)) -> Vec<u8> {
    let mut body = format!("{{\"id\":\"e\",\"embeddings\":{{\"float\":{}}}", all(vectors));
    for reported in std::iter::repeat_n(reported, times).flatten() {
        body.push_str(",\"meta\":{\"billed_units\":{\"input_tokens\":");
        body.push_str(&reported.prompt_tokens.to_string());
        body.push_str("}}");
    }
    body.push('}');
    body.into_bytes()
}

fn push_item(body: &mut Vec<u8>, index: usize, vector: &[f32], packed: bool) {
    let head = format!("{{\"object\":\"embedding\",\"index\":{index},\"embedding\":");
    body.extend_from_slice(head.as_bytes());
    if packed {
        let bytes: Vec<u8> = vector.iter().flat_map(|member| member.to_le_bytes()).collect();
        body.push(b'"');
        body.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        body.push(b'"');
    } else {
        // Finite floats always serialise.
        body.extend_from_slice(&serde_json::to_vec(vector).unwrap_or_default());
    }
    body.push(b'}');
}

fn vector(seed: u64, input: Input, dimensions: u32) -> Vec<f32> {
    let seed = prose::mix(seed, input.hash);
    let mut members: Vec<f32> = (0..dimensions)
        .map(|place| {
            let [high, low, ..] = prose::mix(seed, u64::from(place)).to_be_bytes();
            // Half a step off centre, so that no member and no length is zero.
            f32::from(i16::from_be_bytes([high, low])) + 0.5
        })
        .collect();
    let length = members.iter().map(|member| member * member).sum::<f32>().sqrt();
    for member in &mut members {
        *member /= length;
    }
    members
}
