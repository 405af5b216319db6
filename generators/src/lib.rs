#![doc = include_str!("../README.md")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "only tests use it")]
mod manifest;
mod policies;
mod requests;
mod words;

pub use crate::manifest::{manifest, storable};
pub use crate::policies::any_policies;
pub use crate::requests::{Ask, Carries, any_ask};
pub use crate::words::{
    AGENT, NS, OTHER, account, authorizer, backend, cel, entry, ext, gateway, key, on_backend, on_gateway,
    on_listener, rule, tools, v0, v1,
};
