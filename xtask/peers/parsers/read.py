"""Reads bodies, one a line in base64, and prints what it reads in each, one a line.

A line is `!` if there is nothing to be read, a message, or `[ ` and the messages of a batch with spaces between them. A
message is its fields, in the order below, with semicolons between them, or `?` if it is no object. A field is `-` if it is
absent; numbers are doubles (their bits, no -0), strings their UTF-8, members are sorted.
"""

import base64
import json
import struct
import sys

ABSENT = object()


def canonical(value):
    if value is ABSENT:
        return "-"
    if value is None:
        return "n"
    if value is True:
        return "t"
    if value is False:
        return "f"
    if isinstance(value, str):
        return '"' + value.encode("utf-8", "surrogatepass").hex()
    if isinstance(value, (int, float)):
        return "#" + struct.pack(">d", float(value) + 0.0).hex()
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    members = (canonical(key)[1:] + ":" + canonical(value[key]) for key in value)
    return "{" + ",".join(sorted(members)) + "}"


def at(value, *keys):
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return ABSENT
        value = value[key]
    return value


FIELDS = [
    ["method"],
    ["id"],
    ["params", "name"],
    ["params", "uri"],
    ["params", "taskId"],
    ["params", "ref", "type"],
    ["params", "ref", "name"],
    ["params", "ref", "uri"],
    ["params", "notifications", "resourceSubscriptions"],
    ["params", "notifications", "taskIds"],
    ["params", "arguments"],
    ["params", "_meta", "io.modelcontextprotocol/protocolVersion"],
    ["params"],
]


def message(read):
    if not isinstance(read, dict):
        return "?"
    return ";".join(canonical(at(read, *keys)) for keys in FIELDS)


def body(data):
    try:
        read = json.loads(data)
        if isinstance(read, list):
            return "[ " + " ".join(map(message, read))
        return message(read)
    except (ValueError, OverflowError, RecursionError):
        return "!"


for line in sys.stdin.buffer:
    sys.stdout.write(body(base64.b64decode(line)) + "\n")
    sys.stdout.flush()
