//! Settings → a running node. The only place that wires everything.
//!
//! Order matters: the master key, then the database with its schema, then the configuration, then
//! the socket. A PostgreSQL that does not answer is opened later (`opening`). Invariant: a node
//! that listens can serve or says that it cannot; what cannot be wired stops the start.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;
use zeroize::Zeroizing;

use anima_core::clock::{Clock, Rng, mint_id};
use anima_store::database::{self, Location, Opener, Stores};
use anima_store::ledger::spool::{SpoolObserver, SpooledLedger};
use anima_store::ledger::{LedgerStore, Off};
use anima_store::probes::Probes;
use anima_store::quota::QuotaStore;
use anima_store::quota::memory::MemoryQuotas;
use anima_store::quota::outage::SharedQuotas;
use anima_store::quota::redis::RedisQuotas;
use anima_store::redis;
use anima_store::shared::Shared;

pub(crate) mod background; // what a node does beside answering
mod files; // what lies in the data directory beside the database
mod opening; // the database of a node that started while it was away
mod stop; // between not ready and the closed listener

use crate::admin::{Admin, expiry};
use crate::api::idempotency::{self, Bounds, Idempotency};
use crate::api::{Plane, heartbeat, tasks};
use crate::app::App;
use crate::circuits::Circuits;
use crate::clock::{SystemClock, SystemRng};
use crate::dependencies::Dependencies;
use crate::http::body::Room;
use crate::http::server;
use crate::live::{Live, Sources, spread};
use crate::metrics::Metrics;
use crate::nodes;
use crate::outbound::Outbound;
use crate::relay::admission::Admission;
use crate::relay::keeper::Keeper;
use crate::relay::records::Records;
use crate::relay::steer::Allowed;
use crate::relay::stream::unread::Unread;
use crate::relay::{Limits, Relay, lease, recovery};
use crate::reporting::Reporting;
use crate::router;
use crate::second_level::{self, SecondLevel};
use crate::secrets::Secrets;
use crate::settings::{Billing, Listen, Settings, Switch};
use crate::shortfall::{Late, Shortfalls};
use crate::watch::{Rounds, Watch};
use background::after;
use files::{master_key, prepare_data_dir};
use opening::{Opening, first_token};
use stop::Stopping;

pub use files::{read_secret, write_secret};

/// The file of settlements that wait for the database, in the data directory.
const SPOOL: &str = "settlements.spool";
/// How long a start waits for what is in it.
const SPOOL_WITHIN: Duration = Duration::from_secs(10);
/// How long a start waits for Redis before it goes on without.
const REDIS_WITHIN: Duration = Duration::from_secs(1);

/// Everything of a node that is ready to listen.
#[derive(Debug)]
pub struct Node {
    /// What probes see.
    pub app: Arc<App>,
    /// What the admin API acts with.
    pub admin: Admin,
    /// What the data plane acts with.
    pub plane: Arc<Plane>,
    stopping: Stopping,
    /// How often the books are looked at.
    audits: Option<Rounds>,
    /// Where the database says its own word of changes; `None` when nobody is to hear it.
    listens: Option<Location>,
    opening: Opening,
    /// The first admin token, when it can only be made later.
    pub late_token: Option<oneshot::Receiver<Zeroizing<String>>>,
}

