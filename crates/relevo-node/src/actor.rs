//! A machine at work: one thread takes in what has come, lets the machine decide on all of it, makes that durable at one
//! go, and only then does what follows. There is no timer in it: the slower the disk, the more is committed together.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::FutureExt;
use relevo::{
    approval::{Approvals, Standing},
    episode::{Ask, Call},
    stage::{Clock, Stage},
};
use tokio::{
    runtime,
    sync::{oneshot, watch},
    task::AbortHandle,
};

use crate::{
    door::{Answer, Host, Refusal, Request},
    ids::{PeerId, TaskId, WireId},
    machine::{Act, Ids, Input, Machine, MachineError, MachineSpec, Unrecovered},
    store::{Filter, PushRow, Reader, Store, StoreError, TaskRow},
    transport::Transport,
};

/// The most that is decided on before a commit.
const TURN_MAX: usize = 512;
/// Questions that may wait to be decided on; more are told to come again.
const ASKED_MAX: usize = 4096;
/// How often it is looked whether people have answered.
const LOOK_AROUND: Duration = Duration::from_millis(200);
/// The time before a store that failed is tried again, doubled each time.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// How often the store may become smaller.
const TIDY_MS: u64 = 60_000;
/// Tasks that may be watched before those that nobody watches any more are forgotten.
const WATCHED_MAX: usize = 1024;

enum Message {
    Ask(PeerId, Request, oneshot::Sender<Answer>),
    Input(Input),
    Stop,
}

/// What a node runs on.
pub struct Parts {
    /// The team.
    pub stage: &'static Stage,
    /// How the machine is to be.
    pub spec: MachineSpec,
    /// What it keeps.
    pub store: Box<dyn Store>,
    /// What carries its packets.
    pub transport: Arc<dyn Transport>,
    /// Where agents work.
    pub runtime: runtime::Handle,
    /// The folder in which people are asked.
    pub approvals: PathBuf,
}

/// A node that runs, as the door sees it.
pub struct Node {
    inbox: Sender<Message>,
    asked: Arc<AtomicUsize>,
    reader: Mutex<Box<dyn Reader>>,
    watched: Watched,
    listener: Arc<OnceLock<Listener>>,
}

type Watched = Arc<Mutex<HashMap<TaskId, watch::Sender<()>>>>;

/// Told of every task that has ended.
pub type Listener = Box<dyn Fn(PeerId, TaskId) + Send + Sync>;

/// The thread of a node; it ends with what it ended for.
pub type Running = JoinHandle<Result<(), MachineError>>;

impl Node {
    /// Take up what the store holds, and go on with it on a thread of its own.
    pub fn start(parts: Parts) -> Result<(Arc<Node>, Running), MachineError> {
        let (inbox, messages) = channel();
        let reader = Mutex::new(parts.store.reader()?);
        let asked = Arc::<AtomicUsize>::default();
        let watched = Watched::default();
        let listener = Arc::<OnceLock<Listener>>::default();
        let node = Arc::new(Node {
            inbox: inbox.clone(),
            asked: asked.clone(),
            reader,
            watched: watched.clone(),
            listener: listener.clone(),
        });
        let clock = parts.stage.clock();
        let Parts { stage, spec, store, transport, runtime, approvals } = parts;
        let actor = Actor {
            stage,
            spec,
            transport,
            runtime,
            approvals,
            clock,
            inbox,
            asked,
            watched,
            listener,
            tickets: HashMap::new(),
            next_ticket: 0,
            calls: HashMap::new(),
            asking: BTreeMap::new(),
            heard: Duration::ZERO,
            tidy_at: 0,
        };
        let mut acts = vec![];
        let machine = actor.recover(store, &mut acts)?;
        let run = move || actor.run(machine, acts, &messages);
        let running = thread::Builder::new().name("relevo-node".to_owned()).spawn(run);
        let running = running.map_err(|e| StoreError::Failed(format!("no thread can be started: {e}")))?;
        Ok((node, running))
    }

