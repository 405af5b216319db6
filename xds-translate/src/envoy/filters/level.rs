//! One level of a request: its policies as conditions.
use std::collections::BTreeMap;

use authz_core::{Fate, WrittenPolicy};
use policy_model::{Action, Condition, Dialect, ExternalAuth};

use super::{
    mcp,
    rules::{Matches, Place, matches, source},
    test::Test,
};

/// A level's policies as they apply at one place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Level {
    /// By rule, when it allows; `None`: there are no Allow rules.
    pub(super) allow: Option<BTreeMap<String, Test>>,
    /// What policies over the limit would have delegated.
    pub(super) denied: Test,
    /// When the authorizer is asked.
    pub(super) delegated: Test,
    /// Whom.
    pub(super) authorizer: Option<ExternalAuth>,
}

impl Level {
    /// The policies that apply to a listener.
    ///
    /// # Errors
    /// What Envoy cannot be told; the level is closed.
    pub(super) fn of<'e>(
        policies: impl Iterator<Item = WrittenPolicy<'e>>,
        place: Place,
    ) -> Result<Self, String> {
        let policies: Vec<WrittenPolicy<'e>> = policies.collect();
        let named = named(&policies, place);
        let mut level = Self { allow: None, denied: Test::Never, delegated: Test::Never, authorizer: None };
        for policy in policies {
            if policy.allows() {
                level.allow.get_or_insert_default();
            }
            let Some(rules) = Rules::of(policy, place)? else {
                level.close();
                continue;
            };
            match policy.fate() {
                Fate::Closed(_) => level.close(),
                Fate::OverLimit => level.denied = level.denied.clone().or(rules.delegated),
                Fate::Enforced => {
                    level.delegated = level.delegated.clone().or(rules.delegated);
                    if let Some(authorizer) = rules.authorizer {
                        // `resolve` admits one per target: of two nobody knows which to ask.
                        if level.authorizer.replace(authorizer).is_some() {
                            level.close();
                        }
                    }
                    let Some(allow) = &mut level.allow else { continue };
                    if rules.admits_base_protocol {
                        add(
                            allow,
                            format!("{}: base protocol", policy.key()),
                            mcp::base_protocol(place.kind, &named),
                        );
                    }
                    for (name, test) in rules.allow {
                        add(allow, name, test);
                    }
                }
            }
        }
        Ok(level)
    }

    /// A level that denies everything.
    pub(super) fn closed() -> Self {
        let mut level = Self { allow: None, denied: Test::Never, delegated: Test::Never, authorizer: None };
        level.close();
        level
    }

    fn close(&mut self) {
        self.denied = Test::Always;
    }

    /// Where neither level has Allow rules, and nothing is delegated, everything is denied (`--default-action deny`).
    pub(super) fn deny_by_default(gateway: &mut Self, backend: &mut Self) {
        if gateway.allow.is_none() && backend.allow.is_none() {
            let delegated = gateway.delegated.clone().or(backend.delegated.clone());
            gateway.allow = Some(BTreeMap::from([("delegated".to_owned(), delegated)]));
        }
    }
}

fn add(allow: &mut BTreeMap<String, Test>, name: String, test: Test) {
    // Two policies of one name, in two groups.
    let so_far = allow.remove(&name).unwrap_or(Test::Never);
    allow.insert(name, so_far.or(test));
}

/// The identities that Allow rules of a level name.
fn named(policies: &[WrittenPolicy<'_>], place: Place) -> Test {
    let enforced = policies.iter().filter(|policy| policy.fate() == Fate::Enforced && policy.allows());
    Test::any(enforced.flat_map(|policy| {
        let rules = policy.policy().map_or(0, |written| written.rules.len());
        (0..rules).filter(|rule| policy.identity(*rule).is_some()).map(|rule| source(*policy, rule, place))
    }))
}

/// The rules of one policy.
struct Rules {
    allow: Vec<(String, Test)>,
    admits_base_protocol: bool,
    delegated: Test,
    authorizer: Option<ExternalAuth>,
}

impl Rules {
    /// `None`: the policy cannot be read.
    fn of(policy: WrittenPolicy<'_>, place: Place) -> Result<Option<Self>, String> {
        let Some(written) = policy.policy() else { return Ok(None) };
        let mut rules = Self {
            allow: Vec::new(),
            admits_base_protocol: written.dialect == Dialect::V0Alpha0,
            delegated: Test::Never,
            authorizer: None,
        };
        if let Fate::Closed(_) = policy.fate() {
            return Ok(Some(rules));
        }
        let mut all: Vec<(&str, Matches)> = Vec::new();
        for (index, rule) in written.rules.iter().enumerate() {
            let matches = matches(policy, index, rule, place)
                .map_err(|message| format!("rule `{}`: {message}", rule.name))?;
            if let Condition::ExternalAuth(to) = &rule.condition {
                rules.delegated = rules.delegated.or(matches.surely.clone());
                rules.authorizer = Some(to.clone());
            }
            all.push((&rule.name, matches));
        }
        match &written.action {
            Action::Allow => {
                rules.allow = all
                    .into_iter()
                    .map(|(name, matches)| (format!("{}: rule {name}", policy.key()), matches.surely))
                    .collect();
                if written.rules.is_empty() && written.dialect == Dialect::V1Alpha1 {
                    rules.allow.push((format!("{}: everything", policy.key()), Test::Always));
                }
            }
            Action::ExternalAuth(to) => {
                rules.authorizer = Some(to.clone());
                rules.delegated = if written.rules.is_empty() {
                    Test::Always
                } else {
                    Test::any(all.into_iter().map(|(_, matches)| matches.perhaps))
                };
            }
        }
        Ok(Some(rules))
    }
}
