use std::{sync::Arc, time::Duration};

use a2a::{
    A2AError, AgentCard, CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest, GetTaskPushNotificationConfigRequest, GetTaskRequest,
    ListTaskPushNotificationConfigsRequest, ListTaskPushNotificationConfigsResponse, ListTasksRequest,
    ListTasksResponse, SendMessageRequest, SendMessageResponse, StreamResponse, SubscribeToTaskRequest, Task,
    TaskPushNotificationConfig, TypedDetail, error_code, errordetails::PROTOCOL_DOMAIN,
};
use a2a_server::{RequestHandler, ServiceParams, pagination::resolve_page_size};
use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use reqwest::Url;

use super::{
    admit::{Gate, asker, later},
    follow::Follow,
};
use crate::{
    door::{Answer, Host, Refusal, Request},
    ids::{PeerId, TaskId},
    store::{Filter, PushRow, TaskRow, TaskState},
    wire::{self, Incoming},
};

/// In how many places the owner of a task may want to be told of its end.
const PUSHES_MAX: usize = 8;

/// The longest wish to be told, in bytes of JSON.
const PUSH_BYTES_MAX: usize = 4_096;

/// The door of one agent: the operations of A2A, in the name of whoever was admitted.
pub(crate) struct Door {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) agent: String,
    pub(crate) card: AgentCard,
}

/// What a message has led to.
enum Sent {
    Task(Box<TaskRow>),
    Noted(a2a::Message),
}

impl Door {
    async fn take(&self, peer: PeerId, request: &SendMessageRequest) -> Result<Sent, A2AError> {
        let now_ms = (self.gate.clock)();
        let incoming = match wire::incoming(&self.agent, request, &self.gate.limits.wire, now_ms) {
            Ok(incoming) => incoming,
            Err(error) => {
                self.host.ask(peer, Request::Count(error.word, 1)).await;
                if error.is_transient() {
                    return Err(later(error.to_string()));
                }
                return Err(fault(error_code::INVALID_PARAMS, error.word, error.to_string()));
            }
        };
        match incoming {
            Incoming::Outcome(note) => match self.host.ask(peer, Request::Outcome(note)).await {
                Answer::Noted => Ok(Sent::Noted(wire::noted(&note.handoff))),
                other => Err(unfit(other)),
            },
            Incoming::Handoff(arrival) => {
                let wish =
                    request.configuration.as_ref().and_then(|c| c.task_push_notification_config.as_ref());
                if let Some(config) = wish {
                    self.check_push(peer, config)?;
                }
                let asked = Request::Handoff { agent: self.agent.clone(), arrival };
                let row = match self.host.ask(peer, asked).await {
                    Answer::Task(row) => row,
                    other => return Err(unfit(other)),
                };
                if let Some(config) = wish {
                    self.put_push(peer, row.id, config.clone()).await?;
                }
                Ok(Sent::Task(row))
            }
        }
    }

    /// The task of this name, if it is the asker's; to everybody else there is none.
    async fn task(&self, peer: PeerId, id: &str) -> Result<TaskRow, A2AError> {
        let id = TaskId::parse(id).ok_or_else(no_task)?;
        self.host.task(peer, id).await.map_err(refused)?.ok_or_else(no_task)
    }

    fn check_push(&self, peer: PeerId, config: &TaskPushNotificationConfig) -> Result<(), A2AError> {
        if !self.gate.identities.told().any(|told| told == peer) {
            return Err(A2AError::push_notification_not_supported());
        }
        no_tenant(&config.tenant)?;
        if !Url::parse(&config.url).is_ok_and(|url| self.gate.identities.may_push(peer, &url)) {
            return Err(A2AError::invalid_params("this address is not below one that was agreed"));
        }
        Ok(())
    }

    async fn put_push(
        &self,
        peer: PeerId,
        task: TaskId,
        mut config: TaskPushNotificationConfig,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        let id = config.id.take().filter(|id| !id.is_empty()).unwrap_or_else(|| task.to_string());
        config.id = Some(id.clone());
        config.task_id = task.to_string();
        config.tenant = None;
        let text =
            serde_json::to_string(&config).map_err(|_| A2AError::internal("this wish cannot be kept"))?;
        if text.len() > PUSH_BYTES_MAX {
            return Err(A2AError::invalid_params("the wish to be told is too long"));
        }
        let known = self.host.pushes(peer, task).await.map_err(refused)?;
        if known.len() >= PUSHES_MAX && known.iter().all(|row| row.id != id) {
            return Err(A2AError::invalid_params("no more places where this task's end is told; delete one"));
        }
        match self.host.ask(peer, Request::Push(PushRow { peer, task, id, config: text })).await {
            Answer::Refused(refusal) => Err(refused(refusal)),
            Answer::Task(_) | Answer::Noted => Ok(config),
        }
    }

