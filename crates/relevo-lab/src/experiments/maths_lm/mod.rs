//! `maths-lm`: the paper's mathematics team on real language models: whether it learns the best workflow of each dataset.
//! The conversations are held once, all of them, through [`relevo::stage`]; `tree` says how.

mod report;
mod tree;

use core::ops::Range;
use std::{collections::BTreeMap, env, fs, path::Path, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use relevo::{
    model::probe,
    reward::Usual,
    stage::Stage,
    tasks::Task,
    team::{ProblemsSection, TeamSpec},
};
use relevo_core::{
    ids::AgentId,
    learner::{DecisionPoint, LearnerSpec, Regime},
    policy_file::hex,
};
use serde::Serialize;

use crate::{
    baselines::fixed::Fixed,
    drive::Crew,
    environment::{Environment, follow},
    experiment::{Experiment, Findings, Settings},
};
use report::Found;
use tree::{Conversations, End, Kept, Tree, TreeError};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "maths-lm",
    summary: "whether a team of real language models finds the workflow that is best for each dataset",
    seeds,
    expected: include_str!("expected.json"),
    run,
};

fn seeds(quick: bool) -> Range<u64> {
    if quick { 1000..1003 } else { 1000..1020 }
}

/// Problems of each level to learn on, and as many to measure on.
const PROBLEMS: u64 = 10_000;
const PROBLEMS_QUICK: u64 = 200;

/// Episodes, over all levels; each budget is a run of its own, as exploration ends in its first half.
const BUDGETS: [u64; 4] = [3_000, 12_000, 60_000, 300_000];
const BUDGETS_QUICK: [u64; 1] = [3_000];

/// How close to the best workflow is close.
const NEAR: f64 = 0.005;

/// Conversations at a time.
const AT_A_TIME: usize = 128;

/// What a model may take to show that it is there.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// The team file and its skill cards.
const FILES: [(&str, &str); 4] = [
    ("team.toml", include_str!("../../../../../examples/maths/team.toml")),
    ("skills/checker.md", include_str!("../../../../../examples/maths/skills/checker.md")),
    ("skills/editor.md", include_str!("../../../../../examples/maths/skills/editor.md")),
    ("skills/thinker.md", include_str!("../../../../../examples/maths/skills/thinker.md")),
];

/// What was learned in one budget, on one kind of problem.
#[derive(Clone, Debug, Serialize)]
struct Check {
    kind: String,
    seed: u64,
    episodes: u64,
    /// Mean return and share of right answers, on problems on which nothing was learned.
    value: f64,
    accuracy: f64,
    /// The fixed workflow that is the same on most of them.
    workflow: String,
}

/// A workflow on one kind of problem.
#[derive(Clone, Debug, Serialize)]
struct Score {
    kind: String,
    workflow: String,
    problems: usize,
    value: f64,
    accuracy: f64,
}

fn run(settings: &Settings<'_>) -> Result<Findings, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("no runtime: {e}"))?;
    let stage = stage(settings)?;
    runtime.block_on(ready(&stage))?;
    let (learning, measuring) = tasks(&stage, settings)?;
    let Some((learning, measuring)) = runtime.block_on(hold(&stage, &learning, &measuring, settings))? else {
        return Ok(Findings::default());
    };
    let mut env = Conversations::new(&stage, &measuring);
    let kinds = kinds(&measuring);
    let flow = |route: Vec<AgentId>| {
        let fixed = Fixed::new(env.spec(), &route);
        Flow { name: name_of(&stage, &route), ends: env.ends(|env, agent| fixed.play(env, agent)) }
    };
    let flows: Vec<Flow> = ways(&measuring).into_iter().map(flow).collect();
    let scores: Vec<Score> =
        kinds.iter().flat_map(|kind| flows.iter().map(move |flow| flow.score(kind))).collect();
    let budgets: &[u64] = if settings.quick { &BUDGETS_QUICK } else { &BUDGETS };
    let items: Vec<(u64, u64)> =
        settings.seeds.clone().flat_map(|seed| budgets.iter().map(move |b| (seed, *b))).collect();
    let checks = settings.map(&items, |&(seed, episodes)| {
        learn(&stage, [&learning, &measuring], &kinds, &flows, (seed, episodes), settings)
    });
    let checks: Vec<Check> = checks.into_iter().collect::<Result<Vec<_>, String>>()?.concat();
    let failed = learning.iter().chain(&measuring).map(|tree| tree.failed).sum();
    let declared: Vec<String> = stage.team().workflows.iter().map(|flow| flow.name.clone()).collect();
    let named = stage.models().iter().map(|m| format!("{} ({})", m.section.model, m.section.provider));
    let models = named.collect::<Vec<_>>().join(", ");
    Ok(Found { declared: &declared, budgets, scores: &scores, checks: &checks, failed, models }.findings())
}

