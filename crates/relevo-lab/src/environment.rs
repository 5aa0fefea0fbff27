//! The contract of an environment: what a driver of the lab may rely on, and the checks that every environment passes.

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::Observation,
    protocol::Choice,
    units::{Discount, Return, Tau},
};

/// What an option led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transition {
    /// R: the reward that accrued in it.
    pub reward: Return,
    /// How long it took.
    pub tau: Tau,
    /// What comes next.
    pub next: Next,
}

/// Who is active next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This agent.
    Active(AgentId),
    /// Nobody: the task is over.
    Terminal,
}

/// One choice of an agent: its name, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name; several choices may lead to the same agent.
    pub name: String,
    /// Where it leads.
    pub leads: Choice,
}

/// Fixed facts of an environment.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvironmentSpec {
    /// Name and version, such as `maths@1`: behaviour never changes under one of these.
    pub name: &'static str,
    /// Names of the agents.
    pub agents: Vec<String>,
    /// The columns of each agent's successor table.
    pub choices: Vec<Vec<Column>>,
    /// gamma.
    pub discount: Discount,
    /// The smallest and largest return possible.
    pub returns: (f64, f64),
}

/// A world in which exactly one agent is active at a time and control moves by handoffs (an IC-SMDP).
///
/// Where the operations of the agents are fixed, the active agent's choice is made at what it observes *after* its own
/// operation; [`Environment::step`] hands over, lets the next agent operate, and returns when that one is to choose.
///
/// An adaptable agent, one with [`Environment::operations`], makes two choices in turn: an operation at what it observes
/// on its activation, performed by [`Environment::operate`], and then a successor at what it observes after that.
pub trait Environment {
    /// Its fixed facts.
    fn spec(&self) -> &EnvironmentSpec;

    /// Begin the episode that `seed` determines; returns who is active.
    fn reset(&mut self, seed: u64) -> AgentId;

    /// What an agent sees: nothing but its own observation map of the artifact and its private state.
    fn observe(&self, agent: AgentId) -> Observation;

    /// The active agent makes a choice that is admissible at its observation.
    fn step(&mut self, action: ActionId) -> Transition;

    /// The state of the task in words, for people; no agent sees it.
    fn describe(&self) -> String;

    /// Names of the local operations that an agent chooses from; none where its operation is fixed.
    fn operations(&self, _agent: AgentId) -> &[&'static str] {
        &[]
    }

    /// The active, adaptable agent performs an operation that is admissible at its observation. It stays active, and
    /// then chooses its successor, unless the task ends in it.
    fn operate(&mut self, _operation: ActionId) -> Transition {
        unreachable!("agents without operations are not asked to choose one")
    }

    /// What it costs an adaptable agent to hand over, each time; it takes one step. To conclude has no price but its
    /// own reward.
    fn handoff_reward(&self) -> Return {
        Return::ZERO
    }

    /// Asked once after each handoff, when its value has come back and the next agent has not acted: whether a task that
    /// continues is begun anew, and with whom. Nothing ends by it, and no option is cut off.
    fn restarts(&mut self) -> Option<AgentId> {
        None
    }
}

/// Play on from `agent`, who is active, to the end, choosing by `policy`; returns the discounted return.
pub fn follow(
    env: &mut dyn Environment,
    mut agent: AgentId,
    mut policy: impl FnMut(AgentId, &Observation) -> ActionId,
) -> f64 {
    let gamma = env.spec().discount;
    let (mut episode_return, mut discount) = (0.0, 1.0);
    loop {
        let transition = env.step(policy(agent, &env.observe(agent)));
        episode_return += discount * transition.reward.get();
        discount *= gamma.over(transition.tau);
        match transition.next {
            Next::Active(next) => agent = next,
            Next::Terminal => return episode_return,
        }
    }
}

/// Check the contract on the episodes `seeds`, choosing by a fixed rule that visits every choice: the same seed and
/// choices give the same episode, only admissible choices exist, rewards and returns keep their bounds, an adaptable
/// agent operates and then hands over at the price that is said, episodes end within `steps_max` choices. Panics with
/// what is wrong.
pub fn obeys_environment_laws(
    mut make: impl FnMut() -> Box<dyn Environment>,
    seeds: core::ops::Range<u64>,
    steps_max: usize,
) {
    let (mut first, mut second) = (make(), make());
    let spec = first.spec().clone();
    assert_eq!(spec.agents.len(), spec.choices.len(), "every agent has a list of choices");
    for (agent, columns) in (0..).map(AgentId).zip(&spec.choices) {
        let ambiguous = (1..columns.len()).any(|i| columns[..i].iter().any(|c| c.leads == columns[i].leads));
        assert!(
            !ambiguous || first.operations(agent).is_empty(),
            "{agent:?}: an adaptable agent has one choice for each successor"
        );
    }
    for seed in seeds {
        let mut agent = first.reset(seed);
        assert_eq!(agent, second.reset(seed), "seed {seed}: who begins is determined by the seed");
        let (mut episode_return, mut discount) = (0.0, 1.0);
        let mut operates = !first.operations(agent).is_empty();
        for step in 0.. {
            assert!(step < steps_max, "seed {seed}: the episode does not end within {steps_max} steps");
            let observation = first.observe(agent);
            assert_eq!(
                observation,
                second.observe(agent),
                "seed {seed}: observations are determined by the seed"
            );
            assert_eq!(observation, first.observe(agent), "seed {seed}: looking changes nothing");
            let columns = &spec.choices[agent.0 as usize];
            let width = if operates { first.operations(agent).len() } else { columns.len() };
            let (legal, span) = (observation.legal.len(), observation.legal.span());
            assert!(
                legal > 0 && span <= width,
                "seed {seed}: choices {legal}, up to column {span}, of {width}"
            );
            let pick = (seed as usize * 7 + step * 5) % legal;
            let action = observation.legal.iter().nth(pick).expect("it is below the length");
            let perform = |env: &mut dyn Environment| match operates {
                true => env.operate(action),
                false => env.step(action),
            };
            let transition = perform(&mut *first);
            assert_eq!(
                transition,
                perform(&mut *second),
                "seed {seed}: steps are determined by seed and choices"
            );
            let Transition { reward, tau, next } = transition;
            episode_return += discount * reward.get();
            discount *= spec.discount.over(tau);
            let adaptable = !first.operations(agent).is_empty();
            if adaptable && !operates {
                match columns[action.index()].leads {
                    Choice::HandTo(_) => assert_eq!(
                        (reward, tau),
                        (first.handoff_reward(), Tau::ONE),
                        "seed {seed}: an adaptable agent hands over at the price that is said"
                    ),
                    Choice::Finish => {
                        assert_eq!(next, Next::Terminal, "seed {seed}: to finish ends the task")
                    }
                }
            }
            match next {
                Next::Active(next) => {
                    assert!(
                        (next.0 as usize) < spec.agents.len(),
                        "seed {seed}: agent {next:?} does not exist"
                    );
                    assert!(!operates || next == agent, "seed {seed}: who has operated is to hand over");
                    operates = !operates && !first.operations(next).is_empty();
                    agent = next;
                }
                Next::Terminal => break,
            }
        }
        let (min, max) = spec.returns;
        assert!(
            (min..=max).contains(&episode_return),
            "seed {seed}: return {episode_return} not in [{min}, {max}]"
        );
    }
}
