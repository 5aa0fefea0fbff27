//! An organisation in a folder of its own, and its node: served as `relevo serve` does, in a runtime of its own.
#![allow(dead_code)] // no test needs all of it

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::mpsc,
    time::{Duration, SystemTime},
};

use relevo::{artifact::Artifact, team::TeamSpec};
use relevo_node::{
    ids::{PeerId, WireId},
    machine::Counters,
    operator::{Handed, Operator},
    serve::{ServeError, serve},
    spec::NodeSpec,
    store::{Reader, sqlite::SqliteReader},
    transport::a2a::TokenHash,
};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

/// What an agent that gives back what it gets expects of a task before it has learned anything.
pub(crate) const INITIAL: f64 = 0.25;
/// What one that hands over expects.
pub(crate) const INITIAL_FRONT: f64 = 0.75;

const LEARNER: &str = r#"
[reward]
success = 1.0
call = 0.0
[learner]
decides = "before"
discount = 1.0
values = [-1.0, 1.0]
step = { rule = "constant", step = 0.5 }
policy = { rule = "epsilon-greedy", epsilon = { from = 0.0, to = 0.0, over = 1.0 } }
"#;

/// A folder with a team and a node file.
pub(crate) struct Org {
    folder: TempDir,
    pub(crate) name: &'static str,
}

impl Org {
    /// One whose agent gives back what it gets.
    pub(crate) fn echoing(name: &'static str, settings: &str) -> Self {
        let agent = "[[agents]]\nname = \"echo\"\nforwards = true\nobserves = [\"own.seen\"]\nhandoffs = [\"finish\"]\n";
        Org::new(name, ("echo", INITIAL), agent, settings)
    }

    /// One whose agent hands every task to the `echo` of `orgb`.
    pub(crate) fn forwarding(name: &'static str, settings: &str) -> Self {
        let agents = "[[agents]]\nname = \"front\"\nforwards = true\nobserves = [\"own.seen\"]\nhandoffs = \
                      [\"echo@orgb\"]\n[[agents]]\nname = \"echo@orgb\"\nremote = \"orgb/echo\"\n";
        Org::new(name, ("front", INITIAL_FRONT), agents, settings)
    }

    fn new(name: &'static str, (entry, initial): (&str, f64), agents: &str, settings: &str) -> Self {
        let org = Org { folder: TempDir::new().unwrap(), name };
        let team = format!(
            "schema = \"relevo.team/v1\"\nname = {name:?}\nstart = {entry:?}\n{LEARNER}initial = {initial}\n{agents}"
        );
        org.write("team.toml", &team);
        let listen = if settings.contains("[listen]") { "" } else { "[listen]\naddress = \"127.0.0.1:0\"\n" };
        org.write(
            "node.toml",
            &format!(
                "schema = \"relevo.node/v1\"\nname = {name:?}\nteam = \"team.toml\"\nentry = {entry:?}\nstate = \
                 \"state\"\nseed = 7\n{listen}{settings}"
            ),
        );
        org
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn load(&self) -> Result<(NodeSpec, TeamSpec), String> {
        NodeSpec::load(&self.path("node.toml")).map_err(|e| e.to_string())
    }

    /// Serve it; once it can be reached.
    pub(crate) fn start(&self) -> Result<Served, ServeError> {
        let (spec, team) = self.load().unwrap();
        let runtime = Runtime::new().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        let node = spec.clone();
        let serving = runtime.spawn(async move {
            let ready = move |url: &str| {
                let (_, address) = url.split_once("://").unwrap();
                tell.send(address.parse().unwrap()).unwrap();
            };
            serve(&node, team, None, ready, async move { drop(stopped.await) }).await
        });
        match told.recv() {
            Ok(address) => {
                Ok(Served { spec, address, stop: Some(stop), serving: Some(serving), runtime: Some(runtime) })
            }
            Err(_) => Err(runtime.block_on(serving).unwrap().unwrap_err()),
        }
    }

    /// What the node has kept.
    pub(crate) fn kept(&self) -> SqliteReader {
        SqliteReader::open(&self.path("state").join(self.name)).unwrap()
    }

    /// What it has counted of a peer.
    pub(crate) fn counted(&self, peer: &str) -> Counters {
        let peers = self.kept().peers().unwrap();
        let (_, bytes) = peers.iter().find(|(name, _)| name == peer).unwrap();
        Counters::of_bytes(bytes)
    }
}

/// A node that runs.
pub(crate) struct Served {
    pub(crate) spec: NodeSpec,
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<Result<(), ServeError>>>,
    runtime: Option<Runtime>,
}

impl Served {
    /// Hand a task to the entry as the operator, and wait for what comes back.
    pub(crate) fn hand(&self, payload: &str) -> Handed {
        let artifact = Artifact { facts: Default::default(), payload: payload.as_bytes().into() };
        self.block_on(async {
            let operator = Operator::of(&self.spec).unwrap();
            operator.hand(wire_id(), &self.spec.entry, &artifact, true).await.unwrap()
        })
    }

    /// Do something beside the node.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(work)
    }

    /// Let it answer what has begun, and stop: what it would have done later is not done.
    pub(crate) fn stop(mut self) {
        drop(self.stop.take());
        let (runtime, serving) = (self.runtime.take().unwrap(), self.serving.take().unwrap());
        runtime.block_on(serving).unwrap().unwrap();
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

impl Drop for Served {
    /// A test that fails does not wait for its nodes.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A peer section: where it is, and by what it is known.
pub(crate) fn peer(name: &str, url: &str, token: Option<&str>, more: &str) -> String {
    let token = token.map(|token| format!("token = \"{}\"\n", TokenHash::of(token))).unwrap_or_default();
    // Only who can be told from others comes in.
    let is_known = !token.is_empty() || more.contains("certificate");
    let may = if is_known { "may_hand_to = [\"echo\"]\n" } else { "" };
    format!("[peers.{name}]\nurl = {url:?}\n{may}{token}{more}\n")
}

/// A new id of a handoff.
pub(crate) fn wire_id() -> WireId {
    wire_id_of(0)
}

/// One that was made so long ago.
pub(crate) fn wire_id_of(age_ms: u64) -> WireId {
    let mut random = [0; 10];
    getrandom::fill(&mut random).unwrap();
    WireId::new(now_ms() - age_ms, &random)
}

fn now_ms() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

/// The number by which a node knows its only peer.
pub(crate) const PEER: PeerId = PeerId(1);
