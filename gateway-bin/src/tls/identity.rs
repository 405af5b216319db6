//! The gateway's own identity and the trust bundles, read from files (as a kubelet projects them).
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use rustls::sign::CertifiedKey;
use spiffe_id::{SpiffeId, TrustBundle, TrustDomain, identity_of};

use super::{TrustDomains, certified_key};
use crate::cli::BundleFile;

const CREDENTIAL: &str = "credential-bundle.pem";
const BUNDLE_SUFFIX: &str = ".trust-bundle.pem";

/// Where identities come from.
#[derive(Debug, Clone, Default)]
pub struct IdentityFiles {
    /// Holds `credential-bundle.pem` (key and chain) and `<trust-domain>.trust-bundle.pem`.
    pub dir: Option<PathBuf>,
    /// Bundles besides.
    pub bundles: Vec<BundleFile>,
}

/// What the files hold: one reading of them all.
#[derive(Debug, Default)]
pub struct Material {
    /// The own certificate and key; `None`: there is no `credential-bundle.pem`.
    pub credential: Option<Arc<CertifiedKey>>,
    /// The ID in the own certificate.
    pub own_id: Option<Arc<SpiffeId>>,
    /// Whose identities are accepted.
    pub trust: Arc<TrustDomains>,
    fingerprint: Vec<u8>,
}

impl Material {
    /// Whether both come from the same bytes.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl IdentityFiles {
    /// The folder that a Pod of a gateway has its identity in, if it is there.
    pub fn default_dir() -> Option<PathBuf> {
        let dir = PathBuf::from("/run/gateway-identity-mtls");
        dir.is_dir().then_some(dir)
    }

    /// The folders to watch.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.dir.as_deref().into_iter().chain(self.bundles.iter().filter_map(|file| file_parent(&file.path)))
    }

    /// Reads everything anew.
    ///
    /// # Errors
    /// A file that cannot be read or used, named. Nothing is taken over from a set that is partly bad.
    pub fn read(&self) -> anyhow::Result<Material> {
        let mut fingerprint = Vec::new();
        let mut bundles = Vec::new();
        let mut credential = None;
        let mut own_id = None;
        if let Some(dir) = &self.dir {
            let path = dir.join(CREDENTIAL);
            if path.exists() {
                let pem = read_file(&path, &mut fingerprint)?;
                let key =
                    certified_key(&pem, &pem).map_err(|error| anyhow!("`{}`: {error}", path.display()))?;
                let leaf = key.end_entity_cert().with_context(|| format!("`{}`", path.display()))?;
                let id = identity_of(leaf).with_context(|| format!("`{}`", path.display()))?;
                own_id = Some(Arc::new(id));
                credential = Some(Arc::new(key));
            }
            for path in bundle_paths(dir)? {
                bundles.push(read_bundle(&path, &domain_of(&path)?, &mut fingerprint)?);
            }
        }
        for file in &self.bundles {
            bundles.push(read_bundle(&file.path, &file.trust_domain, &mut fingerprint)?);
        }
        let trust = Arc::new(TrustDomains::new(bundles).context("a root cannot be used as a trust anchor")?);
        Ok(Material { credential, own_id, trust, fingerprint })
    }
}

fn file_parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn bundle_paths(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list `{}`", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list `{}`", dir.display()))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(BUNDLE_SUFFIX)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn domain_of(path: &Path) -> anyhow::Result<TrustDomain> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let domain = name.strip_suffix(BUNDLE_SUFFIX).unwrap_or_default();
    domain
        .parse()
        .with_context(|| format!("`{}`: its name must be <trust-domain>{BUNDLE_SUFFIX}", path.display()))
}

fn read_bundle(path: &Path, domain: &TrustDomain, fingerprint: &mut Vec<u8>) -> anyhow::Result<TrustBundle> {
    let pem = read_file(path, fingerprint)?;
    fingerprint.extend_from_slice(domain.as_str().as_bytes());
    TrustBundle::from_pem(domain.clone(), &pem).with_context(|| format!("`{}`", path.display()))
}

/// Appends what was read to the fingerprint, with its length so that two files cannot be mistaken for one.
fn read_file(path: &Path, fingerprint: &mut Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    fingerprint.extend_from_slice(path.as_os_str().as_encoded_bytes());
    fingerprint.extend_from_slice(&bytes.len().to_le_bytes());
    fingerprint.extend_from_slice(&bytes);
    Ok(bytes)
}
