use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use a2a::{StreamResponse, TaskPushNotificationConfig};
use reqwest::{Client, Url, header, header::HeaderValue, redirect::Policy};
use tokio::{runtime::Handle, sync::Semaphore};

use super::{Identities, Tap};
use crate::{
    door::Host,
    ids::{PeerId, TaskId},
    store::PushRow,
    wire,
};

/// How often the end of a task is told to somebody who does not take it.
const TRIES_MAX: u32 = 6;

/// How long the first wait is; each is twice the one before.
const WAIT_MS: u64 = 500;

/// How long one telling may take.
const TELL_MS_MAX: u64 = 10_000;

/// How many may be told at a time; others wait.
const TOLD_MAX: usize = 32;

/// Tells the owners of tasks of their ends, where they want to be told: at least once where they can be reached, but not
/// for ever; they can still look.
pub struct Pusher {
    http: Client,
    host: Weak<dyn Host>,
    identities: Identities,
    tap: Option<Arc<Tap>>,
    turns: Semaphore,
    runtime: Handle,
}

impl Pusher {
    /// Tells of what `host` keeps, and only where `identities` say that it may.
    pub fn new(
        host: &Arc<dyn Host>,
        identities: Identities,
        tap: Option<Arc<Tap>>,
        runtime: Handle,
    ) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(Duration::from_millis(TELL_MS_MAX))
            .build()?;
        let turns = Semaphore::new(TOLD_MAX);
        Ok(Pusher { http, host: Arc::downgrade(host), identities, tap, turns, runtime })
    }

    /// A task has ended: tell of it. Returns at once.
    pub fn ended(self: &Arc<Self>, peer: PeerId, task: TaskId) {
        let pusher = Arc::clone(self);
        self.runtime.spawn(async move {
            let Some(host) = pusher.host.upgrade() else { return };
            let Ok(Some(row)) = host.task(peer, task).await else { return };
            let Ok(pushes) = host.pushes(peer, task).await else { return };
            let Ok(body) = serde_json::to_vec(&StreamResponse::Task(wire::task(&row))) else { return };
            for push in pushes {
                let (pusher, body) = (Arc::clone(&pusher), body.clone());
                pusher.runtime.clone().spawn(async move { pusher.tell(&push, &body).await });
            }
        });
    }

    async fn tell(&self, push: &PushRow, body: &[u8]) {
        let Ok(config) = serde_json::from_str::<TaskPushNotificationConfig>(&push.config) else { return };
        let url = Url::parse(&config.url).ok();
        let may = |url: &Url| self.identities.of(push.peer).is_some_and(|identity| identity.may_push_to(url));
        let Some(url) = url.filter(may) else { return };
        for tries in 0..TRIES_MAX {
            if tries > 0 {
                tokio::time::sleep(Duration::from_millis(WAIT_MS << (tries - 1))).await;
            }
            let Ok(_turn) = self.turns.acquire().await else { return };
            let mut telling = self
                .http
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.to_vec());
            if let Some(token) = &config.token {
                telling = telling.header("A2A-Notification-Token", sensitive(token));
            }
            if let Some(known) = &config.authentication
                && let Some(credentials) = &known.credentials
            {
                telling = telling
                    .header(header::AUTHORIZATION, sensitive(&format!("{} {credentials}", known.scheme)));
            }
            let Ok(request) = telling.build() else { return };
            let tap = self.tap.as_ref();
            let Ok(mut tapped) = tap.map(|tap| tap.begin(push.peer, None, &request)).transpose() else {
                return;
            };
            let Ok(told) = self.http.execute(request).await else { continue };
            if let Some(tapped) = &mut tapped {
                tapped.answered(told.status(), None);
            }
            if told.status().is_success() {
                return;
            }
        }
    }
}

/// A value that is not shown; empty where it could not stand in a header.
fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}
