//! YAML (or JSON) text to JSON values, one per document, as `kubectl` would send them.
use serde::Deserialize;
use serde_json::{Map, Number, Value};
use serde_yaml_ng as yaml;

/// One document: its number from 1, and what it holds.
pub(super) struct Document {
    pub(super) number: usize,
    pub(super) content: Result<Value, String>,
}

/// All documents of a text that are not empty. Duplicate keys, tags and values that JSON has no form for are refused.
pub(super) fn documents(text: &str) -> Vec<Document> {
    if let Some(documents) = json_documents(text) {
        return documents;
    }
    let mut documents = Vec::new();
    for (index, document) in yaml::Deserializer::from_str(text).enumerate() {
        let content = match yaml::Value::deserialize(document) {
            Ok(yaml::Value::Null) => continue,
            Ok(mut value) => {
                value.apply_merge().map_err(|error| error.to_string()).and_then(|()| to_json(value))
            }
            Err(error) => Err(error.to_string()),
        };
        // After an error of syntax the reader does not get further: it would repeat the error without end.
        let is_last = content.is_err();
        documents.push(Document { number: index + 1, content });
        if is_last {
            break;
        }
    }
    documents
}

/// The text as a stream of JSON values, if it is one. JSON's string escapes are not all YAML's, so JSON is read as JSON.
fn json_documents(text: &str) -> Option<Vec<Document>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    // By way of the YAML value, whose mapping refuses duplicate keys.
    let values: Result<Vec<yaml::Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
    let documents = values.ok()?.into_iter().enumerate();
    Some(documents.map(|(index, value)| Document { number: index + 1, content: to_json(value) }).collect())
}

fn to_json(value: yaml::Value) -> Result<Value, String> {
    Ok(match value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(value) => Value::Bool(value),
        yaml::Value::Number(number) => Value::Number(to_json_number(&number)?),
        yaml::Value::String(value) => Value::String(value),
        yaml::Value::Sequence(items) => {
            Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?)
        }
        yaml::Value::Mapping(mapping) => {
            let mut object = Map::new();
            for (key, value) in mapping {
                let key = to_json_key(key)?;
                if object.contains_key(&key) {
                    return Err(format!("the key `{key}` is given twice; keep one"));
                }
                object.insert(key, to_json(value)?);
            }
            Value::Object(object)
        }
        yaml::Value::Tagged(tagged) => {
            return Err(format!("the YAML tag `{}` is not supported; remove it", tagged.tag));
        }
    })
}

fn to_json_number(number: &yaml::Number) -> Result<Number, String> {
    let exact = number.as_i64().map(Number::from).or_else(|| number.as_u64().map(Number::from));
    exact
        .or_else(|| number.as_f64().and_then(Number::from_f64))
        .ok_or_else(|| format!("`{number}` is no JSON number; quote it or write a finite number"))
}

fn to_json_key(key: yaml::Value) -> Result<String, String> {
    match key {
        yaml::Value::String(key) => Ok(key),
        yaml::Value::Bool(key) => Ok(key.to_string()),
        yaml::Value::Number(key) => Ok(key.to_string()),
        _ => Err("a key is neither a string nor a scalar; quote it".to_owned()),
    }
}