    /// Let what has come be decided on, and then stop.
    pub fn stop(&self) {
        let _ = self.inbox.send(Message::Stop);
    }

    /// Have somebody told of the end of every task, once it is durable; the first who asks.
    pub fn listen(&self, listener: Listener) {
        let _ = self.listener.set(listener);
    }

    fn read<T>(&self, read: impl FnOnce(&mut dyn Reader) -> Result<T, StoreError>) -> Result<T, Refusal> {
        let mut reader = self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        read(&mut **reader).map_err(|_| unavailable())
    }
}

/// Whether trying again is of no use.
fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged(_))
}

fn unavailable() -> Refusal {
    Refusal::transient("unavailable", "this node cannot keep anything just now: try again later")
}

#[async_trait]
impl Host for Node {
    async fn ask(&self, peer: PeerId, request: Request) -> Answer {
        if self.asked.fetch_add(1, Ordering::Relaxed) >= ASKED_MAX {
            self.asked.fetch_sub(1, Ordering::Relaxed);
            return Answer::Refused(Refusal::transient("overloaded", "too much is asked at once: try again"));
        }
        let (sender, answer) = oneshot::channel();
        let sent = self.inbox.send(Message::Ask(peer, request, sender));
        let answer = match sent {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        answer.unwrap_or_else(|| Answer::Refused(unavailable()))
    }

    async fn task(&self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, Refusal> {
        self.read(|reader| reader.task(peer, id))
    }

    async fn tasks(&self, peer: PeerId, filter: Filter) -> Result<(Vec<TaskRow>, u64), Refusal> {
        self.read(|reader| reader.tasks(peer, &filter))
    }

    async fn pushes(&self, peer: PeerId, task: TaskId) -> Result<Vec<PushRow>, Refusal> {
        self.read(|reader| reader.pushes(peer, task))
    }

    async fn untold(&self, peer: PeerId, limit: usize) -> Result<Vec<PushRow>, Refusal> {
        self.read(|reader| reader.untold(peer, limit))
    }

    fn watch(&self, _: PeerId, task: TaskId) -> watch::Receiver<()> {
        let mut watched = self.watched.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if watched.len() > WATCHED_MAX {
            watched.retain(|_, sender| sender.receiver_count() > 0);
        }
        watched.entry(task).or_insert_with(|| watch::Sender::new(())).subscribe()
    }
}

struct Actor {
    stage: &'static Stage,
    spec: MachineSpec,
    transport: Arc<dyn Transport>,
    runtime: runtime::Handle,
    approvals: PathBuf,
    clock: Clock,
    inbox: Sender<Message>,
    asked: Arc<AtomicUsize>,
    watched: Watched,
    listener: Arc<OnceLock<Listener>>,
    tickets: HashMap<u64, oneshot::Sender<Answer>>,
    next_ticket: u64,
    calls: HashMap<TaskId, AbortHandle>,
    /// Tasks that wait for a person.
    asking: BTreeMap<TaskId, Ask>,
    heard: Duration,
    tidy_at: u64,
}

impl Actor {
    fn recover(
        &self,
        store: Box<dyn Store>,
        acts: &mut Vec<Act<'static>>,
    ) -> Result<Machine<'static>, Unrecovered> {
        let (spec, now) = (self.spec.clone(), (self.clock)());
        let mut machine = Machine::recover(self.stage, spec, store, now, &mut Entropy, acts)?;
        match machine.commit() {
            Ok(()) => Ok(machine),
            Err(error) => Err(Unrecovered { error, store: machine.into_store() }),
        }
    }

    fn run(
        mut self,
        mut machine: Machine<'static>,
        mut acts: Vec<Act<'static>>,
        messages: &Receiver<Message>,
    ) -> Result<(), MachineError> {
        let mut ready = vec![];
        loop {
            self.perform(&mut acts, &mut ready);
            let mut stops = false;
            let turn = self.gather(&machine, messages, &mut ready, &mut stops);
            let decided = turn
                .into_iter()
                .try_for_each(|input| machine.handle((self.clock)(), input, &mut Entropy, &mut acts))
                .and_then(|()| machine.commit())
                .and_then(|()| self.tidy(&mut machine));
            if let Err(MachineError::Store(_)) = decided {
                acts.clear();
                ready.clear();
                match self.begin_again(machine.into_store(), messages, &mut acts)? {
                    Some(again) => machine = again,
                    None => return Ok(()),
                }
            } else {
                decided?;
            }
            if stops {
                self.perform(&mut acts, &mut ready);
                return Ok(());
            }
        }
    }

    /// Now and then, step by step, let the store become smaller.
    fn tidy(&mut self, machine: &mut Machine<'_>) -> Result<(), MachineError> {
        let now = (self.clock)();
        if now >= self.tidy_at {
            let goes_on = machine.tidy(now)?;
            self.tidy_at = if goes_on { now } else { now + TIDY_MS };
        }
        Ok(())
    }

    /// What has come, at once or when the next thing is due.
    fn gather(
        &mut self,
        machine: &Machine<'_>,
        messages: &Receiver<Message>,
        ready: &mut Vec<Input>,
        stops: &mut bool,
    ) -> Vec<Input> {
        let mut turn = std::mem::take(ready);
        let mut wait = match machine.next_due() {
            _ if !turn.is_empty() => Duration::ZERO,
            Some(at) => Duration::from_millis(at.saturating_sub((self.clock)())),
            None => Duration::from_secs(3600),
        };
        if !self.asking.is_empty() {
            wait = wait.min(LOOK_AROUND);
            self.hear(&mut turn);
        }
        while turn.len() < TURN_MAX {
            match messages.recv_timeout(std::mem::take(&mut wait)) {
                Ok(Message::Input(input)) => turn.push(input),
                Ok(Message::Ask(peer, request, sender)) => {
                    self.asked.fetch_sub(1, Ordering::Relaxed);
                    let ticket = self.next_ticket;
                    self.next_ticket += 1;
                    self.tickets.insert(ticket, sender);
                    turn.push(Input::Asked { ticket, peer, request });
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    *stops = true;
                    break;
                }
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        turn.push(Input::Tick);
        turn
    }

    /// The store has failed: whoever asks is told to come again, and once it works, all goes on from what it holds; unless
    /// the node is to stop before.
    fn begin_again(
        &mut self,
        mut store: Box<dyn Store>,
        messages: &Receiver<Message>,
        acts: &mut Vec<Act<'static>>,
    ) -> Result<Option<Machine<'static>>, MachineError> {
        for (_, sender) in self.tickets.drain() {
            let _ = sender.send(Answer::Refused(unavailable()));
        }
        self.calls.drain().for_each(|(_, call)| call.abort());
        self.asking.clear();
        let mut pause = AGAIN.0;
        while self.turn_away(messages, pause) {
            pause = (pause * 2).min(AGAIN.1);
            match self.recover(store, acts) {
                Ok(machine) => return Ok(Some(machine)),
                Err(Unrecovered { error: MachineError::Store(e), store: again }) if !is_damage(&e) => {
                    acts.clear();
                    store = again;
                }
                Err(unrecovered) => return Err(unrecovered.error),
            }
        }
        Ok(None)
    }

    /// Refuse whatever is asked for so long; `false` if the node is to stop. What comes of earlier acts is done anew later.
    fn turn_away(&mut self, messages: &Receiver<Message>, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Ask(.., sender)) => {
                    self.asked.fetch_sub(1, Ordering::Relaxed);
                    let _ = sender.send(Answer::Refused(unavailable()));
                }
                Ok(Message::Input(_)) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
        }
    }

