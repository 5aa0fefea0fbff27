//! `coordinate`: whether relevo's coordinator finds the best workflows of the simulated desk ([`crate::environments::desk`])
//! sooner, and for fewer tokens, than the configuration of AgensFlow.

mod play;

use core::ops::Range;

use relevo::team::{CreditSection, EstimatorSection, StepSection, TeamSpec};
use relevo_core::Rng;
use serde::Serialize;

use crate::{
    environments::desk::{
        Class, PROFILES,
        oracle::{Space, Workflow, Worth, best, single},
    },
    experiment::{Experiment, Figure, Findings, Plot, Series, Settings, Table, quantile},
};
use play::{Check, learn};

/// The experiment.
pub const EXPERIMENT: Experiment = Experiment {
    name: "coordinate",
    summary: "a coordinator on a simulated desk of eight classes of tasks, beside the configuration of AgensFlow",
    seeds,
    expected: include_str!("expected.json"),
    run: |settings| Ok(run(settings)),
};

/// Seeds 0 to 23 were tuned on.
fn seeds(quick: bool) -> Range<u64> {
    if quick { 1000..1003 } else { 1000..1024 }
}

/// A configuration.
struct Arm {
    name: &'static str,
    team: fn() -> TeamSpec,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Rival,
    /// Ours with something left out.
    Ablation,
}

/// The quick form takes the first three.
const ARMS: [Arm; 10] = [
    Arm { name: "relevo", team: ours, kind: Kind::Ours },
    Arm { name: "AgensFlow", team: parity, kind: Kind::Rival },
    Arm {
        name: "AgensFlow, no skips",
        team: || with(parity(), |team| coordinator(team).skips = false),
        kind: Kind::Rival,
    },
    Arm {
        name: "AgensFlow, not told the class",
        team: || with(parity(), |team| coordinator(team).facts.clear()),
        kind: Kind::Rival,
    },
    Arm {
        name: "AgensFlow, no skips, not told the class",
        team: || {
            with(parity(), |team| {
                coordinator(team).skips = false;
                coordinator(team).facts.clear();
            })
        },
        kind: Kind::Rival,
    },
    Arm {
        name: "AgensFlow, no skips, solvers alone",
        team: || {
            with(parity(), |team| {
                coordinator(team).skips = false;
                coordinator(team).alone = true;
            })
        },
        kind: Kind::Rival,
    },
    Arm {
        name: "without pools",
        team: || with(ours(), |team| team.learner.estimator = EstimatorSection::Table),
        kind: Kind::Ablation,
    },
    Arm {
        name: "without acting alone",
        team: || with(ours(), |team| coordinator(team).alone = false),
        kind: Kind::Ablation,
    },
    Arm {
        name: "with trajectory credit",
        team: || {
            with(ours(), |team| {
                team.learner.credit = CreditSection::Trajectory;
                team.learner.step = StepSection::Mean;
            })
        },
        kind: Kind::Ablation,
    },
    Arm {
        name: "with skips",
        team: || with(ours(), |team| coordinator(team).skips = true),
        kind: Kind::Ablation,
    },
];

fn ours() -> TeamSpec {
    TeamSpec::parse(include_str!("../../../../../examples/desk/team.toml")).expect("checked by a test")
}

fn parity() -> TeamSpec {
    TeamSpec::parse(include_str!("../../../../../examples/desk/agensflow.toml")).expect("checked by a test")
}

fn with(mut team: TeamSpec, change: impl FnOnce(&mut TeamSpec)) -> TeamSpec {
    change(&mut team);
    team
}

fn coordinator(team: &mut TeamSpec) -> &mut relevo::team::CoordinatorSection {
    team.coordinator.as_mut().expect("both teams are coordinated")
}

/// Episodes of a run: of a rival, and of ours, which needs fewer.
fn budget(kind: Kind, quick: bool) -> u64 {
    match (kind, quick) {
        (Kind::Rival, false) => 6_000,
        (_, false) => 3_000,
        (Kind::Rival, true) => 1_500,
        (_, true) => 750,
    }
}

/// Every x 1.2 from 50 episodes on.
fn checkpoints(last: u64) -> Vec<u64> {
    let every = core::iter::successors(Some(50.0), |x| Some(x * 1.2)).map(|x: f64| x as u64);
    every.take_while(|x| *x < last).chain([last]).collect()
}

/// One configuration with one seed.
#[derive(Serialize)]
struct Run {
    arm: &'static str,
    seed: u64,
    checks: Vec<Check>,
}

