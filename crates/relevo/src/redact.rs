//! Content goes through a program of the team's before it is kept for people. What that program fails on is not kept.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::time::timeout;

use crate::agent::{
    Failure,
    process::{ProcessAgent, limit_file_size, spawn},
};

/// A program that reads content on its standard input and writes what may be kept of it to its standard output.
#[derive(Clone, Debug)]
pub struct Redactor {
    /// Named as the program of an agent is.
    program: ProcessAgent,
}

/// How long it may take for one piece of content.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The most bytes that are kept of one piece of content.
const BYTES_MAX: u64 = 64 << 20;

impl Redactor {
    /// The program of a team whose file lies in `directory`.
    pub fn new(command: Vec<String>, directory: &Path) -> Self {
        Redactor { program: ProcessAgent::new(command, directory) }
    }

    /// Make the file `to` what may be kept of the file `from`; without such a file on an error.
    pub(crate) async fn redact(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut unsure: PathBuf = to.to_owned();
        unsure.as_mut_os_string().push(".tmp");
        let redacted = self.run(from, &unsure).await.and_then(|()| fs::rename(&unsure, to));
        if redacted.is_err() {
            let _ = fs::remove_file(&unsure);
        }
        redacted
    }

    async fn run(&self, from: &Path, to: &Path) -> io::Result<()> {
        let refused = |failure: Failure| io::Error::other(failure.to_string());
        let mut command = self.program.command().map_err(refused)?;
        command.current_dir(&self.program.directory).kill_on_drop(true);
        command.stdin(File::open(from)?).stdout(File::create(to)?).stderr(Stdio::null());
        let mut child = spawn(&mut command).map_err(refused)?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
        if let Some(pid) = group.0 {
            limit_file_size(pid, BYTES_MAX + 1);
        }
        let status = timeout(TIME_MAX, child.wait()).await.map_err(io::Error::from)??;
        drop(group);
        match status.success() && fs::metadata(to)?.len() <= BYTES_MAX {
            true => Ok(()),
            false => Err(io::Error::other("it failed, or wrote too much")),
        }
    }
}

/// What a program has started goes with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
