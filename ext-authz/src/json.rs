//! JSON in protobuf's `Struct`, both ways.
use envoy_types::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};

/// Integers up to this magnitude are all exact in a double: 2^53.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON object as a `Struct`; `None` when it holds an integer that a double cannot.
pub(crate) fn to_struct(object: serde_json::Map<String, serde_json::Value>) -> Option<Struct> {
    let fields =
        object.into_iter().map(|(name, value)| Some((name, to_value(value)?))).collect::<Option<_>>()?;
    Some(Struct { fields })
}

fn to_value(value: serde_json::Value) -> Option<Value> {
    let kind = match value {
        serde_json::Value::Null => Kind::NullValue(0),
        serde_json::Value::Bool(value) => Kind::BoolValue(value),
        serde_json::Value::Number(number) => Kind::NumberValue(exact(&number)?),
        serde_json::Value::String(text) => Kind::StringValue(text),
        serde_json::Value::Array(items) => {
            Kind::ListValue(ListValue { values: items.into_iter().map(to_value).collect::<Option<_>>()? })
        }
        serde_json::Value::Object(object) => Kind::StructValue(to_struct(object)?),
    };
    Some(Value { kind: Some(kind) })
}

/// The double that is this number; for integers only if no other integer has the same one.
pub(crate) fn exact(number: &serde_json::Number) -> Option<f64> {
    let double = number.as_f64().filter(|double| double.is_finite())?;
    (number.is_f64()
        || double.abs() < MAX_EXACT
        || number.as_i64().map(i64::unsigned_abs) == Some(1 << 53)
        || number.as_u64() == Some(1 << 53))
    .then_some(double)
}

/// A string in a `Value`.
pub(crate) fn string(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

/// A `Struct` as JSON. Integral numbers come out as integers, as protobuf's own JSON has them.
pub(crate) fn from_struct(object: &Struct) -> serde_json::Value {
    object.fields.iter().map(|(name, value)| (name.clone(), from_value(value))).collect()
}

fn from_value(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::NumberValue(double)) => from_double(*double),
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::ListValue(list)) => list.values.iter().map(from_value).collect(),
        Some(Kind::StructValue(object)) => from_struct(object),
    }
}

fn from_double(double: f64) -> serde_json::Value {
    if double.fract() == 0.0 && double.abs() <= MAX_EXACT {
        #[expect(clippy::cast_possible_truncation, reason = "integral, and its magnitude is at most 2^53")]
        let integer = double as i64;
        return integer.into();
    }
    // Infinities and NaN have no JSON: `null`.
    double.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(number: &str, expected: Option<f64>) {
        assert_eq!(exact(&serde_json::from_str(number).unwrap()), expected, "{number}");
    }

    #[test]
    fn exact_numbers() {
        check("0", Some(0.0));
        check("-7", Some(-7.0));
        check("1.5", Some(1.5));
        check("1e300", Some(1e300));
        check("9007199254740992", Some(9_007_199_254_740_992.0));
        check("-9007199254740992", Some(-9_007_199_254_740_992.0));
        check("9007199254740993", None);
        check("-9007199254740993", None);
        check("9007199254740994", None);
        check("18446744073709551615", None);
    }

    #[test]
    fn doubles_to_json() {
        for (double, expected) in [
            (3.0, "3"),
            (-3.0, "-3"),
            (0.25, "0.25"),
            (1e300, "1e+300"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            assert_eq!(from_double(double).to_string(), expected);
        }
    }

    #[test]
    fn everything_json_has_survives() {
        let value = json!({"a": [1, 2.5, "x", null, true, [], {}, [{"b": [[3]]}]], "": {"c": -1}});
        let object = value.as_object().unwrap().clone();
        assert_eq!(from_struct(&to_struct(object).unwrap()), value);
    }

    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            ".{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::hash_map(".{0,4}", inner, 0..6)
                    .prop_map(|object| object.into_iter().collect::<serde_json::Value>()),
            ]
        })
    }

    proptest! {
        #[test]
        fn there_and_back(value in any_json()) {
            let object = json!({"value": value});
            let converted = to_struct(object.as_object().unwrap().clone()).unwrap();
            prop_assert_eq!(from_struct(&converted), object);
        }
    }
}
