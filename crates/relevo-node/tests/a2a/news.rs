//! Whoever waits for news of a task gets it, through the official client in both bindings.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use a2a::{
    AuthenticationInfo, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest, ListTaskPushNotificationConfigsRequest, StreamResponse,
    SubscribeToTaskRequest, TaskPushNotificationConfig, TaskState, error_code,
};
use axum::{Router, body::to_bytes, extract::Request};
use futures_util::StreamExt;
use relevo_node::{
    server::ServerLimits,
    store::TaskState::{Completed, Failed},
};
use reqwest::{StatusCode, header};
use serde_json::Value;
use tokio::{net::TcpListener, sync::mpsc};

use crate::{
    caller::{kept, message, peers, task},
    host::{A, LIMITS, Served},
};

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

    let served = Served::start_with(LIMITS, 1e6, &format!("{url}/hooks"), true).await;
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
async fn nobody_has_a_public_node_call_at_private_addresses() {
    for (prefix, is_taken) in [
        ("https://example.org", true),
        ("http://1.1.1.1", true),
        ("http://[2606:4700::1111]", true),
        ("http://127.0.0.1:9", false),
        ("http://10.0.0.1", false),
        ("http://172.31.0.1", false),
        ("http://192.168.0.1", false),
        ("http://169.254.169.254", false),
        ("http://100.64.0.1", false),
        ("http://0.0.0.0", false),
        ("http://2130706433", false),
        ("http://[::1]", false),
        ("http://[::ffff:10.0.0.1]", false),
        ("http://[fe80::1]", false),
        ("http://[fd00::1]", false),
        ("http://[2002:a00:1::]", false),
        ("http://[64:ff9b::a00:1]", false),
    ] {
        let served = Served::start_with(LIMITS, 1e6, prefix, false).await;
        let [(_, peer), _] = peers(&served.agent("slow"), "token-a");
        let begun = task(peer.send_message(&message("tell me", true)).await.unwrap());
        let wish = TaskPushNotificationConfig {
            url: format!("{prefix}/hook"),
            id: None,
            task_id: begun.id,
            token: None,
            authentication: None,
            tenant: None,
        };
        assert_eq!(peer.create_push_config(&wish).await.is_ok(), is_taken, "{prefix}");
        served.stop().await;
    }
}
