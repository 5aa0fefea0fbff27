//! An agent that is a program in any language: [`ProcessAgent::perform`](Agent::perform) starts it once for every call,
//! hands it the artifact, reads one line of reply, and leaves nothing behind.
//!
//! # The contract `relevo.call/v1`
//!
//! The program runs in a fresh private directory, removed after the call. The payload is the file `in`. On stdin comes
//! one line of JSON and then the end of the file; a program that does not need it need not read it:
//!
//! ```json
//! {"schema":"relevo.call/v1","handoff":"12/3/4","agent":"gunzip","operation":"default",
//!  "facts":{"format":"gzip"},"payload":{"path":"in","bytes":1234},"output":"out"}
//! ```
//!
//! (broken in two here for the page). Where the team file says so, `skill` (a name), `model`, `tools` (a list) and
//! `instructions` (the text of the skill card) follow. It may write the new payload as the file `out`, which must be a regular file; no
//! `out` means that the payload stays as it is. It prints one line of JSON on stdout and exits with code 0:
//!
//! ```json
//! {"ok":true,"facts":{"format":"tar"},"private":{"level":9},"tokens":17,"money":0.002,"reward":0.5}
//! ```
//!
//! | key | |
//! |---|---|
//! | `ok` | required; `false` refuses the call, the artifact stays as it was, and `error` says why |
//! | `facts` | laid over the facts of the artifact |
//! | `private` | kept by this agent until the task ends, never handed on |
//! | `tokens` | whole number, 0 if absent |
//! | `money` | what the call cost in the team's currency: a number that is not negative, 0 if absent |
//! | `cached` | whether the answer came from a cache, `false` if absent |
//! | `reward` | finite number, none if absent |
//! | `error` | text, for people; nothing is ever read out of it |
//! | `status` | of a failed call: the status that a service gave, 100 to 599, as in HTTP |
//! | `kind` | of a failed call: `auth`, `quota`, `rate-limit`, `unavailable`, `invalid-request`, `cancelled`, `denied` or `refused`; it counts before `status` |
//! | `retry_after_ms` | of a failed call: after how long a service may be asked again |
//!
//! A failed call without `kind` is told by its `status`: 401 and 403 are `auth`, 402 is `quota`, 429 is `rate-limit`, 408 and
//! 500 to 599 are `unavailable`, 499 is `cancelled`, other numbers from 400 are `invalid-request`. Without both, and with
//! any other status, it is `refused`.
//!
//! Other keys, and other lines on stdout, are refused. stderr is free for messages; its end is kept.
//!
//! # What is promised
//!
//! The program and everything it started in its process group are killed when the call ends, when its time is over, and
//! when the future is dropped, before the drop returns. Their directory goes with them; only one that is being written
//! or read at the moment of the drop goes a moment later.
//!
//! `out` cannot outgrow its limit even while the program runs: on Linux no file that the program writes can
//! (`RLIMIT_FSIZE`), and everywhere `out` is looked at while the program runs. Other files have no limit on their
//! number. Of the environment only the named variables are passed on.
//!
//! This keeps a faulty program from doing harm, not a hostile one: it runs with all the rights of its user, can write
//! elsewhere, and can leave its process group by `setsid`. Put a sandbox into the command for that.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::{
        fs::{OpenOptionsExt, PermissionsExt},
        process::ExitStatusExt,
    },
    path::{self, Path, PathBuf},
    pin::pin,
    process::{ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process_group},
};
use serde::Serialize;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};

use super::{Agent, Failure, OperationCall, Outcome, STDERR_TAIL_BYTES_MAX, reply::Reply};
use crate::{
    artifact::{Artifact, Facts},
    observe::traceparent,
};

pub(super) const SCHEMA: &str = "relevo.call/v1";
pub(crate) const INPUT: &str = "in";
const OUTPUT: &str = "out";

/// How long the pipes may stay open after the program has exited, because something that it started still holds them.
const GRACE: Duration = Duration::from_millis(200);
/// How often `out` is looked at while the program runs.
const WATCH_PERIOD: Duration = Duration::from_millis(50);
/// How long a killed program may take to be gone. Only one that is stuck inside the kernel takes longer than a moment.
const REAP_MAX: Duration = Duration::from_millis(500);

