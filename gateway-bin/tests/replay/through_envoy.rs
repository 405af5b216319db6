//! Every decision case through a real Envoy: with the engine beside it, by `translate` and by discovery, as our own gateway
//! decides it; with Envoy's own filters, as the documentation says.
//!
//! `cargo xtask interop --only envoy` runs this: it installs Envoys and says in the environment where they are.
mod differential;
mod features;
mod filters;

use crate::{
    live::{self, Fault},
    real_envoy::{Program, Source},
    world::{Feed, World},
};

/// Cases that Envoy refuses itself before anybody is asked, and why its words are others. That they are refused, and that
/// nothing is sent up, is not up for discussion.
const REFUSED_BY_ENVOY: [(&str, &str); 1] = [(
    "versions: a method of another case",
    "Envoy's HTTP/1.1 codec knows methods by name, in upper case: `post` is 400, not 405",
)];

#[track_caller]
fn assert_held(faults: &[Fault]) {
    let is_listed =
        |fault: &Fault| fault.refused && REFUSED_BY_ENVOY.iter().any(|(case, _)| *case == fault.case);
    let mut wrong: Vec<String> = faults
        .iter()
        .filter(|fault| !is_listed(fault))
        .map(|fault| format!("{}: {}", fault.case, fault.what))
        .collect();
    for (case, _) in REFUSED_BY_ENVOY {
        if faults.iter().all(|fault| fault.case != case) {
            wrong.push(format!("{case}: as everywhere now; take it off the list"));
        }
    }
    assert!(wrong.is_empty(), "{} failed:\n{}", wrong.len(), wrong.join("\n"));
}

/// Sessions are opened through Envoy, too.
async fn translated(minor: &str) {
    let world = World::start().await;
    let feed = || Feed::Envoy(Program::of(minor), Source::Translated);
    features::sessions_stay_where_they_were_opened(&world, &feed()).await;
    features::lists_are_filtered(&world, &feed()).await;
    features::heads_are_taken_as_by_our_own_gateway(&world, &feed()).await;
    assert_held(&live::faults(&world, &feed(), &feed()).await);
}

/// Sessions are opened at our own gateway, which shares the key.
async fn discovered(minor: &str) {
    let world = World::start().await;
    let source = Source::Controller(world.controller().await);
    let feed = Feed::Envoy(Program::of(minor), source);
    assert_held(&live::faults(&world, &feed, &Feed::Files).await);
    let Feed::Envoy(_, Source::Controller(controller)) = feed else { unreachable!() };
    let counts = controller.cache.counts();
    assert!(counts.acknowledged > 0 && counts.nacks == 0, "{counts:?}");
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn translated_1_36() {
    translated("1.36").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn translated_1_38() {
    translated("1.38").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn translated_1_40() {
    translated("1.40").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovered_1_36() {
    discovered("1.36").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovered_1_38() {
    discovered("1.38").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovered_1_40() {
    discovered("1.40").await;
}
