//! A CheckResponse as a [`Verdict`], and back.
use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            HeaderValue as HeaderLine, HeaderValueOption, QueryParameter,
            header_value_option::HeaderAppendAction,
        },
        service::auth::v3::{
            CheckResponse, DeniedHttpResponse, OkHttpResponse, check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::{
        protobuf::{BoolValue, Struct, value::Kind},
        rpc::Status,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tonic::Code;

use crate::{Allowed, Denied, HeaderChange, Unreachable, Verdict, headers, json};

/// Where an authorizer says why it denied (Authorino).
pub(crate) const REASON: &str = "x-ext-auth-reason";
const DECISION_ID: &str = "decision_id";
/// Entries in any one list of an answer; more is nonsense.
const MAX_ENTRIES: usize = 256;

type Answer<T> = Result<T, Unreachable>;

/// What a CheckResponse means. Only status `OK` without a denial allows.
pub(crate) fn to_verdict(response: CheckResponse) -> Verdict {
    let Some(status) = response.status else {
        return Verdict::Unreachable(nonsense("the answer has no status"));
    };
    let verdict = match response.http_response {
        Some(HttpResponse::ErrorResponse(_)) => {
            Err(Unreachable::Failed(format!("the authorizer met an error of its own: `{}`", status.message)))
        }
        Some(HttpResponse::DeniedResponse(denied)) => to_denied(denied, status.message).map(Verdict::Denied),
        _ if status.code != i32::from(Code::Ok) => Ok(Verdict::Denied(plain_denial(status.message))),
        Some(HttpResponse::OkResponse(ok)) => {
            to_allowed(ok, response.dynamic_metadata.as_ref()).map(Verdict::Allowed)
        }
        None => Ok(Verdict::Allowed(Allowed {
            decision_id: response.dynamic_metadata.as_ref().and_then(decision_id),
            ..Default::default()
        })),
    };
    verdict.unwrap_or_else(Verdict::Unreachable)
}

/// The status of a denial: 300 to 599, anything else is 403.
pub(crate) fn denial_status(code: Option<u16>) -> StatusCode {
    code.filter(|code| (300..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .unwrap_or(StatusCode::FORBIDDEN)
}

pub(crate) fn nonsense(what: impl Into<String>) -> Unreachable {
    Unreachable::Nonsense(what.into())
}

fn plain_denial(message: String) -> Denied {
    Denied {
        status: StatusCode::FORBIDDEN,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        reason: Some(message).filter(|message| !message.is_empty()),
    }
}

fn to_denied(denied: DeniedHttpResponse, message: String) -> Answer<Denied> {
    let mut fields = HeaderMap::new();
    check_length("headers", denied.headers.len())?;
    for option in denied.headers {
        if let Some(change) = to_change(option, HeaderAppendAction::AppendIfExistsOrAdd)? {
            change.apply(&mut fields);
        }
    }
    let reason = fields.get(REASON).map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned());
    headers::clean_denial(&mut fields);
    Ok(Denied {
        status: denial_status(denied.status.and_then(|status| u16::try_from(status.code).ok())),
        headers: fields,
        body: denied.body.into(),
        reason: reason.or(Some(message)).filter(|reason| !reason.is_empty()),
    })
}

fn to_allowed(ok: OkHttpResponse, metadata: Option<&Struct>) -> Answer<Allowed> {
    #[expect(deprecated, reason = "older authorizers answer with it")]
    let decision_id =
        metadata.and_then(decision_id).or_else(|| ok.dynamic_metadata.as_ref().and_then(decision_id));
    // The protocol's default differs: a request header is replaced, a response header is added.
    let mut request_headers = to_changes(ok.headers, HeaderAppendAction::OverwriteIfExistsOrAdd)?;
    check_length("headers_to_remove", ok.headers_to_remove.len())?;
    for name in ok.headers_to_remove {
        request_headers.extend(to_name(&name)?.map(HeaderChange::Remove));
    }
    check_length("query_parameters_to_set", ok.query_parameters_to_set.len())?;
    check_length("query_parameters_to_remove", ok.query_parameters_to_remove.len())?;
    Ok(Allowed {
        request_headers,
        response_headers: to_changes(ok.response_headers_to_add, HeaderAppendAction::AppendIfExistsOrAdd)?,
        query_set: ok.query_parameters_to_set.into_iter().map(|query| (query.key, query.value)).collect(),
        query_remove: ok.query_parameters_to_remove,
        decision_id,
    })
}

fn check_length(list: &str, length: usize) -> Answer<()> {
    if length > MAX_ENTRIES {
        return Err(nonsense(format!("`{list}` has {length} entries, more than {MAX_ENTRIES}")));
    }
    Ok(())
}

fn to_changes(options: Vec<HeaderValueOption>, default: HeaderAppendAction) -> Answer<Vec<HeaderChange>> {
    check_length("headers", options.len())?;
    let mut changes = Vec::with_capacity(options.len());
    for option in options {
        if let Some(change) = to_change(option, default)?
            && !headers::is_protected(change.name().as_str())
        {
            changes.push(change);
        }
    }
    Ok(changes)
}

/// One change, `None` for a pseudo-header. `default`: what the protocol's default action means for this list.
fn to_change(option: HeaderValueOption, default: HeaderAppendAction) -> Answer<Option<HeaderChange>> {
    #[expect(deprecated, reason = "older authorizers answer with it")]
    let append = option.append;
    let action = match (append, HeaderAppendAction::try_from(option.append_action)) {
        (Some(BoolValue { value: true }), _) => HeaderAppendAction::AppendIfExistsOrAdd,
        (Some(BoolValue { value: false }), _) => HeaderAppendAction::OverwriteIfExistsOrAdd,
        (None, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => default,
        (None, Ok(action)) => action,
        (None, Err(_)) => return Err(nonsense("a header has an unknown append action")),
    };
    let Some(line) = option.header else { return Err(nonsense("a header option without header")) };
    if line.key.starts_with(':') {
        return Ok(None);
    }
    let name = parse_name(&line.key)?;
    let value = match (line.value.is_empty(), line.raw_value.is_empty()) {
        (false, false) => return Err(nonsense(format!("header `{name}` has both a value and a raw value"))),
        (_, true) => HeaderValue::try_from(line.value),
        (true, false) => HeaderValue::try_from(line.raw_value),
    };
    let Ok(value) = value else { return Err(nonsense(format!("the value of header `{name}` is not valid"))) };
    Ok(Some(match action {
        HeaderAppendAction::AppendIfExistsOrAdd => HeaderChange::Append(name, value),
        HeaderAppendAction::AddIfAbsent => HeaderChange::AddIfAbsent(name, value),
        HeaderAppendAction::OverwriteIfExistsOrAdd => HeaderChange::Set(name, value),
        HeaderAppendAction::OverwriteIfExists => HeaderChange::SetIfPresent(name, value),
    }))
}

/// A header that an authorizer may change, `None` for one it may not.
fn to_name(name: &str) -> Answer<Option<HeaderName>> {
    if name.starts_with(':') {
        return Ok(None);
    }
    parse_name(name).map(|name| Some(name).filter(|name| !headers::is_protected(name.as_str())))
}

fn parse_name(name: &str) -> Answer<HeaderName> {
    match HeaderName::try_from(name) {
        Ok(parsed) => Ok(parsed),
        Err(_) => Err(nonsense(format!("`{}` is no header name", name.escape_debug()))),
    }
}

fn decision_id(metadata: &Struct) -> Option<String> {
    match metadata.fields.get(DECISION_ID)?.kind.as_ref()? {
        Kind::StringValue(id) => Some(id.clone()),
        _ => None,
    }
}

/// The CheckResponse that says this.
pub(crate) fn from_decision(decision: Result<Allowed, Denied>) -> CheckResponse {
    match decision {
        Ok(allowed) => from_allowed(allowed),
        Err(denied) => from_denied(&denied),
    }
}

fn from_allowed(allowed: Allowed) -> CheckResponse {
    let mut ok = OkHttpResponse::default();
    for change in allowed.request_headers {
        match change {
            HeaderChange::Remove(name) => ok.headers_to_remove.push(name.as_str().to_owned()),
            change => ok.headers.extend(from_change(change)),
        }
    }
    ok.response_headers_to_add = allowed.response_headers.into_iter().filter_map(from_change).collect();
    ok.query_parameters_to_set =
        allowed.query_set.into_iter().map(|(key, value)| QueryParameter { key, value }).collect();
    ok.query_parameters_to_remove = allowed.query_remove;
    CheckResponse {
        status: Some(Status::default()),
        dynamic_metadata: allowed
            .decision_id
            .map(|id| Struct { fields: [(DECISION_ID.to_owned(), json::string(id))].into() }),
        http_response: Some(HttpResponse::OkResponse(ok)),
    }
}

fn from_denied(denied: &Denied) -> CheckResponse {
    let code = if denied.status == StatusCode::UNAUTHORIZED {
        Code::Unauthenticated
    } else {
        Code::PermissionDenied
    };
    let headers = denied
        .headers
        .iter()
        .filter_map(|(name, value)| from_change(HeaderChange::Append(name.clone(), value.clone())))
        .collect();
    CheckResponse {
        status: Some(Status {
            code: code.into(),
            message: denied.reason.clone().unwrap_or_default(),
            details: Vec::new(),
        }),
        dynamic_metadata: None,
        http_response: Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code: denied.status.as_u16().into() }),
            headers,
            body: String::from_utf8_lossy(&denied.body).into_owned(),
        })),
    }
}

