//! The official Python and JavaScript clients, as others run them, at the door of a node. `tests/peers/install` puts them where they are looked for.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use relevo_node::wire::EXTENSION;
use serde_json::{Value, json};

use crate::org::{INITIAL, Org, peer, wire_id};

/// Let a client talk to a node: it tells a line for each binding, without and with the extension.
fn check(mut command: Command) {
    let org = Org::echoing("orgb", &peer("orga", "http://127.0.0.1:9", Some("token-a"), ""));
    let node = org.start().unwrap();
    let ids = [wire_id(), wire_id()].map(|id| id.to_string());
    command.args([&format!("http://{}/agents/echo", node.address), "token-a", EXTENSION]).args(&ids);
    let told =
        command.stdin(Stdio::null()).output().expect("run crates/relevo-node/tests/peers/install first");
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Vec<Value> = str::from_utf8(&told.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    node.stop();

    let due =
        [("JSONRPC", None), ("JSONRPC", Some(&ids[0])), ("HTTP+JSON", None), ("HTTP+JSON", Some(&ids[1]))];
    assert_eq!(told.len(), due.len());
    for (told, (binding, id)) in told.iter().zip(due) {
        assert_eq!(told["binding"], binding);
        assert_eq!(told["state"], "TASK_STATE_COMPLETED", "{told}");
        assert!(told["payload"].as_str().unwrap().starts_with(binding), "{told}");
        assert_eq!((&told["again"], &told["listed"]), (&json!(true), &json!(true)), "{told}");
        assert_eq!(told["refused"], "TaskNotCancelableError", "{told}");
        assert_eq!(told["extended"], "echo", "{told}");
        // A task may have ended before anybody follows it; else its result follows, and its end.
        let events = told["events"].as_array().unwrap();
        assert!(events[0] == "task" && [1, 3].contains(&events.len()), "{told}");
        match id {
            None => assert!(
                told["metadata"].is_null(),
                "nothing of the extension comes to whoever did not ask: {told}"
            ),
            Some(id) => {
                assert_eq!(told["metadata"]["handoffId"], **id, "{told}");
                assert_eq!(told["metadata"]["v"], INITIAL, "{told}");
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

#[test]
#[ignore = "needs Python, Node and tests/peers/install"]
fn the_python_client_hands_to_a_node_in_both_bindings_with_the_extension_and_without() {
    let mut python = Command::new(installed().join("py/bin/python"));
    python.arg(scripts().join("py/peer.py"));
    check(python);
}

#[test]
#[ignore = "needs Python, Node and tests/peers/install"]
fn the_javascript_client_hands_to_a_node_in_both_bindings_with_the_extension_and_without() {
    // A module finds its packages beside itself.
    let script = installed().join("js/peer.mjs");
    std::fs::copy(scripts().join("js/peer.mjs"), &script)
        .expect("run crates/relevo-node/tests/peers/install first");
    let mut node = Command::new(installed().join("js/node"));
    node.arg(script);
    check(node);
}
