"""A model that answers the quickstart's prompts by rule. Everything around it is the real agent."""

import json
import re
from typing import AsyncGenerator

from google.adk.models.base_llm import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.genai import types

REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
PROMPTS = [
    (r"sum of (?P<a>\d+) and (?P<b>\d+)", "local_get-sum", lambda m: {"a": int(m["a"]), "b": int(m["b"])}),
    (r"[Ee]cho back '(?P<text>[^']*)'", "local_echo", lambda m: {"message": m["text"]}),
    (rf"wiki structure of the GitHub repo {REPO}", "remote_read_wiki_structure", lambda m: {"repoName": m["repo"]}),
    (
        rf"What's the GitHub repo {REPO}\?",
        "remote_ask_question",
        lambda m: {"repoName": m["repo"], "question": m.string},
    ),
]


class ScriptedModel(BaseLlm):
    """Known prompt: a call of its tool. Result of a tool: the answer in words. Anything else: what it can do."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        yield LlmResponse(content=types.Content(role="model", parts=[answer(llm_request)]))


def answer(request: LlmRequest) -> types.Part:
    last = request.contents[-1].parts[-1]
    if last.function_response:
        return types.Part(text=said(last.function_response))
    tools = sorted(request.tools_dict)
    for pattern, tool, arguments in PROMPTS:
        match = re.search(pattern, last.text or "")
        if match and tool in tools:
            return types.Part.from_function_call(name=tool, args=arguments(match))
        if match:
            return types.Part(text=f"I have no tool {tool}.")
    return types.Part(text="My tools: " + ", ".join(tools))


def said(response: types.FunctionResponse) -> str:
    result = response.response or {}
    if "error" in result:
        return f"{response.name} failed: {result['error']}"
    content = result.get("content") or result.get("result") or []
    words = [part.get("text", "") for part in content if isinstance(part, dict)]
    return f"{response.name}: " + (" ".join(words) or json.dumps(result))
