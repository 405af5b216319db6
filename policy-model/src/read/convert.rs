//! From the API's shapes to the neutral model. What the schema's rules promise is asked again here: a promise that
//! does not hold is an error, never a guess.
use jiff::Timestamp as Time;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{namespace_of, target_kind};
use crate::crd::{
    AccessRule, ActionType, AuthProtocol, Authorization, AuthorizationType, BaseProtocolOption,
    ExternalAuth as WireExternalAuth, HeaderMatchType, PathMatchType, Source as WireSource, SourceType,
    TargetRef, XAccessPolicySpec, XBackendSpec,
};
use crate::model::{
    Action, AgenticGroup, AuthorizerProtocol, BackendAddress, Condition, Dialect, ExternalAuth, HeaderMatch,
    HostMatch, HttpMethod, Inline, McpMatch, McpMethodMatch, NamespacedName, PathMatch, Policy, PolicyKey,
    Rule, ServiceRef, Source, StringMatch, Target, Timestamp, XBackend,
};
use crate::schema::Violation;

pub(super) fn policy(object: &Value, group: AgenticGroup) -> Result<Policy, Vec<Violation>> {
    let spec: XAccessPolicySpec = spec(object)?;
    let metadata = metadata(object)?;
    policy_of(spec, metadata, group).map_err(|violation| vec![violation])
}

pub(super) fn backend(object: &Value, group: AgenticGroup) -> Result<XBackend, Vec<Violation>> {
    let spec: XBackendSpec = spec(object)?;
    let metadata = metadata(object)?;
    let address = match (spec.mcp.service_name, spec.mcp.hostname) {
        (Some(service), None) => BackendAddress::Service(service),
        (None, Some(hostname)) => BackendAddress::Hostname(hostname),
        _ => {
            return Err(vec![Violation::new(
                "spec.mcp",
                "exactly one of serviceName and hostname must be set",
            )]);
        }
    };
    Ok(XBackend {
        object: metadata.object,
        group,
        generation: metadata.generation,
        created: metadata.created,
        address,
        port: port(spec.mcp.port, "spec.mcp.port").map_err(|violation| vec![violation])?,
        path: spec.mcp.path,
    })
}

struct Metadata {
    object: NamespacedName,
    generation: Option<i64>,
    created: Option<Timestamp>,
}

fn metadata(object: &Value) -> Result<Metadata, Vec<Violation>> {
    let fault = |path: &str, message: &str| vec![Violation::new(path, message)];
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    let created = match object.pointer("/metadata/creationTimestamp") {
        None | Some(Value::Null) => None,
        Some(time) => Some(
            time.as_str()
                .and_then(|time| time.parse::<Time>().ok())
                .map(|time| Timestamp(time.as_second()))
                .ok_or_else(|| fault("metadata.creationTimestamp", "must be an RFC 3339 time"))?,
        ),
    };
    Ok(Metadata {
        object: NamespacedName::new(
            namespace_of(object),
            name.ok_or_else(|| fault("metadata.name", "required"))?,
        ),
        generation: object.pointer("/metadata/generation").and_then(Value::as_i64),
        created,
    })
}

fn spec<T: DeserializeOwned>(object: &Value) -> Result<T, Vec<Violation>> {
    let spec = object.get("spec").ok_or_else(|| vec![Violation::new("spec", "required")])?;
    T::deserialize(spec).map_err(|error| vec![Violation::new("spec", error.to_string())])
}

fn policy_of(spec: XAccessPolicySpec, metadata: Metadata, group: AgenticGroup) -> Result<Policy, Violation> {
    let namespace = metadata.object.namespace.clone();
    let dialect = if spec.action.is_some() { Dialect::V1Alpha1 } else { Dialect::V0Alpha0 };
    let action = match (spec.action, spec.external_auth) {
        (None | Some(ActionType::Allow), None) => Action::Allow,
        (Some(ActionType::ExternalAuth), Some(authorizer)) => {
            Action::ExternalAuth(external_auth(authorizer, &namespace, "spec.externalAuth")?)
        }
        (Some(ActionType::ExternalAuth), None) => {
            return Err(Violation::new(
                "spec",
                "externalAuth must be specified when action is set to 'ExternalAuth'",
            ));
        }
        (None | Some(ActionType::Allow), Some(_)) => {
            return Err(Violation::new(
                "spec",
                "externalAuth may only be specified when action is set to 'ExternalAuth'",
            ));
        }
    };
    let rules = spec.rules.unwrap_or_default();
    if dialect == Dialect::V0Alpha0 && rules.is_empty() {
        return Err(Violation::new("spec", "rules must be specified when action is not set"));
    }
    let targets = spec
        .target_refs
        .into_iter()
        .enumerate()
        .map(|(index, reference)| target(reference, &namespace, index));
    let rules = rules
        .into_iter()
        .enumerate()
        .map(|(index, one)| rule(one, dialect, &namespace, &format!("spec.rules[{index}]")));
    Ok(Policy {
        targets: targets.collect::<Result<_, _>>()?,
        rules: rules.collect::<Result<_, _>>()?,
        key: PolicyKey { namespace: metadata.object.namespace, name: metadata.object.name, group },
        created: metadata.created,
        generation: metadata.generation,
        dialect,
        action,
    })
}

