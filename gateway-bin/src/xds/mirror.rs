//! What the controller sent, and what of it is in force.
use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use policy_model::NamespacedName;
use prost::Message as _;
use xds_translate::{Inserted, ObjectRef, Objects, Options, Resolution, native, resolve};

use super::{Changes, Sent, Versions};
use crate::session::SessionKeys;

/// The one resource of its type.
const SESSION_KEYS: &str = "session-keys";
/// Faults that an answer to the controller names.
const NAMED_FAULTS: usize = 5;

/// The objects of one Gateway, as the controller has them. A change that cannot be put in force stays here, marked, until
/// the next one mends it or the stream ends: the controller takes it as sent.
#[derive(Debug)]
pub(crate) struct Mirror {
    gateway: NamespacedName,
    objects: Objects,
    known: BTreeMap<String, Known>,
    /// What is wrong with resources, by name.
    faults: BTreeMap<String, String>,
    /// What was in force instead, of every resource that changed since.
    before: BTreeMap<String, Option<Known>>,
    /// Whether something has changed that has not been looked at yet.
    changed: bool,
    /// Whether the controller took the Gateway away, having sent it before.
    is_gone: bool,
    keys: Option<Sent>,
}

#[derive(Debug, Clone)]
struct Known {
    version: String,
    body: Bytes,
    /// What it was read as.
    object: Option<ObjectRef>,
}

impl Mirror {
    pub(crate) fn new(gateway: NamespacedName) -> Self {
        Self {
            gateway,
            objects: Objects::default(),
            known: BTreeMap::new(),
            faults: BTreeMap::new(),
            before: BTreeMap::new(),
            changed: false,
            is_gone: false,
            keys: None,
        }
    }

    /// The Gateway whose objects these are.
    pub(crate) fn gateway(&self) -> &NamespacedName {
        &self.gateway
    }

    /// Takes a response. What did not change is not read again.
    pub(crate) fn take(&mut self, changes: Changes) {
        for Sent { name, version, body } in changes.set {
            let same = |known: &Known| known.version == version && known.body == body;
            if self.known.get(&name).is_some_and(same) {
                continue;
            }
            let before = self.put(&name, version, body);
            self.before.entry(name).or_insert(before);
            self.changed = true;
        }
        for name in changes.removed {
            if let Some(before) = self.remove(&name) {
                self.is_gone |= name == self.own_name();
                self.before.entry(name).or_insert(Some(before));
                self.changed = true;
            }
        }
        // Nothing is no configuration, even where nothing was before.
        self.changed |= self.known.is_empty();
    }

    fn put(&mut self, name: &str, version: String, body: Bytes) -> Option<Known> {
        let before = self.remove(name);
        if name == self.own_name() {
            self.is_gone = false;
        }
        let object = match read(name, &body, &mut self.objects) {
            Ok(object) => Some(object),
            Err(error) => {
                self.faults.insert(name.to_owned(), format!("{error:#}"));
                None
            }
        };
        self.known.insert(name.to_owned(), Known { version, body, object });
        before
    }

    fn remove(&mut self, name: &str) -> Option<Known> {
        let known = self.known.remove(name)?;
        self.faults.remove(name);
        if let Some(object) = &known.object {
            self.objects.remove(object);
        }
        Some(known)
    }

    fn own_name(&self) -> String {
        native::resource_name(&gateway_ref(&self.gateway))
    }

    /// What came of the changes; `None`: there are none. A Gateway that the controller took away is not in it, whatever
    /// else was sent: what it permitted is over.
    ///
    /// # Errors
    /// Resources that are no objects, or no Gateway among them that is this proxy's.
    pub(crate) fn resolution(&mut self, options: &Options) -> anyhow::Result<Option<Resolution>> {
        if !std::mem::take(&mut self.changed) {
            return Ok(None);
        }
        if !self.is_gone && !self.faults.is_empty() {
            let named = self.faults.iter().take(NAMED_FAULTS);
            let named: Vec<_> = named.map(|(name, fault)| format!("`{name}`: {fault}")).collect();
            let more = match self.faults.len().saturating_sub(NAMED_FAULTS) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            bail!("{}{more}", named.join("; "));
        }
        let resolution = resolve(&self.objects, options);
        if !self.is_gone && !resolution.gateways.contains_key(&self.gateway) {
            let name = self.own_name();
            bail!("`{name}`: there is no such Gateway of ours among the {} objects", self.objects.len());
        }
        Ok(Some(resolution))
    }

    /// What was looked at last is in force.
    pub(crate) fn in_force(&mut self) {
        self.before.clear();
    }

    /// Drops what is not in force, and says what is.
    pub(crate) fn reset(&mut self) -> Versions {
        for (name, before) in std::mem::take(&mut self.before) {
            self.remove(&name);
            if let Some(Known { version, body, .. }) = before {
                self.put(&name, version, body);
            }
        }
        self.changed = false;
        let objects = self.known.iter().map(|(name, known)| (name.clone(), known.version.clone()));
        let keys = self.keys.iter().map(|keys| (keys.name.clone(), keys.version.clone()));
        Versions { objects: objects.collect(), session_keys: keys.collect() }
    }

