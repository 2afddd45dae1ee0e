//! The breaker by its promises, and in every interleaving of five nodes.

use proptest::prelude::*;

use super::*;
use crate::failure::Failure;

fn at(ms: i64) -> Timestamp {
    Timestamp::default().plus_millis(ms)
}

fn report(failure: Option<Failure>, ms: i64, settings: &Breaker) -> Report {
    Report { verdict: Verdict::of(failure, 0, settings), asked_ms: None, at: at(ms), bits: 0 }
}

fn normal(circuit: &Circuit) -> Admitted {
    Admitted { epoch: circuit.epoch(), probe: false }
}

fn probe(circuit: &Circuit) -> Admitted {
    Admitted { epoch: circuit.epoch(), probe: true }
}

/// A circuit that five failures in a row opened at 0.
fn opened(settings: &Breaker) -> Circuit {
    let mut circuit = Circuit::default();
    for _ in 0..settings.consecutive_failures {
        let failed = report(Some(Failure::ServerError), 0, settings);
        circuit.record(normal(&circuit), failed, settings);
    }
    assert_eq!(circuit.state(at(0)), State::Open);
    circuit
}

fn open_for_ms(circuit: &Circuit) -> i64 {
    let opening = circuit.opening().unwrap();
    opening.until.since(opening.since) / 1_000
}

#[test]
fn five_failures_in_a_row_open_it_and_a_neutral_outcome_does_not_erase_them() {
    let settings = Breaker::default();
    let mut circuit = Circuit::default();
    for n in 0..4 {
        let failed = report(Some(Failure::ServerError), n, &settings);
        assert_eq!(circuit.record(normal(&circuit), failed, &settings), None);
        let neutral = report(Some(Failure::RateLimited), n, &settings);
        assert_eq!(circuit.record(normal(&circuit), neutral, &settings), None);
    }
    let failed = report(Some(Failure::ServerError), 5, &settings);
    let change = circuit.record(normal(&circuit), failed, &settings).unwrap();
    assert_eq!((change.to, change.cause), (State::Open, Cause::ConsecutiveFailures));
}

#[test]
fn half_of_twenty_calls_open_it_and_nineteen_do_not() {
    let settings = Breaker { consecutive_failures: 0, ..Breaker::default() };
    let mut circuit = Circuit::default();
    for n in 0..19 {
        let failure = (n % 2 == 0).then_some(Failure::ServerError);
        assert_eq!(
            circuit.record(normal(&circuit), report(failure, n, &settings), &settings),
            None
        );
    }
    let change = circuit.record(normal(&circuit), report(None, 20, &settings), &settings).unwrap();
    assert_eq!(change.cause, Cause::FailureRate);
}

#[test]
fn slow_first_bytes_open_it_although_every_call_succeeds() {
    let settings = Breaker { slow_call_ms: 100, ..Breaker::default() };
    let mut circuit = Circuit::default();
    let mut change = None;
    for n in 0..20 {
        let verdict = Verdict::of(None, if n < 16 { 100 } else { 1 }, &settings);
        let seen = Report { verdict, asked_ms: None, at: at(n), bits: 0 };
        change = circuit.record(normal(&circuit), seen, &settings);
    }
    assert_eq!(change.unwrap().cause, Cause::SlowRate);
}

#[test]
fn refusals_of_the_callers_request_never_open_it() {
    let settings = Breaker::default();
    let mut circuit = Circuit::default();
    for n in 0..1_000 {
        let refused = report(Some(Failure::RequestRefused), n, &settings);
        assert_eq!(circuit.record(normal(&circuit), refused, &settings), None);
    }
}

#[test]
fn a_failed_probe_doubles_the_wait_up_to_the_cap() {
    let settings = Breaker { open_ms: 1_000, max_open_ms: 5_000, ..Breaker::default() };
    let mut circuit = opened(&settings);
    let mut waits = vec![open_for_ms(&circuit)];
    for _ in 0..4 {
        let now = circuit.opening().unwrap().until;
        assert_eq!(circuit.state(now), State::HalfOpen);
        let verdict = Verdict::of(Some(Failure::ServerError), 0, &settings);
        let failed = Report { verdict, asked_ms: None, at: now, bits: 0 };
        circuit.record(probe(&circuit), failed, &settings).unwrap();
        waits.push(open_for_ms(&circuit));
    }
    assert_eq!(
        waits,
        [800, 1_600, 3_200, 4_000, 4_000],
        "less a fifth, which is the jitter's floor"
    );
}

#[test]
fn openings_are_forgotten_one_by_one_while_it_stays_closed() {
    let settings = Breaker::default();
    let mut circuit = opened(&settings);
    circuit.close(Cause::ProbesPassed, at(0));
    let later = Report { at: at(DECAY_MS), ..report(None, 0, &settings) };
    circuit.trip(Cause::FailureRate, later, &settings);
    assert_eq!(open_for_ms(&circuit), 4_000, "the first opening is forgotten");
}

