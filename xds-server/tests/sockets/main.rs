//! The server on loopback, with tonic's client over mTLS.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::map_err_ignore,
    clippy::let_underscore_must_use,
    reason = "all of it is tests"
)]

mod support;

use std::time::Duration;

use envoy_types::pb::{
    envoy::{
        config::core::v3::Node,
        service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
    },
    google::rpc,
};
use tonic::Code;
use xds_server::Counts;

use crate::support::{Authority, Client, Server, TYPE, deadline, set};

const EAST: &str = "spiffe://example.org/ns/east/sa/proxy";
const WEST: &str = "spiffe://example.org/ns/west/sa/proxy";

#[tokio::test]
async fn a_delta_client_gets_its_groups_set_and_what_changes() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1"), ("b", "1")]));
    server.cache.publish("west", set(&[("w", "1")]));
    let mut client = Client::connect(&server, &authority, EAST).await;
    // Who it says it is does not matter.
    let node = Some(Node { id: "west".into(), cluster: "west".into(), ..Node::default() });
    let mut stream = client.delta(DeltaDiscoveryRequest { node, ..Default::default() }).await.unwrap();
    let response = stream.next().await.unwrap();
    assert_eq!(stream.contents(&response), ["a=1", "b=1"]);
    stream.ack(&response).await;
    let version = server.cache.set("east").unwrap().version_of(TYPE);
    server.acknowledged("east", &version).await;

    server.cache.publish("east", set(&[("a", "1"), ("b", "2")]));
    let response = stream.next().await.unwrap();
    assert_eq!(stream.contents(&response), ["b=2"]);
    let message = "b: no such thing".to_owned();
    stream.answer(&response, Some(rpc::Status { message, ..Default::default() })).await;
    let reports = server.reports(|reports| reports.iter().any(|report| !report.refused.is_empty())).await;
    assert_eq!(reports.len(), 1);
    assert!(reports[0].address.is_loopback());
    let refused = &reports[0].refused[TYPE];
    assert_eq!(refused.message, "b: no such thing");
    assert_eq!(refused.version, server.cache.set("east").unwrap().version_of(TYPE));
    assert_eq!(reports[0].acknowledged[TYPE], version);

    server.cache.publish("west", set(&[("w", "2")]));
    server.cache.publish("east", set(&[("b", "3")]));
    let response = stream.next().await.unwrap();
    assert_eq!(stream.contents(&response), ["-a", "b=3"]);
    stream.ack(&response).await;
    server.acknowledged("east", &server.cache.set("east").unwrap().version_of(TYPE)).await;
    let expected = Counts { streams: 1, refused: 0, responses: 3, resources: 5, acknowledged: 2, nacks: 1 };
    assert_eq!(server.cache.counts(), expected);

    drop((stream, client));
    assert!(server.reports(<[_]>::is_empty).await.is_empty());
}

#[tokio::test]
async fn a_client_of_the_state_of_the_world_gets_all_of_it() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1"), ("b", "1")]));
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.world(DiscoveryRequest::default()).await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(stream.bodies(&first), ["1", "1"]);
    assert_eq!(first.version_info, *server.cache.set("east").unwrap().version_of(TYPE));
    stream.ack(&first).await;
    server.acknowledged("east", &first.version_info).await;
    server.cache.publish("east", set(&[("a", "1")]));
    let second = stream.next().await.unwrap();
    assert_eq!(stream.bodies(&second), ["1"]);
    stream.ack(&second).await;
    server.acknowledged("east", &second.version_info).await;
    let expected = Counts { streams: 1, refused: 0, responses: 2, resources: 3, acknowledged: 2, nacks: 0 };
    assert_eq!(server.cache.counts(), expected);
}

