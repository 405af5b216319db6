#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod act;
mod cel;
mod compile;
mod decision;
mod engine;
mod explain;
mod level;
mod request;
mod rule;
mod written;

pub use crate::cel::{Attribute, CelTest, TextTest};
pub use crate::compile::{Acceptance, Compiled, Fault, Input, PolicyEntry, PolicyStatus, compile};
pub use crate::decision::{AuthorizerId, Decision, Determining, Effect, LevelDecision, Reason};
pub use crate::engine::{DefaultAction, Engine, Levels};
pub use crate::explain::{Explanation, LevelExplanation, PolicyExplanation, RuleExplanation, RuleOutcome};
pub use crate::request::{BackendKind, Http, Request, Traffic};
pub use crate::written::{Fate, WrittenPolicy};
