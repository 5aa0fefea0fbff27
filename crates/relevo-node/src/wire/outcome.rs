//! Outcomes: how good a finished task was, told along the path of its handoffs.

use a2a::{Message, Part, Role, SendMessageRequest, SendMessageResponse};
use serde_json::{Value, json};

use super::{
    EXTENSION, OutcomeNote, WireError, number, object, refused,
    reply::message_id,
    request::{empty, request, under_extension},
    word,
};
use crate::ids::WireId;

/// The message that tells how good the work of a handoff was. It refers to the task that the handoff has become at the
/// receiver, where that is known, and is not part of it: that has ended.
pub fn outcome(message: &WireId, handoff: &WireId, task: Option<&str>, outcome: f64) -> SendMessageRequest {
    request(Message {
        message_id: message.to_string(),
        parts: vec![Part::data(json!({}))],
        metadata: Some(under_extension(json!({"handoffId": handoff.to_string(), "outcome": outcome}))),
        extensions: Some(vec![EXTENSION.to_owned()]),
        reference_task_ids: task.map(|task| vec![task.to_owned()]),
        ..empty(Role::User)
    })
}

/// The outcome that metadata tell.
pub(super) fn note(told: &Value) -> Result<OutcomeNote, WireError> {
    let Some(told) = object(told, &["handoffId", "outcome"], &[]) else {
        return refused(
            word::BAD_METADATA,
            "the metadata of an outcome must be {\"handoffId\", \"outcome\"}, and nothing else",
        );
    };
    let Some(handoff) = told["handoffId"].as_str().and_then(WireId::parse) else {
        return refused(word::BAD_ID, "`handoffId` must be a UUID of version 7 in lower case");
    };
    let Some(told) = number(&told["outcome"]) else {
        return refused(word::BAD_OUTCOME, "`outcome` must be a number in [0, 1]");
    };
    let outcome = told.clamp(0.0, 1.0);
    Ok(OutcomeNote { handoff, outcome, is_clamped: outcome != told })
}

/// The answer to an outcome once it is durable.
pub fn noted(handoff: &WireId) -> Message {
    Message {
        message_id: message_id(&handoff.bytes(), "noted"),
        parts: vec![Part::data(json!({}))],
        metadata: Some(under_extension(json!({"handoffId": handoff.to_string()}))),
        extensions: Some(vec![EXTENSION.to_owned()]),
        ..empty(Role::Agent)
    }
}

/// Whether this is the answer to an outcome of `handoff`.
pub fn acknowledged(response: &SendMessageResponse, handoff: &WireId) -> Result<(), WireError> {
    let told = match response {
        SendMessageResponse::Message(message) => message.metadata.as_ref().and_then(|m| m.get(EXTENSION)),
        SendMessageResponse::Task(_) => None,
    };
    match told.and_then(|told| object(told, &["handoffId"], &[])) {
        None => refused(
            word::BAD_ANSWER,
            "an outcome is answered by a message with {\"handoffId\"} in its metadata",
        ),
        Some(told) if told["handoffId"].as_str() == Some(handoff.to_string().as_str()) => Ok(()),
        Some(_) => refused(word::OTHER_ID, "the outcome of another handoff was acknowledged"),
    }
}
