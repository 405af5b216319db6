//! One object into its place, strictly (from a file) or leniently (from an API server, which has validated it).
use std::collections::{BTreeMap, btree_map::Entry as Slot};

use gateway_api::{
    backendtlspolicies::BackendTlsPolicySpec, gatewayclasses::GatewayClassSpec, gateways::GatewaySpec,
    referencegrants::ReferenceGrantSpec,
};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret, Service, ServiceSpec},
    discovery::v1::EndpointSlice,
};
use policy_model::{AgenticGroup, NamespacedName, PolicyKey};
use serde_json::Value;

use crate::objects::{
    Data, Entry, Inserted, Objects, Unreadable, agentic,
    decode::{Decoded, FieldError, Meta, decode, meta},
    kind::Kind,
    route::{Route, decode_route},
    rules,
};

/// Decodes one kind; with the rules that its CRD or the API server would check.
struct Reader<T> {
    decode: fn(&Value) -> Result<Decoded<T>, Vec<FieldError>>,
    check: fn(&T, &mut Vec<FieldError>),
}

fn custom<T: serde::de::DeserializeOwned>(value: &Value) -> Result<Decoded<T>, Vec<FieldError>> {
    let spec = value.get("spec").ok_or_else(|| vec![FieldError::new("spec", "is missing; add it")])?;
    let mut decoded = decode(spec, "spec").map_err(|error| vec![error])?;
    decoded.unknown.extend(unknown_at_top(value));
    Ok(decoded)
}

fn route(value: &Value) -> Result<Decoded<Route>, Vec<FieldError>> {
    let spec = value.get("spec").ok_or_else(|| vec![FieldError::new("spec", "is missing; add it")])?;
    let mut decoded = decode_route(spec).map_err(|error| vec![error])?;
    decoded.unknown.extend(unknown_at_top(value));
    Ok(decoded)
}

fn unknown_at_top(value: &Value) -> impl Iterator<Item = String> {
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    let keys = value.as_object().into_iter().flat_map(|fields| fields.keys());
    keys.filter(move |key| !known.contains(&key.as_str())).cloned()
}

fn built_in<K: serde::de::DeserializeOwned, T>(
    value: &Value,
    convert: impl FnOnce(K) -> T,
) -> Result<Decoded<T>, Vec<FieldError>> {
    let Decoded { value, unknown } = decode::<K>(value, "").map_err(|error| vec![error])?;
    Ok(Decoded { value: convert(value), unknown })
}

fn service(value: &Value) -> Result<Decoded<ServiceSpec>, Vec<FieldError>> {
    built_in(value, |service: Service| service.spec.unwrap_or_default())
}

fn slice(value: &Value) -> Result<Decoded<EndpointSlice>, Vec<FieldError>> {
    built_in(value, |slice: EndpointSlice| slice)
}

fn secret(value: &Value) -> Result<Decoded<Data>, Vec<FieldError>> {
    built_in(value, |secret: Secret| {
        let data = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
        let plain =
            secret.string_data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
        Data(data.chain(plain).collect())
    })
}

fn config_map(value: &Value) -> Result<Decoded<Data>, Vec<FieldError>> {
    built_in(value, |map: ConfigMap| {
        let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
        let plain = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
        Data(binary.chain(plain).collect())
    })
}

fn namespace(value: &Value) -> Result<Decoded<()>, Vec<FieldError>> {
    built_in(value, |_: Namespace| ())
}

const CLASS: Reader<GatewayClassSpec> = Reader { decode: custom, check: rules::gateway_class };
const GATEWAY: Reader<GatewaySpec> = Reader { decode: custom, check: rules::gateway };
const ROUTE: Reader<Route> = Reader { decode: route, check: rules::route };
const GRANT: Reader<ReferenceGrantSpec> = Reader { decode: custom, check: rules::reference_grant };
const TLS_POLICY: Reader<BackendTlsPolicySpec> = Reader { decode: custom, check: rules::backend_tls_policy };
const SERVICE: Reader<ServiceSpec> = Reader { decode: service, check: rules::service };
const SLICE: Reader<EndpointSlice> = Reader { decode: slice, check: rules::endpoint_slice };
const SECRET: Reader<Data> = Reader { decode: secret, check: |_, _| () };
const CONFIG_MAP: Reader<Data> = Reader { decode: config_map, check: |_, _| () };
const NAMESPACE: Reader<()> = Reader { decode: namespace, check: |(), _| () };

