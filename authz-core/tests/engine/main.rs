//! The engine from outside: tables by section of the specification, and properties.
mod acceptance;
#[expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "requests of tests are well formed")]
mod common;
mod generators;
mod properties;
mod v0alpha0;
mod v1alpha1;
