//! Where configurations come from: files, or a controller.
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use command_line::{Contents, ManifestError};
use policy_model::NamespacedName;
use xds_translate::{Options, Resolution, resolve};

use crate::xds::Mirror;

/// Why what a source has cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// Manifests.
    #[error("{0}")]
    Manifests(#[from] ManifestError),
    /// What the controller sent.
    #[error("{0:#}")]
    Sent(#[from] anyhow::Error),
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in force.
    InForce,
    /// It cannot be in force.
    Refused,
}

/// Where configurations come from.
#[derive(Debug)]
pub(super) enum Source {
    Files(Files),
    Controller(Box<Mirror>),
}

impl Source {
    /// What there is that was not offered before; `None`: nothing new.
    pub(super) fn offer(&mut self, options: &Options) -> Result<Option<Resolution>, SourceError> {
        match self {
            Self::Files(files) => files.offer(options),
            Self::Controller(mirror) => Ok(mirror.resolution(options)?),
        }
    }

    /// Is told what became of the last offer.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        match self {
            Self::Files(files) => files.settle(outcome),
            Self::Controller(mirror) if outcome == Outcome::InForce => mirror.in_force(),
            Self::Controller(_) => {}
        }
    }

    /// Whether a Gateway is to be served.
    pub(super) fn serves(&self, gateway: &NamespacedName) -> bool {
        match self {
            Self::Files(files) => files.only.is_empty() || files.only.contains(gateway),
            Self::Controller(mirror) => mirror.gateway() == gateway,
        }
    }

    /// Files and folders to watch.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::Files(files) => files.paths.clone(),
            Self::Controller(_) => Vec::new(),
        }
    }
}

/// Manifests in files.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    /// Serve these Gateways only; empty: all.
    only: Vec<NamespacedName>,
    /// What was offered last.
    offered: Contents,
    /// Whether that is in force.
    in_force: bool,
}

impl Files {
    pub(super) fn new(paths: &[impl AsRef<Path>], only: &[NamespacedName]) -> Self {
        let paths = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Self { paths, only: only.to_vec(), offered: Contents::new(), in_force: false }
    }

    fn offer(&mut self, options: &Options) -> Result<Option<Resolution>, SourceError> {
        let contents = command_line::contents(&self.paths).map_err(ManifestError::from)?;
        if self.in_force && self.offered == contents {
            return Ok(None);
        }
        let manifests = command_line::parse(&contents)?;
        let resolution = resolve(&manifests.objects, options);
        if self.offered.is_empty() {
            if !manifests.skipped.is_empty() {
                tracing::info!(kinds = manifests.skipped.join(", "), "objects of other kinds were skipped");
            }
            if let Some(missing) = self.only.iter().find(|name| !resolution.gateways.contains_key(*name)) {
                let error = anyhow!("there is no Gateway `{missing}` of ours in the manifests");
                return Err(ManifestError::from(error).into());
            }
        }
        self.offered = contents;
        Ok(Some(resolution))
    }

    fn settle(&mut self, outcome: Outcome) {
        // What was not put in force is read again at the next look.
        self.in_force = outcome == Outcome::InForce;
    }
}
