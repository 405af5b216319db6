//! The engine from outside: tables by section of the specification, and properties.
mod acceptance;
mod common;
mod generators;
mod properties;
mod v0alpha0;
mod v1alpha1;
