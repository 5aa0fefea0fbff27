//! A thousand tasks at a time in one process: what they hold in memory, and what the driver takes for a call of a cell
//! that waits a few milliseconds.

use std::{fs, ops::ControlFlow, path::Path, sync::Arc, time::Duration, time::Instant};

use async_trait::async_trait;
use relevo::{
    agent::{Agent, OperationCall, Outcome},
    artifact::{Artifact, Facts},
    coordinate::document::{Document, Evidence, Support, Verification},
    learn::{RunConfig, Session},
    stage::Stage,
    tasks::{Simulator, Task, TaskError, TaskSource},
    team::TeamSpec,
};
use relevo_bench::{met, verdict};
use relevo_core::Rng;
use rustix::time::{ClockId, clock_gettime};

const JOBS: usize = 1000;

const TEAM: &str = r#"
schema = "relevo.team/v1"
name = "many"
[simulate]
environment = "many@1"
[learner]
policy = { rule = "ucb" }
pending = "counted"
[coordinator]
plan = "flat"
[guards]
max_turns = 12
breaker = { failures = 5, cooldown = 20 }
session_budget = { tokens = 1000000000, on_exceed = "degrade" }
"#;

const CELLS: [&str; 6] = ["planner", "memory", "solver_a", "solver_b", "verifier", "evaluator"];

/// Cells that wait for 2 to 5 ms, as if for a service, and then add their part to the document.
struct Many;

#[async_trait]
impl Agent for Many {
    async fn perform(&self, call: &OperationCall<'_>, artifact: Artifact) -> Outcome {
        let name = call.agent;
        tokio::time::sleep(Duration::from_millis(2 + name.len() as u64 % 4)).await;
        let mut document = Document::parse(&artifact.payload).expect("the driver gives documents");
        match name {
            "planner" => document.subproblem = Some("what".into()),
            "memory" => {
                let evidence = Evidence { source: "book".into(), text: "so it is".into() };
                document.evidence.push(evidence);
            }
            "verifier" => {
                let status = Support::Supported;
                document.verification = Some(Verification { status, notes: String::new() });
            }
            "evaluator" => document.done = Some(document.verification.is_some()),
            solver => document.draft_answer = Some(solver.into()),
        }
        let payload = document.write().into();
        Outcome { tokens: 100, ..Outcome::done(Artifact { payload, ..artifact }) }
    }
}

impl TaskSource for Many {
    fn training(&self, rng: &mut Rng) -> Result<Task, TaskError> {
        let payload = format!("task {}", rng.below(1000)).into_bytes().into();
        Ok(Task { id: "task".into(), artifact: Artifact { facts: Facts::new(), payload }, expected: None })
    }

    fn evaluation(&self, _: u64) -> Result<Option<Task>, TaskError> {
        Ok(None)
    }

    fn open(&self, _: &Path) -> Result<Task, TaskError> {
        Err(TaskError("it takes no files".into()))
    }

    fn quality(&self, _: &Task, artifact: &Artifact) -> Option<f64> {
        Some(if &artifact.payload[..] == b"solver_b" { 1.0 } else { 0.5 })
    }

    fn identity(&self) -> Vec<u8> {
        vec![]
    }
}

impl Simulator for Many {
    fn agent(&self, _: &str) -> Option<Arc<dyn Agent>> {
        Some(Arc::new(Many))
    }

    fn roles(&self) -> &'static [&'static str] {
        &["cell"]
    }
}

/// Bytes that this process holds in memory.
fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("this bench reads /proc");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).expect("pages") * 4096.0
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// The slope of the least-squares line through these points.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let sxy: f64 = points.iter().map(|(x, y)| (x - mx) * (y - my)).sum();
    sxy / points.iter().map(|(x, _)| (x - mx).powi(2)).sum::<f64>()
}

fn main() {
    let episodes = std::env::args().skip(1).find_map(|n| n.parse().ok()).unwrap_or(100_000);
    let mut team = TEAM.to_owned();
    for cell in CELLS {
        team += &format!("[[agents]]\nname = {cell:?}\nsimulate = \"cell\"\n");
    }
    let team = TeamSpec::parse(&team).unwrap_or_else(|(line, what)| panic!("line {line:?}: {what}"));
    let stage = Stage::new(team, Path::new("."), Some(Arc::new(Many))).expect("the team acts");
    let out = std::env::temp_dir().join(format!("relevo-runs-{}", std::process::id()));
    fs::create_dir_all(&out).expect("a place for the run");
    let session = Session::start(&stage, &out, RunConfig { seed: 1, episodes }).expect("it begins");
    let mut session = session.at_a_time(JOBS.try_into().expect("some"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (began, worked) = (Instant::now(), cpu());
    let (mut tasks, mut calls, mut held) = (0u64, 0, vec![]);
    let flow = runtime.block_on(session.run(|end| {
        tasks += 1;
        calls += end.path.len();
        if tasks.is_multiple_of(episodes / 50) {
            held.push((tasks as f64, resident()));
        }
        ControlFlow::Continue(())
    }));
    assert!(flow.expect("it goes through").is_continue());
    let (seconds, worked) = (began.elapsed().as_secs_f64(), (cpu() - worked).as_secs_f64());
    fs::remove_dir_all(&out).expect("it is ours");
    // What grows at first are tables of values and the room of allocators.
    let late = slope(&held[held.len() / 2..]);
    let mb = |at: usize| held[at].1 / 1e6;
    verdict(&format!(
        "{JOBS} tasks at a time, {tasks} in all: {:.0} tasks/s, {:.0} calls/s, {:.1} us of this thread a call (all of the driver's, the \
         ledger's and the cells' own); {:.1} MB held after a fiftieth, {:.1} at half, {:.1} at the end: {late:.1} bytes more for a task in the \
         second half, of which 8 are its return ({})",
        tasks as f64 / seconds,
        calls as f64 / seconds,
        worked / calls as f64 * 1e6,
        mb(0),
        mb(held.len() / 2),
        mb(held.len() - 1),
        met(late < 64.0),
    ));
}