fn target(reference: TargetRef, namespace: &str, index: usize) -> Result<Target, Violation> {
    let Some(kind) = target_kind(&reference.group, &reference.kind) else {
        return Err(Violation::new(format!("spec.targetRefs[{index}]"), "must be an XBackend or a Gateway"));
    };
    Ok(Target {
        kind,
        object: NamespacedName::new(namespace, reference.name),
        section_name: reference.section_name,
    })
}

fn rule(rule: AccessRule, dialect: Dialect, namespace: &str, path: &str) -> Result<Rule, Violation> {
    let source = match (rule.source, dialect) {
        (Some(given), _) => source(given, namespace, path)?,
        (None, Dialect::V1Alpha1) => Source::Anyone,
        (None, Dialect::V0Alpha0) => {
            return Err(Violation::new(format!("{path}.source"), "required when action is not set"));
        }
    };
    let condition = match (rule.authorization, dialect) {
        (None, Dialect::V0Alpha0) => Condition::NotToolCall,
        (None, Dialect::V1Alpha1) => Condition::Anything,
        (Some(given), dialect) => condition(given, dialect, namespace, &format!("{path}.authorization"))?,
    };
    Ok(Rule { name: rule.name, source, condition })
}

fn source(source: WireSource, namespace: &str, path: &str) -> Result<Source, Violation> {
    match (source.kind, source.service_account, source.spiffe) {
        (SourceType::ServiceAccount, Some(account), None) => {
            let namespace = account.namespace.unwrap_or_else(|| namespace.to_owned());
            Ok(Source::ServiceAccount(NamespacedName::new(namespace, account.name)))
        }
        (SourceType::Spiffe, None, Some(id)) => Ok(Source::Spiffe(id)),
        _ => Err(Violation::new(format!("{path}.source"), "must have the one value that its type names")),
    }
}

fn condition(
    given: Authorization,
    dialect: Dialect,
    namespace: &str,
    path: &str,
) -> Result<Condition, Violation> {
    let kind = given.kind;
    let Authorization {
        tools,
        external_auth: authorizer,
        cel,
        methods,
        paths,
        headers,
        hosts,
        ports,
        mcp,
        ..
    } = given;
    let message = cel.as_ref().is_some_and(|cel| cel.message.is_some());
    let expression = cel.map(|cel| cel.expression);
    let any_inline = methods.is_some()
        || paths.is_some()
        || headers.is_some()
        || hosts.is_some()
        || ports.is_some()
        || mcp.is_some();
    let inline = Inline {
        methods: methods.map(|methods| {
            methods.into_iter().map(|method| HttpMethod(method.as_str().to_owned())).collect()
        }),
        paths: paths.map(|paths| paths.into_iter().map(path_match).collect()),
        headers: headers.map(|headers| headers.into_iter().map(header_match).collect()),
        hosts: hosts.map(|hosts| hosts.iter().map(|host| host_match(host)).collect()),
        ports: ports
            .map(|ports| {
                ports
                    .into_iter()
                    .map(|number| port(number, &format!("{path}.ports")))
                    .collect::<Result<_, _>>()
            })
            .transpose()?,
        mcp: mcp.map(mcp_match),
    };
    match (dialect, kind, tools, authorizer, expression, any_inline) {
        (Dialect::V0Alpha0, AuthorizationType::InlineTools, Some(tools), None, None, false) => {
            Ok(if tools.is_empty() { Condition::NotToolCall } else { Condition::Tools(tools) })
        }
        (Dialect::V0Alpha0, AuthorizationType::ExternalAuth, None, Some(authorizer), None, false) => Ok(
            Condition::ExternalAuth(external_auth(authorizer, namespace, &format!("{path}.externalAuth"))?),
        ),
        (Dialect::V0Alpha0, AuthorizationType::Cel, None, None, Some(expression), false) => {
            Ok(Condition::Cel { expression, inline: None })
        }
        (Dialect::V1Alpha1, AuthorizationType::Cel, None, None, Some(expression), any) if !message => {
            Ok(Condition::Cel { expression, inline: any.then(|| Box::new(inline)) })
        }
        (Dialect::V1Alpha1, AuthorizationType::Inline, None, None, None, _) => {
            Ok(Condition::Inline(Box::new(inline)))
        }
        _ => Err(Violation::new(path, "must have the fields that its type names, and no others")),
    }
}

