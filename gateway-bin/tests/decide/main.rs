//! A processor (`agentic-gateway decide`), asked as Envoy asks: every phase, and every way to fail.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code,
    reason = "all of it is tests, and the stand-in for Envoy is shared with others"
)]

#[path = "../replay/envoy.rs"]
mod envoy;
mod failures;
mod identity;
mod requests;
mod responses;
mod socket;
mod support;
mod watch;
