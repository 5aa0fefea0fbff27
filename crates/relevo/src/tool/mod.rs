//! Tools behind MCP servers: programs that are spoken to over their pipes, and services over HTTP.
//!
//! [`ToolServers`] are those of a team file. A [`ToolServer`] has one `session` with its server, which is opened by the
//! first call, shared by all, opened again by the next call after it broke (not at once if that happens time and again),
//! and ended when the server is dropped. A call that was sent is not sent again, as it may have been done. What came of a
//! call is a [`Found`]; whatever went wrong is a typed [`Failure`], told by statuses and codes and never by what a message
//! says. A [`toolbox`] is what a model may call.

pub mod found;
mod session;
pub mod toolbox;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rmcp::model::{CallToolRequestParams, CallToolResponse};
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout};

use self::{
    found::Found,
    session::{Reach, Session},
};
use crate::{
    agent::{Failure, process::tail},
    model::{TokenUsage, environment::Environment},
    observe::{Asking, Whom},
    team::{ToolSection, nearest},
};

/// The tool servers of a team, by their names.
#[derive(Clone, Debug, Default)]
pub struct ToolServers {
    by_name: BTreeMap<String, Arc<ToolServer>>,
}

/// A tool server of a team file.
pub struct ToolServer {
    name: String,
    section: ToolSection,
    reach: Reach,
    session: tokio::sync::Mutex<Current>,
    /// Sessions that were opened, or tried to be, since anything was answered in one.
    in_vain: AtomicU32,
    /// The end of what its program has said on stderr.
    stderr: Arc<Mutex<Vec<u8>>>,
}

/// The session with a server.
#[derive(Default)]
struct Current {
    open: Option<Arc<Session>>,
    /// When the last one was begun.
    began: Option<Instant>,
}

/// A tool, as its server describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON schema of its arguments.
    pub schema: Value,
}

/// The longest description of a tool that is read, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 4096;
/// The most tools of a server that are looked at.
const TOOLS_MAX: usize = 1000;
/// Sessions in which nothing was answered, after which there is none for a while.
const IN_VAIN_MAX: u32 = 5;
/// How long that is, from the last of them.
const REST: Duration = Duration::from_secs(30);

impl ToolServers {
    /// The servers of these sections of a team file in `directory`. None is spoken to yet.
    pub fn new(
        sections: &BTreeMap<String, ToolSection>,
        directory: &Path,
        environment: &Environment,
    ) -> Result<Self, String> {
        let server = |(name, section): (&String, &ToolSection)| {
            let server = ToolServer {
                name: name.clone(),
                section: section.clone(),
                reach: Reach::of(section, directory, environment)?,
                session: tokio::sync::Mutex::default(),
                in_vain: AtomicU32::new(0),
                stderr: Arc::default(),
            };
            Ok((name.clone(), Arc::new(server)))
        };
        Ok(ToolServers { by_name: sections.iter().map(server).collect::<Result<_, String>>()? })
    }

    /// The server of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<ToolServer>> {
        self.by_name.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ToolServer>> {
        self.by_name.values()
    }
}

impl ToolServer {
    /// Its name in the team file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Call a tool, which may take as long as `limit` and as the section says.
    pub async fn call(
        &self,
        tool: &str,
        arguments: Map<String, Value>,
        limit: Duration,
    ) -> Result<Found, Failure> {
        if !self.section.allows(tool) {
            let what = format!("the tool {tool:?} is not in allow of [tools.{}]", self.name);
            return Err(Failure::Denied(what));
        }
        let asking = Asking::begin(0, || Whom::Tool { server: self.name.clone(), name: tool.to_owned() });
        let called = self.within(limit, async |session| {
            let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
            let response = session.peer().call_tool_once(params).await;
            match response {
                Ok(CallToolResponse::Complete(result)) => Found::read(result, self.section.result_bytes_max)
                    .map_err(|failure| match failure {
                        Failure::Refused(reason) => Failure::Refused(self.reach.presentable(&reason)),
                        other => other,
                    }),
                Ok(_) => {
                    Err(Failure::Refused("it asks for more, or answers later: nobody waits for that".into()))
                }
                Err(e) => Err(self.reach.of_service(e, &session).await),
            }
        });
        let called = called.await;
        asking.end(called.as_ref().map(|_| TokenUsage::default()).map_err(Failure::kind));
        called
    }

    /// What a call costs of which this came.
    pub fn price_of(&self, called: &Result<Found, Failure>) -> f64 {
        match called {
            Ok(_) | Err(Failure::Refused(_) | Failure::TooLong { .. } | Failure::Garbage(_)) => {
                self.section.price
            }
            Err(_) => 0.0,
        }
    }

