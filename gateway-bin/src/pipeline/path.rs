//! URLRewrite of paths (Gateway API, HTTPPathModifier).
use xds_translate::PathRewrite;

/// The path (without query) after a rewrite. `matched_prefix` is what the route's PathPrefix match matched.
pub(super) fn rewrite(rewrite: &PathRewrite, matched_prefix: &str, path: &str) -> String {
    match rewrite {
        PathRewrite::Full(full) => with_slash(full.clone()),
        PathRewrite::Prefix(replacement) => {
            // A prefix matches by path element, so what is left is empty or begins with a slash.
            let rest = match path.strip_prefix(matched_prefix.trim_end_matches('/')).unwrap_or(path) {
                // The root is its own prefix: nothing is left of it.
                "/" if matched_prefix == "/" => "",
                rest => rest,
            };
            let mut rewritten = replacement.trim_end_matches('/').to_owned();
            rewritten.push_str(rest);
            with_slash(rewritten)
        }
    }
}

fn with_slash(path: String) -> String {
    if path.starts_with('/') { path } else { format!("/{path}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, prefix: &str, replacement: &str, expected: &str) {
        assert_eq!(rewrite(&PathRewrite::Prefix(replacement.to_owned()), prefix, path), expected, "{path}");
    }

    /// The table of `replacePrefixMatch` in the Gateway API reference.
    #[test]
    fn prefixes() {
        check("/foo/bar", "/foo", "/xyz", "/xyz/bar");
        check("/foo/bar", "/foo", "/xyz/", "/xyz/bar");
        check("/foo/bar", "/foo/", "/xyz", "/xyz/bar");
        check("/foo/bar", "/foo/", "/xyz/", "/xyz/bar");
        check("/foo", "/foo", "/xyz", "/xyz");
        check("/foo/", "/foo", "/xyz", "/xyz/");
        check("/foo/bar", "/foo", "", "/bar");
        check("/foo/", "/foo", "", "/");
        check("/foo", "/foo", "", "/");
        check("/foo/", "/foo", "/", "/");
        check("/foo", "/foo", "/", "/");
        check("/bar", "/", "/xyz", "/xyz/bar");
        check("/", "/", "/mcp", "/mcp");
    }

    #[test]
    fn full_paths() {
        for (full, expected) in [("/mcp", "/mcp"), ("mcp", "/mcp"), ("", "/")] {
            assert_eq!(rewrite(&PathRewrite::Full(full.to_owned()), "/foo", "/foo/bar"), expected);
        }
    }
}
