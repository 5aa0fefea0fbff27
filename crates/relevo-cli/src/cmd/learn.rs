//! `relevo learn`: run episodes, learn, compare, report.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal,
    num::NonZeroUsize,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use relevo::{
    agent::process,
    approval::{self, Approvals, Listed, Standing},
    evaluate::{Arm, Measured, Walk, evaluate},
    learn::{BrokenOff, EpisodeEnd, LEDGER_FILE, RunConfig, Session},
    picture,
    report::{self, Report},
    stage::Stage,
    stop::{self, StopOrder},
    team::TeamSpec,
};
use relevo_core::{
    ids::AgentId,
    record::Table,
    warm::{Caps, Drift, WarmStart, drift},
};

use super::{
    Fault, doctor, plain, print,
    report::{SESSION_FILE, write_session},
};
use crate::{
    info::RunInfo,
    telemetry::{MetricsOption, OtlpOption},
    world::{self, POLICY_FILE, write_file},
};

/// Let a team learn who should act next, and compare what it learned with fixed workflows
///
/// Leaves in its folder: the ledger (every decision and why), the policy, a report, and three pictures.
#[derive(Args)]
pub(crate) struct LearnArguments {
    /// The team file
    team: PathBuf,
    /// Episodes to learn from [default: as the team file says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    episodes: Option<u64>,
    /// Seed of everything random [default: 1]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Folder of the run [default: runs/TEAM, or the next free runs/TEAM-2, -3, ...]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run in the folder (by default the newest of the team) where it was left; no call that came back
    /// is made again
    #[arg(long)]
    resume: bool,
    /// Begin with what this policy says of the same choices, as priors that own outcomes can outvote: a policy file, or
    /// the folder of a run
    #[arg(long, value_name = "POLICY", conflicts_with = "resume")]
    from: Option<PathBuf>,
    /// The most visits that such a prior counts as; of another version of a choice, a quarter of it
    #[arg(long, value_name = "N", default_value = "20", requires = "from")]
    from_cap: u32,
    /// Tasks before the team at a time [default: the team file's, or 1]. With more than one, and without rounds in the team
    /// file, the order in which calls come back is not the seed's to say
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    otlp: OtlpOption,
    #[command(flatten)]
    metrics: MetricsOption,
    /// Let the agents act by this model in place of those of the team file: PROVIDER::NAME, or the NAME of one of OpenAI's
    /// or of whoever serves at OPENAI_BASE_URL
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Begin without asking every model and tool server first whether it answers
    #[arg(long)]
    no_preflight: bool,
}

