//! One agent's visit with `rmcp`, the Rust SDK: the same steps as the scripts in `xtask/peers`.
#![expect(
    deprecated,
    reason = "newer revisions drop sampling requests; servers of the older ones still send them"
)]
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rmcp::{
    ClientHandler, ErrorData, RoleClient, ServiceError,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, ContentBlock, CreateMessageRequestParams,
        CreateMessageResult, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationCapability,
        Implementation, ProgressNotificationParam, ProtocolVersion, SamplingCapability, SamplingMessage,
    },
    service::{
        ClientLifecycleMode, ClientServiceExt as _, NotificationContext, RequestContext, RunningService,
    },
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};

use super::{
    ALLOWED, CALLS, DELETE, DENIED, DISCOVER, ELICITATION, INITIALIZE, LIST, NEXT, PROGRESS, SAMPLING,
    STILL_ALIVE,
};
use crate::interop::report::Report;

/// What the agent answers when a server asks, and what it was told.
#[derive(Debug, Clone, Default)]
struct Agent {
    progress: Arc<Mutex<Vec<f64>>>,
}

impl ClientHandler for Agent {
    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Ok(CreateMessageResult::new(
            SamplingMessage::assistant_text("sampled by the client"),
            "scripted".to_owned(),
        ))
    }

    async fn create_elicitation(
        &self,
        _request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"name": "Ada"})))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).push(params.progress);
    }

    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.sampling = Some(SamplingCapability::default());
        capabilities.elicitation = Some(ElicitationCapability::default());
        ClientConfig::new(capabilities, Implementation::new("interop-rust", "1.0.0"))
    }
}

/// Makes all the steps, each on the report.
pub(super) async fn visit(report: &mut Report, name: &str, url: &str, tls: rustls::ClientConfig) {
    let step = |step: &str| format!("{name}: {step}");
    let agent = Agent::default();
    let opening = open(agent.clone(), url, Some(tls), ClientLifecycleMode::Initialize);
    let Some(client) = report.step(&step(INITIALIZE), CALLS, opening).await else { return };
    decided(report, name, &client, STILL_ALIVE).await;
    report
        .step(&step(PROGRESS), CALLS, async {
            let arguments = json!({"duration": 0.3, "steps": 3});
            says(&client, "trigger-long-running-operation", arguments, "completed").await?;
            // Notifications have a task of their own: the last one may still be on its way to us.
            while agent.progress.lock().unwrap_or_else(PoisonError::into_inner).len() < 3 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let mut seen = agent.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
            seen.sort_by(f64::total_cmp);
            ensure!(seen == [1.0, 2.0, 3.0], "{seen:?}");
            Ok(())
        })
        .await;
    let prompt = json!({"prompt": "hi", "maxTokens": 10});
    report
        .step(
            &step(SAMPLING),
            CALLS,
            says(&client, "trigger-sampling-request", prompt, "sampled by the client"),
        )
        .await;
    report
        .step(&step(ELICITATION), CALLS, says(&client, "trigger-elicitation-request", json!({}), "Ada"))
        .await;
    report
        .step(&step(DELETE), CALLS, async {
            client.cancel().await?;
            Ok(())
        })
        .await;
}

/// A visit under 2026-07-28, which has no sessions: no `initialize`, every request stands for itself.
pub(super) async fn stateless_visit(report: &mut Report, name: &str, url: &str) {
    let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    let opening = open(Agent::default(), url, None, mode);
    let Some(client) = report.step(&format!("{name}: {DISCOVER}"), CALLS, opening).await else { return };
    decided(report, name, &client, NEXT).await;
}

/// The list, a tool that is allowed, one that is not, and that the first goes on being served.
async fn decided(report: &mut Report, name: &str, client: &RunningService<RoleClient, Agent>, last: &str) {
    let step = |step: &str| format!("{name}: {step}");
    report
        .step(&step(LIST), CALLS, async {
            let tools = client.list_all_tools().await?;
            for wanted in ["get-sum", "echo"] {
                ensure!(tools.iter().any(|tool| tool.name == wanted), "no {wanted} in {tools:?}");
            }
            Ok(())
        })
        .await;
    report.step(&step(ALLOWED), CALLS, says(client, "get-sum", json!({"a": 2, "b": 3}), "5")).await;
    report
        .step(&step(DENIED), CALLS, async {
            match call(client, "echo", json!({"message": "hello"})).await {
                Err(ServiceError::McpError(error)) => {
                    ensure!(error.code.0 == 403, "code {}", error.code.0);
                    ensure!(error.message == "Access to this tool is forbidden.", "`{}`", error.message);
                    Ok(())
                }
                other => bail!("{other:?}"),
            }
        })
        .await;
    report.step(&step(last), CALLS, says(client, "get-sum", json!({"a": 2, "b": 3}), "5")).await;
}

async fn open(
    agent: Agent,
    url: &str,
    tls: Option<rustls::ClientConfig>,
    mode: ClientLifecycleMode,
) -> anyhow::Result<RunningService<RoleClient, Agent>> {
    let mut http = reqwest::Client::builder().no_proxy();
    http = match tls {
        Some(tls) => http.tls_backend_preconfigured(tls),
        // Without roots: there is no HTTPS to be spoken.
        None => http.tls_backend_preconfigured(
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        ),
    };
    let http = http.build()?;
    let config = StreamableHttpClientTransportConfig::with_uri(Arc::<str>::from(url));
    let transport = StreamableHttpClientTransport::with_client(http, config);
    agent.serve_with_lifecycle(transport, mode).await.context("the beginning")
}

async fn call(
    client: &RunningService<RoleClient, Agent>,
    tool: &str,
    arguments: Value,
) -> Result<String, ServiceError> {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    let result =
        client.call_tool(CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments)).await?;
    let texts: Vec<&str> = result
        .content
        .iter()
        .filter_map(|block| match block {
            ContentBlock::Text(text) => Some(text.text.as_str()),
            _ => None,
        })
        .collect();
    Ok(texts.join("\n"))
}

async fn says(
    client: &RunningService<RoleClient, Agent>,
    tool: &str,
    arguments: Value,
    expected: &str,
) -> anyhow::Result<()> {
    let answer = call(client, tool, arguments).await?;
    ensure!(answer.contains(expected), "`{answer}` does not contain `{expected}`");
    Ok(())
}