/// The team on its models: those of the box and its problems, or others.
fn stage(settings: &Settings<'_>) -> Result<Stage, String> {
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let write = |(name, text): (&str, &str)| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, text)
    };
    FILES.into_iter().try_for_each(write).map_err(|e| format!("{}: {e}", folder.path().display()))?;
    let mut team = TeamSpec::load(&folder.path().join(FILES[0].0)).map_err(|e| e.to_string())?;
    if let Some(model) = &settings.instead.model {
        team.act_by(model)?;
        // Conversations that begin alike are to go on from the same words, and to be paid for once.
        team.models.values_mut().for_each(|section| section.remember = true);
    }
    if let Some((dataset, file)) = &settings.instead.dataset {
        let files = BTreeMap::from([(dataset.clone(), file.clone())]);
        team.problems = Some(ProblemsSection { levels: vec![], files });
    }
    // Keys are looked for where the command was given.
    let directory = env::current_dir().map_err(|e| format!("no folder to be in: {e}"))?;
    Stage::new(team, &directory, None).map_err(|e| e.to_string())
}

async fn ready(stage: &Stage) -> Result<(), String> {
    for model in stage.models().iter() {
        let answer = probe(&*model.model, PROBE_LIMIT).await;
        answer.map_err(|failure| format!("the model {} does not answer: {failure}", model.section.model))?;
    }
    Ok(())
}

/// The problems to learn on, and those to measure on.
fn tasks(stage: &Stage, settings: &Settings<'_>) -> Result<(Vec<Task>, Vec<Task>), String> {
    let section = stage.team().problems.as_ref().expect("the team file has generated problems");
    let levels = (section.levels.len() + section.files.len()) as u64;
    let most = levels * if settings.quick { PROBLEMS_QUICK } else { PROBLEMS };
    let tasks = stage.tasks();
    let told = |e: relevo::tasks::TaskError| e.to_string();
    let learning = match tasks.training_count() {
        Some(count) => (0..count.min(most)).map(|i| tasks.training_at(i)).collect::<Result<_, _>>(),
        None => (0..most).map(|i| tasks.lesson(0, i)).collect(),
    };
    let measuring = (0..most).map_while(|i| tasks.evaluation(i).transpose()).collect::<Result<_, _>>();
    Ok((learning.map_err(told)?, measuring.map_err(told)?))
}

/// All conversations about all problems; nothing if a stop was asked for.
async fn hold(
    stage: &Stage,
    learning: &[Task],
    measuring: &[Task],
    settings: &Settings<'_>,
) -> Result<Option<(Vec<Tree>, Vec<Tree>)>, String> {
    let path = settings.instead.keep.as_deref();
    let team = hex(&stage.team().config_digest(&stage.tasks().identity()));
    let mut kept = path.map(|path| Kept::open(path, &team)).transpose()?.flatten();
    let usual = match &kept {
        Some(kept) => kept.usual,
        None => usual(stage, learning).await?,
    };
    if let (None, Some(path)) = (&kept, path) {
        kept = Some(Kept::create(path, &team, usual)?);
    }
    let known = kept.as_mut().map(|kept| std::mem::take(&mut kept.trees)).unwrap_or_default();
    let named = |half: &'static str| move |task: &'_ Task| format!("{half} {}", task.id);
    let names = learning.iter().map(named("learning")).chain(measuring.iter().map(named("measuring")));
    let held = stream::iter(names.zip(learning.iter().chain(measuring))).map(async |(name, task)| {
        let tree = match known.get(&name) {
            Some(tree) => tree.clone(),
            None => Tree::of(stage, task, usual).await?.0,
        };
        Ok::<_, TreeError>((name, tree))
    });
    let mut held = held.buffered(AT_A_TIME);
    let all = learning.len() + measuring.len();
    let mut trees = Vec::with_capacity(all);
    while let Some(next) = held.next().await {
        if settings.stopped() {
            return Ok(None);
        }
        let (name, tree) = next.map_err(|e| e.to_string())?;
        if let (Some(kept), Some(path)) = (&mut kept, path)
            && !known.contains_key(&name)
        {
            kept.keep(&name, &tree, path)?;
        }
        trees.push(tree);
        if trees.len().is_multiple_of(64) || trees.len() == all {
            (settings.progress)(trees.len(), all);
        }
    }
    let measuring = trees.split_off(learning.len());
    Ok(Some((trees, measuring)))
}

