//! Runs the contract vectors in `vectors/v1`, each in both ways in which JSON is read here: by serde, and by way of
//! protobuf as the SDK does it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use a2a::{AgentCard, SendMessageRequest, SendMessageResponse};
use a2a_pb::protojson_conv::{self, ProtoJsonPayload};
use relevo_core::units::{Bounds, Value as V};
use relevo_node::{
    ids::WireId,
    wire::{self, Incoming, Limits, Progress, Standing, Terms, WireError, word},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/v1");
const DOCUMENT: &str = include_str!("../../../docs/wire.md");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    kind: String,
    #[serde(rename = "about")]
    _about: String,
    context: BTreeMap<String, Value>,
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    name: String,
    /// Instead of what the file says.
    #[serde(default)]
    context: BTreeMap<String, Value>,
    given: Option<Value>,
    /// In the place of `given`, where readers of JSON differ.
    text: Option<String>,
    expect: Value,
}

#[derive(Clone, Copy, Debug)]
enum Reader {
    Serde,
    Protobuf,
}

impl Reader {
    fn read<T: DeserializeOwned + ProtoJsonPayload>(self, text: &str) -> Result<T, WireError> {
        let read = match self {
            Reader::Serde => serde_json::from_str(text).ok(),
            Reader::Protobuf => protojson_conv::from_str(text).ok(),
        };
        read.ok_or(WireError { word: word::UNREADABLE, message: String::new() })
    }
}

/// What is made of `text`, in the form in which the vectors say what is expected.
fn run(
    kind: &str,
    reader: Reader,
    text: &str,
    context: &BTreeMap<String, Value>,
) -> Result<Value, WireError> {
    let limits = Limits {
        payload_bytes_max: context.get("payloadBytesMax").map_or(0, whole) as usize,
        remembered_ms: context.get("rememberedMs").map_or(0, whole),
    };
    let handoff = || WireId::parse(context["handoffId"].as_str().unwrap()).unwrap();
    match kind {
        "card" => Ok(match Terms::of_card(&reader.read::<AgentCard>(text)?)? {
            None => Value::Null,
            Some(terms) => json!({
                "min": terms.bounds.min(), "max": terms.bounds.max(), "discount": terms.discount,
                "tauUnit": terms.tau_unit.name(), "emit": terms.emit.name(),
            }),
        }),
        "request" | "outcome" => {
            let request: SendMessageRequest = reader.read(text)?;
            Ok(match wire::incoming("unxz", &request, &limits, whole(&context["nowMs"]))? {
                Incoming::Handoff(arrival) => json!({"handoff": {
                    "messageId": arrival.message, "deadlineMs": arrival.deadline_ms, "contextId": arrival.context,
                    "facts": arrival.artifact.facts, "payloadHex": hex(&arrival.artifact.payload),
                }}),
                Incoming::Outcome(note) => json!({"outcome": {
                    "handoffId": note.handoff.to_string(), "outcome": note.outcome, "clamped": note.is_clamped,
                }}),
            })
        }
        "reply" => {
            let bound = |name: &str| context["bounds"][name].as_f64().unwrap();
            let bounds = Bounds::new(bound("min"), bound("max")).unwrap();
            let response: SendMessageResponse = reader.read(text)?;
            Ok(told(wire::answered(&response, &handoff(), &limits)?, bounds))
        }
        "acknowledgement" => wire::acknowledged(&reader.read(text)?, &handoff()).map(|()| Value::Null),
        unknown => panic!("vectors of the kind {unknown:?} are not known here"),
    }
}

fn told(standing: Standing, bounds: Bounds) -> Value {
    let (state, payload) = match &standing.progress {
        Progress::Working => ("working", None),
        Progress::Asks => ("asks", None),
        Progress::Completed(artifact) => ("completed", Some(hex(&artifact.payload))),
        Progress::Ended(why) => (*why, None),
    };
    let mut told = json!({"task": standing.task, "state": state, "v": null});
    if let Some(payload) = payload {
        told["payloadHex"] = payload.into();
    }
    match standing.value {
        None => {}
        Some(Err(error)) => told["v"] = json!({"refuse": error.word}),
        Some(Ok(v)) => {
            let clamped = bounds.clamp(V::new(v).unwrap()).get();
            told["v"] = clamped.into();
            if clamped != v {
                told["clamped"] = true.into();
            }
        }
    }
    told
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All but exchanges, which are run by `exchanges.rs`.
fn files() -> Vec<File> {
    let mut paths: Vec<_> = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_stem().is_none_or(|name| name != "exchange"));
    paths.sort();
    let read = |path: &PathBuf| {
        serde_json::from_str(&fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().map(read).collect()
}

#[test]
fn every_vector_holds() {
    let (mut kinds, mut words, mut count, mut faults) = (BTreeSet::new(), BTreeSet::new(), 0, Vec::new());
    for file in files() {
        for vector in &file.vectors {
            let text = match (&vector.given, &vector.text) {
                (Some(given), None) => given.to_string(),
                (None, Some(text)) => text.clone(),
                _ => panic!("{}: either `given` or `text`", vector.name),
            };
            let mut context = file.context.clone();
            context.extend(vector.context.clone());
            for reader in [Reader::Serde, Reader::Protobuf] {
                let came = match run(&file.kind, reader, &text, &context) {
                    Ok(accepted) => json!({"accept": accepted}),
                    Err(error) => json!({"refuse": error.word}),
                };
                if came != vector.expect {
                    let (kind, name, expect) = (&file.kind, &vector.name, &vector.expect);
                    faults.push(format!("{kind}/{name} ({reader:?}): {came}, where {expect} is expected"));
                }
            }
            let refused = [&vector.expect["refuse"], &vector.expect["accept"]["v"]["refuse"]];
            words.extend(refused.into_iter().filter_map(|word| word.as_str().map(str::to_owned)));
            count += 1;
        }
        kinds.insert(file.kind);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(kinds, ["acknowledgement", "card", "outcome", "reply", "request"].map(str::to_owned).into());
    assert_eq!(words, word::ALL.map(str::to_owned).into(), "each word is expected by a vector");
    assert_eq!(count, 139);
}

#[test]
fn the_document_names_every_word() {
    for word in word::ALL {
        assert!(DOCUMENT.contains(&format!("| `{word}` |")), "docs/wire.md says nothing of {word}");
    }
}

#[test]
fn the_examples_of_the_document_are_vectors() {
    let files = files();
    let given: Vec<&Value> =
        files.iter().flat_map(|file| &file.vectors).filter_map(|v| v.given.as_ref()).collect();
    let examples = DOCUMENT.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut count = 0;
    for example in examples {
        let value: Value = serde_json::from_str(example).unwrap();
        let holds = |given: &&Value| **given == value || given["capabilities"]["extensions"][0] == value;
        assert!(given.iter().any(holds), "{example}");
        count += 1;
    }
    assert_eq!(count, 5);
}
