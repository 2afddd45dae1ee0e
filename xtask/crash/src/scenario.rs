//! What is called: the mix of calls, and the routes that answer them.
//!
//! Each scenario is one alias with a route to a simulated model whose name says how it behaves, and
//! perhaps a second route behind it. About six in ten calls are streams, slow enough to be cut by a
//! kill.
//! Invariant: every fault that is scripted here has a stated outcome in the books (`reliability`
//! 1.6), so that a finding is never the scenario's own doing.

use serde_json::{Value, json};

use crate::seed::Seed;

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A streamed chat.
    Stream,
    /// A chat as one JSON body.
    Plain,
    /// Vectors.
    Embedding,
}

/// One kind of call.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// How often, beside the others.
    pub(crate) weight: u64,
    pub(crate) alias: &'static str,
    pub(crate) shape: Shape,
    /// The first choice.
    pub(crate) channel: &'static str,
    pub(crate) model: &'static str,
    /// Whether [`BACKUP`] stands behind it.
    pub(crate) backup: bool,
}

/// The channel that answers what others fail, and its model.
pub(crate) const BACKUP: (&str, &str) = ("backup", "sim-backup+answer-tokens:12");

/// Every channel: the healthy one, the one whose models fail, the one that is not waited for, and
/// the one behind them. Faults have a channel of their own, so that they cannot darken healthy
/// calls.
pub(crate) const CHANNELS: [&str; 4] = ["main", "faulty", "hasty", BACKUP.0];

/// The channel that is waited for so shortly, in milliseconds; others have the defaults.
pub(crate) const HASTY_MS: (&str, u64) = ("hasty", 600);

macro_rules! scenarios {
    ($($weight:literal $alias:literal $shape:ident
        $channel:literal $model:literal $backup:literal;)*) => {
        /// The mix.
        pub(crate) const ALL: &[Scenario] = &[$(Scenario {
            weight: $weight, alias: $alias, shape: Shape::$shape,
            channel: $channel, model: $model, backup: $backup,
        }),*];
    };
}

scenarios! {
    24 "stream"      Stream    "main"   "sim-chat+answer-tokens:24+chunks:12+pace:40+latency:30" false;
    10 "long"        Stream    "main"   "sim-long+answer-tokens:90+chunks:30+pace:60+cached:3" false;
    8  "quick"       Stream    "main"   "sim-quick+answer-tokens:6+chunks:3" false;
    14 "plain"       Plain     "main"   "sim-plain+latency:120" false;
    6  "reasoning"   Plain     "main"   "sim-think+reasoning:40+cached:2+latency:300" false;
    8  "vectors"     Embedding "main"   "sim-embedding+latency:40" false;
    5  "cut"         Stream    "faulty" "fault:cut-stream:4+pace:40+chunks:12" false;
    3  "cut-early"   Stream    "faulty" "fault:cut-stream:0" true;
    3  "broken"      Plain     "faulty" "fault:status:500" true;
    3  "busy"        Stream    "faulty" "fault:status:503" true;
    3  "limited"     Plain     "faulty" "fault:status:429:retry-after=1" true;
    2  "alone"       Plain     "faulty" "fault:status:503+latency:20" false;
    2  "reset"       Stream    "faulty" "fault:reset" true;
    2  "silent"      Stream    "hasty"  "fault:silent" true;
    3  "unreported"  Stream    "faulty" "fault:usage-missing+pace:30+chunks:8" false;
    2  "uncounted"   Plain     "faulty" "fault:usage-missing+latency:50" false;
    2  "error-later" Stream    "faulty" "fault:error-in-200:3+pace:20" false;
}

/// One of them, by weight; there always is one.
pub(crate) fn draw(seed: &mut Seed) -> Option<&'static Scenario> {
    let total = ALL.iter().map(|scenario| scenario.weight).sum();
    let mut at = seed.below(total);
    ALL.iter().find(|scenario| {
        let hit = at < scenario.weight;
        at = at.saturating_sub(scenario.weight);
        hit
    })
}

impl Scenario {
    /// Where it is asked for.
    pub(crate) fn path(&self) -> &'static str {
        match self.shape {
            Shape::Stream | Shape::Plain => "/v1/chat/completions",
            Shape::Embedding => "/v1/embeddings",
        }
    }

    /// The kind of its alias.
    pub(crate) fn kind(&self) -> &'static str {
        match self.shape {
            Shape::Stream | Shape::Plain => "chat",
            Shape::Embedding => "embedding",
        }
    }

    /// The body of one call.
    pub(crate) fn body(&self, seed: &mut Seed) -> Value {
        let words = "word ".repeat(usize::try_from(seed.between(1, 60)).unwrap_or(1));
        match self.shape {
            Shape::Embedding => json!({"model": self.alias, "input": [words, "x"]}),
            Shape::Plain | Shape::Stream => json!({
                "model": self.alias,
                "stream": self.shape == Shape::Stream,
                "max_tokens": 200,
                "messages": [{"role": "user", "content": words}],
            }),
        }
    }

    /// Its routes, first choice first.
    pub(crate) fn routes(&self) -> Vec<(&'static str, &'static str)> {
        let first = (self.channel, self.model);
        if self.backup { vec![first, BACKUP] } else { vec![first] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_in_ten_calls_are_streams_and_every_model_is_one_of_the_simulators() {
        let total: u64 = ALL.iter().map(|s| s.weight).sum();
        let streams = ALL.iter().filter(|s| s.shape == Shape::Stream);
        let streams: u64 = streams.map(|s| s.weight).sum();
        assert_eq!(total, 100);
        assert!((58..=64).contains(&streams), "{streams}");
        for scenario in ALL {
            anima_simulator::Behaviour::of_model(scenario.model).unwrap();
            assert!(CHANNELS.contains(&scenario.channel));
        }
    }

    #[test]
    fn every_scenario_is_drawn() {
        let mut seed = Seed::fork(3, "draw");
        let mut drawn = std::collections::BTreeSet::new();
        for _ in 0..2_000 {
            drawn.insert(draw(&mut seed).unwrap().alias);
        }
        assert_eq!(drawn.len(), ALL.len());
    }
}