/// What a conversation usually costs: the median over the first problems, every way that there is.
async fn usual(stage: &Stage, learning: &[Task]) -> Result<Usual, String> {
    let first = stream::iter(&learning[..learning.len().min(32)]);
    let first = first.map(|task| Tree::of(stage, task, Usual::default())).buffered(AT_A_TIME);
    let first: Vec<(Tree, Vec<_>)> = first.try_collect().await.map_err(|e: TreeError| e.to_string())?;
    Ok(Usual::of(first.iter().flat_map(|(_, spent)| spent.iter().map(|spent| spent.cost()))))
}

/// The problems of each kind, by number.
fn kinds(trees: &[Tree]) -> BTreeMap<String, Vec<usize>> {
    let mut kinds: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    trees.iter().enumerate().for_each(|(i, tree)| kinds.entry(tree.kind.clone()).or_default().push(i));
    kinds
}

/// Every fixed workflow that admissible handoffs leave, as agents behind the one with which all begin.
fn ways(trees: &[Tree]) -> Vec<Vec<AgentId>> {
    let mut ways: Vec<Vec<AgentId>> = trees.iter().flat_map(Tree::ways).collect();
    ways.sort_by_key(|way| (way.len(), way.clone()));
    ways.dedup();
    ways
}

/// A fixed workflow, on every problem.
struct Flow {
    name: String,
    ends: Vec<End>,
}

impl Flow {
    fn score(&self, (kind, problems): (&String, &Vec<usize>)) -> Score {
        let [value, accuracy] = means(&self.ends, problems);
        Score { kind: kind.clone(), workflow: self.name.clone(), problems: problems.len(), value, accuracy }
    }

    /// On how many of the problems it is what was done.
    fn is_done(&self, done: &[End], problems: &[usize]) -> usize {
        problems.iter().filter(|i| self.ends[**i].which == done[**i].which).count()
    }
}

/// Mean return and quality on some problems.
fn means(ends: &[End], problems: &[usize]) -> [f64; 2] {
    let mean =
        |of: fn(&End) -> f64| problems.iter().map(|i| of(&ends[*i])).sum::<f64>() / problems.len() as f64;
    [mean(|end| end.value), mean(|end| end.quality)]
}

/// The name of a fixed workflow: that of the team file, or who acts.
fn name_of(stage: &Stage, route: &[AgentId]) -> String {
    let team = stage.team();
    let names: Vec<&str> = route.iter().map(|agent| team.agent_name(*agent)).collect();
    let same = |known: &&relevo::team::WorkflowSpec| {
        known.route.len() == names.len() + 2 && known.route[1..].iter().zip(&names).all(|(a, b)| a == b)
    };
    team.workflows.iter().find(same).map_or_else(|| names.join(" → "), |known| known.name.clone())
}

/// Learn on the one half of the problems, and measure what the best known choices are worth on the other.
fn learn(
    stage: &Stage,
    [learning, measuring]: [&[Tree]; 2],
    kinds: &BTreeMap<String, Vec<usize>>,
    flows: &[Flow],
    (seed, episodes): (u64, u64),
    settings: &Settings<'_>,
) -> Result<Vec<Check>, String> {
    let mut env = Conversations::new(stage, learning);
    let specs = stage.participants(episodes).map_err(|e| e.to_string())?;
    // The environment lets the next agent act before it chooses.
    let regime = Regime::PreConfigured(DecisionPoint::Before);
    let learner = |agent: AgentId| LearnerSpec { regime, ..specs[agent.0 as usize].1.learner.clone() };
    let mut crew = Crew::of(&env, learner, seed).map_err(|e| e.to_string())?;
    for episode in 0..episodes {
        if episode.is_multiple_of(1000) && settings.stopped() {
            return Ok(vec![]);
        }
        crew.play(&mut env, seed << 32 | episode, episode);
    }
    let mut env = Conversations::new(stage, measuring);
    let ends = env.ends(|env, agent| follow(env, agent, |agent, seen| crew.greedy(agent, seen)));
    let one = |(kind, problems): (&String, &Vec<usize>)| {
        let [value, accuracy] = means(&ends, problems);
        // The first of several.
        let alike = flows.iter().rev().max_by_key(|flow| flow.is_done(&ends, problems));
        let workflow = alike.map_or_else(String::new, |flow| flow.name.clone());
        Check { kind: kind.clone(), seed, episodes, value, accuracy, workflow }
    };
    Ok(kinds.iter().map(one).collect())
}