pub(crate) fn learn(arguments: &LearnArguments) -> Result<ExitCode, Fault> {
    let stage = world::stage_by(&arguments.team, arguments.model.as_deref())?;
    let jobs = arguments.jobs.or(stage.team().run.jobs).unwrap_or(NonZeroUsize::MIN);
    let room = if stage.is_external() { process::make_room(jobs.get()) } else { jobs.get() };
    if room < jobs.get() {
        return Err(format!(
            "{jobs} tasks at a time need more open files than this process may have: raise that (ulimit -n), or use --jobs \
             {room}"
        )
        .into());
    }
    let out = folder(arguments, stage.team())?;
    let lookout = arguments.otlp.begin(&arguments.team)?.serving(&arguments.metrics, stage.team())?;
    let stage = lookout.observe(stage, lookout.origin(run_name(&out)))?;
    let runtime = world::runtime()?;
    if !arguments.no_preflight {
        runtime.block_on(doctor::preflight(&stage))?;
    }
    let (session, done_before) = if arguments.resume {
        let (session, dropped) = Session::resume(&stage, &out, arguments.seed, arguments.episodes)?;
        let done = session.episodes_done();
        let under_way = match session.open() {
            0 => String::new(),
            n => format!(", {n} under way"),
        };
        say!("resuming {} after {done} of {} episodes{under_way}", out.display(), session.config().episodes);
        if dropped > 0 {
            say!("({dropped} bytes of a record that was being written were dropped)");
        }
        (session.at_a_time(jobs), done)
    } else {
        std::fs::create_dir_all(&out)
            .map_err(|e| format!("{}: the folder cannot be made: {e}", out.display()))?;
        let episodes = arguments.episodes.unwrap_or(stage.team().run.episodes);
        let config = RunConfig { seed: arguments.seed.unwrap_or(1), episodes };
        let policy = arguments.from.as_ref().map(|path| world::policy(path)).transpose()?;
        let mut session = Session::start(&stage, &out, config)?.at_a_time(jobs);
        if let Some(policy) = policy {
            let caps = Caps { same: arguments.from_cap, version: arguments.from_cap / 4 };
            let WarmStart { same, versions, dropped, .. } = session.warm_start(&policy, caps)?;
            say!(
                "warm start from {:?}: {same} choices taken over, {versions} from another version, {dropped} no longer there",
                policy.source.team
            );
        }
        (session, 0)
    };
    // Also of a run that is taken up: it may have been killed before it had come to this.
    RunInfo::write(&out, &arguments.team, &stage, session.config())?;
    let RunConfig { seed, episodes } = session.config();
    say!("{}: {episodes} episodes, seed {seed}, into {}", stage.team().name, out.display());

    let stop = Arc::new(AtomicBool::new(false));
    let called_off = runtime.spawn(interrupt(stop.clone()));
    let mut session = session.heed(stop.clone());
    let mut live = Live::new(stage.team(), episodes, done_before);
    let started = Instant::now();
    let asked = runtime.spawn(tell_of_questions(out.clone()));
    let run = session.run(|end| {
        live.episode(end);
        ControlFlow::Continue(())
    });
    // A run that is dropped ends the programs that it has called.
    let flow = runtime.block_on(async {
        tokio::select! {
            flow = run => Some(flow),
            _ = called_off => None,
        }
    });
    asked.abort();
    live.finish();
    let (team, run) = (arguments.team.display(), out.display());
    let again = format!("Go on with:\n  relevo learn {team} --resume --out {run}");
    let Some(flow) = flow else {
        say!("stopped at once; calls under way were called off, and will be made again. {again}");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let flow = flow?;
    if session.content_dropped() > 0 {
        let dropped = session.content_dropped();
        say!(
            "{dropped} pieces of content were dropped: redaction failed on them, or they could not be written"
        );
    }
    let policy = session.policy();
    write_file(&out.join(POLICY_FILE), policy.to_text())?;
    if flow.is_break() {
        let done = session.episodes_done();
        let code = match session.broken_off() {
            Some(BrokenOff::Ordered(order)) => {
                say_ordered(order, &format!("after {done} of {episodes} episodes"), &out, &again);
                STOPPED
            }
            Some(BrokenOff::Guarded(reason)) => {
                say!(
                    "stopped after {done} of {episodes} episodes, as [guards] say: {reason}. Raise that limit, and {}",
                    again.to_lowercase()
                );
                STOPPED
            }
            Some(BrokenOff::Asked) | None => {
                if session.waiting() > 0 {
                    say_waiting(session.waiting(), &out);
                }
                say!("stopped after {done} of {episodes} episodes; nothing learned is lost. {again}");
                INTERRUPTED
            }
        };
        return Ok(ExitCode::from(code));
    }
    let learning = started.elapsed();
    tell_of_drift(&stage, &session);
    if report(&runtime, &stage, &session, &out, &stop)?.is_break() {
        if let Some(order) = stop::standing(&out) {
            say_ordered(&order, "while measuring", &out, &again);
            return Ok(ExitCode::from(STOPPED));
        }
        say!("interrupted while measuring; the learned policy is written. Measure again with --resume");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    say!(
        "learned in {:.1} s; ledger {:.1} MB. Ask why: relevo explain {}",
        learning.as_secs_f64(),
        session.ledger_bytes() as f64 / 1e6,
        out.display()
    );
    Ok(ExitCode::SUCCESS)
}

/// How the learned team did one task of each kind, from the first word to the last.
fn conversations(stage: &Stage, learned: &Arm) -> String {
    let mut kinds: BTreeMap<&str, &Walk> = BTreeMap::new();
    for walk in learned.walks.iter().filter(|walk| walk.concluded) {
        kinds.entry(&walk.start).or_insert(walk);
    }
    let mut out = String::new();
    for (kind, walk) in kinds.into_iter().take(CONVERSATIONS) {
        let agents: Vec<&str> = walk.turns.iter().map(|turn| stage.team().agent_name(turn.agent)).collect();
        let came = match walk.quality {
            Some(quality) if quality >= 1.0 => "right",
            Some(_) => "wrong",
            None => "not judged",
        };
        let text = String::from_utf8_lossy(&walk.artifact.payload);
        out += &format!("{kind}, task {}: {}, {came}\n", walk.task, agents.join(" → "));
        text.lines().for_each(|line| out += &format!("    {}\n", plain(line)));
        out.push('\n');
    }
    out
}

/// The most conversations that are shown.
const CONVERSATIONS: usize = 3;

fn report(
    runtime: &tokio::runtime::Runtime,
    stage: &Stage,
    session: &Session<'_>,
    out: &Path,
    stop: &AtomicBool,
) -> Result<ControlFlow<()>, Fault> {
    let bar = ProgressBar::new_spinner();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    let learners = session.participants().iter().map(|p| p.learner()).collect();
    let mut guard = session.guard().clone();
    let evaluation = evaluate(stage, &mut guard, learners, session.usual(), |arm| {
        bar.tick();
        bar.set_message(format!("measuring {arm}"));
    });
    let measured = runtime.block_on(async {
        tokio::select! {
            measured = evaluation => measured.map(Some),
            () = until(stop, out) => Ok(None),
        }
    })?;
    bar.finish_and_clear();
    let Some(Measured { arms, judges }) = measured else { return Ok(ControlFlow::Break(())) };
    let report = Report::new(stage.team(), session.config().seed, session.episodes_done(), &arms);
    write_file(&out.join("report.json"), report.to_json())?;
    let text = report.to_text();
    write_file(&out.join("report.txt"), &text)?;
    let diagram = report::diagram(stage.team(), &report, &arms[0]);
    write_file(&out.join("handoffs.svg"), picture::diagram::svg(&diagram))?;
    let map = report::decision_map(stage, &arms[0]);
    write_file(&out.join("decisions.svg"), picture::map::svg(&map))?;
    let curve = report::curve(stage.team(), session.returns(), &report);
    write_file(&out.join("learning.svg"), &picture::curve::svg(&curve)?)?;
    write_session(out)?;
    print(&format!("\n{text}\n"))?;
    // Generated problems are nobody's secret.
    if stage.team().problems.is_some() {
        print(&conversations(stage, &arms[0]))?;
    }
    if judges.groups > 0 {
        say!("{}", judges.told());
    }
    let finished = arms.iter().flat_map(|arm| arm.walks.iter().filter_map(|walk| walk.finished(&arm.name)));
    let finished: Vec<_> = finished.collect();
    if stage.team().trace.content && !finished.is_empty() {
        runtime.block_on(world::keep_finished(stage, out, &finished))?;
    }
    let texts = [POLICY_FILE, LEDGER_FILE, "report.json", "report.txt"];
    let pictures = ["handoffs.svg", "decisions.svg", "learning.svg", SESSION_FILE];
    let files: Vec<&str> = texts.into_iter().chain(pictures).collect();
    say!("in {}: {}", out.display(), files.join(", "));
    Ok(ControlFlow::Continue(()))
}

/// Name the priors that own outcomes speak against.
fn tell_of_drift(stage: &Stage, session: &Session<'_>) {
    for (participant, id) in session.participants().iter().zip((0..).map(AgentId)) {
        let (successors, operations) = stage.columns(id);
        for (table, names) in [(Table::Successors, successors), (Table::Operations, operations)] {
            let Some(graph) = participant.learner().graph(table) else { continue };
            for Drift { signature, action, prior, mean, standard_error, visits } in drift(graph) {
                let situation = session.names().get(&signature).map_or("?", String::as_str);
                let choice = names.get(action.index()).map_or("?", String::as_str);
                say!(
                    "drift: {choice} at {situation} was worth {prior:.3}, and is {mean:.3} ± {:.3} in {visits} visits since",
                    1.96 * standard_error
                );
            }
        }
    }
}

/// The exit code of a run that a guard or an order has stopped.
const STOPPED: u8 = 3;

/// The exit code of a run that Ctrl-C has ended.
pub(super) const INTERRUPTED: u8 = 130;

fn say_ordered(order: &StopOrder, when: &str, out: &Path, again: &str) {
    let [by, reason] = [&order.by, &order.reason].map(|text| plain(text));
    let run = out.display();
    say!("stopped by {by} {when}: {reason}. Lift that with:\n  relevo stop {run} --lift\n{again}");
}

fn say_waiting(calls: usize, out: &Path) {
    let calls = if calls == 1 { "1 call waits".to_owned() } else { format!("{calls} calls wait") };
    say!("{calls} for approval: relevo approvals list {}", out.display());
}

/// Say that people are asked, whenever there are more questions than before.
pub(super) async fn tell_of_questions(out: PathBuf) {
    let (approvals, folder) = (Approvals::of(&out), out.join(approval::FOLDER));
    let (mut before, mut seen) = (0, None);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Every question and every answer changes the folder.
        let changed = std::fs::metadata(&folder).and_then(|data| data.modified()).ok();
        if changed == seen {
            continue;
        }
        seen = changed;
        let is_pending = |l: &&Listed| l.standing == Standing::Pending;
        let pending = approvals.list(world::now()).map_or(0, |all| all.iter().filter(is_pending).count());
        if pending > before {
            say_waiting(pending, &out);
        }
        before = pending;
    }
}

/// Until the run is to stop, by this process or by another one.
pub(super) async fn until(stop: &AtomicBool, out: &Path) {
    while !stop.load(Ordering::Relaxed) && !stop::is_ordered(out) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The first Ctrl-C ends the run once the calls under way have come back, the second at once.
pub(super) async fn interrupt(stop: Arc<AtomicBool>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        stop.store(true, Ordering::Relaxed);
        if tokio::signal::ctrl_c().await.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// What a run is called where it is told of: as its folder.
pub(super) fn run_name(out: &Path) -> String {
    out.file_name().map_or("run".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The folder of the run: given, or under `runs/`.
fn folder(arguments: &LearnArguments, team: &TeamSpec) -> Result<PathBuf, Fault> {
    let has_run = |path: &Path| path.join(LEDGER_FILE).exists();
    let named = |n: u32| match n {
        1 => Path::new("runs").join(&team.name),
        n => Path::new("runs").join(format!("{}-{n}", team.name)),
    };
    match (&arguments.out, arguments.resume) {
        (Some(out), false) if has_run(out) => Err(format!(
            "{} already holds a run: go on with it by --resume, or choose another folder with --out",
            out.display()
        )
        .into()),
        (Some(out), true) if !has_run(out) => {
            Err(format!("{} holds no run to resume; leave --resume out to begin one", out.display()).into())
        }
        (Some(out), _) => Ok(out.clone()),
        (None, false) => Ok((1..).map(named).find(|path| !has_run(path)).expect("some number is free")),
        (None, true) => (1..).map(named).take_while(|path| has_run(path)).last().ok_or_else(|| {
            format!(
                "there is no run of {:?} under runs/ to resume; leave --resume out to begin one",
                team.name
            )
            .into()
        }),
    }
}

/// The live view: progress, mean return, current workflow.
struct Live<'t> {
    team: &'t TeamSpec,
    bar: ProgressBar,
    recent: VecDeque<f64>,
    sum: f64,
    workflow: String,
    said: Instant,
    tenth: u64,
    episodes: u64,
}

/// Episodes over which the live view averages.
const RECENT: usize = 200;

impl<'t> Live<'t> {
    fn new(team: &'t TeamSpec, episodes: u64, done: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(episodes), ProgressDrawTarget::stderr_with_hz(8));
        let style = "{bar:24} {pos}/{len} {per_sec}  {eta} left  {msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("the template is constant"));
        bar.set_position(done);
        bar.reset_eta();
        let (recent, workflow) = (VecDeque::with_capacity(RECENT), String::new());
        Live { team, bar, recent, sum: 0.0, workflow, said: Instant::now(), tenth: 0, episodes }
    }

    fn episode(&mut self, end: &EpisodeEnd) {
        self.bar.inc(1);
        self.sum += end.episode_return;
        self.recent.push_back(end.episode_return);
        if self.recent.len() > RECENT {
            self.sum -= self.recent.pop_front().unwrap_or(0.0);
        }
        if self.said.elapsed() < Duration::from_millis(125) && end.episode + 1 < self.episodes {
            return;
        }
        self.said = Instant::now();
        if end.greedy || self.workflow.is_empty() {
            let mut names: Vec<&str> = end.path.iter().map(|a| self.team.agent_name(*a)).collect();
            names.push(end.stop.word());
            self.workflow = names.join(" → ");
        }
        let mean = self.sum / self.recent.len() as f64;
        let message = format!("return {mean:.3}  {}", self.workflow);
        // Where nobody watches a terminal, a line every tenth of the way.
        let tenth = (end.episode + 1) * 10 / self.episodes;
        if !std::io::stderr().is_terminal() && tenth > self.tenth {
            self.tenth = tenth;
            say!("episode {} of {}: {message}", end.episode + 1, self.episodes);
        }
        self.bar.set_message(message);
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
