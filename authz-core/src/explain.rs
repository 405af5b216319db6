//! Why a request was decided as it was.
use policy_model::PolicyKey;

use crate::{
    Effect, Reason,
    act::Case,
    level::{Applied, Level, State},
    rule::{Match, Rule},
};

/// The whole evaluation, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Equals the decision's.
    pub effect: Effect,
    /// The Gateway's policies.
    pub gateway: LevelExplanation,
    /// The XBackend's policies.
    pub backend: LevelExplanation,
}

/// One level.
#[derive(Debug, Clone, PartialEq)]
pub struct LevelExplanation {
    /// What the level says.
    pub effect: Effect,
    /// Why.
    pub reason: Reason,
    /// The determining policy and rule.
    pub determining: Option<(PolicyKey, Option<String>)>,
    /// Whether the level has Allow rules (`--default-action` asks).
    pub has_allow_rules: bool,
    /// Every policy that targets the object, in policy order.
    pub policies: Vec<PolicyExplanation>,
}

/// One policy.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyExplanation {
    /// The policy.
    pub policy: PolicyKey,
    /// `enforced`, `over limit`, `fails closed: …`, `other listener`.
    pub state: String,
    /// Every rule, in order.
    pub rules: Vec<RuleExplanation>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleExplanation {
    /// Its name.
    pub rule: String,
    /// What came of it.
    pub outcome: RuleOutcome,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RuleOutcome {
    /// It matches.
    Matches,
    /// It does not: which part did not (for people).
    Differs(String),
    /// A condition could not be evaluated: the error; counts as false in an Allow rule, as matching in an ExternalAuth policy.
    Error {
        /// The error.
        error: String,
        /// Whether it counts as matching.
        counts_as_matching: bool,
    },
    /// Not looked at.
    NotEvaluated,
}

/// A policy with what came of each of its rules, act by act.
struct Row<'e, 'r> {
    applied: &'e Applied,
    applies: bool,
    rules: Vec<(&'e Rule, Option<Vec<Match<'r>>>)>,
}

/// Explains a level. Every rule is evaluated, whatever came before it; the decision is then read off the table,
/// step by step as section 4 of the semantics has it.
pub(crate) fn explain_level<'r>(level: Option<&'r Level>, case: &'r Case<'r>) -> LevelExplanation {
    let mut explanation = LevelExplanation {
        effect: Effect::Allow,
        reason: Reason::NoPolicy,
        determining: None,
        has_allow_rules: false,
        policies: Vec::new(),
    };
    let Some(level) = level else { return explanation };
    let acts = case.acts();
    let table: Vec<Row<'_, '_>> = level.policies.iter().map(|applied| row(applied, case, acts)).collect();
    explanation.policies = table.iter().map(policy_explanation).collect();

    let applicable: Vec<&Row<'_, '_>> = table.iter().filter(|row| row.applies).collect();
    if applicable.is_empty() {
        return explanation;
    }
    explanation.has_allow_rules = applicable.iter().any(|row| row.applied.policy.allows());
    let named = |row: &Row<'_, '_>, rule: Option<&Rule>| {
        Some((row.applied.policy.key.clone(), rule.map(|rule| rule.name.to_string())))
    };
    let mut conclude = |effect, reason, determining| {
        (explanation.effect, explanation.reason, explanation.determining) = (effect, reason, determining);
    };

    if let Some(closed) = applicable.iter().find(|row| matches!(row.applied.state, State::Closed(_))) {
        conclude(Effect::Deny, Reason::FailsClosed, named(closed, None));
        return explanation;
    }
    let Some(acts) = acts else {
        conclude(Effect::Deny, Reason::NoRuleMatches, None);
        return explanation;
    };
    let is_over = |row: &&&Row<'_, '_>| matches!(row.applied.state, State::OverLimit);
    for row in applicable.iter().filter(is_over) {
        if let Some(rule) = delegating(row) {
            conclude(Effect::Deny, Reason::OverLimit, named(row, rule));
            return explanation;
        }
    }
    let mut allowed = (Reason::NotDelegated, None);
    if applicable.iter().any(|row| row.applied.policy.allows()) {
        let mut per_act = (0..acts).map(|index| {
            let enforced = applicable.iter().filter(|row| row.applied.is_enforced());
            enforced.filter(|row| row.applied.policy.allows()).find_map(|row| {
                if row.applied.policy.admits_base_protocol() && level.is_base_protocol(case, case.act(index))
                {
                    return Some((Reason::BaseProtocol, named(row, None)));
                }
                if row.applied.policy.allows_everything() {
                    return Some((Reason::Allowed, named(row, None)));
                }
                let matching = row.rules.iter().find(|(_, acts)| {
                    acts.as_ref().and_then(|acts| acts.get(index)).is_some_and(Match::is_yes)
                });
                matching.map(|(rule, _)| (Reason::Allowed, named(row, Some(rule))))
            })
        });
        match per_act.next().flatten() {
            Some(first) if per_act.all(|matching| matching.is_some()) => allowed = first,
            _ => {
                conclude(Effect::Deny, Reason::NoRuleMatches, None);
                return explanation;
            }
        }
    }
    for row in applicable.iter().filter(|row| row.applied.is_enforced()) {
        if let Some(rule) = delegating(row) {
            conclude(Effect::Delegate, Reason::Delegated, named(row, rule));
            return explanation;
        }
    }
    conclude(Effect::Allow, allowed.0, allowed.1);
    explanation
}

