// Loaded before an MCP server's own code: prints every message with an id that reaches it over HTTP, whatever the server makes
// of it, as a line `asked ID METHOD`.
"use strict";
const { IncomingMessage } = require("node:http");

const bodies = new WeakMap();
const { push } = IncomingMessage.prototype;

function print(body) {
  let messages;
  try {
    messages = [JSON.parse(body)].flat();
  } catch {
    messages = [{ id: "?", method: "?" }];
  }
  for (const message of messages) {
    if (message?.id !== undefined) console.log(`asked ${message.id} ${message.method}`);
  }
}

// Node's HTTP parser hands a request its body by this method, and null at the end.
IncomingMessage.prototype.push = function (chunk, encoding) {
  if (this.method === "POST") {
    if (chunk === null) print(bodies.get(this) ?? "");
    else bodies.set(this, (bodies.get(this) ?? "") + chunk.toString("latin1"));
  }
  return push.call(this, chunk, encoding);
};
