//! XBackend's rules, and those of Kubernetes' conditions.
use serde_json::{Value, json};

use super::table::Table;

/// The table of XBackends.
pub(crate) fn table() -> Table {
    let mut table = Table::default();
    table.example(
        "service",
        json!({
            "spec": {"mcp": {"serviceName": "everything", "port": 3001, "path": "/mcp"}},
            "status": {"conditions": [condition("Accepted")]},
        }),
    );
    table.example(
        "hostname",
        json!({"spec": {"mcp": {"hostname": "mcp.example.com", "port": 443, "path": "/"}}}),
    );

    table.at("service", "").required(&["spec"]);
    table.at("service", "/spec").required(&["mcp"]);
    table.at("service", "/spec/mcp").required(&["port"]).cel(
        "exactly one of serviceName and hostname must be set",
        vec![json!({"serviceName": "a", "port": 1}), json!({"hostname": "a", "port": 1})],
        vec![json!({"serviceName": "a", "hostname": "a", "port": 1}), json!({"port": 1})],
    );
    table.at("service", "/spec/mcp/port").range(1, 65535);
    table
        .at("service", "/spec/mcp/path")
        .length(1024, |count| "/".repeat(count))
        .pattern(
            &["/", "/mcp", "/a/b.c~d!$&'()*+,;=:@%20-_"],
            // No query, no fragment, nothing that is no visible ASCII.
            &["mcp", "/a?b=c", "/a#b", "/a b", "/ä", "/a\n", "/a\u{7f}"],
        )
        .default(json!("/mcp"));
    for (example, at) in [("service", "/spec/mcp/serviceName"), ("hostname", "/spec/mcp/hostname")] {
        table.at(example, at).length(253, |count| "a".repeat(count)).pattern(&SUBDOMAINS, &NO_SUBDOMAINS);
    }
    conditions(&mut table, "service", "/status/conditions", false);
    table
}

/// DNS subdomains of RFC 1123.
pub(crate) const SUBDOMAINS: [&str; 5] = ["a", "a-b", "a.b.c", "0.1", "mcp.example.com"];
/// And what is none.
pub(crate) const NO_SUBDOMAINS: [&str; 9] = ["A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a b", "a\n"];

/// A condition with every field.
pub(crate) fn condition(kind: &str) -> Value {
    json!({
        "type": kind,
        "status": "True",
        "observedGeneration": 3,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
        "reason": "Accepted",
        "message": "it is as it should be",
    })
}

/// The rules of a list of conditions.
pub(crate) fn conditions(table: &mut Table, example: &'static str, at: &str, not_empty: bool) {
    let kind = |count: usize| condition(&format!("Type{count}"));
    let rows = table.at(example, at).items(8, kind).unique(
        condition("Accepted"),
        condition("Programmed"),
        condition("Accepted"),
    );
    if not_empty {
        rows.not_empty(condition("Accepted"));
    }
    let field = |name: &str| format!("{at}/0/{name}");
    table.at(example, format!("{at}/0")).required(&[
        "type",
        "status",
        "lastTransitionTime",
        "reason",
        "message",
    ]);
    table.at(example, field("type")).longest(316, |count| "a".repeat(count)).pattern(
        &["Ready", "example.com/Ready", "a.b_c-d"],
        &["", "-a", "a-", "/a", "A.com/a", "a/b/c", "a b"],
    );
    table.at(example, field("status")).one_of(&["True", "False", "Unknown"], &["true", "", "Maybe"]);
    table.at(example, field("observedGeneration")).at_least(0);
    table.at(example, field("lastTransitionTime")).date_time(
        &["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05+01:00"],
        &["", "yesterday", "2026-01-02", "2026-13-02T03:04:05Z"],
    );
    table
        .at(example, field("reason"))
        .length(1024, |count| "a".repeat(count))
        .pattern(&["A", "InvalidCEL", "a_b,c:d9"], &["9a", "_a", "a,", "a b", "a-b"]);
    table.at(example, field("message")).longest(32768, |count| "ä".repeat(count));
}