impl Run {
    /// The first check of two in a row that are at least at `level`.
    fn reached(&self, level: f64) -> Option<&Check> {
        self.checks.windows(2).find(|two| two.iter().all(|check| check.reward >= level)).map(|two| &two[0])
    }

    fn last(&self) -> Option<&Check> {
        self.checks.last()
    }
}

/// What is to be reached.
struct Level {
    name: &'static str,
    reward: f64,
}

fn levels(concluded: f64, alone: f64) -> [Level; 4] {
    [
        Level { name: "80%", reward: 0.8 * concluded },
        Level { name: "90%", reward: 0.9 * concluded },
        Level { name: "95%", reward: 0.95 * concluded },
        Level { name: "95% with solvers alone", reward: 0.95 * alone },
    ]
}

fn run(settings: &Settings<'_>) -> Findings {
    let arms = ARMS[..if settings.quick { 3 } else { ARMS.len() }].iter();
    let pairs = settings.seeds.clone().flat_map(|seed| arms.clone().map(move |arm| (arm, seed)));
    // Ablations make do with half of the seeds.
    let half = settings.seeds.start + (settings.seeds.end - settings.seeds.start).div_ceil(2);
    let items: Vec<(&Arm, u64)> =
        pairs.filter(|(arm, seed)| arm.kind != Kind::Ablation || *seed < half).collect();
    let tasks = if settings.quick { 5 } else { 10 };
    let runs: Vec<Run> = settings.map(&items, |(arm, seed)| {
        let at = checkpoints(budget(arm.kind, settings.quick));
        let checks = learn(&(arm.team)(), *seed, &at, tasks, &|| settings.stopped());
        Run { arm: arm.name, seed: *seed, checks }
    });
    let all: Vec<Class> = Class::all().collect();
    let (concluded, alone) = (by_class(Space::Concluded), by_class(Space::Alone));
    let levels = levels(mean(&concluded).reward(), mean(&alone).reward());
    let of = |name: &str| runs.iter().filter(|run| run.arm == name).collect::<Vec<&Run>>();
    let rival = ARMS.iter().filter(|arm| arm.kind == Kind::Rival).map(|arm| arm.name);
    // The strongest at its end.
    let strength = |name: &&str| quantile(of(name).iter().filter_map(|r| r.last()).map(|c| c.reward), 0.5);
    let rival = rival.filter(|name| strength(name).is_finite());
    let rival = rival.max_by(|a, b| strength(a).total_cmp(&strength(b)));
    let names: Vec<&str> = arms.clone().map(|arm| arm.name).collect();
    let mut tables = vec![
        yardsticks(&all, &concluded, &alone),
        reach("Episodes", &names, &levels, &of, |check| check.episodes, |x| x.to_string()),
        reach("Tokens", &names, &levels, &of, |check| check.spent, |x| format!("{:.1} M", x / 1e6)),
    ];
    let mut figures = vec![];
    if let Some(rival) = rival {
        let (ratios, more) = ratios(&of("relevo"), &of(rival), rival, &levels);
        tables.push(ratios);
        figures.extend(more);
    }
    tables.push(ends(&names, &of));
    if !settings.quick {
        tables.push(ends_by_class(&names, &of, &concluded, &alone));
    }
    for name in &names {
        let reward = quantile(of(name).iter().filter_map(|r| r.last()).map(|c| c.reward), 0.5);
        figures.push(Figure { name: format!("median reward at the end: {name}"), value: reward });
    }
    let shown = arms.filter(|arm| arm.kind != Kind::Ablation);
    let curve = |name: &str, x_label: &str, x: fn(&Check) -> u64| {
        let series = |arm: &Arm| Series { name: arm.name.to_owned(), points: points(&of(arm.name), x) };
        Plot {
            name: format!("coordinate-{name}"),
            title: "Reward of the greedy policy (simulated desk)".to_owned(),
            x_label: x_label.to_owned(),
            y_label: "mean reward of a task: median and quartiles".to_owned(),
            series: shown.clone().map(series).collect(),
            levels: vec![
                ("best known".to_owned(), levels[0].reward / 0.8),
                ("95% of it".to_owned(), levels[2].reward),
            ],
            x_log: true,
            ..Plot::default()
        }
    };
    Findings {
        claim: include_str!("README.md").to_owned(),
        tables,
        plots: vec![
            curve("episodes", "episodes", |check| check.episodes),
            curve("tokens", "tokens spent on learning", |check| check.spent),
        ],
        figures,
        notes: NOTES.to_owned(),
        raw: serde_json::to_value(&runs).expect("numbers and text"),
    }
}

