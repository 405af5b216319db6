//! Fuzzing with cargo-fuzz; on a nightly toolchain where there is one, else on the stable one told to act as one.
use std::{
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::Value;

use crate::command::{cargo, root, run, succeeds, target_folder};

const CARGO_FUZZ: &str = "0.13.2";

/// Without AddressSanitizer: it looks for what unsafe code does, which our crates forbid, and takes four fifths of the speed.
const BUILT: [&str; 3] = ["--release", "--sanitizer", "none"];

/// The sources that a target is about: what its coverage is a part of.
const ABOUT: [(&str, &[&str]); 14] = [
    ("ads", &["xds-server/src/session", "xds-server/src/session.rs"]),
    ("cel", &["authz-core/src/cel"]),
    ("event_stream", &["mcp-jsonrpc/src/sse.rs"]),
    ("ext_authz_answer", &["ext-authz/src/verdict", "ext-authz/src/headers.rs"]),
    ("ext_authz_http", &["ext-authz/src/client/http.rs", "ext-authz/src/headers.rs"]),
    ("header_check", &["mcp-jsonrpc/src/headers.rs", "mcp-jsonrpc/src/parse"]),
    ("list_filter", &["mcp-jsonrpc/src/filter.rs", "mcp-jsonrpc/src/scan"]),
    ("message_parse", &["mcp-jsonrpc/src/parse", "mcp-jsonrpc/src/scan"]),
    ("message_print", &["mcp-jsonrpc/src/reply.rs", "mcp-jsonrpc/src/parse"]),
    ("policy_decide", &["authz-core/src", "policy-model/src/read", "xds-translate/src/resolve"]),
    (
        "policy_translate",
        &["xds-translate/src/envoy", "xds-translate/src/objects", "xds-translate/src/resolve"],
    ),
    ("session_id", &["gateway-bin/src/session.rs"]),
    ("spiffe_id", &["spiffe-id/src/id.rs", "spiffe-id/src/bundle.rs"]),
    ("x509_identity", &["spiffe-id/src/x509.rs"]),
];

#[derive(Debug, Args)]
pub(crate) struct Smoke {
    /// Seconds for all targets together
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct One {
    /// Its name in fuzz/fuzz_targets
    target: String,
    /// Seconds
    #[arg(long, default_value_t = 1800)]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Coverage {
    /// Names in fuzz/fuzz_targets; all without any
    targets: Vec<String>,
}

pub(crate) fn smoke(smoke: &Smoke) -> anyhow::Result<()> {
    let targets = targets()?;
    let share = (smoke.seconds / targets.len() as u64).max(1);
    prepare()?;
    run(fuzz().arg("build").args(BUILT))?;
    for target in targets {
        fuzz_for(&target, share)?;
    }
    Ok(())
}

pub(crate) fn one(one: &One) -> anyhow::Result<()> {
    check(&one.target)?;
    prepare()?;
    fuzz_for(&one.target, one.seconds)
}

/// Prints, for each target, the part of the lines it is about that its committed corpus reaches.
pub(crate) fn coverage(coverage: &Coverage) -> anyhow::Result<()> {
    let targets = if coverage.targets.is_empty() { targets()? } else { coverage.targets.clone() };
    for target in &targets {
        check(target)?;
    }
    prepare()?;
    let (sysroot, host) = (rustc(&["--print", "sysroot"])?, rustc(&["-vV"])?);
    let host = host.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let llvm_cov = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin/llvm-cov");
    ensure!(
        llvm_cov.exists(),
        "`{}` is missing: `rustup component add llvm-tools` for the toolchain that fuzzes",
        llvm_cov.display()
    );
    let built = target_folder().join("fuzz-coverage");
    let mut lines = Vec::new();
    for target in &targets {
        let sources = about(target)?;
        run(fuzz()
            .arg("coverage")
            .args(BUILT)
            .arg("--target-dir")
            .arg(&built)
            .arg(target)
            .arg(corpus(target)))?;
        let output = Command::new(&llvm_cov)
            .args(["export", "--summary-only", "--format=text"])
            .arg("--instr-profile")
            .arg(root().join("fuzz/coverage").join(target).join("coverage.profdata"))
            .arg(built.join(host).join("release").join(target))
            .output()
            .context("llvm-cov cannot be started")?;
        ensure!(output.status.success(), "llvm-cov: {}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).context("llvm-cov printed no JSON")?;
        let (covered, count) = lines_of(&report, sources);
        ensure!(count > 0, "llvm-cov counted no lines of {}", sources.join(", "));
        lines.push(format!(
            "{target}: {covered} of {count} lines of {} ({} %)",
            sources.join(", "),
            covered * 100 / count
        ));
    }
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// Lines that were covered and lines in all, of the files at or under these sources.
fn lines_of(report: &Value, sources: &[&str]) -> (u64, u64) {
    let files = report.pointer("/data/0/files").and_then(Value::as_array).into_iter().flatten();
    let about = files.filter(|file| {
        let name = file.get("filename").and_then(Value::as_str).unwrap_or_default();
        let name = without_detours(&root().join("fuzz").join(name));
        sources.iter().any(|source| name.starts_with(root().join(source)))
    });
    about.fold((0, 0), |(covered, count), file| {
        let lines = |what: &str| file.pointer(&format!("/summary/lines/{what}")).and_then(Value::as_u64);
        (covered + lines("covered").unwrap_or(0), count + lines("count").unwrap_or(0))
    })
}

/// `/a/b/../c` as `/a/c`: so are the files named that targets compile themselves.
fn without_detours(path: &Path) -> PathBuf {
    let mut straight = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            straight.pop();
        } else {
            straight.push(part);
        }
    }
    straight
}

fn check(target: &str) -> anyhow::Result<()> {
    let targets = targets()?;
    ensure!(
        targets.iter().any(|known| known == target),
        "no target `{target}`; there are: {}",
        targets.join(", ")
    );
    Ok(())
}

fn about(target: &str) -> anyhow::Result<&'static [&'static str]> {
    let about = ABOUT.iter().find(|(name, _)| *name == target);
    about
        .map(|(_, sources)| *sources)
        .with_context(|| format!("`ABOUT` does not say what `{target}` is about"))
}

/// The committed inputs of a target.
fn corpus(target: &str) -> PathBuf {
    root().join("fuzz/corpus").join(target)
}

fn fuzz_for(target: &str, seconds: u64) -> anyhow::Result<()> {
    // New inputs go to a folder that is not committed; the committed corpus is read only.
    let found = target_folder().join("fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("`{}` cannot be made", found.display()))?;
    let mut command = fuzz();
    command.arg("run").args(BUILT).arg(target).arg(&found).arg(corpus(target)).arg("--");
    command.arg(format!("-max_total_time={seconds}"));
    command.args(["-timeout=10", "-rss_limit_mb=2048", "-verbosity=0", "-print_final_stats=1"]);
    let dictionary = root().join(format!("fuzz/dictionaries/{target}.dict"));
    ensure!(dictionary.exists(), "`{}` is missing", dictionary.display());
    command.arg(format!("-dict={}", dictionary.display()));
    run(&mut command)
}

fn targets() -> anyhow::Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .with_context(|| format!("`{}` cannot be read", folder.display()))?
        .filter_map(Result::ok)
        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "no fuzz targets in `{}`", folder.display());
    Ok(names)
}

