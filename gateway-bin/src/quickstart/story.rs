//! The rows of the two tables: what the agent is asked, which tools it calls, and what must come of it.
use serde_json::{Value, json};

/// Which MCP server a call goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Local,
    Remote,
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

/// What must come of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Success,
    Forbidden,
}

impl Expected {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Forbidden => "forbidden",
        }
    }
}

/// One call of the agent.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) prompt: &'static str,
    pub(crate) server: Server,
    /// `None`: `tools/list`.
    pub(crate) tool: Option<(&'static str, Value)>,
    pub(crate) expected: Expected,
    /// What a success must contain.
    pub(crate) answer: &'static str,
    /// A success must be nothing but `answer`.
    pub(crate) exact: bool,
}

impl Call {
    pub(crate) fn tool_name(&self) -> &'static str {
        self.tool.as_ref().map_or("tools/list", |(name, _)| name)
    }
}

fn list(prompt: &'static str, server: Server, answer: &'static str) -> Call {
    Call { prompt, server, tool: None, expected: Expected::Success, answer, exact: false }
}

fn call(
    prompt: &'static str,
    server: Server,
    tool: &'static str,
    arguments: Value,
    expected: Expected,
    answer: &'static str,
) -> Call {
    Call { prompt, server, tool: Some((tool, arguments)), expected, answer, exact: false }
}

const AGENTIC: &str = "kubernetes-sigs/kube-agentic-networking";
const GATEWAY_API: &str = "kubernetes-sigs/gateway-api";

fn question(repo: &str) -> Value {
    json!({"repoName": repo, "question": format!("What's the GitHub repo {repo}?")})
}

/// The first table, row by row (its first row is two calls).
pub(crate) fn first_table() -> Vec<Call> {
    use Expected::{Forbidden, Success};
    use Server::{Local, Remote};
    vec![
        list("What can you do?", Local, "echo, get-sum, get-tiny-image"),
        list("What can you do?", Remote, "ask_question, read_wiki_contents, read_wiki_structure"),
        call("What is the sum of 2 and 3?", Local, "get-sum", json!({"a": 2, "b": 3}), Success, "is 5"),
        call("Echo back 'hello'.", Local, "echo", json!({"message": "hello"}), Forbidden, ""),
        call(
            "Read the wiki structure of the GitHub repo kubernetes-sigs/kube-agentic-networking",
            Remote,
            "read_wiki_structure",
            json!({"repoName": AGENTIC}),
            Success,
            AGENTIC,
        ),
        call(
            "What's the GitHub repo kubernetes-sigs/kube-agentic-networking?",
            Remote,
            "ask_question",
            question(AGENTIC),
            Success,
            AGENTIC,
        ),
        call(
            "Read the wiki structure of the GitHub repo kubernetes-sigs/gateway-api",
            Remote,
            "read_wiki_structure",
            json!({"repoName": GATEWAY_API}),
            Success,
            GATEWAY_API,
        ),
        call(
            "What's the GitHub repo kubernetes/kubernetes?",
            Remote,
            "ask_question",
            question("kubernetes/kubernetes"),
            Forbidden,
            "",
        ),
        call(
            "Read the wiki structure of the GitHub repo cncf/toc",
            Remote,
            "read_wiki_structure",
            json!({"repoName": "cncf/toc"}),
            Forbidden,
            "",
        ),
    ]
}

/// The second table: after `kubernetes-sigs/gateway-api` was taken off the authorizer's list.
pub(crate) fn second_table() -> Vec<Call> {
    use Expected::{Forbidden, Success};
    use Server::{Local, Remote};
    vec![
        call("What is the sum of 2 and 3?", Local, "get-sum", json!({"a": 2, "b": 3}), Success, "is 5"),
        call(
            "What's the GitHub repo kubernetes-sigs/kube-agentic-networking?",
            Remote,
            "ask_question",
            question(AGENTIC),
            Success,
            AGENTIC,
        ),
        call(
            "Read the wiki structure of the GitHub repo kubernetes-sigs/gateway-api",
            Remote,
            "read_wiki_structure",
            json!({"repoName": GATEWAY_API}),
            Forbidden,
            "",
        ),
    ]
}

/// What the agent sees of the local server's tools where lists are filtered.
pub(crate) fn filtered_list() -> Call {
    Call { exact: true, ..list("What can you do?", Server::Local, "get-sum, get-tiny-image") }
}
