//! What a run leaves for people: tables, pictures, and a JSON report with the raw figures. Made from
//! [`crate::evaluate::Arm`]s and the returns of the run; printed by the command line.

use std::collections::BTreeMap;

use relevo_core::ids::{ActionId, AgentId};
use serde::Serialize;

use crate::{
    evaluate::{Arm, ArmKind, Walk},
    picture::{
        curve::{Curve, Level, Point},
        diagram::{Arrow, Diagram, Node, NodeKind, Panel},
        map::{DecisionMap, Row},
    },
    stage::Stage,
    team::{FINISH, TeamSpec},
};

/// A mean with its 95% interval (normal approximation, n - 1).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the interval; absent below two samples.
    pub half_width: Option<f64>,
    /// Samples.
    pub n: usize,
}

impl Estimate {
    /// The estimate from samples; `None` without any.
    pub fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let samples: Vec<f64> = samples.into_iter().collect();
        let n = samples.len();
        if n == 0 {
            return None;
        }
        let mean = samples.iter().sum::<f64>() / n as f64;
        let variance = samples.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n as f64 - 1.0);
        Some(Estimate { mean, half_width: (n > 1).then(|| 1.96 * (variance / n as f64).sqrt()), n })
    }
}

impl std::fmt::Display for Estimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.half_width {
            Some(half) => write!(f, "{:.3} ± {half:.3}", self.mean),
            None => write!(f, "{:.3}", self.mean),
        }
    }
}

/// One workflow in figures.
#[derive(Clone, Debug, Serialize)]
pub struct ArmReport {
    /// Its name.
    pub name: String,
    /// `learned`, `fixed` or `single`.
    pub kind: &'static str,
    /// Return per task.
    pub value: Estimate,
    /// learned - this, task by task.
    pub learned_minus_this: Option<Estimate>,
    /// Quality per task: the share of tasks solved, where quality is 0 or 1.
    pub quality: Option<Estimate>,
    /// Calls of agents per task.
    pub calls: Estimate,
    /// Failed calls per task.
    pub failures: Estimate,
    /// How the tasks stopped.
    pub stops: BTreeMap<&'static str, usize>,
    /// Return per task, by what the first agent saw.
    pub by_start: BTreeMap<String, Estimate>,
}

/// The most frequent way of the learned policy from one starting signature.
#[derive(Clone, Debug, Serialize)]
pub struct Route {
    /// Who acted, in order.
    pub agents: Vec<String>,
    /// Share of the tasks that went this way.
    pub share: f64,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `relevo.report/v1`.
    pub schema: &'static str,
    /// The team.
    pub team: String,
    /// The seed.
    pub seed: u64,
    /// Episodes learned from.
    pub episodes: u64,
    /// Version of this program.
    pub version: &'static str,
    /// Tasks on which everything was measured.
    pub evaluation_tasks: usize,
    /// The learned policy first.
    pub arms: Vec<ArmReport>,
    /// By what the first agent saw.
    pub learned_routes: BTreeMap<String, Route>,
}

impl Report {
    /// Compare arms that went over the same tasks, the learned one first.
    pub fn new(team: &TeamSpec, seed: u64, episodes: u64, arms: &[Arm]) -> Self {
        let learned = &arms[0].walks;
        let reports = arms.iter().map(|arm| {
            let mean =
                |f: &dyn Fn(&Walk) -> f64| Estimate::of(arm.walks.iter().map(f)).expect("there are tasks");
            let known: Option<Vec<f64>> = arm.walks.iter().map(|w| w.quality).collect();
            let pairs = learned.iter().zip(&arm.walks).map(|(l, w)| l.walk_return - w.walk_return);
            let mut stops = BTreeMap::new();
            arm.walks.iter().for_each(|w| *stops.entry(w.stop.word()).or_insert(0) += 1);
            let by_start = group(learned).into_iter().map(|(start, tasks)| {
                let estimate = Estimate::of(tasks.iter().map(|i| arm.walks[*i].walk_return));
                (start, estimate.expect("groups are not empty"))
            });
            ArmReport {
                name: arm.name.clone(),
                kind: match arm.kind {
                    ArmKind::Learned => "learned",
                    ArmKind::Fixed => "fixed",
                    ArmKind::Single => "single",
                },
                value: mean(&|w| w.walk_return),
                learned_minus_this: (arm.kind != ArmKind::Learned).then(|| Estimate::of(pairs)).flatten(),
                quality: known.and_then(Estimate::of),
                calls: mean(&|w| f64::from(w.spent.calls)),
                failures: mean(&|w| f64::from(w.spent.failures)),
                stops,
                by_start: by_start.collect(),
            }
        });
        let learned_routes = group(learned).into_iter().map(|(start, tasks)| {
            let mut routes: BTreeMap<Vec<String>, usize> = BTreeMap::new();
            for i in &tasks {
                *routes.entry(route(team, &learned[*i])).or_default() += 1;
            }
            let (agents, n) = routes.into_iter().max_by_key(|(_, n)| *n).expect("groups are not empty");
            (start, Route { agents, share: n as f64 / tasks.len() as f64 })
        });
        Report {
            schema: "relevo.report/v1",
            team: team.name.clone(),
            seed,
            episodes,
            version: env!("CARGO_PKG_VERSION"),
            evaluation_tasks: learned.len(),
            arms: reports.collect(),
            learned_routes: learned_routes.collect(),
        }
    }

