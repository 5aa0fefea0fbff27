//! Playthroughs: one episode of an environment as a text, to see what happens in it. Those of [`GOLDEN_SEED`] are kept beside
//! the environments and compared by a test, so that behaviour never changes under the same name and version.

use relevo_core::{Rng, ids::ActionId};

use crate::{
    environment::{Environment, Next, Transition},
    environments::{
        chain::{self, Chain},
        cpu::{self, Cpu, Encoding},
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
pub const ENVIRONMENTS: [Shown; 5] = [
    Shown {
        name: chain::NAME,
        summary: "six agents in a row; whether it was worth it shows at the end",
        make: |seed| Box::new(Chain::new(seed)),
        golden: include_str!("environments/chain.txt"),
    },
    Shown {
        name: cpu::NAME,
        summary: "six agents write a program, choosing instructions and who is next",
        make: |seed| Box::new(Cpu::new(cpu::Design::headline(Encoding::Signs), seed)),
        golden: include_str!("environments/cpu.txt"),
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
    // Adaptable agents choose an operation before they choose whom to hand to.
    let mut operates = !env.operations(agent).is_empty();
    for choice in 1.. {
        let observation = env.observe(agent);
        let (who, sees, state) = (&spec.agents[agent.0 as usize], observation.signature.0, env.describe());
        let columns = &spec.choices[agent.0 as usize];
        let name = |a: ActionId| match operates {
            true => env.operations(agent)[a.index()].to_owned(),
            false => columns[a.index()].name.clone(),
        };
        let names: Vec<String> = observation.legal.iter().map(name).collect();
        let pick = rng.below(names.len() as u32) as usize;
        let action = observation.legal.iter().nth(pick).expect("it is below the length");
        let Transition { reward, tau, next } = if operates { env.operate(action) } else { env.step(action) };
        let (may, does) = if operates { ("do", "does") } else { ("choose", "chooses") };
        out +=
            &format!("\n{choice:>2}. {who} sees {sees}   [{state}]\n    may {may}: {}\n", names.join(", "));
        out += &format!("    {does} {}: reward {:.5}, tau {}\n", names[pick], reward.get(), tau.steps());
        episode_return += discount * reward.get();
        discount *= spec.discount.over(tau);
        match next {
            Next::Terminal => {
                return out + &format!("\nOver after {choice} choices; return {episode_return:.5}.\n");
            }
            Next::Active(_) if choice == SHOWN_MAX => break,
            Next::Active(next) => agent = next,
        }
        operates = !operates && !env.operations(agent).is_empty();
    }
    out + &format!("\nAnd so on; return so far {episode_return:.5}.\n")
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
