//! Who looks on. What a run does is told to an [`Observer`], which changes nothing and is never waited for; where nobody
//! looks on, nothing is gathered.
//!
//! What is on record is told as it is recorded. What a call asks of models and tools on its way is gathered with it: the
//! place of the call goes with its future, so that whoever asks need not be told where it belongs, and finds it by
//! `Asking::begin` and `traceparent`. Times are milliseconds since 1970, by the clock of the stage.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use relevo_core::{protocol::Participant, record::Entry};

use crate::{
    agent::{FailureKind, Outcome},
    evaluate::Walk,
    judge::Verdict,
    model::TokenUsage,
    stage::Clock,
};

/// Looks on.
pub trait Observer: Send + Sync {
    /// A task is brought before the team.
    fn task(&self, occasion: Occasion) -> Arc<Watched>;

    /// A record was added to the ledger. Participants are as they are at that moment.
    fn recorded(&self, entry: &Entry, participants: &[Participant]);

    /// A record of an earlier process was read, as its run is taken up.
    fn recalled(&self, entry: &Entry);

    /// A model or a tool was asked.
    fn asked(&self, request: &Request, purpose: Purpose);

    /// A task has ended that nothing was learned from, and no record tells of.
    fn walked(&self, watched: &Watched, walk: &Walk);

    /// What came out of several such tasks was judged.
    fn compared(&self, watched: &Watched);
}

/// On which occasion a task is brought before the team.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// To learn from it; its number in the run.
    Lesson(u64),
    /// To measure or to use what was learned.
    Measurement,
    /// To compare what came out of several measurements: no task of its own, but a part of all.
    Comparison,
}

/// What work is a part of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A call of an agent, by its place among the calls of the task.
    Call(u32),
    /// Judging what came out.
    Judgement,
}

/// The identity of something that takes time: of what it is a part, and which part it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The whole.
    pub trace: [u8; 16],
    /// The part.
    pub id: [u8; 8],
}

impl Span {
    /// A part of it, by a name that no other part has.
    pub fn part(self, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.trace).update(&self.id).update(name.as_bytes());
        // One that is all zero, which would be no identity, does not come up.
        let hash = hasher.finalize();
        let id = std::array::from_fn(|i| hash.as_bytes()[i]);
        Span { id, ..self }
    }

    /// What a `traceparent` of W3C Trace Context names, and whether it is sampled; `None` if it is not one.
    pub fn parse(traceparent: &str) -> Option<(Self, bool)> {
        let mut parts = traceparent.trim().split('-');
        let version = hex::<1>(parts.next()?)?;
        let (trace, id, flags) = (hex(parts.next()?)?, hex(parts.next()?)?, hex::<1>(parts.next()?)?);
        // Later versions may have more parts.
        let is_whole = version[0] != 0xff && (version[0] > 0 || parts.next().is_none());
        let is_valid = is_whole && trace != [0; 16] && id != [0; 8];
        is_valid.then_some((Span { trace, id }, flags[0] & 1 == 1))
    }
}

/// Bytes in lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != 2 * N || !digits.bytes().all(is_digit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// As W3C Trace Context has it, in the header `traceparent`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, id) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.id));
        write!(f, "00-{trace:032x}-{id:016x}-01")
    }
}

/// A task that is looked at, with the work for it that has come back and was not told of yet.
#[derive(Debug)]
pub struct Watched {
    /// The task.
    pub span: Span,
    /// When it was brought before the team.
    pub began: u64,
    /// Whether spans are made of it, so that others may make parts of them.
    pub is_traced: bool,
    done: Mutex<Vec<Work>>,
}

/// Work for a task that has come back.
#[derive(Clone, Debug)]
pub struct Work {
    /// The work.
    pub span: Span,
    /// What it was for.
    pub purpose: Purpose,
    /// When it began.
    pub began: u64,
    /// When it came back.
    pub ended: u64,
    /// What came of it.
    pub result: WorkEnd,
    /// What was asked of models and tools for it, in the order in which that ended; the first [`REQUESTS_MAX`].
    pub requests: Vec<Request>,
}

/// The most requests of one call that are kept.
pub const REQUESTS_MAX: usize = 256;

/// What work has cost, and how it failed, if it did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WorkEnd {
    /// Tokens used.
    pub tokens: u64,
    /// Money charged.
    pub money: f64,
    /// How it failed.
    pub failure: Option<FailureKind>,
}

impl From<&Outcome> for WorkEnd {
    fn from(outcome: &Outcome) -> Self {
        let failure = outcome.failure().map(|failure| failure.kind());
        WorkEnd { tokens: outcome.tokens, money: outcome.money, failure }
    }
}