fn prepare() -> anyhow::Result<()> {
    if succeeds(Command::new("cargo-fuzz").arg("--version")) {
        return Ok(());
    }
    run(cargo().args(["install", "cargo-fuzz", "--locked", "--version", CARGO_FUZZ]))
}

fn fuzz() -> Command {
    let mut command = toolchain("cargo");
    command.current_dir(root()).arg("fuzz");
    command
}

/// What the rustc that fuzzes says.
fn rustc(args: &[&str]) -> anyhow::Result<String> {
    let output = toolchain("rustc").args(args).output().context("rustc cannot be started")?;
    ensure!(output.status.success(), "rustc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// A program of the toolchain that fuzzes.
fn toolchain(program: &str) -> Command {
    // `cargo +nightly` is rustup's; this process may run under a cargo that is pinned to stable.
    let nightly =
        succeeds(Command::new("cargo").args(["+nightly", "--version"]).env_remove("RUSTUP_TOOLCHAIN"));
    let mut command = Command::new(program);
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("RUSTDOC");
    if nightly {
        command.arg("+nightly");
    } else {
        command.env("RUSTC_BOOTSTRAP", "1");
    }
    command
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ABOUT, corpus, lines_of, targets};
    use crate::command::root;

    /// A target without inputs starts from nothing in CI, and one that is not built is never run.
    #[test]
    fn every_target_is_built_and_has_a_corpus_a_dictionary_and_a_subject() {
        let targets = targets().unwrap();
        assert_eq!(targets, ABOUT.map(|(name, _)| name));
        let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap();
        for (target, sources) in ABOUT {
            assert!(manifest.contains(&format!("\nname = \"{target}\"\n")), "{target}");
            assert!(root().join(format!("fuzz/dictionaries/{target}.dict")).exists(), "{target}");
            let inputs = std::fs::read_dir(corpus(target)).unwrap().count();
            assert!((5..=80).contains(&inputs), "{target}: {inputs} inputs");
            for source in sources {
                assert!(root().join(source).exists(), "{target}: {source}");
            }
        }
    }

    #[test]
    fn lines_are_those_of_the_subject() {
        let file = |name: String, covered: u64| json!({"filename": name, "summary": {"lines": {"covered": covered, "count": 2 * covered}}});
        let at = |name: &str| root().join(name).display().to_string();
        let report = json!({"data": [{"files": [
            file(at("spiffe-id/src/x509.rs"), 1),
            file(at("spiffe-id/src/x509/tests.rs"), 10),
            file(at("fuzz/fuzz_targets/../../xds-server/src/session/delta.rs"), 100),
            file("fuzz_targets/../../xds-server/src/session.rs".to_owned(), 1000),
            file("/elsewhere/spiffe-id/src/x509.rs".to_owned(), 10000),
        ]}]});
        assert_eq!(lines_of(&report, &["spiffe-id/src/x509.rs"]), (1, 2));
        assert_eq!(lines_of(&report, &["xds-server/src/session", "xds-server/src/session.rs"]), (1100, 2200));
        assert_eq!(lines_of(&report, &["authz-core/src"]), (0, 0));
    }
}
