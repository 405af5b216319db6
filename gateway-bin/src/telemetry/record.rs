//! What is remembered of one request until its line is written.
use std::sync::{Arc, Mutex, PoisonError};

use authz_core::Reason;
use authz_tower::{Observer, Outcome};
use mcp_jsonrpc::Method;

use super::{Line, Metrics, json::field};

/// Told by the layer what came of each message.
#[derive(Debug)]
pub(crate) struct Record {
    metrics: Arc<Metrics>,
    /// Whether a line will be written.
    logged: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// JSON members of the one message, or objects of several.
    members: String,
    count: usize,
    effect: Option<&'static str>,
    reason: &'static str,
    failure: Option<String>,
}

impl Record {
    pub(crate) fn new(metrics: Arc<Metrics>, logged: bool) -> Self {
        Self { metrics, logged, inner: Mutex::default() }
    }

    /// Refused before policy, for this reason.
    pub(crate) fn rejected(&self, detail: &str) {
        self.before_policy("reject", "rejected");
        if self.logged {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.count = 1;
            field(&mut inner.members, "decision", "reject");
            field(&mut inner.members, "detail", detail);
        }
    }

    /// Answered or refused before policy by the gateway itself.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.before_policy("answer", reason);
    }

    fn before_policy(&self, effect: &'static str, reason: &'static str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.effect = Some(effect);
        inner.reason = reason;
    }

    /// The backend gave no response.
    pub(crate) fn failed(&self, why: String) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(why);
    }

    /// It ended before its response: the client is gone, or nobody may wait any longer. What was decided, and may have been
    /// done, stays.
    pub(crate) fn ended_early(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.effect.is_none() {
            inner.effect = Some("error");
            inner.reason = "ended_early";
        }
        inner.failure.get_or_insert_with(|| "the request ended before its response".to_owned());
    }

    /// Decision and reason of the request as a whole: what refused it, if anything did.
    pub(crate) fn summary(&self) -> (&'static str, &'static str) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.effect.unwrap_or("error"), if inner.effect.is_some() { inner.reason } else { "error" })
    }

    pub(crate) fn write(&self, line: &mut Line) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.count > 1 {
            line.members(&format!("\"messages\":[{{{}}}]", inner.members));
        } else {
            line.members(&inner.members);
        }
        if let Some(failure) = &inner.failure {
            line.field("error", failure);
        }
    }
}

impl Observer for Record {
    fn decided(&self, outcome: &Outcome<'_>) {
        self.metrics.message(Method::from_name(outcome.method), outcome.effect);
        if let Some(result) = outcome.authorizer {
            self.metrics.authorizer(result);
        }
        let level = outcome.decision.as_ref().map(|decision| decision.determining_level());
        let reason = level.map_or("rejected", |level| reason(level.reason));
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.count += 1;
        if inner.effect.is_none_or(|effect| effect == "allow") {
            inner.effect = Some(outcome.effect);
            inner.reason = reason;
        }
        if !self.logged {
            return;
        }
        let members = &mut inner.members;
        let mut own = String::with_capacity(160);
        field(&mut own, "decision", outcome.effect);
        if !outcome.method.is_empty() {
            field(&mut own, "mcp_method", outcome.method);
        }
        if let Some(target) = outcome.target {
            let key = if outcome.method == "tools/call" { "tool" } else { "target" };
            field(&mut own, key, target);
        }
        if let Some(level) = level {
            field(&mut own, "reason", reason);
            if let Some(determining) = &level.determining {
                field(&mut own, "policy", &determining.policy.to_string());
                if let Some(rule) = determining.rule {
                    field(&mut own, "rule", rule);
                }
            }
        }
        if let Some(authorizer) = outcome.authorizer {
            field(&mut own, "authorizer", authorizer);
        }
        if let Some(detail) = outcome.detail {
            field(&mut own, "detail", detail);
        }
        if !members.is_empty() {
            members.push_str("},{");
        }
        members.push_str(&own);
    }
}

/// A name for logs and labels.
fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPolicy => "no_policy",
        Reason::Allowed => "allowed",
        Reason::BaseProtocol => "base_protocol",
        Reason::Delegated => "delegated",
        Reason::NoRuleMatches => "no_rule_matches",
        Reason::FailsClosed => "fails_closed",
        Reason::OverLimit => "over_limit",
        Reason::DefaultDeny => "default_deny",
        _ => "other",
    }
}
