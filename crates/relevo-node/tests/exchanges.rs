//! Runs the contract vectors of the kind `exchange` against a real node, over HTTP.

mod org;

use std::collections::BTreeMap;

use a2a::{PartContent, Task};
use org::{Org, Served, peer, wire_id_of};
use relevo_node::wire::EXTENSION;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};

const FILE: &str = include_str!("../vectors/v1/exchange.json");
const DAY_MS: u64 = 86_400_000;

#[derive(Deserialize)]
struct File {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    from: String,
    method: String,
    params: Value,
    expect: Value,
}

/// What the placeholders of a vector stand for.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// Put ids in the places of placeholders.
    fn fill(&mut self, value: &mut Value) {
        match value {
            Value::String(text) if text.starts_with('$') => {
                let age_ms = if text.starts_with("$old") { 40 * DAY_MS } else { 0 };
                let named = self.0.entry(text.clone()).or_insert_with(|| wire_id_of(age_ms).to_string());
                *text = named.clone();
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.fill(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.fill(value)),
            _ => {}
        }
    }

    /// A task is named where it is met first; what has one name is one task, what has two is two.
    fn meet(&mut self, name: &str, id: &str) {
        let others = self.0.iter().filter(|(other, _)| *other != name);
        if others.clone().all(|(_, known)| known != id) {
            self.0.entry(name.to_owned()).or_insert_with(|| id.to_owned());
        }
    }
}

/// Ask as this organisation; what is answered, in the form in which the vectors say what is expected.
fn ask(node: &Served, from: &str, method: &str, params: &Value) -> Value {
    let client = Client::builder().no_proxy().build().unwrap();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let asking = client.post(format!("http://{}/agents/echo", node.address)).body(body);
    let asking = asking.header("A2A-Version", "1.0").bearer_auth(format!("token-{from}"));
    let told: Value = node.block_on(async { asking.send().await.unwrap().json().await.unwrap() });
    if let Some(error) = told.get("error") {
        let word = error["data"]
            .as_array()
            .and_then(|data| data.iter().find_map(|d| d["metadata"]["word"].as_str()));
        let known = match error["code"].as_i64() {
            Some(-32001) => "not-found",
            Some(-32002) => "not-cancelable",
            _ => "refused",
        };
        return json!({"refuse": word.unwrap_or(known)});
    }
    let result = &told["result"];
    if let Some(message) = result.get("message") {
        return json!({"noted": message["metadata"][EXTENSION]["handoffId"]});
    }
    let task = result.get("task").unwrap_or(result);
    let value = &task["status"]["message"]["metadata"][EXTENSION]["v"];
    let read: Task = serde_json::from_value(task.clone()).unwrap();
    let parts = read.artifacts.into_iter().flatten().flat_map(|artifact| artifact.parts);
    let payload = parts.into_iter().find_map(|part| match part.content {
        PartContent::Text(text) => Some(text.into_bytes()),
        PartContent::Raw(bytes) => Some(bytes),
        _ => None,
    });
    let payload = payload.map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    json!({"task": {
        "id": task["id"], "state": task["status"]["state"], "payloadHex": payload, "value": value.is_number(),
    }})
}

#[test]
fn every_exchange_holds() {
    let peers =
        ["orga", "orgc"].map(|name| peer(name, "http://127.0.0.1:9", Some(&format!("token-{name}")), ""));
    let org = Org::echoing("orgb", &peers.concat());
    let node = org.start().unwrap();
    let file: File = serde_json::from_str(FILE).unwrap();
    assert_eq!(file.vectors.len(), 16);
    for Vector { name, steps } in file.vectors {
        let mut names = Names::default();
        for (number, Step { from, method, mut params, mut expect }) in steps.into_iter().enumerate() {
            names.fill(&mut params);
            let told = ask(&node, &from, &method, &params);
            if let (Some(name), Some(id)) = (expect["task"]["id"].as_str(), told["task"]["id"].as_str()) {
                names.meet(name, id);
            }
            names.fill(&mut expect);
            assert_eq!(told, expect, "{name}, step {number}");
        }
    }
    node.stop();
}
