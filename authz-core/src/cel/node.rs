//! A compiled expression.
use std::cmp::Ordering;

use super::{functions::Function, regex::Pattern, value::Value};

/// A variable, found at compile time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    ToolName,
    McpMethod,
    Arguments,
    Path,
    UrlPath,
    Method,
    Host,
    Headers,
    Time,
    Identity,
    Namespace,
    ServiceAccount,
}

/// An operator of two numbers (and of strings, lists, times where CEL has them).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
}

impl Arithmetic {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

/// `<`, `<=`, `>`, `>=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    pub(super) fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// What a macro over a list or map yields.
#[derive(Debug)]
pub(super) enum Macro {
    All(Node),
    Exists(Node),
    ExistsOne(Node),
    /// `map` and `filter`: the elements for which `filter` holds, each turned into `element`.
    Collect {
        filter: Option<Node>,
        element: Node,
    },
}

/// A compiled expression. No deeper than `MAX_DEPTH` of [`super::compile`].
#[derive(Debug)]
pub(super) enum Node {
    Literal(Value<'static>),
    Literals(Box<[Value<'static>]>),
    Variable(Variable),
    /// `has()` of a variable.
    Present(Variable),
    /// The variable of a macro, counted from the innermost.
    Local(usize),
    Field(Box<Self>, Box<str>),
    HasField(Box<Self>, Box<str>),
    Index(Box<Self>, Box<Self>),
    List(Box<[Self]>),
    Map(Box<[(Self, Self)]>),
    Not(Box<Self>),
    Negate(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Conditional(Box<Self>, Box<Self>, Box<Self>),
    Equal(Box<Self>, Box<Self>),
    NotEqual(Box<Self>, Box<Self>),
    Compare(Comparison, Box<Self>, Box<Self>),
    Arithmetic(Arithmetic, Box<Self>, Box<Self>),
    In(Box<Self>, Box<Self>),
    Matches(Box<Self>, Pattern),
    Call(Function, Box<[Self]>),
    Macro(Box<Self>, Box<Macro>),
}
