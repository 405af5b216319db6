//! What the decision cases do not show: sessions and where they stay, and filtered lists.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    wire::{Reply, exchange, replies},
    world::{Feed, Running, World},
};

const AGENT: &str = "spiffe://cluster.local/ns/quickstart-ns/sa/adk-agent-sa";
const OTHER: &str = "spiffe://cluster.local/ns/quickstart-ns/sa/other-agent-sa";

const POLICY: &str = "
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: one-tool, namespace: quickstart-ns}
spec:
  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: local-mcp-backend}]
  rules:
  - name: agent
    source: {type: ServiceAccount, serviceAccount: {name: adk-agent-sa}}
    authorization: {type: InlineTools, tools: [get-sum]}
  - name: other
    source: {type: ServiceAccount, serviceAccount: {name: other-agent-sa}}
    authorization: {type: InlineTools, tools: [get-sum, echo]}
";

async fn post(
    gateway: &Running<'_>,
    identity: &str,
    method: &str,
    params: &Value,
    session: Option<&str>,
) -> Reply {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let session = session.map(|id| format!("mcp-session-id: {id}\r\n")).unwrap_or_default();
    send(gateway, identity, "/local/mcp", &session, &body).await
}

/// The target of the request line, and header lines besides six.
async fn send(gateway: &Running<'_>, identity: &str, target: &str, lines: &str, body: &str) -> Reply {
    let request = format!(
        "POST {target} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\naccept-encoding: gzip\r\n{lines}content-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let mut wire = gateway.connect("https", Some(identity), "localhost").await.unwrap();
    let received = exchange(&mut *wire, request.as_bytes()).await.unwrap();
    let [reply] = <[Reply; 1]>::try_from(replies(&received, false).unwrap()).unwrap();
    reply
}

/// Sessions take turns at endpoints and stay there, are their openers' own, and never show what is in them.
pub(crate) async fn sessions_stay_where_they_were_opened(world: &World, feed: &Feed) {
    let manifests = format!("{POLICY}{}", world.second_endpoint());
    let gateway = world.gateway("sessions", feed, &manifests, &[]).await;
    let initialize = json!({"protocolVersion": "2025-11-25", "capabilities": {},
                            "clientInfo": {"name": "c", "version": "1"}});
    let call = json!({"name": "get-sum"});
    let mut servers = BTreeSet::new();
    for _ in 0..4 {
        let opened = post(&gateway, AGENT, "initialize", &initialize, None).await;
        let server = opened.header("x-upstream").unwrap();
        let id = opened.header("mcp-session-id").unwrap();
        assert!(!id.contains("session"), "{id}");
        world.memory.take_seen();
        for _ in 0..3 {
            assert_eq!(post(&gateway, AGENT, "tools/call", &call, Some(id)).await.status, 200);
        }
        let seen = world.memory.take_seen();
        assert_eq!(seen.len(), 3);
        for seen in seen {
            assert_eq!(seen.upstream, server);
            assert_eq!(seen.header("mcp-session-id"), Some(format!("{server}-session").as_str()));
        }
        for (identity, id) in [(OTHER, id), (AGENT, &id[1..]), (AGENT, "mcp-everything-svc-session")] {
            assert_eq!(post(&gateway, identity, "tools/call", &call, Some(id)).await.status, 404, "{id}");
        }
        assert_eq!(world.memory.take_seen().len(), 0);
        servers.insert(server.to_owned());
    }
    assert_eq!(servers.len(), 2, "{servers:?}");
    gateway.stop().await;
}

/// Of a list, JSON or event stream, everybody sees what they may call; without the flag, all of it.
pub(crate) async fn lists_are_filtered(world: &World, feed: &Feed) {
    let all = ["get-sum", "echo"].as_slice();
    for (flags, expected) in [(vec!["--filter-lists".to_owned()], &all[..1]), (Vec::new(), all)] {
        let gateway = world.gateway(&format!("lists{}", flags.len()), feed, POLICY, &flags).await;
        for (identity, expected) in [(AGENT, expected), (OTHER, all)] {
            for cursor in ["as-json", "as-event", "as-much"] {
                let reply = post(&gateway, identity, "tools/list", &json!({"cursor": cursor}), None).await;
                let text = reply.text();
                let json = text.strip_prefix("event: message\ndata: ").unwrap_or(&text);
                assert_eq!(cursor == "as-event", json.len() < text.len(), "{text}");
                let answer: Value = serde_json::from_str(json.trim_end()).unwrap();
                let tools: Vec<&str> = answer["result"]["tools"]
                    .as_array()
                    .unwrap_or_else(|| panic!("{reply:?}"))
                    .iter()
                    .map(|tool| tool["name"].as_str().unwrap())
                    .collect();
                assert_eq!(tools, expected, "{identity} {cursor} {flags:?}");
            }
        }
        gateway.stop().await;
    }
    assert_eq!(world.memory.take_seen().len(), 12);
}

/// As many header lines as our own gateway takes, and no more; the host is what the Host header says.
pub(crate) async fn heads_are_taken_as_by_our_own_gateway(world: &World, feed: &Feed) {
    let gateway = world.gateway("heads", feed, POLICY, &[]).await;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum"}}"#;
    // Where they are one too many, Envoy has taken `connection` off.
    for (target, lines, statuses) in [
        ("/local/mcp", 100, 200..=200),
        ("/local/mcp", 102, 431..=431),
        ("http://elsewhere.test/local/mcp", 6, 400..=404),
    ] {
        let more: String = (6..lines).map(|number| format!("x-{number}: 1\r\n")).collect();
        let reply = send(&gateway, AGENT, target, &more, call).await;
        assert!(statuses.contains(&reply.status), "{target}, {lines}: {reply:?}");
        assert_eq!(world.memory.take_seen().len(), usize::from(reply.status == 200), "{target}, {lines}");
    }
    gateway.stop().await;
}
