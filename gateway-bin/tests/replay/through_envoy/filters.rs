//! Envoy alone: every deviation is a denial, or stands in `deviations.yaml` under a row of `docs/envoy-filters.md`.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    live::{self, Fault},
    real_envoy::{Program, Source},
    world::{Feed, World},
};

/// Cases by the row that explains them.
type Deviations = BTreeMap<String, BTreeSet<String>>;

/// What is wrong with the list, given what happened.
fn differences(deviations: &Deviations, faults: &[Fault]) -> Vec<String> {
    let listed: BTreeSet<&str> = deviations.values().flatten().map(String::as_str).collect();
    let loose: BTreeMap<&str, &Fault> =
        faults.iter().filter(|fault| !fault.refused).map(|fault| (fault.case.as_str(), fault)).collect();
    let unlisted = loose
        .iter()
        .filter(|(case, _)| !listed.contains(*case))
        .map(|(case, fault)| format!("not listed: {case}: {}", fault.what));
    let stale = listed
        .iter()
        .filter(|case| !loose.contains_key(*case))
        .map(|case| format!("listed, and does not occur any more: {case}"));
    unlisted.chain(stale).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_1_40() {
    let read = |path: &str| fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let deviations: Deviations =
        serde_yaml_ng::from_str(&read("tests/replay/through_envoy/deviations.yaml")).unwrap();
    let table = read("../docs/envoy-filters.md");
    let mut wrong: Vec<String> = deviations
        .keys()
        .filter(|row| !table.contains(&format!("| {row} |")))
        .map(|row| format!("docs/envoy-filters.md has no row `{row}`"))
        .collect();
    let world = World::start().await;
    let feed = Feed::Envoy(Program::of("1.40"), Source::Filters);
    let faults = live::faults(&world, &feed, &Feed::Files).await;
    wrong.extend(differences(&deviations, &faults));
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_not_listed_or_does_not_occur_is_told() {
    let fault = |case: &str, refused| Fault { case: case.to_owned(), refused, what: String::new() };
    let deviations: Deviations = [("row".to_owned(), BTreeSet::from(["a: b".to_owned()]))].into();
    let check = |faults: &[Fault], expected: usize| {
        assert_eq!(differences(&deviations, faults).len(), expected, "{faults:?}");
    };
    check(&[fault("a: b", false)], 0);
    check(&[fault("a: b", false), fault("c: d", true)], 0);
    check(&[fault("a: b", false), fault("c: d", false)], 1);
    check(&[fault("a: b", true)], 1);
    check(&[], 1);
}