/// The variables that a program sees unless it is told otherwise.
pub const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// An agent that is a program, started once for every call. See the [module](self) for what it must do.
///
/// It needs a tokio runtime with IO and time.
#[derive(Clone, Debug)]
pub struct ProcessAgent {
    /// The program and its arguments. A program with a `/` in its name, and an argument that begins with `./` or `../`,
    /// are paths from [`directory`](Self::directory); a program without one is looked up in `PATH`; any other argument
    /// is passed on as it is.
    pub command: Vec<String>,
    /// Where the paths of the command begin: the folder of the team file. It is not where the program runs.
    pub directory: PathBuf,
    /// The variables that are passed on if they are set. The program sees no others.
    pub environment: Vec<String>,
    /// How long one call may take from the start of the program to its exit.
    pub timeout: Duration,
    /// The longest `out`. On Linux this holds for every file that the program writes.
    pub output_bytes_max: u64,
    /// The longest reply, that is, all of stdout.
    pub reply_bytes_max: u64,
    /// What the program is told with every call.
    pub brief: Brief,
}

/// What a program is told with every call, besides the call: what it should be good at, and with what. Empty parts are not
/// mentioned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Brief {
    /// The name of its skill.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skill: Option<String>,
    /// The model to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The tools that it may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// The text of its skill card.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub instructions: String,
}

impl ProcessAgent {
    /// An agent with one minute for a call, 64 MiB for `out`, 1 MiB for the reply, and the variables [`ENVIRONMENT`].
    pub fn new(command: impl IntoIterator<Item = impl Into<String>>, directory: impl Into<PathBuf>) -> Self {
        ProcessAgent {
            command: command.into_iter().map(Into::into).collect(),
            directory: directory.into(),
            environment: ENVIRONMENT.map(String::from).to_vec(),
            timeout: Duration::from_secs(60),
            output_bytes_max: 64 << 20,
            reply_bytes_max: 1 << 20,
            brief: Brief::default(),
        }
    }

    async fn call(
        &self,
        call: &OperationCall<'_>,
        artifact: &Artifact,
        stderr: &mut Vec<u8>,
    ) -> Result<(Reply, Option<Arc<[u8]>>), Failure> {
        let request = Request::line(call, artifact, &self.brief)?;
        let Exit { status, stdout, output } = self.run(&request, artifact.payload.clone(), stderr).await?;
        if !status.success() {
            return Err(Failure::Crashed { code: status.code(), signal: status.signal() });
        }
        let reply = Reply::parse(&stdout)?;
        let output = if reply.failure.is_none() { output? } else { None };
        Ok((reply, output))
    }

    /// Starts the program once, with `payload` as the file `in` and `request` on its stdin, and waits for its end.
    pub(crate) async fn run(
        &self,
        request: &[u8],
        payload: Arc<[u8]>,
        stderr: &mut Vec<u8>,
    ) -> Result<Exit, Failure> {
        let command = self.command()?;
        let scratch = spawn_blocking(move || scratch_with(&payload)).await;
        let scratch = scratch.map_err(|e| Failure::NotStarted(e.to_string()))??;
        // The start blocks for less than a millisecond. It is not moved to another thread, as it could then not be
        // called back when this future is dropped.
        let mut running = Running::start(command, scratch, self.output_bytes_max)?;

        let mut stdout = Vec::new();
        let ended = running.converse(self, request, &mut stdout, stderr).await;
        let output = running.end(self.output_bytes_max).await;

        let status = ended?;
        // A full `out` comes first: it is why the program was killed or could not write on.
        match output {
            Err(too_long @ Failure::TooLong { .. }) => Err(too_long),
            output => Ok(Exit { status, stdout, output }),
        }
    }

    /// Whether its program can be started, as far as files show; it is not.
    pub fn check(&self) -> Result<(), Failure> {
        let command = self.command()?;
        let program = Path::new(command.as_std().get_program());
        match is_executable(program) {
            true => Ok(()),
            false => Err(Failure::NotStarted(format!(
                "`{}` is no executable file; is it there, and is it executable (chmod +x)?",
                program.display()
            ))),
        }
    }

