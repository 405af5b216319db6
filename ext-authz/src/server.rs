//! The server half: write an authorizer in a few lines.
mod input;

use std::future::Future;

use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse,
    authorization_server::{Authorization, AuthorizationServer},
};

use crate::{Allowed, Denied, json, verdict::answer};

/// Bytes of one question; a 1 MB call comes to a little over 2 MB, as the metadata hold the message twice.
const MAX_QUESTION: usize = 16 << 20;

/// A CheckRequest with accessors for what MCP authorizers look at.
#[derive(Debug, Clone)]
pub struct CheckedRequest {
    /// The request as it came.
    pub request: CheckRequest,
}

impl CheckedRequest {
    /// `attributes.source.principal`: who calls; with mTLS a SPIFFE ID.
    pub fn principal(&self) -> Option<&str> {
        let principal = self.attributes()?.source.as_ref()?.principal.as_str();
        Some(principal).filter(|principal| !principal.is_empty())
    }

    /// `filter_metadata["mcp_proxy"]` as JSON: `{jsonrpc, id, method, params}`. `None` when the request has no MCP
    /// message.
    pub fn mcp(&self) -> Option<serde_json::Value> {
        let metadata = self.attributes()?.metadata_context.as_ref()?;
        metadata.filter_metadata.get(crate::check::MCP_METADATA[0]).map(json::from_struct)
    }

    /// The whole request as Authorino's policies see its attributes (there: `input`), in snake_case, empty fields left
    /// out:
    ///
    /// ```json
    /// {
    ///   "metadata": {"filter_metadata": {"mcp_proxy": {"method": "tools/call", "params": {"name": "echo"}}}},
    ///   "request": {"id": "", "time": {"seconds": 0, "nanos": 0}, "method": "POST", "path": "/mcp?a=b",
    ///               "url_path": "/mcp", "query": "a=b", "host": "", "scheme": "https", "protocol": "HTTP/2",
    ///               "headers": {}, "referer": "", "user_agent": "", "size": 0, "body": "", "raw_body": "",
    ///               "context_extensions": {}},
    ///   "source": {"address": "192.0.2.1", "port": 4711, "principal": "spiffe://cluster.local/ns/a/sa/b"},
    ///   "destination": {"address": "192.0.2.2", "port": 443, "principal": ""},
    ///   "context": {"request": {"http": {}}, "source": {}, "destination": {}, "metadata_context": {}},
    ///   "auth": {}
    /// }
    /// ```
    ///
    /// `context` is the older form of the same, as Envoy's Go types print. Numbers are JSON numbers, integral ones
    /// without a fraction.
    pub fn authorino_input(&self) -> serde_json::Value {
        input::authorino(self.attributes().unwrap_or(&AttributeContext::default()))
    }

    fn attributes(&self) -> Option<&AttributeContext> {
        self.request.attributes.as_ref()
    }
}

/// Decides on questions.
pub trait Authorizer: Send + Sync + 'static {
    /// One question. An error of the authorizer's own is a denial too: say so in [`Denied::reason`].
    fn check(&self, request: CheckedRequest) -> impl Future<Output = Result<Allowed, Denied>> + Send;
}

/// An [`Authorizer`] as tonic's generated service wants it; made by [`authorizer_service`].
#[derive(Debug)]
pub struct AuthorizerServer<A> {
    authorizer: A,
}

#[tonic::async_trait]
impl<A: Authorizer> Authorization for AuthorizerServer<A> {
    async fn check(
        &self,
        request: tonic::Request<CheckRequest>,
    ) -> Result<tonic::Response<CheckResponse>, tonic::Status> {
        let decision = self.authorizer.check(CheckedRequest { request: request.into_inner() }).await;
        Ok(tonic::Response::new(answer::from_decision(decision)))
    }
}

/// The gRPC service of an authorizer, for `tonic::transport::Server` or any tower server. Questions over 16 MiB are
/// refused.
///
/// Removals among [`Allowed::response_headers`] have no form in the protocol and are left out. A body that is not
/// UTF-8 is made so.
pub fn authorizer_service<A: Authorizer>(authorizer: A) -> AuthorizationServer<AuthorizerServer<A>> {
    AuthorizationServer::new(AuthorizerServer { authorizer }).max_decoding_message_size(MAX_QUESTION)
}