    fn perform(&mut self, acts: &mut Vec<Act<'static>>, ready: &mut Vec<Input>) {
        for act in acts.drain(..) {
            match act {
                Act::Answer(ticket, answer) => {
                    if let Some(sender) = self.tickets.remove(&ticket) {
                        let _ = sender.send(answer);
                    }
                }
                Act::Carry(packet) => {
                    let (wire, inbox) = (packet.wire, self.inbox.clone());
                    let reporter = Box::new(move |report| {
                        let _ = inbox.send(Message::Input(Input::Reported { wire, report }));
                    });
                    self.transport.clone().carry(packet, reporter);
                }
                Act::Call(task, call) => self.call(task, call, ready),
                Act::Ask(task, ask) => self.ask(task, ask, ready),
                Act::Drop(task) => {
                    self.asking.remove(&task);
                    if let Some(call) = self.calls.remove(&task) {
                        call.abort();
                    }
                }
                Act::Ended(peer, task) => {
                    if let Some(listener) = self.listener.get() {
                        listener(peer, task);
                    }
                }
                Act::Changed(_, task) => {
                    let mut watched = self.watched.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    if let Some(sender) = watched.get(&task)
                        && sender.send(()).is_err()
                    {
                        watched.remove(&task);
                    }
                }
            }
        }
    }

