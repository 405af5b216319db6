//! `agentic-controller crds`.
use serde_json::{Number, Value};

/// The CustomResourceDefinitions as YAML documents, each after a `---`.
///
/// # Errors
/// A definition that cannot be written as YAML, which is a bug.
pub fn crd_yaml() -> anyhow::Result<String> {
    let mut text = String::new();
    for crd in policy_model::crd::crds() {
        let mut crd = serde_json::to_value(crd)?;
        whole_numbers(&mut crd);
        text.push_str("---\n");
        text.push_str(&serde_yaml_ng::to_string(&crd)?);
    }
    Ok(text)
}

/// Writes `65535` where the Kubernetes types, whose limits are floating-point numbers, have `65535.0`.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let text = format!("{number}");
            if let Some(whole) = text.strip_suffix(".0").and_then(|whole| whole.parse::<i64>().ok()) {
                *number = Number::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(fields) => fields.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_reads_back_as_the_four_definitions() {
        let text = crd_yaml().unwrap();
        let read: Vec<Value> = serde_yaml_ng::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).unwrap())
            .collect();
        let names: Vec<&str> = read.iter().map(|crd| crd["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "xaccesspolicies.agentic.networking.x-k8s.io",
                "xbackends.agentic.networking.x-k8s.io",
                "xaccesspolicies.agentic.prototype.x-k8s.io",
                "xbackends.agentic.prototype.x-k8s.io",
            ]
        );
        for (read, generated) in read.iter().zip(policy_model::crd::crds()) {
            let mut generated = serde_json::to_value(generated).unwrap();
            whole_numbers(&mut generated);
            assert_eq!(*read, generated);
        }
        assert_eq!(
            read[1]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["mcp"]
                ["properties"]["port"]["maximum"],
            json!(65535)
        );
    }

    #[test]
    fn only_whole_numbers_change() {
        let mut value = json!({"a": 1.0, "b": [0.5, 7, "1.0", -3.0], "c": 1e300});
        whole_numbers(&mut value);
        assert_eq!(value, json!({"a": 1, "b": [0.5, 7, "1.0", -3], "c": 1e300}));
    }

    #[test]
    fn the_command_prints_it() {
        let args = <crate::Args as clap::Parser>::try_parse_from(["agentic-controller", "crds"]).unwrap();
        let mut out = Vec::new();
        crate::run(&args, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), crd_yaml().unwrap());
    }
}
