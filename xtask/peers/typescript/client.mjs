// One agent's visit, with a real TypeScript SDK: `node client.mjs 1|2|2026-07-28 URL [CA CERT KEY]`. Prints a line per
// step; exits 1 at the first that is not as it must be. `2026-07-28` is SDK 2 held to that revision, which has no sessions.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Agent, fetch as undiciFetch } from "undici";

const [sdk, url, ca, cert, key] = process.argv.slice(2);
const options = {};
if (ca) {
  const dispatcher = new Agent({
    connect: { ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key) },
  });
  options.fetch = (target, init) => undiciFetch(target, { ...init, dispatcher });
}

const stateless = sdk === "2026-07-28";
const capabilities = { sampling: {}, elicitation: { form: {} }, roots: {} };
const sampled = { model: "scripted", role: "assistant", content: { type: "text", text: "sampled by the client" } };
const elicited = { action: "accept", content: { name: "Ada" } };
let client, transport;
if (sdk === "1") {
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const types = await import("@modelcontextprotocol/sdk/types.js");
  client = new Client({ name: "interop-typescript-1", version: "1.0.0" }, { capabilities });
  client.setRequestHandler(types.CreateMessageRequestSchema, async () => sampled);
  client.setRequestHandler(types.ElicitRequestSchema, async () => elicited);
  transport = new StreamableHTTPClientTransport(new URL(url), options);
} else {
  const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
  const versionNegotiation = stateless ? { mode: { pin: sdk } } : undefined;
  client = new Client({ name: "interop-typescript-2", version: "1.0.0" }, { capabilities, versionNegotiation });
  client.setRequestHandler("sampling/createMessage", async () => sampled);
  client.setRequestHandler("elicitation/create", async () => elicited);
  transport = new StreamableHTTPClientTransport(new URL(url), options);
}

const step = async (name, run) => {
  await run();
  console.log(`ok ${name}`);
};
const text = (result) => result.content.map((part) => part.text ?? "").join("\n");
const call = (name, args, options) =>
  client.callTool({ name, arguments: args }, ...(sdk === "1" ? [undefined, options] : [options]));

await step(stateless ? "server/discover" : "initialize", () => client.connect(transport));
await step("tools/list", async () => {
  const { tools } = await client.listTools();
  assert.ok(tools.some((tool) => tool.name === "get-sum") && tools.some((tool) => tool.name === "echo"));
});
const sum = async () => assert.match(text(await call("get-sum", { a: 2, b: 3 })), /5/);
await step("get-sum is allowed", sum);
await step("echo is denied with code 403", async () => {
  await assert.rejects(call("echo", { message: "hello" }), (error) => {
    assert.equal(error.code, 403);
    assert.match(error.message, /Access to this tool is forbidden\./);
    return true;
  });
});
if (stateless) {
  await step("the next call is served", sum);
  await client.close();
  process.exit(0);
}
await step("the session is still alive", sum);
await step("progress notifications", async () => {
  const seen = [];
  const result = await call(
    "trigger-long-running-operation",
    { duration: 0.3, steps: 3 },
    { onprogress: ({ progress }) => seen.push(progress) },
  );
  assert.match(text(result), /completed/);
  assert.deepEqual(seen, [1, 2, 3]);
});
await step("sampling round trip", async () => {
  assert.match(text(await call("trigger-sampling-request", { prompt: "hi", maxTokens: 10 })), /sampled by the client/);
});
await step("elicitation round trip", async () => {
  assert.match(text(await call("trigger-elicitation-request", {})), /Ada/);
});
await step("DELETE ends the session", async () => {
  await transport.terminateSession();
  await client.close();
});
