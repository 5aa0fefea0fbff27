//! A session with an MCP server, spoken to by `rmcp`: how one is reached, and what each way to fail means.

use std::{
    env,
    error::Error,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use reqwest::Client;
use rmcp::{
    RoleClient, ServiceExt,
    model::{ClientCapabilities, ClientConfig, ErrorCode, ErrorData, Implementation},
    service::{ClientInitializeError, Peer, RunningService, ServiceError},
    transport::{
        StreamableHttpClientTransport,
        streamable_http_client::{StreamableHttpClientTransportConfig, StreamableHttpError},
    },
};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    sync::OnceCell,
    task::JoinHandle,
    time::timeout,
};

use super::Described;
use crate::{
    agent::{
        Failure, STDERR_TAIL_BYTES_MAX,
        process::{ProcessAgent, spawn},
        reply::failure_of_status,
    },
    model::{
        environment::{self, Environment, Key, presentable},
        provider,
    },
    team::ToolSection,
};

/// How long a program may take to end, once it is asked to.
const GRACE: Duration = Duration::from_millis(300);

/// How a server is reached.
pub(super) enum Reach {
    /// As a program, with these variables besides the usual ones.
    Program(ProcessAgent, Vec<(String, String)>),
    /// At an address.
    Http { client: Client, url: String, access: Access },
}

/// How a server is to know who asks.
pub(super) enum Access {
    /// It need not.
    Open,
    /// By the key in the variable of this name, if it has one.
    Key(String, Option<Key>),
}

impl Reach {
    /// As a section of a team file in `directory` says.
    pub(super) fn of(
        section: &ToolSection,
        directory: &Path,
        environment: &Environment,
    ) -> Result<Self, String> {
        if let Some(command) = &section.command {
            let variable = |name: &String| Some((name.clone(), environment.get(name)?));
            let variables = section.environment.iter().filter_map(variable).collect();
            return Ok(Reach::Program(ProcessAgent::new(command.clone(), directory), variables));
        }
        let access = match &section.key {
            None => Access::Open,
            Some(name) => Access::Key(name.clone(), environment.key(name)),
        };
        let url = section.url.clone().unwrap_or_default();
        Ok(Reach::Http { client: provider::http()?, url, access })
    }

    /// Open a session; what a program says on stderr goes to `stderr`.
    pub(super) async fn open(&self, stderr: &Arc<Mutex<Vec<u8>>>) -> Result<Session, Failure> {
        let us = Implementation::new("relevo", env!("CARGO_PKG_VERSION"));
        let us = ClientConfig::new(ClientCapabilities::default(), us);
        let tools = OnceCell::new();
        match self {
            Reach::Program(agent, variables) => {
                let (mut program, stdin, stdout) = Program::start(agent, variables, stderr)?;
                match us.serve((stdout, stdin)).await {
                    Ok(service) => {
                        let program = Some(tokio::sync::Mutex::new(program));
                        Ok(Session { service, program, tools })
                    }
                    Err(
                        ClientInitializeError::ConnectionClosed(_)
                        | ClientInitializeError::TransportError { .. },
                    ) => Err(program.ended().await),
                    Err(e) => Err(self.of_opening(e)),
                }
            }
            Reach::Http { client, url, access } => {
                let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
                match access {
                    Access::Key(_, Some(key)) => config = config.auth_header(key.reveal()),
                    Access::Key(name, None) => return Err(Failure::Unauthorised(environment::missing(name))),
                    Access::Open => {}
                }
                let transport = StreamableHttpClientTransport::with_client(client.clone(), config);
                let service = us.serve(transport).await.map_err(|e| self.of_opening(e))?;
                Ok(Session { service, program: None, tools })
            }
        }
    }

    fn of_opening(&self, error: ClientInitializeError) -> Failure {
        use ClientInitializeError as E;
        match error {
            E::TransportError { error, .. } => self.of_transport(&*error.error),
            E::JsonRpcError(error) => self.of_protocol(&error),
            E::ConnectionClosed(_) | E::Cancelled => lost(),
            _ => garbage("it does not begin a session as MCP says"),
        }
    }

    /// What an error in a session means.
    pub(super) async fn of_service(&self, error: ServiceError, session: &Session) -> Failure {
        match error {
            ServiceError::McpError(error) => self.of_protocol(&error),
            ServiceError::TransportSend(error) if session.program.is_none() => {
                self.of_transport(&*error.error)
            }
            ServiceError::TransportSend(_) | ServiceError::TransportClosed => match &session.program {
                Some(program) => program.lock().await.ended().await,
                None => lost(),
            },
            ServiceError::Cancelled { .. } => Failure::Cancelled("the session was closed".to_owned()),
            ServiceError::Timeout { timeout } => Failure::Timeout { ms: timeout.as_millis() as u64 },
            _ => garbage("it is not of the form that MCP gives it"),
        }
    }

    /// What an error of the protocol means, by its code.
    fn of_protocol(&self, error: &ErrorData) -> Failure {
        let said = format!("code {}: {}", error.code.0, self.presentable(&error.message));
        match error.code {
            ErrorCode::PARSE_ERROR | ErrorCode::INVALID_REQUEST | ErrorCode::METHOD_NOT_FOUND => {
                Failure::InvalidRequest(said)
            }
            ErrorCode::INVALID_PARAMS | ErrorCode::RESOURCE_NOT_FOUND => Failure::InvalidRequest(said),
            ErrorCode::INTERNAL_ERROR => Failure::Unavailable(said),
            _ => Failure::Refused(said),
        }
    }

