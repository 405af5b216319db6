//! The functions of an expression.
use super::{
    check::Type,
    eval::{Budget, Call},
    order::{list_len, map_len},
    time::{TimeField, parse_duration, parse_timestamp},
    value::{EvalError, Text, Value},
};

/// A function, found at compile time. `matches` is a node of its own: its pattern is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    StartsWith,
    EndsWith,
    Contains,
    LowerAscii,
    UpperAscii,
    Int,
    UInt,
    Double,
    String,
    Bool,
    Timestamp,
    Duration,
    /// Of a timestamp, so many seconds east of UTC; of a duration where it has the field.
    Time(TimeField, i32),
}

/// What may stand where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signature {
    pub(super) function: Function,
    /// Whether it is written `receiver.name(..)`, `name(receiver, ..)` or either way.
    pub(super) style: Style,
    pub(super) first: &'static [Type],
    /// Of the second argument, if there is one.
    pub(super) second: Option<Type>,
    pub(super) result: Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Global,
    Receiver,
    Either,
}

/// The names that exist, for messages.
pub(super) const NAMES: &str = "size, startsWith, endsWith, contains, matches, lowerAscii, upperAscii, int, uint, double, \
     string, bool, dyn, timestamp, duration, the time getters (getHours, getDayOfWeek, ...), and the macros has, all, \
     exists, exists_one, map, filter";

/// The getter of that name.
pub(super) fn time_field(name: &str) -> Option<TimeField> {
    Some(match name {
        "getFullYear" => TimeField::FullYear,
        "getMonth" => TimeField::Month,
        "getDayOfMonth" => TimeField::DayOfMonth,
        "getDate" => TimeField::Date,
        "getDayOfWeek" => TimeField::DayOfWeek,
        "getDayOfYear" => TimeField::DayOfYear,
        "getHours" => TimeField::Hours,
        "getMinutes" => TimeField::Minutes,
        "getSeconds" => TimeField::Seconds,
        "getMilliseconds" => TimeField::Milliseconds,
        _ => return None,
    })
}

/// The function of that name (other than the getters).
pub(super) fn signature(name: &str) -> Option<Signature> {
    use Type::{Bool, Double, Duration, Int, List, Map, Str, Timestamp, UInt};
    const SIZED: &[Type] = &[Str, List, Map];
    const TEXT: &[Type] = &[Str];
    let (function, style, first, second, result): (_, _, &'static [Type], _, _) = match name {
        "size" => (Function::Size, Style::Either, SIZED, None, Int),
        "startsWith" => (Function::StartsWith, Style::Receiver, TEXT, Some(Str), Bool),
        "endsWith" => (Function::EndsWith, Style::Receiver, TEXT, Some(Str), Bool),
        "contains" => (Function::Contains, Style::Receiver, TEXT, Some(Str), Bool),
        "lowerAscii" => (Function::LowerAscii, Style::Receiver, TEXT, None, Str),
        "upperAscii" => (Function::UpperAscii, Style::Receiver, TEXT, None, Str),
        "int" => (Function::Int, Style::Global, &[Int, UInt, Double, Str, Timestamp], None, Int),
        "uint" => (Function::UInt, Style::Global, &[Int, UInt, Double, Str], None, UInt),
        "double" => (Function::Double, Style::Global, &[Int, UInt, Double, Str], None, Double),
        "string" => (Function::String, Style::Global, &[Str, Bool, Int, UInt], None, Str),
        "bool" => (Function::Bool, Style::Global, &[Bool, Str], None, Bool),
        "timestamp" => (Function::Timestamp, Style::Global, &[Str, Int, Timestamp], None, Timestamp),
        "duration" => (Function::Duration, Style::Global, &[Str, Duration], None, Duration),
        _ => return None,
    };
    Some(Signature { function, style, first, second, result })
}

type Outcome<'v> = Result<Value<'v>, EvalError<'v>>;

