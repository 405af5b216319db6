//! Every decision case through a gateway that reads files.
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
    live::every_case(&World::start().await, &Feed::Files).await;
}
