//! What a container runs with: its environment, program and arguments, and the image that its name means.
//!
//! Rules: Kubernetes API reference, `Container.command`, `args`, `env`, `envFrom`; KEP-less, as kubelets of 1.36 do it.
use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, Secret};

use super::{Image, NODE_ADDRESS, NODE_NAME};

/// Where the values come from. The functions take a name in the Pod's namespace.
pub(super) struct Sources<'a> {
    pub(super) pod: &'a Pod,
    pub(super) pod_address: String,
    pub(super) config_map: &'a dyn Fn(&str) -> Option<Arc<ConfigMap>>,
    pub(super) secret: &'a dyn Fn(&str) -> Option<Arc<Secret>>,
}

/// The environment of a container: the image's, the API server's address, `hostname`, `envFrom`, `env`; the later wins.
/// `KUBERNETES_SERVICE_*` point at the real API server, since there are no ClusterIPs.
///
/// An error when something that is not optional does not exist (`CreateContainerConfigError` in the Pod's status).
pub(super) fn environment(
    container: &Container,
    image: &Image,
    sources: &Sources<'_>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let declared = declared(container, sources)?;
    let mut all = BTreeMap::from([
        ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("HOSTNAME".to_owned(), sources.pod.metadata.name.clone().unwrap_or_default()),
        ("HOME".to_owned(), "/".to_owned()),
    ]);
    all.extend(image.env.clone());
    all.extend(declared);
    Ok(all)
}

/// The program and its arguments: `command` stands for the entry point (and then the image's own arguments are not used),
/// `args` for the image's arguments. `$(NAME)` is replaced by what the container's environment (not the image's) says.
pub(super) fn command(
    container: &Container,
    image: &Image,
    sources: &Sources<'_>,
) -> anyhow::Result<Vec<String>> {
    let declared = declared(container, sources)?;
    let expanded = |words: &[String]| words.iter().map(|word| expand(word, &declared)).collect::<Vec<_>>();
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let words = match (command.is_empty(), args.is_empty()) {
        (true, true) => [image.entrypoint.clone(), image.arguments.clone()].concat(),
        (true, false) => [image.entrypoint.clone(), expanded(args)].concat(),
        (false, _) => [expanded(command), expanded(args)].concat(),
    };
    if words.is_empty() {
        bail!("no command given: the image has no entry point");
    }
    Ok(words)
}

/// Another text of the container (`subPathExpr`), expanded in the same way.
pub(super) fn expanded(text: &str, container: &Container, sources: &Sources<'_>) -> anyhow::Result<String> {
    Ok(expand(text, &declared(container, sources)?))
}

/// What the Pod's author declared, in order, with the API server's address first.
fn declared(container: &Container, sources: &Sources<'_>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::from([
        ("KUBERNETES_SERVICE_HOST".to_owned(), NODE_ADDRESS.to_string()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), super::API_SERVER_PORT.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), super::API_SERVER_PORT.to_string()),
    ]);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(wanted) = &from.config_map_ref {
            match (sources.config_map)(&wanted.name) {
                Some(map) => all.extend(
                    map.data.iter().flatten().map(|(key, value)| (format!("{prefix}{key}"), value.clone())),
                ),
                None if wanted.optional == Some(true) => {}
                None => bail!("configmap `{}` not found", wanted.name),
            }
        }
        if let Some(wanted) = &from.secret_ref {
            match (sources.secret)(&wanted.name) {
                Some(secret) => all.extend(secret.data.iter().flatten().map(|(key, value)| {
                    (format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned())
                })),
                None if wanted.optional == Some(true) => {}
                None => bail!("secret `{}` not found", wanted.name),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match &variable.value_from {
            None => Some(expand(variable.value.as_deref().unwrap_or_default(), &all)),
            Some(source) => {
                value(source, sources).with_context(|| format!("variable `{}`", variable.name))?
            }
        };
        if let Some(value) = value {
            all.insert(variable.name.clone(), value);
        }
    }
    Ok(all)
}

/// None: what it names is optional and does not exist.
fn value(source: &EnvVarSource, sources: &Sources<'_>) -> anyhow::Result<Option<String>> {
    if let Some(field) = &source.field_ref {
        return self::field(field, sources.pod, &sources.pod_address).map(Some);
    }
    if let Some(wanted) = &source.config_map_key_ref {
        let map = (sources.config_map)(&wanted.name);
        let found = map.and_then(|map| map.data.as_ref()?.get(&wanted.key).cloned());
        if found.is_none() && wanted.optional != Some(true) {
            bail!("configmap `{}` with key `{}` not found", wanted.name, wanted.key);
        }
        return Ok(found);
    }
    if let Some(wanted) = &source.secret_key_ref {
        let secret = (sources.secret)(&wanted.name);
        let found = secret.and_then(|secret| {
            Some(String::from_utf8_lossy(&secret.data.as_ref()?.get(&wanted.key)?.0).into_owned())
        });
        if found.is_none() && wanted.optional != Some(true) {
            bail!("secret `{}` with key `{}` not found", wanted.name, wanted.key);
        }
        return Ok(found);
    }
    bail!("this node knows `fieldRef`, `configMapKeyRef` and `secretKeyRef` only")
}