#[test]
fn a_wait_of_thirty_seconds_is_not_shortened_by_a_later_one_of_five() {
    let settings = Breaker::default();
    let mut circuit = opened(&settings);
    let asked = |ms, now| Report {
        asked_ms: Some(ms),
        ..report(Some(Failure::Overloaded), now, &settings)
    };
    circuit.record(normal(&circuit), asked(30_000, 10), &settings);
    assert_eq!(circuit.opening().unwrap().until, at(30_010));
    circuit.record(normal(&circuit), asked(5_000, 20), &settings);
    assert_eq!(circuit.opening().unwrap().until, at(30_010));
    let absurd = asked(u64::MAX, 20);
    circuit.record(normal(&circuit), absurd, &settings);
    assert_eq!(
        circuit.opening().unwrap().until,
        at(20 + 600_000),
        "but nobody is believed for ever"
    );
}

#[test]
fn enough_probes_that_passed_close_it() {
    let settings = Breaker::default();
    let mut circuit = opened(&settings);
    let epoch = circuit.epoch();
    assert_eq!(circuit.passed(epoch, 2, at(9_000), &settings), None);
    assert_eq!(circuit.passed(epoch - 1, 3, at(9_000), &settings), None, "of another opening");
    let change = circuit.passed(epoch, 3, at(9_000), &settings).unwrap();
    assert_eq!((change.to, change.cause), (State::Closed, Cause::ProbesPassed));
    assert_eq!(circuit.state(at(9_000)), State::Closed);
}

#[test]
fn what_began_before_a_change_says_nothing_after_it() {
    let settings = Breaker::default();
    let mut circuit = opened(&settings);
    let old = Admitted { epoch: 0, probe: false };
    circuit.close(Cause::ProbesPassed, at(10));
    for n in 0..50 {
        let late = report(Some(Failure::ServerError), 20 + n, &settings);
        assert_eq!(circuit.record(old, late, &settings), None);
    }
}

#[test]
fn a_slow_probe_reopens_what_slowness_opened_and_passes_elsewhere() {
    let settings = Breaker { slow_call_ms: 1, ..Breaker::default() };
    let slow = Verdict::of(None, 5, &settings);
    let mut circuit = Circuit::default();
    circuit.trip(Cause::SlowRate, report(None, 0, &settings), &settings);
    assert!(!circuit.is_passed(slow));
    let seen = Report { verdict: slow, asked_ms: None, at: at(6_000), bits: 0 };
    assert_eq!(circuit.record(probe(&circuit), seen, &settings).unwrap().cause, Cause::SlowRate);
    assert!(opened(&settings).is_passed(slow));
}

#[test]
fn another_nodes_opening_is_followed_when_it_rests_on_enough_calls() {
    let settings = Breaker::default();
    let shared = opened(&settings).share();
    let mut other = Circuit::default();
    let weak = Shared { evidence: 4, ..shared };
    assert_eq!(other.adopt(weak, at(1), &settings), None);
    assert_eq!(other.adopt(shared, at(1), &settings).unwrap().to, State::Open);
    assert_eq!(other.adopt(shared, at(2), &settings), None, "once");
    let closed = Shared { epoch: shared.epoch + 1, open: None, ..shared };
    assert_eq!(other.adopt(closed, at(3), &settings).unwrap().to, State::Closed);
    assert_eq!(other.adopt(shared, at(4), &settings), None, "what is older is not");
}

#[test]
fn an_opening_for_a_reason_outside_the_window_is_followed_too() {
    let settings = Breaker::default();
    for cause in [Cause::ModelsOpen, Cause::ModelUnknown] {
        let mut circuit = Circuit::default();
        circuit.trip(cause, report(Some(Failure::ServerError), 1, &settings), &settings);
        let mut other = Circuit::default();
        let change = other.adopt(circuit.share(), at(2), &settings).unwrap();
        assert_eq!((change.to, change.cause), (State::Open, cause));
    }
}

#[test]
fn states_and_shared_circuits_read_back_as_they_were_written() {
    let shared = opened(&Breaker::default()).share();
    let text = serde_json::to_string(&shared).unwrap();
    assert_eq!(serde_json::from_str::<Shared>(&text).unwrap(), shared);
}