    /// The command with its paths made absolute, as the program runs elsewhere.
    pub(crate) fn command(&self) -> Result<Command, Failure> {
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(Failure::NotStarted("the command is empty; name a program".into()));
        };
        let directory = path::absolute(&self.directory)
            .map_err(|e| Failure::NotStarted(format!("folder `{}`: {e}", self.directory.display())))?;
        let from_directory = |argument: &String| match argument {
            path if path.starts_with("./") || path.starts_with("../") => directory.join(path).into(),
            other => OsString::from(other),
        };
        let mut command = Command::new(match program {
            path if path.contains('/') => directory.join(path),
            name => in_path(name)?,
        });
        command.args(arguments.iter().map(from_directory));
        command.env_clear();
        command.envs(self.environment.iter().filter_map(|name| Some((name, env::var_os(name)?))));
        command.envs(traceparent().map(|context| ("TRACEPARENT", context)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        Ok(command)
    }
}

#[async_trait]
impl Agent for ProcessAgent {
    async fn perform(&self, call: &OperationCall<'_>, artifact: Artifact) -> Outcome {
        let mut stderr = Vec::new();
        let called = self.call(call, &artifact, &mut stderr).await;
        let outcome = match called {
            Ok((reply, output)) => reply.lay_over(artifact, output),
            Err(failure) => Outcome::failed(artifact, failure),
        };
        Outcome { stderr_tail: tail(&stderr), ..outcome }
    }
}

/// How a program ended, and what it left.
pub(crate) struct Exit {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// The file `out`, if there is one and it may be read.
    pub(crate) output: Result<Option<Arc<[u8]>>, Failure>,
}

/// The absolute path of a program that is named without one. Looked up here, and not by the system: so it can be
/// started without copying this process's memory map first, and the message can say what is missing.
fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

fn in_path(program: &str) -> Result<PathBuf, Failure> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(program))
        .find(|path| is_executable(path));
    found.ok_or_else(|| {
        Failure::NotStarted(format!(
            "there is no program `{program}` in PATH; install it, or write `./{program}` if it is beside the team file"
        ))
    })
}

/// A new private directory with the payload in it.
fn scratch_with(payload: &[u8]) -> Result<TempDir, Failure> {
    let private = fs::Permissions::from_mode(0o700);
    let scratch = tempfile::Builder::new().prefix("relevo-").permissions(private).tempdir();
    let written =
        scratch.and_then(|scratch| fs::write(scratch.path().join(INPUT), payload).map(|()| scratch));
    written.map_err(|e| {
        Failure::NotStarted(format!("no working directory under `{}`: {e}", env::temp_dir().display()))
    })
}

// ---- one running program ----

/// A program, its process group and its directory. Dropping it ends all three.
struct Running {
    child: Child,
    /// The process group, until it has been killed.
    group: Option<Pid>,
    scratch: TempDir,
}

impl Running {
    fn start(mut command: Command, scratch: TempDir, output_bytes_max: u64) -> Result<Self, Failure> {
        let child = spawn(command.current_dir(scratch.path()))?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(pid) = group {
            limit_file_size(pid, output_bytes_max.saturating_add(1));
        }
        Ok(Running { child, group, scratch })
    }

    /// Says `request`, listens on stdout and stderr, and waits for the exit; an error means that the program is to be
    /// killed.
    async fn converse(
        &mut self,
        agent: &ProcessAgent,
        request: &[u8],
        reply: &mut Vec<u8>,
        stderr: &mut Vec<u8>,
    ) -> Result<ExitStatus, Failure> {
        let mut deadline = pin!(sleep(agent.timeout));
        let (Some(mut stdin), Some(mine), Some(errors)) =
            (self.child.stdin.take(), self.child.stdout.take(), self.child.stderr.take())
        else {
            return Err(Failure::NotStarted("its pipes are not connected".into()));
        };
        let send = async move {
            // A program may close stdin unread, so a broken pipe is no fault.
            let _ = stdin.write_all(request).await;
            Ok(())
        };
        let hear = hear_reply(mine, agent.reply_bytes_max, reply);
        let mut pipes = pin!(async { tokio::try_join!(send, hear, keep_tail(errors, stderr)).map(drop) });
        let mut pipes_open = true;

        let mut watch = interval_at(Instant::now() + WATCH_PERIOD, WATCH_PERIOD);
        watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let output = self.scratch.path().join(OUTPUT);
        let status = loop {
            tokio::select! {
                status = self.child.wait() => {
                    break status.map_err(|_| Failure::Crashed { code: None, signal: None })?;
                }
                closed = &mut pipes, if pipes_open => {
                    pipes_open = false;
                    closed?;
                }
                // `limit_file_size` comes a moment after the start, and not on every system.
                _ = watch.tick() => {
                    if fs::symlink_metadata(&output).is_ok_and(|data| data.len() > agent.output_bytes_max) {
                        return Err(output_too_long(agent.output_bytes_max));
                    }
                }
                () = &mut deadline => {
                    let ms = u64::try_from(agent.timeout.as_millis()).unwrap_or(u64::MAX);
                    return Err(Failure::Timeout { ms });
                }
            }
        };
        // What the program wrote before its exit is in the pipes, which close with it unless it left a child behind.
        if pipes_open && let Ok(closed) = timeout(GRACE, pipes).await {
            closed?;
        }
        Ok(status)
    }

