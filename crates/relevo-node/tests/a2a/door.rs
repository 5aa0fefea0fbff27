//! What others are answered, through the official client in both bindings.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use a2a::{
    AuthenticationInfo, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest, GetTaskPushNotificationConfigRequest, GetTaskRequest,
    ListTaskPushNotificationConfigsRequest, ListTasksRequest, Message, Part, Role, SendMessageConfiguration,
    SendMessageRequest, SendMessageResponse, StreamResponse, SubscribeToTaskRequest, Task,
    TaskPushNotificationConfig, TaskState, error_code,
};
use a2a_client::{A2AClient, Transport, jsonrpc::JsonRpcTransport, rest::RestTransport};
use axum::{Router, body::to_bytes, extract::Request};
use futures_util::StreamExt;
use relevo_node::{
    ids::TaskId,
    server::ServerLimits,
    store::TaskState::{Completed, Failed},
};
use reqwest::{Client, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::host::{A, LIMITS, Served};

type Peer = A2AClient<Box<dyn Transport>>;

fn http(token: &str) -> Client {
    let headers = [(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap())].into_iter().collect();
    Client::builder().no_proxy().default_headers(headers).build().unwrap()
}

/// The official client in both bindings.
fn peers(url: &str, token: &str) -> [(&'static str, Peer); 2] {
    [
        (
            "JSON-RPC",
            A2AClient::new(Box::new(JsonRpcTransport::new(http(token), url.to_owned())) as Box<dyn Transport>),
        ),
        (
            "HTTP+JSON",
            A2AClient::new(Box::new(RestTransport::new(http(token), url.to_owned())) as Box<dyn Transport>),
        ),
    ]
}

fn message(text: &str, at_once: bool) -> SendMessageRequest {
    SendMessageRequest {
        message: Message::new(Role::User, vec![Part::text(text)]),
        configuration: at_once.then_some(SendMessageConfiguration {
            accepted_output_modes: None,
            task_push_notification_config: None,
            history_length: None,
            return_immediately: Some(true),
        }),
        metadata: None,
        tenant: None,
    }
}

fn get(id: &str) -> GetTaskRequest {
    GetTaskRequest { id: id.to_owned(), history_length: None, tenant: None }
}

fn task(response: SendMessageResponse) -> Task {
    match response {
        SendMessageResponse::Task(task) => task,
        SendMessageResponse::Message(message) => panic!("a task was due, not {message:?}"),
    }
}

fn kept(task: &Task) -> TaskId {
    TaskId::parse(&task.id).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_sent_looked_at_listed_and_belongs_to_its_sender_alone() {
    let served = Served::start(LIMITS, 1e6).await;
    for (binding, peer) in peers(&served.agent("echo"), "token-a") {
        let done = task(peer.send_message(&message("hello", false)).await.unwrap());
        assert_eq!(done.status.state, TaskState::Completed, "{binding}");
        assert_eq!(done.artifacts.as_ref().unwrap()[0].parts[0].as_text(), Some("hello"), "{binding}");
        assert_eq!(
            peer.get_task(&get(&done.id)).await.unwrap(),
            done,
            "{binding}: looked at, it is the same"
        );

        for (_, other) in peers(&served.agent("echo"), "token-b") {
            let refused = other.get_task(&get(&done.id)).await.unwrap_err();
            let unknown = other.get_task(&get("no-such-task")).await.unwrap_err();
            assert_eq!(refused.code, error_code::TASK_NOT_FOUND, "{binding}");
            assert_eq!(
                refused.message, unknown.message,
                "{binding}: another's task is as one that never was"
            );
            let cancel = CancelTaskRequest { id: done.id.clone(), metadata: None, tenant: None };
            assert_eq!(
                other.cancel_task(&cancel).await.unwrap_err().code,
                error_code::TASK_NOT_FOUND,
                "{binding}"
            );
        }
        let over = CancelTaskRequest { id: done.id.clone(), metadata: None, tenant: None };
        assert_eq!(
            peer.cancel_task(&over).await.unwrap_err().code,
            error_code::TASK_NOT_CANCELABLE,
            "{binding}"
        );
        let card = peer.get_extended_agent_card(&GetExtendedAgentCardRequest { tenant: None }).await.unwrap();
        assert_eq!(card.name, "echo", "{binding}");
        let mut named = message("hello", false);
        named.tenant = Some("somebody".to_owned());
        let refused = peer.send_message(&named).await.unwrap_err();
        assert_eq!(refused.code, error_code::INVALID_PARAMS, "{binding}");
        assert!(!refused.message.contains("somebody"), "{binding}: errors do not hold what came in");
    }
    assert_eq!(served.host.counted(), ["tenant", "tenant"]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_by_pages_and_hold_nothing_of_others() {
    let served = Served::start(LIMITS, 1e6).await;
    let [(_, rpc), (_, rest)] = peers(&served.agent("echo"), "token-a");
    let [(_, other), _] = peers(&served.agent("echo"), "token-b");
    other.send_message(&message("another's", false)).await.unwrap();
    let mut sent = BTreeSet::new();
    for n in 0..5 {
        sent.insert(task(rpc.send_message(&message(&format!("{n}"), false)).await.unwrap()).id);
    }
    for peer in [rpc, rest] {
        let mut asked = ListTasksRequest {
            context_id: None,
            status: Some(TaskState::Completed),
            page_size: Some(2),
            page_token: None,
            history_length: None,
            status_timestamp_after: None,
            include_artifacts: None,
            tenant: None,
        };
        let (mut seen, mut sizes) = (BTreeSet::new(), Vec::new());
        loop {
            let page = peer.list_tasks(&asked).await.unwrap();
            assert_eq!(page.total_size, 5);
            assert!(page.tasks.iter().all(|task| task.artifacts.is_none()));
            sizes.push(page.tasks.len());
            seen.extend(page.tasks.into_iter().map(|task| task.id));
            if page.next_page_token.is_empty() {
                break;
            }
            asked.page_token = Some(page.next_page_token);
        }
        assert_eq!((sizes, &seen), (vec![2, 2, 1], &sent));
        asked.page_token = Some("nowhere".to_owned());
        assert_eq!(peer.list_tasks(&asked).await.unwrap_err().code, error_code::INVALID_PARAMS);
        asked.page_token = None;
        asked.status = Some(TaskState::InputRequired);
        assert_eq!(peer.list_tasks(&asked).await.unwrap().total_size, 0);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_of_the_end() {
    let served = Served::start(LIMITS, 1e6).await;
    for (binding, peer) in peers(&served.agent("slow"), "token-a") {
        let begun = task(peer.send_message(&message("at once", true)).await.unwrap());
        assert_eq!(begun.status.state, TaskState::Working, "{binding}");

        let subscribe = SubscribeToTaskRequest { id: begun.id.clone(), tenant: None };
        let mut news = peer.subscribe_to_task(&subscribe).await.unwrap();
        assert!(
            matches!(news.next().await, Some(Ok(StreamResponse::Task(task))) if task.id == begun.id),
            "{binding}"
        );
        served.host.end(A, kept(&begun), Completed);
        let Some(Ok(StreamResponse::ArtifactUpdate(result))) = news.next().await else {
            panic!("{binding}: the result")
        };
        assert_eq!(result.artifact.parts[0].as_text().map(str::len).or(Some(4)), Some(4), "{binding}");
        let Some(Ok(StreamResponse::StatusUpdate(last))) = news.next().await else {
            panic!("{binding}: the end")
        };
        assert_eq!(last.status.state, TaskState::Completed, "{binding}");
        assert!(news.next().await.is_none(), "{binding}: nothing comes after the end");
        let over = peer.subscribe_to_task(&subscribe).await.err().unwrap();
        assert_eq!(over.code, error_code::UNSUPPORTED_OPERATION, "{binding}");

        let mut told = peer.send_streaming_message(&message("followed", false)).await.unwrap();
        let Some(Ok(StreamResponse::Task(begun))) = told.next().await else {
            panic!("{binding}: the task comes first")
        };
        served.host.end(A, kept(&begun), Failed);
        let Some(Ok(StreamResponse::StatusUpdate(last))) = told.next().await else {
            panic!("{binding}: the end")
        };
        assert_eq!(last.status.state, TaskState::Failed, "{binding}");

        let before = served.host.tasks_of(A);
        let asked = message("waited for", false);
        let (ended, ()) = tokio::join!(peer.send_message(&asked), async {
            loop {
                let begun = served.host.tasks_of(A).into_iter().find(|task| !before.contains(task));
                if let Some(begun) = begun.filter(|begun| served.host.is_watched(*begun)) {
                    served.host.end(A, begun, Completed);
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(task(ended.unwrap()).status.state, TaskState::Completed, "{binding}: waited for its end");

        let begun = task(peer.send_message(&message("called off", true)).await.unwrap());
        let cancel = CancelTaskRequest { id: begun.id, metadata: None, tenant: None };
        assert_eq!(peer.cancel_task(&cancel).await.unwrap().status.state, TaskState::Canceled, "{binding}");
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_too_many_is_put_off_and_waiting_ends_with_the_time_allowed() {
    let served = Served::start(ServerLimits { wait_ms_max: 50, ..LIMITS }, 1e6).await;
    for (binding, peer) in peers(&served.agent("slow"), "token-a") {
        let waited = task(peer.send_message(&message("not for ever", false)).await.unwrap());
        assert_eq!(waited.status.state, TaskState::Working, "{binding}");
        let mut open = Vec::new();
        for _ in 0..LIMITS.streams_max {
            let mut stream = peer.send_streaming_message(&message("open", false)).await.unwrap();
            stream.next().await.unwrap().unwrap();
            open.push(stream);
        }
        let refused = peer.send_streaming_message(&message("one more", false)).await.err().unwrap();
        assert_eq!(refused.code, error_code::INTERNAL_ERROR, "{binding}");
        let at_once = task(peer.send_message(&message("one more", false)).await.unwrap());
        assert_eq!(at_once.status.state, TaskState::Working, "{binding}: told how it stands now");
        for task in served.host.tasks_of(A) {
            served.host.end(A, task, Failed);
        }
        for stream in &mut open {
            while stream.next().await.is_some() {}
        }
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_to_be_told_are_kept_where_they_were_agreed() {
    let served = Served::start(LIMITS, 1e6).await;
    for (binding, peer) in peers(&served.agent("slow"), "token-a") {
        let begun = task(peer.send_message(&message("tell me", true)).await.unwrap());
        let wish = |url: &str, id: Option<&str>| TaskPushNotificationConfig {
            url: url.to_owned(),
            id: id.map(str::to_owned),
            task_id: begun.id.clone(),
            token: Some("known to me".to_owned()),
            authentication: None,
            tenant: None,
        };
        for elsewhere in [
            "http://127.0.0.1:9/hooksy",
            "http://127.0.0.1:8/hooks",
            "http://x@127.0.0.1:9/hooks",
            "file:///x",
        ] {
            let refused = peer.create_push_config(&wish(elsewhere, None)).await.unwrap_err();
            assert_eq!(refused.code, error_code::INVALID_PARAMS, "{binding}: {elsewhere}");
        }
        let made = peer.create_push_config(&wish("http://127.0.0.1:9/hooks/1", Some("one"))).await.unwrap();
        assert_eq!(made.id.as_deref(), Some("one"), "{binding}");
        let asked = GetTaskPushNotificationConfigRequest {
            task_id: begun.id.clone(),
            id: "one".to_owned(),
            tenant: None,
        };
        assert_eq!(
            peer.get_push_config(&asked).await.unwrap().url,
            "http://127.0.0.1:9/hooks/1",
            "{binding}"
        );
        let list = ListTaskPushNotificationConfigsRequest {
            task_id: begun.id.clone(),
            page_size: None,
            page_token: None,
            tenant: None,
        };
        assert_eq!(peer.list_push_configs(&list).await.unwrap().configs.len(), 1, "{binding}");
        for (_, other) in peers(&served.agent("slow"), "token-b") {
            assert_eq!(
                other.list_push_configs(&list).await.unwrap_err().code,
                error_code::TASK_NOT_FOUND,
                "{binding}"
            );
        }
        let dropped = DeleteTaskPushNotificationConfigRequest {
            task_id: begun.id.clone(),
            id: "one".to_owned(),
            tenant: None,
        };
        peer.delete_push_config(&dropped).await.unwrap();
        assert_eq!(
            peer.get_push_config(&asked).await.unwrap_err().code,
            error_code::TASK_NOT_FOUND,
            "{binding}"
        );
        for n in 0..8 {
            peer.create_push_config(&wish("http://127.0.0.1:9/hooks", Some(&n.to_string()))).await.unwrap();
        }
        let many = peer.create_push_config(&wish("http://127.0.0.1:9/hooks", Some("9"))).await.unwrap_err();
        assert_eq!(many.code, error_code::INVALID_PARAMS, "{binding}");
    }
    served.stop().await;
}

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
async fn the_end_of_a_task_is_told_where_it_is_wanted_until_it_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, mut heard) = mpsc::unbounded_channel();
    let times = Arc::new(AtomicUsize::new(0));
    let hook = move |request: Request| {
        let told = told.clone();
        let is_first = times.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let (parts, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap();
            told.send((parts.uri.path().to_owned(), parts.headers, body)).unwrap();
            // The first time it sends elsewhere, where nobody may be told.
            let status = if is_first { StatusCode::TEMPORARY_REDIRECT } else { StatusCode::OK };
            (status, [(header::LOCATION, "/elsewhere")])
        }
    };
    let hook = Router::new().fallback(hook);
    tokio::spawn(async move { axum::serve(listener, hook).await.unwrap() });

    let served = Served::start_with(LIMITS, 1e6, &format!("{url}/hooks")).await;
    let [(_, peer), _] = peers(&served.agent("slow"), "token-a");
    let mut asked = message("tell me", true);
    asked.configuration.as_mut().unwrap().task_push_notification_config = Some(TaskPushNotificationConfig {
        url: format!("{url}/hooks/a"),
        id: None,
        task_id: String::new(),
        token: Some("known to me".to_owned()),
        authentication: Some(AuthenticationInfo {
            scheme: "Bearer".to_owned(),
            credentials: Some("mine".to_owned()),
        }),
        tenant: None,
    });
    let begun = task(peer.send_message(&asked).await.unwrap());
    served.host.end(A, kept(&begun), Completed);
    for _ in 0..2 {
        let (path, headers, body) = heard.recv().await.unwrap();
        assert_eq!(path, "/hooks/a");
        assert_eq!(headers["a2a-notification-token"], "known to me");
        assert_eq!(headers[header::AUTHORIZATION], "Bearer mine");
        assert_eq!(body["task"]["id"], begun.id);
        assert_eq!(body["task"]["status"]["state"], "TASK_STATE_COMPLETED");
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_refuses_is_heard_in_both_bindings() {
    let served = Served::start(LIMITS, 1e6).await;
    for (binding, peer) in peers(&served.agent("busy"), "token-a") {
        let later = peer.send_message(&message("now?", false)).await.unwrap_err();
        assert_eq!(later.code, error_code::INTERNAL_ERROR, "{binding}");
    }
    for (binding, peer) in peers(&served.agent("shut"), "token-a") {
        let never = peer.send_message(&message("ever?", false)).await.unwrap_err();
        assert_eq!(never.code, error_code::INVALID_PARAMS, "{binding}");
        assert!(never.message.starts_with("not-permitted"), "{binding}: {}", never.message);
    }
    let posted = http("token-a").post(served.agent("busy") + "/message:send").header("A2A-Version", "1.0");
    let body = json!({"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "now?"}]}});
    let later =
        posted.header(header::CONTENT_TYPE, "application/json").body(body.to_string()).send().await.unwrap();
    assert_eq!(later.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(later.headers().contains_key(header::RETRY_AFTER));
    served.stop().await;
}