/// Wires a node.
///
/// # Errors
/// One line that says what cannot be opened, and which setting to change.
pub async fn node(settings: &Settings) -> Result<Node, String> {
    prepare_data_dir(settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);
    let metrics = Arc::new(Metrics::new().map_err(|e| format!("metrics: {e}"))?);
    metrics.started(clock.now());
    let secrets = Arc::new(master_key(settings)?);
    let location = location(settings)?;
    let shared = shared(settings).await?;
    let opener = Opener { node: mint_id(clock.now(), &*rng), observer: metrics.clone() };
    let (mut stores, mut opening) = opening::stores(&location, &opener)
        .await
        .map_err(|e| format!("setting `database_url`: {e}"))?;
    let (dependencies, second) = second_level::install(&mut stores, &shared, &secrets, &metrics);
    let ledger = (settings.billing == Billing::On).then(|| Arc::clone(&stores.ledger));
    let late_token = opening.prepare(&stores.schema, ledger, settings.admin_token.given());
    let late = Arc::new(Late::new(&metrics));
    // The lease that `alive` asks for counts from here at the latest.
    let term = lease::Term::new(opener.node, tokio::time::Instant::now());
    if settings.billing == Billing::On {
        stores.ledger = alive(settings, &stores, (opener.node, &opening), &late).await?;
    }
    let from = sources(&stores, &shared, Some(second), opener.node);
    let live = configuration(from, (&secrets, &clock), &opening).await?;
    if !opening.is_done() {
        dependencies.await_opening();
    }
    let watch = Arc::new(watch_of(&stores, &metrics, &clock));
    let counters = counters(&shared, opener.node);
    let circuits = circuits((&clock, &rng, &metrics), (&shared, &counters));
    live.drive(Arc::clone(&circuits));
    let parts = (&live, &metrics, &dependencies, &clock);
    let nodes = nodes::join(opener.node, parts, &stores, &shared);
    let records = Records::of(settings, &stores, (&metrics, &clock), opener.node);
    let parts = (&stores, &live, &metrics, (&circuits, &dependencies, &records));
    let relay = relay(settings, parts, (&clock, &rng), (&watch, term, &late, &counters))?;
    let plane = Plane {
        relay: Arc::new(relay),
        secrets: Arc::clone(&secrets),
        body_bytes_max: settings.body_bytes_max,
        body_within: Duration::from_millis(settings.body_timeout_ms),
        room: Room::new(settings.bodies_bytes_max),
        idempotency: Arc::new(answers(settings, &stores, &secrets)),
        tasks: Arc::new(tasks::Tasks::new(&stores, &secrets, opener.node, settings)),
        beats: heartbeat::Beats::of(settings),
    };
    let app = App {
        stores: stores.clone(),
        dependencies,
        shared,
        live: Arc::clone(&live),
        circuits: Arc::clone(&circuits),
        metrics,
        watch: Arc::clone(&watch),
        clock: Arc::clone(&clock),
        draining: AtomicBool::new(false),
        database: database_name(&location),
    };
    let at_work = (secrets, live, circuits, nodes, Some(Arc::clone(&plane.relay.admission)));
    Ok(Node {
        app: Arc::new(app),
        admin: Admin::new(settings, stores, at_work, (watch, records, clock, rng)),
        plane: Arc::new(plane),
        stopping: Stopping::of(settings),
        audits: Rounds::of(settings, opener.node),
        listens: (settings.database_listen == Listen::On).then_some(location),
        opening,
        late_token,
    })
}

fn circuits(
    parts: (&Arc<dyn Clock>, &Arc<dyn Rng>, &Arc<Metrics>),
    (shared, counters): (&Shared, &Arc<dyn QuotaStore>),
) -> Arc<Circuits> {
    let (clock, rng, metrics) = parts;
    let parts = (Arc::clone(clock), Arc::clone(rng), Arc::clone(metrics));
    let seats = shared.redis.is_some().then(|| Arc::clone(counters));
    Arc::new(Circuits::new(parts, Probes::of(shared)).seating(seats))
}

fn watch_of(stores: &Stores, metrics: &Arc<Metrics>, clock: &Arc<dyn Clock>) -> Watch {
    Watch::new(Arc::clone(&stores.auditor), Arc::clone(metrics), Arc::clone(clock))
}

/// The configuration in force, from the database or from what was kept of it.
async fn configuration(
    from: Sources,
    (secrets, clock): (&Arc<Secrets>, &Arc<dyn Clock>),
    opening: &Opening,
) -> Result<Arc<Live>, String> {
    let (secrets, clock) = (Arc::clone(secrets), Arc::clone(clock));
    if !opening.is_done() {
        return Ok(Arc::new(Live::without_database(from, secrets, clock).await));
    }
    let live = Live::load(from, secrets, clock).await;
    live.map(Arc::new).map_err(|e| format!("failed to read the configuration: {e}"))
}

