//! The spool's file: frames of length, checksum and payload, appended and synced.
//!
//! A frame is four bytes of length (big endian), the first eight bytes of the payload's SHA-256,
//! and the payload. The file begins with eight bytes that name the format. A tail that is cut or
//! does not match its checksum ends the reading: it was never acknowledged, or it is damage, and
//! how many bytes are lost is said. Invariant: `append` that returned `Ok` is on the disk.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;

/// Names the format.
const MAGIC: &[u8; 8] = b"ANSPOOL1";

/// Bytes that the file may have (`reliability` 1.6, row 21).
const SIZE_MAX: u64 = 64 * 1024 * 1024;

/// Processes that may share a folder.
const SLOTS: usize = 64;

/// How the name of the file ends that has what was refused for good.
const REFUSED: &str = "refused";

/// Bytes in front of a payload.
const HEAD: usize = 4 + CHECKSUM;

/// Bytes of the hash that are kept.
const CHECKSUM: usize = 8;

/// An open spool file. Clones share it.
#[derive(Debug)]
pub(super) struct SpoolFile {
    path: Arc<Path>,
    file: Arc<Mutex<File>>,
    /// Where the next frame goes: what stands behind is not valid.
    size_bytes: u64,
}

/// What a file held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// In the order in which they were written.
    pub(super) payloads: Vec<Vec<u8>>,
    /// Bytes at the end that are not whole frames.
    pub(super) lost_bytes: u64,
    /// Bytes up to there.
    valid_bytes: u64,
}

impl SpoolFile {
    /// Opens or makes a file of this process's own, and reads it. Processes that share a folder
    /// have a file each, by a number in its name; what others left behind that are gone is taken
    /// over.
    pub(super) fn open_shared(path: &Path) -> std::io::Result<(Self, Contents)> {
        let mut own: Option<(Self, Contents)> = None;
        for n in 0..SLOTS {
            let path = slot(path, n);
            if own.is_some() && !path.exists() {
                break;
            }
            match (Self::open(&path), &mut own) {
                (Ok(opened), None) => own = Some(opened),
                (Ok((mut other, found)), Some((file, contents))) => {
                    // However much it is: what was acknowledged is kept.
                    file.write(&found.payloads, u64::MAX).map_err(std::io::Error::other)?;
                    other.empty().map_err(std::io::Error::other)?;
                    contents.payloads.extend(found.payloads);
                    contents.lost_bytes += found.lost_bytes;
                }
                (Err(error), _) if error.kind() == ErrorKind::WouldBlock => {}
                (Err(error), None) => return Err(error),
                // It stays where it is, for whoever mends it: no reason not to serve.
                (Err(error), Some(_)) => {
                    let path = path.display();
                    tracing::error!(%path, %error, "failed to take over a spool");
                }
            }
        }
        own.ok_or_else(|| std::io::Error::other("all its spools are in use"))
    }

    /// Opens or makes the file, and reads it. One process at a time has it open.
    fn open(path: &Path) -> std::io::Result<(Self, Contents)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.try_lock()?;
        if !has_name(&file, path)? {
            // Its owner put another in its place since: that one is locked, or the next to be had.
            return Self::open(path);
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let contents = read(&bytes);
        if contents.valid_bytes == 0 {
            // New, or damaged from its first byte on.
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(MAGIC)?;
            file.sync_all()?;
            sync_folder(path)?;
        }
        let size_bytes = contents.valid_bytes.max(MAGIC.len() as u64);
        let (path, file) = (Arc::from(path), Arc::new(Mutex::new(file)));
        Ok((Self { path, file, size_bytes }, contents))
    }

    /// Bytes in use.
    pub(super) const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Appends payloads and waits for the disk. All or none.
    pub(super) async fn append(&mut self, payloads: Vec<Vec<u8>>) -> Result<(), String> {
        self.blocking(move |file| file.write(&payloads, SIZE_MAX)).await
    }

    /// Puts these frames alone in the place of all: beside the file first, then by its name, so
    /// that a crash leaves the one or the other.
    pub(super) async fn replace(&mut self, payloads: Vec<Vec<u8>>) -> Result<(), String> {
        self.blocking(move |file| file.rewrite(&payloads).map_err(|e| e.to_string())).await
    }

    /// Removes all frames.
    pub(super) async fn clear(&mut self) -> Result<(), String> {
        self.blocking(Self::empty).await
    }

