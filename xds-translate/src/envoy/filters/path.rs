//! Paths of routes: which paths a rewrite takes to a path that is reachable, and how Envoy is told to rewrite.
use gateway_api::httproutes::{HttpRouteRulesMatches, HttpRouteRulesMatchesPathType as PathType};
use serde_json::{Value, json};

use super::regex::{checked, escaped};
use crate::PathRewrite;

/// Which paths a match is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Paths {
    Exact(String),
    /// By path element; without a trailing slash, so that `/` is empty.
    Prefix(String),
    /// Anchored at both ends.
    Regex(String),
    /// An exact path's beginning, not by path element.
    Beginning(String),
}

impl Paths {
    pub(super) fn of(one: &HttpRouteRulesMatches) -> Self {
        let Some(path) = &one.path else { return Self::Prefix(String::new()) };
        let value = path.value.as_deref().unwrap_or("/");
        match path.r#type {
            Some(PathType::Exact) => Self::Exact(value.to_owned()),
            None | Some(PathType::PathPrefix) => {
                Self::Prefix(value.strip_suffix('/').unwrap_or(value).to_owned())
            }
            Some(PathType::RegularExpression) => Self::Regex(value.to_owned()),
        }
    }

    /// The path part of a `RouteMatch`.
    ///
    /// # Errors
    /// An expression that Envoy cannot be given.
    pub(super) fn envoy(&self) -> Result<Value, String> {
        Ok(match self {
            Self::Exact(path) => json!({"path": path}),
            Self::Prefix(prefix) if prefix.is_empty() => json!({"prefix": "/"}),
            Self::Prefix(prefix) if prefix.contains(['?', '#']) => {
                return Err(format!("no path begins with `{prefix}`: it holds `?` or `#`"));
            }
            Self::Prefix(prefix) => json!({"path_separated_prefix": prefix}),
            Self::Regex(pattern) => json!({"safe_regex": {"regex": checked(pattern)?}}),
            Self::Beginning(beginning) => json!({"prefix": beginning}),
        })
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Regex(pattern) => {
                regex::Regex::new(&format!(r"\A(?:{pattern})\z")).is_ok_and(|regex| regex.is_match(path))
            }
            Self::Beginning(beginning) => path.starts_with(beginning.as_str()),
        }
    }

    /// The path after a rewrite.
    fn rewritten(&self, rewrite: Option<&PathRewrite>, path: &str) -> String {
        let rewritten = match rewrite {
            None => return path.to_owned(),
            Some(PathRewrite::Full(full)) => full.clone(),
            Some(PathRewrite::Prefix(to)) => {
                let Self::Prefix(from) = self else { return format!("{}{path}", to.trim_end_matches('/')) };
                let rest = match path.strip_prefix(from.as_str()).unwrap_or(path) {
                    "/" if from.is_empty() => "",
                    rest => rest,
                };
                format!("{}{rest}", to.trim_end_matches('/'))
            }
        };
        with_slash(rewritten)
    }

    /// The paths that the match takes and the rewrite turns into `target`; `None`: all that it takes.
    pub(super) fn origins(&self, rewrite: Option<&PathRewrite>, target: &str) -> Option<Vec<String>> {
        let candidates = match rewrite {
            None => vec![target.to_owned()],
            Some(PathRewrite::Full(full)) if with_slash(full.clone()) == target => {
                return match self {
                    Self::Exact(path) => Some(vec![path.clone()]),
                    _ => None,
                };
            }
            Some(PathRewrite::Full(_)) => Vec::new(),
            Some(PathRewrite::Prefix(to)) => {
                let from = if let Self::Prefix(from) = self { from.as_str() } else { "" };
                match target.strip_prefix(to.trim_end_matches('/')) {
                    Some(rest) => {
                        let origin = with_slash(format!("{from}{rest}"));
                        let trimmed = origin.trim_end_matches('/').to_owned();
                        vec![format!("{trimmed}/"), with_slash(trimmed), origin]
                    }
                    None => Vec::new(),
                }
            }
        };
        let mut origins: Vec<String> = candidates
            .into_iter()
            .filter(|path| self.matches(path) && self.rewritten(rewrite, path) == target)
            .collect();
        origins.sort();
        origins.dedup();
        Some(origins)
    }

    /// The paths that the match takes and the rewrite turns into paths that begin with `/.well-known/`.
    pub(super) fn well_known(&self, rewrite: Option<&PathRewrite>) -> Option<Self> {
        const BEGINNING: &str = "/.well-known/";
        match (self, rewrite) {
            (_, Some(PathRewrite::Full(full))) => {
                with_slash(full.clone()).starts_with(BEGINNING).then(|| self.clone())
            }
            (Self::Exact(path), rewrite) => {
                self.rewritten(rewrite, path).starts_with(BEGINNING).then(|| self.clone())
            }
            (Self::Prefix(from), rewrite) => {
                let to = match rewrite {
                    Some(PathRewrite::Prefix(to)) => with_slash(to.trim_end_matches('/').to_owned()),
                    _ => with_slash(from.clone()),
                };
                let to = to.trim_end_matches('/');
                if format!("{to}/").starts_with(BEGINNING) {
                    // Every path below it; the prefix itself only where nothing is missing.
                    return Some(Self::Beginning(format!("{from}/")));
                }
                let rest = BEGINNING.strip_prefix(to)?;
                rest.starts_with('/').then(|| Self::Beginning(format!("{from}{rest}")))
            }
            // No beginning can be told of an expression.
            (Self::Regex(_) | Self::Beginning(_), _) => None,
        }
    }

    /// How a route over these paths is rewritten: a field of a `RouteAction`. `matched`: the paths that the rule's match is
    /// about, of which `self` may be a part.
    ///
    /// # Errors
    /// A prefix that is too long for Envoy.
    pub(super) fn rewriting(
        &self,
        matched: &Self,
        rewrite: Option<&PathRewrite>,
    ) -> Result<Option<(&'static str, Value)>, String> {
        let replaced = |pattern: &str, to: &str| {
            let substitution = to.replace('\\', "\\\\");
            ("regex_rewrite", json!({"pattern": {"regex": pattern}, "substitution": substitution}))
        };
        Ok(match (self, rewrite) {
            (_, None) => None,
            (Self::Exact(path), rewrite) => {
                Some(matched.rewritten(rewrite, path)).filter(|to| to != path).map(|to| replaced("/.*", &to))
            }
            (_, Some(PathRewrite::Full(full))) => Some(replaced("/.*", &with_slash(full.clone()))),
            (_, Some(PathRewrite::Prefix(to))) => {
                let from = if let Self::Prefix(from) = matched { from.as_str() } else { "" };
                let to = to.trim_end_matches('/');
                let to = if to.is_empty() || to.starts_with('/') { to.to_owned() } else { format!("/{to}") };
                // What follows the prefix begins with a slash, or there is nothing.
                Some(if to.is_empty() {
                    let pattern = format!("^{}/?", escaped(from));
                    replaced(checked(&pattern)?, "/")
                } else if from.is_empty() {
                    // The root is its own prefix: nothing is left of it.
                    replaced("^/$|^", &to)
                } else if self == matched {
                    ("prefix_rewrite", json!(to))
                } else {
                    let pattern = format!("^{}", escaped(from));
                    replaced(checked(&pattern)?, &to)
                })
            }
        })
    }
}

