//! `relevo doctor`: whether all that a team needs is there; without a team, what runs here.

mod machine;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use futures_util::future::{join, join_all};
use relevo::{
    agent::{Failure, process::ProcessAgent},
    model::{Models, NamedModel, environment::Environment, local, probe, provider},
    problems::Problems,
    report::table,
    stage::Stage,
    tasks::FileTasks,
    team::{JudgeSpec, ModelSection, TasksSpec, TeamSpec},
    tool::{ToolServer, ToolServers},
};
use relevo_lm::Model;

use super::{Fault, plain, print};
use crate::world;

/// Find out whether all that a team needs is there: programs, keys, models, tools, tasks, and a place for its runs
///
/// Every model of the file is asked for one word, and every tool server for its tools. Without a team file: which models can
/// be had here, and what runs with them and without.
#[derive(Args)]
pub(crate) struct DoctorArguments {
    /// The team file
    team: Option<PathBuf>,
    /// Folder of its runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
}

/// The longest that a model may take to say a word.
const PROBE_LIMIT: Duration = Duration::from_secs(30);

/// Something that was looked at, and what was found or is to be done.
struct Check {
    what: String,
    state: State,
    found: String,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    There,
    /// Nobody said that it would be there.
    Absent,
    Failed,
}

impl Check {
    fn new(what: impl Into<String>, found: Result<String, impl ToString>) -> Self {
        let (state, found) = match found {
            Ok(found) => (State::There, found),
            Err(e) => (State::Failed, e.to_string()),
        };
        Check { what: what.into(), state, found }
    }

    fn absent(what: impl Into<String>, found: impl Into<String>) -> Self {
        Check { what: what.into(), state: State::Absent, found: found.into() }
    }

    fn failed(&self) -> bool {
        self.state == State::Failed
    }
}

