//! Delegated requests: the authorizers, one after the other.
use authz_core::Effect;
use bytes::Bytes;
use ext_authz::{Check, Denied, HeaderChange, Unreachable, Verdict};
use http::{Response, Uri, Version, request::Parts};
use mcp_jsonrpc::Message;
use policy_model::ExternalAuth;

use crate::{
    Admitted, Context, HeadTraffic, Outcome, Subject, admit_body,
    decide::{DENIED_IN_COMPANY, outcome, path_and_query},
    request_host,
    upstream::with_query,
};

/// What is to be read again when authorizers are asked: the messages borrow from the body and cannot travel with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    Head(HeadTraffic),
    Body,
    Unread,
}

impl Carries {
    pub(crate) fn of(subject: &Subject<'_>) -> Self {
        match subject {
            Subject::Head(head) => Self::Head(*head),
            Subject::Body(_) => Self::Body,
            Subject::Unread => Self::Unread,
        }
    }
}

/// What the authorizers that allowed asked for.
#[derive(Debug, Default)]
pub(crate) struct Granted {
    pub(crate) request_headers: Vec<HeaderChange>,
    pub(crate) response_headers: Vec<HeaderChange>,
    /// The target with their changes to the query.
    pub(crate) uri: Option<Uri>,
    /// Who was asked (noted only where a change of policy can end an event stream).
    pub(crate) asked: Vec<ExternalAuth>,
}

/// A request back from the authorizers.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) context: Context,
    pub(crate) parts: Parts,
    pub(crate) verdict: Result<Granted, Response<Bytes>>,
}

/// Asks about every delegated message, in order; the first denial ends it.
pub(crate) async fn ask_all(context: Context, parts: Parts, body: Bytes, carries: Carries) -> Asked {
    let verdict = match carries {
        Carries::Head(head) => ask_about(&context, &parts, &body, &Subject::Head(head)).await,
        Carries::Unread => ask_about(&context, &parts, &body, &Subject::Unread).await,
        Carries::Body => match admit_body(&parts, &body, context.backend, &context.options) {
            Ok(admitted) => ask_about(&context, &parts, &body, &Subject::Body(admitted)).await,
            Err(rejection) => {
                context.observe_rejection(&rejection);
                Err(rejection.into_response())
            }
        },
    };
    Asked { context, parts, verdict }
}

/// A denial by an authorizer, with the word for the log.
struct Refused {
    word: Option<&'static str>,
    detail: Option<String>,
    response: Response<Bytes>,
}

async fn ask_about(
    context: &Context,
    parts: &Parts,
    body: &Bytes,
    subject: &Subject<'_>,
) -> Result<Granted, Response<Bytes>> {
    let mut granted = Granted::default();
    let (mut query_set, mut query_remove) = (Vec::new(), Vec::new());
    let mut refused = None;
    for (at, traffic) in subject.traffic().enumerate() {
        let message = match traffic {
            authz_core::Traffic::Message(message) => Some(message),
            _ => None,
        };
        let decision = context.decide(parts, traffic);
        // Local rules have spoken before (all messages of a batch first); this only keeps the two from drifting apart.
        if decision.effect == Effect::Deny {
            let response = subject.denial(&context.options);
            refused = Some((at, Refused { word: None, detail: None, response }));
            break;
        }
        for authorizer in decision.authorizers() {
            let verdict = match message.and_then(unjudgeable) {
                Some(why) => Verdict::Unreachable(Unreachable::Unjudgeable(why)),
                None => context.ask.ask(authorizer, check(context, parts, body, message)).await,
            };
            match judge(verdict, context, subject) {
                Ok(allowed) => {
                    granted.request_headers.extend(allowed.request_headers);
                    granted.response_headers.extend(allowed.response_headers);
                    query_set.extend(allowed.query_set);
                    query_remove.extend(allowed.query_remove);
                    if !query_set.is_empty() || !query_remove.is_empty() {
                        granted.uri = with_query(&parts.uri, &query_set, &query_remove);
                        if granted.uri.is_none() {
                            let response = subject.denial(&context.options);
                            let detail = Some("its query parameters do not fit into the request".to_owned());
                            refused = Some((at, Refused { word: Some("nonsense"), detail, response }));
                            break;
                        }
                    }
                    if context.recheck.is_some() {
                        granted.asked.extend(context.engine.authorizer(authorizer).cloned());
                    }
                }
                Err(refusal) => {
                    refused = Some((at, *refusal));
                    break;
                }
            }
        }
        if refused.is_some() {
            break;
        }
    }
    report(context, parts, subject, refused.as_ref());
    match refused {
        None => Ok(granted),
        Some((_, refused)) => Err(refused.response),
    }
}

