//! What holds for all policies and requests.
use authz_core::{Acceptance, DefaultAction, Effect, Fault, PolicyEntry, Traffic};
use policy_model::{Action, Condition, Dialect, Policy, Source};
use proptest::{collection::vec, prelude::*};

use crate::{common::*, generators::*};

fn default_actions() -> impl Strategy<Value = DefaultAction> {
    prop_oneof![Just(DefaultAction::Allow), Just(DefaultAction::Deny)]
}

/// How much an effect lets through.
fn openness(effect: Effect) -> u8 {
    match effect {
        Effect::Deny => 0,
        Effect::Delegate => 1,
        Effect::Allow => 2,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_order_of_the_input_never_matters(
        (given, shuffled) in any_policies().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        asks in vec(any_ask(), 2),
    ) {
        let one = of_entries(given, DefaultAction::Allow);
        let other = of_entries(shuffled, DefaultAction::Allow);
        prop_assert_eq!(&one.statuses, &other.statuses);
        prop_assert_eq!(one.engine.authorizers(), other.engine.authorizers());
        for ask in asks {
            // `decide` of the tests also compares with `explain`.
            prop_assert_eq!(ask.decide(&one.engine), ask.decide(&other.engine));
        }
    }

    #[test]
    fn explain_agrees_with_decide(all in any_policies(), action in default_actions(), asks in vec(any_ask(), 2)) {
        let engine = of_entries(all, action).engine;
        for ask in asks {
            let decision = ask.decide(&engine);
            prop_assert_eq!(decision.authorizers().count() > 0, decision.effect == Effect::Delegate);
        }
    }

    #[test]
    fn a_broken_policy_never_allows_more(
        all in any_policies(),
        which in any::<prop::sample::Index>(),
        asks in vec(any_ask(), 2),
    ) {
        let mut broken = all.clone();
        let mut faults: Vec<_> = broken
            .iter_mut()
            .filter_map(|entry| match entry {
                PolicyEntry::Policy { fault, .. } => Some(fault),
                _ => None,
            })
            .collect();
        if !faults.is_empty() {
            let which = which.index(faults.len());
            *faults[which] = Some(Fault::RefNotPermitted { message: "no grant".into() });
        }
        let (before, after) = (of_entries(all, DefaultAction::Allow), of_entries(broken, DefaultAction::Allow));
        for ask in asks {
            let (before, after) = (ask.decide(&before.engine).effect, ask.decide(&after.engine).effect);
            prop_assert!(openness(after) <= openness(before), "{:?}: {:?} became {:?}", ask, before, after);
        }
    }

    #[test]
    fn one_more_local_rule_never_removes_an_allow(
        all in any_policies(),
        which in any::<prop::sample::Index>(),
        asks in vec(any_ask(), 2),
    ) {
        let mut more = all.clone();
        // A v1alpha1 Allow policy without rules allows everything: one rule would narrow it.
        let narrows = |policy: &Policy| policy.dialect == Dialect::V1Alpha1 && policy.rules.is_empty();
        let mut policies: Vec<_> = more
            .iter_mut()
            .filter_map(|entry| match entry {
                PolicyEntry::Policy { policy, .. } if policy.action == Action::Allow => Some(policy),
                _ => None,
            })
            .filter(|policy| !narrows(policy))
            .collect();
        if !policies.is_empty() {
            let which = which.index(policies.len());
            let policy = &mut policies[which];
            let condition = if policy.dialect == Dialect::V0Alpha0 { tools(&["t1"]) } else { Condition::Anything };
            policy.rules.insert(0, rule("more", Source::Anyone, condition));
        }
        let (before, after) = (of_entries(all, DefaultAction::Deny), of_entries(more, DefaultAction::Deny));
        for ask in asks {
            let (before, after) = (ask.decide(&before.engine).effect, ask.decide(&after.engine).effect);
            prop_assert!(openness(after) >= openness(before), "{:?}: {:?} became {:?}", ask, before, after);
        }
    }

    #[test]
    fn what_may_be_called_is_not_left_out_of_lists(
        all in any_policies(),
        action in default_actions(),
        asks in vec(any_ask(), 2),
    ) {
        let engine = of_entries(all, action).engine;
        for ask in asks {
            let levels = ask.levels(&engine);
            let left_out = ask.with(|request| match request.traffic {
                Traffic::Message(message) => match message.target() {
                    mcp_jsonrpc::Target::Name(tool) if message.method() == "tools/call" && ask.method == "POST" => {
                        !engine.could_call(levels, request.identity, request.listener, tool)
                    }
                    _ => false,
                },
                _ => false,
            });
            prop_assert!(!left_out || ask.decide(&engine).effect == Effect::Deny, "{:?}", ask);
        }
    }

    #[test]
    fn at_most_five_are_accepted_and_one_with_external_auth(all in any_policies()) {
        let compiled = of_entries(all, DefaultAction::Allow);
        for status in &compiled.statuses {
            if let Acceptance::LimitPerTargetExceeded { message } = &status.acceptance {
                prop_assert!(!message.contains("  "), "{}", message);
            }
        }
        for target in [on_gateway(), on_backend()] {
            let mut accepted: Vec<_> = compiled
                .statuses
                .iter()
                .filter(|status| (status.target.kind, &status.target.object) == (target.kind, &target.object) && status.acceptance == Acceptance::Accepted)
                .map(|status| &status.key)
                .collect();
            accepted.dedup();
            prop_assert!(accepted.len() <= 5, "{:?}", accepted);
        }
    }
}
