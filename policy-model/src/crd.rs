//! The custom resources as an API server knows them.
#[expect(unreachable_pub, reason = "the KubeSchema derive repeats the types inside a function")]
#[expect(clippy::duplicated_attributes, reason = "columns of one type")]
mod backend;
#[expect(unreachable_pub, reason = "the KubeSchema derive repeats the types inside a function")]
#[expect(clippy::duplicated_attributes, reason = "columns of one type")]
mod policy;
#[expect(unreachable_pub, reason = "the KubeSchema derive repeats the types inside a function")]
mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt as _;

pub use self::backend::{McpBackend, XBackend, XBackendSpec, XBackendStatus};
pub use self::policy::{
    AccessRule, ActionType, AuthBackendRef, AuthProtocol, Authorization, AuthorizationType,
    BaseProtocolOption, Cel, ExternalAuth, ForwardBody, GrpcAuth, HeaderMatch, HeaderMatchType, HttpAuth,
    HttpMethod, Mcp, McpMethod, McpMethodName, PathMatch, PathMatchType, ServiceAccountSource, Source,
    SourceType, TargetRef, XAccessPolicy, XAccessPolicySpec,
};
pub use self::status::{AncestorRef, ConditionStatus, PolicyAncestorStatus, PolicyStatus, StatusCondition};
use crate::model::AgenticGroup;

/// The definitions of XAccessPolicy and XBackend in both groups.
///
/// Every version of XAccessPolicy has the same schema: an object is stored in one version and read back in any, so a
/// field that a version's schema lacked would be lost.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let policy = structural(XAccessPolicy::crd());
    let backend = structural(XBackend::crd());
    vec![
        served_as(&policy, AgenticGroup::Networking, &["v0alpha0", "v1alpha1"]),
        served_as(&backend, AgenticGroup::Networking, &["v0alpha0"]),
        served_as(&policy, AgenticGroup::Prototype, &["v0alpha0"]),
        served_as(&backend, AgenticGroup::Prototype, &["v0alpha0"]),
    ]
}

/// The definition under a group and with these versions, of which the last is stored.
fn served_as(
    crd: &CustomResourceDefinition,
    group: AgenticGroup,
    versions: &[&str],
) -> CustomResourceDefinition {
    let mut crd = crd.clone();
    crd.metadata.name = Some(format!("{}.{}", crd.spec.names.plural, group.name()));
    group.name().clone_into(&mut crd.spec.group);
    let template = crd.spec.versions.first().cloned();
    crd.spec.versions = versions
        .iter()
        .filter_map(|name| {
            Some(CustomResourceDefinitionVersion {
                name: (*name).to_owned(),
                served: true,
                storage: Some(name) == versions.last(),
                ..template.clone()?
            })
        })
        .collect();
    crd
}

/// Takes out of a derived schema what an API server refuses or what would let `null` stand for an absent field.
fn structural(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            tidy(schema);
        }
    }
    crd
}

fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.additional_properties = None;
    schema.title = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    for child in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(child);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
}