/// `None` for a removal, which this list cannot express.
fn from_change(change: HeaderChange) -> Option<HeaderValueOption> {
    let (name, value, action) = match change {
        HeaderChange::Append(name, value) => (name, value, HeaderAppendAction::AppendIfExistsOrAdd),
        HeaderChange::AddIfAbsent(name, value) => (name, value, HeaderAppendAction::AddIfAbsent),
        HeaderChange::Set(name, value) => (name, value, HeaderAppendAction::OverwriteIfExistsOrAdd),
        HeaderChange::SetIfPresent(name, value) => (name, value, HeaderAppendAction::OverwriteIfExists),
        HeaderChange::Remove(_) => return None,
    };
    let mut line = HeaderLine { key: name.as_str().to_owned(), ..Default::default() };
    match value.to_str() {
        Ok(text) => line.value = text.to_owned(),
        Err(_) => line.raw_value = value.as_bytes().to_vec(),
    }
    // An append must be asked for with the deprecated field too: without it, request headers are replaced.
    let append = (action == HeaderAppendAction::AppendIfExistsOrAdd).then_some(BoolValue { value: true });
    #[expect(deprecated, reason = "older proxies read only this field")]
    Some(HeaderValueOption {
        header: Some(line),
        append,
        append_action: action.into(),
        keep_empty_value: false,
    })
}

#[cfg(test)]
mod tests;
