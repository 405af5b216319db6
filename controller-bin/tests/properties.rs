//! What holds whatever the objects are, and however they came.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on should fail there"
)]
#[path = "../../xds-translate/tests/support/generate.rs"]
mod generate;

use std::collections::{BTreeMap, BTreeSet};

use agentic_controller::{
    index::{Index, Kind, Outcome, Settings},
    status::{Observed, Proxies, writes},
    watch,
};
use policy_model::NamespacedName;
use proptest::{collection::vec, prelude::*, sample, strategy::ValueTree as _};
use serde_json::{Value, json};
use xds_translate::{ObjectRef, Options, native};

const OURS: &str = "sigs.k8s.io/kube-agentic-networking-controller";

fn empty() -> Index {
    Index::new(Settings { options: Options::default() })
}

/// What an API server would have: one object of a name.
fn stored(objects: &[Value]) -> BTreeMap<ObjectRef, Value> {
    objects.iter().filter_map(|object| Some((native::object_ref(object)?, object.clone()))).collect()
}

fn kind_of(object: &ObjectRef) -> Kind {
    Kind { group: object.group.clone(), kind: object.kind.clone() }
}

/// Something that a watch may deliver on the way.
#[derive(Debug, Clone)]
enum Step {
    Apply(sample::Index),
    /// An older state of an object.
    Stale(sample::Index),
    Delete(sample::Index),
    /// A list in which some are missing.
    Reset(sample::Index, Vec<bool>),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<sample::Index>;
    prop_oneof![
        4 => index().prop_map(Step::Apply),
        2 => index().prop_map(Step::Stale),
        2 => index().prop_map(Step::Delete),
        1 => (index(), vec(any::<bool>(), 8)).prop_map(|(kind, kept)| Step::Reset(kind, kept)),
    ]
}

fn take(index: &mut Index, step: &Step, objects: &BTreeMap<ObjectRef, Value>) -> bool {
    let all: Vec<_> = objects.iter().collect();
    match step {
        Step::Apply(at) => index.apply(at.get(&all).1),
        Step::Stale(at) => {
            let mut object = at.get(&all).1.clone();
            object["metadata"]["resourceVersion"] = json!("1");
            object["metadata"]["generation"] = json!(1);
            if let Some(listeners) = object.pointer_mut("/spec/listeners").and_then(Value::as_array_mut) {
                listeners.truncate(1);
            }
            if let Some(rules) = object.pointer_mut("/spec/rules").and_then(Value::as_array_mut) {
                rules.truncate(1);
            }
            index.apply(&object)
        }
        Step::Delete(at) => index.delete(at.get(&all).0),
        Step::Reset(at, kept) => {
            let kind = kind_of(at.get(&all).0);
            let listed = objects.iter().filter(|(object, _)| kind_of(object) == kind);
            let listed: Vec<_> =
                listed.zip(kept).filter(|(_, kept)| **kept).map(|((_, object), _)| object.clone()).collect();
            index.reset(&kind, &listed)
        }
    }
}

/// Gives every object a generation, and statuses as other controllers and an older version of this one left them.
fn with_statuses(objects: &mut BTreeMap<ObjectRef, Value>) {
    let condition = json!({
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "observedGeneration": 1,
        "lastTransitionTime": "2020-01-01T00:00:00Z",
    });
    for (object, value) in objects {
        value["metadata"]["generation"] = json!(3);
        let entry = |reference: &str, name: &str, controller: &str| json!({reference: {"name": name, "group": "gateway.networking.k8s.io", "kind": "Gateway"}, "controllerName": controller, "conditions": [condition]});
        let entries = |reference: &str| {
            json!([
                entry(reference, "x", "example.com/other"),
                entry(reference, "stale", OURS),
                entry(reference, "x", OURS),
                entry(reference, "y", "example.com/other"),
            ])
        };
        match object.kind.as_str() {
            "HTTPRoute" => value["status"] = json!({"parents": entries("parentRef")}),
            "BackendTLSPolicy" | "XAccessPolicy" => {
                value["status"] = json!({"ancestors": entries("ancestorRef")})
            }
            "Gateway" | "GatewayClass" | "XBackend" => {
                let mut other = condition.clone();
                other["type"] = json!("example.com/Audited");
                value["status"] = json!({"conditions": [other, condition]});
            }
            _ => {}
        }
    }
}

/// The entries and conditions of a status that are not ours to touch.
fn of_others(status: &Value) -> Vec<Value> {
    let list = |field: &str| status.get(field).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = [list("parents"), list("ancestors")].concat();
    found.retain(|entry| entry["controllerName"] != OURS);
    let mut conditions = list("conditions");
    conditions.retain(|condition| condition["type"] == "example.com/Audited");
    [found, conditions].concat()
}

