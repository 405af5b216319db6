//! What a cluster with many policies costs: `cargo run --release -p xds-translate --example scale [POLICIES]`.
//!
//! One Gateway, a fifth as many XBackends as policies, a tenth as many routes, an authorizer for every hundredth policy.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that prints times")]
use std::{env, error::Error, time::Instant};

use policy_model::NamespacedName;
use serde_json::{Value, json};
use xds_translate::{Objects, Options, native, resolve};

fn object(api_version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "team"}, "spec": spec})
}

fn cluster(policies: usize) -> Vec<Value> {
    let agentic = "agentic.networking.x-k8s.io";
    let gateway_api = "gateway.networking.k8s.io/v1";
    let backends = (policies / 5).max(1);
    let mut objects = vec![
        json!({
            "apiVersion": gateway_api, "kind": "GatewayClass", "metadata": {"name": "ours"},
            "spec": {"controllerName": "sigs.k8s.io/kube-agentic-networking-controller"},
        }),
        object(
            gateway_api,
            "Gateway",
            "gateway",
            &json!({"gatewayClassName": "ours", "listeners": [{"name": "https", "port": 443, "protocol": "HTTPS"}]}),
        ),
        object("v1", "Service", "authz", &json!({"ports": [{"port": 50051}]})),
    ];
    for number in 0..backends {
        let spec = json!({"mcp": {"hostname": format!("mcp-{number}.example.com"), "port": 443}});
        objects.push(object(&format!("{agentic}/v0alpha0"), "XBackend", &format!("b-{number}"), &spec));
    }
    for number in 0..(policies / 10).max(1) {
        let backend =
            |number: usize| json!({"group": agentic, "kind": "XBackend", "name": format!("b-{number}")});
        let rule = |number: usize| {
            json!({
                "matches": [{"path": {"type": "PathPrefix", "value": format!("/{number}")}}],
                "backendRefs": [backend(number % backends)],
            })
        };
        let spec =
            json!({"parentRefs": [{"name": "gateway"}], "rules": [rule(2 * number), rule(2 * number + 1)]});
        objects.push(object(gateway_api, "HTTPRoute", &format!("r-{number}"), &spec));
    }
    for number in 0..policies {
        let target =
            json!({"group": agentic, "kind": "XBackend", "name": format!("b-{}", number % backends)});
        let source = json!({"type": "ServiceAccount", "serviceAccount": {"name": format!("agent-{number}")}});
        let authorization = if number % 100 == 0 {
            let service = json!({"kind": "Service", "name": "authz", "port": 50051});
            json!({"type": "ExternalAuth", "externalAuth": {"protocol": "GRPC", "grpc": {}, "backendRef": service}})
        } else {
            json!({"type": "InlineTools", "tools": ["search", "fetch"]})
        };
        let rule = json!({"name": "r", "source": source, "authorization": authorization});
        let spec = json!({"targetRefs": [target], "rules": [rule]});
        objects.push(object(&format!("{agentic}/v0alpha0"), "XAccessPolicy", &format!("p-{number}"), &spec));
    }
    objects
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    println!("{what:<34}{:>9.1} ms", start.elapsed().as_secs_f64() * 1e3);
    done
}

fn main() -> Result<(), Box<dyn Error>> {
    let policies = env::args().nth(1).map_or(Ok(10_000), |count| count.parse())?;
    let options = Options::default();
    let objects = cluster(policies);
    println!("{} objects, {policies} of them policies", objects.len());
    let mut set = Objects::default();
    timed("insert all", || objects.iter().for_each(|object| drop(set.insert(object))));
    let last = objects.last().ok_or("no object")?;
    timed("insert one", || set.insert(last));
    let gateway = NamespacedName::new("team", "gateway");
    let selector = timed("index for select", || native::Selector::new(&set, &options));
    let selected = timed("select for the Gateway", || selector.select(&gateway));
    let resolution = timed("resolve", || resolve(&set, &options));
    let bytes: usize = timed("reduce and encode all", || {
        objects.iter().map(|object| native::Object::new(object).json.len()).sum()
    });
    println!("{} selected, {} statuses, {bytes} bytes sent", selected.len(), resolution.statuses.len());
    Ok(())
}
