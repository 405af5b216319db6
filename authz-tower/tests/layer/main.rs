//! The layer over a mock of the inner service: what it refuses, denies, asks, forwards, and makes of responses.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on stops, in its shared parts too"
)]

mod delegation;
mod denials;
mod forwarding;
mod lists;
mod never;
mod rejections;
mod streams;
mod support;
