//! A host with four agents, which keeps its tasks in memory: `echo` gives back what it gets, `slow` works until it is told
//! to end, `busy` takes nothing now, and `shut` takes nothing ever. It stands for a node's machine and store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use axum::{Router, routing::get};
use relevo::artifact::Artifact;
use relevo_core::{ids::AgentId, units::Bounds};
use relevo_node::{
    door::{Answer, Host, Refusal, Request},
    ids::{PeerId, TaskId, WireId},
    server::{AgentDoor, ServerLimits, ServerSpec, router, serve},
    store::{Filter, PushRow, TaskRow, TaskState},
    transport::a2a::{Identities, Identity, Pusher, TokenHash},
    wire::{self, Emit, TauUnit, Terms},
};
use serde_json::json;
use tokio::{
    net::TcpListener,
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinHandle,
};

pub(crate) const AGENTS: [&str; 4] = ["echo", "slow", "busy", "shut"];
pub(crate) const A: PeerId = PeerId(1);
pub(crate) const B: PeerId = PeerId(2);
pub(crate) const START_MS: u64 = 1_800_000_000_000;

#[derive(Default)]
struct Kept {
    tasks: BTreeMap<(PeerId, TaskId), TaskRow>,
    pushes: BTreeMap<(PeerId, TaskId, String), PushRow>,
    watched: BTreeMap<TaskId, watch::Sender<()>>,
    outcomes: Vec<(WireId, f64)>,
    counted: Vec<&'static str>,
}

#[derive(Default)]
pub(crate) struct Scripted {
    kept: Mutex<Kept>,
    changes: AtomicU64,
    pusher: Mutex<Option<Arc<Pusher>>>,
}

impl Scripted {
    /// The work of `slow` on a task is done.
    pub(crate) fn end(&self, peer: PeerId, task: TaskId, state: TaskState) -> TaskRow {
        let mut kept = self.kept.lock().unwrap();
        let row = kept.tasks.get_mut(&(peer, task)).unwrap();
        row.state = state;
        row.changed_ms = START_MS + self.changes.fetch_add(1, Ordering::Relaxed);
        row.result = (state == TaskState::Completed)
            .then(|| Artifact { facts: Default::default(), payload: b"done"[..].into() });
        let row = row.clone();
        kept.watched.remove(&task);
        drop(kept);
        if let Some(pusher) = &*self.pusher.lock().unwrap() {
            pusher.ended(peer, task);
        }
        row
    }

    pub(crate) fn is_watched(&self, task: TaskId) -> bool {
        self.kept.lock().unwrap().watched.get(&task).is_some_and(|sender| sender.receiver_count() > 0)
    }

    pub(crate) fn tasks_of(&self, peer: PeerId) -> Vec<TaskId> {
        let kept = self.kept.lock().unwrap();
        kept.tasks.keys().filter(|(owner, _)| *owner == peer).map(|(_, task)| *task).collect()
    }

    pub(crate) fn counted(&self) -> Vec<&'static str> {
        self.kept.lock().unwrap().counted.clone()
    }

    pub(crate) fn outcomes(&self) -> Vec<(WireId, f64)> {
        self.kept.lock().unwrap().outcomes.clone()
    }
}

fn refusal(word: &'static str, is_transient: bool) -> Answer {
    Answer::Refused(Refusal { word, message: "as the script says".to_owned(), is_transient })
}

#[async_trait]
impl Host for Scripted {
    async fn ask(&self, peer: PeerId, request: Request) -> Answer {
        let mut kept = self.kept.lock().unwrap();
        match request {
            Request::Handoff { agent, arrival } => {
                let state = match agent.as_str() {
                    "echo" => TaskState::Completed,
                    "slow" => TaskState::Working,
                    "busy" => return refusal("overloaded", true),
                    _ => return refusal("not-permitted", false),
                };
                let id = TaskId::of(&peer.0.to_string(), &arrival.message);
                let now_ms = START_MS + self.changes.fetch_add(1, Ordering::Relaxed);
                let row = TaskRow {
                    peer,
                    id,
                    message: arrival.message.clone(),
                    digest: arrival.digest,
                    context: arrival.context.unwrap_or_else(|| id.to_string()),
                    agent: AgentId(AGENTS.iter().position(|name| *name == agent).unwrap() as u32),
                    passes_value: arrival.deadline_ms.is_some(),
                    received_ms: now_ms,
                    deadline_ms: START_MS + u64::from(arrival.deadline_ms.unwrap_or(60_000)),
                    state,
                    changed_ms: now_ms,
                    value: Some(0.25),
                    result: (state == TaskState::Completed).then_some(arrival.artifact),
                    why: None,
                    stay: None,
                    closing: None,
                    outcome: None,
                };
                kept.tasks.insert((peer, id), row.clone());
                Answer::Task(Box::new(row))
            }
            Request::Outcome(note) => {
                kept.outcomes.push((note.handoff, note.outcome));
                Answer::Noted
            }
            Request::Cancel(task) => {
                drop(kept);
                Answer::Task(Box::new(self.end(peer, task, TaskState::Canceled)))
            }
            Request::Push(row) => {
                kept.pushes.insert((peer, row.task, row.id.clone()), row);
                Answer::Noted
            }
            Request::Count(word, _) => {
                kept.counted.push(word);
                Answer::Noted
            }
            Request::DropPush { task, id } => {
                kept.pushes.remove(&(peer, task, id));
                Answer::Noted
            }
        }
    }

    async fn task(&self, peer: PeerId, id: TaskId) -> Result<Option<TaskRow>, Refusal> {
        Ok(self.kept.lock().unwrap().tasks.get(&(peer, id)).cloned())
    }

