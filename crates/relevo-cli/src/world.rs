//! Setting up what the verbs share: a team on its stage, policies, files.

use std::path::{Path, PathBuf};

use relevo::{
    judge::audit::{self, Finished},
    stage::Stage,
    team::TeamSpec,
};
use relevo_core::{Rng, ids::AgentId, policy_file::PolicyFile, protocol::Participant};

use crate::cmd::{Fault, say};

/// The team of a file, ready to act.
pub(crate) fn stage(path: &Path) -> Result<Stage, Fault> {
    stage_of(TeamSpec::load(path)?, path)
}

/// The team of a file, ready to act by another model than it says, if one is named.
pub(crate) fn stage_by(path: &Path, model: Option<&str>) -> Result<Stage, Fault> {
    let mut team = TeamSpec::load(path)?;
    if let Some(model) = model {
        team.act_by(model).map_err(|e| format!("--model {model}: {e}"))?;
    }
    stage_of(team, path)
}

/// A team of this file, or one that was made from it, ready to act.
pub(crate) fn stage_of(team: TeamSpec, path: &Path) -> Result<Stage, Fault> {
    let simulator = team.simulate.as_ref().map(relevo_lab::simulator).transpose();
    let simulator = simulator.map_err(|e| format!("{}: {e}", path.display()))?;
    let directory = directory(path)?;
    Ok(Stage::new(team, &directory, simulator).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// The folder of a team file.
pub(crate) fn directory(team: &Path) -> Result<PathBuf, Fault> {
    let directory = team.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(directory.canonicalize().map_err(|e| format!("{}: {e}", directory.display()))?)
}

/// A policy file.
pub(crate) fn policy(path: &Path) -> Result<PolicyFile, Fault> {
    // Whoever names the folder of a run means its policy.
    let path = if path.is_dir() { path.join(POLICY_FILE) } else { path.to_owned() };
    let text = std::fs::read_to_string(&path).map_err(|e| {
        format!("{}: the policy file cannot be read: {e}; `relevo learn` writes one", path.display())
    })?;
    Ok(PolicyFile::from_text(&text).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// Participants of a team that know what a policy file holds.
pub(crate) fn restored(stage: &Stage, policy: &PolicyFile) -> Result<Vec<Participant>, Fault> {
    let mut participants = vec![];
    for ((name, spec), id) in stage.participants(1)?.into_iter().zip((0..).map(AgentId)) {
        let learned = policy.agents.iter().find(|a| a.name == name).ok_or_else(|| {
            let known: Vec<&str> = policy.agents.iter().map(|a| a.name.as_str()).collect();
            format!(
                "the policy knows no agent {name:?} (it knows {}): it is of another team",
                known.join(", ")
            )
        })?;
        let (successors, operations) = stage.columns(id);
        for (then, now) in [(&learned.successors, &successors), (&learned.operations, &operations)] {
            if then != now {
                return Err(format!(
                    "agent {name:?} could choose between {} when the policy was learned, now between {}: learn again",
                    then.join(", "),
                    now.join(", ")
                )
                .into());
            }
        }
        let mut participant = Participant::new(spec, &mut Rng::stream(0, "unused"))?;
        learned.restore(participant.learner_mut())?;
        participants.push(participant);
    }
    Ok(participants)
}

/// The policy in the folder of a run.
pub(crate) const POLICY_FILE: &str = "policy.json";

/// Write a file whole or not at all.
pub(crate) fn write_file(path: &Path, content: impl AsRef<[u8]>) -> Result<(), Fault> {
    use std::io::Write;
    let fail = |e: std::io::Error| format!("{}: it cannot be written: {e}", path.display());
    let mut beside: PathBuf = path.to_owned();
    beside.as_mut_os_string().push(".tmp");
    let mut file = std::fs::File::create(&beside).map_err(fail)?;
    file.write_all(content.as_ref()).and_then(|()| file.sync_all()).map_err(fail)?;
    Ok(std::fs::rename(&beside, path).map_err(fail)?)
}

/// What was made of the tasks measured on, in the folder of a run, while that is still to be judged or kept.
pub(crate) const ATTEMPTS_FILE: &str = "attempts.jsonl";
/// The same with its quality, where the team keeps content: other judges may look at it.
const FINISHED_FILE: &str = "finished.jsonl";

/// Keep what was made of the tasks measured on as content of a run.
pub(crate) async fn keep_finished(stage: &Stage, run: &Path, finished: &[Finished]) -> Result<(), Fault> {
    let (from, to) = (run.join(ATTEMPTS_FILE), run.join(FINISHED_FILE));
    write_file(&from, audit::to_lines(finished))?;
    if let Err(e) = stage.publish(&from, &to).await {
        say!("{}: it is not kept: {e}", to.display());
    }
    let _ = std::fs::remove_file(&from);
    Ok(())
}

/// The folder of a run, which must be there.
pub(crate) fn run(folder: &Path) -> Result<&Path, Fault> {
    if !folder.is_dir() {
        return Err(format!(
            "{}: no such folder; name that of a run, such as runs/TEAM, which `relevo learn` makes",
            folder.display()
        )
        .into());
    }
    Ok(folder)
}

/// Who is at the keyboard, as far as the environment says.
pub(crate) fn user() -> String {
    let names = ["USER", "LOGNAME"].into_iter().filter_map(|name| std::env::var(name).ok());
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

/// Milliseconds since 1970. A clock that stands before that is taken to be late, so that what expires has expired.
pub(crate) fn now() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed().map(|since| since.as_millis());
    since.ok().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(u64::MAX)
}

/// A runtime for calls of programs, on this thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
