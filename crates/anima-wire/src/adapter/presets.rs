//! Vendors that speak the OpenAI dialect: a name, the base URL that their own SDK takes, and what
//! they want otherwise.
//!
//! Not adapters and not rows of the registry: a channel for any of them says `openai_compatible`
//! and this base URL. Invariant: every URL is https (or a local server's loopback), without a
//! trailing slash, and ends where `Endpoint::path` begins. Source: `b-outbound-chat` B.1 and B.3
//! (read November 2026).

use crate::dialect::openai::models::Maker;
use crate::dialect::openai::quirks::{NONE, OPENAI, Quirks, Thinking};

/// One vendor that needs no adapter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// What people call it.
    pub name: &'static str,
    /// Default base URL, overridable per channel.
    pub base_url: &'static str,
    /// What it wants otherwise.
    pub quirks: &'static Quirks,
}

/// Declares the table with one line per vendor.
macro_rules! presets {
    ($($name:literal $base_url:literal $quirks:ident;)*) => {
        /// Every preset, sorted by name.
        pub const ALL: &[Preset] = &[
            $(Preset { name: $name, base_url: $base_url, quirks: &$quirks }),*
        ];
    };
}

presets! {
    "anthropic_openai" "https://api.anthropic.com/v1" FORGETFUL;
    "byteplus" "https://ark.ap-southeast.bytepluses.com/api/v3" SWITCH;
    "cohere_openai" "https://api.cohere.com/compatibility/v1" FORGETFUL;
    "dashscope" "https://dashscope.aliyuncs.com/compatible-mode/v1" ENABLE;
    "dashscope_intl" "https://dashscope-intl.aliyuncs.com/compatible-mode/v1" ENABLE;
    "deepseek" "https://api.deepseek.com" SWITCH;
    "fireworks" "https://api.fireworks.ai/inference/v1" PLAIN;
    "gemini_openai" "https://generativelanguage.googleapis.com/v1beta/openai" FORGETFUL;
    "groq" "https://api.groq.com/openai/v1" GROQ;
    "minimax" "https://api.minimax.io/v1" MINIMAX;
    "minimax_cn" "https://api.minimaxi.com/v1" MINIMAX;
    "mistral" "https://api.mistral.ai/v1" MISTRAL;
    "moonshot" "https://api.moonshot.ai/v1" MOONSHOT;
    "moonshot_cn" "https://api.moonshot.cn/v1" MOONSHOT;
    "ollama" "http://127.0.0.1:11434/v1" PLAIN;
    "openai" "https://api.openai.com/v1" OPENAI;
    "openrouter" "https://openrouter.ai/api/v1" OPENROUTER;
    "perplexity" "https://api.perplexity.ai" FORGETFUL;
    "sglang" "http://127.0.0.1:30000/v1" PLAIN;
    "siliconflow" "https://api.siliconflow.cn/v1" ENABLE;
    "together" "https://api.together.xyz/v1" PLAIN;
    "vllm" "http://127.0.0.1:8000/v1" PLAIN;
    "volcengine" "https://ark.cn-beijing.volces.com/api/v3" SWITCH;
    "xai" "https://api.x.ai/v1" XAI;
    "zai" "https://api.z.ai/api/paas/v4" ZHIPU;
    "zhipu" "https://open.bigmodel.cn/api/paas/v4" ZHIPU;
}

static PLAIN: Quirks = NONE;
/// Who has another place for thoughts, or none.
static FORGETFUL: Quirks = Quirks { replays: false, ..NONE };
/// Who thinks or does not, without degrees.
static SWITCH: Quirks = Quirks { thinking: Thinking::Switch, ..NONE };
/// The same in members of Qwen's.
static ENABLE: Quirks = Quirks { thinking: Thinking::Enable, ..NONE };
static GROQ: Quirks = Quirks {
    lacks: &["logprobs", "logit_bias", "top_k", "prompt_cache_key"],
    choices: false,
    nulls: false,
    replays: false,
    stops_max: Some(4),
    ..NONE
};
/// What is thought stands apart only when that is asked for.
static MINIMAX: Quirks = Quirks {
    thinking: Thinking::Lacks,
    temperature: Some(("0.01", "1")),
    extra: Some(("reasoning_split", "true")),
    ..NONE
};
/// Refuses whatever it does not know.
static MISTRAL: Quirks = Quirks {
    thinking: Thinking::Lacks,
    lacks: &["logprobs", "logit_bias", "top_k", "user", "service_tier", "prompt_cache_key"],
    seed: "random_seed",
    must_call: Some("any"),
    short_ids: true,
    replays: false,
    user_after_tool: false,
    asks_usage: false,
    ..NONE
};
static MOONSHOT: Quirks = Quirks {
    thinking: Thinking::Lacks,
    must_call: None,
    temperature: Some(("0", "1")),
    maker: Maker::Moonshot,
    ..NONE
};
static OPENROUTER: Quirks = Quirks { thinking: Thinking::Nested, ..NONE };
static XAI: Quirks =
    Quirks { lacks: &["logit_bias", "top_k", "tools.strict"], maker: Maker::Xai, ..NONE };
static ZHIPU: Quirks =
    Quirks { thinking: Thinking::Switch, temperature: INSIDE, nucleus: INSIDE, ..NONE };
/// Neither end of what others take.
const INSIDE: Option<(&str, &str)> = Some(("0.01", "0.99"));

/// What the vendor at an address wants otherwise: known by its host, however the path goes on.
pub(super) fn quirks(base_url: &str) -> &'static Quirks {
    let Some(host) = host(base_url).filter(|host| !host.starts_with("127.")) else {
        return &PLAIN;
    };
    let known = ALL.iter().find(|preset| self::host(preset.base_url) == Some(host));
    known.map_or(&PLAIN, |preset| preset.quirks)
}

fn host(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    rest.split(['/', ':', '?']).next()
}

/// The preset of a vendor.
pub fn lookup(name: &str) -> Option<&'static Preset> {
    ALL.iter().find(|preset| preset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_sorted_unique_and_end_where_a_path_begins() {
        assert!(ALL.windows(2).all(|pair| pair[0].name < pair[1].name));
        for preset in ALL {
            let local = preset.base_url.starts_with("http://127.0.0.1:");
            assert!(local || preset.base_url.starts_with("https://"), "{preset:?}");
            assert!(!preset.base_url.ends_with('/'), "{preset:?}");
            assert_eq!(lookup(preset.name), Some(preset));
        }
    }

    #[test]
    fn a_vendor_is_known_by_its_host_and_a_strangers_address_is_nobodys() {
        assert_eq!(quirks("https://api.mistral.ai/v1").seed, "random_seed");
        assert_eq!(quirks("https://api.z.ai/api/coding/paas/v4").thinking, Thinking::Switch);
        for stranger in ["https://api.mistral.ai.example/v1", "http://127.0.0.1:9/v1", "", "x"] {
            assert_eq!(quirks(stranger), &NONE, "{stranger}");
        }
    }
}
