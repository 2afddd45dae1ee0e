//! The verbs of this repository: `cargo xtask check | test | bench | clients | …`.
//!
//! One file per verb. This crate is not part of the product and links nothing of it, so that a
//! verb starts within seconds of a fresh clone; what needs the product's crates (the load
//! generators) are the packages `anima-bench` and `anima-crash`, which the verbs run.
//! Invariant: a verb that ends well leaves no process and no scratch folder behind, and neither
//! does one that is interrupted (see `keeper.rs`).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the verbs talk to a terminal")]

mod bench;
mod cargo;
mod chaos;
mod check;
mod clients;
mod crash;
mod fix;
mod fuzz;
mod keeper;
mod openapi;
mod servers;
mod sim;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB

  check            formatting, house rules, licences, lints, documentation, OpenAPI
  test [ARGS]      every test, on a PostgreSQL and a Redis of its own; ARGS go to `cargo test`
  tidy             the house rules of STYLE.md that no lint can hold
  fix              formats, and applies what clippy can repair
  bench ledger     measures the ledger alone; --seconds, --rounds, --stored, --out FILE
  bench admission  measures the counters of limits, and judges the figures
  bench wire       measures reading, converting and streaming, and judges the figures
  bench plan       measures the choice among 50 channels, and judges the figures
  bench [ARGS]     measures the gateway; --quick for a minute's worth, --out FILE for the table
  clients [ARGS]   the official SDKs against every dialect; --client, --provider, --feature, --out
  crash [ARGS]     kills gateways under load and audits their books; --kills N, --storage S
  chaos [ARGS]     breaks what three nodes stand on, pulls every hatch; `embedded`: of one node on
                   SQLite; --quick, --only S, --out F
  chaos routing    a scripted day of failing providers; --only S, --out F
  chaos limits     races, storms, lines and tasks against limits; `embedded`: of one node on SQLite;
                   --quick, --only S, --race-calls N, --rounds N, --waiters N, --tasks N, --kills N
  sim [ARGS]       simulates the ledger's protocol; --seeds N, --seed S to replay one
  fuzz [ARGS]      fuzzes every decoder; --seconds N each, --target T, --seed S, --input FILE
  openapi          writes docs/openapi.json anew";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    let outcome = match verb.as_str() {
        "check" => check::run(),
        "test" => test::run(&rest),
        "tidy" => tidy::run(),
        "fix" => fix::run(),
        "bench" => bench::run(&rest),
        "clients" => clients::run(&rest),
        "crash" => crash::run(&rest),
        "chaos" => chaos::run(&rest),
        "sim" => sim::run(&rest),
        "fuzz" => fuzz::run(&rest),
        "openapi" => openapi::run(),
        "keeper" => keeper::run(&rest),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {verb}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
