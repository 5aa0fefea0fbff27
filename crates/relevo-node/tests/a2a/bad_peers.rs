//! Peers that are silent, slow, endless, garbage, hang up, send elsewhere, or listen for what is not for them: over raw TCP.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use relevo_node::{
    ids::PeerId,
    transport::{
        a2a::ClientLimits,
        contract::{Case, Ending, check},
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::carry::{CLIENT_LIMITS, address, client, handoff, wire_id};

/// How a peer answers a packet; the card it gives is well.
#[derive(Clone, Copy)]
enum Manner {
    /// Says nothing, and keeps the connection.
    Silent,
    /// Sends one byte of its answer at a time, for ever.
    Drips,
    /// Closes the connection.
    HangsUp,
    /// Closes it in the middle of its answer.
    CutsShort,
    /// Says beforehand that its answer is too long.
    SaysLong,
    /// Never ends its answer.
    Endless,
    /// Answers with this.
    Says(&'static str, &'static str),
    /// Answers with another place.
    Redirects,
    /// Has a card that names another place.
    PointsAway,
}

struct Bad {
    url: String,
    written: Arc<AtomicUsize>,
    heard: Arc<Mutex<String>>,
}

async fn request(stream: &mut TcpStream) -> Option<String> {
    let (mut text, mut bytes) = (String::new(), [0; 4_096]);
    loop {
        let n = stream.read(&mut bytes).await.ok().filter(|n| *n > 0)?;
        text.push_str(&String::from_utf8_lossy(&bytes[..n]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}

fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

impl Bad {
    /// A peer of this manner; `elsewhere` is another's address, for those that send there.
    async fn start(manner: Manner, elsewhere: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let bad = Bad { url: url.clone(), written: Arc::default(), heard: Arc::default() };
        let (written, heard, elsewhere) =
            (Arc::clone(&bad.written), Arc::clone(&bad.heard), elsewhere.to_owned());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (url, elsewhere) = (url.clone(), elsewhere.clone());
                let (written, heard) = (Arc::clone(&written), Arc::clone(&heard));
                tokio::spawn(async move {
                    while let Some(asked) = request(&mut stream).await {
                        heard.lock().unwrap().push_str(&asked);
                        let answer = if asked.starts_with("GET") {
                            let url = if matches!(manner, Manner::PointsAway) { &elsewhere } else { &url };
                            let card = json!({
                                "name": "x", "description": "", "version": "1", "skills": [], "capabilities": {},
                                "supportedInterfaces": [
                                    {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
                                "defaultInputModes": [], "defaultOutputModes": [],
                            });
                            reply("200 OK", &card.to_string())
                        } else {
                            match manner {
                                Manner::Silent => return std::future::pending().await,
                                Manner::HangsUp => return,
                                Manner::CutsShort => {
                                    let _ = stream
                                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{")
                                        .await;
                                    return;
                                }
                                Manner::SaysLong => {
                                    "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n{".to_owned()
                                }
                                Manner::Drips | Manner::Endless => {
                                    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                                    let _ = stream.write_all(head).await;
                                    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
                                    let drips = matches!(manner, Manner::Drips);
                                    let chunk = if drips { "1\r\n \r\n" } else { &chunk };
                                    while stream.write_all(chunk.as_bytes()).await.is_ok() {
                                        written.fetch_add(chunk.len(), Ordering::Relaxed);
                                        if drips {
                                            tokio::time::sleep(Duration::from_millis(20)).await;
                                        }
                                    }
                                    return;
                                }
                                Manner::Says(status, body) => reply(status, body),
                                Manner::Redirects | Manner::PointsAway => {
                                    format!(
                                        "HTTP/1.1 307 Elsewhere\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\n\r\n"
                                    )
                                }
                            }
                        };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        bad
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_misbehave_end_in_the_right_report_within_the_deadline() {
    const TASK: &str = r#"{"jsonrpc":"2.0","id":"another","result":{"task":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING"}}}}"#;
    let deep = Box::leak("[".repeat(10_000).into_boxed_str());
    let third = Bad::start(Manner::Silent, "").await;
    let manners = [
        ("silent", Manner::Silent, Ending::Unreachable),
        ("slow", Manner::Drips, Ending::Unreachable),
        ("hanging up", Manner::HangsUp, Ending::Unreachable),
        ("cut short", Manner::CutsShort, Ending::Unreachable),
        ("too long, as it says", Manner::SaysLong, Ending::Garbage),
        ("endless", Manner::Endless, Ending::Garbage),
        ("no JSON", Manner::Says("200 OK", "<html>"), Ending::Garbage),
        ("deep", Manner::Says("200 OK", deep), Ending::Garbage),
        ("no JSON-RPC", Manner::Says("200 OK", "{}"), Ending::Garbage),
        ("another's answer", Manner::Says("200 OK", TASK), Ending::Garbage),
        ("redirecting", Manner::Redirects, Ending::Garbage),
        ("pointing away", Manner::PointsAway, Ending::Garbage),
        ("forbidding", Manner::Says("403 Forbidden", ""), Ending::Refused),
        ("not there", Manner::Says("404 Not Found", "x"), Ending::Refused),
        ("busy", Manner::Says("429 Too Many Requests", "{}"), Ending::Later),
        ("down", Manner::Says("503 Service Unavailable", "<html>"), Ending::Later),
    ];
    let (mut peers, mut cases, mut bad) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (n, (name, manner, ending)) in manners.into_iter().enumerate() {
        let peer = PeerId(n as u32 + 1);
        let served = Bad::start(manner, &third.url).await;
        peers.insert(peer, address(&served.url, "secret-token"));
        cases.push(Case { peer: name, packet: handoff(wire_id(n as u8), peer, "x"), ending });
        bad.push((name, served));
    }
    // One whose card sends to another's origin, and one that is not there at all.
    let away = PeerId(100);
    let mut sends_away = address(&third.url, "token-of-the-third");
    sends_away.elsewhere.insert("x".to_owned(), bad[0].1.url.parse().unwrap());
    peers.insert(away, sends_away);
    cases.push(Case {
        peer: "of another origin",
        packet: handoff(wire_id(100), away, "x"),
        ending: Ending::Garbage,
    });
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    peers.insert(PeerId(101), address(&format!("http://{}", gone.local_addr().unwrap()), "secret-token"));
    drop(gone);
    let packet = handoff(wire_id(101), PeerId(101), "x");
    cases.push(Case { peer: "not there", packet, ending: Ending::Unreachable });
    let packet = handoff(wire_id(102), PeerId(102), "x");
    cases.push(Case { peer: "unknown", packet, ending: Ending::Refused });

    // One turn for each peer: whoever is slow takes nobody else's.
    let limits = ClientLimits { reply_ms_max: 1_000, carried_max: 1, ..CLIENT_LIMITS };
    let client = client(peers, limits);
    tokio::task::spawn_blocking(move || check(&client, &cases, Duration::from_secs(5)))
        .await
        .unwrap()
        .unwrap();

    for (name, served) in &bad {
        let heard = served.heard.lock().unwrap().to_lowercase();
        assert!(heard.contains("authorization: bearer secret-token"), "{name}: it is shown what is for it");
        assert!(!heard.contains("token-of-the-third"), "{name}: it is not shown what is for another");
        assert!(heard.contains("a2a-version: 1.0") || *name == "pointing away", "{name}");
    }
    assert!(third.heard.lock().unwrap().is_empty(), "nobody is sent to somebody else");
    let (_, endless) = &bad[5];
    let written = endless.written.load(Ordering::Relaxed);
    assert!(written < 64 << 20, "{written} bytes went out: no more is taken than sockets hold");
}