#[tokio::test]
async fn a_client_that_moves_to_another_replica_gets_nothing_that_it_has() {
    let authority = Authority::new();
    let (first, second) = (Server::start(&authority), Server::start(&authority));
    for server in [&first, &second] {
        server.cache.publish("east", set(&[("a", "1"), ("b", "1")]));
    }
    let mut client = Client::connect(&first, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    let response = stream.next().await.unwrap();
    stream.ack(&response).await;
    let versions = response.resources.iter().map(|of| (of.name.clone(), of.version.clone()));
    let initial_resource_versions = versions.collect();
    drop((stream, client, first));

    let mut client = Client::connect(&second, &authority, EAST).await;
    let request = DeltaDiscoveryRequest { initial_resource_versions, ..Default::default() };
    let mut stream = client.delta(request).await.unwrap();
    // It counts as having acknowledged what it came with.
    second.acknowledged("east", &second.cache.set("east").unwrap().version_of(TYPE)).await;
    assert_eq!(second.cache.counts().responses, 0);
    second.cache.publish("east", set(&[("a", "1"), ("b", "2")]));
    let response = stream.next().await.unwrap();
    assert_eq!(stream.contents(&response), ["b=2"]);
    // The world's version says the same.
    let mut client = Client::connect(&second, &authority, EAST).await;
    let version_info = second.cache.set("east").unwrap().version_of(TYPE).as_ref().into();
    let _stream = client.world(DiscoveryRequest { version_info, ..Default::default() }).await.unwrap();
    second.acknowledged("east", &second.cache.set("east").unwrap().version_of(TYPE)).await;
    assert_eq!(second.cache.counts().responses, 1);
}

#[tokio::test]
async fn nobody_else_gets_anything() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1")]));
    let roots = &authority;
    let svid = authority.issue(EAST, Duration::from_secs(3600));
    let cases = [
        ("no certificate", roots.client(None, &[b"h2"])),
        (
            "another CA's certificate",
            roots.client(Some(&other.issue(EAST, Duration::from_secs(3600))), &[b"h2"]),
        ),
        ("an identity without a group", {
            let nobody = authority.issue("spiffe://example.org/ns/nowhere/sa/x", Duration::from_secs(3600));
            roots.client(Some(&nobody), &[b"h2"])
        }),
        ("a certificate that has expired", { roots.client(Some(&authority.issue_expired(EAST)), &[b"h2"]) }),
        ("no HTTP/2", roots.client(Some(&svid), &[])),
    ];
    for (refused, (what, config)) in (1..).zip(cases) {
        let client = Client::with(server.address, Some(config)).await;
        let stream = match client {
            Ok(mut client) => client.delta(DeltaDiscoveryRequest::default()).await.map(|_| ()),
            Err(error) => Err(tonic::Status::unavailable(error)),
        };
        assert!(stream.is_err(), "{what}");
        server.until(what, |counts| counts.refused == refused).await;
    }
    // Plaintext.
    let plain = match Client::with(server.address, None).await {
        Ok(mut client) => client.delta(DeltaDiscoveryRequest::default()).await.map(|_| ()),
        Err(error) => Err(tonic::Status::unavailable(error)),
    };
    assert!(plain.is_err());
    server.until("plaintext", |counts| counts.refused == 6).await;
    assert_eq!(server.cache.counts().streams, 0);
    assert_eq!(server.cache.counts().responses, 0);
    // The same server serves who may.
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().resources.len(), 1);
}

#[tokio::test]
async fn another_groups_identity_gets_that_groups_set() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("secret-of-east", "1")]));
    server.cache.publish("west", set(&[("w", "1")]));
    let mut client = Client::connect(&server, &authority, WEST).await;
    let names = vec!["secret-of-east".to_owned(), "w".to_owned()];
    let request = DeltaDiscoveryRequest { resource_names_subscribe: names, ..Default::default() };
    let mut stream = client.delta(request).await.unwrap();
    let response = stream.next().await.unwrap();
    assert_eq!(stream.contents(&response), ["-secret-of-east", "w=1"]);
}

#[tokio::test]
async fn a_stream_ends_when_its_certificate_expires() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1")]));
    let svid = authority.issue(EAST, Duration::from_secs(2));
    let mut client =
        Client::with(server.address, Some(authority.client(Some(&svid), &[b"h2"]))).await.unwrap();
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    let response = stream.next().await.unwrap();
    stream.ack(&response).await;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    assert!(client.delta(DeltaDiscoveryRequest::default()).await.is_err(), "on the same connection");
}

#[tokio::test]
async fn a_group_that_is_gone_is_not_served() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let mut client = Client::connect(&server, &authority, EAST).await;
    let early = client.delta(DeltaDiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable, "nothing is published yet: {early}");
    server.cache.publish("east", set(&[("a", "1")]));
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    stream.next().await.unwrap();
    server.cache.remove("east");
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    let late = client.delta(DeltaDiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(late.code(), Code::Unavailable);
    server.cache.publish("east", set(&[("a", "2")]));
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().resources.len(), 1);
}

