//! Circuits as plans and attempts use them.

use std::sync::Arc;

use anima_core::clock::{ManualClock, SeededRng};
use anima_core::config::Tables;
use anima_core::failure::Failure;
use anima_store::probes::{Asked, MemoryProbes, ProbeStore, Returned};
use anima_store::quota::memory::MemoryQuotas;
use anima_store::redis::Error;
use futures_util::FutureExt as _;
use serde_json::json;

use super::*;

struct Bench {
    circuits: Arc<Circuits>,
    clock: Arc<ManualClock>,
    snapshot: Snapshot,
}

const HOUR: Duration = Duration::from_hours(1);

impl Bench {
    /// One alias, `chat`, with a route to each of the models of the channel `main`.
    fn new(models: &[&str]) -> Self {
        Self::with(models, Probes::in_process(), 7)
    }

    fn with(models: &[&str], probes: Probes, seed: u64) -> Self {
        Self::with_room(models, None, (probes, seed))
    }

    /// The same, where the channel takes only so many calls at once.
    fn with_room(models: &[&str], most: Option<u32>, (probes, seed): (Probes, u64)) -> Self {
        let clock = Arc::new(ManualClock::new(Timestamp::from_micros(1_000_000_000)));
        let row = |code: &str, body: serde_json::Value| {
            json!({"code": code, "app": null, "version_no": 1, "enabled": true, "body": body,
                "effective_from": "1970-01-01T00:00:00Z", "effective_to": null})
        };
        let routes: Vec<_> =
            models.iter().map(|model| json!({"channel": "main", "model": model})).collect();
        let channel = json!({"provider": "openai_compatible", "base_url": "http://x/v1",
            "max_concurrency": most,
            "credentials": [{"code": "a", "sealed": ""}, {"code": "b", "sealed": ""}]});
        let alias = json!({"kind": "chat", "routes": routes});
        let tables = Tables {
            channels: vec![version(&row("main", channel))],
            aliases: vec![version(&row("chat", alias))],
            ..Tables::default()
        };
        let snapshot = Snapshot::compile(&tables, Timestamp::default());
        let rng = Arc::new(SeededRng::new(seed));
        let metrics = Arc::new(Metrics::new().unwrap());
        let circuits = Circuits::new((clock.clone(), rng, metrics), probes);
        Self { circuits: Arc::new(circuits), clock, snapshot }
    }

    fn route(&self, n: usize) -> &RouteEntry {
        &self.snapshot.alias("chat").unwrap().routes[n]
    }

    fn seen(&self, n: usize) -> Option<SkipReason> {
        self.circuits.see(self.route(n), self.clock.now()).skip
    }

    fn enter(&self, n: usize, way: Way) -> Result<Ticket, SkipReason> {
        let credential = "a".into();
        let entering = self.circuits.enter(self.route(n), &credential, (way, HOUR));
        entering.now_or_never().unwrap()
    }

    fn call(&self, n: usize, failure: Option<Failure>) {
        let ticket = self.enter(n, Way::Proper).unwrap();
        ticket.end(End { failure, streams: true, first_byte: Duration::ZERO, asked_ms: None });
    }

    fn trip(&self, n: usize) {
        for _ in 0..5 {
            self.call(n, Some(Failure::ServerError));
        }
    }
}

fn version<B: serde::de::DeserializeOwned>(
    row: &serde_json::Value,
) -> anima_core::config::Version<B> {
    anima_core::config::Version {
        code: row["code"].as_str().unwrap().into(),
        app: None,
        version_no: 1,
        effective_from: Timestamp::default(),
        effective_to: None,
        enabled: true,
        body: serde_json::from_value(row["body"].clone()).unwrap(),
    }
}

