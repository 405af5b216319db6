//! What is told about requests.
use serde_json::{Value, json};

use crate::support::{AGENT, Upstream, World, allow_tools, manifests};

#[track_caller]
fn has(line: &Value, expected: &Value) {
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&line[key], value, "`{key}` of {line}");
    }
}

#[tokio::test]
async fn one_line_per_request_and_no_secrets_in_it() {
    let upstream = Upstream::json().await;
    let (world, mut lines) = World::start_logged(&manifests(upstream.address, &allow_tools("get-sum"))).await;
    let mut agent = world.client(AGENT).await;
    let secret = "s3cr3t-value";
    let body = |tool: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{tool}","arguments":{{"a":"{secret}"}}}}}}"#
        )
    };
    let token = format!("Bearer {secret}");
    agent.mcp(&body("get-sum"), &[("authorization", &token)]).await.unwrap();
    agent.mcp(&body(&"e".repeat(500)), &[("authorization", &token)]).await.unwrap();
    let long = format!("/nowhere?token={secret}");
    agent.request("GET", &long, &[], "").await.unwrap();
    let mut next = async || {
        let line = lines.recv().await.unwrap();
        assert!(!line.contains(secret), "{line}");
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let allowed = next().await;
    has(
        &allowed,
        &json!({
            "client": "127.0.0.1", "identity": AGENT, "method": "POST", "path": "/mcp", "listener": "https",
            "route": "mcp", "backend": "xbackend/ns/server", "mcp_method": "tools/call", "tool": "get-sum",
            "decision": "allow", "policy": "ns/tools", "rule": "agent", "reason": "allowed", "status": 200,
        }),
    );
    assert!(
        allowed["duration_us"].is_u64() && allowed["request_id"].is_string() && allowed["time"].is_string()
    );
    let denied = next().await;
    has(
        &denied,
        &json!({"decision": "deny", "reason": "no_rule_matches", "status": 200, "tool": "e".repeat(128) + "…"}),
    );
    assert_ne!(denied["request_id"], allowed["request_id"]);
    has(&next().await, &json!({"decision": "reject", "path": "/nowhere", "status": 404}));
}
