//! Files as they are published, cut short, and the mistakes that are in them.

use anima_core::money::Currency;
use proptest::prelude::*;

use super::bounds::{self, Doubt};
use super::*;

pub(crate) const CSV: &str = "\
provider,model,mode,input_per_mtok,output_per_mtok,cached_input_per_mtok,\
cache_write_per_mtok,context,max_output,unit_price,unit,source
openai,gpt-5,chat,1.25,10,0.125,,272000,128000,,,\"litellm (MIT), key gpt-5; retires 2026-12-11\"
openai,gpt-5,chat,,,,,,,0.01,web_search_call,\"litellm (MIT), key gpt-5\"
azure,gpt-5,chat,1.5,12,0.15,,272000,128000,,,\"x, \"\"y\"\"\"
openai,text-embedding-3-small,embedding,0.02,0,,,8191,,,,x
cohere,rerank-v3.5,rerank,0,0,,,4096,4096,0.002,query,x
google,veo,video_generation,,,,,,,0.4,second,x
google,veo,video_generation,,,,,,,0.6,second@4k,x
acme,free,chat,0,1,,,,,,,x
";

pub(crate) const JSON: &str = r#"{
    "sample_spec": {"input_cost_per_token": "a float", "mode": "one of"},
    "gpt-5": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.25e-06,
        "output_cost_per_token": 1e-05, "cache_read_input_token_cost": 1.25e-07,
        "input_cost_per_token_flex": 6.25e-07, "input_cost_per_token_batches": 6.25e-07,
        "input_cost_per_token_above_272k_tokens": 2.5e-06, "max_input_tokens": 272000,
        "input_cost_per_token_above_272k_tokens_priority": 5e-06, "deprecation_date": "2026-12-11",
        "search_context_cost_per_query": {"search_context_size_low": 0.01,
            "search_context_size_high": 0.010}},
    "azure/gpt-5": {"litellm_provider": "azure", "mode": "chat", "input_cost_per_token": 1.5e-06},
    "dashscope/qwen3-max": {"litellm_provider": "dashscope", "mode": "chat", "tiered_pricing": [
        {"range": [0, 32000.0], "input_cost_per_token": 1.2e-06, "output_cost_per_token": 6e-06},
        {"range": [32000.0, 128000.0], "input_cost_per_token": 2.4e-06}]},
    "gemini/lyria-3": {"litellm_provider": "gemini", "mode": "image_generation",
        "output_cost_per_image": 0.06, "input_cost_per_token": 0.0},
    "whisper": {"litellm_provider": "openai", "mode": "audio_transcription",
        "input_cost_per_second": 0.0001, "output_cost_per_second": 0.0001}
}"#;

/// `meter[>tokens][/tier] amount/per`, one after the other.
fn shown(one: &Listed) -> String {
    let text = one.meters.iter().map(|price| {
        let over = price.when.input_tokens_over.map(|n| format!(">{n}")).unwrap_or_default();
        let tier = price.when.service_tier.as_ref().map(|t| format!("/{t}")).unwrap_or_default();
        format!("{}{over}{tier} {}/{}", price.meter.name(), price.amount, price.per)
    });
    text.collect::<Vec<_>>().join(", ")
}

#[test]
fn a_table_is_read_with_its_units() {
    let listed = read(CSV).unwrap();
    let of = |name| find(&listed, name, Some("openai")).unwrap();
    assert_eq!(
        shown(of("gpt-5")),
        "input_tokens 1.25/1000000, output_tokens 10/1000000, \
         cached_input_tokens 0.125/1000000, search_calls 0.01/1"
    );
    assert_eq!(of("gpt-5").remarks, ["retires 2026-12-11"]);
    assert_eq!(shown(of("text-embedding-3-small")), "input_tokens 0.02/1000000");
    assert_eq!(shown(find(&listed, "rerank-v3.5", None).unwrap()), "queries 0.002/1");
    let veo = find(&listed, "veo", None).unwrap();
    assert_eq!(
        (shown(veo).as_str(), &*veo.left_out),
        ("video_seconds 0.4/1", &["second@4k".into()][..])
    );
    let several = Missing::Several(vec!["azure".to_owned(), "openai".to_owned()]);
    let mut found = find(&listed, "gpt-5", None).unwrap_err();
    if let Missing::Several(providers) = &mut found {
        providers.sort();
    }
    assert_eq!(found, several);
    assert_eq!(find(&listed, "gpt-6", None), Err(Missing::Unknown));
}