pub(crate) fn doctor(arguments: &DoctorArguments) -> Result<ExitCode, Fault> {
    let runs = Check::new("folder of runs", writable(&arguments.out));
    let (mut checks, next) = match &arguments.team {
        Some(path) => team(path, runs.failed())?,
        None => machine::look()?,
    };
    checks.push(runs);
    let mut rows = vec![["", "what", "found"].map(str::to_owned).to_vec()];
    let failed = checks.iter().filter(|check| check.failed()).count();
    for Check { what, state, found } in checks {
        let word = match state {
            State::There => "ok",
            State::Absent => "-",
            State::Failed => "failed",
        };
        rows.push(vec![word.to_owned(), what, plain(&found)]);
    }
    let summary = match failed {
        0 => String::new(),
        n => format!("{n} of {} failed\n", rows.len() - 1),
    };
    print(&(table(&rows) + &summary + &next))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a team needs, and how to go on; `failed` says whether something else is missing.
fn team(path: &Path, failed: bool) -> Result<(Vec<Check>, String), Fault> {
    let team = match TeamSpec::load(path) {
        Ok(team) => team,
        Err(e) => return Ok((vec![Check::new("team file", Err(e))], String::new())),
    };
    let directory = world::directory(path)?;
    let mut checks = vec![Check::new("team file", Ok::<_, Fault>(format!("{} agents", team.agents.len())))];
    checks.extend(commands(&team, &directory));
    checks.extend(tasks(&team, &directory));
    let (models, tools) = services(&team, &directory)?;
    checks.extend(tools);
    let others_failed = failed || checks.iter().any(Check::failed);
    let models_failed = models.iter().any(Check::failed);
    checks.extend(models);
    let learn = format!("relevo learn {}", path.display());
    let next = match (others_failed, models_failed) {
        (false, false) if !team.has_tasks() => {
            "all is there; serve it, or learn with [tasks], [problems] or [simulate] added\n".to_owned()
        }
        (false, false) => format!("all is there; go on with: {learn}\n"),
        // Its tasks are such as the model in the box can read.
        (false, true) if team.problems.as_ref().is_some_and(|section| section.files.is_empty()) => {
            let (provider, name) = (local::PROVIDER, Model::bundled().name());
            format!("without other models, by the one in the box: {learn} --model {provider}::{name}\n")
        }
        _ => "what runs here all the same: relevo doctor, without a team file\n".to_owned(),
    };
    Ok((checks, next))
}

/// The programs of a team, each once.
fn commands(team: &TeamSpec, directory: &Path) -> Vec<Check> {
    let acting = team.agents.iter().filter_map(|agent| agent.command.as_ref());
    let programs: BTreeSet<&String> = acting.chain(&team.trace.redact).map(|command| &command[0]).collect();
    let check = |program: &String| {
        let found = ProcessAgent::new(vec![program.clone()], directory).check();
        Check::new(format!("program {program}"), found.map(|()| "executable".to_owned()))
    };
    programs.into_iter().map(check).collect()
}

fn tasks(team: &TeamSpec, directory: &Path) -> Option<Check> {
    if let Some(spec) = &team.tasks {
        let found = FileTasks::load(spec, directory);
        return Some(Check::new("tasks", found.map(|_| "readable".to_owned())));
    }
    if let Some(section) = &team.problems {
        let found = Problems::new(section, directory);
        let told = if section.files.is_empty() { "they are generated" } else { "readable" };
        return Some(Check::new("problems", found.map(|_| told.to_owned())));
    }
    let world = relevo_lab::simulator(team.simulate.as_ref()?);
    Some(Check::new("simulated world", world.map(|_| "there".to_owned())))
}

/// Whether models, and tool servers, have their keys and answer.
fn services(team: &TeamSpec, directory: &Path) -> Result<(Vec<Check>, Vec<Check>), Fault> {
    if team.models.is_empty() && team.tools.is_empty() {
        return Ok((vec![], vec![]));
    }
    let environment = match Environment::of(directory) {
        Ok(environment) => environment,
        Err(e) => return Ok((vec![], vec![Check::new("environment", Err(e))])),
    };
    let models = Models::new(&team.models, &environment, u64::from(std::process::id()))?;
    let tools = ToolServers::new(&team.tools, directory, &environment)?;
    let models: Vec<&NamedModel> = models.iter().collect();
    let tools: Vec<&Arc<ToolServer>> = tools.iter().collect();
    let (answers, listed) = world::runtime()?.block_on(join(ask(&models), list(team, &tools)));
    let model = |(model, answer): (&NamedModel, Result<String, Failure>)| {
        let place = place(&model.section, &environment);
        let told = answer.map(|said| format!("{said}; {place}")).map_err(|e| format!("{e}; {place}"));
        Check::new(format!("model {}", model.name), told)
    };
    let server = |(server, answer): (&Arc<ToolServer>, Result<String, String>)| {
        Check::new(format!("tools {}", server.name()), answer)
    };
    let tools = tools.into_iter().zip(listed).map(server);
    Ok((models.into_iter().zip(answers).map(model).collect(), tools.collect()))
}

/// Who serves a model, where, and by which key.
fn place(section: &ModelSection, environment: &Environment) -> String {
    if section.provider == local::PROVIDER {
        return "in the box, no key".to_owned();
    }
    let at = section.endpoint(environment).unwrap_or_else(|| "its own address".to_owned());
    let key = match provider::key_variable(section) {
        None => "no key".to_owned(),
        Some(name) => {
            let set = if environment.get(&name).is_some() { "set" } else { "not set" };
            format!("key in {name} ({set})")
        }
    };
    format!("{} at {at}, {key}", section.provider)
}

/// Ask tool servers for their tools, among which are to be those that the team names.
async fn list(team: &TeamSpec, servers: &[&Arc<ToolServer>]) -> Vec<Result<String, String>> {
    let one = async |server: &&Arc<ToolServer>| {
        let began = Instant::now();
        match server.check(&team.tools_named(server.name())).await {
            Ok(tools) => Ok(format!("{tools}; {} ms", began.elapsed().as_millis())),
            Err(failure) => Err(match server.last_words().trim() {
                "" => failure.to_string(),
                words => format!("{failure}; its last words: {words}"),
            }),
        }
    };
    join_all(servers.iter().map(one)).await
}

/// Ask models whether they are there.
async fn ask(models: &[&NamedModel]) -> Vec<Result<String, Failure>> {
    let one = async |named: &&NamedModel| {
        let began = Instant::now();
        let reply = probe(&*named.model, PROBE_LIMIT).await?;
        let tokens = reply.usage.input + reply.usage.output;
        Ok(format!("{} answers, {} ms, {tokens} tokens", named.section.model, began.elapsed().as_millis()))
    };
    join_all(models.iter().map(one)).await
}

/// Before calls are paid for: whether the models and tools answer by which agents of a team act, and the models that judge.
pub(crate) async fn preflight(stage: &Stage) -> Result<(), Fault> {
    let team = stage.team();
    let acting = team.agents.iter().filter(|agent| agent.acts_by_model());
    let mut names: BTreeSet<&str> = acting.filter_map(|agent| agent.model()).collect();
    if let Some(TasksSpec { judge: JudgeSpec::Relative(section), .. }) = &team.tasks {
        let auditor = section.audit.as_ref().map(|audit| &audit.model);
        names.extend(section.models.iter().chain(auditor).map(String::as_str));
    }
    let models: Vec<&NamedModel> = names.iter().filter_map(|name| stage.models().get(name)).collect();
    let needed = team.servers_needed();
    let tools: Vec<&Arc<ToolServer>> = needed.iter().filter_map(|name| stage.tools().get(name)).collect();
    let (answers, listed) = join(ask(&models), list(team, &tools)).await;
    let models = models.iter().zip(answers).filter_map(|(model, answer)| {
        let failure = answer.err()?;
        Some(format!("model {:?}: {failure}", model.name))
    });
    let tools = tools.iter().zip(listed).filter_map(|(server, answer)| {
        let failure = answer.err()?;
        Some(format!("tools {:?}: {}", server.name(), plain(&failure)))
    });
    let failed: Vec<String> = models.chain(tools).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{}. Nothing was begun; `relevo doctor` looks at everything, and --no-preflight begins all the same",
            failed.join("; ")
        )
        .into()),
    }
}

/// Whether files can be written in a folder, or in that where it would be made.
fn writable(folder: &Path) -> Result<String, String> {
    let there = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".relevo-").tempfile_in(there);
    match file {
        Ok(_) => Ok(format!("{} is writable", there.display())),
        Err(e) => Err(format!("{}: {e}; name another with --out", there.display())),
    }
}