/// What commands that do not serve work with: the same database, configuration and secrets.
///
/// # Errors
/// One line that says what cannot be opened, and which setting to change.
pub async fn desk(settings: &Settings) -> Result<Admin, String> {
    prepare_data_dir(settings)?;
    let (clock, rng): (Arc<dyn Clock>, Arc<dyn Rng>) = (Arc::new(SystemClock), Arc::new(SystemRng));
    let observer = Arc::new(Metrics::new().map_err(|e| format!("metrics: {e}"))?);
    let secrets = Arc::new(master_key(settings)?);
    let opener = Opener { node: mint_id(clock.now(), &*rng), observer: observer.clone() };
    let stores = database::open(&location(settings)?, &opener)
        .await
        .map_err(|e| format!("setting `database_url`: {e}"))?;
    let from = sources(&stores, &Shared::in_process(), None, opener.node);
    let live = Live::load(from, Arc::clone(&secrets), Arc::clone(&clock))
        .await
        .map_err(|e| format!("failed to read the configuration: {e}"))?;
    let parts = (Arc::clone(&clock), Arc::clone(&rng), Arc::clone(&observer));
    let circuits = Circuits::new(parts, Probes::in_process());
    let watch = Watch::new(Arc::clone(&stores.auditor), Arc::clone(&observer), Arc::clone(&clock));
    let (live, circuits, watch) = (Arc::new(live), Arc::new(circuits), Arc::new(watch));
    let (probe, shared) = (Arc::clone(&stores.probe), Shared::in_process());
    let dependencies = Arc::new(Dependencies::new(probe, shared.clone(), Arc::clone(&observer)));
    let nodes =
        nodes::join(opener.node, (&live, &observer, &dependencies, &clock), &stores, &shared);
    let records = Records::of(settings, &stores, (&observer, &clock), opener.node);
    let at_work = (secrets, live, circuits, nodes, None);
    Ok(Admin::new(settings, stores, at_work, (watch, records, clock, rng)))
}

/// What this node shares with others. A Redis that is away does not stop the start.
async fn shared(settings: &Settings) -> Result<Shared, String> {
    let Some(url) = settings.redis_url.given() else { return Ok(Shared::in_process()) };
    let options = redis::Options {
        timeout: Duration::from_millis(settings.redis_timeout_ms),
        failures_max: settings.redis_failures_max,
        prefix: settings.redis_prefix.clone(),
    };
    let wrong = |e: &dyn std::fmt::Display| format!("setting `redis_url`: {e}");
    let shared = Shared::over_redis(url, options).map_err(|e| wrong(&e))?;
    if let Some(redis) = &shared.redis
        && !redis.ready(REDIS_WITHIN).await.map_err(|e| wrong(&e))?
    {
        tracing::warn!("redis does not answer; serving without shared state until it does");
    }
    Ok(shared)
}

/// What the configuration is read from.
fn sources(stores: &Stores, shared: &Shared, second: Option<SecondLevel>, node: Uuid) -> Sources {
    Sources {
        config: Arc::clone(&stores.config),
        keys: Arc::clone(&stores.keys),
        publish: Arc::clone(&stores.publish),
        pubsub: Arc::clone(&shared.pubsub),
        second,
        node: node.to_string(),
    }
}

/// The database, as probes show it.
const fn database_name(location: &Location) -> &'static str {
    match location {
        Location::Sqlite(_) => "sqlite",
        Location::Postgres(_) => "postgresql",
    }
}

/// The counters of limits: of all nodes where they share a Redis, else of this process.
fn counters(shared: &Shared, node: Uuid) -> Arc<dyn QuotaStore> {
    match &shared.redis {
        Some(redis) => {
            let nodes = Arc::default();
            let all = RedisQuotas::new(redis.clone(), node, Arc::clone(&nodes));
            let all = all.hearing(&shared.pubsub);
            Arc::new(SharedQuotas::new(Arc::new(all), node, nodes))
        }
        None => Arc::new(MemoryQuotas::default()),
    }
}

/// What a relay is made of and others have too.
type Parts<'a> = (
    &'a Stores,
    &'a Arc<Live>,
    &'a Arc<Metrics>,
    (&'a Arc<Circuits>, &'a Arc<Dependencies>, &'a Arc<Records>),
);

