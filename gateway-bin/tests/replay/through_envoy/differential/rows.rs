//! Why Envoy alone denies what policies allow: rows of `docs/envoy-filters.md`, each with what its cases have in common.
use authz_core::BackendKind;
use generators::Carries;
use policy_model::TargetKind;

use super::{Case, sets::Expected};

/// A row of the table, and whether it explains a case.
pub(super) struct Row {
    pub(super) name: &'static str,
    explains: fn(&Case<'_>) -> bool,
}

/// The first row that explains a case.
pub(super) fn explaining(case: &Case<'_>) -> Option<&'static str> {
    ROWS.iter().find(|row| (row.explains)(case)).map(|row| row.name)
}

fn is_twisted(case: &Case<'_>, names: &[&str]) -> bool {
    case.twist.is_some_and(|twist| names.contains(&twist.name))
}

fn body<'c>(case: &Case<'c>) -> &'c str {
    match &case.ask.carries {
        Carries::Mcp(body) => body,
        _ => "",
    }
}

/// Whether a policy that applies says this.
fn policies_say(case: &Case<'_>, what: &str) -> bool {
    case.set
        .policies
        .iter()
        .any(|policy| generators::manifest(policy).to_string().to_lowercase().contains(what))
}

pub(super) static ROWS: [Row; 13] = [
    Row {
        name: "policies outside the subset",
        explains: |case| {
            case.unsupported
                .iter()
                .any(|kind| *kind == TargetKind::Gateway || case.ask.backend != BackendKind::Service)
        },
    },
    Row { name: "Host", explains: |case| case.ask.host.ends_with('.') },
    Row { name: "batches", explains: |case| is_twisted(case, &["a batch of one"]) },
    Row {
        name: "answers of the client",
        explains: |case| !body(case).is_empty() && !body(case).contains(r#""method""#),
    },
    Row {
        name: "subscriptions/listen",
        explains: |case| body(case).contains(r#""method":"subscriptions/listen""#),
    },
    Row { name: "Accept of a POST", explains: |case| is_twisted(case, &["an Accept of JSON alone"]) },
    Row {
        name: "keys with escapes, keys with dots",
        explains: |case| is_twisted(case, &["an escaped key", "a key with a dot"]),
    },
    Row {
        name: "what an authorizer would not see",
        explains: |case| {
            let is_cut = is_twisted(case, &["an array", "a tool's own key with a dot"]);
            let is_ascii = case.ask.headers.iter().all(|(_, value)| value.is_ascii());
            case.expected == Expected::Delegated && (is_cut || body(case).contains("e3") || !is_ascii)
        },
    },
    Row {
        name: "JSON on Services",
        explains: |case| matches!(case.ask.carries, Carries::OtherJson) && !case.set.policies.is_empty(),
    },
    Row {
        name: "regular expressions",
        explains: |case| {
            let is_ascii = case.ask.headers.iter().all(|(_, value)| value.is_ascii());
            !is_ascii && (policies_say(case, "regularexpression") || policies_say(case, ".matches("))
        },
    },
    Row {
        name: "POST without a body",
        explains: |case| {
            let is_bodiless = matches!(case.ask.carries, Carries::NoBody) && case.ask.method == "POST";
            is_bodiless && case.ask.backend == BackendKind::Service
        },
    },
    Row {
        name: "repeated headers",
        explains: |case| case.ask.headers.len() > 1 && policies_say(case, "x-tenant"),
    },
    Row {
        name: "what Envoy's codec and MCP filter refuse",
        explains: |case| is_twisted(case, &["a content type in capitals"]),
    },
];
