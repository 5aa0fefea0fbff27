//! `run.json`: what a run was made from, so that it can be explained long after.

use std::path::{Path, PathBuf};

use relevo::{learn::RunConfig, stage::Stage, trace::Cast};
use serde::{Deserialize, Serialize};

use crate::{
    cmd::Fault,
    world::{self, write_file},
};

/// Name and version of the form of `run.json`.
const SCHEMA: &str = "relevo.run-info/v1";
/// Its name in the folder of a run.
pub(crate) const INFO_FILE: &str = "run.json";

/// What a run was made from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunInfo {
    /// [`SCHEMA`].
    schema: String,
    /// Version of the program that began it or took it up last.
    version: String,
    /// The team file.
    pub(crate) team_file: PathBuf,
    /// The seed.
    seed: u64,
    /// Tasks asked for.
    episodes: u64,
    /// The names that its records stand for.
    pub(crate) cast: Cast,
}

impl RunInfo {
    /// Write down what the run in the folder `out` is made from.
    pub(crate) fn write(out: &Path, team_file: &Path, stage: &Stage, config: RunConfig) -> Result<(), Fault> {
        let team_file = std::path::absolute(team_file)?;
        let info = RunInfo {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            team_file,
            seed: config.seed,
            episodes: config.episodes,
            cast: Cast::of(stage)?,
        };
        write_file(&out.join(INFO_FILE), serde_json::to_string_pretty(&info)? + "\n")
    }

    /// What is known of the run in a folder; nothing of one that an older program began.
    pub(crate) fn read(run: &Path) -> Result<Option<Self>, Fault> {
        let path = run.join(INFO_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{}: it cannot be read: {e}", path.display()).into()),
        };
        let info: RunInfo = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        match info.schema == SCHEMA {
            true => Ok(Some(info)),
            false => Err(format!(
                "{}: its schema is {:?}; this program reads {SCHEMA:?}",
                path.display(),
                info.schema
            )
            .into()),
        }
    }
}

/// The names that the records of a run stand for: as they are written down, or those of its policy.
pub(crate) fn cast(run: &Path) -> Result<Cast, Fault> {
    if let Some(info) = RunInfo::read(run)? {
        return Ok(info.cast);
    }
    Ok(Cast::of_policy(&world::policy(run)?))
}
