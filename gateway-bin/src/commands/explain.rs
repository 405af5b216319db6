//! `explain`: what a live request would get, by the code that a live request goes through.
mod print;

use std::{process::ExitCode, sync::Arc, time::SystemTime};

use anyhow::{Context as _, anyhow, bail};
use authz_core::{Effect, Http, Request as Question, Traffic};
use authz_tower::{Ask, Context, Peer, Rejection, Subject, admit, request_host, unjudgeable};
use http::{
    HeaderValue, Method, Request,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST},
    request::Parts,
};
use spiffe_id::SpiffeId;
use xds_translate::{Protocol, resolve};

use self::print::{Explained, Message};
use super::check::print;
use crate::{
    cli::{ExplainArgs, Output},
    pipeline::{self, Arrival, Plan, Planned, Sessions},
    runtime::{GatewayRuntime, RuntimeSettings},
    tls::{ExtraRoots, Material},
    upstream::{Resolver, UpstreamSettings},
};

pub(super) fn explain(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Clients of authorizers want a runtime, though none is asked.
    let _entered = runtime.enter();
    let manifests = command_line::load(&args.paths)?;
    let resolution = resolve(&manifests.objects, &args.resolution.options());
    let known: Vec<String> = resolution.gateways.keys().map(ToString::to_string).collect();
    let snapshot = resolution
        .gateways
        .into_iter()
        .find_map(|(name, snapshot)| (name == args.gateway).then_some(snapshot))
        .ok_or_else(|| {
            anyhow!("there is no Gateway `{}` of ours; there is: {}", args.gateway, known.join(", "))
        })?;
    let mut snapshot = snapshot;
    let at = match &args.listener {
        None => 0,
        Some(name) => {
            snapshot.listeners.iter().position(|listener| listener.name == *name).ok_or_else(|| {
                anyhow!("the Gateway has no listener `{name}` that can be served; see `check`")
            })?
        }
    };
    let listener =
        snapshot.listeners.get(at).context("the Gateway has no listener that can be served; see `check`")?;
    let (port, protocol, hostname) = (listener.port, listener.protocol, listener.hostname.clone());
    // What is decided does not depend on certificates, and they need not be at hand.
    for listener in &mut snapshot.listeners {
        listener.protocol = Protocol::Http;
        listener.tls = None;
    }
    for backend in snapshot.backends.values_mut() {
        backend.tls = None;
    }
    let settings = RuntimeSettings {
        upstream: UpstreamSettings {
            resolver: Arc::new(Resolver::default()),
            roots: ExtraRoots::default(),
            connect_timeout: std::time::Duration::ZERO,
            idle_timeout: std::time::Duration::ZERO,
        },
        authorizer_timeout: std::time::Duration::ZERO,
        terminates_tls: true,
    };
    let gateway = GatewayRuntime::new(snapshot, &Material::default(), &settings, None, &mut Vec::new());
    let (parts, body) = request(args, hostname.as_deref())?;
    // A plain listener yields no identity, whoever the caller says it is.
    let identity = args.identity.clone().filter(|_| protocol == Protocol::Https).map(Arc::new);
    let arrival = Arrival {
        port,
        listener: (protocol == Protocol::Https).then_some(at),
        identity: identity.as_ref().map(|identity| identity.as_str()),
        tls: protocol == Protocol::Https,
        with_backend: None,
    };
    let explained = decide(args, &gateway, &arrival, identity.as_ref(), &parts, body.as_deref())?;
    print(&match args.output {
        Output::Text => explained.text(),
        Output::Json => format!("{:#}\n", explained.json()),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn request(args: &ExplainArgs, hostname: Option<&str>) -> anyhow::Result<(Parts, Option<Vec<u8>>)> {
    let body = match args.body.as_deref() {
        None => None,
        Some(body) => match body.strip_prefix('@') {
            None => Some(body.as_bytes().to_vec()),
            Some(file) => Some(std::fs::read(file).with_context(|| format!("cannot read `{file}`"))?),
        },
    };
    let method = args.method.clone().unwrap_or(if body.is_some() { Method::POST } else { Method::GET });
    let host = match (&args.host, hostname) {
        (Some(host), _) => host.clone(),
        // A host name that the wildcard takes.
        (None, Some(hostname)) => hostname.replacen("*.", "any.", 1),
        (None, None) => "localhost".to_owned(),
    };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.uri = args.path.parse().with_context(|| format!("`{}` is not a path", args.path))?;
    if !args.path.starts_with('/') {
        bail!("`{}` is not a path; it begins with a slash", args.path);
    }
    let headers = &mut parts.headers;
    headers.insert(HOST, HeaderValue::from_str(&host).with_context(|| format!("`{host}` is no host"))?);
    if method == Method::POST && body.is_some() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    }
    // The first line of a name replaces what is implied; more add to it.
    let mut given = std::collections::BTreeSet::new();
    for (name, value) in &args.headers {
        if given.insert(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        } else {
            headers.append(name.clone(), value.clone());
        }
    }
    if let Some(body) = &body
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    parts.method = method;
    Ok((parts, body))
}

fn decide(
    args: &ExplainArgs,
    gateway: &GatewayRuntime,
    arrival: &Arrival<'_>,
    identity: Option<&Arc<SpiffeId>>,
    parts: &Parts,
    body: Option<&[u8]>,
) -> anyhow::Result<Explained> {
    let planned = match pipeline::plan(gateway, arrival, parts, Sessions::CallersOwn) {
        Plan::Refused(rejection, _) => return Ok(rejected(rejection)),
        Plan::Answered(response, _) => return Ok(Explained::answered(response.status().as_u16())),
        Plan::Forward(planned) => planned,
    };
    let context = context(args, gateway, &planned, arrival, identity)?;
    let subject = match admit(parts, body, &context) {
        Ok(subject) => subject,
        Err(rejection) => return Ok(rejected(rejection).on(&planned)),
    };
    let nanos = context.now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let messages = subject
        .traffic()
        .map(|traffic| {
            let question = Question {
                identity: identity.map(Arc::as_ref),
                listener: &context.listener,
                port: context.port,
                http: Http {
                    method: parts.method.as_str(),
                    path_and_query: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
                    host: request_host(parts).unwrap_or_default(),
                    headers: &parts.headers,
                },
                backend: context.backend,
                traffic,
                now_unix_nanos: i64::try_from(nanos).unwrap_or(i64::MAX),
            };
            let asked = context
                .engine
                .decide(context.levels, &question)
                .authorizers()
                .filter_map(|id| context.engine.authorizer(id))
                .map(|authorizer| {
                    format!("{}:{}", authorizer.backend.object, authorizer.backend.port.unwrap_or_default())
                })
                .collect();
            let cannot_be_asked = match traffic {
                Traffic::Message(message) => unjudgeable(message),
                _ => None,
            };
            Message::new(&traffic, context.engine.explain(context.levels, &question), asked, cannot_be_asked)
        })
        .collect();
    Ok(Explained::decided(messages, &subject_name(&subject)).on(&planned))
}

fn subject_name(subject: &Subject<'_>) -> String {
    match subject {
        Subject::Head(_) => "a request without a body",
        Subject::Body(_) => "a request whose body was read",
        Subject::Unread => "a request whose body no policy looks at",
    }
    .to_owned()
}

fn rejected(rejection: Rejection) -> Explained {
    Explained::rejected(
        rejection.status.as_u16(),
        rejection.detail,
        String::from_utf8_lossy(&rejection.body).into_owned(),
    )
}

fn context(
    args: &ExplainArgs,
    gateway: &GatewayRuntime,
    planned: &Planned,
    arrival: &Arrival<'_>,
    identity: Option<&Arc<SpiffeId>>,
) -> anyhow::Result<Context> {
    let mut options = authz_tower::Options::default();
    options.limits.max_bytes = args.max_body_bytes;
    options.allowed_origins = args.allowed_origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
    let listener = gateway.listeners.get(planned.listener).context("the listener is gone")?;
    Ok(Context {
        engine: Arc::clone(&gateway.snapshot.engine),
        levels: planned.weighted().context("the route has no backend")?.levels,
        identity: identity.cloned(),
        listener: Arc::clone(&listener.name),
        port: arrival.port,
        backend: planned.kind,
        cors_origins: planned.rule.filters.cors.as_ref().map(|cors| Arc::from(cors.allow_origins.as_slice())),
        options: Arc::new(options),
        ask: Arc::clone(&gateway.authorizers) as Arc<dyn Ask>,
        peer: Peer { tls: arrival.tls, ..Peer::default() },
        recheck: None,
        observer: None,
        request_id: Arc::from("explain"),
        now: SystemTime::now(),
    })
}

/// The effect of all messages together: one denial refuses all.
fn together(effects: impl Iterator<Item = Effect>) -> Effect {
    effects.fold(Effect::Allow, |all, one| match (all, one) {
        (Effect::Deny, _) | (_, Effect::Deny) => Effect::Deny,
        (Effect::Delegate, _) | (_, Effect::Delegate) => Effect::Delegate,
        (Effect::Allow, Effect::Allow) => Effect::Allow,
    })
}
