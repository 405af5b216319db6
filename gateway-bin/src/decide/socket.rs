//! The file of a unix socket: there while it is served, and nobody else's.
use std::{
    fs,
    io::{Error, ErrorKind},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tokio::net::{UnixListener, UnixStream};

/// Owner and group: Envoy runs as another user in the same group.
const MODE: u32 = 0o660;

/// Removes the file at the end, if it is still ours.
#[derive(Debug)]
pub(super) struct SocketFile {
    pub(super) path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket cannot be removed");
        }
    }
}

/// Binds the socket. One that a process left behind is replaced; one that is served is not.
pub(super) async fn bind(path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let name = path.file_name().context("the path names no file")?.to_string_lossy();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        bail!("the folder `{}` does not exist; create it first", folder.display());
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
        Ok(found) if !found.file_type().is_socket() => {
            bail!("there is a file that is no socket; remove it or choose another path")
        }
        Ok(_) => {
            if UnixStream::connect(path).await.is_ok() {
                bail!("another process serves it; end that one first");
            }
        }
    }
    // Under another name first: whoever finds it finds it ready, with its mode, and in the place of what was there.
    let early = folder.join(format!(".{name}.{}", std::process::id()));
    let made = make(&early, path);
    if made.is_err() {
        // What is left of it is of no use; that it was never made is no fault.
        fs::remove_file(&early).unwrap_or_default();
    }
    let (listener, inode) = made?;
    Ok((listener, SocketFile { path: path.to_owned(), inode }))
}

fn make(early: &Path, path: &Path) -> Result<(UnixListener, u64), Error> {
    let listener = UnixListener::bind(early)?;
    fs::set_permissions(early, fs::Permissions::from_mode(MODE))?;
    let inode = fs::symlink_metadata(early)?.ino();
    fs::rename(early, path)?;
    Ok((listener, inode))
}
