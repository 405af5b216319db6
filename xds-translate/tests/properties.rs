//! What holds whatever the objects are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on should fail there"
)]
#[path = "support/mutate.rs"]
mod mutate;

use proptest::{prelude::*, sample::Index};
use serde_json::Value;
use xds_translate::{Objects, Options, Resolution, Router, resolve};

use self::mutate::{junk, mutate};

/// The seed's objects and a few that are in conflict with them, as JSON.
fn objects() -> Vec<Value> {
    let text =
        concat!(include_str!("manifests/seed.yaml"), "---\n", include_str!("manifests/conflicts.yaml"));
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    documents.map(|document| serde::Deserialize::deserialize(document).unwrap()).collect()
}

fn resolved(objects: &[Value]) -> (Resolution, Objects) {
    let mut set = Objects::default();
    for object in objects {
        set.insert(object);
    }
    (resolve(&set, &Options::default()), set)
}

/// Everything that can be seen of a resolution but the engine, which shows itself in the policies' statuses.
fn visible(resolution: &Resolution) -> String {
    let snapshots: Vec<_> = resolution
        .gateways
        .values()
        .map(|snapshot| {
            (
                &snapshot.gateway,
                &snapshot.listeners,
                &snapshot.rules,
                &snapshot.backends,
                &snapshot.authorizers,
                snapshot.engine.authorizers(),
            )
        })
        .collect();
    format!("{snapshots:#?}\n{:#?}\n{:#?}", resolution.statuses, resolution.notes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_of_objects_never_matters(shuffled in Just(objects()).prop_shuffle()) {
        let (expected, _) = resolved(&objects());
        let (found, _) = resolved(&shuffled);
        prop_assert_eq!(visible(&found), visible(&expected));
    }

    /// Whatever arrives: no panic, every policy keeps a status or a note, and the order still does not matter.
    #[test]
    fn mutated_objects(
        mutations in prop::collection::vec((any::<Index>(), prop::collection::vec(any::<Index>(), 1..8), junk()), 1..6),
        seed in any::<u64>(),
    ) {
        let mut objects = objects();
        for (object, path, to) in &mutations {
            let index = object.index(objects.len());
            mutate(&mut objects[index], path, to);
        }
        let (found, set) = resolved(&objects);
        for snapshot in found.gateways.values() {
            let router = Router::new(snapshot);
            let headers = http::HeaderMap::new();
            for (index, listener) in snapshot.listeners.iter().enumerate() {
                let request = xds_translate::RouteRequest {
                    host: listener.hostname.as_deref().unwrap_or("h"), path: "/local/mcp/x", query: None, method: "POST", headers: &headers,
                };
                if let Ok(routed) = router.route(listener.port, Some(index), &request) {
                    prop_assert!(listener.routes.iter().any(|(id, _)| snapshot.rules[id.0 as usize].route == routed.rule.route));
                }
            }
            for rule in &snapshot.rules {
                for backend in rule.backends.iter().filter_map(|backend| backend.backend.as_ref()) {
                    prop_assert!(snapshot.backends.contains_key(backend), "{backend:?} is used but not given");
                }
            }
            prop_assert_eq!(snapshot.authorizers.len(), snapshot.engine.authorizers().len());
        }
        // Two objects of one name may have come of it; then the last one stands.
        if set.len() == objects.len() {
            let middle = usize::try_from(seed % (objects.len() as u64)).unwrap();
            objects.rotate_left(middle);
            let (rotated, _) = resolved(&objects);
            prop_assert_eq!(visible(&rotated), visible(&found));
        }
    }

    /// Files: any text is refused or taken, never a panic; what was refused leaves nothing behind.
    #[test]
    fn mutated_text(cut in any::<Index>(), insert in "[ -~\\n]{0,12}") {
        let text = include_str!("manifests/seed.yaml");
        let at = cut.index(text.len());
        let text = format!("{}{insert}{}", &text[..at], &text[at..]);
        let mut objects = Objects::default();
        if objects.add_yaml("f", &text).is_err() {
            prop_assert!(objects.is_empty());
        } else {
            resolve(&objects, &Options::default());
        }
    }
}
