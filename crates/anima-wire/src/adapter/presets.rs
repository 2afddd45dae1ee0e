//! Vendors that speak the OpenAI dialect: a name and the base URL that their own SDK takes.
//!
//! Not adapters and not rows of the registry: a channel for any of them says `openai_compatible`
//! and this base URL. Invariant: every URL is https (or a local server's loopback), without a
//! trailing slash, and ends where `Endpoint::path` begins. Source: `b-outbound-chat` B.1
//! (read November 2026).

/// One vendor that needs no adapter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// What people call it.
    pub name: &'static str,
    /// Default base URL, overridable per channel.
    pub base_url: &'static str,
}

/// Declares the table with one line per vendor.
macro_rules! presets {
    ($($name:literal $base_url:literal;)*) => {
        /// Every preset, sorted by name.
        pub const ALL: &[Preset] = &[$(Preset { name: $name, base_url: $base_url }),*];
    };
}

presets! {
    "anthropic_openai" "https://api.anthropic.com/v1";
    "byteplus" "https://ark.ap-southeast.bytepluses.com/api/v3";
    "cohere_openai" "https://api.cohere.com/compatibility/v1";
    "dashscope" "https://dashscope.aliyuncs.com/compatible-mode/v1";
    "dashscope_intl" "https://dashscope-intl.aliyuncs.com/compatible-mode/v1";
    "deepseek" "https://api.deepseek.com";
    "fireworks" "https://api.fireworks.ai/inference/v1";
    "gemini_openai" "https://generativelanguage.googleapis.com/v1beta/openai";
    "groq" "https://api.groq.com/openai/v1";
    "minimax" "https://api.minimax.io/v1";
    "minimax_cn" "https://api.minimaxi.com/v1";
    "mistral" "https://api.mistral.ai/v1";
    "moonshot" "https://api.moonshot.ai/v1";
    "moonshot_cn" "https://api.moonshot.cn/v1";
    "ollama" "http://127.0.0.1:11434/v1";
    "openai" "https://api.openai.com/v1";
    "openrouter" "https://openrouter.ai/api/v1";
    "perplexity" "https://api.perplexity.ai";
    "siliconflow" "https://api.siliconflow.cn/v1";
    "together" "https://api.together.xyz/v1";
    "volcengine" "https://ark.cn-beijing.volces.com/api/v3";
    "xai" "https://api.x.ai/v1";
    "zai" "https://api.z.ai/api/paas/v4";
    "zhipu" "https://open.bigmodel.cn/api/paas/v4";
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
}