/// A field of the Pod, for variables and for downward API volumes. `pod_address` is what its status will say.
pub(super) fn field(selector: &ObjectFieldSelector, pod: &Pod, pod_address: &str) -> anyhow::Result<String> {
    let path = selector.field_path.as_str();
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let map = |map: &Option<BTreeMap<String, String>>| {
        let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    let one = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => map(&meta.labels),
        "metadata.annotations" => map(&meta.annotations),
        "spec.nodeName" => NODE_NAME.to_owned(),
        "spec.serviceAccountName" => {
            spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default()
        }
        "status.hostIP" | "status.hostIPs" => NODE_ADDRESS.to_string(),
        "status.podIP" | "status.podIPs" => pod_address.to_owned(),
        _ => {
            let key = |kind: &str| path.strip_prefix(kind)?.strip_prefix("['")?.strip_suffix("']");
            match (key("metadata.labels"), key("metadata.annotations")) {
                (Some(key), _) => one(&meta.labels, key),
                (_, Some(key)) => one(&meta.annotations, key),
                _ => bail!("this node does not know the field `{path}`"),
            }
        }
    })
}

/// `$(NAME)` becomes the value of NAME, or stays if there is none; `$$` becomes `$`.
fn expand(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = after.strip_prefix('(').and_then(|after| after.split_once(')'));
        match reference {
            Some((name, after)) => {
                match values.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.push_str(&format!("$({name})")),
                }
                rest = after;
            }
            None => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

/// The name of an image without tag and digest: `registry:5000/a/b:1.0@sha256:...` is `registry:5000/a/b`.
pub(super) fn image_name(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(name, _)| name);
    match image.rsplit_once(':') {
        // A colon before the last slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {
                "name": "agent-0", "namespace": "shop", "uid": "u-1",
                "labels": {"app": "agent", "quoted": "a\"b"}, "annotations": {"note": "two\nlines"},
            },
            "spec": {"serviceAccountName": "agent-sa", "containers": []},
        }))
        .unwrap()
    }

    fn container(value: serde_json::Value) -> Container {
        let mut all = serde_json::json!({"name": "c"});
        all.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    fn image() -> Image {
        Image {
            entrypoint: vec!["/bin/server".into(), "run".into()],
            arguments: vec!["--default".into()],
            env: BTreeMap::from([("FROM_IMAGE".into(), "yes".into()), ("LEVEL".into(), "info".into())]),
            working_dir: None,
        }
    }

    fn with_sources<T>(then: impl FnOnce(&Sources<'_>) -> T) -> T {
        let map = |name: &str| {
            (name == "settings").then(|| {
                let data = BTreeMap::from([("LEVEL".into(), "debug".into()), ("port".into(), "80".into())]);
                Arc::new(ConfigMap { data: Some(data), ..ConfigMap::default() })
            })
        };
        let secret = |name: &str| {
            (name == "keys").then(|| {
                let value = k8s_openapi::ByteString(b"s3cret".to_vec());
                let data = BTreeMap::from([("token".into(), value)]);
                Arc::new(Secret { data: Some(data), ..Secret::default() })
            })
        };
        let pod = pod();
        let pod_address = "10.244.1.7".to_owned();
        then(&Sources { pod: &pod, pod_address, config_map: &map, secret: &secret })
    }

    #[track_caller]
    fn check_expand(text: &str, expected: &str) {
        let values = BTreeMap::from([("A".to_owned(), "1".to_owned()), ("E".to_owned(), String::new())]);
        assert_eq!(expand(text, &values), expected, "{text}");
    }

    #[test]
    fn expansion() {
        check_expand("plain", "plain");
        check_expand("$(A)", "1");
        check_expand("x$(A)y$(A)z", "x1y1z");
        check_expand("[$(E)]", "[]");
        check_expand("$(NONE)", "$(NONE)");
        check_expand("$$(A)", "$(A)");
        check_expand("$$$(A)", "$1");
        check_expand("$A ${A}", "$A ${A}");
        check_expand("$(A", "$(A");
        check_expand("costs 5$", "costs 5$");
        check_expand("é$(A)é", "é1é");
    }

    #[track_caller]
    fn check_command(fields: serde_json::Value, expected: &[&str]) {
        let words = with_sources(|sources| command(&container(fields), &image(), sources)).unwrap();
        assert_eq!(words, expected);
    }

    #[test]
    fn command_and_args() {
        check_command(serde_json::json!({}), &["/bin/server", "run", "--default"]);
        check_command(serde_json::json!({"args": ["-x"]}), &["/bin/server", "run", "-x"]);
        check_command(serde_json::json!({"command": ["/bin/other"]}), &["/bin/other"]);
        check_command(serde_json::json!({"command": ["/bin/other"], "args": ["-x"]}), &["/bin/other", "-x"]);
        check_command(
            serde_json::json!({
                "args": ["$(WHO)", "$(FROM_IMAGE)", "$(KUBERNETES_SERVICE_HOST)"],
                "env": [{"name": "WHO", "value": "me"}],
            }),
            &["/bin/server", "run", "me", "$(FROM_IMAGE)", "10.244.0.1"],
        );
        let empty = Image { entrypoint: vec![], arguments: vec![], env: BTreeMap::new(), working_dir: None };
        let nothing = with_sources(|sources| command(&container(serde_json::json!({})), &empty, sources));
        assert!(nothing.is_err());
    }

    #[track_caller]
    fn check_env(fields: serde_json::Value, expected: Result<&[(&str, &str)], &str>) {
        let all = with_sources(|sources| environment(&container(fields), &image(), sources));
        match (all, expected) {
            (Ok(all), Ok(expected)) => {
                for (name, value) in expected {
                    assert_eq!(all.get(*name).map(String::as_str), Some(*value), "{name}");
                }
            }
            (Err(error), Err(expected)) => assert_eq!(format!("{error:#}"), expected),
            (got, expected) => panic!("{got:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn variables() {
        let field = |path: &str| serde_json::json!({"fieldRef": {"fieldPath": path}});
        check_env(
            serde_json::json!({"env": [
                {"name": "NAME", "valueFrom": field("metadata.name")},
                {"name": "NAMESPACE", "valueFrom": field("metadata.namespace")},
                {"name": "ID", "valueFrom": field("metadata.uid")},
                {"name": "APP", "valueFrom": field("metadata.labels['app']")},
                {"name": "SA", "valueFrom": field("spec.serviceAccountName")},
                {"name": "NODE", "valueFrom": field("spec.nodeName")},
                {"name": "IP", "valueFrom": field("status.podIP")},
                {"name": "URL", "value": "http://$(IP):$(LATER)"},
                {"name": "LATER", "value": "80"},
            ]}),
            Ok(&[
                ("NAME", "agent-0"),
                ("NAMESPACE", "shop"),
                ("ID", "u-1"),
                ("APP", "agent"),
                ("SA", "agent-sa"),
                ("NODE", "node-1"),
                ("IP", "10.244.1.7"),
                ("URL", "http://10.244.1.7:$(LATER)"),
                ("FROM_IMAGE", "yes"),
                ("LEVEL", "info"),
                ("HOSTNAME", "agent-0"),
                ("KUBERNETES_SERVICE_HOST", "10.244.0.1"),
                ("KUBERNETES_SERVICE_PORT", "6443"),
            ]),
        );
        check_env(
            serde_json::json!({
                "envFrom": [
                    {"configMapRef": {"name": "settings"}},
                    {"prefix": "KEY_", "secretRef": {"name": "keys"}},
                    {"configMapRef": {"name": "none", "optional": true}},
                ],
                "env": [
                    {"name": "port", "value": "81"},
                    {"name": "T", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                    {"name": "L", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "LEVEL"}}},
                    {"name": "O", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k", "optional": true}}},
                ],
            }),
            Ok(&[
                ("LEVEL", "debug"),
                ("KEY_token", "s3cret"),
                ("port", "81"),
                ("T", "s3cret"),
                ("L", "debug"),
            ]),
        );
        check_env(
            serde_json::json!({"envFrom": [{"secretRef": {"name": "none"}}]}),
            Err("secret `none` not found"),
        );
        check_env(
            serde_json::json!({
                "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "no"}}}],
            }),
            Err("variable `V`: configmap `settings` with key `no` not found"),
        );
    }

    #[test]
    fn fields_of_downward_volumes() {
        let labels = ObjectFieldSelector { field_path: "metadata.labels".into(), api_version: None };
        assert_eq!(field(&labels, &pod(), "").unwrap(), "app=\"agent\"\nquoted=\"a\\\"b\"");
        let notes = ObjectFieldSelector { field_path: "metadata.annotations".into(), api_version: None };
        assert_eq!(field(&notes, &pod(), "").unwrap(), "note=\"two\\nlines\"");
        let unknown = ObjectFieldSelector { field_path: "spec.priority".into(), api_version: None };
        assert!(field(&unknown, &pod(), "").is_err());
    }

    #[track_caller]
    fn check_image(image: &str, expected: &str) {
        assert_eq!(image_name(image), expected);
    }

    #[test]
    fn image_names() {
        check_image("nginx", "nginx");
        check_image("nginx:1.27", "nginx");
        check_image("ghcr.io/a/b:0.1.0", "ghcr.io/a/b");
        check_image("ghcr.io/a/b@sha256:0123", "ghcr.io/a/b");
        check_image("localhost:5000/a/b:0.1.0@sha256:0123", "localhost:5000/a/b");
        check_image("localhost:5000/a/b", "localhost:5000/a/b");
    }
}
