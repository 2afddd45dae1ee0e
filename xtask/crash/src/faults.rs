//! The schedule of faults, and what carries it out.
//!
//! Kills come every one to three seconds; the other faults are spread evenly between them. A kill
//! hits a node that stands, now and then also one that is just starting; on SQLite every second one
//! waits for a commit and hits the node while it writes. A zombie is stopped beside
//! everything else, so that the others go on and take its holds over.
//! Invariant: when `play` returns, every node runs, nothing is stopped, and nothing is cut.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;
use crate::place::Place;
use crate::plan::{Fault, Plan};
use crate::process::now_us;
use crate::seed::Seed;
use crate::wal::{self, Aimed};

/// Kills for one of each other fault.
const KILLS_PER_FAULT: u64 = 40;

/// Kills in a hundred that hit the node again while it starts.
const TWICE: u64 = 8;

/// Kills in a hundred on SQLite that are aimed at a commit, and how long one is waited for.
const AIMED: u64 = 50;
const COMMIT_WITHIN: Duration = Duration::from_millis(500);

/// What happened, beside the kills, which the fleet remembers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) fault: Fault,
    /// The node that was stopped.
    pub(crate) node: Option<usize>,
    /// Microseconds since 1970.
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
}

/// Plays the whole schedule.
///
/// # Errors
/// When a process cannot be started or signalled any more.
pub(crate) async fn play(
    plan: &Plan,
    (fleet, place): (&mut Fleet, &Place),
    kinds: &[Fault],
) -> Result<(Vec<Event>, Aimed)> {
    let mut stage = Stage {
        plan,
        fleet,
        place,
        seed: Seed::fork(plan.seed, "faults"),
        zombie: None,
        events: vec![],
        aimed: Aimed::default(),
    };
    let others: Vec<Fault> = kinds.iter().copied().filter(|kind| *kind != Fault::Kill).collect();
    let each = (plan.kills / KILLS_PER_FAULT).max(1);
    let total = each * others.len() as u64;
    let (mut done, turns) = (0, plan.kills.max(total));
    for turn in 0..turns {
        stage.rest().await?;
        if turn < plan.kills && kinds.contains(&Fault::Kill) {
            stage.kill().await?;
        }
        // Evenly: as many are done as the share of the turns that are over.
        while done < total && (turn + 1) * total >= (2 * done + 1) * turns / 2 {
            let kind = others.iter().cycle().nth(usize::try_from(done)?);
            stage.one(*kind.context("no fault is left")?).await?;
            done += 1;
        }
        if (turn + 1) % 10 == 0 {
            eprintln!("anima-crash: {} of {turns} turns", turn + 1);
        }
    }
    stage.let_go(true).await?;
    let revived = stage.fleet.revive().await?;
    if revived > 0 {
        eprintln!("anima-crash: {revived} nodes had ended by themselves");
    }
    Ok((stage.events, stage.aimed))
}

struct Stage<'a> {
    plan: &'a Plan,
    fleet: &'a mut Fleet,
    place: &'a Place,
    seed: Seed,
    /// A stopped node: which, since when, and when it goes on.
    zombie: Option<(usize, i64, Instant)>,
    events: Vec<Event>,
    aimed: Aimed,
}

impl Stage<'_> {
    /// Waits for one to three seconds, and lets a zombie go whose time has come.
    async fn rest(&mut self) -> Result<()> {
        sleep(Duration::from_millis(self.seed.between(1_000, 3_000))).await;
        self.let_go(false).await
    }

    async fn kill(&mut self) -> Result<()> {
        if self.fleet.standing().is_empty() {
            self.let_go(true).await?;
        }
        let node = self.seed.pick(&self.fleet.standing()).copied();
        let node = node.context("no node stands")?;
        match self.place {
            Place::Sqlite(file) if self.seed.percent(AIMED) => {
                self.kill_in_commit(node, wal::beside(file)).await?;
            }
            Place::Sqlite(_) | Place::Postgres(_) => self.fleet.kill(node)?,
        }
        self.fleet.launch(node)?;
        if self.seed.percent(TWICE) {
            sleep(Duration::from_millis(self.seed.below(150))).await;
            self.fleet.kill(node)?;
            self.fleet.launch(node)?;
        }
        self.fleet.ready(node).await
    }

    /// Kills a node once it has begun to write a transaction and before it can know it durable.
    async fn kill_in_commit(&mut self, node: usize, log: std::path::PathBuf) -> Result<()> {
        let seen = log.clone();
        let writes =
            tokio::task::spawn_blocking(move || wal::until_written(&seen, COMMIT_WITHIN)).await?;
        self.fleet.kill(node)?;
        self.aimed.kills += usize::from(writes);
        self.aimed.unfinished += usize::from(writes && wal::is_unfinished(&log));
        Ok(())
    }

    async fn one(&mut self, fault: Fault) -> Result<()> {
        let from_us = now_us();
        match (fault, self.place.postgres()) {
            (Fault::Stop, _) => return self.stop(),
            (Fault::PgRestart, Some(behind)) => {
                let server = behind.server.clone();
                tokio::task::spawn_blocking(move || server.restart()).await??;
            }
            (Fault::PgPause, Some(behind)) => {
                let length = Duration::from_millis(self.seed.between(1_000, 8_000));
                behind.server.pause(length).await?;
            }
            (Fault::PgPauseKill, Some(behind)) => {
                let pause = Duration::from_millis(self.seed.between(7_500, 9_500));
                let spooling = Duration::from_millis(self.seed.between(5_500, 7_000));
                let late = Duration::from_millis(self.seed.between(17_000, 20_000));
                let node = self.seed.pick(&self.fleet.standing()).copied();
                let node = node.context("no node stands")?;
                let fleet = &mut *self.fleet;
                let killing = async {
                    sleep(spooling).await;
                    fleet.kill(node)
                };
                tokio::try_join!(behind.server.pause(pause), killing)?;
                if self.seed.percent(50) {
                    sleep(late).await;
                }
                self.fleet.launch(node)?;
                self.fleet.ready(node).await?;
            }
            (Fault::PgCut, Some(behind)) => {
                let deaf = if self.seed.percent(50) { self.seed.between(5, 400) } else { 0 };
                let closed = self.seed.between(20, 2_500);
                behind.proxy.cut(Duration::from_millis(deaf), Duration::from_millis(closed)).await;
            }
            (
                Fault::Kill | Fault::PgRestart | Fault::PgPause | Fault::PgPauseKill | Fault::PgCut,
                _,
            ) => return Ok(()),
        }
        self.events.push(Event { fault, node: None, from_us, to_us: now_us() });
        Ok(())
    }

    /// Stops a node, unless one is stopped already.
    fn stop(&mut self) -> Result<()> {
        if self.zombie.is_none()
            && let Some(node) = self.seed.pick(&self.fleet.standing()).copied()
        {
            self.fleet.freeze(node, true)?;
            self.zombie = Some((node, now_us(), Instant::now() + self.plan.stopped));
        }
        Ok(())
    }

    /// Lets a zombie go on, if it is time; `wait` waits for that.
    async fn let_go(&mut self, wait: bool) -> Result<()> {
        let Some((node, from_us, until)) = self.zombie else {
            return Ok(());
        };
        if wait {
            tokio::time::sleep_until(until).await;
        }
        if Instant::now() >= until {
            self.zombie = None;
            // Noted before: what it does when it goes on is its own doing.
            let event = Event { fault: Fault::Stop, node: Some(node), from_us, to_us: now_us() };
            self.fleet.freeze(node, false)?;
            self.events.push(event);
        }
        Ok(())
    }
}