fn with_slash(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathRewrite {
        PathRewrite::Prefix(text.to_owned())
    }

    #[track_caller]
    fn check_origins(paths: Paths, rewrite: Option<PathRewrite>, target: &str, expected: Option<&[&str]>) {
        let expected = expected.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
        assert_eq!(paths.origins(rewrite.as_ref(), target), expected);
    }

    #[test]
    fn origins_of_a_path() {
        let local = || Paths::Prefix("/local/mcp".to_owned());
        let root = || Paths::Prefix(String::new());
        check_origins(local(), Some(prefix("/mcp")), "/mcp", Some(&["/local/mcp"]));
        check_origins(local(), Some(prefix("/mcp/")), "/mcp/x", Some(&["/local/mcp/x"]));
        check_origins(local(), Some(prefix("/mcp")), "/mcp/", Some(&["/local/mcp/"]));
        check_origins(local(), Some(prefix("/other")), "/mcp", Some(&[]));
        check_origins(local(), Some(prefix("/mc")), "/mcp", Some(&[]));
        check_origins(local(), Some(prefix("/")), "/", Some(&["/local/mcp", "/local/mcp/"]));
        check_origins(local(), None, "/local/mcp", Some(&["/local/mcp"]));
        check_origins(local(), None, "/mcp", Some(&[]));
        check_origins(root(), Some(prefix("/mcp")), "/mcp", Some(&["/"]));
        check_origins(root(), None, "/mcp", Some(&["/mcp"]));
        check_origins(root(), Some(prefix("")), "/mcp", Some(&["/mcp"]));
        check_origins(local(), Some(PathRewrite::Full("mcp".to_owned())), "/mcp", None);
        check_origins(local(), Some(PathRewrite::Full("/x".to_owned())), "/mcp", Some(&[]));
        check_origins(
            Paths::Exact("/a".to_owned()),
            Some(PathRewrite::Full("/mcp".to_owned())),
            "/mcp",
            Some(&["/a"]),
        );
        check_origins(Paths::Regex("/m.p".to_owned()), None, "/mcp", Some(&["/mcp"]));
        check_origins(Paths::Regex("/m.q".to_owned()), None, "/mcp", Some(&[]));
    }

    #[track_caller]
    fn check_well_known(from: &str, rewrite: Option<PathRewrite>, expected: Option<&str>) {
        let found = Paths::Prefix(from.to_owned()).well_known(rewrite.as_ref());
        assert_eq!(found, expected.map(|path| Paths::Beginning(path.to_owned())));
    }

    #[test]
    fn well_known_paths() {
        check_well_known("", None, Some("/.well-known/"));
        check_well_known("/a", None, None);
        check_well_known("/a", Some(prefix("/")), Some("/a/.well-known/"));
        check_well_known("/a", Some(prefix("")), Some("/a/.well-known/"));
        check_well_known("/a", Some(prefix("/.well-known")), Some("/a/"));
        check_well_known("/a", Some(prefix("/.well-known/x")), Some("/a/"));
        check_well_known("/a", Some(prefix("/.well")), None);
        check_well_known("/.well-known", None, Some("/.well-known/"));
        check_well_known("/.well-known/x", None, Some("/.well-known/x/"));
    }

    /// As Envoy does it; RE2 replaces every occurrence.
    #[track_caller]
    fn check_rewriting(from: &str, to: &str, path: &str, expected: &str) {
        let matched = Paths::Prefix(from.to_owned());
        for route in [matched.clone(), Paths::Exact(path.to_owned()), Paths::Beginning(path.to_owned())] {
            let rewritten = match route.rewriting(&matched, Some(&prefix(to))).unwrap() {
                Some(("prefix_rewrite", to)) => {
                    format!("{}{}", to.as_str().unwrap(), path.strip_prefix(from).unwrap())
                }
                Some((_, rewriting)) => {
                    let regex = regex::Regex::new(rewriting["pattern"]["regex"].as_str().unwrap()).unwrap();
                    let to = rewriting["substitution"].as_str().unwrap();
                    regex.replace_all(path, regex::NoExpand(to)).into_owned()
                }
                None => path.to_owned(),
            };
            assert_eq!(rewritten, expected, "{route:?}");
        }
    }

    /// The table of `replacePrefixMatch` in the Gateway API reference.
    #[test]
    fn prefixes_are_replaced() {
        check_rewriting("/foo", "/xyz", "/foo/bar", "/xyz/bar");
        check_rewriting("/foo", "/xyz/", "/foo/bar", "/xyz/bar");
        check_rewriting("/foo", "/xyz", "/foo", "/xyz");
        check_rewriting("/foo", "/xyz", "/foo/", "/xyz/");
        check_rewriting("/foo", "", "/foo/bar", "/bar");
        check_rewriting("/foo", "", "/foo/", "/");
        check_rewriting("/foo", "/", "/foo", "/");
        check_rewriting("/foo", "/", "/foo/bar", "/bar");
        check_rewriting("/foo", "/x", "/foo/foo", "/x/foo");
        check_rewriting("", "/xyz", "/bar", "/xyz/bar");
        check_rewriting("", "/mcp", "/", "/mcp");
    }
}
