//! Handoffs: how one is sent, and how one is read.

use std::collections::HashMap;

use a2a::{Message, Role, SendMessageConfiguration, SendMessageRequest};
use relevo::artifact::Artifact;
use serde_json::{Value, json};

use super::{
    AHEAD_MS_MAX, Arrival, EXTENSION, ID_BYTES_MAX, Incoming, Limits, WireError, artifact, count,
    is_plain_id, object, outcome, refused, word,
};
use crate::ids::WireId;

/// What a message to `agent` says. It is work or an outcome where the metadata of the extension say so, and work without
/// values where there are none.
pub fn incoming(
    agent: &str,
    request: &SendMessageRequest,
    limits: &Limits,
    now_ms: u64,
) -> Result<Incoming, WireError> {
    let message = &request.message;
    if request.tenant.as_ref().is_some_and(|tenant| !tenant.is_empty()) {
        return refused(
            word::TENANT,
            "a tenant is named: leave it out, who asks is known by the credentials",
        );
    }
    if message.task_id.as_ref().is_some_and(|task| !task.is_empty()) {
        return refused(
            word::NAMES_A_TASK,
            "a task takes no further messages: send another without `taskId`",
        );
    }
    if !is_plain_id(&message.message_id) {
        let message =
            format!("`messageId` must be 1 to {ID_BYTES_MAX} printable characters of ASCII, without spaces");
        return refused(word::BAD_ID, message);
    }
    let deadline_ms = match message.metadata.as_ref().and_then(|metadata| metadata.get(EXTENSION)) {
        None => None,
        Some(told) if told.get("outcome").is_some() => return outcome::note(told).map(Incoming::Outcome),
        Some(told) => Some(deadline(&message.message_id, told, limits, now_ms)?),
    };
    let context = message.context_id.clone().filter(|context| !context.is_empty());
    if context.as_ref().is_some_and(|context| !is_plain_id(context)) {
        let message = format!(
            "`contextId` must be at most {ID_BYTES_MAX} printable characters of ASCII, without spaces"
        );
        return refused(word::BAD_ID, message);
    }
    let artifact = artifact::of_parts(&message.parts, limits)?;
    let digest = digest(agent, deadline_ms.is_some(), &artifact);
    Ok(Incoming::Handoff(Arrival {
        message: message.message_id.clone(),
        deadline_ms,
        context,
        artifact,
        digest,
    }))
}

/// How long the sender waits, from the metadata of a handoff.
fn deadline(message: &str, told: &Value, limits: &Limits, now_ms: u64) -> Result<u32, WireError> {
    let Some(told) = object(told, &["handoffId", "deadlineMs"], &[]) else {
        return refused(
            word::BAD_METADATA,
            "the metadata must be {\"handoffId\", \"deadlineMs\"} or {\"handoffId\", \"outcome\"}, and nothing else",
        );
    };
    let Some(id) = told["handoffId"].as_str().filter(|id| *id == message).and_then(WireId::parse) else {
        return refused(
            word::BAD_ID,
            "`handoffId` must be a UUID of version 7 in lower case, and equal `messageId`",
        );
    };
    if id.made_ms() < now_ms.saturating_sub(limits.remembered_ms) {
        return refused(
            word::STALE_ID,
            "the id is older than what is remembered here: hand over anew, under a new one",
        );
    }
    if id.made_ms() > now_ms.saturating_add(AHEAD_MS_MAX) {
        return refused(
            word::FUTURE_ID,
            "the id was made more than 5 minutes ahead of the time here: set the clock",
        );
    }
    match count(&told["deadlineMs"]) {
        Some(deadline) => Ok(deadline),
        None => refused(word::BAD_DEADLINE, "`deadlineMs` must be a whole number from 1 to 2147483647"),
    }
}

/// BLAKE3 over what is handed to whom.
fn digest(agent: &str, passes_value: bool, artifact: &Artifact) -> [u8; 32] {
    let facts = serde_json::to_vec(&artifact.facts).expect("names and scalars are always JSON");
    let mut hasher = blake3::Hasher::new_derive_key("relevo 2026 content of a handoff v1");
    for field in [agent.as_bytes(), &[u8::from(passes_value)], &facts, &artifact.payload] {
        hasher.update(&(field.len() as u64).to_le_bytes()).update(field);
    }
    *hasher.finalize().as_bytes()
}

/// The message that hands an artifact over: with its deadline to somebody who passes values, and without to anybody else,
/// who then sees nothing of the extension.
pub fn handoff(
    wire: &WireId,
    deadline_ms: Option<u32>,
    context: &str,
    artifact: &Artifact,
) -> SendMessageRequest {
    let id = wire.to_string();
    let metadata = deadline_ms.map(|deadline| json!({"handoffId": id, "deadlineMs": deadline}));
    request(Message {
        message_id: id,
        context_id: Some(context.to_owned()),
        parts: artifact::to_parts(artifact, deadline_ms.is_some()),
        extensions: metadata.is_some().then(|| vec![EXTENSION.to_owned()]),
        metadata: metadata.map(under_extension),
        ..empty(Role::User)
    })
}

/// A request that does not wait for the end of the task.
pub(super) fn request(message: Message) -> SendMessageRequest {
    let configuration = SendMessageConfiguration {
        accepted_output_modes: None,
        task_push_notification_config: None,
        history_length: None,
        return_immediately: Some(true),
    };
    SendMessageRequest { message, configuration: Some(configuration), metadata: None, tenant: None }
}

pub(super) fn empty(role: Role) -> Message {
    Message {
        message_id: String::new(),
        context_id: None,
        task_id: None,
        role,
        parts: Vec::new(),
        metadata: None,
        extensions: None,
        reference_task_ids: None,
    }
}

pub(super) fn under_extension(value: Value) -> HashMap<String, Value> {
    HashMap::from([(EXTENSION.to_owned(), value)])
}
