//! CEL expressions of policies: the `cel` crate parses and expands macros; checking, compiling and a bounded
//! evaluation are here, so that nothing is prepared per request that the expression does not use.
mod arguments;
mod check;
mod compile;
mod eval;
mod functions;
mod known;
mod node;
mod order;
mod plain;
mod regex;
mod time;
mod value;

pub(crate) use self::arguments::Arguments;
pub(crate) use self::compile::Expression;
pub(crate) use self::eval::{Call, Facts};
pub use self::plain::{Attribute, CelTest, TextTest};
pub(crate) use self::regex::{Pattern, anchored};
pub(crate) use self::value::EvalError;

/// Most bytes of an expression's source text.
pub(crate) const MAX_SOURCE_BYTES: usize = 4096;

/// Most steps of one evaluation. A step is one node evaluated, or a stretch of a string or list (see
/// [`eval::Budget`]); about 10 ns.
pub(crate) const MAX_STEPS: u32 = 50_000;

#[cfg(test)]
mod tests;
