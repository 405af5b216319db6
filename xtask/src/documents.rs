//! Documents that name files and tests: each of them is there.
use std::{fs, path::Path};

use anyhow::{Context as _, ensure};

use crate::command::root;

/// Relative to the root. Whatever is quoted in them like code, and is a path, exists; whatever then is a name with an
/// underscore in the same line, is a function there.
const NAMING: [&str; 2] = ["docs/threat-model.md", "SECURITY.md"];

pub(crate) fn check() -> anyhow::Result<()> {
    for document in NAMING {
        let text = fs::read_to_string(root().join(document)).with_context(|| format!("`{document}`"))?;
        let faults = faults(&text, &|path| root().join(path).exists(), &|path, function| {
            has_function(&root().join(path), function)
        });
        ensure!(faults.is_empty(), "`{document}`: {}", faults.join("; "));
    }
    Ok(())
}

fn faults(
    text: &str,
    exists: &dyn Fn(&str) -> bool,
    has_function: &dyn Fn(&str, &str) -> bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    for line in text.lines() {
        let mut path = None;
        for quoted in line.split('`').skip(1).step_by(2) {
            if is_path(quoted) {
                if exists(quoted) {
                    path = Some(quoted);
                } else {
                    faults.push(format!("there is no `{quoted}`"));
                }
            } else if is_function(quoted) {
                match path {
                    None => faults.push(format!("`{quoted}` is named without its file")),
                    Some(path) if !has_function(path, quoted) => {
                        faults.push(format!("there is no `{quoted}` in `{path}`"));
                    }
                    Some(_) => {}
                }
            }
        }
    }
    faults
}

fn is_path(quoted: &str) -> bool {
    quoted.contains('/') && !quoted.starts_with(['/', '-']) && !quoted.contains([' ', ':', '=', '%'])
}

/// Metrics look like functions, and are none.
fn is_function(quoted: &str) -> bool {
    quoted.contains('_')
        && !quoted.ends_with("_total")
        && !quoted.ends_with('_')
        && quoted.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// In a file of Rust, or in any such file of a folder.
fn has_function(path: &Path, function: &str) -> bool {
    if path.is_dir() {
        let Ok(entries) = fs::read_dir(path) else { return false };
        return entries.flatten().any(|entry| has_function(&entry.path(), function));
    }
    path.extension().is_some_and(|extension| extension == "rs")
        && fs::read_to_string(path).is_ok_and(|text| {
            text.contains(&format!("fn {function}(")) || text.contains(&format!("fn {function}<"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_they_name_is_there() {
        check().unwrap();
    }

    #[test]
    fn what_is_not_there_is_told() {
        let exists = |path: &str| ["a/b.rs", "a"].contains(&path);
        let has_function = |path: &str, function: &str| (path, function) == ("a/b.rs", "it_holds");
        for (text, expected) in [
            ("| x | `a/b.rs`: `it_holds` |", 0),
            (
                "`--flag`, `requests_total`, `prefix_`, `cargo xtask e2e --only a/b`, `/mcp`, `%2f`, `name`, `Mcp-Session-Id`",
                0,
            ),
            ("`a/c.rs`", 1),
            ("`a/b.rs`: `it_holds`, `it_does_not`", 1),
            ("`a/b.rs`\n`it_holds`", 1),
        ] {
            assert_eq!(faults(text, &exists, &has_function).len(), expected, "{text}");
        }
        assert!(super::has_function(&root().join("xtask/src"), "what_is_not_there_is_told"));
        assert!(!super::has_function(&root().join("xtask/src"), "what_is_not_there"));
    }
}