    /// Let an agent work; one that needs no time has done so at once.
    fn call(&mut self, task: TaskId, call: Call<'static>, ready: &mut Vec<Input>) {
        let Call { handoff, agent, mut outcome, .. } = call;
        let _inside = self.runtime.enter();
        if let Some(outcome) = (&mut outcome).now_or_never() {
            return ready.push(Input::Returned { task, handoff, agent, outcome, ms: 0 });
        }
        let (clock, inbox) = (self.clock.clone(), self.inbox.clone());
        let began = clock();
        let working = self.runtime.spawn(async move {
            let outcome = outcome.await;
            let ms = clock().saturating_sub(began);
            let _ = inbox.send(Message::Input(Input::Returned { task, handoff, agent, outcome, ms }));
        });
        self.calls.retain(|_, call| !call.is_finished());
        self.calls.insert(task, working.abort_handle());
    }

    fn ask(&mut self, task: TaskId, ask: Ask, ready: &mut Vec<Input>) {
        let expires = self.stage.team().guards.approval_expires_after.map(|s| s.saturating_mul(1000));
        let approvals = Approvals::of(&self.approvals);
        match approvals.ask(&ask.id, ask.asked.clone(), (self.clock)(), expires) {
            Ok(standing) => self.answered(task, ask, standing, ready),
            // Whoever cannot be asked has not agreed.
            Err(e) => ready.push(Input::Answered { task, granted: false, by: e.to_string() }),
        }
    }

    fn hear(&mut self, turn: &mut Vec<Input>) {
        let now = Duration::from_millis((self.clock)());
        if now < self.heard + LOOK_AROUND {
            return;
        }
        self.heard = now;
        for (task, ask) in std::mem::take(&mut self.asking) {
            let standing =
                Approvals::of(&self.approvals).standing(&ask.id, &ask.asked, now.as_millis() as u64);
            self.answered(task, ask, standing, turn);
        }
    }

    fn answered(&mut self, task: TaskId, ask: Ask, standing: Standing, turn: &mut Vec<Input>) {
        let (granted, by) = match standing {
            Standing::Pending => return drop(self.asking.insert(task, ask)),
            Standing::Approved(by) => (true, by),
            Standing::Denied(why) => (false, why),
        };
        turn.push(Input::Answered { task, granted, by });
    }
}

/// Ids by the entropy of the operating system.
struct Entropy;

impl Ids for Entropy {
    fn next(&mut self, now_ms: u64) -> WireId {
        let mut random = [0; 10];
        getrandom::fill(&mut random).expect("the operating system has entropy");
        WireId::new(now_ms, &random)
    }
}