    async fn pushes(&self, peer: PeerId, task: &str) -> Result<Vec<TaskPushNotificationConfig>, A2AError> {
        let row = self.task(peer, task).await?;
        let rows = self.host.pushes(peer, row.id).await.map_err(refused)?;
        Ok(rows.iter().filter_map(|row| serde_json::from_str(&row.config).ok()).collect())
    }

    fn stream(&self, peer: PeerId, row: TaskRow, follow: Follow) -> Result<Stream, A2AError> {
        let open = self.gate.stream(peer).ok_or_else(|| later("as many streams are open as may be"))?;
        Ok(follow.stream(row, open))
    }

    fn follow(&self, peer: PeerId, task: TaskId) -> Follow {
        Follow::new(&self.host, peer, task)
    }
}

type Stream = BoxStream<'static, Result<StreamResponse, A2AError>>;

#[async_trait]
impl RequestHandler for Door {
    async fn send_message(
        &self,
        _: &ServiceParams,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, A2AError> {
        let peer = asker()?;
        let row = match self.take(peer, &request).await? {
            Sent::Noted(message) => return Ok(SendMessageResponse::Message(message)),
            Sent::Task(row) => row,
        };
        let at_once =
            request.configuration.is_some_and(|configuration| configuration.return_immediately == Some(true));
        // One more who waits than may is told how the task stands now.
        let open = if at_once || row.state.is_terminal() { None } else { self.gate.stream(peer) };
        let Some(_open) = open else { return Ok(SendMessageResponse::Task(wire::task(&row))) };
        let left_ms = row.deadline_ms.saturating_sub((self.gate.clock)()).min(self.gate.limits.wait_ms_max);
        let ended = self.follow(peer, row.id).end(Duration::from_millis(left_ms)).await.map_err(refused)?;
        Ok(SendMessageResponse::Task(wire::task(&ended.unwrap_or(*row))))
    }

    async fn send_streaming_message(
        &self,
        _: &ServiceParams,
        request: SendMessageRequest,
    ) -> Result<Stream, A2AError> {
        let peer = asker()?;
        match self.take(peer, &request).await? {
            Sent::Noted(message) => Ok(Box::pin(stream::iter([Ok(StreamResponse::Message(message))]))),
            Sent::Task(row) => {
                let follow = self.follow(peer, row.id);
                let now = follow.look().await.map_err(refused)?;
                self.stream(peer, now.unwrap_or(*row), follow)
            }
        }
    }

    async fn get_task(&self, _: &ServiceParams, request: GetTaskRequest) -> Result<Task, A2AError> {
        no_tenant(&request.tenant)?;
        Ok(wire::task(&self.task(asker()?, &request.id).await?))
    }

    async fn list_tasks(
        &self,
        _: &ServiceParams,
        request: ListTasksRequest,
    ) -> Result<ListTasksResponse, A2AError> {
        let peer = asker()?;
        no_tenant(&request.tenant)?;
        let size = resolve_page_size(request.page_size);
        let state =
            request.status.filter(|state| *state != a2a::TaskState::Unspecified).map(|state| known(&state));
        if state == Some(None) {
            return Ok(ListTasksResponse {
                tasks: Vec::new(),
                next_page_token: String::new(),
                page_size: size as i32,
                total_size: 0,
            });
        }
        let after = match request.page_token.filter(|token| !token.is_empty()) {
            Some(token) => Some(
                place(&token).ok_or_else(|| A2AError::invalid_params("no page is known by this token"))?,
            ),
            None => None,
        };
        let filter = Filter {
            context: request.context_id.filter(|context| !context.is_empty()),
            state: state.flatten(),
            changed_since_ms: request.status_timestamp_after.map(|at| at.timestamp_millis().max(0) as u64),
            limit: size + 1,
            after,
        };
        let (mut rows, total) = self.host.tasks(peer, filter).await.map_err(refused)?;
        let is_last = rows.len() <= size;
        rows.truncate(size);
        let next = rows.last().filter(|_| !is_last).map(|row| format!("{}.{}", row.changed_ms, row.id));
        let mut tasks: Vec<Task> = rows.iter().map(wire::task).collect();
        if request.include_artifacts != Some(true) {
            tasks.iter_mut().for_each(|task| task.artifacts = None);
        }
        Ok(ListTasksResponse {
            tasks,
            next_page_token: next.unwrap_or_default(),
            page_size: size as i32,
            total_size: total.try_into().unwrap_or(i32::MAX),
        })
    }

    async fn cancel_task(&self, _: &ServiceParams, request: CancelTaskRequest) -> Result<Task, A2AError> {
        let peer = asker()?;
        no_tenant(&request.tenant)?;
        let row = self.task(peer, &request.id).await?;
        if row.state.is_terminal() {
            return Err(A2AError::new(error_code::TASK_NOT_CANCELABLE, "the task has ended"));
        }
        match self.host.ask(peer, Request::Cancel(row.id)).await {
            Answer::Task(row) => Ok(wire::task(&row)),
            other => Err(unfit(other)),
        }
    }

    async fn subscribe_to_task(
        &self,
        _: &ServiceParams,
        request: SubscribeToTaskRequest,
    ) -> Result<Stream, A2AError> {
        let peer = asker()?;
        no_tenant(&request.tenant)?;
        let id = TaskId::parse(&request.id).ok_or_else(no_task)?;
        let follow = self.follow(peer, id);
        let row = follow.look().await.map_err(refused)?.ok_or_else(no_task)?;
        if row.state.is_terminal() {
            return Err(A2AError::unsupported_operation("the task has ended; get it instead"));
        }
        self.stream(peer, row, follow)
    }

    async fn create_push_config(
        &self,
        _: &ServiceParams,
        config: TaskPushNotificationConfig,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        let peer = asker()?;
        self.check_push(peer, &config)?;
        let row = self.task(peer, &config.task_id).await?;
        self.put_push(peer, row.id, config).await
    }

    async fn get_push_config(
        &self,
        _: &ServiceParams,
        request: GetTaskPushNotificationConfigRequest,
    ) -> Result<TaskPushNotificationConfig, A2AError> {
        no_tenant(&request.tenant)?;
        let configs = self.pushes(asker()?, &request.task_id).await?;
        configs.into_iter().find(|config| config.id.as_ref() == Some(&request.id)).ok_or_else(no_task)
    }

    async fn list_push_configs(
        &self,
        _: &ServiceParams,
        request: ListTaskPushNotificationConfigsRequest,
    ) -> Result<ListTaskPushNotificationConfigsResponse, A2AError> {
        no_tenant(&request.tenant)?;
        // There are so few that one page holds them.
        let configs = self.pushes(asker()?, &request.task_id).await?;
        Ok(ListTaskPushNotificationConfigsResponse { configs, next_page_token: None })
    }

    async fn delete_push_config(
        &self,
        _: &ServiceParams,
        request: DeleteTaskPushNotificationConfigRequest,
    ) -> Result<(), A2AError> {
        let peer = asker()?;
        no_tenant(&request.tenant)?;
        let row = self.task(peer, &request.task_id).await?;
        match self.host.ask(peer, Request::DropPush { task: row.id, id: request.id }).await {
            Answer::Refused(refusal) => Err(refused(refusal)),
            Answer::Task(_) | Answer::Noted => Ok(()),
        }
    }

    async fn get_extended_agent_card(
        &self,
        _: &ServiceParams,
        request: GetExtendedAgentCardRequest,
    ) -> Result<AgentCard, A2AError> {
        asker()?;
        no_tenant(&request.tenant)?;
        Ok(self.card.clone())
    }
}

/// Who asks is who has proved it, not who is named.
fn no_tenant(tenant: &Option<String>) -> Result<(), A2AError> {
    match tenant.as_deref() {
        None | Some("") => Ok(()),
        Some(_) => Err(A2AError::invalid_params("there are no tenants here; leave `tenant` out")),
    }
}

fn no_task() -> A2AError {
    A2AError::new(error_code::TASK_NOT_FOUND, "no such task")
}

/// An error that says by its word why.
fn fault(code: i32, word: &str, message: String) -> A2AError {
    let word = [("word".to_owned(), word.to_owned())].into();
    let details = vec![TypedDetail::error_info(a2a::error_reason(code), PROTOCOL_DOMAIN, Some(word))];
    A2AError::new(code, message).with_details(details)
}

fn refused(refusal: Refusal) -> A2AError {
    match refusal.word {
        _ if refusal.is_transient => later(refusal.to_string()),
        "not-found" => no_task(),
        word => fault(error_code::INVALID_PARAMS, word, refusal.to_string()),
    }
}

fn unfit(answer: Answer) -> A2AError {
    match answer {
        Answer::Refused(refusal) => refused(refusal),
        Answer::Task(_) | Answer::Noted => A2AError::internal("answered by something else"),
    }
}

fn known(state: &a2a::TaskState) -> Option<TaskState> {
    match state {
        a2a::TaskState::Working => Some(TaskState::Working),
        a2a::TaskState::Completed => Some(TaskState::Completed),
        a2a::TaskState::Failed => Some(TaskState::Failed),
        a2a::TaskState::Canceled => Some(TaskState::Canceled),
        a2a::TaskState::Rejected => Some(TaskState::Rejected),
        _ => None,
    }
}

/// The place behind which a page begins.
fn place(token: &str) -> Option<(u64, TaskId)> {
    let (changed, id) = token.split_once('.')?;
    Some((changed.parse().ok()?, TaskId::parse(id)?))
}