    /// What an error of a connection means.
    fn of_transport(&self, error: &(dyn Error + 'static)) -> Failure {
        use StreamableHttpError as E;
        match error.downcast_ref::<E<reqwest::Error>>() {
            Some(E::AuthRequired(_)) => self.of_status(401, None),
            Some(E::InsufficientScope(_)) => self.of_status(403, None),
            Some(E::HttpStatus(e)) => self.of_status(e.status, e.retry_after.as_deref()),
            Some(E::Client(e)) if e.is_connect() => {
                Failure::Unavailable("no connection can be made".to_owned())
            }
            Some(E::Client(e)) if e.is_builder() => {
                let what = "it cannot be sent; is there anything but letters, digits and signs in the key?";
                Failure::InvalidRequest(what.to_owned())
            }
            Some(E::UnexpectedServerResponse(what)) => match composed_status(what) {
                Some(status) => self.of_status(status, None),
                None => garbage("it is not of the form that MCP gives it"),
            },
            Some(E::UnexpectedContentType(_) | E::Deserialize(_) | E::Sse(_)) => {
                garbage("it is not of the form that MCP gives it")
            }
            Some(E::ResponseBodyTooLarge { max_size }) => {
                Failure::TooLong { what: "the service's answer".into(), bytes_max: *max_size as u64 }
            }
            _ => lost(),
        }
    }

    fn of_status(&self, status: u16, retry_after: Option<&str>) -> Failure {
        let said = match (self, status) {
            (Reach::Http { access: Access::Key(name, _), .. }, 401 | 403) => {
                format!("status {status}; look at the key in {name}")
            }
            (_, 401 | 403) => format!("status {status}; no key was sent: name its variable by key = \"...\""),
            _ => format!("status {status}"),
        };
        let seconds = retry_after.and_then(|after| after.trim().parse().ok());
        let wait = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        failure_of_status(status, said, wait.map(|wait| wait.as_millis() as u64))
    }

    /// What a server says, as a failure may repeat it: without the key that it was sent.
    pub(super) fn presentable(&self, text: &str) -> String {
        match self {
            Reach::Http { access: Access::Key(_, key), .. } => presentable(text, key.as_ref()),
            _ => presentable(text, None),
        }
    }
}

/// The status in an error text that `rmcp` composes itself, which is all that it keeps of a refusal without a challenge:
/// `HTTP 401 Unauthorized: ` and the body.
fn composed_status(text: &str) -> Option<u16> {
    text.strip_prefix("HTTP ")?.get(..3)?.parse().ok()
}

fn lost() -> Failure {
    Failure::Unavailable("the connection was lost before an answer".to_owned())
}

fn garbage(what: &str) -> Failure {
    Failure::Garbage(format!("the server's answer: {what}"))
}

/// A session that was opened. Dropping it ends it, and its program.
pub(super) struct Session {
    service: RunningService<RoleClient, ClientConfig>,
    program: Option<tokio::sync::Mutex<Program>>,
    /// All tools, once they were asked for.
    pub(super) tools: OnceCell<Arc<[Described]>>,
}

impl Session {
    pub(super) fn peer(&self) -> &Peer<RoleClient> {
        self.service.peer()
    }

    /// Whether nothing can be called in it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.peer().is_transport_closed()
    }
}

/// A server that is a program, with its process group. Dropping it ends both.
struct Program {
    child: Child,
    /// The process group, until it has been killed.
    group: Option<Pid>,
    /// Reads what it says on stderr.
    listening: JoinHandle<()>,
}

impl Program {
    fn start(
        agent: &ProcessAgent,
        variables: &[(String, String)],
        stderr: &Arc<Mutex<Vec<u8>>>,
    ) -> Result<(Self, ChildStdin, ChildStdout), Failure> {
        let mut command = agent.command()?;
        let directory: PathBuf = match agent.directory.as_os_str().is_empty() {
            true => env::current_dir().unwrap_or_default(),
            false => agent.directory.clone(),
        };
        // It outlives the call that it is started for.
        command.env_remove("TRACEPARENT");
        command.current_dir(directory).envs(variables.iter().map(|(name, value)| (name, value)));
        let mut child = spawn(&mut command)?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        let (Some(stdin), Some(stdout), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::NotStarted("its pipes are not connected".into()));
        };
        stderr.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let listening = tokio::spawn(keep_tail(errors, stderr.clone()));
        Ok((Program { child, group, listening }, stdin, stdout))
    }

    /// How it ended that speaks no more.
    async fn ended(&mut self) -> Failure {
        match timeout(GRACE, self.child.wait()).await {
            Ok(Ok(status)) => {
                // Its last words, unless a program that it has started still holds the pipe.
                if !self.listening.is_finished() {
                    let _ = timeout(GRACE, &mut self.listening).await;
                }
                Failure::Crashed { code: status.code(), signal: status.signal() }
            }
            _ => Failure::Unavailable("it has closed its output".to_owned()),
        }
    }
}

impl Drop for Program {
    /// Asks it to end, and blocks for a moment until it has; then whatever is left of its group is killed. The group's
    /// number is still its own, as in a call of a program.
    fn drop(&mut self) {
        let Some(group) = self.group.take() else { return };
        let _ = kill_process_group(group, Signal::TERM);
        for _ in 0..GRACE.as_millis() {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.try_wait();
    }
}

async fn keep_tail(mut stderr: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut piece = [0; STDERR_TAIL_BYTES_MAX];
    while let Ok(n @ 1..) = stderr.read(&mut piece).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&piece[..n]);
        let excess = kept.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
        kept.drain(..excess);
    }
}