impl Objects {
    /// Adds an object of a file; what is wrong with it, if anything (then it may not be added).
    pub(super) fn add_strict(&mut self, kind: Kind, value: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let Decoded { value: meta, unknown } = match meta(value, kind.is_namespaced()) {
            Ok(meta) => meta,
            Err(error) => return vec![error],
        };
        errors.extend(unknown.iter().map(|path| unknown_field(path)));
        rules::name(&meta.name, kind, &mut errors);
        let strict = Strict { value, meta, errors: &mut errors };
        match kind {
            Kind::GatewayClass => strict.put(&CLASS, &mut self.classes),
            Kind::Gateway => strict.put(&GATEWAY, &mut self.gateways),
            Kind::HttpRoute => strict.put(&ROUTE, &mut self.routes),
            Kind::ReferenceGrant => strict.put(&GRANT, &mut self.grants),
            Kind::BackendTlsPolicy => strict.put(&TLS_POLICY, &mut self.tls_policies),
            Kind::Service => strict.put(&SERVICE, &mut self.services),
            Kind::EndpointSlice => strict.put(&SLICE, &mut self.slices),
            Kind::Secret => strict.put(&SECRET, &mut self.secrets),
            Kind::ConfigMap => strict.put(&CONFIG_MAP, &mut self.config_maps),
            Kind::Namespace => strict.put(&NAMESPACE, &mut self.namespaces),
            Kind::XBackend(group) => {
                let key = (strict.meta.name.clone(), group);
                let decoded = agentic::backend(value);
                strict.place(decoded, &mut self.backends, key);
            }
            Kind::XAccessPolicy(group) => {
                let key = policy_key(&strict.meta.name, group);
                let decoded = agentic::policy(value);
                strict.place(decoded, &mut self.policies, key);
            }
        }
        errors
    }

    /// Adds or replaces an object that an API server gave.
    pub(super) fn add_lenient(&mut self, kind: Kind, value: &Value) -> Inserted {
        let (meta, broken) = match meta(value, kind.is_namespaced()) {
            Ok(Decoded { value: meta, .. }) => (meta, None),
            Err(error) => {
                let message = format!("{}: {}", error.field, error.message);
                match plain_meta(value, kind.is_namespaced()) {
                    // The name is known: the object is kept, unread.
                    Some(meta) => (meta, Some(message)),
                    None => return Inserted::Refused { message },
                }
            }
        };
        let lenient = Lenient { value, meta, broken };
        match kind {
            Kind::GatewayClass => lenient.put(&CLASS, &mut self.classes),
            Kind::Gateway => lenient.put(&GATEWAY, &mut self.gateways),
            Kind::HttpRoute => lenient.put(&ROUTE, &mut self.routes),
            Kind::ReferenceGrant => lenient.put(&GRANT, &mut self.grants),
            Kind::BackendTlsPolicy => lenient.put(&TLS_POLICY, &mut self.tls_policies),
            Kind::Service => lenient.put(&SERVICE, &mut self.services),
            Kind::EndpointSlice => lenient.put(&SLICE, &mut self.slices),
            Kind::Secret => lenient.put(&SECRET, &mut self.secrets),
            Kind::ConfigMap => lenient.put(&CONFIG_MAP, &mut self.config_maps),
            Kind::Namespace => lenient.put(&NAMESPACE, &mut self.namespaces),
            Kind::XBackend(group) => {
                let key = (lenient.meta.name.clone(), group);
                let decoded = agentic::backend(value);
                lenient.place(decoded, &mut self.backends, key)
            }
            Kind::XAccessPolicy(group) => {
                let key = policy_key(&lenient.meta.name, group);
                let decoded = agentic::policy(value);
                lenient.place(decoded, &mut self.policies, key)
            }
        }
    }
}

