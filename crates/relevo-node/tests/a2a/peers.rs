//! The official Python and JavaScript clients, as others run them. `tests/peers/install` puts them where they are looked for.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use relevo_node::wire::EXTENSION;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{
    carry::wire_id,
    host::{LIMITS, Served},
};

/// What a client tells: a line for each binding, without and with the extension.
async fn tells(mut command: Command, served: &Served, ids: [u8; 2]) -> Vec<Value> {
    let ids = ids.map(|n| wire_id(n).to_string());
    command.args([&served.agent("echo"), "token-a", EXTENSION]).args(ids).stdin(Stdio::null());
    let told = command.output().await.expect("run crates/relevo-node/tests/peers/install first");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    String::from_utf8(told.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(told: &[Value], ids: [u8; 2]) {
    let due =
        [("JSONRPC", None), ("JSONRPC", Some(ids[0])), ("HTTP+JSON", None), ("HTTP+JSON", Some(ids[1]))];
    assert_eq!(told.len(), due.len());
    for (told, (binding, id)) in told.iter().zip(due) {
        assert_eq!(told["binding"], binding);
        assert_eq!(told["state"], "TASK_STATE_COMPLETED", "{told}");
        assert!(told["payload"].as_str().unwrap().starts_with(binding), "{told}");
        assert_eq!((&told["again"], &told["listed"]), (&json!(true), &json!(true)), "{told}");
        assert_eq!(told["refused"], "TaskNotCancelableError", "{told}");
        assert_eq!(told["extended"], "echo", "{told}");
        assert_eq!(told["events"], json!(["task"]), "{told}");
        match id {
            None => assert!(
                told["metadata"].is_null(),
                "nothing of the extension comes to whoever did not ask: {told}"
            ),
            Some(id) => {
                assert_eq!(told["metadata"]["handoffId"], wire_id(id).to_string(), "{told}");
                assert_eq!(told["metadata"]["v"], 0.25, "{told}");
                assert_eq!(told["metadata"].as_object().unwrap().len(), 4, "{told}");
            }
        }
    }
}

fn installed() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers")
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python, Node and tests/peers/install"]
async fn the_python_client_hands_over_in_both_bindings_with_the_extension_and_without() {
    let served = Served::start(LIMITS, 1e6).await;
    let mut python = Command::new(installed().join("py/bin/python"));
    python.arg(scripts().join("py/peer.py"));
    check(&tells(python, &served, [1, 2]).await, [1, 2]);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Python, Node and tests/peers/install"]
async fn the_javascript_client_hands_over_in_both_bindings_with_the_extension_and_without() {
    let served = Served::start(LIMITS, 1e6).await;
    // A module finds its packages beside itself.
    let script = installed().join("js/peer.mjs");
    std::fs::copy(scripts().join("js/peer.mjs"), &script)
        .expect("run crates/relevo-node/tests/peers/install first");
    let mut node = Command::new("node");
    node.arg(script);
    check(&tells(node, &served, [3, 4]).await, [3, 4]);
    served.stop().await;
}
