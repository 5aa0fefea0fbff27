//! The world of a simulation: a few organisations whose agents strip layers off a task. What is best is known, so that what
//! was learned can be measured.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use relevo::{
    agent::{Agent, Failure, OperationCall, Outcome},
    artifact::{Artifact, Facts, Scalar},
    episode::Crew,
    reward::Usual,
    stage::{After, Stage},
    tasks::{Task, TaskError},
    team::TeamSpec,
};
use relevo_core::{
    Rng,
    ids::{ActionId, AgentId, OperationId},
    learner::Regime,
    observation::Observation,
    record::Table,
    units::Bounds,
};

use crate::wire::{Emit, TauUnit, Terms};

/// The kinds of layers.
const KINDS: &[u8; 4] = b"abcd";
/// The most layers of a task.
const LAYERS_MAX: u32 = 3;
/// What a call costs.
const CALL: f64 = -0.02;
/// The operation of an agent with several that does nothing.
const IDLE: &str = "idle";

/// Who there is.
pub(super) struct World {
    pub(super) organisations: Vec<Organisation>,
    /// Whether it is long enough for what is learned to be measured.
    pub(super) is_long: bool,
}

/// One of them.
pub(super) struct Organisation {
    pub(super) name: String,
    /// Which kind of layer each of its agents strips.
    pub(super) agents: Vec<u8>,
    /// Whether its agents declare that they pass values.
    pub(super) passes_value: bool,
    decides_before: bool,
    has_operations: bool,
}

impl World {
    pub(super) fn draw(rng: &mut Rng, is_long: bool) -> World {
        let count = if is_long { 3 } else { 3 + rng.below(3) };
        let mut kinds = KINDS.iter().copied();
        let organisations = (0..count).map(|i| Organisation {
            name: format!("org{i}"),
            agents: (0..1 + rng.below(if is_long { 2 } else { 3 }))
                .map(|_| kinds.next().unwrap_or_else(|| KINDS[rng.below(4) as usize]))
                .collect(),
            passes_value: is_long || rng.below(6) > 0,
            decides_before: !is_long && rng.below(2) == 0,
            has_operations: !is_long && rng.below(4) == 0,
        });
        World { organisations: organisations.collect(), is_long }
    }

    /// The name of an agent, the same for everybody.
    pub(super) fn agent_name(organisation: usize, agent: usize) -> String {
        format!("agent{organisation}{agent}")
    }

    /// What the card of an agent declares.
    pub(super) fn terms(&self, organisation: usize) -> Option<Terms> {
        let organisation = &self.organisations[organisation];
        organisation.passes_value.then(|| Terms {
            bounds: Bounds::new(-1.0, 1.0).expect("constants"),
            discount: 0.95,
            tau_unit: TauUnit::Call,
            emit: if organisation.decides_before { Emit::Activation } else { Emit::Operation },
        })
    }

    /// The stage of an organisation that knows these peers; its clock, and whether calls fail, are set from outside.
    pub(super) fn stage(
        &self,
        own: usize,
        peers: Vec<String>,
        clock: Arc<AtomicU64>,
        calls_fail: &Arc<AtomicBool>,
    ) -> Result<Stage, TaskError> {
        let text = self.team_file(own);
        let team = TeamSpec::parse(&text).map_err(|(_, message)| TaskError(message))?;
        let agents = self.organisations[own].agents.iter();
        let agents = agents
            .map(|kind| Arc::new(Stripper { kind: *kind, fails: calls_fail.clone() }) as Arc<dyn Agent>);
        let agents = agents.collect();
        let stage = Stage::for_node(team, std::path::Path::new("."), peers)?;
        Ok(stage.acted_by(agents).with_clock(Arc::new(move || clock.load(Ordering::Relaxed))))
    }

    fn team_file(&self, own: usize) -> String {
        let Organisation { name, agents, decides_before, has_operations, .. } = &self.organisations[own];
        let decides = if *decides_before { "before" } else { "after" };
        let last = if self.is_long { 0.05 } else { 0.4 };
        let mut text = format!(
            "schema = \"relevo.team/v1\"\nname = \"{name}\"\nstart = \"{}\"\n[reward]\nsuccess = 1.0\ncall = {CALL:?}\n\
             [learner]\ndecides = \"{decides}\"\ndiscount = 0.95\nvalues = [-1.0, 1.0]\n\
             policy = {{ rule = \"epsilon-greedy\", epsilon = {{ from = 0.8, to = {last:?}, over = 0.7 }} }}\n",
            World::agent_name(own, 0)
        );
        // Who decides before sees what lies under the layer that is stripped meanwhile.
        let observes = if *decides_before { "[\"layer\", \"under\"]" } else { "[\"layer\"]" };
        let (mut others, mut remote) = (vec![], String::new());
        for (i, organisation) in self.organisations.iter().enumerate() {
            for agent in 0..organisation.agents.len() {
                let there = World::agent_name(i, agent);
                if i == own {
                    others.push(there);
                    continue;
                }
                let here = format!("{there}@{}", organisation.name);
                write!(remote, "[[agents]]\nname = {here:?}\nremote = \"{}/{there}\"\n", organisation.name)
                    .expect("text");
                others.push(here);
            }
        }
        for agent in 0..agents.len() {
            let me = World::agent_name(own, agent);
            let others: Vec<_> = others.iter().filter(|other| **other != me).collect();
            let handoffs: Vec<_> =
                std::iter::once("finish").chain(others.iter().map(|o| o.as_str())).collect();
            write!(
                text,
                "[[agents]]\nname = {me:?}\ncommand = [\"simulated\"]\nobserves = {observes}\nhandoffs = {handoffs:?}\n"
            )
            .expect("text");
            if *has_operations {
                text.push_str("operations = [\"strip\", \"idle\"]\n");
            }
        }
        text + &remote
    }