const NOTES: &str = "A simulation: no language model was asked. Rewards are `quality - .3 tokens / 8000 - .15 failures`; AgensFlow \
    stops counting tokens at 8,000, here they count on, for all alike. A level counts as reached at the first of two checks in \
    a row that are there; checks stand every x 1.2. They follow the policy without exploration on the same tasks for all, and \
    take the expected quality of the answer, without its luck. Intervals are 95% bootstraps of a median over seeds. In a ratio, \
    a rival that has not reached a level counts with its whole budget, which favours it.";

/// The best workflow of each class.
fn by_class(space: Space) -> Vec<(Workflow, Worth)> {
    Class::all().map(|class| best(&[class], space)).collect()
}

fn mean(worths: &[(Workflow, Worth)]) -> Worth {
    Worth::mean(worths.iter().map(|(_, worth)| *worth))
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn yardsticks(all: &[Class], concluded: &[(Workflow, Worth)], alone: &[(Workflow, Worth)]) -> Table {
    let mut rows = vec![words(["workflow", "reward", "quality", "tokens"])];
    let mut row = |name: &str, worth: Worth| {
        let Worth { quality, tokens, .. } = worth;
        rows.push(vec![
            name.to_owned(),
            format!("{:.3}", worth.reward()),
            format!("{quality:.3}"),
            format!("{tokens:.0}"),
        ]);
    };
    row("the best known of each class", mean(concluded));
    row("the same, where a solver may act alone", mean(alone));
    row("the best one for all classes", best(all, Space::Concluded).1);
    row("the best solver alone", single(all).1);
    row("all cells in order", Workflow::full().mean(all));
    Table { caption: "What is known to be possible (exact)".to_owned(), rows }
}

/// Median and 95% bootstrap interval of numbers that may be infinite.
fn interval(numbers: &[f64]) -> [f64; 3] {
    let middle = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    if numbers.is_empty() {
        return [f64::NAN; 3];
    }
    let mut rng = Rng::stream(1, "coordinate/bootstrap");
    let draw = |rng: &mut Rng| numbers[rng.below(numbers.len() as u32) as usize];
    let mut medians: Vec<f64> =
        (0..2000).map(|_| middle((0..numbers.len()).map(|_| draw(&mut rng)).collect())).collect();
    medians.sort_by(f64::total_cmp);
    [medians[50], middle(numbers.to_vec()), medians[1949]]
}

/// An interval as a text; what is infinite was not reached.
fn told(numbers: &[f64], unit: impl Fn(f64) -> String) -> String {
    let [low, middle, high] = interval(numbers);
    let one = |x: f64| if x.is_infinite() { "not reached".to_owned() } else { unit(x) };
    match numbers.is_empty() {
        true => String::new(),
        false if low == high => one(middle),
        false => format!("{} ({} to {})", one(middle), one(low), one(high)),
    }
}

/// Infinity where a level was not reached.
fn costs(runs: &[&Run], level: f64, cost: fn(&Check) -> u64) -> Vec<f64> {
    runs.iter().map(|run| run.reached(level).map_or(f64::INFINITY, |check| cost(check) as f64)).collect()
}

fn reach<'r>(
    what: &str,
    names: &[&str],
    levels: &[Level],
    of: &impl Fn(&str) -> Vec<&'r Run>,
    cost: fn(&Check) -> u64,
    unit: fn(f64) -> String,
) -> Table {
    let head = levels.iter().map(|level| level.name.to_owned());
    let mut rows = vec![["configuration".to_owned()].into_iter().chain(head).collect::<Vec<_>>()];
    for name in names {
        let runs = of(name);
        let cells = levels.iter().map(|level| told(&costs(&runs, level.reward, cost), unit));
        rows.push([(*name).to_owned()].into_iter().chain(cells).collect());
    }
    Table { caption: format!("{what} until a share of the best known workflow is reached"), rows }
}

