//! Runs Cargo, and says what it runs.
//!
//! Not a build system: every step is one `cargo` command line that a reader can paste.
//! Invariant: all commands run in the workspace's root, whatever folder the verb started in.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The folder of the workspace's manifest.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder of what a profile built.
pub(crate) fn target_folder(profile: &str) -> PathBuf {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    root().join(target).join(profile)
}

/// The Cargo that started us, on the given arguments, in the workspace's root.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// Runs one step to its end and shows its output.
///
/// # Errors
/// When the command cannot start or ends with another status than 0.
pub(crate) fn step(arguments: &[&str]) -> Result<()> {
    finish(&mut command(arguments))
}

/// As [`step`], for a command that needs more than arguments.
///
/// # Errors
/// As [`step`].
pub(crate) fn finish(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    println!("xtask: {shown}");
    let status = command.status().with_context(|| format!("failed to start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` ended with {status}");
    Ok(())
}

/// Whether `cargo NAME` exists, for tools that a machine may lack.
pub(crate) fn has_tool(name: &str) -> bool {
    let mut probe = command(&[name, "--version"]);
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_string_lossy).collect();
    format!("cargo {}", arguments.join(" "))
}
