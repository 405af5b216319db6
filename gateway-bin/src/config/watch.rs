//! Tells when files may have changed: the kernel's word where there is one, and a look every few seconds for file
//! systems that say nothing. Whoever is told reads everything and compares, so being told too often costs little and
//! a ConfigMap's symbolic links need no special care.
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{RecursiveMode, Watcher};
use tokio::sync::Notify;

/// After a change, others are waited for this long, so that files written together are read together.
const SETTLE: Duration = Duration::from_millis(50);
/// How often to look without being told.
const LOOK: Duration = Duration::from_secs(2);

/// Watches the folders of files.
pub(crate) struct Watch {
    changed: Arc<Notify>,
    /// Stops watching when it goes.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches folders, and for files the folders that hold them: files are replaced more often than written.
    pub(crate) fn new<'p>(paths: impl Iterator<Item = &'p Path>) -> Self {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| !event.kind.is_access()) {
                tell.notify_one();
            }
        });
        let mut watcher = match watcher {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(%error, "changes of files are noticed late: they cannot be watched");
                None
            }
        };
        if let Some(watcher) = &mut watcher {
            for folder in folders(paths) {
                if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    tracing::warn!(%error, folder = %folder.display(), "changes here are noticed late: it cannot be watched");
                }
            }
        }
        Self { changed, _watcher: watcher }
    }

    /// Waits until files may have changed.
    pub(crate) async fn changed(&self) {
        if tokio::time::timeout(LOOK, self.changed.notified()).await.is_ok() {
            tokio::time::sleep(SETTLE).await;
        }
    }
}

fn folders<'p>(paths: impl Iterator<Item = &'p Path>) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        paths.map(|path| if path.is_dir() { path.to_owned() } else { parent(path).to_owned() }).collect();
    folders.sort();
    folders.dedup();
    folders
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