#[test]
fn failures_open_the_models_circuit_and_probes_close_it() {
    let bench = Bench::new(&["m"]);
    assert_eq!(bench.seen(0), None);
    bench.trip(0);
    assert_eq!(bench.seen(0), Some(SkipReason::CircuitOpen));
    assert_eq!(bench.enter(0, Way::Proper).err(), Some(SkipReason::CircuitOpen));
    bench.clock.advance_millis(6_000);
    assert_eq!(bench.seen(0), None, "half open: calls may try");
    let mut probes = vec![];
    for _ in 0..3 {
        probes.push(bench.enter(0, Way::Proper).unwrap());
    }
    assert!(probes.iter().all(Ticket::is_probe));
    assert_eq!(bench.enter(0, Way::Proper).err(), Some(SkipReason::ProbesTaken));
    drop(probes.pop());
    probes.push(bench.enter(0, Way::Proper).expect("a dropped probe's permit is back"));
    for probe in probes {
        probe.end(End { failure: None, streams: true, first_byte: Duration::ZERO, asked_ms: None });
    }
    assert_eq!(bench.circuits.state_of(bench.route(0)), State::Closed);
}

#[test]
fn three_open_models_open_the_channel() {
    let bench = Bench::new(&["a", "b", "c", "d"]);
    for n in 0..3 {
        bench.trip(n);
    }
    assert_eq!(bench.seen(3), Some(SkipReason::ChannelCircuitOpen));
    assert_eq!(bench.enter(3, Way::Proper).err(), Some(SkipReason::ChannelCircuitOpen));
}

/// Opens a route's circuit because its first bytes are late.
fn slow_down(bench: &Bench, n: usize) {
    for _ in 0..20 {
        let ticket = bench.enter(n, Way::Proper).unwrap();
        ticket.end(End {
            failure: None,
            streams: true,
            first_byte: Duration::from_mins(1),
            asked_ms: None,
        });
    }
}

#[test]
fn a_slow_route_that_the_plan_takes_back_is_let_in() {
    let bench = Bench::new(&["m"]);
    slow_down(&bench, 0);
    assert_eq!(bench.enter(0, Way::Proper).err(), Some(SkipReason::CircuitOpen));
    let see = |_: usize, route: &RouteEntry| bench.circuits.see(route, bench.clock.now());
    let planned = || {
        let plan = anima_core::routing::plan(bench.snapshot.alias("chat").unwrap(), 1, see);
        (plan.candidates, plan.readmitted)
    };
    assert_eq!(planned(), (vec![0], vec![0]), "it is all that there is");
    let ticket = bench.enter(0, Way::Readmitted).unwrap();
    assert!(!ticket.is_probe());
    ticket.end(End { failure: None, streams: true, first_byte: Duration::ZERO, asked_ms: None });
    assert_eq!(bench.circuits.state_of(bench.route(0)), State::Open, "and it says nothing");
    bench.clock.advance_millis(6_100);
    assert_eq!(planned(), (vec![0], vec![0]), "nor are three probes enough of it");
    let calls: Vec<_> = (0..5).map(|_| bench.enter(0, Way::Readmitted).unwrap()).collect();
    assert_eq!(calls.iter().filter(|call| call.is_probe()).count(), 3);
}

#[test]
fn a_failing_route_is_not_let_in_as_a_slow_one() {
    let bench = Bench::new(&["m"]);
    bench.trip(0);
    assert_eq!(bench.enter(0, Way::Readmitted).err(), Some(SkipReason::CircuitOpen));
}

#[test]
fn an_operators_word_wins_over_what_was_found_out() {
    let bench = Bench::new(&["m"]);
    let word = |mode| Manual {
        mode,
        reason: "test".into(),
        actor: "root".into(),
        since: bench.clock.now(),
        until: Some(bench.clock.now().plus_millis(1_000)),
    };
    bench.circuits.set_manual("main", Some(word(Mode::ForcedOpen)));
    assert_eq!(bench.seen(0), Some(SkipReason::ForcedOpen));
    assert_eq!(bench.enter(0, Way::LastResort).err(), Some(SkipReason::ForcedOpen));
    assert!(bench.enter(0, Way::Forced).is_ok(), "the model's own word goes before");
    bench.clock.advance_millis(1_000);
    assert_eq!(bench.seen(0), None, "it has expired");
    bench.trip(0);
    bench.circuits.set_manual("main", Some(word(Mode::ForcedClosed)));
    assert_eq!(bench.seen(0), None);
    assert!(bench.enter(0, Way::Proper).is_ok());
    bench.circuits.set_manual("main", None);
    assert_eq!(bench.seen(0), Some(SkipReason::CircuitOpen));
    bench.circuits.reset("main", None);
    assert_eq!(bench.seen(0), None);
}