    /// The tools that may be called, in the order of their names.
    pub async fn tools(&self, limit: Duration) -> Result<Vec<Described>, Failure> {
        let all = self.all_tools(limit).await?;
        Ok(all.iter().filter(|tool| self.section.allows(&tool.name)).cloned().collect())
    }

    /// All tools of the server.
    async fn all_tools(&self, limit: Duration) -> Result<Arc<[Described]>, Failure> {
        self.within(limit, async |session| {
            let read = session.tools.get_or_try_init(async || {
                let mut tools = self.list(&session).await?;
                tools.sort_by(|a, b| a.name.cmp(&b.name));
                Ok(tools.into())
            });
            read.await.cloned()
        })
        .await
    }

    async fn list(&self, session: &Session) -> Result<Vec<Described>, Failure> {
        let (mut tools, mut page) = (vec![], None);
        loop {
            let listed = session.peer().list_tools(page).await;
            let listed = match listed {
                Ok(listed) => listed,
                Err(e) => return Err(self.reach.of_service(e, session).await),
            };
            tools.extend(listed.tools.into_iter().map(|tool| {
                let mut description = tool.description.unwrap_or_default().into_owned();
                description.truncate(description.floor_char_boundary(DESCRIPTION_BYTES_MAX));
                let schema = Value::Object((*tool.input_schema).clone());
                Described { name: tool.name.into_owned(), description, schema }
            }));
            if tools.len() > TOOLS_MAX {
                return Err(Failure::Garbage(format!("it lists more than {TOOLS_MAX} tools")));
            }
            match listed.next_cursor {
                Some(cursor) => {
                    page = Some(rmcp::model::PaginatedRequestParams::default().with_cursor(Some(cursor)))
                }
                None => return Ok(tools),
            }
        }
    }

    /// Whether it answers, and has all the tools of these names; what to say of it.
    pub async fn check(&self, named: &BTreeSet<&str>) -> Result<String, Failure> {
        let tools = self.all_tools(self.section.timeout()).await?;
        let mut names: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
        let allowed = self.section.allow.iter().flatten().map(String::as_str);
        if let Some(absent) = named.iter().copied().chain(allowed).find(|name| !names.contains(name)) {
            return Err(Failure::InvalidRequest(self.no_tool(absent, &names)));
        }
        names.retain(|name| self.section.allows(name));
        Ok(match names.len() {
            0 => "no tools".to_owned(),
            1..=8 => names.join(", "),
            n => format!("{} and {} more", names[..8].join(", "), n - 8),
        })
    }

    /// What to say of a tool that is not there.
    fn no_tool(&self, absent: &str, names: &[&str]) -> String {
        let hint = match nearest(absent, names.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if names.is_empty() => "it has none".to_owned(),
            None => format!("it has {}", names[..names.len().min(20)].join(", ")),
        };
        format!("the server {} has no tool {absent:?}; {hint}", self.name)
    }

    /// The end of what its program has said on stderr.
    pub fn last_words(&self) -> String {
        tail(&self.stderr.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Do something in its session, for as long as `limit` and as the section says.
    async fn within<T>(
        &self,
        limit: Duration,
        act: impl AsyncFnOnce(Arc<Session>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let limit = limit.min(self.section.timeout());
        let acting = async {
            let session = self.session().await?;
            let acted = act(session.clone()).await;
            if !session.is_closed() {
                self.in_vain.store(0, Ordering::Relaxed);
            }
            acted
        };
        let timed_out = |_| Err(Failure::Timeout { ms: limit.as_millis() as u64 });
        timeout(limit, acting).await.unwrap_or_else(timed_out)
    }

    /// Its session, opened if there is none. Whoever comes while it is being opened waits.
    async fn session(&self) -> Result<Arc<Session>, Failure> {
        let mut current = self.session.lock().await;
        if let Some(session) = current.open.as_ref().filter(|session| !session.is_closed()) {
            return Ok(session.clone());
        }
        current.open = None;
        let again_at = current
            .began
            .filter(|_| self.in_vain.load(Ordering::Relaxed) >= IN_VAIN_MAX)
            .map(|began| began + REST);
        if let Some(wait) = again_at.and_then(|at| at.checked_duration_since(Instant::now())) {
            return Err(Failure::Unavailable(format!(
                "{IN_VAIN_MAX} sessions in a row broke before an answer; the next may be opened in {} s",
                wait.as_secs() + 1
            )));
        }
        current.began = Some(Instant::now());
        self.in_vain.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(self.reach.open(&self.stderr).await?);
        current.open = Some(session.clone());
        Ok(session)
    }
}

impl fmt::Debug for ToolServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolServer").field("name", &self.name).field("section", &self.section).finish()
    }
}