    /// Takes a response with session keys: those to use from now on, if they changed. Keys that are gone stay in use.
    ///
    /// # Errors
    /// Not 32 bytes each, or none.
    pub(crate) fn take_keys(&mut self, changes: Changes) -> anyhow::Result<Option<SessionKeys>> {
        let Some(sent) = changes.set.into_iter().find(|sent| sent.name == SESSION_KEYS) else {
            return Ok(None);
        };
        if self.keys.as_ref() == Some(&sent) {
            return Ok(None);
        }
        let fault = |message: &str| anyhow!("`{SESSION_KEYS}`: {message}");
        let keys = native::SessionKeys::decode(&*sent.body).map_err(|error| fault(&error.to_string()))?.keys;
        let keys: Result<Vec<[u8; 32]>, _> = keys.into_iter().map(TryInto::try_into).collect();
        let keys = keys.map_err(|_other_length| fault("keys must have 32 bytes each"))?;
        if keys.is_empty() {
            return Err(fault("holds no key"));
        }
        self.keys = Some(sent);
        Ok(Some(SessionKeys::new(keys)))
    }

    /// What is in force: objects and session keys. Only to be asked while nothing waits to be.
    pub(crate) fn contents(&self) -> (Vec<Sent>, Option<Sent>) {
        let objects = self.known.iter().map(|(name, known)| Sent {
            name: name.clone(),
            version: known.version.clone(),
            body: known.body.clone(),
        });
        (objects.collect(), self.keys.clone())
    }

    /// Whether all that was taken is in force.
    pub(crate) fn is_settled(&self) -> bool {
        self.before.is_empty()
    }
}

fn gateway_ref(gateway: &NamespacedName) -> ObjectRef {
    ObjectRef {
        group: "gateway.networking.k8s.io".to_owned(),
        kind: "Gateway".to_owned(),
        namespace: gateway.namespace.clone(),
        name: gateway.name.clone(),
    }
}