#[test]
fn a_few_trickle_through_as_a_last_resort() {
    let bench = Bench::new(&["m"]);
    bench.trip(0);
    let trickle: Vec<_> = (0..3).map(|_| bench.enter(0, Way::LastResort).unwrap()).collect();
    assert_eq!(bench.enter(0, Way::LastResort).err(), Some(SkipReason::ProbesTaken));
    drop(trickle);
    assert!(bench.enter(0, Way::LastResort).is_ok());
}

#[test]
fn nothing_trickles_beside_the_probes_of_a_circuit_that_is_half_open() {
    let bench = Bench::new(&["m"]);
    bench.trip(0);
    bench.clock.advance_millis(6_000);
    let probes: Vec<_> = (0..3).map(|_| bench.enter(0, Way::LastResort).unwrap()).collect();
    assert!(probes.iter().all(Ticket::is_probe), "they are what may try it");
    assert_eq!(bench.enter(0, Way::LastResort).err(), Some(SkipReason::ProbesTaken));
    assert!(!Circuits::is_tripped(SkipReason::ProbesTaken), "and nobody asks again");
}

#[test]
fn credentials_are_out_one_by_one_and_forgiven_when_accepted() {
    let bench = Bench::new(&["m"]);
    bench.call(0, Some(Failure::CredentialRefused));
    assert_eq!(bench.seen(0), None, "the other one is there");
    assert_eq!(bench.circuits.credentials(bench.route(0), &["a", "b"]), [1]);
    let credential = "b".into();
    let entering = bench.circuits.enter(bench.route(0), &credential, (Way::Proper, HOUR));
    let ticket = entering.now_or_never().unwrap();
    let asked_ms = Some(30_000);
    let failure = Some(Failure::RateLimited);
    ticket.unwrap().end(End { failure, streams: true, first_byte: Duration::ZERO, asked_ms });
    assert_eq!(bench.seen(0), Some(SkipReason::CoolingDown));
    let seen = bench.circuits.see(bench.route(0), bench.clock.now());
    assert_eq!(seen.until, Some(bench.clock.now().plus_millis(30_000)));
    bench.call(0, None);
    assert_eq!(bench.circuits.credentials(bench.route(0), &["a", "b"]), [0]);
}

#[test]
fn a_model_that_the_provider_does_not_know_is_out_for_long() {
    let bench = Bench::new(&["m", "n"]);
    bench.call(0, Some(Failure::UpstreamModelUnknown));
    bench.clock.advance_millis(599_000);
    assert_eq!(bench.seen(0), Some(SkipReason::CircuitOpen));
    assert_eq!(bench.seen(1), None);
}

#[test]
fn what_is_under_way_is_counted_until_its_ticket_is_gone() {
    let bench = Bench::new(&["m"]);
    let load = |bench: &Bench| bench.circuits.see(bench.route(0), bench.clock.now()).load;
    let before = load(&bench);
    let ticket = bench.enter(0, Way::Proper).unwrap();
    assert!(load(&bench) > before);
    drop(ticket);
    assert_eq!(load(&bench), before);
    let shown = bench.circuits.show(&bench.snapshot);
    assert_eq!((shown.len(), shown[0].circuits.len()), (1, 2));
}

#[test]
fn a_reset_of_one_model_leaves_the_rest_of_its_channel_alone() {
    let bench = Bench::new(&["m", "n", "o", "p"]);
    (0..3).for_each(|n| bench.trip(n));
    bench.circuits.reset("main", Some("m"));
    assert_eq!(bench.seen(3), Some(SkipReason::ChannelCircuitOpen));
    assert_eq!(bench.enter(0, Way::Proper).err(), Some(SkipReason::ChannelCircuitOpen));
    let shown = bench.circuits.show(&bench.snapshot).remove(0).circuits;
    let open = |c: &ShownCircuit| (c.state == State::Open).then(|| c.model.clone());
    let open: Vec<_> = shown.iter().filter_map(open).collect();
    assert_eq!(open, [None, Some("n".to_owned()), Some("o".to_owned())]);
}