#[test]
fn a_line_that_is_wrong_says_its_number() {
    for (text, fault) in [
        ("a,b\n", "line 1: there is no column `provider`"),
        ("provider,model,mode,unit_price,unit\na,b\n", "line 2: 2 fields, expected 5"),
        (
            "provider,model,mode,unit_price,unit\na,b,c,x,song\n",
            "line 2: `unit_price`: `x` is not a number",
        ),
        ("provider,model,mode,unit_price,unit\na,b,c,1,\n", "line 2: `unit_price` without `unit`"),
        ("provider,model,mode,unit_price,unit\na,\"b,c,1,\n", "line 2: a quote is not closed"),
        ("", "the file is empty"),
    ] {
        assert_eq!(read(text).unwrap_err(), fault);
    }
    assert!(read("{\"a\": 1}").unwrap_err().starts_with("a: expected an object"));
    let wrong = r#"{"a": {"input_cost_per_token": "dear", "output_cost_per_token": 1e-6}}"#;
    let listed = read(wrong).unwrap();
    assert!(listed[0].meters.is_empty());
    assert_eq!(listed[0].left_out, ["`input_cost_per_token`: \"dear\" is not a number"]);
}

#[test]
fn litellms_floats_become_exact_amounts_per_million() {
    let listed = read(JSON).unwrap();
    let gpt = find(&listed, "gpt-5", None).unwrap();
    assert_eq!(
        shown(gpt),
        "cached_input_tokens 0.125/1000000, input_tokens 1.25/1000000, \
         input_tokens>272000 2.5/1000000, input_tokens>272000/priority 5/1000000, \
         input_tokens/flex 0.625/1000000, output_tokens 10/1000000, search_calls 0.01/1"
    );
    assert_eq!(gpt.left_out, ["input_cost_per_token_batches"]);
    let qwen = find(&listed, "qwen3-max", None).unwrap();
    assert_eq!(
        shown(qwen),
        "input_tokens 1.2/1000000, output_tokens 6/1000000, input_tokens>32000 2.4/1000000"
    );
    let song = find(&listed, "lyria-3", None).unwrap();
    assert_eq!(song.left_out, ["output_cost_per_image"]);
    let whisper = find(&listed, "whisper", None).unwrap();
    assert_eq!(shown(whisper), "audio_seconds 0.0001/1");
    assert_eq!(find(&listed, "gpt-5", Some("azure")).unwrap().key, "azure/gpt-5");
}

fn meters(pairs: &[(&str, &str)]) -> Vec<MeterPrice> {
    let one = |(meter, amount): &(&str, &str)| {
        price(Meter::parse(meter).unwrap(), 1_000_000, (*amount).to_owned(), When::default())
    };
    pairs.iter().map(one).collect()
}

fn said(meters: &[MeterPrice]) -> String {
    let text = bounds::of(meters).into_iter().map(|doubt| match doubt {
        Doubt::Wrong(text) => format!("wrong: {text}"),
        Doubt::Odd(text) => text,
    });
    text.collect::<Vec<_>>().join("; ")
}

#[test]
fn a_cache_is_not_dearer_than_the_prompt_above_a_length_or_in_a_tier() {
    let at = |meter: &str, amount: &str, over: Option<u64>, tier: Option<&str>| {
        let when = When { input_tokens_over: over, service_tier: tier.map(str::to_owned) };
        price(Meter::parse(meter).unwrap(), 1_000_000, amount.to_owned(), when)
    };
    let tiers = [
        at("input_tokens", "2", None, None),
        at("cached_input_tokens", "0.2", None, None),
        at("input_tokens", "4", Some(200_000), None),
        at("cached_input_tokens", "5", Some(200_000), None),
        at("input_tokens", "0.1", None, Some("flex")),
        at("cached_input_tokens", "1", None, Some("priority")),
    ];
    assert_eq!(
        said(&tiers),
        "cached_input_tokens are dearer than input_tokens above 200000 tokens; \
         cached_input_tokens are dearer than input_tokens in the tier flex"
    );
}

