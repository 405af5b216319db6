//! Values, and why there is none.
use std::{fmt, ops::Deref, sync::Arc};

use super::arguments::Json;

/// A string: borrowed, or shared so that a copy costs nothing.
#[derive(Debug, Clone)]
pub(crate) enum Text<'v> {
    Borrowed(&'v str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}
impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self::Shared(text.into())
    }
}

/// A value while an expression is evaluated; borrows from the request and the expression.
#[derive(Debug, Clone)]
pub(super) enum Value<'v> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Str(Text<'v>),
    /// A list literal whose elements are all literals.
    Literals(&'v [Value<'static>]),
    List(Arc<Vec<Self>>),
    Map(Arc<Vec<(Self, Self)>>),
    /// An array or object of the tool's arguments.
    Json(&'v Json<'v>),
    /// `request.headers`
    Headers,
    /// Nanoseconds since the Unix epoch.
    Timestamp(i64),
    /// Nanoseconds.
    Duration(i64),
}

impl<'v> Value<'v> {
    pub(super) fn str(text: &'v str) -> Self {
        Self::Str(Text::Borrowed(text))
    }

    /// The same value, borrowing the strings of a literal.
    pub(super) fn of_literal(literal: &'v Value<'static>) -> Self {
        match literal {
            Value::Str(text) => Value::str(text),
            other => other.clone(),
        }
    }

    /// A value of the arguments: scalars as they are, arrays and objects by reference.
    pub(super) fn of_json(json: &'v Json<'v>) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Int(n) => Value::Int(*n),
            Json::UInt(n) => Value::UInt(*n),
            Json::Double(n) => Value::Double(*n),
            Json::Str(text) => Value::str(text),
            Json::List(_) | Json::Map(_) => Value::Json(json),
        }
    }

    /// The name of its type, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::Double(_) => "double",
            Self::Str(_) => "string",
            Self::Literals(_) | Self::List(_) | Self::Json(Json::List(_)) => "list",
            Self::Map(_) | Self::Json(_) | Self::Headers => "map",
            Self::Timestamp(_) => "timestamp",
            Self::Duration(_) => "duration",
        }
    }
}

/// Why an expression has no value. Made without allocating where the request is decided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum EvalError<'v> {
    /// It depends on a part of the request that is not there yet (`could_call`).
    NotKnown,
    /// More steps than [`MAX_STEPS`](super::MAX_STEPS).
    TooManySteps,
    /// A map without that key, a variable without value.
    NoSuchKey(Text<'v>),
    /// A list without that index.
    NoSuchIndex(i64),
    /// An operator or function for these types does not exist.
    NoOverload(&'static str, &'static str, Option<&'static str>),
    /// A number, timestamp or duration out of range, or a division by zero.
    OutOfRange(&'static str),
    /// A string that a conversion cannot read.
    Unreadable(&'static str),
    /// A header that is no text.
    HeaderNotText,
    /// A header that mirrors the body, under a revision that does not compare them.
    HeaderUnchecked,
    /// The result of the whole is no bool.
    NotBool(&'static str),
    /// Map literal with a repeated key.
    RepeatedKey,
}

impl fmt::Display for EvalError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKnown => f.write_str("it depends on parts of the request that are not known yet"),
            Self::TooManySteps => {
                write!(f, "the evaluation took more than {} steps", super::MAX_STEPS)
            }
            Self::NoSuchKey(key) => write!(f, "no such key: `{}`", &**key),
            Self::NoSuchIndex(index) => write!(f, "no such index: `{index}`"),
            Self::NoOverload(operation, left, None) => write!(f, "`{operation}` does not work on {left}"),
            Self::NoOverload(operation, left, Some(right)) => {
                write!(f, "`{operation}` does not work on {left} and {right}")
            }
            Self::OutOfRange(operation) => write!(f, "`{operation}`: out of range"),
            Self::Unreadable(function) => write!(f, "`{function}`: the text cannot be read"),
            Self::HeaderNotText => f.write_str("the header's value is not text"),
            Self::HeaderUnchecked => {
                f.write_str("the header mirrors the body, and this revision does not compare them")
            }
            Self::NotBool(type_name) => write!(f, "the result is {type_name}, not a bool"),
            Self::RepeatedKey => f.write_str("a map literal has a key twice"),
        }
    }
}
