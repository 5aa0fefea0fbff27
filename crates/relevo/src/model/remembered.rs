//! A model whose answers are remembered: the same request has the same answer as before, and is not made again by this
//! process. For models whose answers are a function of what they are told, or are to be taken as one.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use super::{ChatReply, ChatRequest, Hear, Model};
use crate::agent::Failure;

/// The most answers that are remembered.
const KNOWN_MAX: usize = 1 << 16;

/// The model with its memory.
pub(super) struct Remembered {
    model: Arc<dyn Model>,
    known: Mutex<HashMap<blake3::Hash, ChatReply>>,
}

impl Remembered {
    pub(super) fn new(model: Arc<dyn Model>) -> Self {
        Remembered { model, known: Mutex::default() }
    }
}

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remembered").field(&self.model).finish()
    }
}

#[async_trait]
impl Model for Remembered {
    async fn chat(&self, request: &ChatRequest, hear: Option<Hear<'_>>) -> Result<ChatReply, Failure> {
        let ChatRequest { messages, tools, schema, temperature, max_tokens, seed, timeout: _ } = request;
        // All that an answer depends on.
        let asked = format!("{:?}", (messages, tools, schema, temperature, max_tokens, seed));
        let key = blake3::hash(asked.as_bytes());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(reply) = known {
            if let Some(hear) = hear {
                hear(&reply.text);
            }
            return Ok(reply);
        }
        let reply = self.model.chat(request, hear).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, ChatReply { retries: 0, ..reply.clone() });
        Ok(reply)
    }
}