    /// A task as its origin makes it.
    pub(super) fn task(rng: &mut Rng, number: usize) -> Artifact {
        let mut payload = vec![];
        for _ in 0..1 + rng.below(LAYERS_MAX) {
            payload.push(KINDS[rng.below(4) as usize]);
        }
        payload.extend(format!(".{number}").bytes());
        artifact(payload)
    }

    /// How far what the agents learned falls short of what is best, on average over all tasks and beginnings.
    pub(super) fn regret(&self, crews: &[(&Stage, &Crew)]) -> f64 {
        let (mut short, mut count) = (0.0, 0.0);
        let mut tasks: Vec<Vec<u8>> = vec![vec![]];
        for layers in 0..LAYERS_MAX as usize {
            let longer = tasks.iter().filter(|task| task.len() == layers);
            let longer = longer.flat_map(|task| KINDS.iter().map(|kind| [&task[..], &[*kind]].concat()));
            tasks.extend(longer.collect::<Vec<_>>());
        }
        for (i, organisation) in self.organisations.iter().enumerate() {
            for (agent, kind) in organisation.agents.iter().enumerate() {
                for task in tasks.iter().filter(|task| !task.is_empty()) {
                    let own = usize::from(task[0] == *kind);
                    let known = |kind| self.organisations.iter().any(|o| o.agents.contains(kind));
                    let solvable = task.iter().all(known);
                    let calls = 1 + task.len() - own;
                    let best = if solvable { 1.0 + CALL * calls as f64 } else { CALL };
                    short += best - self.greedy(crews, (i, agent), [task, &b".0"[..]].concat());
                    count += 1.0;
                }
            }
        }
        short / count
    }

    /// The return of a task if everybody always takes what seems best.
    fn greedy(&self, crews: &[(&Stage, &Crew)], start: (usize, usize), payload: Vec<u8>) -> f64 {
        let (mut at, mut artifact, mut earned) = (start, artifact(payload), 0.0);
        for _ in 0..12 {
            let (stage, crew) = crews[at.0];
            let agent = AgentId(at.1 as u32);
            let task = Task { id: "greedy".to_owned(), artifact: artifact.clone(), expected: None };
            let Ok(mut scene) = stage.open(task, Usual::default()) else { return earned };
            let best = |table, o: &Observation| {
                let values = crew.participants[at.1].learner().values(table, o);
                let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
                ActionId((0..values.len()).reduce(better).unwrap_or(0) as u32)
            };
            let sight = scene.arrive(agent, AgentId::ORIGIN);
            let (mut operation, mut choice) = (OperationId(0), ActionId(0));
            match stage.regime(agent) {
                Regime::Adaptable { .. } => {
                    operation = OperationId(best(Table::Operations, &sight.observation).0)
                }
                Regime::PreConfigured(_) => choice = best(Table::Successors, &sight.observation),
            }
            let stripped = strip(
                self.organisations[at.0].agents[at.1],
                &stage.operation_name(agent, operation),
                artifact,
            );
            earned += CALL;
            scene.take(agent, operation, Some(Outcome::done(stripped.clone())), 0);
            artifact = stripped;
            if !self.organisations[at.0].decides_before
                && let After::HandOver(sight) = scene.after(agent, AgentId::ORIGIN)
            {
                choice = best(Table::Successors, &sight.observation);
            }
            match self.place(stage.team().choice_name(agent, choice)) {
                Some(next) => at = next,
                None => return earned + quality(&artifact),
            }
        }
        earned
    }

    /// Where an agent of this name is.
    fn place(&self, name: &str) -> Option<(usize, usize)> {
        let name = name.split('@').next()?;
        let agents = |i: usize| (0..self.organisations[i].agents.len()).map(move |agent| (i, agent));
        let mut all = (0..self.organisations.len()).flat_map(agents);
        all.find(|(i, agent)| World::agent_name(*i, *agent) == name)
    }
}

/// How good a result is.
pub(super) fn quality(artifact: &Artifact) -> f64 {
    if artifact.payload.first() == Some(&b'.') { 1.0 } else { 0.0 }
}

/// An artifact of this payload, with the facts that agents see.
fn artifact(payload: Vec<u8>) -> Artifact {
    let layer = |i: usize| match payload.iter().take_while(|byte| **byte != b'.').nth(i) {
        Some(kind) => Scalar::Text((*kind as char).to_string()),
        None => Scalar::Text("bare".to_owned()),
    };
    let facts: Facts = BTreeMap::from([("layer".to_owned(), layer(0)), ("under".to_owned(), layer(1))]);
    Artifact { facts, payload: payload.into() }
}

/// What an agent that strips this kind makes of an artifact.
pub(super) fn strip(kind: u8, operation: &str, given: Artifact) -> Artifact {
    if operation == IDLE || given.payload.first() != Some(&kind) {
        return given;
    }
    artifact(given.payload[1..].to_vec())
}

struct Stripper {
    kind: u8,
    fails: Arc<AtomicBool>,
}

#[async_trait]
impl Agent for Stripper {
    async fn perform(&self, call: &OperationCall<'_>, artifact: Artifact) -> Outcome {
        if self.fails.load(Ordering::Relaxed) {
            return Outcome::failed(artifact, Failure::Unavailable("simulated".to_owned()));
        }
        Outcome::done(strip(self.kind, call.operation, artifact))
    }
}
