//! The language model in the box, in this process: no service, no key, no network.
//!
//! Requests that come at the same time are answered together, by as many threads as there are processors. What it answers
//! is a function of the request.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use async_trait::async_trait;
use relevo_lm::{Completion, Continue, Finish as Ended, Request, Role};
use tokio::{sync::oneshot, time::timeout};

use super::{ChatReply, ChatRequest, Finish, Hear, Model, Speaker, TokenUsage};
use crate::agent::Failure;

/// Its provider in a team file.
pub const PROVIDER: &str = "relevo-lm";

/// The most requests that one thread answers together.
const BATCH_MAX: usize = 64;

/// The model in the box.
#[derive(Debug)]
pub(super) struct Local;

/// A request with the place where its answer is awaited.
struct Asked {
    request: Request,
    tell: oneshot::Sender<Completion>,
}

/// The threads that run the model.
struct Threads {
    ask: Mutex<Sender<Asked>>,
    waiting: Arc<AtomicUsize>,
}

static THREADS: LazyLock<Threads> = LazyLock::new(|| {
    let (ask, asked) = channel();
    let (asked, waiting) = (Arc::new(Mutex::new(asked)), Arc::default());
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    for _ in 0..threads {
        let (asked, waiting) = (Arc::clone(&asked), Arc::clone(&waiting));
        thread::spawn(move || while answer(&asked, &waiting, threads).is_some() {});
    }
    Threads { ask: Mutex::new(ask), waiting }
});

/// Answer what is asked now, or this thread's part of it; `None` once nobody can ask any more.
fn answer(asked: &Mutex<Receiver<Asked>>, waiting: &AtomicUsize, threads: usize) -> Option<()> {
    let batch: Vec<Asked> = {
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let first = asked.recv().ok()?;
        let part = waiting.load(Ordering::Relaxed).div_ceil(threads).clamp(1, BATCH_MAX);
        [first].into_iter().chain(asked.try_iter().take(part - 1)).collect()
    };
    waiting.fetch_sub(batch.len(), Ordering::Relaxed);
    let requests: Vec<Request> = batch.iter().map(|asked| asked.request.clone()).collect();
    let go_on = &mut |index: usize, _: &str| match batch[index].tell.is_closed() {
        true => Continue::No,
        false => Continue::Yes,
    };
    let completions = relevo_lm::Model::bundled().generate(&requests, go_on);
    for (Asked { tell, .. }, completion) in batch.into_iter().zip(completions) {
        // Who has gone away hears nothing.
        let _ = tell.send(completion);
    }
    Some(())
}

#[async_trait]
impl Model for Local {
    async fn chat(&self, request: &ChatRequest, hear: Option<Hear<'_>>) -> Result<ChatReply, Failure> {
        if !request.tools.is_empty() || request.schema.is_some() {
            let what = "the model in the box calls no tools, and answers in no other form than its own";
            return Err(Failure::InvalidRequest(what.to_owned()));
        }
        let messages = request.messages.iter().filter_map(|message| {
            let role = match message.speaker {
                Speaker::System => Role::System,
                Speaker::User => Role::User,
                Speaker::Assistant => Role::Assistant,
                Speaker::Tool => return None,
            };
            Some((role, message.text.as_str()))
        });
        let prompt = relevo_lm::Model::bundled().prompt(&messages.collect::<Vec<_>>());
        let prompt = prompt.map_err(|e| Failure::InvalidRequest(e.to_string()))?;
        let asked = Request {
            prompt,
            temperature: request.temperature.unwrap_or(0.0),
            seed: request.seed.unwrap_or(0),
            max_tokens: request.max_tokens.map_or(usize::MAX, |most| most as usize),
        };
        let (tell, told) = oneshot::channel();
        THREADS.waiting.fetch_add(1, Ordering::Relaxed);
        let ask = THREADS.ask.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let gone = |_| Failure::Unavailable("the model in the box has ended".to_owned());
        ask.send(Asked { request: asked, tell }).map_err(|_| gone(()))?;
        let late = |_| Failure::Timeout { ms: request.timeout.as_millis() as u64 };
        let completion = timeout(request.timeout, told).await.map_err(late)?.map_err(|_| gone(()))?;
        if let Some(hear) = hear {
            hear(&completion.text);
        }
        let usage = TokenUsage {
            input: completion.prompt_tokens as u64,
            output: completion.completion_tokens as u64,
        };
        let finish = if completion.finish == Ended::Length { Finish::CutOff } else { Finish::Stopped };
        let Completion { text, .. } = completion;
        Ok(ChatReply { text, calls: vec![], kept: serde_json::Value::Null, usage, finish, retries: 0 })
    }
}
