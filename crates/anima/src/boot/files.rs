//! What lies in the data directory beside the database: the master key and other secrets.
//!
//! Not the database's file, which the store makes. Invariant: only the owner can read what is made
//! here.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secrets::{self, Secrets};
use crate::settings::Settings;

/// Makes the data directory, for the owner's eyes only.
///
/// # Errors
/// When it cannot be made.
pub(super) fn prepare_data_dir(settings: &Settings) -> Result<(), String> {
    let dir = &settings.data_dir;
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|e| format!("setting `data_dir`: {}: {e}", dir.display()))
}

/// The master key from the settings, else from the data directory, else made and kept there.
///
/// # Errors
/// When there is one that is no key, or none can be kept.
pub(super) fn master_key(settings: &Settings) -> Result<Secrets, String> {
    let file = settings.data_dir.join("master.key");
    let text = match settings.master_key.given() {
        Some(text) => Zeroizing::new(text.to_owned()),
        None if file.is_file() => read_secret(&file)?,
        None => {
            let minted = secrets::mint_master_key();
            write_secret(&file, &minted)?;
            minted
        }
    };
    let key = secrets::parse_master_key(&text)
        .map_err(|e| format!("setting `master_key`: {}: {e}", file.display()))?;
    Secrets::new(&key).map_err(|e| format!("setting `master_key`: {e}"))
}

/// Reads a file that holds one secret.
///
/// # Errors
/// When it cannot be read.
pub fn read_secret(path: &PathBuf) -> Result<Zeroizing<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Writes a new file that only its owner may read, all of it or nothing, durably.
///
/// # Errors
/// When it exists already or cannot be written.
pub fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    use std::io::Write as _;
    let shown = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(shown)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(shown)
}
