//! A policy as an object of the API.
use std::collections::BTreeSet;

use policy_model::{
    Action, AgenticGroup, AuthorizerProtocol, Condition, Dialect, ExternalAuth, HeaderMatch, HostMatch,
    Inline, McpMatch, PathMatch, Policy, Rule, Source, StringMatch, Target, TargetKind,
};
use serde_json::{Map, Value, json};

use crate::words::account;

/// The policy as an API server would store it: what the CRD's validation refuses is mended. Of equal entries of a set one is
/// left, of several ExternalAuth rules the first; in the v0alpha0 shape, where a rule must name somebody, anyone becomes
/// `agent`; a target in another namespace becomes one of the policy's own that is not there.
pub fn storable(mut policy: Policy) -> Policy {
    for target in &mut policy.targets {
        if target.object.namespace != policy.key.namespace {
            target.object.namespace.clone_from(&policy.key.namespace);
            target.object.name.push_str("-elsewhere");
        }
    }
    let mut asks = false;
    for rule in &mut policy.rules {
        if policy.dialect == Dialect::V0Alpha0 && rule.source == Source::Anyone {
            rule.source = account("agent");
        }
        match &mut rule.condition {
            condition @ Condition::ExternalAuth(_) if asks => *condition = Condition::NotToolCall,
            Condition::ExternalAuth(_) => asks = true,
            Condition::Tools(tools) => unique(tools, String::clone),
            Condition::Inline(inline) => storable_inline(inline),
            Condition::Cel { inline, .. } => {
                inline.iter_mut().for_each(|inline| storable_inline(inline));
                // Nothing given is the same as none.
                inline.take_if(|inline| **inline == Inline::default());
            }
            Condition::Anything | Condition::NotToolCall => {}
        }
    }
    policy
}

fn unique<T, K: Ord>(list: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = BTreeSet::new();
    list.retain(|one| seen.insert(key(one)));
}

fn storable_inline(inline: &mut Inline) {
    let Inline { methods, paths: _, headers: _, hosts, ports, mcp } = inline;
    methods.iter_mut().for_each(|methods| unique(methods, |method| method.0.clone()));
    hosts.iter_mut().for_each(|hosts| unique(hosts, host));
    ports.iter_mut().for_each(|ports| unique(ports, |port| *port));
    for methods in mcp.iter_mut().filter_map(|mcp| mcp.methods.as_mut()) {
        unique(methods, |method| method.name.clone());
        for method in methods {
            let takes_params = ["get", "call", "subscribe", "unsubscribe", "read"]
                .iter()
                .any(|last| method.name.ends_with(&format!("/{last}")));
            method.params.take_if(|_| !takes_params);
            method.params.iter_mut().for_each(|params| unique(params, String::clone));
        }
    }
}

/// The object. What can be written in two ways is written in both, by turns.
pub fn manifest(policy: &Policy) -> Value {
    let version = match (policy.key.group, policy.dialect) {
        (AgenticGroup::Networking, Dialect::V1Alpha1) => "v1alpha1",
        (AgenticGroup::Prototype, _) | (_, Dialect::V0Alpha0) => "v0alpha0",
    };
    let mut metadata = json!({"name": policy.key.name, "namespace": policy.key.namespace});
    if let Some(created) = policy.created {
        // Of the first minute.
        metadata["creationTimestamp"] = json!(format!("1970-01-01T00:00:{:02}Z", created.0));
    }
    if let Some(generation) = policy.generation {
        metadata["generation"] = json!(generation);
    }
    let targets: Vec<Value> =
        policy.targets.iter().enumerate().map(|(turn, target)| target_ref(target, turn)).collect();
    let mut spec = json!({"targetRefs": targets});
    match (&policy.action, policy.dialect) {
        (Action::ExternalAuth(auth), _) => {
            spec["action"] = json!("ExternalAuth");
            spec["externalAuth"] = external_auth(auth);
        }
        (Action::Allow, Dialect::V1Alpha1) => spec["action"] = json!("Allow"),
        (Action::Allow, Dialect::V0Alpha0) => {}
    }
    let rules: Vec<Value> = policy.rules.iter().enumerate().map(|(turn, rule)| of_rule(rule, turn)).collect();
    if !rules.is_empty() || policy.targets.len() > 1 {
        spec["rules"] = json!(rules);
    }
    json!({
        "apiVersion": format!("{}/{version}", policy.key.group.name()),
        "kind": "XAccessPolicy",
        "metadata": metadata,
        "spec": spec,
    })
}

fn target_ref(target: &Target, turn: usize) -> Value {
    let group = match target.kind {
        TargetKind::Gateway => "gateway.networking.k8s.io",
        TargetKind::XBackend if turn.is_multiple_of(2) => AgenticGroup::Networking.name(),
        TargetKind::XBackend => AgenticGroup::Prototype.name(),
    };
    let kind = match target.kind {
        TargetKind::Gateway => "Gateway",
        TargetKind::XBackend => "XBackend",
    };
    let mut reference = json!({"group": group, "kind": kind, "name": target.object.name});
    if let Some(section) = &target.section_name {
        reference["sectionName"] = json!(section);
    }
    reference
}

