//! What came out: lines of a table for people, and JSON for programs.
//!
//! Not a judgement: whoever makes a line says whether it holds, through one of its constructors.
//! Invariant: a line shows the bound that it was held against.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

/// One line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// What was done or asked.
    pub(crate) what: String,
    /// What was found.
    pub(crate) found: String,
    /// What it must be.
    pub(crate) bound: String,
    pub(crate) holds: bool,
}

impl Line {
    /// Times of which none may reach `bound`. None at all does not hold: nothing was proven.
    pub(crate) fn times(what: &str, times: &[Duration], bound: Duration) -> Self {
        let max = percentile(times, 100);
        Self {
            what: format!("{what}, {} times", times.len()),
            found: spread(times),
            bound: format!("max < {}", shown(bound)),
            holds: !times.is_empty() && max < bound,
        }
    }

    /// Times whose 99th percentile must stay under `bound`.
    pub(crate) fn p99(what: &str, times: &[Duration], bound: Duration) -> Self {
        Self {
            what: format!("{what}, {} times", times.len()),
            found: spread(times),
            bound: format!("p99 < {}", shown(bound)),
            holds: !times.is_empty() && percentile(times, 99) < bound,
        }
    }

    /// So many of `of` were wrong; none may be, and there must have been at least `least`.
    pub(crate) fn none_of(what: &str, wrong: usize, (of, least): (usize, usize)) -> Self {
        Self {
            what: what.to_owned(),
            found: format!("{wrong} of {of}"),
            bound: format!("0 of at least {least}"),
            holds: wrong == 0 && of >= least,
        }
    }

    /// Something that is so or not.
    pub(crate) fn check(what: &str, holds: bool, found: &str) -> Self {
        let found = if found.is_empty() { if holds { "yes" } else { "no" } } else { found };
        let found = found.replace(['\n', '|'], " ");
        Self { what: what.to_owned(), found, bound: "yes".to_owned(), holds }
    }
}

/// The time that so many in a hundred do not exceed.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let at = (sorted.len().saturating_sub(1) * percent).div_ceil(100);
    sorted.get(at).copied().unwrap_or_default()
}

fn spread(times: &[Duration]) -> String {
    let at = |percent| shown(percentile(times, percent));
    format!("p50 {}, p99 {}, max {}", at(50), at(99), at(100))
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}

/// For a document.
///
/// # Errors
/// Never, in memory.
pub(crate) fn markdown(command: &str, lines: &[Line]) -> Result<String> {
    let mut out = String::new();
    let missed = lines.iter().filter(|line| !line.holds).count();
    writeln!(out, "Made by `{command}`: {} lines, {missed} missed.\n", lines.len())?;
    writeln!(out, "| what | found | must be | holds |\n|---|---|---|---|")?;
    for Line { what, found, bound, holds } in lines {
        let word = if *holds { "yes" } else { "**NO**" };
        writeln!(out, "| {what} | {found} | {bound} | {word} |")?;
    }
    Ok(out)
}

/// For a program.
pub(crate) fn json(command: &str, lines: &[Line]) -> Value {
    let line = |line: &Line| {
        let Line { what, found, bound, holds } = line;
        json!({"what": what, "found": found, "bound": bound, "holds": holds})
    };
    let holds = lines.iter().all(|line| line.holds);
    json!({"command": command, "holds": holds, "lines": lines.iter().map(line).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_when_its_bound_does_and_something_was_measured() {
        let ms = |n| Duration::from_millis(n);
        let times = [ms(5), ms(900), ms(10)];
        assert!(Line::times("a", &times, ms(901)).holds);
        assert!(!Line::times("a", &times, ms(900)).holds);
        assert!(!Line::times("a", &[], ms(900)).holds);
        assert!(!Line::none_of("a", 0, (1_999, 2_000)).holds);
        let many: Vec<_> = (1..=1_000).map(ms).collect();
        assert_eq!((percentile(&many, 50), percentile(&many, 100)), (ms(501), ms(1_000)));
    }

    #[test]
    fn a_missed_line_stands_out() {
        let lines = [Line::check("it works", false, "a|b")];
        let table = markdown("cargo xtask chaos", &lines).unwrap();
        assert!(table.contains("| it works | a b | yes | **NO** |"), "{table}");
        assert_eq!(json("c", &lines)["holds"], false);
    }
}