/// Every condition in a status but those of others.
fn conditions(status: &Value) -> Vec<&Value> {
    match status {
        Value::Object(fields) if fields.get("controllerName").is_some_and(|name| name != OURS) => Vec::new(),
        Value::Object(fields) if fields.contains_key("lastTransitionTime") => {
            if fields["type"] == "example.com/Audited" { Vec::new() } else { vec![status] }
        }
        Value::Object(fields) => fields.values().flat_map(conditions).collect(),
        Value::Array(items) => items.iter().flat_map(conditions).collect(),
        _ => Vec::new(),
    }
}

fn all_acknowledged(outcome: &Outcome) -> Observed {
    let mut observed = Observed::default();
    for (gateway, outcome) in &outcome.gateways {
        let acknowledged = BTreeSet::from([outcome.resources.version_of(native::OBJECT).to_string()]);
        observed.proxies.insert(gateway.clone(), Proxies { acknowledged, refused: vec![] });
    }
    observed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_same_objects_have_the_same_outcome(
        objects in generate::objects(),
        steps in vec(step(), 0..24),
        by_list in any::<bool>(),
    ) {
        let objects = stored(&objects);
        let mut expected = empty();
        for object in objects.values() {
            expected.apply(object);
        }
        let mut index = empty();
        for step in &steps {
            let before = index.outcome();
            if !take(&mut index, step, &objects) {
                prop_assert_eq!(&index.outcome(), &before, "{:?} changed what it said it does not", step);
            }
        }
        if by_list {
            for kind in objects.keys().map(kind_of).collect::<BTreeSet<_>>() {
                let listed: Vec<_> = objects.iter().filter(|(object, _)| kind_of(object) == kind).map(|(_, object)| object.clone()).collect();
                index.reset(&kind, &listed);
            }
        } else {
            for object in objects.values().rev() {
                index.apply(object);
            }
        }
        prop_assert_eq!(index.outcome(), expected.outcome());
        for object in objects.keys() {
            prop_assert_eq!(index.object(object), expected.object(object));
        }
        for (gateway, outcome) in index.outcome().gateways {
            prop_assert!(outcome.resources.types[native::OBJECT].len() <= objects.len(), "{}", gateway);
        }
    }

    #[test]
    fn statuses_converge_and_leave_what_is_of_others(objects in generate::objects(), acknowledged in any::<bool>()) {
        let mut objects = stored(&objects);
        with_statuses(&mut objects);
        let mut index = empty();
        for object in objects.values() {
            index.apply(object);
        }
        let outcome = index.outcome();
        let observed = if acknowledged { all_acknowledged(&outcome) } else { Observed::default() };
        let now = "2026-01-01T00:00:00Z";
        for (number, write) in writes(&index, &outcome, &observed, now).into_iter().enumerate() {
            let object = objects.get_mut(&write.object).unwrap();
            prop_assert_eq!(&write.resource_version, object["metadata"]["resourceVersion"].as_str().unwrap());
            prop_assert_eq!(&write.api_version, object["apiVersion"].as_str().unwrap());
            prop_assert_eq!(of_others(&write.status), of_others(&object["status"]));
            for condition in conditions(&write.status) {
                prop_assert_eq!(condition.get("observedGeneration"), Some(&json!(3)), "{}", condition);
                let is_old = condition["lastTransitionTime"] == "2020-01-01T00:00:00Z";
                prop_assert!(!is_old || (condition["type"] == "Accepted" && condition["status"] == "True"));
            }
            object["status"] = write.status;
            object["metadata"]["resourceVersion"] = json!(format!("written-{number}"));
            prop_assert!(index.apply(object));
        }
        let later = "2026-01-01T00:00:09Z";
        prop_assert_eq!(writes(&index, &index.outcome(), &observed, later), vec![]);
        // Statuses are nothing that a push depends on.
        prop_assert_eq!(&index.outcome(), &outcome);
        for object in objects.keys().filter(|object| object.kind == "Gateway") {
            let name = NamespacedName::new(&object.namespace, &object.name);
            let status = &objects[object]["status"];
            if outcome.gateways.contains_key(&name) {
                prop_assert!(conditions(status).iter().any(|condition| condition["type"] == "Programmed"));
            }
        }
    }
}

#[test]
fn kinds_are_kept_apart() {
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let objects = stored(&generate::objects().new_tree(runner).unwrap().current());
    let mut index = empty();
    for object in objects.values() {
        index.apply(object);
    }
    for kind in watch::kinds() {
        let (mut others, before): (BTreeMap<_, _>, _) = (BTreeMap::new(), index.outcome());
        others.extend(
            objects
                .keys()
                .filter(|object| kind_of(object) != kind)
                .map(|object| (object, index.object(object).cloned())),
        );
        index.reset(&kind, &[]);
        for (object, known) in others {
            assert_eq!(index.object(object), known.as_ref(), "{object:?} went with {kind:?}");
        }
        let listed: Vec<_> = objects
            .iter()
            .filter(|(object, _)| kind_of(object) == kind)
            .map(|(_, object)| object.clone())
            .collect();
        index.reset(&kind, &listed);
        assert_eq!(index.outcome(), before, "after {kind:?}");
    }
}
