//! The loop: pick, mutate, judge, keep what is new.
//!
//! Invariant: what was found before is tried first, and every finding is written down with the
//! command that replays it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::corpus::{self, Dictionary};
use crate::finding;
use crate::mutate::mutate;
use crate::options::Options;
use crate::rng::{self, Rng};
use crate::targets::Target;

/// Inputs that are kept to start from.
const POOL_MAX: usize = 5000;
/// Different findings after which a target is given up.
const FINDINGS_MAX: usize = 5;

/// What is being fuzzed.
#[derive(Debug)]
pub(crate) struct Hunt {
    target: &'static Target,
    pool: Vec<Vec<u8>>,
    words: Dictionary,
    rng: Rng,
    shapes: BTreeSet<u64>,
    pub(crate) cases: u64,
}

impl Hunt {
    pub(crate) fn new(target: &'static Target, seed: u64) -> Result<Self> {
        let mut pool = corpus::inputs(target.name)?;
        pool.extend(corpus::conversations(target.files)?);
        let words = Dictionary::of(&corpus::conversations(&[])?);
        let rng = Rng::new(seed ^ rng::hash(target.name.as_bytes()));
        Ok(Self { target, pool, words, rng, shapes: BTreeSet::new(), cases: 0 })
    }

    /// Judges what one starts from: the conversations, and what was found before.
    pub(crate) fn start(&mut self) -> Vec<(Vec<u8>, String)> {
        let pool = self.pool.clone();
        let judged = pool.into_iter().filter_map(|input| self.judge(input, false));
        judged.collect::<Vec<_>>()
    }

    /// Judges one mutation more.
    pub(crate) fn step(&mut self) -> Option<(Vec<u8>, String)> {
        let input = self.rng.pick(&self.pool).cloned().unwrap_or_default();
        let input = mutate(&input, &self.pool, &self.words, &mut self.rng);
        self.judge(input, true)
    }

    fn judge(&mut self, input: Vec<u8>, keep: bool) -> Option<(Vec<u8>, String)> {
        self.cases += 1;
        match finding::judge(self.target, &input) {
            Ok(shape) => {
                if self.shapes.insert(shape) && keep && self.pool.len() < POOL_MAX {
                    self.pool.push(input);
                }
                None
            }
            Err(wrong) => Some((input, wrong)),
        }
    }
}

/// Fuzzes one target for its time. Whether nothing was found.
pub(crate) fn run(target: &'static Target, options: &Options) -> Result<bool> {
    let mut hunt = Hunt::new(target, options.seed)?;
    let work = Work::begin();
    let mut found: Vec<(Vec<u8>, String)> = hunt.start();
    found.dedup_by(|one, other| finding::is_alike(&one.1, &other.1));
    while work.time() < options.time && found.len() < FINDINGS_MAX {
        if let Some((input, wrong)) = hunt.step()
            && !found.iter().any(|(_, known)| finding::is_alike(known, &wrong))
        {
            found.push((input, wrong));
        }
    }
    println!(
        "{:<10} {:>9} inputs, {:>5} outcomes, {:>4} s, {} findings",
        target.name,
        hunt.cases,
        hunt.shapes.len(),
        work.time().as_secs(),
        found.len()
    );
    for (input, wrong) in &found {
        write(target, options, input, wrong)?;
    }
    Ok(found.is_empty())
}

/// How long this thread has worked: its own processor time where the system tells it, so that what
/// else runs on the machine takes nothing away from a target. Elsewhere the time that passed.
struct Work {
    start: Instant,
    cpu: Option<Duration>,
}

impl Work {
    fn begin() -> Self {
        Self { start: Instant::now(), cpu: cpu() }
    }

    fn time(&self) -> Duration {
        let cpu = self.cpu.and_then(|before| Some(cpu()?.saturating_sub(before)));
        cpu.unwrap_or_else(|| self.start.elapsed())
    }
}

fn cpu() -> Option<Duration> {
    let told = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    told.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn write(target: &Target, options: &Options, input: &[u8], wrong: &str) -> Result<()> {
    let least = finding::smaller(target, input, wrong);
    let name = format!("{}-{:016x}", target.name, rng::hash(&least));
    let file = options.findings.join(name);
    fs::create_dir_all(&options.findings).context("failed to make the folder of findings")?;
    fs::write(&file, &least).with_context(|| format!("failed to write {}", file.display()))?;
    println!("  {wrong}\n  {}", String::from_utf8_lossy(&least).escape_debug());
    println!("  cargo xtask fuzz --target {} --input {}", target.name, file.display());
    Ok(())
}

/// Judges the input of a file. Whether nothing is wrong with it.
pub(crate) fn replay(options: &Options, file: &Path) -> Result<bool> {
    let input = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    let mut is_clean = true;
    for target in options.targets()? {
        let outcome = finding::judge(target, &input);
        println!("{}: {}", target.name, outcome.as_ref().err().map_or("nothing wrong", |w| w));
        is_clean &= outcome.is_ok();
    }
    Ok(is_clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::ALL;

    /// Enough to reach every decoder, and quick in an unoptimised build.
    const CASES: usize = 50;

    #[test]
    fn a_short_run_finds_nothing() {
        for target in ALL {
            let mut hunt = Hunt::new(target, 7).unwrap();
            assert_eq!(hunt.start(), [], "{}", target.name);
            assert!(hunt.pool.len() >= 5, "{} starts from {}", target.name, hunt.pool.len());
            for _ in 0..CASES {
                assert_eq!(hunt.step(), None, "{}", target.name);
            }
        }
    }

    #[test]
    fn a_seed_decides_every_input() {
        let target = ALL.iter().find(|target| target.name == "sse").unwrap();
        let pool = |seed: u64| {
            let mut hunt = Hunt::new(target, seed).unwrap();
            hunt.start();
            (0..CASES).for_each(|_| drop(hunt.step()));
            hunt.pool
        };
        assert_eq!(pool(7), pool(7));
        assert_ne!(pool(7), pool(8));
    }
}
