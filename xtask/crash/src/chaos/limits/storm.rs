//! Redis is flushed, paused and lost in the middle of a load on budgets and slots.
//!
//! Three keys are called at once: one with a budget of its own, one whose token group has a budget,
//! one with few slots. Redis is broken again and again while the budgets are used up, and once more
//! when they are. Invariant: a budget holds when what was charged stays within it, both as the
//! books say and as the provider's own count comes to.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::clients::{Crowd, Habit, Told};
use super::rows::{self, Charged};
use super::slots;
use crate::books::Books;
use crate::chaos::load::Lane;
use crate::chaos::table::Line;
use crate::chaos::world::{APP, World};
use crate::money::{SALE, dollars, nano, owed};
use crate::operator::Key;

/// Clients of each node.
const PER_NODE: usize = 12;

/// No reply may take longer, whatever Redis does.
const NEVER_LONGER: Duration = Duration::from_secs(5);

/// A client gives up then; what it sent counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two breaks, so that load, repair and break overlap in every order.
const BETWEEN: Duration = Duration::from_millis(BETWEEN_MS);
const BETWEEN_MS: u64 = 1_300;

/// Longer than nodes go on with their shares after Redis is back.
const HEALED: Duration = Duration::from_secs(5);

/// Longer than a lease.
const LEASED: Duration = Duration::from_secs(33);

/// Budgets must be used up by then.
const USED_UP_WITHIN: Duration = Duration::from_mins(5);

/// Slots of the third key.
const SLOTS: usize = 4;

/// Fewer calls prove nothing.
const LEAST: usize = 50;

/// What a call comes to, about; a budget is for so many of them. Nano-dollars.
const ABOUT: u64 = 53_000;

/// How often Redis is broken before the budgets are used up.
const BREAKS: usize = 6;

/// Who is called, and what they may spend.
struct Set {
    name: &'static str,
    own: Key,
    grouped: Key,
    slotted: Key,
    /// Of each of the two budgets, nano-dollars.
    budget: i64,
}

/// Everything in Redis is forgotten, again and again.
///
/// # Errors
/// When something that is not under test fails.
pub(crate) async fn is_flushed(world: &mut World) -> Result<Vec<Line>> {
    world.restart(&[]).await?;
    play(world, "flush", async |world: &mut World, _n| world.stores.redis.command("FLUSHALL").await)
        .await
}

/// Redis stands still, as a process and by its own command, and is killed and comes back empty.
///
/// # Errors
/// As before.
pub(crate) async fn is_paused(world: &mut World) -> Result<Vec<Line>> {
    world.restart(&[]).await?;
    play(world, "paused", async |world: &mut World, n: usize| match n % 3 {
        0 => {
            world.stores.redis.freeze(true)?;
            sleep(Duration::from_secs(2)).await;
            world.stores.redis.freeze(false)
        }
        1 => {
            world.stores.redis.command("CLIENT PAUSE 2000 ALL").await?;
            sleep(Duration::from_secs(2)).await;
            Ok(())
        }
        _ => {
            world.stores.redis.kill()?;
            sleep(Duration::from_secs(1)).await;
            world.stores.redis.begin().await.map(drop)
        }
    })
    .await
}

/// See the module. `strike` breaks Redis and gives it back, and is told which time it is.
///
/// # Errors
/// When something that is not under test fails.
pub(super) async fn play(
    world: &mut World,
    name: &'static str,
    mut strike: impl AsyncFnMut(&mut World, usize) -> Result<()>,
) -> Result<Vec<Line>> {
    let set = Set::make(world, name).await?;
    let habit =
        Habit { per_node: PER_NODE, per_second: world.plan.calls_per_second, patience: PATIENCE };
    let crowd = Crowd::start(&world.nodes(), &set.lanes(), habit);
    sleep(BETWEEN).await;
    for n in 0..BREAKS {
        strike(world, n).await?;
        sleep(BETWEEN).await;
    }
    used_up(&crowd).await?;
    // What forgets that everything is spent must ask before it lets anything pass.
    for n in 0..3 {
        strike(world, n).await?;
        sleep(BETWEEN).await;
    }
    let told = crowd.stop().await;
    world.kept.keep(&told);
    sleep(HEALED).await;
    let mut lines = answers(name, &told);
    lines.extend(set.spent(world, &told).await?);
    lines.extend(set.slots(world).await?);
    Ok(lines)
}

/// Waits until both budgets refuse every call.
async fn used_up(crowd: &Crowd) -> Result<()> {
    let until = Instant::now() + USED_UP_WITHIN;
    loop {
        let told = crowd.since(Instant::now() - Duration::from_secs(2));
        let refuses = |lane: usize| {
            let mut of = told.iter().filter(|told| told.lane == lane).peekable();
            of.peek().is_some() && of.all(|told| told.is_refused("budget_exceeded"))
        };
        if refuses(0) && refuses(1) {
            return Ok(());
        }
        if Instant::now() > until {
            let last: BTreeSet<_> =
                told.iter().map(|told| (told.lane, told.status, told.reason.as_str())).collect();
            bail!("the budgets are not used up; the last answers: {last:?}");
        }
        sleep(Duration::from_millis(200)).await;
    }
}

