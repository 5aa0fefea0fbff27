use std::{collections::VecDeque, sync::Arc, time::Duration};

use a2a::{A2AError, StreamResponse, TaskArtifactUpdateEvent, TaskStatusUpdateEvent};
use futures_util::stream::{self, BoxStream};
use tokio::{sync::watch, time::Instant};

use super::admit::Open;
use crate::{
    door::{Host, Refusal},
    ids::{PeerId, TaskId},
    store::TaskRow,
    wire,
};

/// Somebody who waits for news of a task.
pub(super) struct Follow {
    host: Arc<dyn Host>,
    peer: PeerId,
    task: TaskId,
    changes: watch::Receiver<()>,
}

impl Follow {
    /// Whatever changes from here on is news.
    pub(super) fn new(host: &Arc<dyn Host>, peer: PeerId, task: TaskId) -> Self {
        let changes = host.watch(peer, task);
        Follow { host: Arc::clone(host), peer, task, changes }
    }

    /// How the task stands.
    pub(super) async fn look(&self) -> Result<Option<TaskRow>, Refusal> {
        self.host.task(self.peer, self.task).await
    }

    /// Wait for news; whether there may be more.
    async fn news(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }

    /// The task once it has ended, or as it stands after so long.
    pub(super) async fn end(mut self, wait: Duration) -> Result<Option<TaskRow>, Refusal> {
        let until = Instant::now() + wait;
        loop {
            let row = self.look().await?;
            if row.as_ref().is_none_or(|row| row.state.is_terminal()) {
                return Ok(row);
            }
            match tokio::time::timeout_at(until, self.news()).await {
                Ok(true) => {}
                Ok(false) | Err(_) => return self.look().await,
            }
        }
    }

    /// The task as it stands in `row`, and each of its changes, to the last.
    pub(super) fn stream(
        self,
        row: TaskRow,
        open: Open,
    ) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        let is_over = row.state.is_terminal();
        let ready = VecDeque::from([StreamResponse::Task(wire::task(&row))]);
        let told = Told { follow: self, last: row, ready, is_over, _open: open };
        Box::pin(stream::unfold(told, |mut told| async {
            while told.ready.is_empty() && !told.is_over {
                told.next().await;
            }
            told.ready.pop_front().map(|event| (Ok(event), told))
        }))
    }
}

struct Told {
    follow: Follow,
    last: TaskRow,
    ready: VecDeque<StreamResponse>,
    is_over: bool,
    _open: Open,
}

impl Told {
    async fn next(&mut self) {
        let is_last = !self.follow.news().await;
        let Ok(Some(row)) = self.follow.look().await else {
            self.is_over = true;
            return;
        };
        self.is_over = is_last || row.state.is_terminal();
        if row.state == self.last.state && row.value == self.last.value {
            return;
        }
        let task = wire::task(&row);
        let (task_id, context_id) = (task.id, task.context_id);
        for artifact in task.artifacts.into_iter().flatten() {
            self.ready.push_back(StreamResponse::ArtifactUpdate(TaskArtifactUpdateEvent {
                task_id: task_id.clone(),
                context_id: context_id.clone(),
                artifact,
                append: None,
                last_chunk: Some(true),
                metadata: None,
            }));
        }
        self.ready.push_back(StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id,
            context_id,
            status: task.status,
            metadata: None,
        }));
        self.last = row;
    }
}
