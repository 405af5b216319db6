//! What the replicas' Leases say: who is there, and what their proxies said. Without clock or API server.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::Preconditions;
use policy_model::NamespacedName;

use super::{
    PROXIES, REPLICA,
    election::{holder, lasts},
    said,
};
use crate::status::Proxies;

/// A Lease that was not renewed for so many times its duration is deleted.
const ABANDONED: u32 = 10;

/// The Leases of all replicas but this one. Times are since any moment, by a monotonic clock.
#[derive(Debug)]
pub(super) struct Replicas {
    /// Name of this replica's Lease.
    own: String,
    duration: Duration,
    known: BTreeMap<String, Replica>,
}

#[derive(Debug)]
struct Replica {
    spec: LeaseSpec,
    /// When it was seen to change.
    at: Duration,
    /// The annotation as it is, and what it says.
    text: String,
    proxies: BTreeMap<NamespacedName, Proxies>,
    preconditions: Preconditions,
    /// Whether the list that comes in has it.
    is_listed: bool,
}

impl Replica {
    fn holds_until(&self, default: Duration) -> Duration {
        self.at + lasts(&self.spec, default)
    }

    fn holds(&self, now: Duration, default: Duration) -> bool {
        holder(&self.spec).is_some() && now < self.holds_until(default)
    }

    /// From when on it is worth asking whether it really was not renewed: a renewal should have come long ago.
    fn doubtful_at(&self, default: Duration) -> Duration {
        self.at + lasts(&self.spec, default) * 2 / 3
    }
}

impl Replicas {
    pub(super) fn new(identity: &str, duration: Duration) -> Self {
        Self { own: format!("{REPLICA}{identity}"), duration, known: BTreeMap::new() }
    }

    /// A Lease as the API server has it; those of nobody here are passed over.
    pub(super) fn apply(&mut self, now: Duration, lease: Lease) {
        let Some(name) = lease.metadata.name.filter(|name| name.starts_with(REPLICA) && *name != self.own)
        else {
            return;
        };
        let spec = lease.spec.unwrap_or_default();
        let text = lease.metadata.annotations.and_then(|mut all| all.remove(PROXIES)).unwrap_or_default();
        let before = self.known.remove(&name);
        let unchanged = before.as_ref().filter(|before| before.spec == spec).map(|before| before.at);
        let proxies = match before {
            Some(before) if before.text == text => before.proxies,
            _ if text.is_empty() => BTreeMap::new(),
            _ => said::decode(&text),
        };
        let preconditions =
            Preconditions { resource_version: lease.metadata.resource_version, uid: lease.metadata.uid };
        let at = unchanged.unwrap_or(now);
        self.known.insert(name, Replica { spec, at, text, proxies, preconditions, is_listed: true });
    }

    pub(super) fn delete(&mut self, lease: &Lease) {
        if let Some(name) = &lease.metadata.name {
            self.known.remove(name);
        }
    }

    /// A whole list begins: what is not applied until its end is gone.
    pub(super) fn begin_list(&mut self) {
        for replica in self.known.values_mut() {
            replica.is_listed = false;
        }
    }

    pub(super) fn end_list(&mut self) {
        self.known.retain(|_, replica| replica.is_listed);
    }

    /// The replicas that hold a Lease, with what their proxies said, besides this one.
    pub(super) fn present(
        &self,
        now: Duration,
    ) -> impl Iterator<Item = (&str, &BTreeMap<NamespacedName, Proxies>)> {
        let holding = self.known.iter().filter(move |(_, replica)| replica.holds(now, self.duration));
        holding.filter_map(|(name, replica)| Some((name.strip_prefix(REPLICA)?, &replica.proxies)))
    }

    /// Whether some replica that holds a Lease should have renewed it by now.
    pub(super) fn is_doubtful(&self, now: Duration) -> bool {
        let mut replicas = self.known.values();
        replicas.any(|replica| replica.holds(now, self.duration) && now >= replica.doubtful_at(self.duration))
    }

    /// The next moment at which [`present`](Self::present) or [`is_doubtful`](Self::is_doubtful) changes by itself.
    pub(super) fn next_change(&self, now: Duration) -> Option<Duration> {
        let holding = self.known.values().filter(|replica| replica.holds(now, self.duration));
        let moments = holding
            .flat_map(|replica| [replica.doubtful_at(self.duration), replica.holds_until(self.duration)]);
        moments.filter(|moment| *moment > now).min()
    }

    /// The Leases that nobody renews any more, to be deleted if they still are as they were seen.
    pub(super) fn abandoned(&self, now: Duration) -> Vec<(String, Preconditions)> {
        let is_abandoned =
            |replica: &Replica| now >= replica.at + lasts(&replica.spec, self.duration) * ABANDONED;
        let abandoned = self.known.iter().filter(|(_, replica)| is_abandoned(replica));
        abandoned.map(|(name, replica)| (name.clone(), replica.preconditions.clone())).collect()
    }
}