fn relay(
    settings: &Settings,
    (stores, live, metrics, (circuits, dependencies, records)): Parts<'_>,
    (clock, rng): (&Arc<dyn Clock>, &Arc<dyn Rng>),
    (watch, term, late, counters): (&Arc<Watch>, lease::Term, &Arc<Late>, &Arc<dyn QuotaStore>),
) -> Result<Relay, String> {
    let ledger: Arc<dyn LedgerStore> = match settings.billing {
        Billing::On => Arc::clone(&stores.ledger),
        Billing::Off => {
            tracing::warn!("billing is off: calls are neither held nor booked");
            Arc::new(Off)
        }
    };
    let tasks = TaskTracker::new();
    let admission = Admission::new(
        (Arc::clone(counters), Arc::clone(&stores.spend)),
        (Arc::clone(live), Arc::clone(metrics)),
        Arc::clone(clock),
        tasks.clone(),
    );
    let admission = Arc::new(admission);
    Ok(Relay {
        admission,
        live: Arc::clone(live),
        ledger,
        circuits: Arc::clone(circuits),
        outbound: Outbound::allowing(&settings.outbound_allow_private)
            .map_err(|e| format!("TLS: {e}"))?,
        metrics: Arc::clone(metrics),
        clock: Arc::clone(clock),
        rng: Arc::clone(rng),
        term,
        limits: Limits {
            answer_bytes_max: settings.answer_bytes_max,
            hold_output_tokens: settings.hold_output_tokens,
            budget_output_tokens: settings.budget_output_tokens,
            budget_repair: settings.budget_repair(),
            min_output_tokens: settings.min_output_tokens,
            retry_wait: Duration::from_millis(settings.retry_wait_max_ms),
            allowed: Allowed {
                steering: settings.caller_steering == Switch::On,
                trace: settings.caller_trace == Switch::On,
            },
            drain: Duration::from_millis(settings.drain_timeout_ms),
            partial: settings.partial_streams,
            hold_exhausted: settings.hold_exhausted,
        },
        watch: Arc::clone(watch),
        shortfalls: Arc::new(Shortfalls::new(settings, stores, (live, metrics, late), clock)),
        reporting: Reporting::default(),
        keeper: Keeper::default(),
        tasks,
        cut: CancellationToken::new(),
        unread: Unread::default(),
        dependencies: Arc::clone(dependencies),
        records: Arc::clone(records),
    })
}

fn answers(settings: &Settings, stores: &Stores, secrets: &Arc<Secrets>) -> Idempotency {
    let bounds = Bounds {
        keep_ms: i64::try_from(settings.idempotency_keep_ms).unwrap_or(i64::MAX),
        answer_bytes_max: settings.idempotency_answer_bytes_max,
    };
    Idempotency::new(Arc::clone(&stores.idempotency), Arc::clone(secrets), bounds)
}

/// Takes the lease of this process, and puts the spool around the ledger. What an earlier process
/// left in the spool is written before anything is served.
async fn alive(
    settings: &Settings,
    stores: &Stores,
    (node, opening): (Uuid, &Opening),
    late: &Arc<Late>,
) -> Result<Arc<dyn LedgerStore>, String> {
    let (ledger, keys) = (Arc::clone(&stores.ledger), Arc::clone(&stores.idempotency));
    let path = settings.data_dir.join(SPOOL);
    let observer = Arc::clone(late) as Arc<dyn SpoolObserver>;
    let wrong = |e: std::io::Error| format!("setting `data_dir`: {}: {e}", path.display());
    if !opening.is_done() {
        let opened = opening.opened.clone().cancelled_owned();
        let spooled = SpooledLedger::open(ledger, keys, &path, observer, opened).await;
        return Ok(Arc::new(spooled.map_err(wrong)?));
    }
    ledger
        .register(lease::registration(node))
        .await
        .map_err(|e| format!("failed to register this node: {e}"))?;
    // Holds of dead processes first, for those in the spool can be closed by their owner alone.
    recovery::take_over(&*ledger)
        .await
        .map_err(|e| format!("failed to take over open holds: {e}"))?;
    let spooled = SpooledLedger::open(ledger, keys, &path, observer, std::future::ready(()))
        .await
        .map_err(wrong)?;
    if !spooled.drained(SPOOL_WITHIN).await {
        tracing::error!(
            "settlements of an earlier process wait; calls are refused until they are written"
        );
    }
    Ok(Arc::new(spooled))
}

