//! Policies and requests in few words.
use authz_core::{Compiled, DefaultAction, Effect, Engine, Input, PolicyEntry, Reason, compile};
use policy_model::Policy;

pub(crate) use generators::{
    AGENT, Ask, Carries, OTHER, account, authorizer, backend, cel, entry, ext, gateway, key, on_backend,
    on_gateway, on_listener, rule, tools, v0, v1,
};

pub(crate) fn compiled(policies: impl IntoIterator<Item = Policy>) -> Compiled {
    of_entries(policies.into_iter().map(entry).collect(), DefaultAction::Allow)
}
pub(crate) fn of_entries(policies: Vec<PolicyEntry>, default_action: DefaultAction) -> Compiled {
    compile(Input { policies, default_action, ..Input::default() })
}

#[track_caller]
pub(crate) fn check(engine: &Engine, ask: &Ask, expected: Effect) {
    let decision = ask.decide(engine);
    assert_eq!(decision.effect, expected, "{ask:?}: {decision:?}");
}

/// Effect, reason of the determining level, policy and rule by name.
#[track_caller]
pub(crate) fn check_by(engine: &Engine, ask: &Ask, expected: (Effect, Reason, Option<(&str, Option<&str>)>)) {
    let decision = ask.decide(engine);
    let level = decision.determining_level();
    let by = level.determining.map(|by| (by.policy.name.as_str(), by.rule));
    assert_eq!((decision.effect, level.reason, by), expected, "{ask:?}");
}
