//! The engine from outside: tables by section of the specification, and properties.
mod acceptance;
mod common;
mod explained;
mod generators;
mod lists;
#[expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a case that the tables do not know is a fault of the test"
)]
mod naive;
mod properties;
mod v0alpha0;
mod v1alpha1;
mod written;
