//! The compiled policies.
use policy_model::{ExternalAuth, NamespacedName};
use spiffe_id::SpiffeId;

use crate::{AuthorizerId, Decision, Explanation, Request};

/// What happens where no level has an Allow rule and nothing is delegated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum DefaultAction {
    /// Allowed (the seed's behaviour).
    #[default]
    Allow,
    /// Denied (`--default-action deny`).
    Deny,
}

/// Which two levels apply to a request. Made once per route and backend, not per request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Levels {
    pub(crate) gateway: Option<u32>,
    pub(crate) backend: Option<u32>,
}

/// Compiled policies: shared, immutable.
#[derive(Debug)]
pub struct Engine {
    _private: (),
}

impl Engine {
    /// The levels for a Gateway, and the XBackend that a route chose (`None`: a Service).
    pub fn levels(&self, gateway: &NamespacedName, backend: Option<&NamespacedName>) -> Levels {
        let _ = (gateway, backend);
        todo!()
    }

    /// Decides on one message. Does not allocate unless CEL over arguments is involved.
    pub fn decide(&self, levels: Levels, request: &Request<'_>) -> Decision<'_> {
        let _ = (levels, request);
        todo!()
    }

    /// The whole evaluation in order; its decision equals [`decide`](Self::decide).
    pub fn explain(&self, levels: Levels, request: &Request<'_>) -> Explanation {
        let _ = (levels, request);
        todo!()
    }

    /// Whether a body must be parsed for these levels: on a Service, when an applicable policy (this
    /// listener's) looks at MCP attributes.
    pub fn needs_body(&self, levels: Levels, listener: &str) -> bool {
        let _ = (levels, listener);
        todo!()
    }

    /// Whether some rule could let this identity call this tool, whatever the rest of the request
    /// (`--filter-lists`): what cannot be decided without the call counts as could.
    pub fn could_call(&self, levels: Levels, identity: Option<&SpiffeId>, listener: &str, tool: &str) -> bool {
        let _ = (levels, identity, listener, tool);
        todo!()
    }

    /// The authorizer of that id.
    pub fn authorizer(&self, id: AuthorizerId) -> Option<&ExternalAuth> {
        let _ = id;
        todo!()
    }

    /// All authorizers, in the order of their ids.
    pub fn authorizers(&self) -> &[ExternalAuth] {
        todo!()
    }
}
