//! etcd, kube-apiserver, kube-controller-manager, kubectl and Authorino, built from Go modules (`xtask/peers/cluster/*`),
//! and the CRDs that come with them: cached outside of the clone.
//!
//! `${XDG_CACHE_HOME:-~/.cache}/agentic-gateway/cluster/MODULE-KEY`, where KEY is a hash over the wrapper module's `go.mod`
//! and `go.sum`, the flags and Go's version. A folder is filled under another name and then renamed: what is there is whole.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};

use crate::command::{cache_folder, key, root, run, version_numbers};

/// Go's version in the wrapper modules' `go` lines.
const GO: (u32, u32) = (1, 26);

/// What `kubectl version` and the API server's `/version` say.
const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v1.36.3 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

/// Where they are.
#[derive(Debug, Clone)]
pub(crate) struct Binaries {
    pub(crate) etcd: PathBuf,
    pub(crate) kube_apiserver: PathBuf,
    pub(crate) kube_controller_manager: PathBuf,
    pub(crate) authorino: PathBuf,
    /// Authorino's AuthConfig CRD (YAML), from its module.
    pub(crate) authorino_crd: PathBuf,
    /// Gateway API v1.5.1's standard CRDs (a folder of YAML files), from its module.
    pub(crate) gateway_api_crds: PathBuf,
    pub(crate) kubectl: PathBuf,
}

/// A wrapper module, and what is taken out of the modules that it pins.
#[derive(Debug)]
struct Wrapper {
    /// Its folder in `xtask/peers/cluster`.
    name: &'static str,
    /// Programs: the file's name and the package.
    programs: &'static [(&'static str, &'static str)],
    /// What else the linker is told.
    linker: &'static str,
    /// YAML files: a module, a path in it (a file or a folder), and the name of the copy.
    files: Option<(&'static str, &'static str, &'static str)>,
    /// How long it takes on 2 cores with empty caches.
    cold: &'static str,
}

const ETCD: Wrapper = Wrapper {
    name: "etcd",
    programs: &[("etcd", "go.etcd.io/etcd/server/v3")],
    linker: "",
    files: None,
    cold: "1 minute",
};

const KUBERNETES: Wrapper = Wrapper {
    name: "kubernetes",
    programs: &[
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ],
    linker: KUBERNETES_VERSION,
    files: None,
    cold: "7 minutes",
};

/// The file's name in the cache.
const AUTHORINO_CRD: &str = "authconfigs.yaml";

const AUTHORINO: Wrapper = Wrapper {
    name: "authorino",
    programs: &[("authorino", "github.com/kuadrant/authorino")],
    linker: "",
    files: Some((
        "github.com/kuadrant/authorino",
        "install/crd/authorino.kuadrant.io_authconfigs.yaml",
        AUTHORINO_CRD,
    )),
    cold: "2 minutes",
};

const GATEWAY_API: Wrapper = Wrapper {
    name: "gateway-api",
    programs: &[],
    linker: "",
    files: Some(("sigs.k8s.io/gateway-api", "config/crd/standard", "crds")),
    cold: "a few seconds",
};

/// Builds what is not in the cache (about 10 minutes on 2 cores when nothing is). Call it before [`super::enter`]: the
/// modules come from the network.
///
/// # Errors
/// If Go is missing or too old, a module cannot be downloaded or does not build, or the cache cannot be written.
pub(crate) fn build() -> anyhow::Result<Binaries> {
    let cache = cache_folder()?.join("cluster");
    let etcd = ETCD.build(&cache)?;
    let kubernetes = KUBERNETES.build(&cache)?;
    let authorino = AUTHORINO.build(&cache)?;
    let gateway_api = GATEWAY_API.build(&cache)?;
    Ok(Binaries {
        etcd: etcd.join("etcd"),
        kube_apiserver: kubernetes.join("kube-apiserver"),
        kube_controller_manager: kubernetes.join("kube-controller-manager"),
        kubectl: kubernetes.join("kubectl"),
        authorino: authorino.join("authorino"),
        authorino_crd: authorino.join(AUTHORINO_CRD),
        gateway_api_crds: gateway_api.join("crds"),
    })
}

/// Authorino's CRD alone, for a cluster that has the rest.
///
/// # Errors
/// As [`build`].
pub(crate) fn authorino_crd() -> anyhow::Result<PathBuf> {
    Ok(AUTHORINO.build(&cache_folder()?.join("cluster"))?.join(AUTHORINO_CRD))
}

impl Wrapper {
    fn folder(&self) -> PathBuf {
        root().join("xtask/peers/cluster").join(self.name)
    }

