//! The server half: write an authorizer in a few lines.
use std::future::Future;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;

use crate::{Allowed, Denied};

/// A CheckRequest with accessors for what MCP authorizers look at.
#[derive(Debug, Clone)]
pub struct CheckedRequest {
    /// The request as it came.
    pub request: CheckRequest,
}

impl CheckedRequest {
    /// `attributes.source.principal`
    pub fn principal(&self) -> Option<&str> {
        todo!()
    }
    /// `filter_metadata["mcp_proxy"]` as JSON: `{jsonrpc, id, method, params}`.
    pub fn mcp(&self) -> Option<serde_json::Value> {
        todo!()
    }
    /// The whole request as Authorino's and OPA's policies see its attributes, snake_case (Authorino: `input`):
    /// `{"metadata":{"filter_metadata":{...}},"request":{"http"...},"source":...,"destination":...}` in the shape of
    /// Authorino's well-known attributes.
    pub fn authorino_input(&self) -> serde_json::Value {
        todo!()
    }
}

/// Decides on questions.
pub trait Authorizer: Send + Sync + 'static {
    /// One question.
    fn check(&self, request: CheckedRequest) -> impl Future<Output = Result<Allowed, Denied>> + Send;
}

/// The gRPC service of an authorizer, for `tonic::transport::Server` or any tower server.
pub fn authorizer_service<A: Authorizer>(
    authorizer: A,
) -> envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer<
    impl envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization,
> {
    struct Todo;
    #[tonic::async_trait]
    impl envoy_types::pb::envoy::service::auth::v3::authorization_server::Authorization for Todo {
        async fn check(
            &self,
            _: tonic::Request<CheckRequest>,
        ) -> Result<tonic::Response<envoy_types::pb::envoy::service::auth::v3::CheckResponse>, tonic::Status> {
            todo!()
        }
    }
    let _ = authorizer;
    envoy_types::pb::envoy::service::auth::v3::authorization_server::AuthorizationServer::new(Todo)
}
