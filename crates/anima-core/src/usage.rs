//! What a call consumed, by meter.
//!
//! Meters are disjoint: a cached token is never also an input token. Adapters turn a provider's
//! nested counts into these buckets; prices and quotas only ever see these. Invariant: no quantity
//! is negative and none is above [`Usage::LIMIT`]. Names: SPEC 15.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Declares the meters once: variant, wire name, and the meter whose price stands in.
macro_rules! meters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $stands_in:expr;)*) => {
        /// A kind of thing that is counted and priced.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Meter { $($(#[$doc])* $variant),* }

        impl Meter {
            /// Every meter, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name used in prices, postings and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Reads a name. `None` for an unknown one.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }

            /// The meter whose price applies when a price list lacks this one: the kind of token
            /// that this one is a part of. `None` for a meter of its own.
            pub const fn part_of(self) -> Option<Self> {
                match self { $(Self::$variant => $stands_in),* }
            }
        }
    };
}

meters! {
    /// Prompt tokens that were neither cached nor of another modality.
    InputTokens = "input_tokens", None;
    /// Prompt tokens read from the provider's cache.
    CachedInputTokens = "cached_input_tokens", Some(Self::InputTokens);
    /// Prompt tokens written to a 5 minute cache.
    CacheWriteTokens = "cache_write_tokens", Some(Self::InputTokens);
    /// Prompt tokens written to a 1 hour cache.
    CacheWrite1hTokens = "cache_write_1h_tokens", Some(Self::CacheWriteTokens);
    /// Generated tokens that were shown.
    OutputTokens = "output_tokens", None;
    /// Generated tokens that were not shown. Priced as output where no price is given.
    ReasoningTokens = "reasoning_tokens", Some(Self::OutputTokens);
    /// Audio in the prompt.
    InputAudioTokens = "input_audio_tokens", Some(Self::InputTokens);
    /// Cached audio in the prompt.
    CachedInputAudioTokens = "cached_input_audio_tokens", Some(Self::InputAudioTokens);
    /// Generated audio.
    OutputAudioTokens = "output_audio_tokens", Some(Self::OutputTokens);
    /// Images in the prompt, in tokens.
    InputImageTokens = "input_image_tokens", Some(Self::InputTokens);
    /// Cached images in the prompt, in tokens.
    CachedInputImageTokens = "cached_input_image_tokens", Some(Self::InputImageTokens);
    /// Generated images, in tokens.
    OutputImageTokens = "output_image_tokens", Some(Self::OutputTokens);
    /// Generated images, by count.
    Images = "images", None;
    /// Images in the request, by count.
    InputImages = "input_images", None;
    /// Generated video.
    VideoSeconds = "video_seconds", None;
    /// Audio heard or spoken.
    AudioSeconds = "audio_seconds", None;
    /// Characters of text to speak.
    Characters = "characters", None;
    /// Generated songs.
    Songs = "songs", None;
    /// Calls, for a fee per call.
    Requests = "requests", None;
    /// Rerank queries.
    Queries = "queries", None;
    /// Document pages.
    Pages = "pages", None;
    /// Web searches made by the model.
    SearchCalls = "search_calls", None;
    /// Searches in stored files made by the model.
    FileSearchCalls = "file_search_calls", None;
    /// Containers in which the model ran code.
    CodeSessions = "code_sessions", None;
}

impl Meter {
    /// How many meters exist.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the meter counts tokens of the prompt.
    pub const fn is_input(self) -> bool {
        matches!(
            self,
            Self::InputTokens
                | Self::CachedInputTokens
                | Self::CacheWriteTokens
                | Self::CacheWrite1hTokens
                | Self::InputAudioTokens
                | Self::CachedInputAudioTokens
                | Self::InputImageTokens
                | Self::CachedInputImageTokens
        )
    }

    /// Whether the meter counts generated tokens.
    pub const fn is_output(self) -> bool {
        matches!(
            self,
            Self::OutputTokens
                | Self::ReasoningTokens
                | Self::OutputAudioTokens
                | Self::OutputImageTokens
        )
    }
}

impl Serialize for Meter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Meter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown meter `{name}`")))
    }
}

/// Where a quantity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// Nothing was consumed, or nothing is known.
    None,
    /// The provider reported it.
    Provider,
    /// We counted it ourselves; amounts made from it are estimates.
    Counted,
}

/// Quantities by meter. Zero where nothing was used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Usage([u64; Meter::COUNT]);

impl Default for Usage {
    fn default() -> Self {
        Self([0; Meter::COUNT])
    }
}

impl Usage {
    /// The largest believable quantity of one meter in one call. Above it a report is absurd:
    /// ten times the largest context window sold today (1 M tokens), and far below overflow.
    pub const LIMIT: u64 = 10_000_000;

    /// The quantity of one meter.
    pub fn of(&self, meter: Meter) -> u64 {
        self.0.get(meter as usize).copied().unwrap_or(0)
    }

    /// Sets one meter, capped at [`Self::LIMIT`].
    pub fn set(&mut self, meter: Meter, quantity: u64) {
        if let Some(slot) = self.0.get_mut(meter as usize) {
            *slot = quantity.min(Self::LIMIT);
        }
    }

    /// This usage with one meter set.
    pub fn with(mut self, meter: Meter, quantity: u64) -> Self {
        self.set(meter, quantity);
        self
    }

    /// The meters that were used, in declaration order.
    pub fn iter(&self) -> impl Iterator<Item = (Meter, u64)> + '_ {
        Meter::ALL.iter().map(|meter| (*meter, self.of(*meter))).filter(|(_, n)| *n > 0)
    }

    /// Whether nothing was used.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|n| *n == 0)
    }

    /// All tokens of the prompt, cached ones included.
    pub fn input_tokens(&self) -> u64 {
        self.iter().filter(|(m, _)| m.is_input()).map(|(_, n)| n).sum()
    }

    /// All generated tokens, hidden ones included.
    pub fn output_tokens(&self) -> u64 {
        self.iter().filter(|(m, _)| m.is_output()).map(|(_, n)| n).sum()
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(m, n)| (m.name(), n))).finish()
    }
}

impl Serialize for Usage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (meter, quantity) in self.iter() {
            map.serialize_entry(meter.name(), &quantity)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Usage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Meters;
        impl<'de> Visitor<'de> for Meters {
            type Value = Usage;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from meter to quantity")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Usage, A::Error> {
                let mut usage = Usage::default();
                while let Some((meter, quantity)) = map.next_entry::<Meter, u64>()? {
                    usage.set(meter, quantity);
                }
                Ok(usage)
            }
        }
        deserializer.deserialize_map(Meters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for meter in Meter::ALL {
            assert_eq!(Meter::parse(meter.name()), Some(*meter));
        }
    }

    #[test]
    fn usage_reads_back_from_json() {
        let usage = Usage::default().with(Meter::InputTokens, 12).with(Meter::OutputTokens, 3);
        let json = serde_json::to_string(&usage).unwrap();
        assert_eq!(json, r#"{"input_tokens":12,"output_tokens":3}"#);
        assert_eq!(serde_json::from_str::<Usage>(&json).unwrap(), usage);
    }

    #[test]
    fn an_absurd_quantity_is_capped() {
        let usage = Usage::default().with(Meter::OutputTokens, u64::MAX);
        assert_eq!(usage.output_tokens(), Usage::LIMIT);
    }
}