impl Set {
    async fn make(world: &mut World, name: &'static str) -> Result<Self> {
        let steady = format!("{name}-steady");
        rows::alias(world, &steady, ("+latency:60", Charged::Tokens)).await?;
        slots::make(world).await?;
        // For as many calls as come in the breaks, and half as many again.
        let seconds = (BREAKS as u64 + 1) * BETWEEN_MS * 3 / 2 / 1_000;
        let calls = (world.plan.calls_per_second * seconds / 3).max(LEAST as u64);
        let budget = dollars(i64::try_from(calls * ABOUT)?);
        let purse = json!([{"kind": "cost", "window": "total", "limit": budget}]);
        let slots = json!([{"kind": "concurrency", "limit": SLOTS}]);
        let (purse_code, slots_code) = (format!("{name}-purse"), format!("{name}-slots"));
        rows::quota(world, &purse_code, &purse).await?;
        rows::quota(world, &slots_code, &slots).await?;
        let group = json!({"code": name, "aliases": ["*"], "quota": purse_code});
        let admin = world.admin(0)?;
        let revision = admin.change(http::Method::POST, "/token-groups", &group).await?;
        rows::known(world, revision).await?;
        Ok(Self {
            name,
            own: rows::key(world, APP, &json!({"name": "own", "quota": purse_code})).await?,
            grouped: rows::key(world, APP, &json!({"name": "group", "token_group": name})).await?,
            slotted: rows::key(world, APP, &json!({"name": "slots", "quota": slots_code})).await?,
            budget: nano(&budget)?,
        })
    }

    fn lanes(&self) -> Vec<Lane> {
        let steady = format!("{}-steady", self.name);
        vec![
            rows::lane("chat", &self.own),
            rows::lane("chat", &self.grouped),
            rows::lane(&steady, &self.slotted),
        ]
    }

    /// What each budget was charged, as the books say and as the provider's count comes to.
    async fn spent(&self, world: &mut World, told: &[Told]) -> Result<Vec<Line>> {
        let open = world.settled().await?;
        let books = Books::read(&world.stores.database).await?;
        let truth = world.provider.truth(Duration::from_secs(30)).await?;
        let name = self.name;
        let mut lines =
            vec![Line::check(&format!("{name}: no hold is open"), open == 0, &open.to_string())];
        for (lane, what, key) in [(0, "key", &self.own), (1, "token group", &self.grouped)] {
            let of = |id: &str| books.holds.get(id).filter(|hold| hold.kid == key.kid);
            let holds = books.holds.values().filter(|hold| hold.kid == key.kid);
            let booked: i64 = holds.map(|hold| hold.settled + hold.uncollected).sum();
            let mut worth = 0;
            for call in &truth {
                if call.request_id.as_deref().and_then(of).is_some() {
                    worth += owed(&SALE, &call.billed)?;
                }
            }
            let served = told.iter().filter(|told| told.lane == lane && told.status == 200);
            let served = served.count();
            let found = format!(
                "{} booked, {} by the truth log, {served} calls, of {}",
                dollars(booked),
                dollars(worth),
                dollars(self.budget)
            );
            let holds = booked <= self.budget && worth <= self.budget && served >= LEAST;
            lines.push(Line::check(
                &format!("{name}: the budget of a {what} is used up and never overspent"),
                holds,
                &found,
            ));
        }
        Ok(lines)
    }

    /// Whether all slots can be had again, and not one more. A slot whose return Redis did not hear
    /// of is free when its lease is over.
    async fn slots(&self, world: &mut World) -> Result<Vec<Line>> {
        let waited = Instant::now();
        while rows::used(world, (0, &self.slotted)).await? != 0 && waited.elapsed() < LEASED {
            sleep(Duration::from_millis(200)).await;
        }
        let free = waited.elapsed() + HEALED;
        let lane = rows::lane(slots::GATED, &self.slotted);
        let told = slots::fill(world, &lane, (SLOTS * 6, SLOTS * 6, SLOTS)).await?;
        world.kept.keep(&told);
        let passed = told.iter().filter(|told| told.status == 200).count();
        let refused = told.iter().filter(|told| told.is_refused("concurrency_limited")).count();
        let what = format!("{}: from the last call until every slot is free", self.name);
        let afterwards = format!("{}: afterwards exactly {SLOTS} slots can be had", self.name);
        let found = format!("{passed} passed, {refused} were refused");
        let holds = passed == SLOTS && refused == SLOTS * 5;
        Ok(vec![
            Line::times(&what, &[free], HEALED + LEASED),
            Line::check(&afterwards, holds, &found),
        ])
    }
}

/// What clients were told, and how soon.
fn answers(name: &str, told: &[Told]) -> Vec<Line> {
    let fits = |told: &Told| match told.lane {
        0 | 1 => told.status == 200 || told.is_refused("budget_exceeded"),
        _ => told.status == 200 || told.is_refused("concurrency_limited"),
    };
    let odd: Vec<&Told> = told.iter().filter(|told| !fits(told)).collect();
    for told in odd.iter().take(3) {
        eprintln!("anima-chaos: {name}: odd: {told:?}");
    }
    let took: Vec<Duration> = told.iter().map(|told| told.took).collect();
    vec![
        Line::none_of(
            &format!("{name}: answers that are neither served nor refused by their limit"),
            odd.len(),
            (told.len(), LEAST),
        ),
        Line::times(&format!("{name}: a reply"), &took, NEVER_LONGER),
    ]
}
