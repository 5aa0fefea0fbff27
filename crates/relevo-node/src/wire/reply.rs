//! Replies: the value of a handoff, how its task stands, and what came of it.

use std::{borrow::Borrow, collections::HashMap};

use a2a::{Message, Part, Role, SendMessageResponse, Task, TaskStatus};
use relevo::artifact::Artifact;
use serde_json::{Value, json};
use uuid::Builder;

use super::{
    EXTENSION, Limits, Progress, SIG_BYTES_MAX, Standing, WireError, artifact, count, is_plain_id, number,
    object, refused,
    request::{empty, under_extension},
    word,
};
use crate::{
    ids::WireId,
    store::{TaskRow, TaskState},
};

/// The metadata that tell the value of a handoff. Its maker measures tau and r itself, so they tell nothing: 1 and 0.
pub fn status_metadata(handoff: &str, v: f64) -> HashMap<String, Value> {
    under_extension(json!({"handoffId": handoff, "v": v, "tau": 1, "r": 0.0}))
}

/// How a kept task is shown to its owner. The same row is always the same task, byte for byte.
pub fn task(row: &TaskRow) -> Task {
    let (state, word) = match row.state {
        TaskState::Working => (a2a::TaskState::Working, "working"),
        TaskState::Completed => (a2a::TaskState::Completed, "completed"),
        TaskState::Failed => (a2a::TaskState::Failed, "failed"),
        TaskState::Canceled => (a2a::TaskState::Canceled, "canceled"),
        TaskState::Rejected => (a2a::TaskState::Rejected, "rejected"),
    };
    let value = row.value.filter(|_| row.passes_value);
    let result = row.result.as_ref().map(|result| a2a::Artifact {
        artifact_id: "result".to_owned(),
        name: None,
        description: None,
        parts: artifact::to_parts(result, row.passes_value),
        metadata: None,
        extensions: None,
    });
    let message = (value.is_some() || row.why.is_some()).then(|| Message {
        message_id: message_id(&row.id.bytes(), word),
        context_id: Some(row.context.clone()),
        task_id: Some(row.id.to_string()),
        parts: vec![Part::text(row.why.as_deref().unwrap_or(word))],
        metadata: value.map(|v| status_metadata(&row.message, v)),
        extensions: value.map(|_| vec![EXTENSION.to_owned()]),
        ..empty(Role::Agent)
    });
    let changed = i64::try_from(row.changed_ms).ok().and_then(chrono::DateTime::from_timestamp_millis);
    Task {
        id: row.id.to_string(),
        context_id: row.context.clone(),
        status: TaskStatus { state, message, timestamp: changed },
        artifacts: result.map(|result| vec![result]),
        history: None,
        metadata: None,
    }
}

/// The id of what is said about something: it follows from both, so that the same answer given again is the same message.
pub(super) fn message_id(about: &[u8; 16], said: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("relevo 2026 message of a node v1");
    hasher.update(about).update(said.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

/// How the task of a handoff stands, from the answer to the message that made it.
pub fn answered(
    response: &SendMessageResponse,
    wire: &WireId,
    limits: &Limits,
) -> Result<Standing, WireError> {
    match response {
        SendMessageResponse::Task(task) => standing(task, wire, limits),
        // Who answers by a message has done the work already, and keeps no task.
        SendMessageResponse::Message(message) => Ok(Standing {
            task: None,
            progress: completed(&message.parts, limits),
            value: value(message, wire),
        }),
    }
}

/// How the task of a handoff stands.
pub fn standing(task: &Task, wire: &WireId, limits: &Limits) -> Result<Standing, WireError> {
    if !is_plain_id(&task.id) {
        return refused(
            word::BAD_ANSWER,
            "the id of a task must be at most 128 printable characters of ASCII",
        );
    }
    let progress = match task.status.state {
        a2a::TaskState::Submitted | a2a::TaskState::Working => Progress::Working,
        a2a::TaskState::InputRequired | a2a::TaskState::AuthRequired => Progress::Asks,
        a2a::TaskState::Completed => result(task, limits),
        a2a::TaskState::Failed => Progress::Ended("failed"),
        a2a::TaskState::Canceled => Progress::Ended("canceled"),
        a2a::TaskState::Rejected => Progress::Ended("rejected"),
        a2a::TaskState::Unspecified => return refused(word::BAD_ANSWER, "a task must have a state"),
    };
    let value = task.status.message.as_ref().and_then(|message| value(message, wire));
    Ok(Standing { task: Some(task.id.clone()), progress, value })
}

/// What came out: the artifacts, or what was said at the end by an agent that makes none.
fn result(task: &Task, limits: &Limits) -> Progress {
    let parts: Vec<&Part> = task.artifacts.iter().flatten().flat_map(|artifact| &artifact.parts).collect();
    match &task.status.message {
        _ if !parts.is_empty() => completed(&parts, limits),
        Some(message) if !message.parts.is_empty() => completed(&message.parts, limits),
        _ => Progress::Completed(Artifact::default()),
    }
}

/// A result that cannot be taken is none: it would be the same if it was asked for again.
fn completed<P: Borrow<Part>>(parts: &[P], limits: &Limits) -> Progress {
    artifact::of_parts(parts, limits).map_or_else(|error| Progress::Ended(error.word), Progress::Completed)
}

/// The value that a message tells, if it tells one.
fn value(message: &Message, wire: &WireId) -> Option<Result<f64, WireError>> {
    let told = message.metadata.as_ref()?.get(EXTENSION)?;
    Some(read(told).and_then(|(handoff, v)| match handoff == wire.to_string() {
        true => Ok(v),
        false => refused(word::OTHER_ID, "the value of another handoff"),
    }))
}

fn read(told: &Value) -> Result<(&str, f64), WireError> {
    let fields = || {
        let told = object(told, &["handoffId", "v", "tau", "r"], &["sig"])?;
        let is_short = |sig: &Value| sig.as_str().is_some_and(|sig| sig.len() <= SIG_BYTES_MAX);
        let (handoff, v) = (told["handoffId"].as_str()?, number(&told["v"])?);
        (count(&told["tau"]).is_some()
            && number(&told["r"]).is_some()
            && told.get("sig").is_none_or(is_short))
        .then_some((handoff, v))
    };
    match fields() {
        Some(read) => Ok(read),
        None => refused(
            word::BAD_VALUE,
            "a value must be {\"handoffId\", \"v\", \"tau\", \"r\"}, or these and \"sig\", with finite numbers, and tau a whole \
             one from 1",
        ),
    }
}
