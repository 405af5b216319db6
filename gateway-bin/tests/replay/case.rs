//! The decision cases: `tests/cases/*.yaml`, each on top of `base.yaml`.
use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Deserialize;

/// One file: manifests on top of the base, and requests to the Gateway that they make.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseFile {
    /// The file's name without its extension.
    #[serde(skip)]
    pub(crate) name: String,
    /// More documents.
    pub(crate) manifests: String,
    /// Flags that `explain` and `run` both have.
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    /// The requests.
    pub(crate) cases: Vec<Case>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Expect {
    /// Forwarded.
    Allow,
    /// Denied by policy.
    Deny,
    /// Policy allows it if the authorizers agree.
    Delegate,
    /// Refused before policy, or answered by the gateway itself.
    Reject,
}

/// One request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) expect: Expect,
    /// `x` is `spiffe://cluster.local/ns/quickstart-ns/sa/x`; or a whole SPIFFE ID; or none.
    identity: Option<String>,
    /// `METHOD PATH`, the path as it is sent.
    request: String,
    /// The first listener by default.
    pub(crate) listener: Option<String>,
    pub(crate) host: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Lines>,
    pub(crate) body: Option<String>,
    /// For a delegation: no authorizer can answer (it cannot be reached, or cannot be shown the call), so it is denied
    /// without one being asked.
    #[serde(default)]
    pub(crate) unanswerable: bool,
    /// For a rejection: the exact status; any 4xx otherwise.
    pub(crate) status: Option<u16>,
    /// For a rejection: the code of the JSON-RPC error.
    pub(crate) code: Option<i64>,
}

/// A header's value, or several lines of it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Lines {
    One(String),
    Several(Vec<String>),
}

impl Case {
    pub(crate) fn identity(&self) -> Option<String> {
        let identity = self.identity.as_deref()?;
        Some(if identity.starts_with("spiffe://") {
            identity.to_owned()
        } else {
            format!("spiffe://cluster.local/ns/quickstart-ns/sa/{identity}")
        })
    }

    pub(crate) fn method(&self) -> &str {
        self.request.split_once(' ').unwrap().0
    }

    pub(crate) fn path(&self) -> &str {
        self.request.split_once(' ').unwrap().1
    }

    /// The header lines that the case gives.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter().flat_map(|(name, lines)| {
            let lines = match lines {
                Lines::One(line) => std::slice::from_ref(line),
                Lines::Several(lines) => lines.as_slice(),
            };
            lines.iter().map(move |line| (name.as_str(), line.as_str()))
        })
    }
}

/// The folder of the case files.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// Every file, by name.
pub(crate) fn load() -> Vec<CaseFile> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| !path.ends_with("base.yaml"))
        .collect();
    paths.sort();
    let files: Vec<CaseFile> = paths
        .iter()
        .map(|path| {
            let mut file: CaseFile = serde_yaml_ng::from_str(&fs::read_to_string(path).unwrap())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            file.name = path.file_stem().unwrap().to_string_lossy().into_owned();
            file
        })
        .collect();
    // An empty folder would pass every test.
    assert!(files.iter().map(|file| file.cases.len()).sum::<usize>() >= 149);
    for file in &files {
        assert!(!file.cases.is_empty(), "{}", file.name);
        for case in &file.cases {
            let rejected = case.expect == Expect::Reject;
            let name = format!("{}: {}", file.name, case.name);
            assert!(case.expect == Expect::Delegate || !case.unanswerable, "{name}");
            assert!(rejected || (case.status, case.code) == (None, None), "{name}");
        }
    }
    files
}

/// Collects what failed, so that one run shows everything.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<String>);

impl Failures {
    pub(crate) fn add(&mut self, file: &CaseFile, case: &Case, what: impl std::fmt::Display) {
        self.0.push(format!("{}: {}: {what}", file.name, case.name));
    }

    #[track_caller]
    pub(crate) fn assert_none(self) {
        assert!(self.0.is_empty(), "{} failed:\n{}", self.0.len(), self.0.join("\n"));
    }
}