    /// Works on the file on a thread that may block.
    async fn blocking(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), String> + Send + 'static,
    ) -> Result<(), String> {
        let (path, file) = (Arc::clone(&self.path), Arc::clone(&self.file));
        let mut shared = Self { path, file, size_bytes: self.size_bytes };
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut shared);
            (done, shared.size_bytes)
        });
        let (done, size_bytes) = done.await.map_err(|e| e.to_string())?;
        self.size_bytes = size_bytes;
        done
    }

    /// Appends payloads to a file of lines beside this one, which nothing reads but people, and
    /// waits for the disk.
    pub(super) async fn set_aside(&mut self, payloads: Vec<Vec<u8>>) -> Result<(), String> {
        self.blocking(move |file| file.refuse(&payloads).map_err(|e| e.to_string())).await
    }

    fn write(&mut self, payloads: &[Vec<u8>], most: u64) -> Result<(), String> {
        let frames = frames(payloads).map_err(|e| e.to_string())?;
        let size_bytes = self.size_bytes.saturating_add(frames.len() as u64);
        if size_bytes > most {
            return Err(format!("the spool is full: it may have {SIZE_MAX} bytes"));
        }
        let mut file = self.file.lock();
        let written = file
            .seek(SeekFrom::Start(self.size_bytes))
            .and_then(|_| file.write_all(&frames))
            .and_then(|()| file.set_len(size_bytes))
            .and_then(|()| file.sync_all());
        if let Err(error) = written {
            // What is behind is not valid, and its callers are told so: the next start must not
            // find it whole.
            if let Err(why) = file.set_len(self.size_bytes).and_then(|()| file.sync_all()) {
                tracing::error!(%why, "failed to take back what was not spooled");
            }
            return Err(error.to_string());
        }
        self.size_bytes = size_bytes;
        Ok(())
    }

    fn refuse(&self, payloads: &[Vec<u8>]) -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let path = self.path.with_extension(REFUSED);
        let mut file = options.open(&path)?;
        let lines: Vec<u8> =
            payloads.iter().flat_map(|payload| [payload, &b"\n"[..]].concat()).collect();
        file.write_all(&lines)?;
        file.sync_all()?;
        sync_folder(&path)
    }

    fn rewrite(&mut self, payloads: &[Vec<u8>]) -> std::io::Result<()> {
        let beside = self.path.with_extension("compacted");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut new = options.open(&beside)?;
        // Before it has the name: nobody else may find it unlocked.
        new.try_lock()?;
        let frames = frames(payloads)?;
        new.write_all(MAGIC)?;
        new.write_all(&frames)?;
        new.sync_all()?;
        let mut file = self.file.lock();
        std::fs::rename(&beside, &self.path)?;
        *file = new;
        self.size_bytes = (MAGIC.len() as u64).saturating_add(frames.len() as u64);
        sync_folder(&self.path)
    }

    fn empty(&mut self) -> Result<(), String> {
        let start = MAGIC.len() as u64;
        let file = self.file.lock();
        file.set_len(start).and_then(|()| file.sync_all()).map_err(|e| e.to_string())?;
        self.size_bytes = start;
        Ok(())
    }
}

/// Whether this is the file that the name leads to.
#[cfg(unix)]
fn has_name(file: &File, path: &Path) -> std::io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (ours, named) = (file.metadata()?, std::fs::metadata(path)?);
    Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino()))
}

/// Elsewhere a file that is open is not replaced.
#[cfg(not(unix))]
fn has_name(_file: &File, _path: &Path) -> std::io::Result<bool> {
    Ok(true)
}

/// Payloads with their heads.
fn frames(payloads: &[Vec<u8>]) -> std::io::Result<Vec<u8>> {
    let mut frames = Vec::new();
    for payload in payloads {
        let length = u32::try_from(payload.len()).map_err(std::io::Error::other)?;
        frames.extend_from_slice(&length.to_be_bytes());
        frames.extend_from_slice(&checksum(payload));
        frames.extend_from_slice(payload);
    }
    Ok(frames)
}

/// The name of the file that the process with this number has.
fn slot(path: &Path, n: usize) -> PathBuf {
    if n == 0 { path.to_owned() } else { path.with_extension(format!("{n}.spool")) }
}

/// Reads all whole frames.
fn read(bytes: &[u8]) -> Contents {
    let mut contents = Contents::default();
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        contents.lost_bytes = bytes.len() as u64;
        return contents;
    };
    while let Some((payload, after)) = frame(rest) {
        contents.payloads.push(payload.to_vec());
        rest = after;
    }
    contents.lost_bytes = rest.len() as u64;
    contents.valid_bytes = (bytes.len() as u64).saturating_sub(contents.lost_bytes);
    contents
}

/// The first frame's payload, and what follows it.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let (length, sum) = head.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (payload, after) = rest.split_at_checked(length)?;
    (checksum(payload) == sum).then_some((payload, after))
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM] {
    let hash = digest(&SHA256, payload);
    hash.as_ref().first_chunk().copied().unwrap_or_default()
}