fn path_match(path: crate::crd::PathMatch) -> PathMatch {
    match path.kind {
        PathMatchType::Exact => PathMatch::Exact(path.value),
        PathMatchType::PathPrefix => PathMatch::Prefix(path.value),
        PathMatchType::RegularExpression => PathMatch::Regex(path.value),
    }
}

fn header_match(header: crate::crd::HeaderMatch) -> HeaderMatch {
    let value = match header.kind {
        HeaderMatchType::Exact => StringMatch::Exact(header.value),
        HeaderMatchType::RegularExpression => StringMatch::Regex(header.value),
    };
    HeaderMatch { name: header.name.to_ascii_lowercase(), value }
}

fn host_match(host: &str) -> HostMatch {
    let host = host.to_ascii_lowercase();
    match host.strip_prefix("*.") {
        Some(suffix) => HostMatch::Wildcard(suffix.to_owned()),
        None => HostMatch::Exact(host),
    }
}

fn mcp_match(mcp: crate::crd::Mcp) -> McpMatch {
    let method = |method: crate::crd::McpMethod| McpMethodMatch {
        name: method.name.as_str().to_owned(),
        params: method.params,
    };
    McpMatch {
        match_base_protocol: mcp.mcp_base_protocol_methods_option
            == BaseProtocolOption::MatchBaseProtocolMethods,
        methods: mcp.methods.map(|methods| methods.into_iter().map(method).collect()),
    }
}

fn external_auth(auth: WireExternalAuth, namespace: &str, path: &str) -> Result<ExternalAuth, Violation> {
    let protocol = match (auth.protocol, auth.grpc, auth.http) {
        (AuthProtocol::Grpc, Some(grpc), None) => AuthorizerProtocol::Grpc {
            // Gateway API: an empty list is all headers too.
            allowed_headers: grpc.allowed_headers.map(header_names).filter(|names| !names.is_empty()),
        },
        (AuthProtocol::Http, None, Some(http)) => AuthorizerProtocol::Http {
            path: http.path.unwrap_or_default(),
            allowed_headers: http.allowed_headers.map(header_names).unwrap_or_default(),
            allowed_response_headers: http.allowed_response_headers.map(header_names).unwrap_or_default(),
        },
        _ => return Err(Violation::new(path, "must have the settings of its protocol, and no others")),
    };
    let reference = auth.backend_ref;
    let reference_port =
        reference.port.map(|number| port(number, &format!("{path}.backendRef.port"))).transpose()?;
    let size = auth.forward_body.and_then(|body| body.max_size).unwrap_or_default();
    let size = u32::try_from(size)
        .map_err(|_error| Violation::new(format!("{path}.forwardBody.maxSize"), "must not be negative"))?;
    Ok(ExternalAuth {
        backend: ServiceRef {
            group: reference.group,
            kind: reference.kind,
            object: NamespacedName::new(
                reference.namespace.unwrap_or_else(|| namespace.to_owned()),
                reference.name,
            ),
            port: reference_port,
        },
        protocol,
        forward_body: Some(size).filter(|size| *size > 0),
    })
}

/// Header names in lower case, each once, in the order given.
fn header_names(names: Vec<String>) -> Vec<String> {
    let mut lower: Vec<String> = Vec::with_capacity(names.len());
    for name in names.into_iter().map(|name| name.to_ascii_lowercase()) {
        if !lower.contains(&name) {
            lower.push(name);
        }
    }
    lower
}

fn port(number: i32, path: &str) -> Result<u16, Violation> {
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Violation::new(path, "must be 1 to 65535")),
    }
}