#[test]
fn a_reset_of_one_model_ends_the_rests_of_credentials_for_it_alone() {
    let bench = Bench::new(&["m", "n"]);
    let rest = |n, credential: &str| {
        let credential = credential.into();
        let entering = bench.circuits.enter(bench.route(n), &credential, (Way::Proper, HOUR));
        let failure = Some(Failure::RateLimited);
        let end =
            End { failure, streams: true, first_byte: Duration::ZERO, asked_ms: Some(30_000) };
        entering.now_or_never().unwrap().unwrap().end(end);
    };
    for (n, credential) in [(0, "a"), (0, "b"), (1, "a"), (1, "b")] {
        rest(n, credential);
    }
    bench.circuits.reset("main", Some("m"));
    assert_eq!((bench.seen(0), bench.seen(1)), (None, Some(SkipReason::CoolingDown)));
    bench.call(0, Some(Failure::CredentialRefused));
    bench.circuits.reset("main", Some("m"));
    let usable = bench.circuits.credentials(bench.route(0), &["a", "b"]);
    assert_eq!(usable, [1], "a refused credential is no model's");
    bench.circuits.reset("main", None);
    assert_eq!((bench.seen(0), bench.seen(1)), (None, None));
}

#[tokio::test]
async fn nodes_follow_what_one_of_them_found_out() {
    let state = anima_store::shared::Shared::in_process().state;
    let (one, other) = (Bench::new(&["m"]), Bench::new(&["m"]));
    let exchange = async |bench: &Bench| {
        fleet::exchange(&bench.circuits, Some(&bench.snapshot), &*state).await.unwrap();
    };
    one.trip(0);
    exchange(&one).await;
    assert_eq!(other.seen(0), None);
    exchange(&other).await;
    assert_eq!(other.seen(0), Some(SkipReason::CircuitOpen));
    assert!(other.circuits.changes.lock().is_empty(), "what was taken over is not told again");
    other.clock.advance_millis(1);
    other.circuits.reset("main", None);
    exchange(&other).await;
    exchange(&one).await;
    assert_eq!(one.seen(0), None, "a reset reaches every node");
}

#[tokio::test]
async fn nodes_follow_a_channel_of_open_models_and_a_model_that_is_unknown() {
    let state = anima_store::shared::Shared::in_process().state;
    let models = ["a", "b", "c", "d"];
    let (one, other) = (Bench::new(&models), Bench::new(&models));
    one.call(3, Some(Failure::UpstreamModelUnknown));
    fleet::exchange(&one.circuits, Some(&one.snapshot), &*state).await.unwrap();
    fleet::exchange(&other.circuits, Some(&other.snapshot), &*state).await.unwrap();
    assert_eq!((other.seen(3), other.seen(0)), (Some(SkipReason::CircuitOpen), None));
    (0..2).for_each(|n| one.trip(n));
    assert_eq!(one.seen(3), Some(SkipReason::CircuitOpen), "an unknown model is no failing one");
    one.trip(2);
    fleet::exchange(&one.circuits, Some(&one.snapshot), &*state).await.unwrap();
    fleet::exchange(&other.circuits, Some(&other.snapshot), &*state).await.unwrap();
    assert_eq!(other.seen(3), Some(SkipReason::ChannelCircuitOpen));
}

/// Nodes that share their probes and what they tell one another.
struct Fleet {
    nodes: Vec<Bench>,
    state: Arc<dyn anima_store::shared::SharedState>,
}

impl Fleet {
    fn new(count: u64) -> Self {
        let probes = Arc::new(MemoryProbes::default());
        let node = |seed| Bench::with(&["m"], Probes::over(probes.clone()), seed);
        let nodes = (0..count).map(node).collect();
        Self { nodes, state: anima_store::shared::Shared::in_process().state }
    }

    async fn exchange(&self) {
        // Twice, so that what the last one tells reaches the first.
        for bench in self.nodes.iter().chain(&self.nodes) {
            let snapshot = Some(&bench.snapshot);
            fleet::exchange(&bench.circuits, snapshot, &*self.state).await.unwrap();
        }
    }

    fn advance(&self, ms: i64) {
        self.nodes.iter().for_each(|bench| bench.clock.advance_millis(ms));
    }
}