/// Where the database is.
///
/// # Errors
/// A wrong URL.
pub fn location(settings: &Settings) -> Result<Location, String> {
    match settings.database_url.given() {
        Some(url) => Location::parse(url).map_err(|e| format!("setting `database_url`: {e}")),
        None => Ok(Location::Sqlite(settings.data_dir.join("anima.db"))),
    }
}

/// An admin token that was just made, to be shown once.
pub type FirstToken = Option<Zeroizing<String>>;

/// Makes sure that there is an admin token: the one from the settings, else one that is made now
/// when there is none yet.
///
/// # Errors
/// When the database does not answer.
pub async fn ensure_admin_token(node: &Node, settings: &Settings) -> Result<FirstToken, String> {
    let Admin { stores, secrets, clock, .. } = &node.admin;
    first_token((&*stores.keys, secrets, &**clock), settings.admin_token.given()).await
}

impl Node {
    /// Whether the database was there at the start. Else only [`Node::serve`] opens it.
    pub fn is_open(&self) -> bool {
        self.opening.is_done()
    }

    /// Serves until `shutdown`, then drains: readiness off, running calls to their end or the
    /// bound, settlements to theirs.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let router = router::router(&self.app, Arc::clone(&self.plane), self.admin.clone());
        let relay = &self.plane.relay;
        let opened = self.opening.opened.clone();
        let tokens = (Arc::clone(&self.admin.stores.keys), Arc::clone(&self.admin.secrets));
        let opening = tokio::spawn(self.opening.run(Arc::clone(relay), tokens));
        let healing = after(
            &opened,
            // Switches act on running calls to their end.
            catch_up(Arc::clone(&self.app.live), Arc::clone(&self.plane), relay.cut.clone()),
        );
        let listening = after(&opened, listen(self.listens, Arc::clone(&self.app.live)));
        let sweeping = after(
            &opened,
            idempotency::sweep(Arc::clone(&self.plane.idempotency), Arc::clone(relay)),
        );
        let state = Arc::clone(&self.app.shared.state);
        let mut keeping = background::of_calls(relay, state, &opened);
        let working = tasks::start(&self.plane, &shutdown, &opened);
        keeping.extend([
            opening,
            tokio::spawn(Arc::clone(&self.admin.nodes).run()),
            after(
                &opened,
                expiry::run(
                    Arc::clone(&self.admin.stores.money),
                    Arc::clone(&self.admin.clock),
                    Arc::clone(&relay.metrics),
                ),
            ),
        ]);
        let watching =
            self.audits.map(|rounds| after(&opened, Arc::clone(&relay.watch).run(rounds)));
        let app = Arc::clone(&self.app);
        let Stopping { delay, within } = self.stopping;
        let stop = async move { stop::stopped(shutdown, &app.draining, delay).await };
        server::serve(listener, router, stop, (within, relay.cut.clone())).await;
        relay.cut.cancel();
        relay.tasks.close();
        if tokio::time::timeout(within, relay.tasks.wait()).await.is_err() {
            tracing::error!(
                open = relay.tasks.len(),
                "calls were still running at the end of the shutdown"
            );
        }
        keeping.iter().chain(&working).chain(&watching).for_each(JoinHandle::abort);
        self.plane.relay.records.finish().await;
        self.admin.nodes.leave().await;
        self.plane.relay.term.end();
        if opened.is_cancelled()
            && let Err(error) = self.plane.relay.ledger.release().await
        {
            tracing::warn!(%error, "failed to give the lease back: others wait until it is over");
        }
        healing.abort();
        listening.abort();
        sweeping.abort();
    }
}

/// Rings the bell for what the database itself says of changes.
async fn listen(location: Option<Location>, live: Arc<Live>) {
    let Some(location) = location else { return };
    database::listen(&location, &|| live.bell.notify_one()).await;
}

/// Heals what another node changed, and notes on the way whether the database answers.
async fn catch_up(live: Arc<Live>, plane: Arc<Plane>, end: CancellationToken) {
    let seen = |down| plane.relay.note_database(down);
    spread::run(live, end, &seen).await;
}
