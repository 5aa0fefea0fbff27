//! Tasks that have ended and may not be on the disk yet. They are synced together, as many as have ended meanwhile, while
//! other tasks go on; what is kept of their calls stays until then.

use std::{num::NonZeroUsize, time::Duration};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::{
    ledger::{Ledger, LedgerError},
    outcomes::Outcomes,
};

type Syncing = BoxFuture<'static, Result<(), LedgerError>>;

/// How long ended tasks are gathered.
const GATHER: Duration = Duration::from_millis(20);

/// Tasks that have ended and are to be synced, by number.
pub(super) struct Ends {
    /// From one sync to the next, at least.
    gather: Duration,
    /// When the next may begin.
    next: Instant,
    ended: Vec<u64>,
    /// Those whose records are being synced.
    syncing: Option<(Vec<u64>, Syncing)>,
}

impl Ends {
    /// Of a session with so many tasks at a time: where there are several, each sync waits for more to end, as syncing
    /// takes something from all that goes on. One alone has nobody to wait for.
    pub(super) fn of(jobs: NonZeroUsize) -> Self {
        let gather = if jobs.get() > 1 { GATHER } else { Duration::ZERO };
        Ends { gather, next: Instant::now(), ended: vec![], syncing: None }
    }

    pub(super) fn push(&mut self, task: u64) {
        self.ended.push(task);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.syncing.is_none()
    }

    /// Those whose records are on the disk, in the order in which they ended. Broken off, it goes on where it was.
    pub(super) async fn synced(
        &mut self,
        ledger: &Ledger,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<u64>, LedgerError> {
        if self.syncing.is_none() {
            sleep_until(self.next).await;
            self.next = Instant::now() + self.gather;
        }
        let ended = &mut self.ended;
        let begin = || (std::mem::take(ended), ledger.sync(outcomes.unsynced()));
        let (_, sync) = self.syncing.get_or_insert_with(begin);
        let synced = sync.await;
        let (ends, _) = self.syncing.take().expect("it was awaited");
        synced.map(|()| ends)
    }
}