/// What all replicas' proxies said, by Gateway.
pub(super) fn joined<'r>(
    all: impl IntoIterator<Item = &'r BTreeMap<NamespacedName, Proxies>>,
) -> BTreeMap<NamespacedName, Proxies> {
    let mut joined: BTreeMap<NamespacedName, Proxies> = BTreeMap::new();
    for (gateway, proxies) in all.into_iter().flatten() {
        let of = joined.entry(gateway.clone()).or_default();
        of.acknowledged.extend(proxies.acknowledged.iter().cloned());
        of.refused.extend(proxies.refused.iter().cloned());
    }
    for proxies in joined.values_mut() {
        // Several replicas' proxies say the same; the order has no meaning between replicas.
        let once: BTreeSet<_> = std::mem::take(&mut proxies.refused).into_iter().collect();
        proxies.refused.extend(once);
    }
    joined
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::MicroTime, jiff::Timestamp};
    use kube::api::ObjectMeta;

    use super::*;

    fn lease(replica: &str, renewed: i64, said: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(format!("{REPLICA}{replica}")),
                uid: Some(format!("uid-of-{replica}")),
                resource_version: Some(renewed.to_string()),
                annotations: Some(BTreeMap::from([(PROXIES.to_owned(), said.to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(replica.into()),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
                ..LeaseSpec::default()
            }),
        }
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn replicas(of: &[(u64, Lease)]) -> Replicas {
        let mut replicas = Replicas::new("me", at(15));
        for (second, lease) in of {
            replicas.apply(at(*second), lease.clone());
        }
        replicas
    }

    fn names(replicas: &Replicas, second: u64) -> Vec<&str> {
        replicas.present(at(second)).map(|(name, _)| name).collect()
    }

    #[test]
    fn a_replica_is_present_while_its_lease_is_seen_to_be_renewed() {
        // Times in the Leases mean nothing: they are of other clocks.
        let replicas = replicas(&[
            (0, lease("a", 5_000_000, "{}")),
            (0, lease("b", -5_000_000, "{}")),
            (9, lease("b", -4_999_995, "{}")),
            // Changed in nothing that its holder does.
            (9, lease("a", 5_000_000, "{\"x/y\":{}}")),
            (9, lease("me", 1, "{}")),
            (
                9,
                Lease {
                    metadata: ObjectMeta { name: Some("other".into()), ..Default::default() },
                    spec: None,
                },
            ),
        ]);
        assert_eq!(names(&replicas, 14), ["a", "b"]);
        assert_eq!(names(&replicas, 15), ["b"]);
        assert_eq!(names(&replicas, 23), ["b"]);
        assert!(names(&replicas, 24).is_empty());
    }

    #[test]
    fn a_released_lease_counts_for_nothing() {
        let mut released = lease("a", 1, "{}");
        released.spec.as_mut().unwrap().holder_identity = Some(String::new());
        assert!(names(&replicas(&[(0, released)]), 0).is_empty());
    }

    #[test]
    fn what_a_list_lacks_is_gone() {
        let mut replicas = replicas(&[(0, lease("a", 1, "{}")), (0, lease("b", 1, "{}"))]);
        replicas.begin_list();
        replicas.apply(at(1), lease("b", 1, "{}"));
        assert_eq!(names(&replicas, 1), ["a", "b"], "until the list is whole");
        replicas.end_list();
        assert_eq!(names(&replicas, 1), ["b"]);
        assert!(names(&replicas, 15).is_empty(), "a list renews nothing");
        replicas.delete(&lease("b", 1, "{}"));
        assert!(names(&replicas, 1).is_empty());
    }

    #[test]
    fn the_next_change_is_told() {
        let replicas = replicas(&[(0, lease("a", 1, "{}")), (4, lease("b", 1, "{}"))]);
        for (now, doubtful, next) in [
            (4, false, Some(10)),
            (10, true, Some(14)),
            (14, true, Some(15)),
            (15, true, Some(19)),
            (19, false, None),
        ] {
            assert_eq!(replicas.is_doubtful(at(now)), doubtful, "{now}");
            assert_eq!(replicas.next_change(at(now)), next.map(at), "{now}");
        }
    }

    #[test]
    fn a_lease_of_long_ago_is_abandoned_as_it_was_seen() {
        let replicas = replicas(&[(0, lease("a", 1, "{}")), (100, lease("b", 1, "{}"))]);
        assert!(replicas.abandoned(at(149)).is_empty());
        let [(name, preconditions)] = &replicas.abandoned(at(150))[..] else { panic!() };
        assert_eq!(name, "agentic-controller-replica-a");
        assert_eq!(preconditions.uid.as_deref(), Some("uid-of-a"));
        assert_eq!(preconditions.resource_version.as_deref(), Some("1"));
    }

    #[test]
    fn what_proxies_said_is_joined() {
        let replicas = replicas(&[
            (0, lease("a", 1, r#"{"n/g":{"acknowledged":["1"],"refused":[["3","no"]]}}"#)),
            (
                0,
                lease(
                    "b",
                    1,
                    r#"{"n/g":{"acknowledged":["1","2"],"refused":[["3","no"],["2","x"]]},"n/h":{}}"#,
                ),
            ),
            (0, lease("c", 1, "no JSON")),
        ]);
        let expected = BTreeMap::from([
            (
                NamespacedName::new("n", "g"),
                Proxies {
                    acknowledged: ["1".to_owned(), "2".to_owned()].into(),
                    refused: vec![("2".to_owned(), "x".to_owned()), ("3".to_owned(), "no".to_owned())],
                },
            ),
            (NamespacedName::new("n", "h"), Proxies::default()),
        ]);
        assert_eq!(joined(replicas.present(at(0)).map(|(_, proxies)| proxies)), expected);
        assert!(joined(replicas.present(at(20)).map(|(_, proxies)| proxies)).is_empty());
    }
}
