//! From an admitted request to the engine, and to the observer.
use std::time::{SystemTime, UNIX_EPOCH};

use authz_core::{Decision, Effect, Http, Request, Traffic};
use http::request::Parts;
use mcp_jsonrpc::Target;

use crate::{Context, Outcome, Rejection, Subject, request_host};

impl Context {
    /// What the engine is asked about one message of a request, `parts` being its head as received.
    pub fn request<'a>(&'a self, parts: &'a Parts, traffic: Traffic<'a>) -> Request<'a> {
        Request {
            identity: self.identity.as_deref(),
            listener: &self.listener,
            port: self.port,
            http: Http {
                method: parts.method.as_str(),
                path_and_query: path_and_query(parts),
                host: request_host(parts).unwrap_or_default(),
                headers: &parts.headers,
            },
            backend: self.backend,
            traffic,
            now_unix_nanos: unix_nanos(self.now),
        }
    }

    /// The engine's decision on one message.
    pub(crate) fn decide<'a>(&'a self, parts: &'a Parts, traffic: Traffic<'a>) -> Decision<'a> {
        self.engine.decide(self.levels, &self.request(parts, traffic))
    }

    pub(crate) fn observe(&self, outcome: &Outcome<'_>) {
        if let Some(observer) = &self.observer {
            observer.decided(outcome);
        }
    }

    pub(crate) fn observe_rejection(&self, rejection: &Rejection) {
        self.observe(&Outcome {
            effect: "reject",
            method: "",
            target: None,
            decision: None,
            authorizer: None,
            detail: Some(&rejection.detail),
        });
    }
}

pub(crate) fn path_and_query(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

fn unix_nanos(now: SystemTime) -> i64 {
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

/// Decides on every message by local rules alone: one denial denies, one delegation delegates the rest. Told to the
/// observer unless it is delegated: then the authorizers have the last word.
pub(crate) fn decide_locally(context: &Context, parts: &Parts, subject: &Subject<'_>) -> Effect {
    let (mut effect, mut count, mut last) = (Effect::Allow, 0_u32, None);
    for traffic in subject.traffic() {
        let decision = context.decide(parts, traffic);
        effect = match (effect, decision.effect) {
            (Effect::Deny, _) | (_, Effect::Deny) => Effect::Deny,
            (Effect::Delegate, _) | (_, Effect::Delegate) => Effect::Delegate,
            (Effect::Allow, Effect::Allow) => Effect::Allow,
        };
        count = count.saturating_add(1);
        last = Some((traffic, decision));
    }
    let Some((traffic, decision)) = last else {
        return Effect::Deny;
    };
    if effect == Effect::Delegate || context.observer.is_none() {
        return effect;
    }
    let final_effect = if effect == Effect::Deny { "deny" } else { "allow" };
    if count == 1 {
        context.observe(&outcome(final_effect, traffic, decision));
    } else {
        for traffic in subject.traffic() {
            let decision = context.decide(parts, traffic);
            let in_company = effect == Effect::Deny && decision.effect != Effect::Deny;
            let detail = in_company.then_some(DENIED_IN_COMPANY);
            context.observe(&Outcome { detail, ..outcome(final_effect, traffic, decision) });
        }
    }
    effect
}

pub(crate) const DENIED_IN_COMPANY: &str = "another message of the batch was denied";

/// What came of one message, authorizers aside.
pub(crate) fn outcome<'a>(effect: &'static str, traffic: Traffic<'a>, decision: Decision<'a>) -> Outcome<'a> {
    let (method, target) = match traffic {
        Traffic::Message(message) => {
            let target = match message.target() {
                Target::Name(target)
                | Target::Uri(target)
                | Target::TaskId(target)
                | Target::RefPrompt(target)
                | Target::RefResource(target) => Some(&**target),
                _ => None,
            };
            (message.method(), target)
        }
        _ => ("", None),
    };
    Outcome { effect, method, target, decision: Some(decision), authorizer: None, detail: None }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_nanoseconds_and_saturate() {
        let check = |time, expected| assert_eq!(unix_nanos(time), expected);
        check(UNIX_EPOCH, 0);
        check(UNIX_EPOCH + Duration::from_nanos(7), 7);
        check(UNIX_EPOCH - Duration::from_nanos(7), -7);
        check(UNIX_EPOCH + Duration::from_secs(1 << 40), i64::MAX);
        check(UNIX_EPOCH - Duration::from_secs(1 << 40), i64::MIN);
    }
}