/// Makes a new file's name durable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(payloads: &[&[u8]]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut file, found) = SpoolFile::open(&path).unwrap();
            assert!(found.payloads.is_empty() && found.lost_bytes == 0);
            for payload in payloads {
                file.append(vec![payload.to_vec()]).await.unwrap();
            }
        });
        (folder, path)
    }

    #[test]
    fn what_was_appended_is_read_again_and_cleared_for_good() {
        let (_folder, path) = written(&[b"one", b"", b"three"]);
        let (mut file, found) = SpoolFile::open(&path).unwrap();
        assert_eq!(found.payloads, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(file.clear()).unwrap();
        drop(file);
        assert_eq!(SpoolFile::open(&path).unwrap().1.payloads, Vec::<Vec<u8>>::new());
    }

    #[test]
    fn processes_that_share_a_folder_have_files_of_their_own_and_inherit() {
        let (_folder, path) = written(&[b"one"]);
        let (first, found) = SpoolFile::open_shared(&path).unwrap();
        assert_eq!(found.payloads, [b"one".to_vec()]);
        let (mut second, found) = SpoolFile::open_shared(&path).unwrap();
        assert_eq!(found.payloads, Vec::<Vec<u8>>::new());
        second.write(&[b"two".to_vec()], SIZE_MAX).unwrap();
        drop((first, second));
        let (third, found) = SpoolFile::open_shared(&path).unwrap();
        assert_eq!(found.payloads, [b"one".to_vec(), b"two".to_vec()]);
        drop(third);
        let both = [b"one".to_vec(), b"two".to_vec()];
        assert_eq!(SpoolFile::open(&path).unwrap().1.payloads, both);
    }

    #[test]
    fn a_full_spool_says_so_and_keeps_what_it_has() {
        let (_folder, path) = written(&[b"one"]);
        let (mut file, _) = SpoolFile::open(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let large = vec![0; usize::try_from(SIZE_MAX).unwrap()];
        let refused = runtime.block_on(file.append(vec![large])).unwrap_err();
        assert!(refused.contains("full"), "{refused}");
        drop(file);
        assert_eq!(SpoolFile::open(&path).unwrap().1.payloads, [b"one".to_vec()]);
    }

    #[test]
    fn what_is_inherited_is_kept_however_much_it_is() {
        let (_folder, path) = written(&[b"one"]);
        let large = vec![7; usize::try_from(SIZE_MAX).unwrap()];
        let (mut other, _) = SpoolFile::open(&slot(&path, 1)).unwrap();
        other.write(std::slice::from_ref(&large), u64::MAX).unwrap();
        drop(other);
        // One that cannot be read is left alone.
        std::fs::create_dir(slot(&path, 2)).unwrap();
        let (file, found) = SpoolFile::open_shared(&path).unwrap();
        assert_eq!(found.payloads.len(), 2);
        assert_eq!(found.payloads[1].len(), large.len());
        assert!(file.size_bytes() > SIZE_MAX);
    }

    #[test]
    fn a_file_that_lost_its_name_is_not_taken_for_the_spool() {
        let (_folder, path) = written(&[b"one"]);
        let before = File::open(&path).unwrap();
        assert!(has_name(&before, &path).unwrap());
        let (mut file, _) = SpoolFile::open(&path).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(file.replace(vec![b"two".to_vec()])).unwrap();
        assert!(!has_name(&before, &path).unwrap());
    }

    #[test]
    fn a_compacted_file_has_what_is_left_and_stays_ours() {
        let (_folder, path) = written(&[b"one", b"two", b"three"]);
        let (mut file, _) = SpoolFile::open(&path).unwrap();
        let before = file.size_bytes();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(file.replace(vec![b"three".to_vec()])).unwrap();
        assert!(file.size_bytes() < before);
        assert_eq!(SpoolFile::open(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        runtime.block_on(file.append(vec![b"four".to_vec()])).unwrap();
        drop(file);
        let left = [b"three".to_vec(), b"four".to_vec()];
        assert_eq!(SpoolFile::open(&path).unwrap().1.payloads, left);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damage_loses_what_stands_behind_it_and_nothing_else(
            at in 8_usize..60, bit in 0_u8..8, cut in any::<bool>(),
        ) {
            let (_folder, path) = written(&[b"first payload", b"second payload"]);
            let mut bytes = std::fs::read(&path).unwrap();
            prop_assume!(at < bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            std::fs::write(&path, &bytes).unwrap();
            let first_ends = 8 + HEAD + 13;
            let (_, found) = SpoolFile::open(&path).unwrap();
            prop_assert_eq!(found.payloads.len(), usize::from(at >= first_ends));
            prop_assert_eq!(found.lost_bytes > 0, !cut || (at != 8 && at != first_ends));
        }
    }
}
