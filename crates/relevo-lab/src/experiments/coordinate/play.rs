//! One configuration learning on the desk: through the session that every run goes through, measured on the way.

use core::ops::ControlFlow;
use std::{path::Path, sync::Arc};

use relevo::{
    evaluate::{Greedy, walk},
    learn::{EpisodeEnd, RunConfig, Session},
    reward::Usual,
    stage::Stage,
    team::TeamSpec,
};
use serde::Serialize;

use crate::environments::desk::{self, DeskWorld, PROFILES};

/// What the greedy policy brings after some episodes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Check {
    /// Episodes learned from.
    pub(super) episodes: u64,
    /// Tokens that they took.
    pub(super) spent: u64,
    /// Mean reward of a task.
    pub(super) reward: f64,
    /// Mean quality.
    pub(super) quality: f64,
    /// Mean tokens.
    pub(super) tokens: f64,
    /// Mean reward by class.
    pub(super) classes: Vec<f64>,
}

/// Learn with a seed; measure at each of `checkpoints`, on `tasks` tasks of every class. Fewer checks if `stopped`.
pub(super) fn learn(
    team: &TeamSpec,
    seed: u64,
    checkpoints: &[u64],
    tasks: u64,
    stopped: &dyn Fn() -> bool,
) -> Vec<Check> {
    let world = Arc::new(DeskWorld::new(&Default::default()).expect("it has no options"));
    let stage = Stage::new(team.clone(), Path::new("."), Some(world)).expect("the team is one of the desk");
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("no IO, no timers");
    let episodes = checkpoints.last().copied().unwrap_or_default();
    let mut session =
        Session::start(&stage, folder.path(), RunConfig { seed, episodes }).expect("a new folder");
    let mut checks = vec![];
    let mut spent = 0;
    for until in checkpoints {
        let watch = |end: &EpisodeEnd| {
            let names = end.path.iter().map(|agent| stage.team().agent_name(*agent));
            spent += names.filter_map(desk::tokens).sum::<u64>();
            match end.episode + 1 >= *until || stopped() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let _ = runtime.block_on(session.run(watch)).expect("the desk does not fail");
        if stopped() {
            break;
        }
        checks.push(runtime.block_on(measure(&stage, &session, tasks, *until, spent)));
    }
    checks
}

async fn measure(stage: &Stage, session: &Session<'_>, tasks: u64, episodes: u64, spent: u64) -> Check {
    let n = PROFILES.len();
    let count = tasks * n as u64;
    let mut check = Check { episodes, spent, reward: 0.0, quality: 0.0, tokens: 0.0, classes: vec![0.0; n] };
    let mut guard = stage.guard();
    let mut greedy = Greedy { learners: session.participants().iter().map(|p| p.learner()).collect() };
    for number in 0..count {
        let task = stage.tasks().evaluation(number).expect("simulated").expect("there is no last one");
        let walk =
            walk(stage, &mut guard, task, number, Usual::default(), &mut greedy).await.expect("simulated");
        let quality = DeskWorld::expected_quality(&walk.artifact);
        let reward = desk::reward(quality, walk.spent.tokens as f64, f64::from(walk.spent.failures));
        check.reward += reward / count as f64;
        check.quality += quality / count as f64;
        check.tokens += walk.spent.tokens as f64 / count as f64;
        check.classes[number as usize % n] += reward / tasks as f64;
    }
    check
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use relevo_core::{
        Rng,
        ids::{ActionId, EpisodeId},
        learner::Step,
        record::Table,
        units::{Return, Tau, Usage},
    };

    use super::*;

    /// What a coordinator's part of a step takes, beside the work of its cells: to decide, with all probabilities, and to
    /// settle. In release mode, on an idle machine; the fastest of 20 rounds.
    #[test]
    #[ignore = "a measurement: cargo test --release -p relevo-lab overhead -- --ignored --nocapture"]
    fn overhead_of_a_decision() {
        let team = super::super::ours();
        let world = Arc::new(DeskWorld::new(&Default::default()).unwrap());
        let stage = Stage::new(team, Path::new("."), Some(world)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let config = RunConfig { seed: 1, episodes: 1000 };
        let mut session = Session::start(&stage, folder.path(), config).unwrap();
        let _ = runtime.block_on(session.run(|_| ControlFlow::Continue(()))).unwrap();
        let mut learner = session.participants()[0].learner().clone();
        let mut seen = vec![];
        for number in 0..200 {
            let task = stage.tasks().evaluation(number).unwrap().unwrap();
            let mut greedy = Greedy { learners: vec![session.participants()[0].learner()] };
            let walk = runtime
                .block_on(walk(&stage, &mut stage.guard(), task, number, Usual::default(), &mut greedy))
                .unwrap();
            seen.extend(walk.turns.into_iter().map(|turn| turn.observation));
        }
        let mut rng = Rng::stream(1, "overhead");
        let (mut deciding, mut settling) = (f64::INFINITY, f64::INFINITY);
        for round in 0..20 {
            let began = Instant::now();
            let mut chosen: Vec<ActionId> = vec![];
            for (i, o) in seen.iter().enumerate() {
                let episode = EpisodeId(u128::from(round * 10_000 + i as u64));
                chosen.push(learner.decide(Table::Operations, o, episode, 0, &mut rng).action);
            }
            let decided = Instant::now();
            for (o, action) in seen.iter().zip(chosen) {
                let (reward, tau, usage) = (Return::ZERO, Tau::ONE, Usage::default());
                let step = Step { observation: o.clone(), action, reward, tau, usage };
                learner.settle(Table::Operations, &step, 0.5);
            }
            let n = seen.len() as f64;
            deciding = deciding.min((decided - began).as_secs_f64() / n);
            settling = settling.min(decided.elapsed().as_secs_f64() / n);
        }
        let (decide, settle) = (1e6 * deciding, 1e6 * settling);
        println!("decide {decide:.1} us, settle {settle:.1} us, in {} situations", seen.len());
        assert!(decide + settle <= 20.0, "{decide} + {settle} us");
    }
}
