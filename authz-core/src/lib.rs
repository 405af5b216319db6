#![doc = include_str!("../README.md")]
#![warn(missing_docs, clippy::missing_errors_doc, clippy::missing_panics_doc)]

mod compile;
mod decision;
mod engine;
mod explain;
mod request;

pub use crate::compile::{Acceptance, Compiled, Fault, Input, PolicyEntry, PolicyStatus, compile};
pub use crate::decision::{AuthorizerId, Decision, Determining, Effect, LevelDecision, Reason};
pub use crate::engine::{DefaultAction, Engine, Levels};
pub use crate::explain::{Explanation, LevelExplanation, PolicyExplanation, RuleExplanation, RuleOutcome};
pub use crate::request::{BackendKind, Http, Request, Traffic};