/// What ours takes as a share of what the rival takes, seed by seed.
fn ratios(ours: &[&Run], rivals: &[&Run], rival: &str, levels: &[Level]) -> (Table, Vec<Figure>) {
    let mut rows = vec![words(["level", "episodes", "tokens", "rivals that reached it"])];
    let mut figures = vec![];
    for Level { name, reward } in levels {
        let ratios = |cost: fn(&Check) -> u64| -> Vec<f64> {
            let pairs =
                ours.iter().filter_map(|run| Some((run, rivals.iter().find(|r| r.seed == run.seed)?)));
            let of = |run: &Run| run.reached(*reward).map(|check| cost(check) as f64);
            let pair = |(ours, rival): (&&Run, &&Run)| {
                let whole = rival.last().map_or(f64::NAN, |check| cost(check) as f64);
                of(ours).map_or(f64::INFINITY, |ours| ours / of(rival).unwrap_or(whole))
            };
            pairs.map(pair).collect()
        };
        let (episodes, tokens) = (ratios(|check| check.episodes), ratios(|check| check.spent));
        let reached = rivals.iter().filter(|run| run.reached(*reward).is_some()).count();
        let bound = if 2 * reached > rivals.len() { "" } else { "at most " };
        let share = |x: f64| format!("{bound}{x:.2}");
        rows.push(vec![
            (*name).to_owned(),
            told(&episodes, share),
            told(&tokens, share),
            format!("{reached} of {}", rivals.len()),
        ]);
        for (what, ratios) in [("episodes", &episodes), ("tokens", &tokens)] {
            figures.push(Figure { name: format!("ratio of {what} to {name}"), value: interval(ratios)[1] });
        }
    }
    (Table { caption: format!("relevo's share of what the strongest rival takes ({rival})"), rows }, figures)
}

fn ends<'r>(names: &[&str], of: &impl Fn(&str) -> Vec<&'r Run>) -> Table {
    let mut rows = vec![words(["configuration", "episodes", "reward", "quality", "tokens of a task"])];
    for name in names {
        let ends: Vec<&Check> = of(name).into_iter().filter_map(Run::last).collect();
        let of = |value: fn(&Check) -> f64| ends.iter().map(|check| value(check)).collect::<Vec<f64>>();
        rows.push(vec![
            (*name).to_owned(),
            ends.first().map_or(String::new(), |check| check.episodes.to_string()),
            told(&of(|check| check.reward), |x| format!("{x:.3}")),
            told(&of(|check| check.quality), |x| format!("{x:.3}")),
            told(&of(|check| check.tokens), |x| format!("{x:.0}")),
        ]);
    }
    Table { caption: "At the end of the budget".to_owned(), rows }
}

fn ends_by_class<'r>(
    names: &[&str],
    of: &impl Fn(&str) -> Vec<&'r Run>,
    concluded: &[(Workflow, Worth)],
    alone: &[(Workflow, Worth)],
) -> Table {
    let head = PROFILES.iter().map(|profile| profile.name.to_owned());
    let mut rows = vec![["configuration".to_owned()].into_iter().chain(head).collect::<Vec<_>>()];
    for (name, known) in [("best known", concluded), ("best known, solvers alone", alone)] {
        let cells = known.iter().map(|(_, worth)| format!("{:.3}", worth.reward()));
        rows.push([name.to_owned()].into_iter().chain(cells).collect());
    }
    for name in names {
        let ends: Vec<&Check> = of(name).into_iter().filter_map(Run::last).collect();
        let at = |class: usize| quantile(ends.iter().map(|check| check.classes[class]), 0.5);
        let cells = (0..PROFILES.len()).map(|class| format!("{:.3}", at(class)));
        rows.push([(*name).to_owned()].into_iter().chain(cells).collect());
    }
    Table { caption: "Reward by class at the end: median over seeds".to_owned(), rows }
}

fn points(runs: &[&Run], x: fn(&Check) -> u64) -> Vec<[f64; 4]> {
    let checks = runs.iter().map(|run| run.checks.len()).min().unwrap_or(0);
    let point = |i: usize| {
        let at = |q| quantile(runs.iter().map(|run| run.checks[i].reward), q);
        let x = quantile(runs.iter().map(|run| x(&run.checks[i]) as f64), 0.5);
        [x, at(0.25), at(0.5), at(0.75)]
    };
    (0..checks).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environments::desk::tokens;

    #[test]
    fn every_configuration_is_a_team_of_the_desk() {
        for arm in ARMS {
            let team = (arm.team)();
            assert_eq!(team.agents.len(), 18, "{}", arm.name);
            assert!(team.agents.iter().all(|a| tokens(a.simulate.as_deref().unwrap_or_default()).is_some()));
        }
    }

    #[test]
    fn what_was_not_reached_stays_so() {
        let numbers = [3.0, 1.0, f64::INFINITY, f64::INFINITY, f64::INFINITY];
        assert_eq!(interval(&numbers)[1], f64::INFINITY);
        assert_eq!(told(&[2.0; 9], |x| x.to_string()), "2");
        let [low, middle, high] = interval(&(0..101).map(f64::from).collect::<Vec<_>>());
        assert!(middle == 50.0 && (30.0..50.0).contains(&low) && (50.0..70.0).contains(&high));
    }
}
