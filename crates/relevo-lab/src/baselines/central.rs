//! Central Q-learning: one learner holds the tables of all agents and updates them itself, with nothing handed back.
//! Put before an environment whose agents see everything, it is what a team without interfaces would learn.
//!
//! Where nothing is hidden, tabular IC-Q is the same computation spread over the agents: with the same random numbers
//! both agree digit for digit, which the test below holds.

use relevo_core::{
    ids::{ActionId, AgentId},
    observation::Observation,
    policy::EpsilonGreedy,
    step::StepRule,
    units::Discount,
};

use super::{Baseline, Explorer, Tables};
use crate::environment::{Environment, EnvironmentSpec, Next, Transition};

/// The learner.
pub struct Central {
    tables: Tables,
    explorer: Explorer,
    step: StepRule,
    discount: Discount,
}

impl Central {
    /// A learner that values everything at `initial`.
    pub fn new(
        spec: &EnvironmentSpec,
        initial: f64,
        step: StepRule,
        policy: EpsilonGreedy,
        seed: u64,
    ) -> Self {
        Central {
            tables: Tables::new(spec, initial),
            explorer: Explorer::new(policy, spec.agents.len(), seed),
            step,
            discount: spec.discount,
        }
    }
}

impl Baseline for Central {
    fn choose(&mut self, agent: AgentId, seen: &Observation, clock: u64) -> ActionId {
        self.explorer.choose(&self.tables.values(agent, seen), agent, seen, clock)
    }

    fn learn(
        &mut self,
        env: &dyn Environment,
        agent: AgentId,
        seen: &Observation,
        action: ActionId,
        transition: &Transition,
    ) {
        // y = R + gamma^tau max_k Q(z', j, k),    y = R at the end
        let mut target = transition.reward.get();
        if let Next::Active(next) = transition.next {
            target += self.discount.over(transition.tau) * self.tables.best(next, &env.observe(next));
        }
        self.tables.move_to(target, self.step, agent, seen.signature, action);
    }

    fn values(&self, agent: AgentId, seen: &Observation) -> Vec<f64> {
        self.tables.values(agent, seen)
    }
}

#[cfg(test)]
mod tests {
    use relevo_core::{
        learner::{DecisionPoint, LearnerSpec, Regime},
        policy::{PolicySpec, Ties},
        record::Table,
        step::Schedule,
        units::Bounds,
    };

    use super::*;
    use crate::{
        baselines::play,
        drive::Crew,
        environments::synthetic::{Design, Ending, Synthetic},
    };

    /// A Crew and a central learner that meet the same task and draw the same numbers hold the same tables after every
    /// budget, digit for digit: one task that continues, or episodes that end.
    #[test]
    fn ic_q_is_central_q_learning_where_nothing_is_hidden() {
        let policy = EpsilonGreedy {
            epsilon: Schedule::Linear { from: 1.0, to: 0.05, over: 10_000 },
            ties: Ties::First,
        };
        let (initial, seed) = (6.0, 3);
        let endings = [Ending::Restart(0.02), Ending::Terminal(0.05)];
        let steps = [StepRule::Poly { exponent: 0.8 }, StepRule::Resc { horizon: 10 }];
        for (ending, step) in endings.into_iter().flat_map(|e| steps.map(|s| (e, s))) {
            let mut env =
                Synthetic::new(Design { states: 16, noise: 0.5, ending, ..Design::default() }, seed);
            let spec = env.spec().clone();
            let learner = |n| LearnerSpec {
                policy: PolicySpec::EpsilonGreedy(policy),
                initial,
                step,
                ..LearnerSpec::tabular(
                    n,
                    Regime::PreConfigured(DecisionPoint::Before),
                    spec.discount,
                    Bounds::new(spec.returns.0, spec.returns.1).expect("an interval"),
                )
            };
            for budget in [100, 1_000, 10_000, 30_000] {
                let mut crew = Crew::new(&env, learner, seed).expect("a valid specification");
                let mut central = Central::new(&spec, initial, step, policy, seed);
                if let Ending::Restart(_) = ending {
                    crew.begin(&mut env, seed);
                    crew.go_on(&mut env, 0, budget);
                    play(&mut central, &mut env, seed, 0, budget);
                }
                let mut clock = 0;
                while let Ending::Terminal(_) = ending
                    && clock < budget
                {
                    let choices = u64::from(crew.play(&mut env, clock, clock).choices);
                    assert_eq!(play(&mut central, &mut env, clock, clock, u64::MAX), choices);
                    clock += choices;
                }
                for (agent, participant) in (0..).map(AgentId).zip(crew.participants()) {
                    for seen in (0..16).map(|o| env.observation(o)) {
                        let ic_q = participant.learner().values(Table::Successors, &seen);
                        assert_eq!(ic_q, central.values(agent, &seen), "{ending:?}, after {budget}");
                    }
                }
            }
        }
    }
}