    /// Kills what is left, takes `out`, and removes the directory (by the drop at the end of the closure).
    async fn end(mut self, output_bytes_max: u64) -> Result<Option<Arc<[u8]>>, Failure> {
        self.kill();
        let _ = timeout(REAP_MAX, self.child.wait()).await;
        let ended = spawn_blocking(move || read_output(&self.scratch.path().join(OUTPUT), output_bytes_max));
        ended.await.unwrap_or_else(|e| Err(Failure::Garbage(format!("`{OUTPUT}` was not read: {e}"))))
    }

    /// Once only, as the group's number may be given to another one later. Here it is still its own: either the program
    /// has not been waited for, or that was at most [`GRACE`] ago, and the system goes through all numbers before it
    /// comes back to one.
    fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // That the group is gone already is the common case.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Running {
    /// Blocks for a few milliseconds if the call was cancelled, as the directory can be removed only once nobody is
    /// left to write into it.
    fn drop(&mut self) {
        self.kill();
        for _ in 0..REAP_MAX.as_millis() {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        remove(self.scratch.path());
    }
}

/// Another thread that starts a program at this moment may hold a freshly written script open for writing, in its child,
/// until that child's exec; the system then says "text file busy" for an instant.
pub(crate) fn spawn(command: &mut Command) -> Result<Child, Failure> {
    let mut tries_left = 10;
    let error = loop {
        match command.spawn() {
            Ok(child) => return Ok(child),
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && tries_left > 0 => tries_left -= 1,
            Err(e) => break e,
        }
        thread::sleep(Duration::from_millis(3));
    };
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "; is the file there, and the interpreter that its first line names?",
        io::ErrorKind::PermissionDenied => "; is the file executable (chmod +x)?",
        _ => "",
    };
    let program = Path::new(command.as_std().get_program());
    Err(Failure::NotStarted(format!("`{}`: {error}{hint}", program.display())))
}

/// Files that a call keeps open: three pipes, its process, and one for a moment.
const FILES_OF_A_CALL: u64 = 5;
/// Files that are open besides.
const FILES_BESIDES: u64 = 64;

/// Ask the system for as many open files as so many calls at a time need. Returns for how many calls there is room: one
/// more could not be started, and would count as a failure of its agent.
pub fn make_room(calls: usize) -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let wanted = FILES_BESIDES.saturating_add(FILES_OF_A_CALL.saturating_mul(calls as u64));
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|files| files < wanted) {
        let raised = limit.maximum.map_or(wanted, |most| most.min(wanted));
        let before = limit.current.replace(raised);
        if setrlimit(Resource::Nofile, limit).is_err() {
            limit.current = before;
        }
    }
    let room = |files: u64| (files.saturating_sub(FILES_BESIDES) / FILES_OF_A_CALL).max(1) as usize;
    limit.current.map_or(calls, |files| room(files).min(calls))
}

