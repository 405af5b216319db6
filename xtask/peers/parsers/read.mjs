// Reads bodies, one a line in base64, and prints what it reads in each, one a line (see read.py for the form).
import { createInterface } from "node:readline";

const bits = new DataView(new ArrayBuffer(8));

function hex(text) {
  return Buffer.from(text, "utf8").toString("hex");
}

function canonical(value) {
  if (value === undefined) return "-";
  if (value === null) return "n";
  if (typeof value === "boolean") return value ? "t" : "f";
  if (typeof value === "string") return `"${hex(value)}`;
  if (typeof value === "number") {
    bits.setFloat64(0, value + 0);
    return `#${bits.getBigUint64(0).toString(16).padStart(16, "0")}`;
  }
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  const members = Object.keys(value).map((key) => `${hex(key)}:${canonical(value[key])}`);
  return `{${members.sort().join(",")}}`;
}

function message(read) {
  if (read === null || typeof read !== "object" || Array.isArray(read)) return "?";
  const { params } = read;
  return [
    read.method,
    read.id,
    params?.name,
    params?.uri,
    params?.taskId,
    params?.ref?.type,
    params?.ref?.name,
    params?.ref?.uri,
    params?.notifications?.resourceSubscriptions,
    params?.notifications?.taskIds,
    params?.arguments,
    params?._meta?.["io.modelcontextprotocol/protocolVersion"],
    params,
  ]
    .map(canonical)
    .join(";");
}

function body(bytes) {
  let read;
  try {
    // As `Request.json()` does.
    read = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return "!";
  }
  return Array.isArray(read) ? `[ ${read.map(message).join(" ")}` : message(read);
}

for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
  process.stdout.write(`${body(Buffer.from(line, "base64"))}\n`);
}