/// Reads a resource into `objects`. An object that cannot be read as what it is goes there too, and closes what it closes.
fn read(name: &str, body: &Bytes, objects: &mut Objects) -> anyhow::Result<ObjectRef> {
    let object = native::Object::decode(&**body)?.value()?;
    let found = native::object_ref(&object)
        .ok_or_else(|| anyhow!("is no object of a kind and version that is known here"))?;
    if native::resource_name(&found) != name {
        bail!("holds `{}`", native::resource_name(&found));
    }
    match objects.insert(&object) {
        Inserted::Stored => Ok(found),
        Inserted::Unreadable { message } => {
            tracing::warn!(
                resource = name,
                message,
                "an object cannot be read; what depends on it is closed"
            );
            Ok(found)
        }
        Inserted::Refused { message } => bail!("{message}"),
        _ => bail!("is of a kind that is not looked at"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::{Value, json};

    use super::*;

    fn sent(object: &Value, version: &str) -> Sent {
        let name = native::resource_name(&native::object_ref(object).unwrap());
        Sent { name, version: version.to_owned(), body: native::Object::new(object).encode_to_vec().into() }
    }

    fn class() -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "c"},
            "spec": {"controllerName": "sigs.k8s.io/kube-agentic-networking-controller"},
        })
    }

    fn gateway(port: u16) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "g", "namespace": "ns"},
            "spec": {"gatewayClassName": "c", "listeners": [{"name": "l", "port": port, "protocol": "HTTP"}]},
        })
    }

    fn mirror() -> Mirror {
        let mut mirror = Mirror::new(NamespacedName::new("ns", "g"));
        mirror.take(set([sent(&class(), "1"), sent(&gateway(80), "1")]));
        mirror
    }

    fn set(set: impl IntoIterator<Item = Sent>) -> Changes {
        Changes { set: set.into_iter().collect(), removed: Vec::new() }
    }

    #[track_caller]
    fn port(mirror: &mut Mirror) -> Option<u16> {
        let resolution = mirror.resolution(&Options::default()).unwrap()?;
        Some(resolution.gateways[&NamespacedName::new("ns", "g")].listeners[0].port)
    }

    fn versions(mirror: &mut Mirror) -> Vec<(String, String)> {
        let mut versions: Vec<_> = mirror.reset().objects.into_iter().collect();
        versions.sort();
        versions
    }

    const GATEWAY: &str = "gateway.networking.k8s.io/Gateway/ns/g";
    const CLASS: &str = "gateway.networking.k8s.io/GatewayClass//c";

    fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
        expected.map(|(name, version)| (name.to_owned(), version.to_owned())).into()
    }

    #[test]
    fn changes_are_looked_at_once() {
        let mut mirror = mirror();
        assert_eq!(port(&mut mirror), Some(80));
        assert_eq!(port(&mut mirror), None);
        mirror.in_force();
        mirror.take(set([sent(&gateway(80), "1")]));
        assert_eq!(port(&mut mirror), None);
        mirror.take(set([sent(&gateway(81), "2")]));
        assert_eq!(port(&mut mirror), Some(81));
    }

    #[test]
    fn what_is_not_in_force_goes_with_the_stream() {
        let mut mirror = mirror();
        assert_eq!(versions(&mut mirror), []);
        let mut mirror = self::mirror();
        assert_eq!(port(&mut mirror), Some(80));
        mirror.in_force();
        mirror.take(set([sent(&gateway(81), "2")]));
        mirror.take(set([sent(&gateway(82), "3")]));
        mirror.take(Changes { set: Vec::new(), removed: vec![CLASS.to_owned()] });
        assert!(!mirror.is_settled());
        assert_eq!(versions(&mut mirror), pairs([(GATEWAY, "1"), (CLASS, "1")]));
        assert!(mirror.is_settled());
        mirror.changed = true;
        assert_eq!(port(&mut mirror), Some(80));
    }

    #[track_caller]
    fn check_refused(change: Changes, expected: &str) {
        let mut mirror = mirror();
        assert_eq!(port(&mut mirror), Some(80));
        mirror.in_force();
        mirror.take(change);
        let error = mirror.resolution(&Options::default()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(versions(&mut mirror), pairs([(GATEWAY, "1"), (CLASS, "1")]));
        // What the next response mends is in force with it.
        mirror.take(set([sent(&gateway(83), "4")]));
        assert_eq!(port(&mut mirror), Some(83));
    }

    #[test]
    fn refusals_name_the_resource() {
        let raw = |name: &str, body: &'static [u8]| Sent {
            name: name.to_owned(),
            version: "2".to_owned(),
            body: Bytes::from_static(body),
        };
        check_refused(set([raw(GATEWAY, b"\xff")]), GATEWAY);
        check_refused(set([raw("a/B/c/d", b"\x0a\x01{")]), "`a/B/c/d`");
        let other = Sent { name: "a/B/c/d".to_owned(), ..sent(&gateway(80), "2") };
        check_refused(set([other]), "`a/B/c/d`: holds `gateway.networking.k8s.io/Gateway/ns/g`");
        let unknown =
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}});
        let body = native::Object::new(&unknown).encode_to_vec().into();
        check_refused(
            set([Sent { name: "/Pod/ns/p".to_owned(), version: "1".to_owned(), body }]),
            "`/Pod/ns/p`: is no object of a kind",
        );
        check_refused(
            Changes { set: Vec::new(), removed: vec![CLASS.to_owned()] },
            "there is no such Gateway",
        );
    }

    #[test]
    fn a_gateway_that_is_taken_away_is_gone() {
        let removed = |name: &str| Changes { set: Vec::new(), removed: vec![name.to_owned()] };
        let gateways = |mirror: &mut Mirror| {
            let resolution = mirror.resolution(&Options::default()).unwrap().unwrap();
            resolution.gateways.len()
        };
        let mut mirror = mirror();
        assert_eq!(gateways(&mut mirror), 1);
        mirror.in_force();
        // What else is wrong does not keep it.
        let fault =
            Sent { name: "a/B/c/d".to_owned(), version: "1".to_owned(), body: Bytes::from_static(b"\xff") };
        mirror.take(Changes { set: vec![fault], ..removed(GATEWAY) });
        assert_eq!(gateways(&mut mirror), 0);
        mirror.in_force();
        mirror.take(removed("a/B/c/d"));
        assert_eq!(gateways(&mut mirror), 0);
        mirror.in_force();
        assert_eq!(versions(&mut mirror), pairs([(CLASS, "1")]));
        // It comes back, and counts as any other.
        mirror.take(set([sent(&gateway(81), "2")]));
        assert_eq!(port(&mut mirror), Some(81));
        mirror.take(removed(CLASS));
        assert!(mirror.resolution(&Options::default()).is_err());
    }

    #[test]
    fn nothing_is_no_configuration() {
        let mut mirror = Mirror::new(NamespacedName::new("ns", "g"));
        mirror.take(Changes::default());
        assert!(mirror.resolution(&Options::default()).is_err());
    }

    #[test]
    fn session_keys() {
        let keys = |keys: &[&[u8]], version: &str| {
            let body = native::SessionKeys { keys: keys.iter().map(|key| key.to_vec()).collect() };
            set([Sent {
                name: "session-keys".to_owned(),
                version: version.to_owned(),
                body: body.encode_to_vec().into(),
            }])
        };
        let mut mirror = mirror();
        for bad in [&[][..], &[&[1; 31][..]], &[&[1; 32][..], &[1; 33]]] {
            assert!(mirror.take_keys(keys(bad, "1")).is_err());
        }
        assert!(mirror.reset().session_keys.is_empty());
        assert!(mirror.take_keys(keys(&[&[1; 32], &[2; 32]], "1")).unwrap().is_some());
        assert!(mirror.take_keys(keys(&[&[1; 32], &[2; 32]], "1")).unwrap().is_none());
        let removed = Changes { set: Vec::new(), removed: vec!["session-keys".to_owned()] };
        assert!(mirror.take_keys(removed).unwrap().is_none());
        let expected = HashMap::from([("session-keys".to_owned(), "1".to_owned())]);
        assert_eq!(mirror.reset().session_keys, expected);
    }
}
