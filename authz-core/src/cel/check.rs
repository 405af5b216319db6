//! What the types of an expression show before it is ever evaluated.
use super::node::{Arithmetic, Variable};

/// A type as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    /// Known when it is evaluated.
    Dyn,
    Null,
    Bool,
    Int,
    UInt,
    Double,
    Str,
    List,
    Map,
    Timestamp,
    Duration,
}

impl Type {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dyn => "any type",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::UInt => "uint",
            Self::Double => "double",
            Self::Str => "string",
            Self::List => "list",
            Self::Map => "map",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
        }
    }

    /// Whether a value of this type may be of that one.
    pub(super) fn may_be(self, other: Self) -> bool {
        self == Self::Dyn || other == Self::Dyn || self == other
    }

    pub(super) fn may_be_any(self, others: &[Self]) -> bool {
        others.iter().any(|other| self.may_be(*other))
    }

    fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Double)
    }

    pub(super) fn of_variable(variable: Variable) -> Self {
        match variable {
            Variable::Arguments | Variable::Headers => Self::Map,
            Variable::Time => Self::Timestamp,
            _ => Self::Str,
        }
    }
}

/// Whether `<` and its like exist for these types.
pub(super) fn comparable(left: Type, right: Type) -> bool {
    const ORDERED: [Type; 7] =
        [Type::Bool, Type::Int, Type::UInt, Type::Double, Type::Str, Type::Timestamp, Type::Duration];
    left.may_be_any(&ORDERED)
        && right.may_be_any(&ORDERED)
        && (left.may_be(right) || (left.is_number() && right.is_number()))
}

/// The type of a sum and its like; `None` where the operator does not exist for these types.
pub(super) fn arithmetic(operator: Arithmetic, left: Type, right: Type) -> Option<Type> {
    use Type::{Double, Duration, Dyn, Int, List, Str, Timestamp, UInt};
    let overloads: &[(Type, Type, Type)] = match operator {
        Arithmetic::Add => &[
            (Int, Int, Int),
            (UInt, UInt, UInt),
            (Double, Double, Double),
            (Str, Str, Str),
            (List, List, List),
            (Timestamp, Duration, Timestamp),
            (Duration, Timestamp, Timestamp),
            (Duration, Duration, Duration),
        ],
        Arithmetic::Subtract => &[
            (Int, Int, Int),
            (UInt, UInt, UInt),
            (Double, Double, Double),
            (Timestamp, Timestamp, Duration),
            (Timestamp, Duration, Timestamp),
            (Duration, Duration, Duration),
        ],
        Arithmetic::Multiply | Arithmetic::Divide => {
            &[(Int, Int, Int), (UInt, UInt, UInt), (Double, Double, Double)]
        }
        Arithmetic::Modulo => &[(Int, Int, Int), (UInt, UInt, UInt)],
    };
    let mut results = overloads
        .iter()
        .filter(|(a, b, _)| left.may_be(*a) && right.may_be(*b))
        .map(|(_, _, result)| *result);
    let first = results.next()?;
    Some(if results.all(|result| result == first) { first } else { Dyn })
}
