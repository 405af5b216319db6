//! Nanoseconds per body of `parse` (300 B, 4 KiB, 1 MB of records, 1 MB of text), beside serde_json reading the same bytes
//! in the same run.
//!
//! `cargo bench -p mcp-jsonrpc`
use std::hint::black_box;
use std::time::{Duration, Instant};

use mcp_jsonrpc::{Limits, filter_tools_list, parse};

/// The best of many short runs: what the code costs when nothing else interferes.
fn nanoseconds<R>(mut run: impl FnMut() -> R) -> f64 {
    let deadline = Instant::now() + Duration::from_millis(400);
    let mut rounds = 1u32;
    let mut best = f64::INFINITY;
    while Instant::now() < deadline {
        let start = Instant::now();
        for _ in 0..rounds {
            drop(black_box(run()));
        }
        let elapsed = start.elapsed();
        best = best.min(elapsed.as_secs_f64() * 1e9 / f64::from(rounds));
        if elapsed < Duration::from_millis(2) {
            rounds *= 2;
        }
    }
    best
}

fn call(arguments: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":17,\"method\":\"tools/call\",\"params\":{{\"name\":\"read_file\",\
         \"arguments\":{arguments},\"_meta\":{{\"progressToken\":\"6b1f2c\"}}}}}}"
    )
}

fn records(bytes: usize) -> String {
    let mut records = String::from("{\"records\":[");
    for n in 0.. {
        if records.len() > bytes {
            break;
        }
        if n > 0 {
            records.push(',');
        }
        records.push_str(&format!(
            "{{\"id\":{n},\"name\":\"record {n}\",\"score\":{n}.25,\"ok\":true,\"tags\":[\"a\",\"bc\",\"def\"],\
             \"note\":\"a sentence of some length, as they are found in records\",\"next\":null}}"
        ));
    }
    records.push_str("]}");
    records
}

fn main() {
    let small = call(
        "{\"path\":\"/srv/data/reports/2026/11/a-longer-name-for-this-report/summary.md\",\"encoding\":\"utf-8\",\"offset\":0,\"limit\":4096,\
         \"follow\":true,\"options\":{\"trim\":false,\"numbers\":[1,2,3]}}",
    );
    let medium = call(&records(3_900));
    let large = call(&records(1_000_000));
    let text = call(&format!("{{\"content\":\"{}\"}}", "All work and no play. ".repeat(47_000)));
    let limits = Limits::default().with_max_bytes(4 << 20);
    for (what, body) in [("small", small), ("medium", medium), ("records", large), ("text", text)] {
        let body = body.as_bytes();
        assert!(parse(body, &limits).is_ok(), "{what}");
        let strict = nanoseconds(|| parse(black_box(body), &limits));
        let ignored = nanoseconds(|| serde_json::from_slice::<serde::de::IgnoredAny>(black_box(body)));
        let value = nanoseconds(|| serde_json::from_slice::<serde_json::Value>(black_box(body)));
        println!(
            "{what:8} {:8} B: parse {strict:12.0} ns ({:5.2} GB/s), serde_json IgnoredAny {ignored:12.0} ns, Value {value:12.0} ns",
            body.len(),
            body.len() as f64 / strict,
        );
    }
    let tool = "{\"name\":\"tool\",\"description\":\"does a thing\",\"inputSchema\":{\"type\":\"object\",\
                \"properties\":{\"a\":{\"type\":\"number\"},\"b\":{\"type\":\"number\"}},\"required\":[\"a\",\"b\"]}}";
    let list = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{{\"tools\":[{}]}}}}",
        vec![tool; 10_000].join(",")
    );
    let mut odd = false;
    let filter = nanoseconds(|| {
        filter_tools_list(black_box(list.as_bytes()), &mut |_| {
            odd = !odd;
            odd
        })
    });
    println!("filter   {:8} B: 10,000 tools, half of them kept: {filter:12.0} ns", list.len());
}