    async fn tasks(&self, peer: PeerId, filter: Filter) -> Result<(Vec<TaskRow>, u64), Refusal> {
        let kept = self.kept.lock().unwrap();
        let mut rows: Vec<_> = kept
            .tasks
            .values()
            .filter(|row| row.peer == peer)
            .filter(|row| filter.state.is_none_or(|state| row.state == state))
            .filter(|row| filter.context.as_ref().is_none_or(|context| row.context == *context))
            .filter(|row| filter.changed_since_ms.is_none_or(|since| row.changed_ms >= since))
            .cloned()
            .collect();
        let total = rows.len() as u64;
        rows.sort_by_key(|row| std::cmp::Reverse((row.changed_ms, row.id)));
        rows.retain(|row| filter.after.is_none_or(|after| (row.changed_ms, row.id) < after));
        rows.truncate(filter.limit);
        Ok((rows, total))
    }

    async fn pushes(&self, peer: PeerId, task: TaskId) -> Result<Vec<PushRow>, Refusal> {
        let kept = self.kept.lock().unwrap();
        Ok(kept.pushes.values().filter(|row| row.peer == peer && row.task == task).cloned().collect())
    }

    async fn untold(&self, _: PeerId, _: usize) -> Result<Vec<PushRow>, Refusal> {
        Ok(vec![])
    }

    fn watch(&self, peer: PeerId, task: TaskId) -> watch::Receiver<()> {
        let mut kept = self.kept.lock().unwrap();
        match kept.tasks.get(&(peer, task)) {
            Some(row) if !row.state.is_terminal() => {
                kept.watched.entry(task).or_insert_with(|| watch::channel(()).0).subscribe()
            }
            _ => watch::channel(()).1,
        }
    }
}

/// The scripted host, served on a free port of the loopback.
pub(crate) struct Served {
    pub(crate) url: String,
    pub(crate) host: Arc<Scripted>,
    pub(crate) clock: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<std::io::Result<()>>,
}

pub(crate) const LIMITS: ServerLimits = ServerLimits {
    wire: wire::Limits { payload_bytes_max: 4_096, remembered_ms: 1_000_000 },
    body_bytes_max: 16_384,
    header_ms_max: 10_000,
    body_ms_max: 10_000,
    wait_ms_max: 60_000,
    streams_max: 2,
    connections_max: 64,
};

pub(crate) fn terms() -> Terms {
    Terms {
        bounds: Bounds::new(-1.0, 1.0).unwrap(),
        discount: 0.95,
        tau_unit: TauUnit::Call,
        emit: Emit::Activation,
    }
}

impl Served {
    pub(crate) async fn start(limits: ServerLimits, burst: f64) -> Self {
        Self::start_with(limits, burst, "http://127.0.0.1:9/hooks", true).await
    }

    /// With this place below which its peers may want to be told, if it may be a private one.
    pub(crate) async fn start_with(
        limits: ServerLimits,
        burst: f64,
        push: &str,
        tells_private: bool,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let host = Arc::new(Scripted::default());
        let clock = Arc::new(AtomicU64::new(START_MS));
        let identity = |token: &str| Identity {
            token: Some(TokenHash::of(token)),
            certificate: None,
            rate: 1.0,
            burst,
            push: vec![push.parse().unwrap()],
        };
        let identities =
            Identities::new([(A, identity("token-a")), (B, identity("token-b"))].into(), tells_private);
        let pusher = Arc::new(Pusher::new(&(Arc::clone(&host) as _), identities.clone(), None).unwrap());
        pusher.start(&Handle::current());
        *host.pusher.lock().unwrap() = Some(pusher);
        let now = Arc::clone(&clock);
        let spec = ServerSpec {
            agents: AGENTS
                .map(|name| AgentDoor {
                    name: name.to_owned(),
                    description: format!("{name}, as scripted"),
                    tags: vec!["test".to_owned()],
                    terms: (name != "slow").then(terms),
                })
                .into(),
            entry: Some("echo".to_owned()),
            url: url.clone(),
            limits,
            identities,
            host: Arc::clone(&host) as Arc<dyn Host>,
            clock: Arc::new(move || now.load(Ordering::Relaxed)),
        };
        let mut rest_cards = Router::new();
        for agent in &spec.agents {
            let card = json!({
                "name": agent.name, "description": "", "version": "1", "skills": [],
                "supportedInterfaces": [
                    {"url": "http://elsewhere.invalid", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
                    {"url": format!("{url}/agents/{}", agent.name), "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
                ],
                "capabilities": {"extensions": agent.terms.map(|terms| vec![terms.declaration()]).unwrap_or_default()},
                "defaultInputModes": [], "defaultOutputModes": [],
            });
            let path = format!("/rest/{}/.well-known/agent-card.json", agent.name);
            rest_cards = rest_cards.route(&path, get(move || async move { card.to_string() }));
        }
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            serve(
                listener,
                router(spec).merge(rest_cards),
                &limits,
                None,
                stopped,
                std::time::Duration::from_secs(5),
            )
            .await
        });
        Served { url, host, clock, stop: Some(stop), serving }
    }

    pub(crate) fn agent(&self, name: &str) -> String {
        format!("{}/agents/{name}", self.url)
    }

    /// Where the card of an agent is that speaks HTTP+JSON alone.
    pub(crate) fn rest_card(&self, name: &str) -> String {
        format!("{}/rest/{name}", self.url)
    }

    /// Stop, and wait until all that had begun has ended.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.await.unwrap().unwrap();
    }
}
