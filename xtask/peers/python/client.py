"""One agent's visit, with a real Python SDK (mcp 1.x or 2.x): `client.py URL [CA CERT KEY]`.

Prints a line per step; exits 1 at the first that is not as it must be.
"""

import asyncio
import ssl
import sys
from importlib.metadata import version

from mcp import ClientSession, types

MAJOR = int(version("mcp").split(".")[0])
if MAJOR == 1:
    import httpx
    from mcp import McpError
    from mcp.client.streamable_http import streamablehttp_client
else:
    import httpx2 as httpx
    from mcp import MCPError as McpError
    from mcp.client.streamable_http import streamable_http_client


def tls(files):
    if not files:
        return True
    ca, cert, key = files
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(cert, key)
    return context


async def sampled(context, params):
    return types.CreateMessageResult(
        model="scripted", role="assistant", content=types.TextContent(type="text", text="sampled by the client")
    )


async def elicited(context, params):
    return types.ElicitResult(action="accept", content={"name": "Ada"})


def text(result):
    return "\n".join(getattr(part, "text", "") for part in result.content)


def expect(name, condition, got=""):
    if not condition:
        raise SystemExit(f"FAILED {name}: {got}")
    print(f"ok {name}", flush=True)


async def visit(session):
    await session.initialize()
    expect("initialize", True)
    names = [tool.name for tool in (await session.list_tools()).tools]
    expect("tools/list", "get-sum" in names and "echo" in names, names)
    result = text(await session.call_tool("get-sum", {"a": 2, "b": 3}))
    expect("get-sum is allowed", "5" in result, result)
    try:
        refused = await session.call_tool("echo", {"message": "hello"})
    except McpError as error:
        refused = error.error
    expect(
        "echo is denied with code 403",
        getattr(refused, "code", None) == 403 and refused.message == "Access to this tool is forbidden.",
        refused,
    )
    result = text(await session.call_tool("get-sum", {"a": 2, "b": 3}))
    expect("the session is still alive", "5" in result, result)

    seen = []

    async def progress(value, total, message):
        seen.append(value)

    arguments = {"duration": 0.3, "steps": 3}
    result = text(await session.call_tool("trigger-long-running-operation", arguments, progress_callback=progress))
    expect("progress notifications", "completed" in result and seen == [1, 2, 3], (result, seen))
    result = text(await session.call_tool("trigger-sampling-request", {"prompt": "hi", "maxTokens": 10}))
    expect("sampling round trip", "sampled by the client" in result, result)
    result = text(await session.call_tool("trigger-elicitation-request", {}))
    expect("elicitation round trip", "Ada" in result, result)


async def main():
    url, *files = sys.argv[1:]
    context = tls(files)
    handlers = {"sampling_callback": sampled, "elicitation_callback": elicited}
    if MAJOR == 1:

        def factory(headers=None, timeout=None, auth=None):
            return httpx.AsyncClient(headers=headers, timeout=timeout, auth=auth, verify=context, trust_env=False)

        async with streamablehttp_client(url, httpx_client_factory=factory) as (read, write, _):
            async with ClientSession(read, write, **handlers) as session:
                await visit(session)
    else:
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=30) as http:
            async with streamable_http_client(url, http_client=http) as streams:
                async with ClientSession(*streams[:2], **handlers) as session:
                    await visit(session)
    expect("DELETE ends the session", True)


asyncio.run(main())