/// Lets the program write no file longer than this; what it has started in its first microseconds escapes, and is left
/// to the watch on `out`.
#[cfg(target_os = "linux")]
pub(crate) fn limit_file_size(pid: Pid, bytes_max: u64) {
    use rustix::process::{Resource, getrlimit, prlimit};
    let mut limit = getrlimit(Resource::Fsize);
    let lower = |old: Option<u64>| Some(old.map_or(bytes_max, |old| old.min(bytes_max)));
    (limit.current, limit.maximum) = (lower(limit.current), lower(limit.maximum));
    // Not allowed for a program that changes its user; the watch stays.
    let _ = prlimit(Some(pid), Resource::Fsize, limit);
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn limit_file_size(_: Pid, _: u64) {}

/// Removes the directory, also if the program made parts of it read-only or something killed is still about to die in it.
fn remove(directory: &Path) {
    for _ in 0..50 {
        match fs::remove_dir_all(directory) {
            Ok(()) => return,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return,
            Err(_) => open_up(directory),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn open_up(directory: &Path) {
    let mut to_open = vec![directory.to_owned()];
    while let Some(directory) = to_open.pop() {
        let _ = fs::set_permissions(&directory, fs::Permissions::from_mode(0o700));
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        // `file_type` does not follow links, so nothing outside is touched.
        to_open.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
}

// ---- what goes in ----

#[derive(Serialize)]
struct Request<'a> {
    schema: &'static str,
    handoff: &'a str,
    agent: &'a str,
    operation: &'a str,
    facts: &'a Facts,
    payload: Payload,
    output: &'static str,
    #[serde(flatten)]
    brief: &'a Brief,
}

#[derive(Serialize)]
struct Payload {
    path: &'static str,
    bytes: usize,
}

impl<'a> Request<'a> {
    fn line(
        call: &'a OperationCall<'_>,
        artifact: &'a Artifact,
        brief: &'a Brief,
    ) -> Result<Vec<u8>, Failure> {
        let request = Request {
            schema: SCHEMA,
            handoff: &call.handoff.0,
            agent: call.agent,
            operation: call.operation,
            facts: &artifact.facts,
            payload: Payload { path: INPUT, bytes: artifact.payload.len() },
            output: OUTPUT,
            brief,
        };
        let mut line = serde_json::to_vec(&request).map_err(|e| Failure::NotStarted(e.to_string()))?;
        line.push(b'\n');
        Ok(line)
    }
}

// ---- what comes back ----

async fn hear_reply(
    stdout: impl AsyncRead + Unpin,
    bytes_max: u64,
    reply: &mut Vec<u8>,
) -> Result<(), Failure> {
    // A pipe that breaks is one that ends; what was heard is judged by its form.
    let _ = stdout.take(bytes_max.saturating_add(1)).read_to_end(reply).await;
    if reply.len() as u64 > bytes_max {
        return Err(Failure::TooLong { what: "the reply on stdout".into(), bytes_max });
    }
    Ok(())
}

async fn keep_tail(mut stderr: impl AsyncRead + Unpin, kept: &mut Vec<u8>) -> Result<(), Failure> {
    loop {
        kept.reserve(STDERR_TAIL_BYTES_MAX);
        if !matches!(stderr.read_buf(kept).await, Ok(1..)) {
            return Ok(());
        }
        kept.drain(..kept.len().saturating_sub(STDERR_TAIL_BYTES_MAX));
    }
}

pub(crate) fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    // A byte that is no text grows to three.
    text[text.ceil_char_boundary(text.len().saturating_sub(STDERR_TAIL_BYTES_MAX))..].to_owned()
}

/// The new payload, if there is one. It is judged before it is opened: nothing but a file of its own is read, so that
/// no link can make a payload out of what lies elsewhere, and no pipe can make us wait.
fn read_output(path: &Path, bytes_max: u64) -> Result<Option<Arc<[u8]>>, Failure> {
    let unreadable = |e: io::Error| Failure::Garbage(format!("`{OUTPUT}` cannot be read: {e}"));
    let data = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        data => data.map_err(unreadable)?,
    };
    if !data.is_file() {
        let kind = if data.is_symlink() { "a symbolic link" } else { "no regular file" };
        return Err(Failure::Garbage(format!("`{OUTPUT}` is {kind}; write a file of its own")));
    }
    if data.len() > bytes_max {
        return Err(output_too_long(bytes_max));
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let mut bytes = Vec::with_capacity(data.len() as usize + 1);
    file.and_then(|file| file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(output_too_long(bytes_max));
    }
    Ok(Some(bytes.into()))
}

fn output_too_long(bytes_max: u64) -> Failure {
    Failure::TooLong { what: "the file `out`".into(), bytes_max }
}
