//! Files of a volume on disk: all of them change at once, and belong to whom the Pod says.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, lchown, symlink},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::PodSpec;

/// By path in the volume.
pub(super) type Files = BTreeMap<String, File>;

/// A file's content, permissions, and its owner if not root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    pub(super) owner: Option<u32>,
}

/// Who a Pod's files are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    /// The one user of all containers, if there is one.
    user: Option<u32>,
    /// `fsGroup`.
    group: Option<u32>,
}

impl Owner {
    pub(super) fn of(spec: &PodSpec) -> Self {
        let pod = spec.security_context.as_ref();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let users: BTreeSet<_> = containers
            .map(|container| {
                let own = container.security_context.as_ref().and_then(|own| own.run_as_user);
                own.or(pod.and_then(|pod| pod.run_as_user))
            })
            .collect();
        let user = if users.len() == 1 { users.first().copied().flatten() } else { None };
        let number = |id: i64| u32::try_from(id).ok();
        Self { user: user.and_then(number), group: pod.and_then(|pod| pod.fs_group).and_then(number) }
    }

    /// Mode and owner of a token or a key: 0600 where it is known whose it is (the group's right comes with the volume's).
    pub(super) fn private(self, mode: u32) -> (u32, Option<u32>) {
        let known = self.user.is_some() || self.group.is_some();
        (if known { 0o600 } else { mode }, self.user)
    }

    /// A file's mode in a volume that belongs to `fsGroup`: the group may read it.
    fn mode(self, mode: u32) -> u32 {
        if self.group.is_some() { mode | 0o440 } else { mode }
    }

    /// An empty folder that everybody may write to, as `emptyDir` is.
    pub(super) fn give_empty(self, path: &Path) -> std::io::Result<()> {
        chown(path, None, self.group)?;
        let setgid = if self.group.is_some() { 0o2000 } else { 0 };
        fs::set_permissions(path, Permissions::from_mode(0o777 | setgid))
    }
}

/// A volume whose files all change at once, as kubelets write them: the files are in a hidden folder that the link `..data`
/// leads to; each name in the volume is a link through it; one rename of `..data` changes them all.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    files: Option<Files>,
    version: u64,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, files: None, version: 0 }
    }

    /// Makes the folder hold exactly these files; nothing is touched if it does already.
    pub(super) fn write(&mut self, files: Files, owner: Owner) -> anyhow::Result<()> {
        if self.files.as_ref() == Some(&files) {
            return Ok(());
        }
        let folder_mode = Permissions::from_mode(if owner.group.is_some() { 0o2775 } else { 0o755 });
        fs::create_dir_all(&self.path)?;
        chown(&self.path, None, owner.group)?;
        fs::set_permissions(&self.path, folder_mode.clone())?;
        let (old, new) = (format!("..{}", self.version), format!("..{}", self.version + 1));
        let hidden = self.path.join(&new);
        // Left of an attempt that failed half way.
        super::volumes::remove_folder(&hidden)?;
        fs::create_dir(&hidden)?;
        let mut folders = BTreeSet::from([hidden.clone()]);
        for (path, file) in &files {
            let path = hidden.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
                let inside = parent.ancestors().take_while(|folder| folder.starts_with(&hidden));
                folders.extend(inside.map(Path::to_owned));
            }
            fs::write(&path, &file.content)?;
            chown(&path, file.owner, owner.group)?;
            fs::set_permissions(&path, Permissions::from_mode(owner.mode(file.mode)))?;
        }
        for folder in folders {
            chown(&folder, None, owner.group)?;
            fs::set_permissions(&folder, folder_mode.clone())?;
        }
        let (next, data) = (self.path.join("..data_tmp"), self.path.join("..data"));
        if next.is_symlink() {
            fs::remove_file(&next)?;
        }
        symlink(&new, &next)?;
        lchown(&next, None, owner.group)?;
        fs::rename(&next, &data)?;
        self.version += 1;
        let names: BTreeSet<_> = files.keys().filter_map(|path| path.split('/').next()).collect();
        for name in &names {
            let link = self.path.join(name);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(name), &link)?;
            }
        }
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("..") && !names.contains(name.as_str()) {
                fs::remove_file(entry.path())?;
            }
        }
        super::volumes::remove_folder(&self.path.join(old))?;
        self.files = Some(files);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY_SAYS: Owner = Owner { user: None, group: None };

    fn files(all: &[(&str, &str, u32)]) -> Files {
        let file = |content: &str, mode| File { content: content.into(), mode, owner: None };
        all.iter().map(|(path, content, mode)| ((*path).to_owned(), file(content, *mode))).collect()
    }

    #[track_caller]
    fn check_folder(path: &Path, expected: &[(&str, &str, u32)]) {
        let mut names: Vec<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with(".."))
            .collect();
        names.sort();
        let mut wanted: Vec<_> = expected.iter().map(|(path, ..)| path.split('/').next().unwrap()).collect();
        wanted.dedup();
        assert_eq!(names, wanted);
        for (name, content, mode) in expected {
            let file = path.join(name);
            assert_eq!(fs::read_to_string(&file).unwrap(), *content, "{name}");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, *mode, "{name}");
        }
    }

    #[test]
    fn a_folder_changes_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let mut folder = Folder::new(path.clone());
        folder.write(Files::new(), NOBODY_SAYS).unwrap();
        check_folder(&path, &[]);
        let first = [("a", "1", 0o644), ("sub/b", "2", 0o400), ("sub/c", "3", 0o755)];
        folder.write(files(&first), NOBODY_SAYS).unwrap();
        check_folder(&path, &first);
        // Somebody who holds the old folder open sees all of the old files, not some of the new ones.
        let seen = fs::canonicalize(path.join("..data")).unwrap();
        folder.write(files(&first), NOBODY_SAYS).unwrap();
        assert_eq!(fs::canonicalize(path.join("..data")).unwrap(), seen, "written again without a change");
        let second = [("a", "new", 0o600), ("d", "4", 0o644)];
        folder.write(files(&second), NOBODY_SAYS).unwrap();
        check_folder(&path, &second);
        assert_ne!(fs::canonicalize(path.join("..data")).unwrap(), seen);
        assert!(!seen.exists());
    }

    #[track_caller]
    fn check_owner(spec: serde_json::Value, expected: Owner, private: (u32, Option<u32>), mode: u32) {
        let owner = Owner::of(&serde_json::from_value(spec).unwrap());
        assert_eq!(owner, expected);
        assert_eq!(owner.private(0o644), private);
        assert_eq!(owner.mode(0o400), mode);
    }

    #[test]
    fn owners() {
        use serde_json::json;
        check_owner(json!({"containers": [{"name": "a"}]}), NOBODY_SAYS, (0o644, None), 0o400);
        check_owner(
            json!({"containers": [{"name": "a"}, {"name": "b"}], "securityContext": {"runAsUser": 7}}),
            Owner { user: Some(7), group: None },
            (0o600, Some(7)),
            0o400,
        );
        check_owner(
            json!({
                "containers": [{"name": "a", "securityContext": {"runAsUser": 8}}, {"name": "b"}],
                "securityContext": {"runAsUser": 7, "fsGroup": 9},
            }),
            Owner { user: None, group: Some(9) },
            (0o600, None),
            0o440,
        );
    }
}
