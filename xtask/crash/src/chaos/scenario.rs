//! The list of what is done: one line for each scenario.
//!
//! Not what it does, which is in a file of its own. A new one is a function from the world to lines
//! of the table, and a line here. Invariant: a scenario may leave anything broken that
//! [`World::heal`] mends (proxies, servers, nodes, their environment), and nothing else.

use std::future::Future;
use std::pin::Pin;

use anyhow::{Result, bail};

use super::plan::Plan;
use super::table::Line;
use super::world::World;
use super::{admins, changes, cold, hatches, kills, limits, outages, prices, routing, shutdown};

/// A scenario at work.
pub(crate) type Playing<'a> = Pin<Box<dyn Future<Output = Result<Vec<Line>>> + 'a>>;

/// Something that is done to the fleet, and what came of it.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    /// For `--only`.
    pub(crate) name: &'static str,
    pub(crate) play: for<'a> fn(&'a mut World) -> Playing<'a>,
}

/// Scenarios that are played together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Configuration, escape hatches and dead dependencies.
    Configuration,
    /// Fallback and circuits.
    Routing,
    /// What of the first applies to one node on SQLite, in process.
    Embedded,
    /// Limits, queues and tasks.
    Limits,
    /// What of them applies to one node on SQLite, in process.
    LimitsEmbedded,
}

impl Group {
    /// What of a group applies to one node on SQLite.
    pub(crate) fn embedded(self) -> Self {
        if self == Self::Limits { Self::LimitsEmbedded } else { Self::Embedded }
    }

    /// Whether there is one node, with everything in process.
    pub(crate) fn is_embedded(self) -> bool {
        matches!(self, Self::Embedded | Self::LimitsEmbedded)
    }
}

macro_rules! scenarios {
    ($($name:literal $play:path;)*) => {
        &[$(Scenario { name: $name, play: |world| Box::pin($play(world)) }),*]
    };
}

const CONFIGURATION: &[Scenario] = scenarios! {
    "kills" kills::with_messages;
    "kills-muted" kills::without_messages;
    "kills-redis-restart" kills::while_redis_restarts;
    "changes-muted" changes::without_messages;
    "price" prices::at_an_instant;
    "admins" admins::two_at_once;
    "hatches" hatches::every_one;
    "hatches-restart" hatches::survive_restarts;
    "redis-down" outages::redis_down;
    "database-down" outages::database_down;
    "both-down" outages::both_down;
    "slow" outages::slow_and_half_open;
    "cold-start" cold::every_row;
    "sigterm" shutdown::with_running_streams;
};

const EMBEDDED: &[Scenario] = scenarios! {
    "kills" kills::with_messages;
    "price" prices::at_an_instant;
    "admins" admins::two_at_once;
    "hatches" hatches::every_one;
    "hatches-restart" hatches::survive_restarts;
    "sigterm" shutdown::with_running_streams;
};

const ROUTING: &[Scenario] = scenarios! {
    "storms" routing::of_every_kind;
    "first-fails" routing::fails;
    "retry-after" routing::are_kept;
    "all-down" routing::everything;
    "by-hand" routing::obeyed;
    "records" routing::tell_all;
    "billing" routing::against_the_truth;
};

const LIMITS: &[Scenario] = scenarios! {
    "races" limits::pass_exactly;
    "rates" limits::keep_time;
    "flush" limits::is_flushed;
    "paused" limits::is_paused;
    "failover" limits::fails_over;
    "modes" limits::changes_live;
    "waiters" limits::stand_in_line;
    "seats" limits::of_a_node_that_dies;
    "billing" limits::against_the_truth;
    "tasks" limits::end_once;
};

const LIMITS_EMBEDDED: &[Scenario] = scenarios! {
    "races" limits::pass_exactly;
    "rates" limits::keep_time;
    "modes" limits::changes_live;
    "waiters" limits::stand_in_line;
    "billing" limits::against_the_truth;
    "tasks" limits::end_once;
};

/// What a plan asks for.
///
/// # Errors
/// When it names a scenario that does not exist.
pub(crate) fn chosen(plan: &Plan) -> Result<Vec<Scenario>> {
    let all = match plan.group {
        Group::Configuration => CONFIGURATION,
        Group::Routing => ROUTING,
        Group::Embedded => EMBEDDED,
        Group::Limits => LIMITS,
        Group::LimitsEmbedded => LIMITS_EMBEDDED,
    };
    if let Some(unknown) = plan.only.iter().find(|only| all.iter().all(|s| s.name != **only)) {
        let known: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
        bail!("there is no scenario {unknown}; known: {}", known.join(", "));
    }
    let asked = |s: &&Scenario| plan.only.is_empty() || plan.only.iter().any(|o| o == s.name);
    Ok(all.iter().filter(asked).copied().collect())
}