impl Function {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Contains => "contains",
            Self::LowerAscii => "lowerAscii",
            Self::UpperAscii => "upperAscii",
            Self::Int => "int",
            Self::UInt => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bool => "bool",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Time(..) => "time getter",
        }
    }

    pub(super) fn of_one<'v>(self, value: Value<'v>, call: Option<Call<'v>>, budget: &Budget) -> Outcome<'v> {
        let name = self.name();
        let unreadable = || EvalError::Unreadable(name);
        let range = || EvalError::OutOfRange(name);
        if let Value::Str(text) = &value {
            budget.search(text.len())?;
        }
        Ok(match (self, value) {
            (Self::Size, value) => {
                let size = match &value {
                    Value::Str(text) => text.chars().count(),
                    Value::Headers => call.ok_or(EvalError::NotKnown)?.http.headers.keys_len(),
                    other => list_len(other).or_else(|| map_len(other)).ok_or(EvalError::NoOverload(
                        name,
                        other.type_name(),
                        None,
                    ))?,
                };
                Value::Int(i64::try_from(size).ok().ok_or_else(range)?)
            }
            (Self::LowerAscii, Value::Str(text)) => Value::Str(text.to_ascii_lowercase().into()),
            (Self::UpperAscii, Value::Str(text)) => Value::Str(text.to_ascii_uppercase().into()),
            (Self::Int, Value::Int(n)) => Value::Int(n),
            (Self::Int, Value::UInt(n)) => Value::Int(i64::try_from(n).ok().ok_or_else(range)?),
            (Self::Int, Value::Double(n)) => Value::Int(double_to_i64(n).ok_or_else(range)?),
            (Self::Int, Value::Str(text)) => Value::Int(text.parse().ok().ok_or_else(unreadable)?),
            (Self::Int, Value::Timestamp(nanos)) => Value::Int(nanos.div_euclid(1_000_000_000)),
            (Self::UInt, Value::UInt(n)) => Value::UInt(n),
            (Self::UInt, Value::Int(n)) => Value::UInt(u64::try_from(n).ok().ok_or_else(range)?),
            (Self::UInt, Value::Double(n)) => Value::UInt(double_to_u64(n).ok_or_else(range)?),
            (Self::UInt, Value::Str(text)) => Value::UInt(text.parse().ok().ok_or_else(unreadable)?),
            (Self::Double, Value::Double(n)) => Value::Double(n),
            (Self::Double, Value::Int(n)) => Value::Double(n as f64),
            (Self::Double, Value::UInt(n)) => Value::Double(n as f64),
            (Self::Double, Value::Str(text)) => Value::Double(text.parse().ok().ok_or_else(unreadable)?),
            (Self::String, Value::Str(text)) => Value::Str(text),
            (Self::String, Value::Bool(b)) => Value::str(if b { "true" } else { "false" }),
            (Self::String, Value::Int(n)) => Value::Str(Text::from(n.to_string())),
            (Self::String, Value::UInt(n)) => Value::Str(Text::from(n.to_string())),
            (Self::Bool, Value::Bool(b)) => Value::Bool(b),
            (Self::Bool, Value::Str(text)) => match &*text {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => return Err(unreadable()),
            },
            (Self::Timestamp, Value::Timestamp(nanos)) => Value::Timestamp(nanos),
            (Self::Timestamp, Value::Int(seconds)) => {
                Value::Timestamp(seconds.checked_mul(1_000_000_000).ok_or_else(range)?)
            }
            (Self::Timestamp, Value::Str(text)) => {
                Value::Timestamp(parse_timestamp(&text).ok_or_else(unreadable)?)
            }
            (Self::Duration, Value::Duration(nanos)) => Value::Duration(nanos),
            (Self::Duration, Value::Str(text)) => {
                Value::Duration(parse_duration(&text).ok_or_else(unreadable)?)
            }
            (Self::Time(field, offset), Value::Timestamp(nanos)) => Value::Int(field.of(nanos, offset)),
            (Self::Time(field, 0), Value::Duration(nanos)) => {
                // The whole duration in that unit; milliseconds are those within the second.
                let unit = match field {
                    TimeField::Hours => 3_600_000_000_000,
                    TimeField::Minutes => 60_000_000_000,
                    TimeField::Seconds => 1_000_000_000,
                    TimeField::Milliseconds => return Ok(Value::Int(nanos / 1_000_000 % 1_000)),
                    _ => return Err(EvalError::NoOverload(name, "duration", None)),
                };
                Value::Int(nanos / unit)
            }
            (_, other) => return Err(EvalError::NoOverload(name, other.type_name(), None)),
        })
    }

    pub(super) fn of_two<'v>(self, first: &Value<'v>, second: &Value<'v>, budget: &Budget) -> Outcome<'v> {
        let (Value::Str(text), Value::Str(part)) = (first, second) else {
            return Err(EvalError::NoOverload(self.name(), first.type_name(), Some(second.type_name())));
        };
        Ok(Value::Bool(match self {
            Self::StartsWith => {
                budget.text(part.len())?;
                text.starts_with(&**part)
            }
            Self::EndsWith => {
                budget.text(part.len())?;
                text.ends_with(&**part)
            }
            Self::Contains => {
                budget.text(text.len() + part.len())?;
                text.contains(&**part)
            }
            _ => return Err(EvalError::NoOverload(self.name(), first.type_name(), Some(second.type_name()))),
        }))
    }
}

/// Towards zero; `None` where it does not fit.
fn double_to_i64(n: f64) -> Option<i64> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    #[expect(clippy::cast_possible_truncation, reason = "in range, and the fraction is to go")]
    (n > -LIMIT && n < LIMIT).then_some(n as i64)
}

/// Towards zero; `None` where it does not fit.
fn double_to_u64(n: f64) -> Option<u64> {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "in range, and the fraction is to go"
    )]
    (0.0..LIMIT).contains(&n).then_some(n as u64)
}