/// One step of one of five nodes.
#[derive(Debug, Clone, Copy)]
enum Step {
    Wait {
        ms: i64,
    },
    /// A call of a node, let through or not, which ends later.
    Begin {
        node: usize,
    },
    /// The oldest running call of a node ends so.
    End {
        node: usize,
        failure: Option<Failure>,
        asked_ms: Option<u64>,
    },
    /// A node reads what is shared.
    Read {
        node: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = 0_usize..5;
    let outcome = prop::sample::select(vec![
        None,
        Some(Failure::ServerError),
        Some(Failure::ServerError),
        Some(Failure::Overloaded),
        Some(Failure::RateLimited),
        Some(Failure::ClientGone),
        Some(Failure::RequestRefused),
    ]);
    let asked_ms = prop::option::of(0_u64..40_000);
    let step = prop_oneof![
        (0_i64..4_000).prop_map(|ms| Step::Wait { ms }),
        node.clone().prop_map(|node| Step::Begin { node }),
        node.clone().prop_map(|node| Step::Begin { node }),
        (node.clone(), outcome, asked_ms).prop_map(|(node, failure, asked_ms)| Step::End {
            node,
            failure,
            asked_ms
        }),
        node.prop_map(|node| Step::Read { node }),
    ];
    prop::collection::vec(step, 1..300)
}

/// Five nodes, and what they share: the state's hash and the permits.
struct Fleet {
    settings: Breaker,
    now: Timestamp,
    nodes: Vec<(Circuit, Vec<(Admitted, u64)>)>,
    shared: Option<Shared>,
    permits: Permits,
    tokens: u64,
}

impl Fleet {
    fn new() -> Self {
        Self {
            settings: Breaker { open_ms: 1_000, ..Breaker::default() },
            now: at(1),
            nodes: vec![(Circuit::default(), vec![]); 5],
            shared: None,
            permits: Permits::default(),
            tokens: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait { ms } => self.now = self.now.plus_millis(ms),
            Step::Begin { node } => self.begin(node),
            Step::End { node, failure, asked_ms } => self.end(node, failure, asked_ms),
            Step::Read { node } => {
                if let Some(shared) = self.shared {
                    self.nodes[node].0.adopt(shared, self.now, &self.settings);
                }
            }
        }
    }

    fn begin(&mut self, node: usize) {
        let (circuit, running) = &mut self.nodes[node];
        self.tokens += 1;
        let epoch = circuit.epoch();
        let limit = self.settings.half_open_permits;
        let taken = (self.tokens, Timestamp::MAX);
        let admitted = match circuit.state(self.now) {
            State::Closed => Admitted { epoch, probe: false },
            State::HalfOpen if self.permits.take(epoch, taken, self.now, limit) => {
                Admitted { epoch, probe: true }
            }
            State::Open | State::HalfOpen => return,
        };
        running.push((admitted, self.tokens));
    }

    fn end(&mut self, node: usize, failure: Option<Failure>, asked_ms: Option<u64>) {
        let (circuit, running) = &mut self.nodes[node];
        if running.is_empty() {
            return;
        }
        let (admitted, token) = running.remove(0);
        let verdict = Verdict::of(failure, 0, &self.settings);
        let seen = Report { verdict, asked_ms, at: self.now, bits: token };
        let counts = admitted.probe && circuit.is_passed(verdict);
        let mut change = circuit.record(admitted, seen, &self.settings);
        if admitted.probe {
            let passed = self.permits.give_back(admitted.epoch, token, counts);
            if change.is_some() {
                self.permits.end(admitted.epoch);
            }
            let closed = circuit.passed(admitted.epoch, passed, self.now, &self.settings);
            change = change.or(closed);
        }
        if change.is_some() && self.shared.is_none_or(|s| s.epoch < circuit.epoch()) {
            self.shared = Some(circuit.share());
        }
    }

    fn probes(&self) -> usize {
        self.nodes.iter().flat_map(|(_, running)| running).filter(|(a, _)| a.probe).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_interleaving_of_five_nodes_has_more_probes_than_permits(steps in steps()) {
        let mut fleet = Fleet::new();
        for step in steps {
            fleet.step(step);
            prop_assert!(fleet.probes() <= fleet.settings.half_open_permits as usize);
        }
    }

    #[test]
    fn while_a_circuit_is_open_its_end_never_moves_back(steps in steps()) {
        let mut fleet = Fleet::new();
        for step in steps {
            let before: Vec<_> = fleet.nodes.iter().map(|(c, _)| c.opening()).collect();
            fleet.step(step);
            for (before, (circuit, _)) in before.iter().zip(&fleet.nodes) {
                if let (Some(before), Some(after)) = (before, circuit.opening()) {
                    prop_assert!(after.until >= before.until);
                }
            }
        }
    }

    #[test]
    fn every_permit_comes_back_once_nothing_runs(steps in steps()) {
        let mut fleet = Fleet::new();
        for step in steps {
            fleet.step(step);
        }
        for node in 0..5 {
            while !fleet.nodes[node].1.is_empty() {
                fleet.end(node, Some(Failure::ClientGone), None);
            }
        }
        prop_assert_eq!(fleet.permits.running(fleet.now), 0);
    }
}