#[tokio::test]
async fn who_is_not_admitted_any_more_gets_nothing_new() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1")]));
    server.cache.publish("west", set(&[("w", "1")]));
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    stream.next().await.unwrap();
    server.move_everybody_to("west");
    server.cache.publish("east", set(&[("a", "2")]));
    assert_eq!(stream.next().await.unwrap_err().code(), Code::PermissionDenied);
    let status = client.delta(DeltaDiscoveryRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "the connection stays in its group");
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    let response = stream.next().await.unwrap();
    assert_eq!(stream.contents(&response), ["w=1"]);
}

#[tokio::test]
async fn a_new_configuration_counts_for_all() {
    let (before, after) = (Authority::new(), Authority::new());
    let server = Server::start(&before);
    server.cache.publish("east", set(&[("a", "1")]));
    let mut old = Client::connect(&server, &before, EAST).await;
    let mut stream = old.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    let response = stream.next().await.unwrap();
    stream.ack(&response).await;
    server.trust(&after);
    assert_eq!(
        stream.next().await.unwrap_err().code(),
        Code::Unavailable,
        "who was verified by the old roots"
    );
    assert!(server.reports(<[_]>::is_empty).await.is_empty());
    let svid = before.issue(EAST, Duration::from_secs(3600));
    let late = Client::with(server.address, Some(after.client(Some(&svid), &[b"h2"]))).await;
    if let Ok(mut late) = late {
        assert!(
            late.delta(DeltaDiscoveryRequest::default()).await.is_err(),
            "the CA is not trusted any more"
        );
    }
    let mut new = Client::connect(&server, &after, EAST).await;
    let mut new = new.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    assert_eq!(new.next().await.unwrap().resources.len(), 1);
}

#[tokio::test]
async fn one_address_does_not_take_all_handshakes() {
    use tokio::{io::AsyncReadExt as _, net::TcpStream};

    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1")]));
    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut more = TcpStream::connect(server.address).await.unwrap();
    let end = deadline("the end of one more", more.read(&mut [0])).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(server.cache.counts().refused, 1);
    // As soon as one of them is gone, there is a place again.
    drop(held.pop());
    server.until("its end", |counts| counts.refused == 2).await;
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().resources.len(), 1);
}

#[tokio::test]
async fn a_large_set_comes_in_one_response() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    let body = "x".repeat(1 << 20);
    let names: Vec<String> = (0..24).map(|number| format!("resource-{number:02}")).collect();
    let resources: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), body.as_str())).collect();
    server.cache.publish("east", set(&resources));
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    let response = stream.next().await.unwrap();
    assert_eq!(response.resources.len(), 24);
}

#[tokio::test]
async fn a_request_without_a_type_ends_the_stream() {
    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1")]));
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    stream.next().await.unwrap();
    stream.send(DeltaDiscoveryRequest::default()).await;
    assert_eq!(stream.next().await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_end_of_the_server_is_told_and_does_not_take_long() {
    let authority = Authority::new();
    let mut server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1")]));
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.delta(DeltaDiscoveryRequest::default()).await.unwrap();
    stream.next().await.unwrap();
    // A client that never finishes its handshake does not hold the server up.
    let silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let ended = server.stop();
    assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    deadline("the server ends", ended).await;
    assert!(tokio::net::TcpStream::connect(server.address).await.is_err());
    drop(silent);
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    use tokio::io::AsyncReadExt as _;

    let authority = Authority::new();
    let server = Server::start(&authority);
    server.cache.publish("east", set(&[("a", "1")]));
    // All at once: each is given ten seconds.
    let unused = Client::handshake(server.address, &authority, EAST).await;
    let mut unused = tokio::spawn(async move {
        let mut stream = unused;
        // What the server says of its settings, and good-bye.
        let mut said = Vec::new();
        stream.read_to_end(&mut said).await
    });
    let mut silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let mut client = Client::connect(&server, &authority, EAST).await;
    let mut stream = client.silent().await.unwrap();
    assert_eq!(stream.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    let mut nothing = Vec::new();
    drop(deadline("the end of a connection without streams", &mut unused).await.unwrap());
    deadline("the end of the handshake", silent.read_to_end(&mut nothing)).await.unwrap();
    assert!(nothing.is_empty());
    server.until("a refusal", |counts| counts.refused == 1 && counts.streams == 1).await;
}
