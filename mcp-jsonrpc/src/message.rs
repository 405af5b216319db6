//! What one strict pass over a body yields, borrowed from it.
use std::borrow::Cow;

use crate::Method;

/// A body that holds MCP traffic: one message, or a batch (an array).
#[derive(Debug, Clone, PartialEq)]
pub enum Body<'a> {
    /// One message object.
    One(Message<'a>),
    /// A JSON-RPC batch: never empty, ids pairwise different, at most `Limits::max_batch` messages.
    Batch(Vec<Message<'a>>),
}

impl<'a> Body<'a> {
    /// The messages, one or many.
    pub fn messages(&self) -> &[Message<'a>] {
        match self {
            Self::One(message) => std::slice::from_ref(message),
            Self::Batch(messages) => messages,
        }
    }

    /// Whether the body was an array.
    pub fn is_batch(&self) -> bool {
        matches!(self, Self::Batch(_))
    }
}

/// A strict JSON body that may or may not be MCP (what a plain Service receives).
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// MCP traffic, held to every rule for MCP messages.
    Mcp(Body<'a>),
    /// Strict JSON that is no MCP traffic.
    Other,
}

/// Request, notification or response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Has a method and an id.
    Request,
    /// Has a method and no id.
    Notification,
    /// Has a result or an error, and an id.
    Response,
}

/// The exact JSON token of an id, as it stands in the body: a number or a string in its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id<'a>(pub(crate) &'a str);

impl<'a> Id<'a> {
    /// The token, to be written back as it is.
    pub fn token(self) -> &'a str {
        self.0
    }
}

/// What a message is about: the field that policies look at, decoded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Target<'a> {
    /// The method has no target.
    None,
    /// `params.name` of tools/call and prompts/get.
    Name(Cow<'a, str>),
    /// `params.uri` of resources/read, subscribe, unsubscribe.
    Uri(Cow<'a, str>),
    /// `params.taskId` of tasks/get, result, update, cancel.
    TaskId(Cow<'a, str>),
    /// `params.ref` of completion/complete: `ref.name` of ref/prompt.
    RefPrompt(Cow<'a, str>),
    /// `params.ref` of completion/complete: `ref.uri` of ref/resource.
    RefResource(Cow<'a, str>),
    /// `params.notifications` of subscriptions/listen.
    Subscriptions {
        /// `.resourceSubscriptions[]`
        resources: Vec<Cow<'a, str>>,
        /// `.taskIds[]`
        tasks: Vec<Cow<'a, str>>,
    },
}

/// One MCP message, read strictly. All of it borrows from the body.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    pub(crate) kind: Kind,
    pub(crate) id: Option<Id<'a>>,
    pub(crate) method: Cow<'a, str>,
    pub(crate) known: Option<Method>,
    pub(crate) params: Option<&'a str>,
    pub(crate) arguments: Option<&'a str>,
    pub(crate) target: Target<'a>,
    pub(crate) meta_version: Option<Cow<'a, str>>,
    pub(crate) max_depth: usize,
    pub(crate) has_big_integer: bool,
}

impl<'a> Message<'a> {
    /// Request, notification or response.
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// The id token; `None` for notifications.
    pub fn id(&self) -> Option<Id<'a>> {
        self.id
    }
    /// The decoded method; empty for responses.
    pub fn method(&self) -> &str {
        &self.method
    }
    /// The method, if this crate knows it (exact match). `None` for a `notifications/*` method that came with
    /// an id: that is a request of no known method.
    pub fn known_method(&self) -> Option<Method> {
        self.known
    }
    /// The raw JSON text of `params` (an object).
    pub fn params(&self) -> Option<&'a str> {
        self.params
    }
    /// The raw JSON text of `params.arguments`, if it is there (tools/call: an object).
    pub fn arguments(&self) -> Option<&'a str> {
        self.arguments
    }
    /// What the message is about.
    pub fn target(&self) -> &Target<'a> {
        &self.target
    }
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, decoded.
    pub fn meta_protocol_version(&self) -> Option<&str> {
        self.meta_version.as_deref()
    }
    /// The deepest nesting inside `params`; the message object itself is depth 1 (and the answer where there
    /// are no `params`), `params` depth 2; arrays count as objects do.
    pub fn params_depth(&self) -> usize {
        self.max_depth
    }
    /// Whether `params` hold an integer whose magnitude is over 2^53 (external authorizers read doubles). Any
    /// spelling counts (`1e16`, `9007199254740993.0`): the double nearest to the token is over 2^53, or is 2^53
    /// and the token is not exactly `9007199254740992`.
    pub fn params_have_big_integer(&self) -> bool {
        self.has_big_integer
    }
    /// Whether this is a base protocol message (semantics: initialize, server/discover, ping, tools/list,
    /// completion/complete, logging/setLevel, notifications/* without an id, tasks/get|result|update|cancel,
    /// subscriptions/listen that names no resource and no task, and client responses).
    pub fn is_base_protocol(&self) -> bool {
        match self.kind {
            // A notification's method begins with `notifications/`: the reader admits no other.
            Kind::Response | Kind::Notification => true,
            Kind::Request => match self.known {
                Some(
                    Method::Initialize
                    | Method::ServerDiscover
                    | Method::Ping
                    | Method::ToolsList
                    | Method::CompletionComplete
                    | Method::LoggingSetLevel
                    | Method::TasksGet
                    | Method::TasksResult
                    | Method::TasksUpdate
                    | Method::TasksCancel,
                ) => true,
                Some(Method::SubscriptionsListen) => match &self.target {
                    Target::Subscriptions { resources, tasks } => resources.is_empty() && tasks.is_empty(),
                    _ => false,
                },
                _ => false,
            },
        }
    }
    /// Whether this is tasks/get|result|update|cancel, or a subscriptions/listen that names tasks.
    pub fn is_task(&self) -> bool {
        match self.known {
            Some(Method::TasksGet | Method::TasksResult | Method::TasksUpdate | Method::TasksCancel) => true,
            Some(Method::SubscriptionsListen) => {
                matches!(&self.target, Target::Subscriptions { tasks, .. } if !tasks.is_empty())
            }
            _ => false,
        }
    }
}
