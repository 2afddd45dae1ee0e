//! The verbs of this repository: `cargo xtask check | test | tidy | fix | bench | openapi`.
//!
//! One file per verb. This crate is not part of the product and links nothing of it, so that a
//! verb starts within seconds of a fresh clone; what needs the product's crates (the load
//! generator) is the package `anima-bench`, which `bench` runs.
//! Invariant: a verb that ends well leaves no process and no scratch folder behind, and neither
//! does one that is interrupted (see `keeper.rs`).

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the verbs talk to a terminal")]

mod bench;
mod cargo;
mod check;
mod fix;
mod keeper;
mod openapi;
mod servers;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask VERB

  check            formatting, house rules, licences, lints, documentation, OpenAPI
  test [ARGS]      every test, on a PostgreSQL and a Redis of its own; ARGS go to `cargo test`
  tidy             the house rules of STYLE.md that no lint can hold
  fix              formats, and applies what clippy can repair
  bench [ARGS]     measures the gateway; --quick for a minute's worth, --out FILE for the table
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
