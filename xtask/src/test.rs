//! `cargo xtask test`: every test of the workspace, on servers of its own.
//!
//! Brings up PostgreSQL and Redis on free loopback ports in a scratch folder and names them in
//! `ANIMA_TEST_POSTGRES_URL` (a superuser, a maintenance database) and `ANIMA_TEST_REDIS_URL`.
//! Invariant: both are always set here, so a test that needs them runs or fails, never skips.

use anyhow::{Result, ensure};

use crate::cargo;
use crate::keeper::Services;
use crate::servers::Kind;

/// # Errors
/// When a server cannot start, or a test fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let mut services = Services::start(&[Kind::Postgres, Kind::Redis], &std::env::temp_dir())?;
    let mut tests = cargo::command(&["test", "--workspace", "--locked"]);
    tests.args(arguments);
    // A test that does not find its server must fail here, not pass as skipped.
    tests.env("ANIMA_TEST_REQUIRE_POSTGRES", "1");
    // For those that start a Sentinel or a Cluster of their own.
    tests.env("ANIMA_TEST_REDIS_SERVER", crate::servers::redis_program()?);
    println!("xtask: cargo test --workspace --locked {}", arguments.join(" "));
    let status = services.run(&mut tests);
    services.stop()?;
    let status = status?;
    ensure!(status.success(), "the tests ended with {status}");
    Ok(())
}
