//! Playthroughs: one episode of an environment as a text, to see what happens in it. Those of [`GOLDEN_SEED`] are kept beside
//! the environments and compared by a test, so that behaviour never changes under the same name and version.

use core::fmt::Write;

use relevo_core::Rng;

use crate::{
    environment::{Environment, Next, Transition},
    environments::{
        chain::{self, Chain},
        maths::{self, DATASETS, Maths},
        routing::{self, Network, Routing, Shape},
        synthetic::{self, Design, Ending, ObservationMap, Synthetic},
    },
};

/// An environment that can be shown.
pub struct Shown {
    /// Name and version.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// A small instance of it.
    pub make: fn(seed: u64) -> Box<dyn Environment>,
    /// Its playthrough of [`GOLDEN_SEED`].
    pub golden: &'static str,
}

/// The seed of the playthroughs that are kept.
pub const GOLDEN_SEED: u64 = 5;

/// All environments.
pub const ENVIRONMENTS: [Shown; 4] = [
    Shown {
        name: chain::NAME,
        summary: "six agents in a row; whether it was worth it shows at the end",
        make: |seed| Box::new(Chain::new(seed)),
        golden: include_str!("environments/chain.txt"),
    },
    Shown {
        name: maths::NAME,
        summary: "four simulated agents solve multiple-choice mathematics",
        make: |_| Box::new(Maths::new(DATASETS[0])),
        golden: include_str!("environments/maths.txt"),
    },
    Shown {
        name: routing::NAME,
        summary: "nodes of a network pass a packet on",
        make: |seed| Box::new(Routing::new(Network::generate(Shape::Chain, 6, 1.0, seed))),
        golden: include_str!("environments/routing.txt"),
    },
    Shown {
        name: synthetic::NAME,
        summary: "random tasks whose every value is known, seen through maps that merge states",
        make: |seed| {
            let map = ObservationMap::Bucket;
            let design =
                Design { states: 16, map, rho: 0.25, ending: Ending::Terminal(0.2), ..Design::default() };
            Box::new(Synthetic::new(design, seed))
        },
        golden: include_str!("environments/synthetic.txt"),
    },
];

/// Longer episodes are cut off in the text.
const SHOWN_MAX: u32 = 40;

/// The episode of `seed`, choices made at random, as a text.
pub fn play(env: &mut dyn Environment, seed: u64) -> String {
    let mut rng = Rng::stream(seed, "playthrough/choices");
    let spec = env.spec().clone();
    let mut out = format!(
        "{}, seed {seed}: {} agents, gamma {}. Choices are made at random.\n\
         What is in brackets is the state of the task; an agent sees only the number of its observation.\n",
        spec.name,
        spec.agents.len(),
        spec.discount.gamma(),
    );
    let mut agent = env.reset(seed);
    let (mut episode_return, mut discount) = (0.0, 1.0);
    for step in 1.. {
        let observation = env.observe(agent);
        let columns = &spec.choices[agent.0 as usize];
        let name = |a: relevo_core::ids::ActionId| columns[a.index()].name.as_str();
        let names: Vec<&str> = observation.legal.iter().map(name).collect();
        let pick = rng.below(names.len() as u32) as usize;
        let action = observation.legal.iter().nth(pick).expect("it is below the length");
        let (who, sees, state) = (&spec.agents[agent.0 as usize], observation.signature.0, env.describe());
        let Transition { reward, tau, next } = env.step(action);
        let (r, tau_shown) = (reward.get(), tau.steps());
        writeln!(out, "\n{step:>2}. {who} sees {sees}   [{state}]").expect("a text grows");
        writeln!(out, "    may choose {}", names.join(", ")).expect("a text grows");
        writeln!(out, "    chooses {}: reward {r:.5}, tau {tau_shown}", names[pick]).expect("a text grows");
        episode_return += discount * r;
        discount *= spec.discount.over(tau);
        match next {
            Next::Terminal => {
                writeln!(out, "\nOver after {step} choices; return {episode_return:.5}.")
                    .expect("a text grows");
                break;
            }
            Next::Active(_) if step == SHOWN_MAX => {
                writeln!(out, "\nAnd so on; return so far {episode_return:.5}.").expect("a text grows");
                break;
            }
            Next::Active(next) => agent = next,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where behaviour is meant to change, so is the version; `RELEVO_WRITE_PLAYTHROUGHS=1` writes the new text.
    #[test]
    fn environments_behave_as_ever() {
        for shown in &ENVIRONMENTS {
            let text = play((shown.make)(GOLDEN_SEED).as_mut(), GOLDEN_SEED);
            if std::env::var_os("RELEVO_WRITE_PLAYTHROUGHS").is_some() {
                let unversioned = shown.name.split('@').next().expect("there is a name");
                let path = format!("{}/src/environments/{unversioned}.txt", env!("CARGO_MANIFEST_DIR"));
                std::fs::write(path, &text).expect("the sources can be written to");
                continue;
            }
            assert_eq!(text, shown.golden, "{}", shown.name);
        }
    }
}
