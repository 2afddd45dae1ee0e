//! Workers that are processes of their own and are killed while they work.
//!
//! On PostgreSQL, which processes share. A small run with every test; `ANIMA_TEST_TASKS` and
//! `ANIMA_TEST_TASK_KILLS` make it larger, as `docs/tasks.md` says. Invariant: each task ends once,
//! no call of a task is made twice, and what the wallet lost is what the provider worked for tasks
//! that have succeeded.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anima_core::task::State;
use anima_store::database::Stores;
use anima_store::tasks::{Filter, Task};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::Instant;

use crate::testapp::{Backend, SALE, TestApp, owed, variable};

/// Processes that run tasks.
const WORKERS: usize = 3;
/// Between two kills.
const PAUSE: Duration = Duration::from_millis(1_500);
/// A kill in the middle of a call is resolved when the leases are over and the hold is closed.
const RESOLVED_WITHIN: Duration = Duration::from_mins(4);

fn number(name: &str, default: usize) -> usize {
    variable(name).map_or(default, |text| text.parse().unwrap())
}

/// A process that runs tasks and dies with the value.
struct Worker {
    process: Child,
    _dir: tempfile::TempDir,
}

impl Worker {
    fn start(app: &TestApp) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let master = std::fs::read_to_string(app.data_dir().join("master.key")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_anima"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(dir.path());
        command.env_clear();
        command.env("ANIMA_DATABASE_URL", app.place.url().unwrap());
        command.env("ANIMA_MASTER_KEY", master.trim());
        command.env("ANIMA_ADMIN_TOKEN", "integration-tests-admin");
        command.env("ANIMA_TASK_WORKERS", "8").env("ANIMA_LOG", "off");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Self { process: command.spawn().unwrap(), _dir: dir }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // SIGKILL, as a crash would have it.
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_ends_once_and_is_charged_once_whoever_is_killed() {
    let Some(place) = Backend::Postgres.place().await else { return };
    let app = Box::pin(TestApp::start(place, "task_workers = 0")).await;
    let (count, kills) = (number("ANIMA_TEST_TASKS", 60), number("ANIMA_TEST_TASK_KILLS", 3));
    app.fault("latency:150");
    let before = app.balance().await;
    let (_, key) = super::key(&app, json!({})).await;
    let began = Instant::now();
    let mut workers: Vec<Worker> = (0..WORKERS).map(|_| Worker::start(&app)).collect();
    let sending = futures_util::stream::iter(0..count).map(|_| super::sent(&app, &key));
    let ids: BTreeSet<String> = sending.buffer_unordered(8).collect().await;
    assert_eq!(ids.len(), count);
    let stores = super::stores(&app).await;
    for kill in 0..kills {
        tokio::time::sleep(PAUSE).await;
        let slot = kill % WORKERS;
        workers[slot] = Worker::start(&app);
    }
    let ended = all_ended(&stores).await;
    drop(workers);
    assert_eq!(ended.len(), count);
    let seconds = began.elapsed().as_secs();
    let states = judge(&app, &ended, before).await;
    eprintln!("{count} tasks, {kills} kills, {seconds} s: {states:?}");
    app.finish().await;
}

/// Waits until every task has ended and every refund is booked.
async fn all_ended(stores: &Stores) -> Vec<Task> {
    let until = Instant::now() + RESOLVED_WITHIN;
    loop {
        let open = stores.tasks.upkeep.open().await.unwrap();
        let due = stores.tasks.upkeep.refunds(None).await.unwrap();
        if open.is_empty() && due.is_empty() {
            break;
        }
        assert!(Instant::now() < until, "open: {open:?}, refunds: {}", due.len());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let filter = Filter { limit: 100_000, ..Filter::default() };
    stores.tasks.tasks.list(filter).await.unwrap()
}

/// Compares the tasks with what the provider did and with the wallet.
async fn judge(app: &TestApp, ended: &[Task], before: i64) -> BTreeMap<&'static str, usize> {
    let mut made: BTreeMap<String, Vec<_>> = BTreeMap::new();
    for call in app.calls().await {
        made.entry(call.request_id.clone().unwrap()).or_default().push(call);
    }
    let (mut states, mut charged) = (BTreeMap::new(), 0);
    for task in ended {
        *states.entry(task.state.word()).or_insert(0) += 1;
        let calls = task.call.and_then(|id| made.remove(&id.simple().to_string()));
        let calls = calls.unwrap_or_default();
        assert!(calls.len() <= 1, "sent {} times: {task:?}", calls.len());
        match task.state {
            State::Succeeded => {
                assert_eq!(calls.len(), 1, "{task:?}");
                charged += owed(&SALE, &calls[0].billed, 1_000);
            }
            State::Failed => {
                let (code, _) = task.error.as_ref().unwrap();
                assert_eq!(code, "task_answer_lost", "{task:?}");
            }
            State::Accepted
            | State::Submitting
            | State::Queued
            | State::Running
            | State::Cancelled
            | State::Expired
            | State::Unknown => panic!("{task:?}"),
        }
    }
    assert!(made.is_empty(), "calls that no task knows of: {:?}", made.keys());
    app.settled().await;
    assert_eq!(before - app.balance().await, charged);
    states
}
