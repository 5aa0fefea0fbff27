use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use a2a::{StreamResponse, TaskPushNotificationConfig};
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{self, HeaderValue},
    redirect::Policy,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore},
};

use super::{Identities, Tap, identity::is_public};
use crate::{
    door::{Answer, Host, Request},
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

/// In how many places a peer may be told at a time; others wait.
const TOLD_MAX: usize = 16;

/// How many ended tasks of a peer are remembered; beyond, the store is asked.
const ENDED_MAX: usize = 1_024;

/// Tells the owners of tasks of their ends, where they want to be told. What was told, or given up after some tries, is
/// dropped from the store: who crashes in between tells again, so that whoever can be reached is told at least once.
pub struct Pusher {
    http: Client,
    host: Weak<dyn Host>,
    identities: Identities,
    tap: Option<Arc<Tap>>,
    owners: BTreeMap<PeerId, Owner>,
}

/// A peer that wants to be told.
struct Owner {
    ended: Mutex<Ended>,
    news: Notify,
    turns: Arc<Semaphore>,
    /// What it is being told: a task, and the name of the place.
    telling: Mutex<BTreeSet<(TaskId, String)>>,
}

/// Tasks that have ended, of which it is to be told.
#[derive(Default)]
struct Ended {
    tasks: BTreeSet<TaskId>,
    /// Whether there are more, which the store knows.
    and_more: bool,
}

impl Pusher {
    /// Tells of what `host` keeps, and only where `identities` say that it may.
    pub fn new(
        host: &Arc<dyn Host>,
        identities: Identities,
        tap: Option<Arc<Tap>>,
    ) -> Result<Self, reqwest::Error> {
        let mut http = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .timeout(Duration::from_millis(TELL_MS_MAX));
        if !identities.tells_private() {
            http = http.dns_resolver(Arc::new(PublicOnly));
        }
        let owner = |peer| {
            let ended = Mutex::new(Ended { tasks: BTreeSet::new(), and_more: true });
            let turns = Arc::new(Semaphore::new(TOLD_MAX));
            (peer, Owner { ended, news: Notify::new(), turns, telling: Mutex::default() })
        };
        let owners = identities.told().map(owner).collect();
        Ok(Pusher { http: http.build()?, host: Arc::downgrade(host), identities, tap, owners })
    }

    /// A task has ended: tell of it. Returns at once.
    pub fn ended(&self, peer: PeerId, task: TaskId) {
        let Some(owner) = self.owners.get(&peer) else { return };
        let mut ended = lock(&owner.ended);
        if ended.tasks.len() < ENDED_MAX {
            ended.tasks.insert(task);
        } else {
            ended.and_more = true;
        }
        owner.news.notify_one();
    }

    /// Tell of what has ended, beginning with what an earlier process left untold.
    pub fn start(self: &Arc<Self>, runtime: &Handle) {
        for peer in self.owners.keys() {
            runtime.spawn(Arc::clone(self).serve(*peer));
        }
    }

    async fn serve(self: Arc<Self>, peer: PeerId) {
        let owner = &self.owners[&peer];
        loop {
            let Ended { tasks, and_more } = std::mem::take(&mut *lock(&owner.ended));
            if tasks.is_empty() && !and_more {
                owner.news.notified().await;
            }
            for task in tasks {
                let Some(host) = self.host.upgrade() else { return };
                match host.pushes(peer, task).await {
                    Ok(pushes) => self.begin(owner, pushes).await,
                    Err(_) => lock(&owner.ended).and_more = true,
                }
            }
            if and_more {
                // What is being told is in the store too, until it was told.
                drop(owner.turns.acquire_many(TOLD_MAX as u32).await);
                let Some(host) = self.host.upgrade() else { return };
                match host.untold(peer, ENDED_MAX).await {
                    Ok(pushes) => {
                        lock(&owner.ended).and_more |= pushes.len() == ENDED_MAX;
                        self.begin(owner, pushes).await;
                    }
                    Err(_) => {
                        lock(&owner.ended).and_more = true;
                        wait(0).await;
                    }
                }
            }
        }
    }

    /// Begin to tell, as turns come free.
    async fn begin(self: &Arc<Self>, owner: &Owner, pushes: Vec<PushRow>) {
        for push in pushes {
            let Ok(turn) = Arc::clone(&owner.turns).acquire_owned().await else { return };
            if lock(&owner.telling).insert((push.task, push.id.clone())) {
                let pusher = Arc::clone(self);
                tokio::spawn(async move {
                    pusher.tell(&push).await;
                    pusher.forget(&push).await;
                    lock(&pusher.owners[&push.peer].telling).remove(&(push.task, push.id));
                    drop(turn);
                });
            }
        }
    }

    /// Tell until it is taken, or has been tried often enough.
    async fn tell(&self, push: &PushRow) {
        let Some(host) = self.host.upgrade() else { return };
        let Ok(Some(row)) = host.task(push.peer, push.task).await else { return };
        drop(host);
        let Ok(body) = serde_json::to_vec(&StreamResponse::Task(wire::task(&row))) else { return };
        let Ok(config) = serde_json::from_str::<TaskPushNotificationConfig>(&push.config) else { return };
        // What was agreed when it was kept may have changed since.
        let url = Url::parse(&config.url).ok().filter(|url| self.identities.may_push(push.peer, url));
        let Some(url) = url else { return };
        for tries in 0..TRIES_MAX {
            if tries > 0 {
                wait(tries - 1).await;
            }
            let mut telling = self
                .http
                .post(url.clone())
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.clone());
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

    /// It is told no more.
    async fn forget(&self, push: &PushRow) {
        let mut tries = 0;
        while let Some(host) = self.host.upgrade() {
            let request = Request::DropPush { task: push.task, id: push.id.clone() };
            if !matches!(host.ask(push.peer, request).await, Answer::Refused(_)) {
                return;
            }
            drop(host);
            wait(tries).await;
            tries = (tries + 1).min(TRIES_MAX);
        }
    }
}

async fn wait(tries: u32) {
    tokio::time::sleep(Duration::from_millis(WAIT_MS << tries)).await;
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The system's names, of which those that lead to private addresses lead nowhere: a name is looked at as it is when it is
/// gone to, whatever it was before.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// A value that is not shown; empty where it could not stand in a header.
fn sensitive(text: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_of_this_machine_leads_nowhere() {
        let found = PublicOnly.resolve("localhost".parse().unwrap()).await.unwrap();
        assert_eq!(found.count(), 0);
    }
}
