//! The wire: what is sent is what is read, in every form in which it travels; and nothing that comes in breaks a reader.

use std::sync::Arc;

use a2a::{AgentCard, SendMessageRequest, SendMessageResponse, Task};
use a2a_pb::protojson_conv::{ProtoJsonPayload, from_value, to_value};
use proptest::prelude::*;
use relevo::artifact::{Artifact, Facts, Scalar};
use relevo_core::{ids::AgentId, units::Bounds};
use relevo_node::{
    ids::{PeerId, TaskId, WireId},
    store::{TaskRow, TaskState},
    wire::{self, EXTENSION, Emit, Incoming, Limits, Progress, TauUnit, Terms},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

const NOW_MS: u64 = 1_760_000_000_000;
const LIMITS: Limits = Limits { payload_bytes_max: 716_800, remembered_ms: 30 * 86_400_000 };

/// The same as it arrives: as text that serde reads, and through protobuf as the SDK reads it.
fn arrives<T: Serialize + DeserializeOwned + ProtoJsonPayload>(sent: &T) -> [T; 2] {
    let text = serde_json::to_string(sent).unwrap();
    let value = to_value(sent).unwrap().to_string();
    [serde_json::from_str(&text).unwrap(), from_value(serde_json::from_str(&value).unwrap()).unwrap()]
}

fn facts() -> impl Strategy<Value = Facts> {
    let whole = -(1i64 << 53) + 1..1i64 << 53;
    let scalar = prop_oneof![
        any::<bool>().prop_map(Scalar::Bool),
        whole.prop_map(Scalar::Int),
        "\\PC{0,60}".prop_map(Scalar::Text)
    ];
    prop::collection::btree_map("[a-z0-9_.-]{1,64}", scalar, 0..6)
}

fn artifact() -> impl Strategy<Value = Artifact> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        "\\PC*".prop_map(String::into_bytes),
        Just(b"a\nb\0\"\\".to_vec())
    ];
    (facts(), payload).prop_map(|(facts, payload)| Artifact { facts, payload: Arc::from(payload) })
}

fn wire_id() -> impl Strategy<Value = WireId> {
    (0..1_000_000u64, any::<[u8; 10]>()).prop_map(|(ago, bits)| WireId::new(NOW_MS - ago, &bits))
}

fn row() -> impl Strategy<Value = TaskRow> {
    const STATES: &[TaskState] = &[
        TaskState::Working,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Canceled,
        TaskState::Rejected,
    ];
    let state = prop::sample::select(STATES);
    (state, any::<bool>(), artifact(), 0..4_000_000_000_000u64).prop_map(
        |(state, passes_value, result, changed_ms)| TaskRow {
            peer: PeerId(3),
            id: TaskId::of("orgb", "m-1"),
            message: "m-1".into(),
            digest: [0; 32],
            context: "c-1".into(),
            agent: AgentId(0),
            passes_value,
            received_ms: 0,
            deadline_ms: 0,
            state,
            changed_ms,
            value: None,
            result: (state == TaskState::Completed).then_some(result),
            why: (state == TaskState::Failed).then(|| "deadline".into()),
            stay: None,
            closing: None,
            outcome: None,
        },
    )
}

fn terms() -> impl Strategy<Value = Terms> {
    let tau_unit = prop::sample::select(&[TauUnit::Call, TauUnit::Second, TauUnit::Handoff][..]);
    let emit = prop::sample::select(&[Emit::Activation, Emit::Operation][..]);
    (-1e9..-1e-9, 0.0..1e9, 0.0..=1.0, tau_unit, emit).prop_map(|(min, max, discount, tau_unit, emit)| {
        Terms { bounds: Bounds::new(min, max).unwrap(), discount, tau_unit, emit }
    })
}

fn card(extensions: Value) -> AgentCard {
    serde_json::from_value(json!({
        "name": "unxz", "description": "d", "version": "1", "capabilities": {"extensions": extensions}, "skills": [],
        "supportedInterfaces": [{"url": "http://b", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}],
    }))
    .unwrap()
}

