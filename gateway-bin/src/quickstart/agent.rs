//! The agent: one `rmcp` client per MCP server, over mTLS through the gateway.
use std::{fmt, sync::Arc};

use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::{CallToolRequestParams, ClientCapabilities, ClientConfig, ContentBlock, Implementation},
    service::RunningService,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};

use super::story::Call;

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A result.
    Success(String),
    /// A JSON-RPC error.
    Refused {
        /// Its code.
        code: i32,
        /// Its message.
        message: String,
    },
    /// Anything else: no answer, or one that makes no sense.
    Broken(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success(text) => f.write_str(text),
            Self::Refused { code, message } => write!(f, "error {code}: {message}"),
            Self::Broken(text) => write!(f, "broken: {text}"),
        }
    }
}

/// One session with one MCP server.
pub(crate) struct Session {
    client: RunningService<RoleClient, ClientConfig>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Opens a session at `url`, over TLS as `tls` says (client certificate included).
    ///
    /// # Errors
    /// TLS, HTTP or MCP initialization failed.
    pub(crate) async fn open(url: &str, tls: rustls::ClientConfig) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build()?;
        let config = StreamableHttpClientTransportConfig::with_uri(Arc::<str>::from(url));
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let info = ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new("quickstart-agent", env!("CARGO_PKG_VERSION")),
        );
        Ok(Self { client: info.serve(transport).await? })
    }

    /// One call of the story.
    pub(crate) async fn make(&self, call: &Call) -> Answer {
        match &call.tool {
            None => self.list().await,
            Some((tool, arguments)) => self.call(tool, arguments.clone()).await,
        }
    }

    /// `tools/list`, all pages.
    async fn list(&self) -> Answer {
        match self.client.list_all_tools().await {
            Ok(tools) => {
                let mut names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
                names.sort_unstable();
                Answer::Success(names.join(", "))
            }
            Err(error) => refusal(error),
        }
    }

    /// `tools/call`
    async fn call(&self, tool: &str, arguments: serde_json::Value) -> Answer {
        let mut call = CallToolRequestParams::new(tool.to_owned());
        if let serde_json::Value::Object(arguments) = arguments {
            call = call.with_arguments(arguments);
        }
        match self.client.call_tool(call).await {
            Ok(result) if result.is_error == Some(true) => Answer::Broken(text_of(&result.content)),
            Ok(result) => Answer::Success(text_of(&result.content)),
            Err(error) => refusal(error),
        }
    }

    /// Ends the session (DELETE).
    pub(crate) async fn close(self) {
        if let Err(error) = self.client.cancel().await {
            tracing::debug!(%error, "quickstart agent: session ended badly");
        }
    }
}

fn refusal(error: ServiceError) -> Answer {
    match error {
        ServiceError::McpError(error) => {
            Answer::Refused { code: error.code.0, message: error.message.into_owned() }
        }
        other => Answer::Broken(other.to_string()),
    }
}

fn text_of(content: &[ContentBlock]) -> String {
    let parts: Vec<_> = content
        .iter()
        .map(|block| match block {
            ContentBlock::Text(text) => text.text.clone(),
            ContentBlock::Image(image) => format!("({})", image.mime_type),
            _ => "(other content)".to_owned(),
        })
        .collect();
    parts.join(" ")
}