#[tokio::test]
async fn three_nodes_probe_with_the_permits_of_one() {
    let fleet = Fleet::new(3);
    fleet.nodes[0].trip(0);
    fleet.exchange().await;
    fleet.advance(6_100);
    let enter = |node: &Bench| node.enter(0, Way::Proper);
    let mut probes: Vec<_> = fleet.nodes.iter().map(|node| enter(node).unwrap()).collect();
    for node in &fleet.nodes {
        assert_eq!(enter(node).err(), Some(SkipReason::ProbesTaken));
    }
    drop(probes.pop());
    let last = probes.pop().unwrap();
    probes.push(enter(&fleet.nodes[0]).expect("the permit of any node comes back for all"));
    let failed = End {
        failure: Some(Failure::ServerError),
        streams: true,
        first_byte: Duration::ZERO,
        asked_ms: None,
    };
    let change = last.end(failed).get().unwrap();
    assert_eq!((change.to, change.cause), (State::Open, Cause::ProbeFailed));
    let refused = enter(&fleet.nodes[2]).err();
    assert_eq!(refused, Some(SkipReason::ProbesTaken), "who has not heard of it probes no more");
    fleet.exchange().await;
    for node in &fleet.nodes {
        assert_eq!(node.seen(0), Some(SkipReason::CircuitOpen));
    }
}

#[tokio::test]
async fn probes_that_pass_on_three_nodes_close_the_circuit_of_all() {
    let fleet = Fleet::new(3);
    fleet.nodes[0].trip(0);
    fleet.exchange().await;
    fleet.advance(6_100);
    for node in &fleet.nodes {
        node.call(0, None);
    }
    fleet.exchange().await;
    for node in &fleet.nodes {
        assert_eq!(node.circuits.state_of(node.route(0)), State::Closed);
    }
}

/// Probes whose counters take a moment, as those of other nodes do.
#[derive(Debug, Default)]
struct Distant(MemoryProbes);

#[async_trait::async_trait]
impl ProbeStore for Distant {
    async fn take(&self, circuit: &str, asked: Asked) -> Result<bool, Error> {
        self.0.take(circuit, asked).await
    }

    async fn give_back(&self, circuit: &str, returned: Returned) -> Result<u32, Error> {
        tokio::task::yield_now().await;
        self.0.give_back(circuit, returned).await
    }
}