/// One outcome per message: what the authorizers said where they were asked.
fn report(context: &Context, parts: &Parts, subject: &Subject<'_>, refused: Option<&(usize, Refused)>) {
    if context.observer.is_none() {
        return;
    }
    for (at, traffic) in subject.traffic().enumerate() {
        let decision = context.decide(parts, traffic);
        let delegated = decision.effect == Effect::Delegate;
        let (effect, authorizer, detail) = match refused {
            None => ("allow", delegated.then_some("allowed"), None),
            Some((refused_at, refused)) if *refused_at == at => {
                ("deny", refused.word, refused.detail.as_deref())
            }
            Some((refused_at, _)) => {
                ("deny", (delegated && at < *refused_at).then_some("allowed"), Some(DENIED_IN_COMPANY))
            }
        };
        context.observe(&Outcome { authorizer, detail, ..outcome(effect, traffic, decision) });
    }
}

fn judge(
    verdict: Verdict,
    context: &Context,
    subject: &Subject<'_>,
) -> Result<ext_authz::Allowed, Box<Refused>> {
    let ours = |word, detail| {
        Box::new(Refused { word: Some(word), detail, response: subject.denial(&context.options) })
    };
    match verdict {
        Verdict::Allowed(allowed) => Ok(allowed),
        Verdict::Denied(denied) if denied.is_plain_forbidden() => Err(ours("denied", denied.reason)),
        Verdict::Denied(denied) => Err(Box::new(theirs(denied))),
        Verdict::Unreachable(Unreachable::TimedOut) => Err(ours("timeout", None)),
        Verdict::Unreachable(Unreachable::Nonsense(why)) => Err(ours("nonsense", Some(why))),
        Verdict::Unreachable(Unreachable::Unjudgeable(why)) => Err(ours("unjudgeable", Some(why.to_owned()))),
        Verdict::Unreachable(Unreachable::Failed(why)) => Err(ours("unreachable", Some(why))),
        Verdict::Unreachable(_) => Err(ours("unreachable", None)),
    }
}

/// An answer that the client must see as it is: a challenge, a redirect.
fn theirs(denied: Denied) -> Refused {
    let mut response = Response::new(denied.body);
    *response.status_mut() = denied.status;
    *response.headers_mut() = denied.headers;
    Refused { word: Some("denied"), detail: denied.reason, response }
}

/// What an authorizer could not see as it will be forwarded: it reads numbers as doubles, and nested values to a depth
/// of 32 (semantics, section 4). A delegated call of which this says why is denied without asking.
pub fn unjudgeable(message: &Message<'_>) -> Option<&'static str> {
    if message.params_have_big_integer() {
        Some("an integer in `params` is beyond 2^53")
    } else if message.params_depth() > 32 {
        Some("`params` nest deeper than 32")
    } else {
        None
    }
}

fn check<'a>(
    context: &'a Context,
    parts: &'a Parts,
    body: &'a Bytes,
    message: Option<&'a Message<'a>>,
) -> Check<'a> {
    let peer = &context.peer;
    let identity = context.identity.as_deref().map(spiffe_id::SpiffeId::as_str);
    Check {
        source: ext_authz::Peer { address: peer.source, principal: identity },
        destination: ext_authz::Peer {
            address: peer.destination,
            principal: peer.destination_id.as_deref().map(spiffe_id::SpiffeId::as_str),
        },
        request_id: &context.request_id,
        method: parts.method.as_str(),
        path_and_query: path_and_query(parts),
        host: request_host(parts).unwrap_or_default(),
        scheme: if peer.tls { "https" } else { "http" },
        http_version: match parts.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        },
        headers: &parts.headers,
        body,
        message,
        time: context.now,
    }
}

/// Whether a body that nobody here reads must be held for an authorizer that wants to see it.
pub(crate) fn wants_body(context: &Context, parts: &Parts, subject: &Subject<'_>) -> bool {
    *subject == Subject::Unread
        && subject.traffic().any(|traffic| {
            let mut authorizers = context.decide(parts, traffic).authorizers();
            authorizers
                .any(|id| context.engine.authorizer(id).is_some_and(|auth| auth.forward_body.is_some()))
        })
}

/// Whether a request may still be served under `context`, by local rules, and by no authorizer that was not asked.
pub(crate) fn is_still_allowed(
    context: &Context,
    parts: &Parts,
    subject: &Subject<'_>,
    asked: &[ExternalAuth],
) -> bool {
    subject.traffic().all(|traffic| {
        let decision = context.decide(parts, traffic);
        decision.effect != Effect::Deny
            && decision
                .authorizers()
                .all(|id| context.engine.authorizer(id).is_some_and(|auth| asked.contains(auth)))
    })
}

/// A message of this body asks for the list of tools.
pub(crate) fn lists_tools(message: &Message<'_>) -> bool {
    message.known_method() == Some(mcp_jsonrpc::Method::ToolsList)
}

/// Whether a body holds MCP traffic of an older revision, of a stateless one, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Stateful,
    Stateless,
    None,
}

impl Protocol {
    pub(crate) fn of(subject: &Subject<'_>) -> Self {
        match subject {
            Subject::Body(Admitted::Mcp { revision, .. }) if revision.is_stateless() => Self::Stateless,
            Subject::Body(Admitted::Mcp { .. })
            | Subject::Head(HeadTraffic::EventStream | HeadTraffic::EndSession) => Self::Stateful,
            _ => Self::None,
        }
    }
}
