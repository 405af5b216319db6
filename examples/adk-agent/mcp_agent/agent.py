"""The agent of the quickstart: Google ADK with two MCP servers, both reached through the gateway.

Settings (environment):
  LOCAL_MCP_URL, REMOTE_MCP_URL   where the servers are; by default through a sidecar on 127.0.0.1:15001
  AGENT_MODEL                     `scripted` (default; no model and no token), or a LiteLLM name, as
                                  `ollama_chat/qwen2.5:7b` or `huggingface/Qwen/Qwen2.5-72B-Instruct`
"""

import os

from google.adk.agents import LlmAgent
from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams

from .scripted_model import ScriptedModel

SIDECAR = "http://127.0.0.1:15001"


def model():
    name = os.environ.get("AGENT_MODEL", "scripted")
    if name == "scripted":
        return ScriptedModel(model="scripted")
    from google.adk.models.lite_llm import LiteLlm  # pip install litellm

    return LiteLlm(model=name)


def toolset(name):
    url = os.environ.get(f"{name.upper()}_MCP_URL", f"{SIDECAR}/{name}/mcp")
    return McpToolset(connection_params=StreamableHTTPConnectionParams(url=url, timeout=10), tool_name_prefix=name)


root_agent = LlmAgent(
    name="mcp_agent",
    model=model(),
    instruction=(
        "You help with sums and with questions about GitHub repositories. Use the tools that you have: those that begin "
        "with `local_` for sums and echoes, those that begin with `remote_` for repositories. If a tool refuses, say so "
        "and say why."
    ),
    tools=[toolset("local"), toolset("remote")],
)
