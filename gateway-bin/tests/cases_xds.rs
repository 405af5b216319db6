//! Every decision case through a gateway that a controller configures: from its index over mTLS and incremental ADS.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "all of it is tests, and the parts are shared with others"
)]

#[path = "replay/case.rs"]
mod case;
#[path = "replay/controller.rs"]
mod controller;
#[path = "replay/envoy.rs"]
mod envoy;
#[path = "replay/live.rs"]
mod live;
#[path = "replay/real_envoy.rs"]
mod real_envoy;
#[path = "replay/wire.rs"]
mod wire;
#[path = "replay/world.rs"]
mod world;

use world::{Feed, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_is_enforced_as_expected() {
    let world = World::start().await;
    let feed = Feed::Controller(world.controller().await);
    live::every_case(&world, &feed).await;
    let Feed::Controller(controller) = feed else { panic!("fed by files") };
    let counts = controller.cache.counts();
    assert!(counts.acknowledged > 0 && counts.nacks == 0, "{counts:?}");
    controller.stop().await;
}
