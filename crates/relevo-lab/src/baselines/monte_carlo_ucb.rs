//! Monte Carlo returns and upper confidence bounds, after AgensFlow (its section 3.4): every choice of an episode is
//! credited, once the episode is over, with the return of the whole episode or with what came after the choice. Each
//! value is the mean of its credits; who is tried next follows the score of [`Ucb`].

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::{Observation, Signature},
    policy::{Ucb, argmax},
    step::StepRule,
    units::Discount,
};

use super::{Baseline, Tables};
use crate::environment::{Environment, EnvironmentSpec, Next, Transition};

/// What a choice is credited with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credit {
    /// G_0, the return of the whole episode (AgensFlow).
    WholeReturn,
    /// G_t, the return from the choice on.
    ReturnToGo,
}

/// One choice of the episode and what it led to.
#[derive(Clone, Copy)]
struct Step {
    agent: AgentId,
    situation: Signature,
    action: ActionId,
    reward: f64,
    /// `gamma^tau`.
    discount: f64,
}

/// The learners.
pub struct MonteCarloUcb {
    tables: Tables,
    ucb: Ucb,
    credit: Credit,
    scale: f64,
    discount: Discount,
    episode: Vec<Step>,
}

impl MonteCarloUcb {
    /// Learners whose returns are multiplied by `scale`, so that they lie about [0, 1] as the bonus expects.
    pub fn new(spec: &EnvironmentSpec, credit: Credit, scale: f64) -> Self {
        let (tables, discount) = (Tables::new(spec, 0.0), spec.discount);
        MonteCarloUcb { tables, ucb: Ucb::default(), credit, scale, discount, episode: vec![] }
    }

    fn credit_episode(&mut self) {
        // G_t = R_t + gamma^tau_t G_(t+1)
        let mut to_go = 0.0;
        let mut returns: Vec<f64> = self
            .episode
            .iter()
            .rev()
            .map(|s| {
                to_go = self.scale * s.reward + s.discount * to_go;
                to_go
            })
            .collect();
        returns.reverse();
        for (step, to_go) in self.episode.drain(..).zip(&returns) {
            let credit = match self.credit {
                Credit::WholeReturn => returns[0],
                Credit::ReturnToGo => *to_go,
            };
            self.tables.move_to(credit, StepRule::Mean, step.agent, step.situation, step.action);
        }
    }
}

impl Baseline for MonteCarloUcb {
    fn choose(&mut self, agent: AgentId, seen: &Observation, _: u64) -> ActionId {
        let row = self.tables.row(agent, seen);
        // Q + c(N) sqrt(ln(N + 1) / n),   N the visits of the situation; a choice without visits comes first
        let node: u64 = row.iter().map(|cell| u64::from(cell.visits)).sum();
        let score = |a: ActionId| {
            let cell = row[a.index()];
            self.ucb.score(node as f64, f64::from(cell.visits), 0, cell.value)
        };
        argmax(&seen.legal, score).expect("an observation has choices")
    }

    fn learn(
        &mut self,
        _: &dyn Environment,
        agent: AgentId,
        seen: &Observation,
        action: ActionId,
        transition: &Transition,
    ) {
        let (reward, discount) = (transition.reward.get(), self.discount.over(transition.tau));
        self.episode.push(Step { agent, situation: seen.signature, action, reward, discount });
        if transition.next == Next::Terminal {
            self.credit_episode();
        }
    }

    fn values(&self, agent: AgentId, seen: &Observation) -> Vec<f64> {
        self.tables.values(agent, seen)
    }
}