    /// The report as JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and text") + "\n"
    }

    /// The tables that a run ends with.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        let mut rows = vec![vec!["starting from".to_owned()]];
        rows[0].extend(self.arms.iter().map(|a| a.name.clone()));
        for start in self.learned_routes.keys() {
            let mut row = vec![start.clone()];
            row.extend(self.arms.iter().map(|a| a.by_start[start].to_string()));
            rows.push(row);
        }
        if self.learned_routes.len() > 1 {
            let mut row = vec!["all".to_owned()];
            row.extend(self.arms.iter().map(|a| a.value.to_string()));
            rows.push(row);
        }
        out += &format!(
            "Value (mean return ± 95% interval) on {} tasks, the same for all:\n",
            self.evaluation_tasks
        );
        out += &table(&rows);
        let mut rows =
            vec![["starting from", "learned workflow", "share of tasks"].map(str::to_owned).to_vec()];
        for (start, Route { agents, share }) in &self.learned_routes {
            rows.push(vec![start.clone(), agents.join(" → "), format!("{:.0}%", 100.0 * share)]);
        }
        out += "\nWhat was learned (the most frequent way from each start):\n";
        out += &table(&rows);
        let heads = [
            "workflow",
            "value",
            "learned is better by",
            "solved",
            "calls per task",
            "failed calls",
            "stopped",
        ];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        for a in &self.arms {
            let solved = a.quality.map_or("unknown".to_owned(), |q| format!("{:.1}%", 100.0 * q.mean));
            let stops: Vec<String> = a.stops.iter().map(|(stop, n)| format!("{stop} {n}")).collect();
            rows.push(vec![
                if a.kind == "single" { format!("{} (best single)", a.name) } else { a.name.clone() },
                a.value.to_string(),
                a.learned_minus_this.map_or("".to_owned(), |d| d.to_string()),
                solved,
                format!("{:.2}", a.calls.mean),
                format!("{:.2}", a.failures.mean),
                stops.join(", "),
            ]);
        }
        out += "\nSide by side:\n";
        out += &table(&rows);
        out
    }
}

/// Tasks by what the first agent saw.
fn group(walks: &[Walk]) -> BTreeMap<String, Vec<usize>> {
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (i, walk) in walks.iter().enumerate() {
        groups.entry(walk.start.clone()).or_default().push(i);
    }
    groups
}

fn route(team: &TeamSpec, walk: &Walk) -> Vec<String> {
    let mut names: Vec<String> = walk.acted.iter().map(|a| team.agent_name(*a).to_owned()).collect();
    names.push(if walk.concluded { FINISH } else { walk.stop.word() }.to_owned());
    names
}

/// Rows as columns of equal width; the first row is the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|x| x.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, w)| format!("{cell}{}", " ".repeat(w - cell.chars().count())));
        out += format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end();
        out.push('\n');
        if i == 0 {
            let rules = widths.iter().map(|w| "─".repeat(*w)).collect::<Vec<_>>();
            out += &format!("  {}\n", rules.join("  "));
        }
    }
    out
}

/// Starts drawn in a diagram; the most frequent ones.
const PANELS_MAX: usize = 6;

