//! What a request asks leave for. Most ask one thing; `subscriptions/listen` asks for each resource it names,
//! and for its tasks.
use std::borrow::Cow;

use mcp_jsonrpc::{Message, Method, Target};

use crate::{BackendKind, Request, Traffic, cel::Arguments};

/// Most resources that one `subscriptions/listen` may name: each is matched against every rule.
const MAX_SUBSCRIPTIONS: usize = 256;

type Names<'r> = &'r [Cow<'r, str>];

/// A request while it is decided.
#[derive(Debug)]
pub(crate) struct Case<'r> {
    pub(crate) request: &'r Request<'r>,
    pub(crate) arguments: Arguments<'r>,
}

impl<'r> Case<'r> {
    pub(crate) fn new(request: &'r Request<'r>) -> Self {
        let text = match request.traffic {
            Traffic::Message(message) => message.arguments(),
            _ => None,
        };
        Self { request, arguments: Arguments::new(text) }
    }

    /// How many acts there are: at least one, `None` if they are too many to judge.
    pub(crate) fn acts(&self) -> Option<usize> {
        match self.subscriptions() {
            Some(([], [])) | None => Some(1),
            Some((resources, tasks)) => (resources.len() <= MAX_SUBSCRIPTIONS)
                .then(|| resources.len() + usize::from(!tasks.is_empty())),
        }
    }

    /// The resources and the tasks that a `subscriptions/listen` names.
    fn subscriptions(&self) -> Option<(Names<'r>, Names<'r>)> {
        let Traffic::Message(message) = self.request.traffic else { return None };
        match message.target() {
            Target::Subscriptions { resources, tasks } => Some((resources, tasks)),
            _ => None,
        }
    }

    /// One of them.
    pub(crate) fn act(&self, index: usize) -> Act<'r> {
        if let Some((resources, tasks)) = self.subscriptions()
            && !(resources.is_empty() && tasks.is_empty())
        {
            return match resources.get(index) {
                Some(uri) => Act::Message(Mcp {
                    method: Method::ResourcesSubscribe.name(),
                    target: Some(uri),
                    is_call: false,
                    is_base: false,
                    is_task: false,
                }),
                None => Act::Message(Mcp {
                    method: Method::TasksGet.name(),
                    target: None,
                    is_call: false,
                    is_base: true,
                    is_task: true,
                }),
            };
        }
        match self.request.traffic {
            Traffic::Message(message) => Act::Message(Mcp::of_message(message)),
            Traffic::EventStream | Traffic::EndSession
                if self.request.backend == BackendKind::XBackendMcp =>
            {
                Act::Message(Mcp { method: "", target: None, is_call: false, is_base: true, is_task: false })
            }
            Traffic::EventStream | Traffic::EndSession | Traffic::NoBody | Traffic::OtherJson => Act::NotMcp,
            Traffic::Unparsed => Act::Unparsed,
        }
    }
}

/// One thing that a request asks leave for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Act<'r> {
    Message(Mcp<'r>),
    /// A body that was parsed and is no MCP message, or no body.
    NotMcp,
    /// A body that was not parsed.
    Unparsed,
}

/// The part of an MCP message that rules look at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mcp<'r> {
    /// Empty for responses, event streams and the end of a session.
    pub(crate) method: &'r str,
    /// `params.name` or `params.uri`, where a rule's `params` are compared.
    pub(crate) target: Option<&'r str>,
    /// `tools/call`
    pub(crate) is_call: bool,
    /// A base protocol message.
    pub(crate) is_base: bool,
    /// tasks/*: base protocol, but not from anyone.
    pub(crate) is_task: bool,
}

impl<'r> Mcp<'r> {
    fn of_message(message: &'r Message<'r>) -> Self {
        let target = match message.target() {
            Target::Name(name) => Some(&**name),
            Target::Uri(uri) => Some(&**uri),
            _ => None,
        };
        Self {
            method: message.method(),
            target,
            is_call: message.known_method() == Some(Method::ToolsCall),
            is_base: message.is_base_protocol(),
            is_task: message.is_task(),
        }
    }

    /// A call of this tool.
    pub(crate) fn call(tool: &'r str) -> Self {
        Self {
            method: Method::ToolsCall.name(),
            target: Some(tool),
            is_call: true,
            is_base: false,
            is_task: false,
        }
    }
}
