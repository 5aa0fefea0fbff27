//! Requests and answers in the types of `genai`.

use genai::chat::{ChatMessage, StopReason, Tool, ToolName, ToolResponse, Usage};

use super::{
    ChatReply, ChatRequest, Finish, Message, Speaker, TokenUsage, ToolCall, ToolDefinition,
    patience::Refusal, provider::garbage,
};

pub(super) fn messages(request: &ChatRequest) -> genai::chat::ChatRequest {
    let message = |message: &Message| match (message.speaker, &*message.text) {
        (Speaker::System, text) => ChatMessage::system(text),
        (Speaker::User, text) => ChatMessage::user(text),
        (Speaker::Tool, text) => {
            let response = |call| ToolResponse::from_tool_call(&genai_call(call), text);
            message.calls.iter().map(response).collect::<Vec<_>>().into()
        }
        (Speaker::Assistant, text) => match serde_json::from_value(message.kept.clone()) {
            Ok(kept) => kept,
            Err(_) if message.calls.is_empty() => ChatMessage::assistant(text),
            Err(_) => message.calls.iter().map(genai_call).collect::<Vec<_>>().into(),
        },
    };
    let tool = |tool: &ToolDefinition| {
        let named = Tool::new(ToolName::Custom(tool.name.clone()));
        named.with_description(tool.description.as_str()).with_schema(tool.schema.clone())
    };
    let asked = genai::chat::ChatRequest::new(request.messages.iter().map(message).collect());
    match request.tools.is_empty() {
        true => asked,
        false => asked.with_tools(request.tools.iter().map(tool)),
    }
}

fn genai_call(call: &ToolCall) -> genai::chat::ToolCall {
    genai::chat::ToolCall {
        call_id: call.id.clone(),
        fn_name: call.name.clone(),
        fn_arguments: call.arguments.clone(),
        thought_signatures: None,
    }
}

/// An answer; `calling` is all of it, where it calls tools.
pub(super) fn finished(
    text: String,
    calling: Option<ChatMessage>,
    usage: TokenUsage,
    reason: Option<StopReason>,
) -> Result<ChatReply, Refusal> {
    let finish = match reason {
        Some(StopReason::MaxTokens(_)) => Finish::CutOff,
        Some(StopReason::ContentFilter(_)) => Finish::Withheld,
        _ if text.is_empty() && calling.is_none() => return Err(garbage("it holds no text")),
        _ => Finish::Stopped,
    };
    let call = |call: &genai::chat::ToolCall| ToolCall {
        id: call.call_id.clone(),
        name: call.fn_name.clone(),
        arguments: call.fn_arguments.clone(),
    };
    let calls =
        calling.as_ref().map_or(vec![], |said| said.content.tool_calls().into_iter().map(call).collect());
    let kept = calling.and_then(|said| serde_json::to_value(said).ok()).unwrap_or_default();
    Ok(ChatReply { text, calls, kept, usage, finish, retries: 0 })
}

pub(super) fn usage(reported: Option<&Usage>) -> TokenUsage {
    let count = |n: Option<i32>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    reported.map_or(TokenUsage::default(), |usage| TokenUsage {
        input: count(usage.prompt_tokens),
        output: count(usage.completion_tokens),
    })
}
