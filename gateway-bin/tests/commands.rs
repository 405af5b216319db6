//! The program itself: exit codes and what it prints.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of it is tests")]
use std::{fs, path::Path, process::Command};

const GOOD: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: kube-agentic-networking}
spec: {controllerName: sigs.k8s.io/kube-agentic-networking-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ns}
spec:
  gatewayClassName: kube-agentic-networking
  listeners: [{name: https, protocol: HTTPS, port: 10001}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: ns}
spec: {ports: [{name: mcp, port: 3001}]}
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XBackend
metadata: {name: server, namespace: ns}
spec: {mcp: {serviceName: server, port: 3001, path: /mcp}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: mcp, namespace: ns}
spec:
  parentRefs: [{name: gw}]
  rules:
  - backendRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}]
---
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: tools, namespace: ns}
spec:
  targetRefs: [{group: agentic.networking.x-k8s.io, kind: XBackend, name: server}]
  rules:
  - name: agent
    source: {type: ServiceAccount, serviceAccount: {name: agent, namespace: ns}}
    authorization: {type: CEL, cel: {expression: "request.mcp.tool_name == 'get-sum'"}}
"#;

/// Runs the program on one file: its exit code, and both of its outputs.
fn program(manifests: &str, arguments: &[&str]) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("all.yaml"), manifests).unwrap();
    run_in(dir.path(), arguments)
}

fn run_in(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_agentic-gateway"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

#[track_caller]
fn check(manifests: &str, arguments: &[&str], code: i32, parts: &[&str]) {
    let (found, text) = program(manifests, arguments);
    assert_eq!(found, code, "{text}");
    for part in parts {
        assert!(text.contains(part), "`{part}` in:\n{text}");
    }
}

#[test]
fn check_prints_a_status_per_object() {
    check(GOOD, &["check", "all.yaml"], 0, &["ok   XAccessPolicy ns/tools", "ok   HTTPRoute ns/mcp"]);
    check(GOOD, &["check", "all.yaml", "-o", "json"], 0, &[r#""accepted": true"#]);
    let bad_cel = GOOD.replace("== 'get-sum'", "==");
    check(&bad_cel, &["check", "."], 1, &["FAIL XAccessPolicy ns/tools", "Accepted=False/InvalidCEL"]);
    check(&bad_cel, &["check", ".", "-o", "json"], 1, &[r#""accepted": false"#, "InvalidCEL"]);
}

#[test]
fn what_an_api_server_would_refuse_is_refused_with_its_place() {
    let place = ["all.yaml", "document 4", "XBackend ns/server"];
    let bad = GOOD.replace("port: 3001, path", "port: 70000, path");
    check(&bad, &["check", "all.yaml"], 1, &place);
    check(&bad, &["check", "all.yaml", "-o", "json"], 1, &[r#""accepted": false"#, r#""document": 4"#]);
    check(&bad, &["run", "--manifests", "all.yaml", "--admin-addr", "127.0.0.1:0"], 1, &place);
    check("", &["check", "missing.yaml"], 1, &["missing.yaml"]);
}

#[test]
fn run_says_what_it_needs() {
    let run = ["run", "--manifests", "all.yaml", "--admin-addr", "127.0.0.1:0", "--identity-dir", "."];
    check(GOOD, &run, 1, &["listener `https`", "credential-bundle.pem", "--identity-dir"]);
    let (code, text) = program(GOOD, &["run"]);
    assert_eq!(code, 2, "{text}");
}

#[test]
fn explain_says_what_decided() {
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-sum","arguments":{}}}"#;
    let call = |identity: &str| {
        let id = format!("spiffe://cluster.local/ns/ns/sa/{identity}");
        let arguments = [
            "explain",
            "all.yaml",
            "--gateway",
            "ns/gw",
            "--identity",
            &id,
            "--path",
            "/mcp",
            "--body",
            body,
            "-o",
            "json",
        ];
        let (code, text) = program(GOOD, &arguments);
        assert_eq!(code, 0, "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    let allowed = call("agent");
    assert_eq!(allowed["decision"], "allow");
    assert_eq!(allowed["policies"][0]["policy"], "ns/tools");
    assert_eq!(allowed["policies"][0]["rules"][0]["outcome"], "matches");
    assert_eq!(call("other")["decision"], "deny");
    check(GOOD, &["explain", ".", "--gateway", "ns/gw", "--path", "/mcp/../x"], 0, &["reject", "400"]);
    check(GOOD, &["explain", ".", "--gateway", "ns/other"], 1, &["ns/other", "ns/gw"]);
}
