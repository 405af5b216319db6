//! An external authorizer behind real gRPC ext_authz that evaluates Rego as Authorino does: the policy text gets a
//! package of its own with `default allow = false`, and sees the request as snake_case `input`.
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use ext_authz::{Allowed, Authorizer, CheckedRequest, Denied, authorizer_service};
use http::{HeaderMap, StatusCode};
use hyper::server::conn::http2;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, task::JoinSet};

const PACKAGE: &str = "authorino.authz.quickstart";

/// Rego text that does not compile, or cannot be evaluated.
#[derive(Debug, thiserror::Error)]
#[error("the Rego policy cannot be used: {0}")]
pub(crate) struct RegoError(String);

/// A policy that can be exchanged while requests are being decided.
#[derive(Debug, Clone)]
pub(crate) struct RegoAuthorizer {
    engine: Arc<Mutex<regorus::Engine>>,
}

impl RegoAuthorizer {
    /// # Errors
    /// Text that is no Rego v0.
    pub(crate) fn new(rego: &str) -> Result<Self, RegoError> {
        Ok(Self { engine: Arc::new(Mutex::new(compile(rego)?)) })
    }

    /// Takes effect with the next question; a policy that does not compile leaves the old one in force.
    ///
    /// # Errors
    /// Text that is no Rego v0.
    pub(crate) fn replace(&self, rego: &str) -> Result<(), RegoError> {
        let engine = compile(rego)?;
        *self.engine.lock().unwrap_or_else(PoisonError::into_inner) = engine;
        Ok(())
    }

    fn allows(&self, input: &serde_json::Value) -> Result<bool, RegoError> {
        // A clone shares the compiled policy; evaluating needs `&mut`.
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner).clone();
        engine.set_input_json(&input.to_string()).map_err(|error| RegoError(error.to_string()))?;
        let allow = engine
            .eval_rule(format!("data.{PACKAGE}.allow"))
            .map_err(|error| RegoError(error.to_string()))?;
        Ok(allow == regorus::Value::from(true))
    }
}

fn compile(rego: &str) -> Result<regorus::Engine, RegoError> {
    let mut engine = regorus::Engine::new();
    engine.set_rego_v0(true);
    engine
        .add_policy("quickstart.rego".to_owned(), format!("package {PACKAGE}\ndefault allow = false\n{rego}"))
        .map_err(|error| RegoError(error.to_string()))?;
    Ok(engine)
}

impl Authorizer for RegoAuthorizer {
    async fn check(&self, request: CheckedRequest) -> Result<Allowed, Denied> {
        let reason = match self.allows(&request.authorino_input()) {
            Ok(true) => return Ok(Allowed::default()),
            Ok(false) => "Unauthorized".to_owned(),
            Err(error) => error.to_string(),
        };
        Err(Denied {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            reason: Some(reason),
        })
    }
}

/// Serves the authorizer over gRPC until the future is dropped.
///
/// # Errors
/// The listening socket broke.
pub(crate) async fn serve(listener: TcpListener, authorizer: RegoAuthorizer) -> io::Result<()> {
    let service = TowerToHyperService::new(authorizer_service(authorizer));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let service = service.clone();
        connections.spawn(async move {
            let server = http2::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "quickstart authorizer: connection ended");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const REGO: &str = include_str!("../../quickstart/allowed-repos.rego");
    const NARROWED: &str = include_str!("../../quickstart/allowed-repos-narrowed.rego");

    #[track_caller]
    fn check(rego: &str, arguments: serde_json::Value, expected: bool) {
        let authorizer = RegoAuthorizer::new(rego).unwrap();
        let input =
            json!({"metadata": {"filter_metadata": {"mcp_proxy": {"params": {"arguments": arguments}}}}});
        assert_eq!(authorizer.allows(&input).unwrap(), expected, "{input}");
    }

    #[test]
    fn rego_of_the_quickstart() {
        check(REGO, json!({"repoName": "kubernetes-sigs/kube-agentic-networking"}), true);
        check(REGO, json!({"repoName": "kubernetes-sigs/gateway-api"}), true);
        check(REGO, json!({"repoName": "cncf/toc"}), false);
        check(REGO, json!({"repoName": ["kubernetes-sigs/gateway-api"]}), false);
        check(REGO, json!({}), false);
        check(NARROWED, json!({"repoName": "kubernetes-sigs/kube-agentic-networking"}), true);
        check(NARROWED, json!({"repoName": "kubernetes-sigs/gateway-api"}), false);
    }

    #[test]
    fn a_policy_that_does_not_compile_leaves_the_old_one() {
        let authorizer = RegoAuthorizer::new(REGO).unwrap();
        assert!(authorizer.replace("allow {").is_err());
        let input = json!({"metadata": {"filter_metadata": {"mcp_proxy": {"params": {"arguments":
            {"repoName": "kubernetes-sigs/gateway-api"}}}}}});
        assert!(authorizer.allows(&input).unwrap());
    }
}
