//! Finds a server's programs, and installs what is missing where that is possible.
//!
//! Only `apt-get`, only as root: on a fresh CI machine that is the case, on a developer's machine
//! we do not touch the system.
//! Invariant: without root, a missing program ends in one line that says what to install.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

/// The folder that holds all of `programs`, after installing `package` if need be.
///
/// # Errors
/// When they are missing and cannot be installed.
pub(super) fn folder_of(programs: &[&str], package: &str) -> Result<PathBuf> {
    if let Some(folder) = find(programs) {
        return Ok(folder);
    }
    let wanted = programs.join(", ");
    if !is_root() || find(&["apt-get"]).is_none() {
        bail!("{wanted} not found: install {package}, or put its folder on the PATH");
    }
    install(package)?;
    find(programs).with_context(|| format!("{wanted} not found after installing {package}"))
}

/// Whether we run as root, which PostgreSQL refuses to do.
pub(super) fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// The folder of the `PATH`, or of Debian's PostgreSQL, that has all programs. Links are followed,
/// since PostgreSQL's programs look for one another beside themselves.
pub(super) fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let first = programs.first()?;
    let real = |folder: PathBuf| {
        let file = fs::canonicalize(folder.join(first)).ok()?;
        file.parent().map(Path::to_path_buf)
    };
    let candidates = env::split_paths(&path).chain(debian_folders());
    let has_all = |folder: &PathBuf| programs.iter().all(|name| folder.join(name).is_file());
    candidates.filter(|folder| folder.join(first).is_file()).filter_map(real).find(has_all)
}

/// Newest version first.
fn debian_folders() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir("/usr/lib/postgresql") else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort_by_key(|folder| {
        let version = folder.file_name().and_then(|name| name.to_str()).map(str::parse::<u32>);
        std::cmp::Reverse(version.and_then(Result::ok).unwrap_or(0))
    });
    folders.into_iter().map(|folder| folder.join("bin")).collect()
}

fn install(package: &str) -> Result<()> {
    eprintln!("xtask: {package} is missing; installing it with apt-get");
    for arguments in
        [&["update", "-q"][..], &["install", "-qy", "--no-install-recommends", package]]
    {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt.stdin(Stdio::null()).stdout(Stdio::null());
        let status = apt.status().context("failed to start apt-get")?;
        ensure!(status.success(), "`apt-get {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}
