//! Tables by path.
use std::{cmp::Reverse, collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;
use policy_model::{NamespacedName, Timestamp};
use regex::Regex;

use crate::{
    RouteRequest, RouteRule,
    router::matcher::{self, Conditions, PathMatcher},
};

/// The matches of all rules for one host.
#[derive(Debug, Default)]
pub(super) struct PathTable {
    exact: HashMap<String, Vec<Candidate>, RandomState>,
    /// In order of precedence: the longest expression first.
    regexes: Vec<(Regex, Candidate)>,
    /// By prefix, without a trailing slash.
    prefixes: HashMap<String, Vec<Candidate>, RandomState>,
}

/// One match of one rule.
#[derive(Debug)]
struct Candidate {
    rule: usize,
    /// Position among the matches of the rule.
    position: usize,
    conditions: Conditions,
}

/// The rule that a request takes.
pub(super) struct Found<'t> {
    pub(super) rule: usize,
    pub(super) matched_prefix: &'t str,
}

/// Smaller is before.
type Rank<'r> = (Reverse<(bool, usize, usize)>, bool, Option<Timestamp>, &'r NamespacedName, usize, usize);

impl PathTable {
    /// Adds the matches of a rule. One that does not compile matches nothing.
    pub(super) fn add(&mut self, index: usize, rule: &RouteRule) {
        for (position, one) in rule.matches.iter().enumerate() {
            let Ok((path, conditions)) = matcher::compile(one) else { continue };
            let candidate = Candidate { rule: index, position, conditions };
            match path {
                PathMatcher::Exact(path) => self.exact.entry(path).or_default().push(candidate),
                PathMatcher::Prefix(prefix) => self.prefixes.entry(prefix).or_default().push(candidate),
                PathMatcher::Regex(regex) => self.regexes.push((regex, candidate)),
            }
        }
    }

    /// Puts everything in order of precedence.
    pub(super) fn sort(&mut self, rules: &[Arc<RouteRule>]) {
        for candidates in self.exact.values_mut().chain(self.prefixes.values_mut()) {
            candidates.sort_by(|one, other| one.rank(rules).cmp(&other.rank(rules)));
        }
        self.regexes.sort_by(|(one_regex, one), (other_regex, other)| {
            let lengths = other_regex.as_str().len().cmp(&one_regex.as_str().len());
            lengths.then_with(|| one.rank(rules).cmp(&other.rank(rules)))
        });
    }

    /// Rule and position of every match, so that the first that matches a request is the one that [`find`](Self::find) finds.
    pub(super) fn in_order(&self) -> Vec<(usize, usize)> {
        let mut exact: Vec<_> = self.exact.iter().collect();
        exact.sort_by_key(|(path, _)| *path);
        let mut prefixes: Vec<_> = self.prefixes.iter().collect();
        prefixes.sort_by_key(|(prefix, _)| (Reverse(prefix.len()), *prefix));
        let exact = exact.into_iter().flat_map(|(_, candidates)| candidates);
        let regexes = self.regexes.iter().map(|(_, candidate)| candidate);
        let all = exact.chain(regexes).chain(prefixes.into_iter().flat_map(|(_, candidates)| candidates));
        all.map(|candidate| (candidate.rule, candidate.position)).collect()
    }

    /// The first match in order of precedence.
    pub(super) fn find<'t>(&'t self, request: &RouteRequest<'_>) -> Option<Found<'t>> {
        let exact = self.exact.get(request.path).into_iter().flatten();
        if let Some(candidate) = exact.into_iter().find(|candidate| candidate.conditions.matches(request)) {
            return Some(Found { rule: candidate.rule, matched_prefix: "" });
        }
        let mut regexes = self.regexes.iter();
        if let Some((_, candidate)) = regexes
            .find(|(regex, candidate)| regex.is_match(request.path) && candidate.conditions.matches(request))
        {
            return Some(Found { rule: candidate.rule, matched_prefix: "" });
        }
        self.prefix(request)
    }

    /// The longest prefix, by path element, with a match.
    fn prefix<'t>(&'t self, request: &RouteRequest<'_>) -> Option<Found<'t>> {
        let path = request.path;
        let elements = path.match_indices('/').rev().filter_map(|(index, _)| path.get(..index));
        // A path that ends in `/` has its last element's end there already.
        let whole = Some(path).filter(|path| !path.ends_with('/'));
        whole.into_iter().chain(elements).find_map(|prefix| {
            let (key, candidates) = self.prefixes.get_key_value(prefix)?;
            let candidate = candidates.iter().find(|candidate| candidate.conditions.matches(request))?;
            let matched_prefix = if key.is_empty() { "/" } else { key };
            Some(Found { rule: candidate.rule, matched_prefix })
        })
    }
}

impl Candidate {
    fn rank<'r>(&self, rules: &'r [Arc<RouteRule>]) -> Option<Rank<'r>> {
        let rule = rules.get(self.rule)?;
        Some((
            Reverse(self.conditions.specificity()),
            rule.created.is_none(),
            rule.created,
            &rule.route,
            rule.index,
            self.position,
        ))
    }
}
