//! The last good configuration on disk, for a start while the controller is away.
use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use policy_model::NamespacedName;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{Changes, Sent};

/// Begins every file; the number is that of the format.
const HEAD: &[u8] = b"agentic-gateway configuration 1\n";
const HASH: usize = 32;
/// The name in a folder.
const FILE: &str = "configuration";

/// What was in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) gateway: NamespacedName,
    pub(crate) objects: Vec<Sent>,
    pub(crate) session_keys: Option<Sent>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Contents {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    objects: Vec<Resource>,
    #[prost(message, optional, tag = "4")]
    session_keys: Option<Resource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(bytes = "bytes", tag = "3")]
    body: bytes::Bytes,
}

impl From<Sent> for Resource {
    fn from(Sent { name, version, body }: Sent) -> Self {
        Self { name, version, body }
    }
}

impl From<Resource> for Sent {
    fn from(Resource { name, version, body }: Resource) -> Self {
        Self { name, version, body }
    }
}

impl Saved {
    /// As if the controller had sent it: objects, and session keys if there are any.
    pub(crate) fn into_changes(self) -> (Changes, Option<Changes>) {
        let set = |set| Changes { set, removed: Vec::new() };
        (set(self.objects), self.session_keys.map(|keys| set(vec![keys])))
    }
}

/// `--xds-state`
#[derive(Debug, Clone)]
pub(crate) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// A file, or the one in a folder.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: if path.is_dir() { path.join(FILE) } else { path.to_owned() } }
    }

    /// What was saved last; `None`: nothing yet.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or is another Gateway's.
    pub(crate) fn read(&self, gateway: &NamespacedName) -> anyhow::Result<Option<Saved>> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read `{}`", self.path.display()))?,
        };
        let saved = decode(&bytes).with_context(|| format!("`{}` is damaged", self.path.display()))?;
        if saved.gateway != *gateway {
            bail!("`{}` is of Gateway `{}`", self.path.display(), saved.gateway);
        }
        Ok(Some(saved))
    }

    /// Replaces the file as a whole. Only its owner can read it: it may hold keys.
    ///
    /// # Errors
    /// It cannot be written; the file before stays.
    pub(crate) fn write(&self, saved: Saved) -> anyhow::Result<()> {
        let mut next = self.path.clone().into_os_string();
        next.push(".next");
        let next = PathBuf::from(next);
        let write = || -> io::Result<()> {
            // What a process that was killed left there may have other permissions.
            match fs::remove_file(&next) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
            file.write_all(&encode(saved))?;
            file.sync_all()?;
            fs::rename(&next, &self.path)
        };
        write().with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

fn encode(saved: Saved) -> Vec<u8> {
    let contents = Contents {
        namespace: saved.gateway.namespace,
        name: saved.gateway.name,
        objects: saved.objects.into_iter().map(Resource::from).collect(),
        session_keys: saved.session_keys.map(Resource::from),
    };
    let body = contents.encode_to_vec();
    [HEAD, Sha256::digest(&body).as_slice(), &body].concat()
}

fn decode(bytes: &[u8]) -> anyhow::Result<Saved> {
    let rest = bytes.strip_prefix(HEAD).context("it has another beginning")?;
    let (hash, body) = rest.split_at_checked(HASH).context("it is cut off")?;
    if Sha256::digest(body).as_slice() != hash {
        bail!("its hash differs");
    }
    let Contents { namespace, name, objects, session_keys } = Contents::decode(body)?;
    Ok(Saved {
        gateway: NamespacedName::new(namespace, name),
        objects: objects.into_iter().map(Sent::from).collect(),
        session_keys: session_keys.map(Sent::from),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use bytes::Bytes;

    use super::*;

    fn saved() -> Saved {
        let sent = |name: &str| Sent {
            name: name.to_owned(),
            version: "v".to_owned(),
            body: Bytes::from_static(b"body"),
        };
        Saved {
            gateway: NamespacedName::new("ns", "g"),
            objects: vec![sent("a"), sent("b")],
            session_keys: Some(sent("session-keys")),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::new(dir.path());
        let own = NamespacedName::new("ns", "g");
        assert_eq!(file.read(&own).unwrap(), None);
        fs::write(dir.path().join("configuration.next"), "left there").unwrap();
        file.write(Saved { session_keys: None, ..saved() }).unwrap();
        file.write(saved()).unwrap();
        assert_eq!(file.read(&own).unwrap(), Some(saved()));
        let names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["configuration"]);
        let mode = fs::metadata(dir.path().join("configuration")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(file.read(&NamespacedName::new("ns", "other")).is_err());
    }

    #[test]
    fn no_damage_goes_unseen() {
        let whole = encode(saved());
        assert_eq!(decode(&whole).unwrap(), saved());
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(decode(&damaged).is_err(), "byte {at}");
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
        }
    }
}