fn of_rule(rule: &Rule, turn: usize) -> Value {
    let mut object = json!({"name": rule.name});
    match &rule.source {
        Source::Anyone => {}
        Source::Spiffe(id) => object["source"] = json!({"type": "SPIFFE", "spiffe": id}),
        Source::ServiceAccount(account) => {
            let account = json!({"name": account.name, "namespace": account.namespace});
            object["source"] = json!({"type": "ServiceAccount", "serviceAccount": account});
        }
    }
    let authorization = match &rule.condition {
        Condition::Anything => None,
        Condition::NotToolCall if turn.is_multiple_of(2) => None,
        Condition::NotToolCall => Some(json!({"type": "InlineTools", "tools": []})),
        Condition::Tools(tools) => Some(json!({"type": "InlineTools", "tools": tools})),
        Condition::ExternalAuth(auth) => {
            Some(json!({"type": "ExternalAuth", "externalAuth": external_auth(auth)}))
        }
        Condition::Cel { expression, inline } => {
            let mut parts = inline.as_ref().map(|inline| of_inline(inline)).unwrap_or_default();
            parts.insert("type".to_owned(), json!("CEL"));
            parts.insert("cel".to_owned(), json!({"expression": expression}));
            Some(Value::Object(parts))
        }
        Condition::Inline(inline) => {
            let mut parts = of_inline(inline);
            parts.insert("type".to_owned(), json!("Inline"));
            Some(Value::Object(parts))
        }
    };
    if let Some(authorization) = authorization {
        object["authorization"] = authorization;
    }
    object
}

fn of_inline(inline: &Inline) -> Map<String, Value> {
    let Inline { methods, paths, headers, hosts, ports, mcp } = inline;
    let parts = [
        ("methods", methods.as_ref().map(|list| list.iter().map(|method| json!(method.0)).collect())),
        ("paths", paths.as_ref().map(|list| list.iter().map(path).collect())),
        ("headers", headers.as_ref().map(|list| list.iter().map(header).collect())),
        ("hosts", hosts.as_ref().map(|list| list.iter().map(|one| json!(host(one))).collect())),
        ("ports", ports.as_ref().map(|list| list.iter().map(|port| json!(port)).collect())),
        ("mcp", mcp.as_ref().map(of_mcp)),
    ];
    parts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn path(path: &PathMatch) -> Value {
    match path {
        PathMatch::Exact(value) => json!({"type": "Exact", "value": value}),
        PathMatch::Prefix(value) => json!({"value": value}),
        PathMatch::Regex(value) => json!({"type": "RegularExpression", "value": value}),
    }
}

fn header(header: &HeaderMatch) -> Value {
    match &header.value {
        StringMatch::Exact(value) => json!({"name": header.name.to_ascii_uppercase(), "value": value}),
        StringMatch::Regex(value) => {
            json!({"name": header.name, "type": "RegularExpression", "value": value})
        }
    }
}

fn host(host: &HostMatch) -> String {
    match host {
        HostMatch::Exact(name) => name.clone(),
        HostMatch::Wildcard(suffix) => format!("*.{suffix}"),
    }
}

fn of_mcp(mcp: &McpMatch) -> Value {
    let mut object = json!({});
    if mcp.match_base_protocol {
        object["mcpBaseProtocolMethodsOption"] = json!("MATCH_BASE_PROTOCOL_METHODS");
    }
    if let Some(methods) = &mcp.methods {
        let methods = methods.iter().map(|method| match &method.params {
            None => json!({"name": method.name}),
            Some(params) => json!({"name": method.name, "params": params}),
        });
        object["methods"] = methods.collect();
    }
    object
}

fn external_auth(auth: &ExternalAuth) -> Value {
    let service = &auth.backend;
    let mut reference = json!({"name": service.object.name, "namespace": service.object.namespace});
    if !service.group.is_empty() || service.kind != "Service" {
        reference["group"] = json!(service.group);
        reference["kind"] = json!(service.kind);
    }
    if let Some(port) = service.port {
        reference["port"] = json!(port);
    }
    let mut object = match &auth.protocol {
        AuthorizerProtocol::Grpc { allowed_headers: None } => json!({"protocol": "GRPC", "grpc": {}}),
        AuthorizerProtocol::Grpc { allowed_headers: Some(names) } => {
            json!({"protocol": "GRPC", "grpc": {"allowedHeaders": names}})
        }
        AuthorizerProtocol::Http { path, allowed_headers, allowed_response_headers } => json!({
            "protocol": "HTTP",
            "http": {
                "path": path,
                "allowedHeaders": allowed_headers,
                "allowedResponseHeaders": allowed_response_headers,
            },
        }),
    };
    object["backendRef"] = reference;
    if let Some(size) = auth.forward_body {
        object["forwardBody"] = json!({"maxSize": size});
    }
    object
}

#[cfg(test)]
mod tests {
    use authz_core::PolicyEntry;
    use policy_model::read_policy;
    use proptest::prelude::*;

    use super::*;
    use crate::any_policies;

    proptest! {
        #[test]
        fn what_is_printed_is_read_as_it_was(entries in any_policies(Just("true"))) {
            for entry in entries {
                let PolicyEntry::Policy { policy, .. } = entry else { continue };
                let policy = storable(policy);
                prop_assert_eq!(read_policy(&manifest(&policy)).unwrap(), policy);
            }
        }
    }
}
