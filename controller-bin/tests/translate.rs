//! `agentic-controller translate`: exit codes and what it prints.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "all of it is tests")]
use std::{fs, path::Path, process::Command};

use serde_json::Value;

/// The quickstart, its own copy in each folder, and an identity folder with a root of `cluster.local`.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    fs::create_dir(dir.path().join("manifests")).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join("manifests").join(entry.file_name())).unwrap();
    }
    fs::create_dir(dir.path().join("identity")).unwrap();
    fs::write(dir.path().join("identity/cluster.local.trust-bundle.pem"), root()).unwrap();
    dir
}

fn root() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

fn translate(dir: &Path, arguments: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_agentic-controller"))
        .args(["translate", "manifests", "--gateway", "quickstart-ns/agentic-net-gateway"])
        .args(arguments)
        .current_dir(dir)
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn listeners(said: &Said) -> Vec<Value> {
    let bootstrap: Value = serde_json::from_str(&said.out).unwrap();
    bootstrap["static_resources"]["listeners"].as_array().unwrap().clone()
}

#[test]
fn the_quickstart_is_a_bootstrap() {
    let dir = folder();
    let more = fs::write(dir.path().join("more.pem"), root());
    more.unwrap();
    let said = translate(
        dir.path(),
        &[
            "--identity-dir",
            "identity",
            "--trust-bundle",
            "example.org=more.pem",
            "--listen",
            "10001=127.0.0.1:18443",
            "--processor",
            "/tmp/decide.sock",
            "--max-body-bytes",
            "100000",
            "--admin",
            "/tmp/admin.sock",
        ],
    );
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let listeners = listeners(&said);
    assert_eq!(listeners.len(), 1);
    assert_eq!(listeners[0]["address"]["socket_address"]["port_value"], 18443);
    assert_eq!(listeners[0]["per_connection_buffer_limit_bytes"], 100_000 + 65_536);
    for text in [
        "/tmp/decide.sock",
        "/tmp/admin.sock",
        "identity/credential-bundle.pem",
        "\"example.org\"",
        "\"cluster.local\"",
    ] {
        assert!(said.out.contains(text), "{text}");
    }
}

#[test]
fn what_is_not_served_is_told_and_closed() {
    let dir = folder();
    let said = translate(dir.path(), &[]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("listener `https` is not served") && said.err.contains("--identity-dir"),
        "{}",
        said.err
    );
    assert_eq!(listeners(&said).len(), 0);
}

#[test]
fn a_policy_that_is_not_accepted_is_told() {
    let dir = folder();
    let policy = r#"
apiVersion: agentic.networking.x-k8s.io/v0alpha0
kind: XAccessPolicy
metadata: {name: broken, namespace: quickstart-ns}
spec:
  targetRefs: [{group: agentic.prototype.x-k8s.io, kind: XBackend, name: local-mcp-backend}]
  rules:
  - name: r
    source: {type: SPIFFE, spiffe: "spiffe://cluster.local/ns/a/sa/a"}
    authorization: {type: CEL, cel: {expression: "request.mcp.tool_name =="}}
"#;
    fs::write(dir.path().join("manifests/broken.yaml"), policy).unwrap();
    let said = translate(dir.path(), &["--identity-dir", "identity"]);
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("FAIL XAccessPolicy quickstart-ns/broken") && said.err.contains("InvalidCEL"),
        "{}",
        said.err
    );
    assert_eq!(listeners(&said).len(), 1);
}

/// Nothing is printed where there is nothing that could be run.
#[track_caller]
fn refused(arguments: &[&str], code: i32, what: &str) {
    let dir = folder();
    let said = translate(dir.path(), arguments);
    assert_eq!(said.code, code, "{}", said.err);
    assert!(said.err.contains(what), "{}", said.err);
    assert_eq!(said.out, "");
}

#[test]
fn what_cannot_be_is_refused() {
    for (arguments, code, what) in [
        (&["--envoy-version", "1.37.0"][..], 2, "Envoy `1.37.0` is refused"),
        (&["--envoy-version", "1.35"], 2, "not supported"),
        (&["--policy", "filters", "--envoy-version", "1.38"], 1, "needs Envoy 1.39 or later, not 1.38"),
        (&["--admin", "0.0.0.0:9901"], 2, "neither IP:PORT on loopback"),
        (&["--processor", "10.0.0.1:9000"], 1, "--processor-id"),
        (&["--processor", "decide.sock"], 1, "absolute path"),
        (&["--processor-id", "spiffe://a/b"], 1, "over mTLS"),
        (&["--resolve", "a:1:127.0.0.1"], 1, "give `--resolve` to it"),
        (&["--allowed-origins", "https://a.example"], 1, "give `--allowed-origins` to it"),
        (&["--trust-bundle", "a=missing.pem"], 1, "missing.pem"),
        (&["--trust-bundle", "a=manifests/routes.yaml"], 1, "routes.yaml"),
        (&["--extra-ca", "manifests/routes.yaml"], 1, "holds no PEM certificate"),
        (&["missing.yaml"], 1, "missing.yaml"),
    ] {
        refused(arguments, code, what);
    }
}

#[test]
fn a_gateway_that_is_not_there_is_told_with_those_that_are() {
    let dir = folder();
    let output = Command::new(env!("CARGO_BIN_EXE_agentic-controller"))
        .args(["translate", "manifests", "--gateway", "a/b"])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.contains("no Gateway `a/b`") && err.contains("`quickstart-ns/agentic-net-gateway`"), "{err}");
}

/// Envoy takes one source of roots, so both are in it.
#[test]
fn a_further_root_comes_with_the_systems() {
    let dir = folder();
    let (system, extra) = (root(), root());
    fs::write(dir.path().join("system.pem"), &system).unwrap();
    fs::write(dir.path().join("extra.pem"), &extra).unwrap();
    let said = translate(
        dir.path(),
        &["--identity-dir", "identity", "--extra-ca", "extra.pem", "--system-roots", "system.pem"],
    );
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let bootstrap: Value = serde_json::from_str(&said.out).unwrap();
    let remote = bootstrap["static_resources"]["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|cluster| cluster["name"] == "xbackend/quickstart-ns/remote-mcp-backend")
        .unwrap();
    let common = &remote["transport_socket"]["typed_config"]["common_tls_context"];
    let roots = common["validation_context"]["trusted_ca"]["inline_string"].as_str().unwrap();
    assert!(roots.contains(system.trim()) && roots.contains(extra.trim()));
}

#[test]
fn a_manifest_that_no_api_server_takes_is_told_in_a_line() {
    let dir = folder();
    let gateway = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: a, namespace: b}
spec: {gatewayClassName: 5, listeners: []}
";
    fs::write(dir.path().join("manifests/number.yaml"), gateway).unwrap();
    let said = translate(dir.path(), &[]);
    let expected = "agentic-controller: manifests/number.yaml, document 1, Gateway b/a, spec.gatewayClassName: invalid type: \
                    integer `5`, expected a string\n";
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (1, "", expected));
}
