//! The gateway over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::map_err_ignore,
    reason = "all of it is tests"
)]
mod drain;
mod faults;
mod floods;
mod identity;
mod listeners;
mod protocol;
mod reload;
mod sessions;
mod sidecar;
mod support;
mod telemetry;
mod upstreams;
