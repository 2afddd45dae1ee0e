//! What the kernel knows: CPU time, memory, cores, and on which core a process may run.
//!
//! Read from `/proc`; pinning through `taskset`, which every Linux has.
//! Invariant: a process's figures include its children (nginx works in a child), and CPU that a
//! child used is not lost when it ends.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::{fs, thread};

/// Ticks of `/proc/*/stat` per second; 100 on every Linux that we know of.
const TICKS_PER_SECOND: f64 = 100.0;

/// What `/proc/PID/stat` says.
struct Stat {
    parent: u32,
    ticks: u64,
}

/// CPU seconds, user and system, that a process and its children have used so far.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    let all = all_stats();
    let ticks: u64 =
        family(process, &all).iter().filter_map(|id| all.get(id)).map(|s| s.ticks).sum();
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ticks")]
    let ticks = ticks as f64;
    ticks / TICKS_PER_SECOND
}

/// Resident memory of a process and its children, in MiB.
pub(crate) fn resident_mib(process: u32) -> f64 {
    let all = all_stats();
    family(process, &all).iter().filter_map(|id| resident_kib(*id)).sum::<f64>() / 1024.0
}

/// Cores that we may use.
pub(crate) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Lets a process and its children run on these cores only (`0`, `0-1`); `false` if that failed.
pub(crate) fn pin(process: u32, cores: &str) -> bool {
    let all = all_stats();
    family(process, &all).iter().all(|id| {
        let mut taskset = Command::new("taskset");
        taskset.args(["-a", "-c", "-p", cores, &id.to_string()]);
        taskset.stdout(Stdio::null()).stderr(Stdio::null());
        taskset.status().is_ok_and(|status| status.success())
    })
}

/// Kernel, architecture and processor, in one line.
pub(crate) fn description(cores: usize) -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let architecture = std::env::consts::ARCH;
    format!("{cores} cores, {model}, Linux {} {architecture}", release.trim())
}

/// Today, from the system's own `date`.
pub(crate) fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d"]).output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(output.stdout.trim_ascii()).into_owned(),
    )
}

/// What a program says to `--version`, its first line.
pub(crate) fn version(program: &str, option: &str) -> String {
    let Ok(output) = Command::new(program).arg(option).output() else {
        return format!("{program}: not found");
    };
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
}

fn all_stats() -> BTreeMap<u32, Stat> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some((id, stat)) = id.and_then(|id| Some((id, stat(id)?))) {
            all.insert(id, stat);
        }
    }
    all
}

/// Fields are counted after the name in parentheses, which may hold anything.
fn stat(process: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// The process and all that descend from it.
fn family(process: u32, all: &BTreeMap<u32, Stat>) -> BTreeSet<u32> {
    let mut members = BTreeSet::from([process]);
    loop {
        let children =
            all.iter().filter(|(id, stat)| members.contains(&stat.parent) && !members.contains(id));
        let children: Vec<u32> = children.map(|(id, _)| *id).collect();
        if children.is_empty() {
            return members;
        }
        members.extend(children);
    }
}

fn resident_kib(process: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_uses_memory() {
        assert!(resident_mib(std::process::id()) > 0.5);
        assert!(cpu_seconds(std::process::id()) >= 0.0);
    }
}