fn row<'r>(applied: &'r Applied, case: &'r Case<'r>, acts: Option<usize>) -> Row<'r, 'r> {
    let applies = applied.applies_to(case.request.listener);
    let evaluated = |rule: &Rule| {
        applies
            && match applied.state {
                State::Enforced => true,
                State::OverLimit => !applied.policy.allows() || rule.is_delegating(),
                State::Closed(_) => false,
            }
    };
    let outcomes = |rule: &'r Rule| {
        let acts = acts.filter(|_| evaluated(rule))?;
        Some((0..acts).map(|index| rule.matches(case, case.act(index))).collect())
    };
    Row { applied, applies, rules: applied.policy.rules.iter().map(|rule| (rule, outcomes(rule))).collect() }
}

/// Whether it delegates, and by which rule.
fn delegating<'e>(row: &Row<'e, '_>) -> Option<Option<&'e Rule>> {
    let policy = &row.applied.policy;
    if !policy.allows() && policy.rules.is_empty() {
        return Some(None);
    }
    let matching = row.rules.iter().find(|(rule, acts)| {
        let mut acts = acts.iter().flatten();
        if policy.allows() {
            rule.is_delegating() && acts.any(Match::is_yes)
        } else {
            acts.any(Match::may_be)
        }
    });
    matching.map(|(rule, _)| Some(*rule))
}

fn policy_explanation(row: &Row<'_, '_>) -> PolicyExplanation {
    let state = match &row.applied.state {
        _ if !row.applies => "other listener".to_owned(),
        State::Enforced => "enforced".to_owned(),
        State::OverLimit => "over limit".to_owned(),
        State::Closed(why) => format!("fails closed: {why}"),
    };
    let counts_as_matching = !row.applied.policy.allows();
    let rules = row.rules.iter().map(|(rule, acts)| RuleExplanation {
        rule: rule.name.to_string(),
        outcome: acts.as_deref().map_or(RuleOutcome::NotEvaluated, |acts| outcome(acts, counts_as_matching)),
    });
    PolicyExplanation { policy: row.applied.policy.key.clone(), state, rules: rules.collect() }
}

/// Of several acts: a match of any, else an error of any, else how the first differs.
fn outcome(acts: &[Match<'_>], counts_as_matching: bool) -> RuleOutcome {
    if acts.iter().any(Match::is_yes) {
        return RuleOutcome::Matches;
    }
    let unknown = acts.iter().find_map(|one| match one {
        Match::Unknown(why) => Some(RuleOutcome::Error { error: why.to_string(), counts_as_matching }),
        _ => None,
    });
    let differs = || match acts.first() {
        Some(Match::No(part)) => RuleOutcome::Differs(part.to_string()),
        _ => RuleOutcome::NotEvaluated,
    };
    unknown.unwrap_or_else(differs)
}
