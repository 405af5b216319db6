//! Scripts of requests and publications, with all responses to each step. The expectations are Envoy's protocol
//! description, by hand.
use std::{collections::BTreeMap, sync::Arc};

use envoy_types::pb::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    google::rpc::Status,
};

use super::{Answered, Delta, Protocol, Session, Sotw, Violation};
use crate::{Resource, ResourceSet, cache::Published};

const OWN: &str = "type.googleapis.com/example.v1.Object";
const LDS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const RDS: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
const CDS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const EDS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const SDS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// `a1 b2`: of a type, resource `a` with content `1`, `b` with `2`.
fn set_of(types: &[(&str, &str)]) -> Arc<ResourceSet> {
    let mut set = ResourceSet::default();
    for (type_url, resources) in types {
        let resources = resources.split_whitespace().map(|resource| {
            let (name, body) = resource.split_at(1);
            (Arc::from(name), Resource::new(body.to_owned()))
        });
        set.types.insert((*type_url).into(), resources.collect());
    }
    Arc::new(set)
}

fn strings(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

fn error() -> Option<Status> {
    Some(Status { message: "b is no good".into(), ..Status::default() })
}

/// A delta stream of one type, told in words.
struct Script {
    session: Session,
    published: Published,
    /// Nonces of the responses so far, oldest first.
    nonces: Vec<String>,
}

impl Script {
    fn new(resources: &str) -> Self {
        Self {
            session: Session::default(),
            published: Published::new(set_of(&[(OWN, resources)])),
            nonces: Vec::new(),
        }
    }

    fn publish(&mut self, resources: &str) -> &mut Self {
        self.published = Published::new(set_of(&[(OWN, resources)]));
        self
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Answered {
        let request = DeltaDiscoveryRequest { type_url: OWN.into(), ..request };
        Delta::take(&mut self.session, request, &self.published).unwrap()
    }

    /// A request without a nonce.
    fn ask(&mut self, subscribe: &str, unsubscribe: &str, has: &str) -> &mut Self {
        let answered = self.take(DeltaDiscoveryRequest {
            resource_names_subscribe: strings(subscribe),
            resource_names_unsubscribe: strings(unsubscribe),
            initial_resource_versions: strings(has)
                .iter()
                .map(|resource| resource.split_at(1))
                .map(|(name, body)| (name.into(), Resource::new(body.to_owned()).version.as_ref().into()))
                .collect(),
            ..Default::default()
        });
        assert_eq!(answered, Answered::Nothing);
        self
    }

    /// An answer to the `n`th response from the end.
    fn answer(&mut self, n: usize, error: Option<Status>) -> Answered {
        let response_nonce = self.nonces[self.nonces.len() - n].clone();
        self.take(DeltaDiscoveryRequest { response_nonce, error_detail: error, ..Default::default() })
    }

    fn ack(&mut self) -> &mut Self {
        assert_eq!(self.answer(1, None), Answered::Acknowledged);
        self
    }

    fn nack(&mut self) -> &mut Self {
        assert_eq!(self.answer(1, error()), Answered::Refused);
        self
    }

    /// All responses that are due now, as `a1 b2 -c` each.
    #[track_caller]
    fn gets(&mut self, expected: &[&str]) -> &mut Self {
        let mut responses = Vec::new();
        while let Some((response, count)) = Delta::next(&mut self.session, &self.published) {
            assert_eq!(response.type_url, OWN);
            assert_eq!(response.system_version_info, **self.published.version_of(OWN));
            assert_eq!(count, response.resources.len() + response.removed_resources.len());
            assert!(!self.nonces.contains(&response.nonce), "a nonce came twice");
            self.nonces.push(response.nonce);
            let resources = response.resources.into_iter().map(|resource| {
                let any = resource.resource.unwrap();
                assert_eq!(any.type_url, OWN);
                let body = String::from_utf8(any.value).unwrap();
                assert_eq!(resource.version, *Resource::new(body.clone()).version);
                resource.name + &body
            });
            let removed = response.removed_resources.iter().map(|name| format!("-{name}"));
            responses.push(resources.chain(removed).collect::<Vec<_>>().join(" "));
        }
        assert_eq!(responses, expected);
        self
    }

    /// The set that was last acknowledged as a whole, and the one that is refused.
    #[track_caller]
    fn reports(&mut self, acknowledged: Option<&str>, refused: Option<&str>) -> &mut Self {
        let version = |resources: &str| set_of(&[(OWN, resources)]).version_of(OWN);
        assert_eq!(self.session.acknowledged().remove(OWN), acknowledged.map(version), "acknowledged");
        let nack = self.session.refused().remove(OWN);
        if let Some(nack) = &nack {
            assert_eq!(nack.message, "b is no good");
        }
        assert_eq!(nack.map(|nack| nack.version), refused.map(version), "refused");
        self
    }
}

#[test]
fn all_resources_and_then_only_what_changes() {
    Script::new("a1 b1 c1")
        .ask("", "", "")
        .gets(&["a1 b1 c1"])
        .reports(None, None)
        .ack()
        .gets(&[])
        .reports(Some("a1 b1 c1"), None)
        .publish("a1 b2 d1")
        .gets(&["b2 d1 -c"])
        .reports(Some("a1 b1 c1"), None)
        .ack()
        .gets(&[])
        .reports(Some("a1 b2 d1"), None);
}

#[test]
fn a_client_that_comes_back_gets_what_it_lacks_and_loses_what_is_gone() {
    for (has, expected) in [
        ("a1 b1", vec![]),
        ("a1", vec!["b1"]),
        ("a1 b0", vec!["b1"]),
        ("a1 b1 x1", vec!["-x"]),
        ("x1", vec!["a1 b1 -x"]),
        ("", vec!["a1 b1"]),
    ] {
        for subscribe in ["", "*"] {
            let mut script = Script::new("a1 b1");
            script.ask(subscribe, "", has).gets(&expected);
            if !expected.is_empty() {
                script.reports(None, None).ack().gets(&[]);
            }
            script.reports(Some("a1 b1"), None);
        }
    }
}

#[test]
fn a_first_subscription_is_answered_even_if_there_is_nothing() {
    // Clients wait for it before they take up work.
    Script::new("").ask("", "", "").gets(&[""]).ack().gets(&[]).reports(Some(""), None);
    Script::new("").ask("*", "", "").gets(&[""]).ack().gets(&[]);
    Script::new("").ask("a", "", "").gets(&["-a"]).ack().gets(&[]).reports(Some(""), None);
    Script::new("").ask("", "", "a1").gets(&["-a"]).ack().gets(&[]);
}

/// A type that the set does not have: what the client holds it keeps, until there is something to say again.
#[test]
fn of_a_type_that_is_not_spoken_of_nothing_is_sent() {
    let mut script = Script::new("a1 b1");
    script.ask("", "", "").gets(&["a1 b1"]).ack().gets(&[]);
    script.published = Published::new(set_of(&[("other", "a1")]));
    script.gets(&[]).reports(Some("a1 b1"), None);
    // Another stream, to a server that does not speak of it either.
    script.session = Session::default();
    script.nonces.clear();
    script.ask("", "", "a1 b1").gets(&[]).reports(None, None);
    assert_eq!(script.session.asked(), [Arc::from(OWN)].into());
    script.publish("a2 b1").gets(&["a2"]).ack().publish("").gets(&["-a -b"]);
}

#[test]
fn names_are_followed_alone() {
    Script::new("a1 b1 c1")
        .ask("a x", "", "")
        .gets(&["a1 -x"])
        .ack()
        .gets(&[])
        .reports(Some("a1 b1 c1"), None)
        .publish("a1 b2 c1")
        .gets(&[])
        // Of what it asked for it has all that the new set says.
        .reports(Some("a1 b2 c1"), None)
        .publish("a1 b2 c1 x1")
        .gets(&["x1"])
        .ack()
        .publish("b2 x1")
        .gets(&["-a"])
        .ack()
        .gets(&[]);
    // It comes back: versions of what it does not ask for count for nothing.
    Script::new("a1 b1").ask("a", "", "a1 z1").gets(&[]).reports(Some("a1 b1"), None);
    Script::new("a1 b1").ask("a y", "", "a1 y1").gets(&["-y"]);
}

#[test]
fn what_is_subscribed_to_again_is_sent_again() {
    // The client may have dropped it before it wanted it again (`resource_names_subscribe`).
    Script::new("a1 b1").ask("a b", "", "").gets(&["a1 b1"]).ack().gets(&[]).ask("a", "", "").gets(&["a1"]);
    Script::new("a1").ask("x", "", "").gets(&["-x"]).ack().ask("x", "", "").gets(&["-x"]);
    // Asked for while a response is on its way, it comes after the answer.
    let mut script = Script::new("a1 b1");
    script.ask("a", "", "").gets(&["a1"]).ask("a b", "", "").gets(&[]).ack().gets(&["a1 b1"]);
    script.ack().gets(&[]);
}

#[test]
fn what_is_not_subscribed_to_any_more_is_not_sent() {
    Script::new("a1 b1")
        .ask("a b", "", "")
        .gets(&["a1 b1"])
        .ack()
        .ask("", "a", "")
        .gets(&[])
        .publish("a2 b2")
        .gets(&["b2"])
        .ack()
        .ask("", "b", "")
        .publish("a3 b3")
        // No names are not all names, once there was a name.
        .gets(&[])
        .ask("a", "", "")
        .gets(&["a3"]);
    // Dropped while it was on its way.
    Script::new("a1")
        .ask("a b", "", "")
        .gets(&["a1 -b"])
        .ask("", "a b", "")
        .ack()
        .gets(&[])
        .publish("a2 b2")
        .gets(&[])
        .ask("b", "", "")
        .gets(&["b2"]);
}

#[test]
fn all_and_names_together() {
    // The protocol's own example: all (by nothing), then `a` too, then no more all, then no more `a`.
    Script::new("a1 b1")
        .ask("", "", "")
        .gets(&["a1 b1"])
        .ack()
        .ask("a", "", "")
        .gets(&["a1"])
        .ack()
        .publish("a2 b2")
        .gets(&["a2 b2"])
        .ack()
        .ask("", "*", "")
        .publish("a3 b3")
        .gets(&["a3"])
        .ack()
        .ask("", "a", "")
        .publish("a4 b4")
        .gets(&[])
        .ask("*", "", "")
        .gets(&["a4 b4"]);
    // A name that is not followed by itself any more is still one of all: the client hears what it is.
    Script::new("a1 b1").ask("* a x", "", "").gets(&["a1 b1 -x"]).ack().ask("", "a x", "").gets(&["a1 -x"]);
}

#[test]
fn a_refused_response_is_not_repeated_but_its_successor_is_sent() {
    Script::new("a1 b1")
        .ask("", "", "")
        .gets(&["a1 b1"])
        .ack()
        .publish("a1 b2 c1")
        .gets(&["b2 c1"])
        .nack()
        .gets(&[])
        .reports(Some("a1 b1"), Some("a1 b2 c1"))
        // The same content in another set.
        .publish("a1 b2 c1")
        .gets(&[])
        .publish("a1 b3 c1")
        // `c` was in the refused response, of which the client may have taken nothing.
        .gets(&["b3 c1"])
        .reports(Some("a1 b1"), Some("a1 b2 c1"))
        .ack()
        .gets(&[])
        .reports(Some("a1 b3 c1"), None);
}

#[test]
fn taking_back_what_was_refused_tells_the_client() {
    // It may have taken `c`, though not `b` (gRPC proposal A46), so both are said again.
    Script::new("a1 b1")
        .ask("", "", "")
        .gets(&["a1 b1"])
        .ack()
        .publish("a1 b2 c1")
        .gets(&["b2 c1"])
        .nack()
        .publish("a1 b1")
        .gets(&["b1 -c"])
        .ack()
        .gets(&[])
        .reports(Some("a1 b1"), None)
        // It was not the last word: the same content may be fine by now.
        .publish("a1 b2 c1")
        .gets(&["b2 c1"]);
}

#[test]
fn a_slow_client_gets_the_latest_set_alone() {
    Script::new("a1 b1")
        .ask("", "", "")
        .gets(&["a1 b1"])
        .publish("a2 b1")
        .gets(&[])
        .publish("a3 b1")
        .gets(&[])
        .publish("a4 b1 c1")
        .gets(&[])
        .ack()
        .reports(Some("a1 b1"), None)
        .gets(&["a4 c1"])
        .publish("a5")
        .publish("a4 b1 c1")
        .ack()
        .gets(&[])
        .reports(Some("a4 b1 c1"), None);
}

#[test]
fn answers_to_older_responses_count_for_nothing() {
    let mut script = Script::new("a1");
    script.ask("", "", "").gets(&["a1"]).ack().publish("a2").gets(&["a2"]);
    assert_eq!(script.answer(2, None), Answered::Nothing);
    assert_eq!(script.answer(2, error()), Answered::Nothing);
    script.gets(&[]).reports(Some("a1"), None).ack().reports(Some("a2"), None);
    assert_eq!(script.answer(1, None), Answered::Nothing, "twice");
    assert_eq!(script.answer(1, error()), Answered::Nothing, "after it was acknowledged");
    script.gets(&[]).reports(Some("a2"), None);
    // What such a request subscribes to counts all the same.
    let response_nonce = script.nonces[0].clone();
    let resource_names_subscribe = strings("x");
    script.take(DeltaDiscoveryRequest { response_nonce, resource_names_subscribe, ..Default::default() });
    script.gets(&["-x"]);
}

#[test]
fn types_are_walled_off_and_in_order() {
    let types = [SDS, OWN, RDS, LDS, EDS, CDS];
    let published = Published::new(set_of(&types.map(|type_url| (type_url, "a1"))));
    let mut session = Session::default();
    for type_url in types {
        let request = DeltaDiscoveryRequest { type_url: type_url.into(), ..Default::default() };
        Delta::take(&mut session, request, &published).unwrap();
    }
    let mut order = Vec::new();
    let mut nonces = BTreeMap::new();
    while let Some((response, _)) = Delta::next(&mut session, &published) {
        nonces.insert(response.type_url.clone(), response.nonce);
        order.push(response.type_url);
    }
    assert_eq!(order, [CDS, EDS, LDS, RDS, SDS, OWN]);
    // A nonce of another type answers nothing.
    let request = |type_url: &str, nonce_of: &str| DeltaDiscoveryRequest {
        type_url: type_url.into(),
        response_nonce: nonces[nonce_of].clone(),
        ..Default::default()
    };
    assert_eq!(Delta::take(&mut session, request(LDS, CDS), &published), Ok(Answered::Nothing));
    assert_eq!(Delta::take(&mut session, request(LDS, LDS), &published), Ok(Answered::Acknowledged));
    assert_eq!(session.acknowledged().keys().map(|url| &**url).collect::<Vec<_>>(), [LDS]);
}

#[test]
fn requests_beyond_the_limits_end_the_stream() {
    let published = Published::new(set_of(&[("t", "")]));
    let request = |type_url: &str, names: Vec<String>| DeltaDiscoveryRequest {
        type_url: type_url.into(),
        resource_names_subscribe: names,
        ..Default::default()
    };
    let mut session = Session::default();
    let none = Delta::take(&mut session, request("", vec![]), &published);
    assert_eq!(none, Err(Violation::NoType));
    for number in 0..64 {
        Delta::take(&mut session, request(&format!("type/{number}"), vec![]), &published).unwrap();
    }
    let more = Delta::take(&mut session, request("type/64", vec![]), &published);
    assert_eq!(more, Err(Violation::Types));

    let names = |from: u32, count: u32| (from..from + count).map(|number| number.to_string()).collect();
    let mut session = Session::default();
    Delta::take(&mut session, request("t", names(0, 262_144)), &published).unwrap();
    let more = Delta::take(&mut session, request("u", names(0, 1)), &published);
    assert_eq!(more, Err(Violation::Names));
    let mut session = Session::default();
    for letter in ["a", "b", "c"] {
        Delta::take(&mut session, request("t", vec![letter.repeat(10 << 20)]), &published).unwrap();
    }
    let more = Delta::take(&mut session, request("t", vec!["d".repeat(10 << 20)]), &published);
    assert_eq!(more, Err(Violation::Names));
    // Of all, names that come and go, while nothing is answered.
    let mut session = Session::default();
    Delta::take(&mut session, request("t", vec![]), &published).unwrap();
    Delta::next(&mut session, &published).unwrap();
    let mut passing = |from| {
        let unsubscribed = names(from, 131_072);
        let request = DeltaDiscoveryRequest {
            resource_names_unsubscribe: unsubscribed,
            ..request("t", names(from, 131_072))
        };
        Delta::take(&mut session, request, &published)
    };
    assert_eq!(passing(0), Ok(Answered::Nothing));
    assert_eq!(passing(131_072), Ok(Answered::Nothing));
    assert_eq!(passing(262_144), Err(Violation::Names));
}

/// A state-of-the-world stream of one type, told in words.
struct World {
    session: Session,
    type_url: &'static str,
    published: Published,
    /// Nonces and versions of the responses so far.
    responses: Vec<(String, String)>,
}

impl World {
    fn new(type_url: &'static str, resources: &str) -> Self {
        let published = Published::new(set_of(&[(type_url, resources)]));
        Self { session: Session::default(), type_url, published, responses: Vec::new() }
    }

    fn publish(&mut self, resources: &str) -> &mut Self {
        self.published = Published::new(set_of(&[(self.type_url, resources)]));
        self
    }

    fn take(&mut self, names: &str, version_info: &str, nonce: &str, error: Option<Status>) -> Answered {
        let request = DiscoveryRequest {
            type_url: self.type_url.into(),
            resource_names: strings(names),
            version_info: version_info.into(),
            response_nonce: nonce.into(),
            error_detail: error,
            ..Default::default()
        };
        Sotw::take(&mut self.session, request, &self.published).unwrap()
    }

    /// A request without a nonce; `has`: it has applied this set before.
    fn ask(&mut self, names: &str, has: Option<&str>) -> &mut Self {
        let version = has.map(|has| set_of(&[(self.type_url, has)]).version_of(self.type_url));
        assert_eq!(self.take(names, version.as_deref().unwrap_or(""), "", None), Answered::Nothing);
        self
    }

    fn ack(&mut self, names: &str) -> &mut Self {
        let (nonce, version) = self.responses.last().cloned().unwrap();
        assert_eq!(self.take(names, &version, &nonce, None), Answered::Acknowledged);
        self
    }

    fn nack(&mut self, names: &str) -> &mut Self {
        let before = self.responses.iter().rev().nth(1).cloned().unwrap_or_default().1;
        let (nonce, _) = self.responses.last().cloned().unwrap();
        assert_eq!(self.take(names, &before, &nonce, error()), Answered::Refused);
        self
    }

    /// The contents of all responses that are due now.
    #[track_caller]
    fn gets(&mut self, expected: &[&str]) -> &mut Self {
        let mut responses = Vec::new();
        while let Some((response, count)) = Sotw::next(&mut self.session, &self.published) {
            assert_eq!(response.type_url, self.type_url);
            assert_eq!(response.version_info, **self.published.version_of(self.type_url));
            assert_eq!(count, response.resources.len());
            self.responses.push((response.nonce, response.version_info));
            let bodies = response.resources.into_iter().map(|any| String::from_utf8(any.value).unwrap());
            responses.push(bodies.collect::<Vec<_>>().join(" "));
        }
        assert_eq!(responses, expected);
        self
    }

    #[track_caller]
    fn reports(&mut self, acknowledged: Option<&str>, refused: Option<&str>) -> &mut Self {
        let version = |resources: &str| set_of(&[(self.type_url, resources)]).version_of(self.type_url);
        let (is_acknowledged, is_refused) = (acknowledged.map(version), refused.map(version));
        assert_eq!(self.session.acknowledged().remove(self.type_url), is_acknowledged, "acknowledged");
        let nack = self.session.refused().remove(self.type_url);
        assert_eq!(nack.map(|nack| nack.version), is_refused, "refused");
        self
    }
}

#[test]
fn the_world_is_sent_whole_where_absence_means_removal() {
    for names in ["", "*"] {
        World::new(LDS, "a1 b2")
            .ask(names, None)
            .gets(&["1 2"])
            .ack(names)
            .gets(&[])
            .reports(Some("a1 b2"), None)
            .publish("a1 b3")
            .gets(&["1 3"])
            .ack(names)
            .publish("a1")
            .gets(&["1"])
            .ack(names)
            .publish("")
            .gets(&[""])
            .ack(names)
            .gets(&[])
            .reports(Some(""), None);
    }
    // A type of one's own too, when all of it is asked for.
    World::new(OWN, "a1 b2").ask("", None).gets(&["1 2"]).ack("").publish("a1").gets(&["1"]);
    World::new(LDS, "").ask("", None).gets(&[""]).ack("").gets(&[]);
}

#[test]
fn the_world_by_names_has_what_changed() {
    World::new(RDS, "a1 b2 c3")
        .ask("a b x", None)
        .gets(&["1 2"])
        .ack("a b x")
        .gets(&[])
        .reports(Some("a1 b2 c3"), None)
        .publish("a1 b4 c5")
        .gets(&["4"])
        .ack("a b x")
        .publish("a1 b4 c6")
        .gets(&[])
        .reports(Some("a1 b4 c6"), None)
        // A route goes with its listener, not by a message of its own.
        .publish("b4 c6")
        .gets(&[])
        .reports(Some("b4 c6"), None)
        .publish("a1 b4 c6 x7")
        .gets(&["1 7"]);
    // Listeners and clusters by name: what is missing is gone.
    World::new(CDS, "a1 b2 c3").ask("a b", None).gets(&["1 2"]).ack("a b").publish("b2").gets(&["2"]);
    World::new(CDS, "c3").ask("a", None).gets(&[""]).ack("a").publish("a1 c3").gets(&["1"]);
}

#[test]
fn names_of_the_world_come_and_go() {
    World::new(EDS, "a1 b2")
        .ask("a", None)
        .gets(&["1"])
        .ack("a b")
        .gets(&["2"])
        .ack("b")
        .publish("a3 b2")
        .gets(&[])
        // With the nonce of a response that was answered before: what it wants has changed.
        .gets(&[]);
    // The protocol's own example: all (by nothing), `*` and `a`, `a`, nothing.
    let mut world = World::new(CDS, "a1 b2");
    world.ask("", None).gets(&["1 2"]).ack("* a").gets(&[]).publish("a3 b4").gets(&["3 4"]);
    world.ack("a").publish("a3 b5").gets(&[]).publish("a6 b5").gets(&["6"]).ack("");
    world.publish("a7 b8").gets(&[]).reports(Some("a6 b5"), None);
}

#[test]
fn a_client_of_the_world_changes_its_names_between_responses() {
    let mut world = World::new(EDS, "a1 b2");
    world.ask("a", None).gets(&["1"]).ack("a");
    let (nonce, version) = world.responses[0].clone();
    assert_eq!(world.take("a b", &version, &nonce, None), Answered::Nothing);
    world.gets(&["2"]);
    // Sent before the client saw the last response, so it is not taken for an answer, nor its names for the last word.
    assert_eq!(world.take("a", &version, &nonce, None), Answered::Nothing);
    assert_eq!(world.take("a", "", "", None), Answered::Nothing);
    world.gets(&[]).ack("a b").publish("a1 b3").gets(&["3"]);
}

#[test]
fn a_client_of_the_world_that_comes_back() {
    World::new(LDS, "a1 b2").ask("", Some("a1 b2")).gets(&[]).reports(Some("a1 b2"), None);
    World::new(LDS, "a1 b2").ask("", Some("a1")).gets(&["1 2"]);
    World::new(LDS, "").ask("", Some("")).gets(&[]).reports(Some(""), None);
    // Nobody knows which of its names it had.
    World::new(EDS, "a1 b2").ask("a", Some("a1 b2")).gets(&["1"]);
    World::new(LDS, "a1 b2")
        .ask("", Some("a1 b2"))
        .publish("a1 b3")
        .gets(&["1 3"])
        .ack("")
        .reports(Some("a1 b3"), None);
}

#[test]
fn a_refused_world_is_not_repeated() {
    World::new(LDS, "a1 b2")
        .ask("", None)
        .gets(&["1 2"])
        .ack("")
        .publish("a1 b3")
        .gets(&["1 3"])
        .nack("")
        .gets(&[])
        .reports(Some("a1 b2"), Some("a1 b3"))
        .publish("a1 b4")
        .gets(&["1 4"])
        .ack("")
        .reports(Some("a1 b4"), None);
    // Neither applied nor an error: it did not take it.
    let mut world = World::new(LDS, "a1");
    world.ask("", None).gets(&["1"]);
    let (nonce, _) = world.responses[0].clone();
    assert_eq!(world.take("", "before", &nonce, None), Answered::Refused);
    world.gets(&[]).reports(None, Some("a1"));
    let message = world.session.refused()[LDS].message.clone();
    assert_eq!(message, "the client keeps version `before` and does not say why");
}