fn policy_key(name: &NamespacedName, group: AgenticGroup) -> PolicyKey {
    PolicyKey { namespace: name.namespace.clone(), name: name.name.clone(), group }
}

fn unknown_field(path: &str) -> FieldError {
    FieldError::new(path, "is no field of this kind; check the spelling and the indentation")
}

/// Namespace and name alone, of metadata that cannot be read whole.
fn plain_meta(value: &Value, namespaced: bool) -> Option<Meta> {
    let metadata = value.get("metadata")?;
    let name = metadata.get("name")?.as_str().filter(|name| !name.is_empty())?;
    let namespace =
        metadata.get("namespace").and_then(Value::as_str).filter(|namespace| !namespace.is_empty());
    let namespace = if namespaced { namespace.unwrap_or("default") } else { "" };
    Some(Meta {
        name: NamespacedName::new(namespace, name),
        generation: None,
        created: None,
        labels: BTreeMap::new(),
    })
}

struct Strict<'a> {
    value: &'a Value,
    meta: Meta,
    errors: &'a mut Vec<FieldError>,
}

impl Strict<'_> {
    fn put<T>(self, reader: &Reader<T>, into: &mut BTreeMap<NamespacedName, Entry<T>>) {
        let decoded = (reader.decode)(self.value);
        if let Ok(decoded) = &decoded {
            (reader.check)(&decoded.value, self.errors);
        }
        let key = self.meta.name.clone();
        self.place(decoded, into, key);
    }

    fn place<T, K: Ord>(
        self,
        decoded: Result<Decoded<T>, Vec<FieldError>>,
        into: &mut BTreeMap<K, Entry<T>>,
        key: K,
    ) {
        match decoded {
            Err(found) => self.errors.extend(found),
            Ok(Decoded { value, unknown }) => {
                let (later, unknown): (Vec<_>, Vec<_>) =
                    unknown.into_iter().partition(|path| rules::is_experimental_field(path));
                // `metadata` was read already.
                let unknown = unknown
                    .iter()
                    .filter(|path| !path.starts_with("metadata."))
                    .map(|path| unknown_field(path));
                self.errors.extend(unknown);
                match into.entry(key) {
                    Slot::Occupied(_) => self.errors.push(FieldError::new(
                        "metadata.name",
                        format!(
                            "there is already an object of this kind named `{}`; remove one",
                            self.meta.name
                        ),
                    )),
                    Slot::Vacant(slot) => {
                        slot.insert(Entry { meta: self.meta, spec: Ok(value), unknown: later });
                    }
                }
            }
        }
    }
}

struct Lenient<'a> {
    value: &'a Value,
    meta: Meta,
    /// What is wrong with the metadata.
    broken: Option<String>,
}

impl Lenient<'_> {
    fn put<T>(self, reader: &Reader<T>, into: &mut BTreeMap<NamespacedName, Entry<T>>) -> Inserted {
        let decoded = (reader.decode)(self.value);
        let key = self.meta.name.clone();
        self.place(decoded, into, key)
    }

    fn place<T, K: Ord>(
        self,
        decoded: Result<Decoded<T>, Vec<FieldError>>,
        into: &mut BTreeMap<K, Entry<T>>,
        key: K,
    ) -> Inserted {
        let decoded = match self.broken {
            Some(message) => Err(message),
            None => decoded.map_err(|errors| {
                let errors: Vec<_> =
                    errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
                errors.join("; ")
            }),
        };
        let (spec, unknown) = match decoded {
            Ok(Decoded { value, unknown }) => (Ok(value), unknown),
            Err(message) => (Err(Unreadable { message, value: self.value.clone() }), Vec::new()),
        };
        let inserted = match &spec {
            Ok(_) => Inserted::Stored,
            Err(unreadable) => Inserted::Unreadable { message: unreadable.message.clone() },
        };
        into.insert(key, Entry { meta: self.meta, spec, unknown });
        inserted
    }
}
