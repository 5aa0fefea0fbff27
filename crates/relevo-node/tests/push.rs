//! Whoever wants to be told of the end of a task is told by a real node, whatever happens to the node.

mod org;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{Router, body::to_bytes, extract::Request};
use org::{Org, PEER, Served, peer, wire_id};
use relevo_node::store::Reader;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

/// A place where a peer is told.
struct Hook {
    url: String,
    takes: Arc<AtomicBool>,
    heard: UnboundedReceiver<(String, Value)>,
    runtime: Runtime,
}

impl Hook {
    fn start() -> Self {
        let (runtime, (tell, heard)) = (Runtime::new().unwrap(), unbounded_channel());
        let takes = Arc::new(AtomicBool::new(false));
        let taken = Arc::clone(&takes);
        let hook = move |request: Request| {
            let (tell, taken) = (tell.clone(), Arc::clone(&taken));
            async move {
                let (parts, body) = request.into_parts();
                let body = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap();
                tell.send((parts.uri.path().to_owned(), body)).unwrap();
                if taken.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
            }
        };
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move { axum::serve(listener, Router::new().fallback(hook)).await });
        Hook { url, takes, heard, runtime }
    }

    /// The place that is told next, and of which task.
    fn hear(&mut self) -> (String, Value) {
        let (path, body) = self.heard.blocking_recv().unwrap();
        (path, body["task"].clone())
    }
}

/// Call a method at the door of `echo`, as `orga`.
fn call(node: &Served, method: &str, params: Value) -> Value {
    let client = Client::builder().no_proxy().build().unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let asking = client.post(format!("http://{}/agents/echo", node.address)).body(body);
    let asking = asking.header("A2A-Version", "1.0").bearer_auth("token-a");
    let told: Value = node.block_on(async { asking.send().await.unwrap().json().await.unwrap() });
    assert!(told["error"].is_null(), "{told}");
    told["result"].clone()
}

/// Hand over a task that ends at once; its id.
fn hand(node: &Served, configuration: Value) -> String {
    let message =
        json!({"messageId": wire_id().to_string(), "role": "ROLE_USER", "parts": [{"text": "hello"}]});
    let sent = call(node, "SendMessage", json!({"message": message, "configuration": configuration}));
    sent["task"]["id"].as_str().unwrap().to_owned()
}

/// Wait until nobody is to be told of anything any more.
fn until_all_is_told(org: &Org) {
    let mut kept = org.kept();
    while !kept.untold(PEER, 1).unwrap().is_empty() {
        std::thread::yield_now();
    }
}

#[test]
fn an_end_that_was_not_told_is_told_by_the_next_process() {
    let mut hook = Hook::start();
    let push = format!("push = [\"{}/hooks\"]\n", hook.url);
    let org = Org::echoing("orgb", &peer("orga", "http://127.0.0.1:9", Some("token-a"), &push));
    let url = hook.url.clone();
    let place = |name: &str| json!({"id": name, "url": format!("{url}/hooks/{name}")});

    let node = org.start().unwrap();
    let first = hand(&node, json!({"taskPushNotificationConfig": place("a")}));
    let mut second = place("b");
    second["taskId"] = json!(first);
    call(&node, "CreateTaskPushNotificationConfig", second);
    let mut paths = [hook.hear(), hook.hear()].map(|(path, task)| {
        assert_eq!((&task["id"], &task["status"]["state"]), (&json!(first), &json!("TASK_STATE_COMPLETED")));
        path
    });
    paths.sort();
    assert!(paths[0].starts_with("/hooks/"), "even where the task has ended before: {paths:?}");
    node.stop();
    assert_eq!(org.kept().untold(PEER, 9).unwrap().len(), 2, "it was not taken");
    while hook.heard.try_recv().is_ok() {}

    hook.takes.store(true, Ordering::Relaxed);
    let node = org.start().unwrap();
    let mut paths = [hook.hear(), hook.hear()].map(|(path, task)| {
        assert_eq!(task["id"], json!(first));
        path
    });
    paths.sort();
    assert_eq!(paths, ["/hooks/a", "/hooks/b"]);
    until_all_is_told(&org);
    node.stop();

    // What was told is told once.
    let node = org.start().unwrap();
    let last = hand(&node, json!({"taskPushNotificationConfig": place("c")}));
    let (path, task) = hook.hear();
    assert_eq!((path.as_str(), &task["id"]), ("/hooks/c", &json!(last)));
    until_all_is_told(&org);
    let none = call(&node, "ListTaskPushNotificationConfigs", json!({"taskId": first}));
    assert!(none["configs"].as_array().is_none_or(Vec::is_empty), "{none}");
    node.stop();
    hook.runtime.shutdown_background();
    assert!(hook.heard.try_recv().is_err());
}