#[test]
fn mistakes_are_doubted() {
    let doubts = |pairs: &[(&str, &str)]| said(&meters(pairs));
    assert_eq!(doubts(&[("input_tokens", "60"), ("output_tokens", "300")]), "");
    assert_eq!(doubts(&[("input_tokens", "-1")]), "wrong: input_tokens is negative: -1");
    assert_eq!(doubts(&[("input_tokens", "0"), ("output_tokens", "1")]), "input_tokens is free");
    assert_eq!(
        doubts(&[("input_tokens", "100")]),
        "input_tokens is 100 per 1000000, above 60 per 1000000"
    );
    assert_eq!(
        doubts(&[("input_tokens", "1"), ("cached_input_tokens", "2")]),
        "cached_input_tokens are dearer than input_tokens"
    );
    let twice = "audio_seconds and input_audio_tokens price the same thing: calls would be paid \
                 by their tokens where the provider tells them, else by audio_seconds";
    assert_eq!(doubts(&[("audio_seconds", "1"), ("input_audio_tokens", "2")]), twice);
    assert_eq!(doubts(&[("images", "1"), ("input_tokens", "2")]), "", "picture and prompt");
}

#[test]
fn a_change_is_doubted_above_its_factor_and_not_at_it() {
    let doubts = |before, after| {
        let (before, after) =
            (meters(&[("input_tokens", before)]), meters(&[("input_tokens", after)]));
        bounds::of_change(&before, &after, 3, Currency::USD).len()
    };
    assert_eq!((doubts("1", "3"), doubts("3", "1"), doubts("2", "2.0")), (0, 0, 0));
    assert_eq!((doubts("1", "3.000001"), doubts("3.000001", "1"), doubts("0", "1")), (1, 1, 1));
}

#[test]
fn the_prices_that_ship_are_read_whole_and_are_believable() {
    let listed = read(include_str!("../../seeds/prices.csv")).unwrap();
    assert_eq!(listed.len(), 187);
    let doubtful = |one: &&Listed| !bounds::of(&one.meters).is_empty();
    let doubtful: Vec<_> = listed.iter().filter(doubtful).map(|one| one.model.as_str()).collect();
    let free = "omni-moderation-latest";
    // Their lists say what a picture costs and what its tokens cost.
    let twice = [
        "gemini-3-pro-image",
        "gemini-3.1-flash-image",
        "gemini-2.5-flash-image",
        "gemini-nano-banana-2.1",
        "seedream-image-v5.0-pro",
        "seedream-image-v5.0-lite",
    ];
    assert_eq!(doubtful, [&[free][..], &twice].concat());
    let sol = find(&listed, "gpt-6.1-sol", Some("openai")).unwrap();
    assert!(shown(sol).starts_with("input_tokens 2/1000000, output_tokens 10/1000000"));
    assert_eq!(sol.remarks, ["dearer above 272k tokens"]);
}

#[test]
fn fees_for_a_providers_own_tools_are_prices_by_the_piece() {
    let table = "provider,model,mode,unit_price,unit\n\
                 openai,gpt-5,chat,0.0025,file_search_call\nopenai,gpt-5,chat,0.03,code_session\n";
    let listed = read(table).unwrap();
    assert_eq!(shown(&listed[0]), "file_search_calls 0.0025/1, code_sessions 0.03/1");
    let json = r#"{"gpt-5": {"litellm_provider": "openai", "mode": "responses",
        "file_search_cost_per_1k_calls": 2.5, "code_interpreter_cost_per_session": 0.03}}"#;
    let listed = read(json).unwrap();
    assert_eq!(shown(&listed[0]), "code_sessions 0.03/1, file_search_calls 2.5/1000");
}

/// What mistakes are made of: marks of the formats, and numbers that fit nothing.
const SPLINTERS: [&str; 18] = [
    ",",
    "\"",
    "\n",
    "\r\n",
    "{",
    "}",
    "[",
    "]",
    ":",
    "\\",
    "-",
    ".",
    "e400",
    "1e-400",
    "NaN",
    "99999999999999999999999",
    "0.00000000000000000000001",
    "\u{feff}",
];

proptest! {
    /// Whatever a file says, it is read or refused, what is read is no negative price, and all that
    /// is asked about it has an answer.
    #[test]
    fn no_file_breaks_the_reader(
        is_table in any::<bool>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..30usize, 0..18usize), 0..8),
    ) {
        let mut text: Vec<char> = if is_table { CSV } else { JSON }.chars().collect();
        for (at, cut, splinter) in edits {
            let at = at.index(text.len().max(1)).min(text.len());
            let end = at.saturating_add(cut).min(text.len());
            text.splice(at..end, SPLINTERS[splinter].chars());
        }
        let text: String = text.into_iter().collect();
        for one in read(&text).unwrap_or_default() {
            bounds::of(&one.meters);
            for price in &one.meters {
                prop_assert!(!price.amount.starts_with('-'), "{}", shown(&one));
                prop_assert!(price.per > 0, "{}", shown(&one));
            }
        }
    }
}