#[tokio::test]
async fn the_probe_that_closes_a_circuit_says_so_when_the_permits_are_counted() {
    let bench = Bench::with(&["m"], Probes::over(Arc::new(Distant::default())), 7);
    bench.trip(0);
    bench.clock.advance_millis(6_100);
    let end = End { failure: None, streams: true, first_byte: Duration::ZERO, asked_ms: None };
    let mut changes = Vec::new();
    for _ in 0..3 {
        changes.push(bench.enter(0, Way::Proper).unwrap().end(end));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    let told: Vec<_> = changes.iter().map(|change| change.get().map(|c| c.to)).collect();
    assert_eq!(told, [None, None, Some(State::Closed)]);
}

#[tokio::test]
async fn nodes_share_what_providers_say_about_credentials() {
    let fleet = Fleet::new(2);
    let (one, other) = (&fleet.nodes[0], &fleet.nodes[1]);
    let end = |bench: &Bench, credential: &str, failure, asked_ms| {
        let credential = credential.into();
        let entering = bench.circuits.enter(bench.route(0), &credential, (Way::Proper, HOUR));
        let end = End { failure, streams: true, first_byte: Duration::ZERO, asked_ms };
        entering.now_or_never().unwrap().unwrap().end(end);
    };
    let usable = |bench: &Bench| bench.circuits.credentials(bench.route(0), &["a", "b"]);
    end(one, "a", Some(Failure::CredentialRefused), None);
    fleet.exchange().await;
    assert_eq!(usable(other), [1], "a refused credential is out on every node");
    end(other, "b", Some(Failure::RateLimited), Some(30_000));
    fleet.advance(1);
    end(one, "b", Some(Failure::RateLimited), Some(5_000));
    fleet.exchange().await;
    for bench in &fleet.nodes {
        let seen = bench.circuits.see(bench.route(0), bench.clock.now());
        assert_eq!(seen.skip, Some(SkipReason::CoolingDown));
        let until = Timestamp::from_micros(1_000_000_000).plus_millis(30_000);
        assert_eq!(seen.until, Some(until), "30 s are not shortened by a later 5 s");
    }
    fleet.advance(10);
    other.circuits.reset("main", None);
    fleet.exchange().await;
    assert_eq!(usable(one).len(), 2, "a reset reaches every node");
    end(one, "a", Some(Failure::CredentialRefused), None);
    fleet.exchange().await;
    fleet.advance(61_000);
    end(other, "a", None, None);
    fleet.exchange().await;
    let out = one.circuits.show(&one.snapshot)[0].credentials.clone();
    assert!(out.is_empty(), "one that is accepted again is forgiven everywhere: {out:?}");
}

#[tokio::test]
async fn what_is_shared_is_made_anew_when_it_came_back_empty() {
    let mut fleet = Fleet::new(2);
    let end = |bench: &Bench, credential: &str, failure, asked_ms| {
        let credential = credential.into();
        let entering = bench.circuits.enter(bench.route(0), &credential, (Way::Proper, HOUR));
        let end = End { failure, streams: true, first_byte: Duration::ZERO, asked_ms };
        entering.now_or_never().unwrap().unwrap().end(end);
    };
    let one = &fleet.nodes[0];
    end(one, "a", Some(Failure::CredentialRefused), None);
    end(one, "b", Some(Failure::RateLimited), Some(30_000));
    one.trip(0);
    fleet.exchange().await;
    fleet.state = anima_store::shared::Shared::in_process().state;
    fleet.exchange().await;
    let late = Bench::new(&["m"]);
    fleet::exchange(&late.circuits, Some(&late.snapshot), &*fleet.state).await.unwrap();
    assert_eq!(late.seen(0), Some(SkipReason::CircuitOpen));
    assert!(late.circuits.credentials(late.route(0), &["a", "b"]).is_empty());
    fleet.exchange().await;
    let told = |bench: &Bench| {
        let credentials = bench.circuits.credential_changes.lock().len();
        (bench.circuits.changes.lock().len(), credentials)
    };
    assert_eq!(told(&fleet.nodes[0]), (0, 0), "what is found is not told again");
}

#[tokio::test]
async fn thin_traffic_over_many_nodes_opens_a_circuit() {
    let fleet = Fleet::new(8);
    let mut troubled = vec![fleet::counts::Troubled::new(); 8];
    for bench in &fleet.nodes {
        for n in 0..4 {
            bench.call(0, (n % 3 != 0).then_some(Failure::ServerError));
        }
        assert_eq!(bench.seen(0), None, "four calls of one node say little");
    }
    let mut opened = vec![];
    for _ in 0..3 {
        for (bench, troubled) in fleet.nodes.iter().zip(&mut troubled) {
            let with = (Some(&bench.snapshot), &*fleet.state);
            fleet::counts::exchange(&bench.circuits, with, troubled).await.unwrap();
        }
        fleet.exchange().await;
        opened.push(fleet.nodes.iter().filter(|bench| bench.seen(0).is_some()).count());
    }
    assert_eq!(opened[0], 0, "the first look is not enough: others may have had successes");
    assert_eq!(opened[2], 8, "{opened:?}");
}

#[tokio::test]
async fn one_node_with_trouble_of_its_own_opens_nothing_for_the_others() {
    let fleet = Fleet::new(8);
    let mut troubled = vec![fleet::counts::Troubled::new(); 8];
    for (n, bench) in fleet.nodes.iter().enumerate() {
        for _ in 0..4 {
            bench.call(0, (n == 0).then_some(Failure::ServerError));
        }
    }
    for _ in 0..4 {
        for (bench, troubled) in fleet.nodes.iter().zip(&mut troubled) {
            let with = (Some(&bench.snapshot), &*fleet.state);
            fleet::counts::exchange(&bench.circuits, with, troubled).await.unwrap();
        }
        fleet.exchange().await;
    }
    assert!(fleet.nodes.iter().all(|bench| bench.seen(0).is_none()));
}

/// Takes a seat of three again and again: how often there was one.
fn laps(bench: &Bench, n: usize, running: &std::sync::atomic::AtomicU32) -> u32 {
    let mut passed = 0;
    for _ in 0..2_000 {
        // Models of a channel share its seats.
        let Ok(ticket) = bench.enter(n % 2, Way::Proper) else { continue };
        let before = running.fetch_add(1, Ordering::SeqCst);
        assert!(before < 3, "{before} run already");
        std::thread::yield_now();
        running.fetch_sub(1, Ordering::SeqCst);
        drop(ticket);
        passed += 1;
    }
    passed
}

#[test]
fn a_channel_never_has_more_calls_than_seats() {
    let bench = Bench::with_room(&["a", "b"], Some(3), (Probes::in_process(), 7));
    let [running, passed] = [const { std::sync::atomic::AtomicU32::new(0) }; 2];
    let (all, at, counted) = (&bench, &running, &passed);
    std::thread::scope(|scope| {
        for n in 0..8_usize {
            scope.spawn(move || counted.fetch_add(laps(all, n, at), Ordering::SeqCst));
        }
    });
    let passed = passed.into_inner();
    assert!(passed >= 3, "{passed} passed");
    let seats: Vec<_> = (0..3).map(|_| bench.enter(0, Way::Proper).unwrap()).collect();
    assert_eq!(bench.seen(1), Some(SkipReason::Full), "all seats are free again, and now taken");
    for way in [Way::Proper, Way::LastResort, Way::Forced] {
        assert_eq!(bench.enter(1, way).err(), Some(SkipReason::Full));
    }
    drop(seats);
    assert_eq!(bench.seen(1), None);
}

/// Two nodes with counters that both use, and a channel with so many seats.
fn neighbours(most: u32) -> ([Bench; 2], Arc<dyn QuotaStore>) {
    let store: Arc<dyn QuotaStore> = Arc::new(MemoryQuotas::default());
    let node = |seed| {
        let bench = Bench::with_room(&["a", "b"], Some(most), (Probes::in_process(), seed));
        let Bench { circuits, clock, snapshot } = bench;
        let circuits = Arc::into_inner(circuits).unwrap().seating(Some(Arc::clone(&store)));
        Bench { circuits: Arc::new(circuits), clock, snapshot }
    };
    ([node(1), node(2)], store)
}

#[test]
fn nodes_share_the_seats_of_a_channel() {
    let ([one, other], _store) = neighbours(3);
    let mut seats: Vec<_> = (0..2).map(|n| one.enter(n, Way::Proper).unwrap()).collect();
    seats.push(other.enter(0, Way::Proper).unwrap());
    for way in [Way::Proper, Way::LastResort, Way::Forced] {
        assert_eq!(one.enter(0, way).err(), Some(SkipReason::Full));
        assert_eq!(other.enter(1, way).err(), Some(SkipReason::Full));
    }
    assert_eq!(other.seen(0), None, "it has room of its own, and is asked");
    assert_eq!((one.circuits.open_seats().len(), other.circuits.open_seats().len()), (2, 1));
    seats.remove(0);
    seats.push(other.enter(1, Way::Proper).expect("what one node gives back the other takes"));
    assert_eq!(seats.len(), 3);
    seats.clear();
    assert!(one.circuits.open_seats().is_empty() && other.circuits.open_seats().is_empty());
    let all: Vec<_> = (0..3).map(|_| one.enter(0, Way::Proper).unwrap()).collect();
    assert_eq!(other.enter(0, Way::Proper).err(), Some(SkipReason::Full));
    drop(all);
}

#[test]
fn the_seats_of_a_node_that_died_are_free_after_their_lease() {
    let ([dies, lives], store) = neighbours(2);
    let kept = lives.enter(0, Way::Proper).unwrap();
    std::mem::forget(dies.enter(0, Way::Proper).unwrap());
    for second in (10..=40).step_by(10) {
        lives.clock.advance_millis(10_000);
        let open = lives.circuits.open_seats();
        let renewing = store.renew(&open, lives.clock.now(), 30_000_000);
        renewing.now_or_never().unwrap().unwrap();
        let entered = lives.enter(0, Way::Proper);
        assert_eq!(entered.is_ok(), second >= 30, "after {second} s");
    }
    drop(kept);
}

#[test]
fn a_call_that_a_circuit_refuses_leaves_its_seat() {
    let bench = Bench::with_room(&["m"], Some(1), (Probes::in_process(), 7));
    bench.trip(0);
    for _ in 0..3 {
        assert_eq!(bench.enter(0, Way::Proper).err(), Some(SkipReason::CircuitOpen));
    }
    assert!(bench.enter(0, Way::LastResort).is_ok());
}
