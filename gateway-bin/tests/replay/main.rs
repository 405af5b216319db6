//! Requests replayed against the real parts: every decision case, as files, a controller or an Envoy bring it, and requests
//! as an attacker writes them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "all of it is tests"
)]
#![cfg_attr(
    not(feature = "envoy-tests"),
    allow(dead_code, reason = "some of it only real Envoys are asked with")
)]

mod adversary;
mod case;
#[allow(dead_code, reason = "tests/xds.rs needs more of it")]
mod controller;
#[allow(dead_code, reason = "tests/decide needs more of it")]
mod envoy;
mod explained;
mod live;
mod real_envoy;
#[cfg(feature = "envoy-tests")]
mod through_envoy;
mod wire;
mod world;

use world::{Feed, World};

/// A gateway that reads files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_from_files() {
    live::every_case(&World::start().await, &Feed::Files).await;
}

/// A gateway that a controller configures: from its index over mTLS and incremental ADS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_from_a_controller() {
    let world = World::start().await;
    let feed = Feed::Controller(world.controller().await);
    live::every_case(&world, &feed).await;
    let Feed::Controller(controller) = feed else { panic!("fed by files") };
    let counts = controller.cache.counts();
    assert!(counts.acknowledged > 0 && counts.nacks == 0, "{counts:?}");
    controller.stop().await;
}

/// A processor, asked as an Envoy would ask it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_by_a_processor() {
    live::every_case(&World::start().await, &Feed::Processor).await;
}
