//! Equality and order of values, numbers of different types compared by their mathematical value.
use std::cmp::Ordering;

use super::{
    arguments::Json,
    eval::Budget,
    value::{EvalError, Value},
};

/// The first double above every i64: 2^63.
const TWO_63: f64 = 9_223_372_036_854_775_808.0;
/// The first double above every u64: 2^64.
const TWO_64: f64 = 18_446_744_073_709_551_616.0;

fn int_double(int: i64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        None
    } else if double >= TWO_63 {
        Some(Ordering::Less)
    } else if double < -TWO_63 {
        Some(Ordering::Greater)
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "the integral part is in range, checked above")]
        let whole = double.trunc() as i64;
        Some(int.cmp(&whole).then_with(|| {
            // Equal integral parts: the fraction decides.
            0.0_f64.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)
        }))
    }
}

fn uint_double(uint: u64, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        None
    } else if double >= TWO_64 {
        Some(Ordering::Less)
    } else if double < 0.0 {
        Some(Ordering::Greater)
    } else {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the integral part is in range, checked above"
        )]
        let whole = double.trunc() as u64;
        Some(uint.cmp(&whole).then_with(|| 0.0_f64.partial_cmp(&double.fract()).unwrap_or(Ordering::Equal)))
    }
}

fn int_uint(int: i64, uint: u64) -> Ordering {
    u64::try_from(int).map_or(Ordering::Less, |int| int.cmp(&uint))
}

/// The order of two numbers; `None` for NaN and for what is no number (see the outer `Option`).
fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Option<Ordering>> {
    Some(match (left, right) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::UInt(a), Value::UInt(b)) => Some(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Int(a), Value::UInt(b)) => Some(int_uint(*a, *b)),
        (Value::UInt(a), Value::Int(b)) => Some(int_uint(*b, *a).reverse()),
        (Value::Int(a), Value::Double(b)) => int_double(*a, *b),
        (Value::Double(a), Value::Int(b)) => int_double(*b, *a).map(Ordering::reverse),
        (Value::UInt(a), Value::Double(b)) => uint_double(*a, *b),
        (Value::Double(a), Value::UInt(b)) => uint_double(*b, *a).map(Ordering::reverse),
        _ => return None,
    })
}

/// `<`, `<=`, `>`, `>=`. The inner `None` is NaN: every comparison is false.
pub(super) fn compare<'v>(
    operator: &'static str,
    left: &Value<'v>,
    right: &Value<'v>,
    budget: &Budget,
) -> Result<Option<Ordering>, EvalError<'v>> {
    if let Some(order) = numbers(left, right) {
        return Ok(order);
    }
    Ok(Some(match (left, right) {
        (Value::Str(a), Value::Str(b)) => {
            budget.text(a.len().min(b.len()))?;
            (**a).cmp(&**b)
        }
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) | (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        _ => return Err(EvalError::NoOverload(operator, left.type_name(), Some(right.type_name()))),
    }))
}

/// `==`: values of different types (other than numbers) are different.
pub(super) fn equal<'v>(left: &Value<'v>, right: &Value<'v>, budget: &Budget) -> Result<bool, EvalError<'v>> {
    budget.step()?;
    if let Some(order) = numbers(left, right) {
        return Ok(order == Some(Ordering::Equal));
    }
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Str(a), Value::Str(b)) => {
            if a.len() == b.len() {
                budget.text(a.len())?;
            }
            Ok(a == b)
        }
        (Value::Timestamp(a), Value::Timestamp(b)) | (Value::Duration(a), Value::Duration(b)) => Ok(a == b),
        (Value::Headers, _) | (_, Value::Headers) => {
            Err(EvalError::NoOverload("==", left.type_name(), Some(right.type_name())))
        }
        _ => match (list_len(left), list_len(right)) {
            (Some(a), Some(b)) => {
                if a != b {
                    return Ok(false);
                }
                for index in 0..a {
                    let (Some(x), Some(y)) = (element(left, index), element(right, index)) else {
                        return Ok(false);
                    };
                    if !equal(&x, &y, budget)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (None, None) => equal_maps(left, right, budget),
            _ => Ok(false),
        },
    }
}

fn equal_maps<'v>(left: &Value<'v>, right: &Value<'v>, budget: &Budget) -> Result<bool, EvalError<'v>> {
    let (Some(a), Some(b)) = (map_len(left), map_len(right)) else { return Ok(false) };
    if a != b {
        return Ok(false);
    }
    for index in 0..a {
        let Some((key, value)) = entry(left, index) else { return Ok(false) };
        match lookup(right, &key, budget)? {
            Some(other) if equal(&value, &other, budget)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The length of a list; `None` for what is no list.
pub(super) fn list_len(value: &Value<'_>) -> Option<usize> {
    match value {
        Value::Literals(list) => Some(list.len()),
        Value::List(list) => Some(list.len()),
        Value::Json(Json::List(list)) => Some(list.len()),
        _ => None,
    }
}

/// An element of a list.
pub(super) fn element<'v>(value: &Value<'v>, index: usize) -> Option<Value<'v>> {
    match value {
        Value::Literals(list) => list.get(index).map(Value::of_literal),
        Value::List(list) => list.get(index).cloned(),
        Value::Json(Json::List(list)) => list.get(index).map(Value::of_json),
        _ => None,
    }
}

/// The number of entries of a map (other than the headers); `None` for what is no map.
pub(super) fn map_len(value: &Value<'_>) -> Option<usize> {
    match value {
        Value::Map(map) => Some(map.len()),
        Value::Json(Json::Map(map)) => Some(map.len()),
        _ => None,
    }
}

/// The key and value of an entry of a map.
pub(super) fn entry<'v>(value: &Value<'v>, index: usize) -> Option<(Value<'v>, Value<'v>)> {
    match value {
        Value::Map(map) => map.get(index).cloned(),
        Value::Json(Json::Map(map)) => {
            map.get(index).map(|(key, value)| (Value::str(key), Value::of_json(value)))
        }
        _ => None,
    }
}

/// The value of a key in a map (other than the headers).
pub(super) fn lookup<'v>(
    map: &Value<'v>,
    key: &Value<'v>,
    budget: &Budget,
) -> Result<Option<Value<'v>>, EvalError<'v>> {
    match map {
        Value::Json(Json::Map(entries)) => {
            let Value::Str(key) = key else { return Ok(None) };
            budget.items(entries.len())?;
            Ok(entries.iter().find(|(name, _)| **name == **key).map(|(_, value)| Value::of_json(value)))
        }
        Value::Map(entries) => {
            for (name, value) in entries.iter() {
                if equal(name, key, budget)? {
                    return Ok(Some(value.clone()));
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}
