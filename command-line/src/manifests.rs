//! Manifests from files and folders.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use xds_translate::{LoadError, Objects};

/// What was read from manifests.
#[derive(Debug, Default)]
pub struct Manifests {
    /// What is in them.
    pub objects: Objects,
    /// Kinds that are of no concern here, and were skipped.
    pub skipped: Vec<String>,
}

/// Why manifests were refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Files that cannot be read.
    #[error("{0:#}")]
    Read(#[from] anyhow::Error),
    /// What an API server would refuse.
    #[error(transparent)]
    Invalid(#[from] LoadError),
}

/// Files and what they hold.
pub type Contents = Vec<(PathBuf, Vec<u8>)>;

/// Reads files and folders (not what is in folders of folders). All faults of all files are reported.
///
/// # Errors
/// Files that cannot be read, and what an API server would refuse.
pub fn load(paths: &[PathBuf]) -> Result<Manifests, ManifestError> {
    parse(&contents(paths)?)
}

/// Reads the files, in the order of their names.
///
/// # Errors
/// One that cannot be read or has nothing in it, a folder without manifests.
pub fn contents(paths: &[PathBuf]) -> anyhow::Result<Contents> {
    let read = |file: PathBuf| {
        let bytes = fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?;
        // So looks what is being written, and what a full disk left of it: to take it for no policies would open targets.
        if bytes.is_empty() {
            bail!(
                "`{}` is empty; write it as a whole (another file, then renamed), remove it, or say in a comment that it \
                 holds nothing",
                file.display()
            );
        }
        Ok((file, bytes))
    };
    files(paths)?.into_iter().map(read).collect()
}

/// Parses what was read.
///
/// # Errors
/// What an API server would refuse, and text that is none.
pub fn parse(contents: &Contents) -> Result<Manifests, ManifestError> {
    let mut manifests = Manifests::default();
    let mut violations = Vec::new();
    for (file, bytes) in contents {
        let text = std::str::from_utf8(bytes).with_context(|| {
            format!("`{}` is not UTF-8; write manifests as plain YAML or JSON", file.display())
        })?;
        match manifests.objects.add_yaml(&file.display().to_string(), text) {
            Ok(skipped) => manifests.skipped.extend(skipped),
            Err(error) => violations.extend(error.violations),
        }
    }
    if !violations.is_empty() {
        return Err(LoadError { violations }.into());
    }
    Ok(manifests)
}

fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        let about = fs::metadata(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        if !about.is_dir() {
            files.push(path.clone());
            continue;
        }
        let before = files.len();
        let entries = fs::read_dir(path).with_context(|| format!("cannot list `{}`", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list `{}`", path.display()))?.path();
            // A ConfigMap's `..data` and editors' hidden files are not manifests.
            let hidden = entry.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
            if !hidden && is_manifest(&entry) && entry.is_file() {
                files.push(entry);
            }
        }
        if files.len() == before {
            bail!("`{}` holds no manifest (*.yaml, *.yml, *.json)", path.display());
        }
    }
    // One order, whatever the file system's: only reports depend on it.
    files.sort();
    files.dedup();
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_hold_manifests_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "c.json", "d.txt", ".hidden.yaml", "e.yaml~"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join("sub.yaml")).unwrap();
        let found =
            files(&[dir.path().to_owned(), dir.path().join("d.txt"), dir.path().join("a.yml")]).unwrap();
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.yml", "b.yaml", "c.json", "d.txt"]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(files(&[dir.path().to_owned()]).is_err());
        assert!(files(&[dir.path().join("missing.yaml")]).is_err());
    }

    #[test]
    fn a_file_with_nothing_in_it_is_no_manifest() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("policies.yaml");
        fs::write(&file, "").unwrap();
        let error = contents(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("policies.yaml` is empty"), "{error}");
        fs::write(&file, "# Nothing yet.\n").unwrap();
        assert!(load(&[file]).unwrap().objects.is_empty());
    }
}
