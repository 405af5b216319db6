//! HTTPRoutes: the standard channel's type, and what a route says beyond it.
use std::collections::BTreeMap;

use gateway_api::httproutes::HttpRouteSpec;
use serde_json::{Map, Value};

use crate::objects::decode::{Decoded, FieldError, decode};

/// The filter types of the standard channel.
const FILTER_TYPES: [&str; 7] = [
    "RequestHeaderModifier",
    "ResponseHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "URLRewrite",
    "ExtensionRef",
    "CORS",
];

/// An HTTPRoute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Route {
    pub(crate) spec: HttpRouteSpec,
    /// By rule: filter types that the standard channel does not have. They are taken out of `spec`, and what they are on must fail.
    pub(crate) rule_filters: BTreeMap<usize, Vec<String>>,
    /// The same by rule and backendRef.
    pub(crate) backend_filters: BTreeMap<(usize, usize), Vec<String>>,
}

/// Decodes `spec`. Filters of unknown types do not fail it: only what they are on.
pub(crate) fn decode_route(spec: &Value) -> Result<Decoded<Route>, FieldError> {
    let mut spec = spec.clone();
    let mut rule_filters = BTreeMap::new();
    let mut backend_filters = BTreeMap::new();
    for (rule_index, rule) in objects_of(spec.get_mut("rules")) {
        take_unknown_filters(rule, |filter| {
            rule_filters.entry(rule_index).or_insert_with(Vec::new).push(filter)
        });
        for (index, backend) in objects_of(rule.get_mut("backendRefs")) {
            take_unknown_filters(backend, |filter| {
                backend_filters.entry((rule_index, index)).or_insert_with(Vec::new).push(filter);
            });
        }
    }
    let Decoded { value: spec, unknown } = decode::<HttpRouteSpec>(&spec, "spec")?;
    Ok(Decoded { value: Route { spec, rule_filters, backend_filters }, unknown })
}

fn objects_of(list: Option<&mut Value>) -> impl Iterator<Item = (usize, &mut Map<String, Value>)> {
    let items = list.and_then(Value::as_array_mut).into_iter().flatten().enumerate();
    items.filter_map(|(index, item)| Some((index, item.as_object_mut()?)))
}

fn take_unknown_filters(holder: &mut Map<String, Value>, mut found: impl FnMut(String)) {
    let Some(filters) = holder.get_mut("filters").and_then(Value::as_array_mut) else { return };
    filters.retain(|filter| match filter.get("type").and_then(Value::as_str) {
        Some(kind) if !FILTER_TYPES.contains(&kind) => {
            found(kind.to_owned());
            false
        }
        _ => true,
    });
}
