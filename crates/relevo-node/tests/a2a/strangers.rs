//! Who is not known, asks too much, or is too slow.

use std::{sync::atomic::Ordering, time::Duration};

use relevo_node::server::ServerLimits;
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    caller::http,
    host::{LIMITS, Served},
};

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_or_asks_too_much_is_told_so_in_http() {
    let served = Served::start(LIMITS, 12.0).await;
    let (known, unknown) = (http("token-a"), http("token-of-nobody"));
    let nobody = Client::builder().no_proxy().build().unwrap();
    let rpc = |method: &str| json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}).to_string();
    let rest = served.agent("echo") + "/tasks";
    let card = "/.well-known/agent-card.json";

    for path in ["/agents/echo", "/agents/echo/", "/"] {
        let url = format!("{}{path}", served.url);
        let posted = |client: &Client| client.post(&url).header("A2A-Version", "1.0").body(rpc("GetTask"));
        for client in [&unknown, &nobody] {
            let refused = posted(client).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
            assert!(refused.headers().contains_key(header::WWW_AUTHENTICATE), "{path}");
            assert!(!refused.text().await.unwrap().contains("token-of-nobody"), "{path}");
        }
        let taken = posted(&known).send().await.unwrap();
        assert_eq!(taken.status(), StatusCode::OK, "{path}");
    }
    for (path, name) in [("/agents/slow", "slow"), ("", "echo")] {
        let read: Value =
            nobody.get(format!("{}{path}{card}", served.url)).send().await.unwrap().json().await.unwrap();
        assert_eq!(read["name"], name, "cards are public");
        assert_eq!(read["capabilities"].get("extensions").is_some(), name == "echo", "{name}");
    }
    assert_eq!(nobody.get(served.agent("echo") + "/extendedAgentCard").send().await.unwrap().status(), 401);
    assert_eq!(known.post(served.agent("nobody")).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(
        nobody.get(served.agent("nobody") + card).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );

    for (version, taken) in
        [(None, false), (Some("0.3"), false), (Some(""), false), (Some("2.0"), false), (Some("1.0"), true)]
    {
        let mut asked = known.get(&rest);
        let mut posted = known.post(served.agent("echo")).body(rpc("ListTasks"));
        if let Some(version) = version {
            (asked, posted) = (asked.header("A2A-Version", version), posted.header("A2A-Version", version));
        }
        served.clock.fetch_add(2_000, Ordering::Relaxed);
        let asked = asked.send().await.unwrap();
        assert_eq!(asked.status().is_success(), taken, "HTTP+JSON, {version:?}");
        let posted: Value = posted.send().await.unwrap().json().await.unwrap();
        assert_eq!(posted["error"].is_null(), taken, "JSON-RPC, {version:?}: {posted}");
    }
    served.clock.fetch_add(12_000, Ordering::Relaxed);
    let long = known
        .post(served.agent("echo"))
        .header("A2A-Version", "1.0")
        .body("x".repeat(LIMITS.body_bytes_max + 1));
    assert_eq!(long.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);

    for _ in 1..12 {
        assert_eq!(
            known.get(&rest).header("A2A-Version", "1.0").send().await.unwrap().status(),
            StatusCode::OK
        );
    }
    let refused = known.get(&rest).header("A2A-Version", "1.0").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    let other = http("token-b").get(&rest).header("A2A-Version", "1.0").send().await.unwrap();
    assert_eq!(other.status(), StatusCode::OK, "one who asks too much leaves the others theirs");
    served.clock.fetch_add(1_000, Ordering::Relaxed);
    assert_eq!(known.get(&rest).header("A2A-Version", "1.0").send().await.unwrap().status(), StatusCode::OK);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_are_slow_or_too_many_are_let_go() {
    let limits = ServerLimits { header_ms_max: 100, body_ms_max: 100, ..LIMITS };
    let served = Served::start(limits, 1e6).await;
    let address = served.url.trim_start_matches("http://").to_owned();
    let head = "POST /agents/echo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token-a\r\n";
    let slow = [
        ("in its header", head.to_owned(), ""),
        ("in its body", format!("{head}content-length: 9\r\n\r\n{{"), "HTTP/1.1 408"),
        ("with too many fields", format!("{head}{}\r\n", "x: y\r\n".repeat(100)), "HTTP/1.1 431"),
    ];
    for (how, sent, answer) in slow {
        let mut client = TcpStream::connect(&address).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut heard = String::new();
        let end = tokio::time::timeout(Duration::from_secs(5), client.read_to_string(&mut heard)).await;
        assert!(end.is_ok(), "slow {how}: the connection is closed");
        assert!(heard.starts_with(answer), "slow {how}: {heard}");
    }
    served.stop().await;

    // Two that hold a connection each keep a third out.
    let served = Served::start(ServerLimits { connections_max: 2, ..LIMITS }, 1e6).await;
    let address = served.url.trim_start_matches("http://");
    let rest = "GET /agents/echo/tasks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer token-a\r\na2a-version: 1.0\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(rest.as_bytes()).await.unwrap();
        assert_ne!(client.read(&mut [0; 1_024]).await.unwrap(), 0);
        held.push(client);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let heard = third.read(&mut [0; 1_024]).await;
    assert!(heard.is_err() || heard.is_ok_and(|bytes| bytes == 0), "the third is closed unheard");
    served.stop().await;
}