    /// The folder in the cache with all of it.
    fn build(&self, cache: &Path) -> anyhow::Result<PathBuf> {
        let go = go_version(&self.folder())?;
        let pinned = ["go.mod", "go.sum"].map(|file| {
            let file = self.folder().join(file);
            fs::read(&file).with_context(|| format!("`{}` cannot be read", file.display()))
        });
        let [modules, sums] = pinned;
        let flags = self.flags().join(" ");
        let programs = format!("{:?} {:?}", self.programs, self.files);
        let key = key([&*modules?, &*sums?, go.as_bytes(), flags.as_bytes(), programs.as_bytes()]);
        let folder = cache.join(format!("{}-{key}", self.name));
        if folder.exists() {
            return Ok(folder);
        }
        fs::create_dir_all(cache).with_context(|| format!("`{}` cannot be made", cache.display()))?;
        // Two runs at a time: the second waits for the first and finds it done.
        let guard = File::create(cache.join(format!("{}-{key}.lock", self.name)))?;
        guard.lock()?;
        if !folder.exists() {
            eprintln!("building {} into `{}` (cold: {})", self.name, folder.display(), self.cold);
            let began = Instant::now();
            // Beside the folder, so that it can be renamed; what an interrupted build left goes.
            let unfinished = cache.join(format!("{}-{key}.unfinished", self.name));
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)
                    .with_context(|| format!("`{}` cannot be removed", unfinished.display()))?;
            }
            fs::create_dir(&unfinished)?;
            self.fill(&unfinished)?;
            fs::rename(&unfinished, &folder)
                .with_context(|| format!("`{}` cannot be renamed", unfinished.display()))?;
            eprintln!("built {} in {} s", self.name, began.elapsed().as_secs());
        }
        drop(guard);
        Ok(folder)
    }

    fn flags(&self) -> [String; 5] {
        ["-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &format!("-s -w {}", self.linker)]
            .map(|flag| flag.trim().to_owned())
    }

    fn fill(&self, folder: &Path) -> anyhow::Result<()> {
        for (name, package) in self.programs {
            let mut build = go(&self.folder());
            build.arg("build").args(self.flags()).arg("-o").arg(folder.join(name)).arg(package);
            run(&mut build)?;
        }
        if let Some((module, path, name)) = self.files {
            let module = module_folder(&self.folder(), module)?;
            copy_yaml(&module.join(path), &folder.join(name))?;
        }
        Ok(())
    }
}

/// `go` in a module, whatever a person's own settings say of workspaces.
pub(crate) fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(folder).env("GOWORK", "off");
    command
}

/// Runs `go`; what it printed on standard output.
fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().context("`go` cannot be started")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version of the Go that builds a module, with the system it builds for.
pub(crate) fn go_version(folder: &Path) -> anyhow::Result<String> {
    let advice = || format!("install Go {}.{} or later (https://go.dev/dl/) and put it on PATH", GO.0, GO.1);
    // An old Go that knows how to gets the one that go.mod asks for; one that does not says so here.
    let said = output(go(folder).args(["env", "GOVERSION", "GOOS", "GOARCH"])).with_context(advice)?;
    let version = said.lines().next().unwrap_or_default();
    ensure!(version_numbers(version) >= Some(GO), "`go env GOVERSION` says `{version}`: {}", advice());
    Ok(said)
}

/// Where the module cache has a module, downloaded if it is not there. Go compares it with `go.sum`.
fn module_folder(wrapper: &Path, module: &str) -> anyhow::Result<PathBuf> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Downloaded {
        dir: PathBuf,
    }
    let mut command = go(wrapper);
    let said = output(command.env("GOFLAGS", "-mod=readonly").args(["mod", "download", "-json", module]))
        .with_context(|| format!("`{module}` cannot be downloaded"))?;
    let downloaded: Downloaded =
        serde_json::from_str(&said).with_context(|| format!("`go mod download` says `{said}`"))?;
    Ok(downloaded.dir)
}

/// Copies a file, or the YAML files of a folder. (Contents only: the module cache is read-only.)
fn copy_yaml(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copy = |from: &Path, to: &Path| {
        let text = fs::read(from).with_context(|| format!("`{}` cannot be read", from.display()))?;
        fs::write(to, text).with_context(|| format!("`{}` cannot be written", to.display()))
    };
    if !from.is_dir() {
        return copy(from, to);
    }
    fs::create_dir(to)?;
    let mut copied = 0;
    for entry in fs::read_dir(from)? {
        let file = entry?.path();
        if let (Some("yaml"), Some(name)) = (file.extension().and_then(|end| end.to_str()), file.file_name())
        {
            copy(&file, &to.join(name))?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "no YAML files in `{}`", from.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_files_are_copied_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        fs::create_dir(&from).unwrap();
        assert!(copy_yaml(&from, &folder.path().join("none")).is_err());
        fs::write(from.join("a.yaml"), "a: 1").unwrap();
        fs::write(from.join("README.md"), "no").unwrap();
        let to = folder.path().join("to");
        copy_yaml(&from, &to).unwrap();
        let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.yaml"]);
        copy_yaml(&from.join("a.yaml"), &folder.path().join("one")).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("one")).unwrap(), "a: 1");
    }

    /// The wrappers pin what the documentation says, and `tools.go` names every package, so that `go mod tidy` keeps it.
    #[test]
    fn wrappers_name_what_is_built() {
        for wrapper in [ETCD, KUBERNETES, AUTHORINO, GATEWAY_API] {
            let tools = fs::read_to_string(wrapper.folder().join("tools.go")).unwrap();
            let modules = fs::read_to_string(wrapper.folder().join("go.mod")).unwrap();
            for (_, package) in wrapper.programs {
                assert!(tools.contains(&format!("_ \"{package}\"")), "{}: {package}", wrapper.name);
            }
            if let Some((module, ..)) = wrapper.files {
                assert!(modules.contains(&format!("{module} v")), "{}: {module}", wrapper.name);
            }
            let least = format!("\ngo {}.{}", GO.0, GO.1);
            assert!(modules.contains(&least), "{}: not {least}", wrapper.name);
        }
    }
}