/// The learned handoffs as a picture: a panel for each of the most frequent starts.
pub fn diagram(team: &TeamSpec, report: &Report, learned: &Arm) -> Diagram {
    let mut groups: Vec<(String, Vec<usize>)> = group(&learned.walks).into_iter().collect();
    groups.sort_by_key(|(_, tasks)| std::cmp::Reverse(tasks.len()));
    let hidden = groups.len().saturating_sub(PANELS_MAX);
    groups.truncate(PANELS_MAX);
    groups.sort();
    let start = team.agent_id(&team.start);
    let panels = groups.into_iter().map(|(caption, tasks)| {
        let mut nodes: Vec<Node> = (0..team.agents.len() as u32)
            .map(AgentId)
            .map(|id| Node {
                name: team.agent_name(id).to_owned(),
                kind: if Some(id) == start { NodeKind::Start } else { NodeKind::Agent },
            })
            .collect();
        let finish = nodes.len();
        nodes.push(Node { name: FINISH.to_owned(), kind: NodeKind::Finish });
        let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        for walk in tasks.iter().map(|i| &learned.walks[*i]) {
            for pair in walk.acted.windows(2) {
                *counts.entry((pair[0].0 as usize, pair[1].0 as usize)).or_default() += 1;
            }
            if let (Some(last), true) = (walk.acted.last(), walk.concluded) {
                *counts.entry((last.0 as usize, finish)).or_default() += 1;
            }
        }
        let arrows = counts.into_iter().map(|((from, to), n)| {
            let share = n as f64 / tasks.len() as f64;
            Arrow { from, to, share, label: format!("{:.0}%", 100.0 * share) }
        });
        let value = report.arms[0].by_start[&caption];
        Panel { caption: format!("{caption}   value {value}"), nodes, arrows: arrows.collect() }
    });
    let more = if hidden > 0 { format!(" (and {hidden} rarer starts)") } else { String::new() };
    let title = format!("{}: learned handoffs{more}", team.name);
    let panels: Vec<Panel> = panels.collect();
    // Where everybody may hand to everybody, rare handoffs would hide the others.
    let dense = panels.iter().any(|p: &Panel| p.arrows.len() > 2 * p.nodes.len());
    let (share_min, label_share_min) = if dense { (0.05, 0.1) } else { (0.005, 0.005) };
    Diagram { title, panels, share_min, label_share_min }
}

/// Situations drawn in a decision map; the most frequent ones.
const ROWS_MAX: usize = 24;

/// What the team does in each situation, all participants together.
pub fn decision_map(stage: &Stage, learned: &Arm) -> DecisionMap {
    let team = stage.team();
    let mut choices: Vec<String> = match stage.coordination() {
        Some(c) => (0..c.width() as u32).map(|column| c.column_name(ActionId(column))).collect(),
        None => team.agents.iter().map(|a| a.name.clone()).collect(),
    };
    choices.push(FINISH.to_owned());
    let mut counts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for turn in learned.walks.iter().flat_map(|w| &w.turns) {
        let Some(column) = choices.iter().position(|c| *c == turn.choice) else { continue };
        counts.entry(&turn.situation).or_insert_with(|| vec![0; choices.len()])[column] += 1;
    }
    let mut rows: Vec<Row> = counts
        .into_iter()
        .map(|(situation, counts)| {
            let decisions: usize = counts.iter().sum();
            let shares = counts.iter().map(|n| *n as f64 / decisions as f64).collect();
            Row { situation: situation.to_owned(), decisions, shares }
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.decisions));
    let hidden = rows.len().saturating_sub(ROWS_MAX);
    rows.truncate(ROWS_MAX);
    rows.sort_by(|a, b| a.situation.cmp(&b.situation));
    // Columns that nobody chooses say nothing.
    let used: Vec<bool> = (0..choices.len()).map(|c| rows.iter().any(|r| r.shares[c] > 0.0)).collect();
    let keep = |c: &usize| used[*c];
    for row in &mut rows {
        row.shares = (0..choices.len()).filter(keep).map(|c| row.shares[c]).collect();
    }
    let choices = (0..choices.len()).filter(keep).map(|c| choices[c].clone()).collect();
    let more = if hidden > 0 { format!(" ({hidden} rarer situations left out)") } else { String::new() };
    DecisionMap { title: format!("{}: who is next, in percent{more}", team.name), choices, rows }
}

/// The learning curve: mean return in windows, with the fixed workflows as levels.
pub fn curve(team: &TeamSpec, returns: &[f64], report: &Report) -> Curve {
    let window = returns.len().div_ceil(60).max(1);
    let points = returns.chunks(window).enumerate().filter_map(|(i, chunk)| {
        let Estimate { mean, half_width, n } = Estimate::of(chunk.iter().copied())?;
        let half = half_width.unwrap_or(0.0);
        Some(Point { x: (i * window) as f64 + n as f64 / 2.0, mean, low: mean - half, high: mean + half })
    });
    let levels = report.arms.iter().map(|a| Level { name: a.name.clone(), value: a.value.mean });
    Curve {
        title: format!("{}: return while learning", team.name),
        x_label: "episode".to_owned(),
        y_label: "mean return".to_owned(),
        points: points.collect(),
        levels: levels.collect(),
    }
}
