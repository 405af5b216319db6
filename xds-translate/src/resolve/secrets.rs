//! The Secrets that Gateways of ours name.
use std::collections::BTreeSet;

use policy_model::NamespacedName;

use super::{
    Options, gateway,
    grant::{From, Grants, To},
};
use crate::{Objects, objects::rules::is_dns_name};

/// The Secrets that listeners of Gateways of ours name and may use: of their own namespace, or permitted by a ReferenceGrant.
/// Whoever may not list Secrets fetches these one by one.
pub fn named_secrets(objects: &Objects, options: &Options) -> BTreeSet<NamespacedName> {
    let grants = Grants::new(objects);
    let classes = gateway::classes(objects, options, &mut Vec::new());
    let mut secrets = BTreeSet::new();
    for (gateway, entry) in &objects.gateways {
        let Ok(spec) = &entry.spec else { continue };
        if !classes.contains(spec.gateway_class_name.as_str()) {
            continue;
        }
        let tls = spec.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        for reference in tls.flat_map(|tls| tls.certificate_refs.iter().flatten()) {
            let is_secret = reference.group.as_deref().unwrap_or_default().is_empty()
                && reference.kind.as_deref().unwrap_or("Secret") == "Secret";
            let namespace = reference.namespace.as_deref().unwrap_or(&gateway.namespace);
            let name = NamespacedName::new(namespace, &reference.name);
            // The API server takes any text for a name; one that no Secret can have is not asked for: it might be read as
            // another path.
            let is_name = is_dns_name(&name.namespace) && is_dns_name(&name.name);
            if is_secret
                && is_name
                && grants.permits(From::GATEWAY, &gateway.namespace, To::SECRET, &name).is_ok()
            {
                secrets.insert(name);
            }
        }
    }
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(yaml: &str, expected: &[&str]) {
        let mut objects = Objects::default();
        objects.add_yaml("test", yaml).unwrap();
        let found: Vec<_> =
            named_secrets(&objects, &Options::default()).iter().map(ToString::to_string).collect();
        assert_eq!(found, expected);
    }

    const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: ours}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: theirs}
spec: {controllerName: example.com/other}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g, namespace: ns}
spec:
  gatewayClassName: ours
  listeners:
  - {name: a, protocol: HTTPS, port: 443, hostname: a.example, tls: {certificateRefs: [{name: own}]}}
  - {name: b, protocol: HTTPS, port: 443, hostname: b.example, tls: {certificateRefs: [{name: far, namespace: other}]}}
  - {name: c, protocol: HTTPS, port: 443, hostname: c.example, tls: {certificateRefs: [{name: map, kind: ConfigMap}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: h, namespace: ns}
spec:
  gatewayClassName: theirs
  listeners:
  - {name: a, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: foreign}]}}
";

    #[test]
    fn only_what_a_gateway_of_ours_may_use() {
        check(GATEWAY, &["ns/own"]);
        let grant = "
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: grant, namespace: other}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: ns}]
  to: [{group: \"\", kind: Secret}]
";
        check(&format!("{GATEWAY}{grant}"), &["ns/own", "other/far"]);
        // In a path these would name something else.
        for name in ["a/b", "a b", "a?x", "..", "A"] {
            check(&GATEWAY.replace("{name: own}", &format!("{{name: \"{name}\"}}")), &[]);
        }
    }
}
