//! HTTP/2 as somebody writes it who wants the gateway's time and memory (RFC 9113, section 10.5).
use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    faults::serves_others,
    support::{Upstream, World, eventually, manifests},
};

const FLOODS: &str = r#"agentic_gateway_connections_failed_total{reason="flood"}"#;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `GET http://a/svc/x`, in HPACK (RFC 7541) without its dynamic table.
const GET: &[u8] = b"\x82\x86\x41\x01a\x04\x06/svc/x";

/// `:status: 431`, in Huffman's code.
const STATUS_431: &[u8] = b"\x48\x83\x69\x90\xff";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Stream ids of a client: 1, 3, 5, ...
fn stream(index: u32) -> u32 {
    2 * index + 1
}

/// Sends frames on a connection of their own and reads meanwhile: kind, stream and payload of the frames that come back,
/// until the gateway ends the connection or is silent for a second; and whether it has ended it.
async fn send(world: &World, frames: Vec<u8>) -> (Vec<(u8, u32, Vec<u8>)>, bool) {
    let (mut read, mut write) = TcpStream::connect(world.address(10002)).await.unwrap().into_split();
    let writing = tokio::spawn(async move {
        let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &[])].concat();
        // Once the gateway has had enough, the rest is not taken.
        drop(write.write_all(&preface).await);
        drop(write.write_all(&frames).await);
        write
    });
    let mut answer = Vec::new();
    let has_ended = loop {
        match tokio::time::timeout(Duration::from_secs(1), read.read_buf(&mut answer)).await {
            Err(_) => break false,
            Ok(Ok(0) | Err(_)) => break true,
            Ok(Ok(_)) => {}
        }
    };
    writing.abort();
    let mut rest = answer.as_slice();
    let mut frames = Vec::new();
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
        frames.push((head[3], stream, payload.to_vec()));
        rest = after;
    }
    (frames, has_ended)
}

/// The error code of the GOAWAY among the frames.
fn went_away(frames: &[(u8, u32, Vec<u8>)]) -> Option<u32> {
    let (.., payload) = frames.iter().find(|(kind, ..)| *kind == GOAWAY)?;
    Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
}

async fn start() -> (Upstream, World) {
    let upstream = Upstream::json().await;
    let world = World::start(&manifests(upstream.address, "")).await;
    (upstream, world)
}

#[tokio::test]
async fn a_request_in_frames_is_served() {
    let (upstream, world) = start().await;
    let (frames, _) = send(&world, frame(HEADERS, END_HEADERS | END_STREAM, 1, GET)).await;
    let kinds: Vec<_> = frames.iter().filter(|(_, stream, _)| *stream == 1).map(|(kind, ..)| *kind).collect();
    assert_eq!(kinds, [HEADERS, DATA], "{frames:?}");
    assert_eq!(upstream.seen().len(), 1);
}

/// CVE-2023-44487.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let (upstream, world) = start().await;
    let reset = |index| {
        [
            frame(HEADERS, END_HEADERS | END_STREAM, stream(index), GET),
            frame(RST_STREAM, 0, stream(index), &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let (frames, has_ended) = send(&world, (0..20_000).flat_map(reset).collect()).await;
    assert_eq!((went_away(&frames), has_ended), (Some(ENHANCE_YOUR_CALM), true), "{frames:?}");
    assert!(upstream.seen().len() < 1000, "{}", upstream.seen().len());
    eventually("it is counted", || async { world.metric(FLOODS).await == 1 }).await;
    serves_others(&world).await;
}

/// CVE-2024-27316 and its like.
#[tokio::test]
async fn heads_without_end_end_the_connection() {
    let (upstream, world) = start().await;
    let more = frame(CONTINUATION, 0, 1, &b"\x00\x01x\x01y".repeat(100));
    let head = frame(HEADERS, END_STREAM, 1, GET);
    let (frames, has_ended) = send(&world, [head, more.repeat(20_000)].concat()).await;
    assert!(went_away(&frames).is_some() && has_ended, "{frames:?}");
    assert!(upstream.seen().is_empty());
    serves_others(&world).await;
}

/// A few bytes that stand for many: each names a line of 4,000 bytes in the dynamic table.
#[tokio::test]
async fn heads_that_unfold_are_refused() {
    let (upstream, world) = start().await;
    let send_unfolding = async |count| {
        // Literal with indexing, name `x`, value of 4,000 bytes; then that entry (62), again and again.
        let line = [b"\x40\x01x\x7f\xa1\x1e".as_slice(), &[b'y'; 4000], &vec![0xbe; count]].concat();
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[GET, &line].concat());
        send(&world, [head, frame(HEADERS, END_HEADERS | END_STREAM, 3, GET)].concat()).await
    };
    // A little over the limit of 64 KiB, and the next request is served.
    let (frames, has_ended) = send_unfolding(20).await;
    let answers = |stream| frames.iter().filter(move |(kind, of, _)| (*kind, *of) == (HEADERS, stream));
    let refused: Vec<_> = answers(1).map(|(.., payload)| payload).collect();
    assert_eq!(refused, [STATUS_431], "{frames:?}");
    assert!(answers(3).count() == 1 && !has_ended, "{frames:?}");
    assert_eq!(upstream.seen().len(), 1, "the second");
    // Far over it, and nobody reads on.
    let (frames, has_ended) = send_unfolding(10_000).await;
    assert_eq!((went_away(&frames), has_ended), (Some(ENHANCE_YOUR_CALM), true), "{frames:?}");
    assert_eq!(upstream.seen().len(), 1);
    eventually("it is counted", || async { world.metric(FLOODS).await == 1 }).await;
    serves_others(&world).await;
}

/// A client that asks for answers and reads none: what it has coming is bounded by the sockets' buffers.
#[tokio::test]
async fn pings_that_nobody_reads_the_answers_of_are_not_collected() {
    let (_upstream, world) = start().await;
    let mut stream = TcpStream::connect(world.address(10002)).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(10_000);
    let mut taken = 0_usize;
    // The gateway stops reading, or ends the connection, long before that.
    while taken < 256 << 20 {
        match tokio::time::timeout(Duration::from_secs(1), stream.write(&pings)).await {
            Ok(Ok(some)) => taken += some,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    assert!(taken < 256 << 20, "{taken} bytes of pings were taken");
    serves_others(&world).await;
}
