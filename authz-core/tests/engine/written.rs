//! The policies of a level as others than the engine enforce them.
use authz_core::{
    Attribute, CelTest, Compiled, DefaultAction, Fate, Fault, PolicyEntry, TextTest, WrittenPolicy,
};
use policy_model::{Condition, Source};

use crate::common::*;

fn on_both(compiled: &Compiled) -> [Vec<WrittenPolicy<'_>>; 2] {
    compiled.engine.written(compiled.engine.levels(&gateway(), Some(&backend())))
}

#[test]
fn in_policy_order_by_level() {
    let late = v0("late", 3, on_gateway(), vec![]);
    let early = v1("early", 1, on_listener("https"), vec![]);
    let ask = ext("ask", 2, on_backend(), vec![]);
    let compiled = compiled([late.clone(), ask.clone(), early.clone()]);
    let [of_gateway, of_backend] = on_both(&compiled);
    let names =
        |level: &[WrittenPolicy<'_>]| level.iter().map(|one| one.key().name.clone()).collect::<Vec<_>>();
    assert_eq!(
        (names(&of_gateway), names(&of_backend)),
        (vec!["early".into(), "late".into()], vec!["ask".into()])
    );
    assert_eq!(of_gateway.iter().map(|one| one.policy()).collect::<Vec<_>>(), [Some(&early), Some(&late)]);
    assert_eq!(of_backend[0].policy(), Some(&ask));
    let of_service = compiled.engine.written(compiled.engine.levels(&gateway(), None));
    assert_eq!((of_service[0].len(), of_service[1].len()), (2, 0));
    // To which listeners, whether its rules are Allow rules, whether it needs the body.
    for (policy, https, plain, allows, needs_body) in [
        (of_gateway[0], true, false, true, false),
        (of_gateway[1], true, true, true, true),
        (of_backend[0], true, true, false, true),
    ] {
        let name = &policy.key().name;
        assert_eq!((policy.applies_to("https"), policy.applies_to("plain")), (https, plain), "{name}");
        assert_eq!((policy.allows(), policy.needs_body()), (allows, needs_body), "{name}");
    }
}

#[test]
fn what_becomes_of_it() {
    let broken = ext("broken", 3, on_gateway(), vec![]);
    let compiled = of_entries(
        vec![
            entry(ext("first", 1, on_gateway(), vec![])),
            entry(ext("second", 2, on_gateway(), vec![])),
            PolicyEntry::Policy {
                targets: broken.targets.clone(),
                policy: broken,
                fault: Some(Fault::BackendNotFound { message: "create the Service".into() }),
            },
            PolicyEntry::Unreadable {
                key: key("unreadable"),
                targets: vec![on_gateway()],
                message: "no list".into(),
            },
        ],
        DefaultAction::Allow,
    );
    let [level, _] = on_both(&compiled);
    let fates: Vec<_> =
        level.iter().map(|one| (one.key().name.as_str(), one.fate(), one.policy().is_some())).collect();
    assert_eq!(
        fates,
        [
            ("first", Fate::Enforced, true),
            ("second", Fate::OverLimit, true),
            ("broken", Fate::Closed("create the Service"), true),
            ("unreadable", Fate::Closed("the policy cannot be read: no list"), false),
        ]
    );
}

#[test]
fn who_and_what_a_rule_is_about() {
    let policy = v1(
        "p",
        1,
        on_gateway(),
        vec![
            rule("anyone", Source::Anyone, Condition::Anything),
            rule("account", account("agent"), cel("request.path == '/a'")),
            rule("spiffe", Source::Spiffe("spiffe://other/x".into()), cel("size(request.path) == 1")),
        ],
    );
    let compiled = compiled([policy]);
    let [level, _] = on_both(&compiled);
    let identities: Vec<_> = (0..4).map(|rule| level[0].identity(rule)).collect();
    assert_eq!(identities, [None, Some(AGENT), Some("spiffe://other/x"), None]);
    assert_eq!(level[0].cel(0), None);
    let path = CelTest::Text(Attribute::Path, TextTest::OneOf(vec!["/a".into()]));
    assert_eq!(level[0].cel(1), Some(Ok(path)));
    assert_eq!(level[0].cel(2), Some(Err("only comparisons with literals are")));
    assert_eq!(level[0].cel(3), None);
}