impl From<&Verdict> for WorkEnd {
    fn from(verdict: &Verdict) -> Self {
        let is_scored = verdict.scores.iter().any(Option::is_some);
        let failure = verdict.failures.first().filter(|_| !is_scored).map(|failed| failed.failure.kind());
        WorkEnd { tokens: verdict.tokens, money: verdict.money, failure }
    }
}

/// Something that was asked of a model or a tool.
#[derive(Clone, Debug)]
pub struct Request {
    /// The request.
    pub span: Span,
    /// Who was asked.
    pub whom: Whom,
    /// How many attempts at the same came before it.
    pub attempt: u32,
    /// When it was sent.
    pub began: u64,
    /// When the answer was there.
    pub ended: u64,
    /// What the answer has used up, or how there was none.
    pub result: Result<TokenUsage, FailureKind>,
}

/// Who is asked something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// A model.
    Model {
        /// Its name in the team file.
        name: String,
        /// Who provides it.
        provider: String,
        /// What the provider calls it.
        model: String,
    },
    /// A tool.
    Tool {
        /// The server of it, by its name in the team file.
        server: String,
        /// Its name there.
        name: String,
    },
}

impl Watched {
    /// A task that nothing was done for yet.
    pub fn new(span: Span, began: u64, is_traced: bool) -> Arc<Self> {
        Arc::new(Watched { span, began, is_traced, done: Mutex::default() })
    }

    /// The work of that kind that has come back since this was last asked for.
    pub fn take(&self, is_it: impl Fn(Purpose) -> bool) -> Vec<Work> {
        lock(&self.done).extract_if(.., |work| is_it(work.purpose)).collect()
    }

    /// Do work for the task.
    pub(crate) async fn see<T>(
        &self,
        observer: &Arc<dyn Observer>,
        purpose: Purpose,
        clock: Clock,
        work: impl Future<Output = T>,
    ) -> T
    where
        for<'t> WorkEnd: From<&'t T>,
    {
        let span = self.span.part(&match purpose {
            Purpose::Call(number) => format!("call {number}"),
            Purpose::Judgement => "judgement".to_owned(),
        });
        let began = clock();
        let (observer, is_traced) = (observer.clone(), self.is_traced);
        let here = Arc::new(Here { observer, span, is_traced, purpose, clock, asked: Mutex::default() });
        let result = HERE.scope(here.clone(), work).await;
        let requests = std::mem::take(&mut lock(&here.asked).done);
        let (ended, spent) = ((here.clock)(), WorkEnd::from(&result));
        lock(&self.done).push(Work { span, purpose, began, ended, result: spent, requests });
        result
    }
}

/// Nothing that holds the lock can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics with it")
}

tokio::task_local! {
    /// The work that is being done.
    static HERE: Arc<Here>;
}

struct Here {
    observer: Arc<dyn Observer>,
    span: Span,
    is_traced: bool,
    purpose: Purpose,
    clock: Clock,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    begun: u32,
    done: Vec<Request>,
}

/// Where programs that are started now belong, for their variable `TRACEPARENT`; `None` if no spans are made.
pub(crate) fn traceparent() -> Option<String> {
    HERE.try_with(|here| here.is_traced.then(|| here.span.to_string())).ok().flatten()
}

/// A request under way. One that is dropped was called off.
pub(crate) struct Asking(Option<(Arc<Here>, Request)>);

impl Asking {
    /// A request begins.
    pub(crate) fn begin(attempt: u32, whom: impl FnOnce() -> Whom) -> Self {
        let Ok(here) = HERE.try_with(Arc::clone) else { return Asking(None) };
        let number = {
            let mut asked = lock(&here.asked);
            asked.begun += 1;
            asked.begun
        };
        let (span, began) = (here.span.part(&format!("request {number}")), (here.clock)());
        let result = Err(FailureKind::Cancelled);
        let request = Request { span, whom: whom(), attempt, began, ended: began, result };
        Asking(Some((here, request)))
    }

    /// Where it belongs, for whoever is asked; `None` if no spans are made.
    pub(crate) fn traceparent(&self) -> Option<String> {
        self.0.as_ref().filter(|(here, _)| here.is_traced).map(|(_, request)| request.span.to_string())
    }

    /// It was answered, or failed.
    pub(crate) fn end(mut self, result: Result<TokenUsage, FailureKind>) {
        if let Some((_, request)) = &mut self.0 {
            request.result = result;
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let Some((here, mut request)) = self.0.take() else { return };
        request.ended = (here.clock)();
        here.observer.asked(&request, here.purpose);
        let mut asked = lock(&here.asked);
        if asked.done.len() < REQUESTS_MAX {
            asked.done.push(request);
        }
    }
}
