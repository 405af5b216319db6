//! Tables by host name.
use std::collections::HashMap;

use foldhash::fast::RandomState;

/// How specific a host pattern is for a host: exact names before wildcards, longer ones first, any host last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Specificity {
    exact: bool,
    length: usize,
}

/// `None`: the pattern does not match. A leading `*.` stands for one or more labels.
pub(super) fn specificity(pattern: Option<&str>, host: &str) -> Option<Specificity> {
    let Some(pattern) = pattern else { return Some(Specificity { exact: false, length: 0 }) };
    let exact = !pattern.starts_with("*.");
    let matches = match pattern.strip_prefix('*') {
        Some(suffix) if !exact => host.strip_suffix(suffix).is_some_and(|label| !label.is_empty()),
        _ => pattern == host,
    };
    matches.then_some(Specificity { exact, length: pattern.len() })
}

/// How specific `pattern` is where `domain` (a pattern too) matches a host; `None`: it does not match every such host.
pub(crate) fn covers(pattern: Option<&str>, domain: Option<&str>) -> Option<Specificity> {
    match (pattern, domain) {
        (None, _) => specificity(None, ""),
        (Some(_), None) => None,
        // What a wildcard stands for is a label as good as any.
        (Some(pattern), Some(domain)) if domain.starts_with("*.") && pattern != domain => {
            specificity(Some(pattern), domain).filter(|specificity| !specificity.exact)
        }
        (Some(pattern), Some(domain)) if pattern == domain => {
            Some(Specificity { exact: !domain.starts_with("*."), length: domain.len() })
        }
        (Some(pattern), Some(domain)) => specificity(Some(pattern), domain),
    }
}

/// Something for each host pattern.
#[derive(Debug)]
pub(super) struct Hosts<T> {
    exact: HashMap<String, T, RandomState>,
    /// By what follows the `*.`.
    wildcards: HashMap<String, T, RandomState>,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self { exact: HashMap::default(), wildcards: HashMap::default(), any: None }
    }
}

impl<T: Default> Hosts<T> {
    /// The entry of a pattern; `None`: any host.
    pub(super) fn entry(&mut self, pattern: Option<&str>) -> &mut T {
        match pattern.map(|pattern| (pattern, pattern.strip_prefix("*."))) {
            None => self.any.get_or_insert_default(),
            Some((_, Some(suffix))) => self.wildcards.entry(suffix.to_owned()).or_default(),
            Some((exact, None)) => self.exact.entry(exact.to_owned()).or_default(),
        }
    }
}

impl<T> Hosts<T> {
    pub(super) fn each(&mut self, f: impl FnMut(&mut T)) {
        self.exact.values_mut().chain(self.wildcards.values_mut()).chain(&mut self.any).for_each(f);
    }

    /// Every pattern with its entry, in no order; `None`: any host.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (Option<String>, &T)> {
        let exact = self.exact.iter().map(|(name, entry)| (Some(name.clone()), entry));
        let wildcards = self.wildcards.iter().map(|(suffix, entry)| (Some(format!("*.{suffix}")), entry));
        exact.chain(wildcards).chain(self.any.iter().map(|entry| (None, entry)))
    }

    /// The entries that match a host (lower case), the most specific first.
    pub(super) fn matching<'t>(&'t self, host: &str) -> impl Iterator<Item = &'t T> {
        let exact = self.exact.get(host);
        let wildcards =
            host.match_indices('.').filter(|_| !self.wildcards.is_empty()).filter_map(|(index, _)| {
                // A wildcard stands for at least one label.
                let suffix = host.get(index + 1..).filter(|_| index > 0)?;
                self.wildcards.get(suffix)
            });
        exact.into_iter().chain(wildcards).chain(&self.any)
    }
}