proptest! {
    #[test]
    fn a_handoff_arrives_as_it_was_sent(
        wire in wire_id(),
        deadline in prop::option::of(1..1u32 << 31),
        artifact in artifact(),
    ) {
        wire::crosses(&artifact, &LIMITS).unwrap();
        let sent = wire::handoff(&wire, deadline, "c-1", &artifact);
        let mut digests = Vec::new();
        for request in arrives(&sent) {
            let read = wire::incoming("unxz", &request, &LIMITS, NOW_MS).unwrap();
            let Incoming::Handoff(arrival) = read else { panic!("an outcome") };
            prop_assert_eq!(arrival.message, wire.to_string());
            prop_assert_eq!(arrival.deadline_ms, deadline);
            prop_assert_eq!(arrival.context.as_deref(), Some("c-1"));
            prop_assert_eq!(&arrival.artifact, &artifact);
            digests.push(arrival.digest);
        }
        prop_assert_eq!(digests[0], digests[1]);
        let text = serde_json::to_string(&sent).unwrap();
        prop_assert_eq!(text.contains(EXTENSION), deadline.is_some());
    }

    #[test]
    fn an_outcome_arrives_as_it_was_sent(message in wire_id(), handoff in wire_id(), outcome in 0.0..=1.0) {
        for request in arrives(&wire::outcome(&message, &handoff, Some("task-1"), outcome)) {
            let read = wire::incoming("unxz", &request, &LIMITS, NOW_MS).unwrap();
            let Incoming::Outcome(note) = read else { panic!("a handoff") };
            prop_assert_eq!((note.handoff, note.outcome, note.is_clamped), (handoff, outcome, false));
        }
        for response in arrives(&SendMessageResponse::Message(wire::noted(&handoff))) {
            wire::acknowledged(&response, &handoff).unwrap();
            prop_assert_eq!(wire::acknowledged(&response, &message).is_ok(), message == handoff);
        }
    }

    #[test]
    fn a_task_tells_how_it_stands(wire in wire_id(), row in row(), v in prop::option::of(-1e9..1e9)) {
        let row = TaskRow { message: wire.to_string(), value: v, ..row };
        let task = wire::task(&row);
        prop_assert_eq!(&task, &wire::task(&row));
        for response in arrives(&SendMessageResponse::Task(task)) {
            let standing = wire::answered(&response, &wire, &LIMITS).unwrap();
            prop_assert_eq!(standing.task, Some(row.id.to_string()));
            prop_assert_eq!(standing.value.map(Result::unwrap), v.filter(|_| row.passes_value));
            let expected = match row.state {
                TaskState::Working => Progress::Working,
                TaskState::Completed => Progress::Completed(row.result.clone().unwrap()),
                TaskState::Failed => Progress::Ended("failed"),
                TaskState::Canceled => Progress::Ended("canceled"),
                TaskState::Rejected => Progress::Ended("rejected"),
            };
            prop_assert_eq!(standing.progress, expected);
        }
    }

    #[test]
    fn terms_are_read_as_they_are_declared(terms in terms()) {
        for card in arrives(&card(json!([terms.declaration()]))) {
            prop_assert_eq!(Terms::of_card(&card).unwrap(), Some(terms));
        }
    }

    /// Any JSON in any place of what is sent: read, or refused by a word that is listed.
    #[test]
    fn no_json_breaks_a_reader(
        wire in wire_id(),
        artifact in artifact(),
        terms in terms(),
        row in row(),
        place: prop::sample::Index,
        junk in junk(),
    ) {
        let row = TaskRow { message: wire.to_string(), value: Some(0.5), passes_value: true, ..row };
        for request in [wire::handoff(&wire, Some(9), "c", &artifact), wire::outcome(&wire, &wire, Some("t"), 0.5)] {
            for request in spoilt(&request, &place, &junk) {
                listed(wire::incoming("unxz", &request, &LIMITS, NOW_MS).err());
            }
        }
        for response in [SendMessageResponse::Task(wire::task(&row)), SendMessageResponse::Message(wire::noted(&wire))] {
            for response in spoilt(&response, &place, &junk) {
                listed(wire::acknowledged(&response, &wire).err());
                let standing = wire::answered(&response, &wire, &LIMITS);
                listed(standing.map_or_else(Some, |standing| standing.value.and_then(Result::err)));
            }
        }
        for card in spoilt(&card(json!([terms.declaration()])), &place, &junk) {
            listed(Terms::of_card(&card).err());
        }
    }
}

fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,20}".prop_map(Value::from),
        Just(Value::from(EXTENSION)),
        // Nearly as deep as a reader of text lets through.
        Just((0..100).fold(Value::Null, |inner, _| json!([inner]))),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map("[a-zA-Z]{0,10}", inner, 0..6).prop_map(|m| m.into_iter().collect()),
        ]
    })
}

/// What can still be read once one place of it is junk.
fn spoilt<T: Serialize + DeserializeOwned + ProtoJsonPayload>(
    sent: &T,
    place: &prop::sample::Index,
    junk: &Value,
) -> Vec<T> {
    let mut value = serde_json::to_value(sent).unwrap();
    let mut places = Vec::new();
    pointers(&value, String::new(), &mut places);
    *value.pointer_mut(place.get::<String>(&places)).unwrap() = junk.clone();
    let by_text = serde_json::from_str(&value.to_string()).ok();
    by_text.into_iter().chain(from_value(value).ok()).collect()
}

fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    let step = |key: &str| format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| pointers(value, step(key), places)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, value)| pointers(value, step(&i.to_string()), places))
        }
        _ => {}
    }
    places.push(at);
}

fn listed(error: Option<wire::WireError>) {
    if let Some(error) = error {
        assert!(wire::word::ALL.contains(&error.word), "{error}");
    }
}

#[test]
fn a_refusal_says_nothing_of_what_came_in() {
    let wire = WireId::new(NOW_MS, &[7; 10]);
    let mut sent = serde_json::to_value(wire::handoff(&wire, Some(9), "c", &Artifact::default())).unwrap();
    for (place, spoil) in [
        ("/message/parts/0", json!({"data": {"SECRET": "SECRET"}, "mediaType": wire::FACTS_MEDIA_TYPE})),
        ("/message/messageId", json!("SECRET SECRET")),
        ("/message/metadata", json!({EXTENSION: {"handoffId": "SECRET", "deadlineMs": 9, "SECRET": 1}})),
        ("/message/metadata", json!({EXTENSION: {"handoffId": "SECRET", "deadlineMs": 9}})),
        ("/message/metadata", json!({EXTENSION: {"handoffId": "SECRET", "outcome": "SECRET"}})),
    ] {
        let was = std::mem::replace(sent.pointer_mut(place).unwrap(), spoil);
        let request: SendMessageRequest = serde_json::from_value(sent.clone()).unwrap();
        let error = wire::incoming("unxz", &request, &LIMITS, NOW_MS).unwrap_err();
        assert!(!format!("{error:?}").contains("SECRET"), "{error}");
        *sent.pointer_mut(place).unwrap() = was;
    }
}

/// The same data is the same payload, whatever reader it went through and in whatever order its names stand.
#[test]
fn data_is_a_payload_in_one_form() {
    let read = |data: &str| {
        let text =
            format!(r#"{{"message":{{"messageId":"m","role":"ROLE_USER","parts":[{{"data":{data}}}]}}}}"#);
        let value: Value = serde_json::from_str(&text).unwrap();
        let forms: [SendMessageRequest; 2] =
            [serde_json::from_value(value.clone()).unwrap(), from_value(value).unwrap()];
        let [a, b] = forms.map(|request| match wire::incoming("unxz", &request, &LIMITS, NOW_MS) {
            Ok(Incoming::Handoff(arrival)) => String::from_utf8(arrival.artifact.payload.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        });
        assert_eq!(a, b);
        a
    };
    let mixed = r#"{"b":[1,2.5,-0.0,null],"a":{"d":true,"c":"é\n"}}"#;
    assert_eq!(read(mixed), r#"{"a":{"c":"é\n","d":true},"b":[1,2.5,0,null]}"#);
    assert_eq!(
        read("[9007199254740991,9007199254740992.0,1e20]"),
        "[9007199254740991,9007199254740992.0,1e+20]"
    );
    assert_eq!(read("3.0"), "3");
}

/// Agents that are not ours answer in other ways, which A2A allows.
#[test]
fn what_other_agents_answer_is_understood() {
    let wire = WireId::new(NOW_MS, &[7; 10]);
    let done = |text: &str| {
        Progress::Completed(Artifact { payload: Arc::from(text.as_bytes()), ..Artifact::default() })
    };
    let part = |text: &str| json!({"artifactId": "a", "parts": [{"text": text}]});
    let said = json!({"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "said"}]});
    let completed = json!({"state": "TASK_STATE_COMPLETED"});
    let saying = json!({"state": "TASK_STATE_COMPLETED", "message": said});
    for (status, artifacts, progress) in [
        (json!({"state": "TASK_STATE_SUBMITTED"}), json!([]), Progress::Working),
        (json!({"state": "TASK_STATE_INPUT_REQUIRED"}), json!([]), Progress::Asks),
        (json!({"state": "TASK_STATE_AUTH_REQUIRED"}), json!([]), Progress::Asks),
        (completed.clone(), json!([]), done("")),
        (completed, json!([part("a"), part("b")]), done("a\nb")),
        (saying.clone(), json!([]), done("said")),
        (saying, json!([part("a")]), done("a")),
    ] {
        let task = json!({"id": "t-1", "contextId": "c", "status": status, "artifacts": artifacts});
        let task: Task = serde_json::from_value(task).unwrap();
        let standing = wire::standing(&task, &wire, &LIMITS).unwrap();
        assert_eq!((standing.progress, standing.value), (progress, None), "{task:?}");
    }
}
