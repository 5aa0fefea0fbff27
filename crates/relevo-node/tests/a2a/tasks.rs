//! Tasks are handed over, looked at, listed and refused, through the official client in both bindings.

use std::collections::BTreeSet;

use a2a::{CancelTaskRequest, GetExtendedAgentCardRequest, ListTasksRequest, TaskState, error_code};
use relevo_node::wire::EXTENSION;
use reqwest::{StatusCode, header};
use serde_json::json;

use crate::{
    caller::{get, http, message, peers, task},
    host::{LIMITS, Served},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn the_extension_is_activated_for_whoever_asks_where_it_is_declared() {
    let served = Served::start(LIMITS, 1e6).await;
    let list = format!("https://example.org/other/v1 , {EXTENSION}");
    let rpc = json!({"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {}}).to_string();
    for (agent, asked, is_activated) in [
        ("echo", None, false),
        ("echo", Some(EXTENSION), true),
        ("echo", Some(list.as_str()), true),
        ("echo", Some("https://w3id.org/relevo/a2a/value-passing/v2"), false),
        ("slow", Some(EXTENSION), false),
    ] {
        let client = http("token-a");
        for asking in
            [client.get(served.agent(agent) + "/tasks"), client.post(served.agent(agent)).body(rpc.clone())]
        {
            let mut asking = asking.header("A2A-Version", "1.0");
            if let Some(asked) = asked {
                asking = asking.header("A2A-Extensions", asked);
            }
            let told = asking.send().await.unwrap();
            assert_eq!(told.status(), StatusCode::OK);
            let echoed = told.headers().get("a2a-extensions").map(|value| value.to_str().unwrap());
            assert_eq!(echoed, is_activated.then_some(EXTENSION), "{agent}, asked for {asked:?}");
        }
    }
    served.stop().await;
}
